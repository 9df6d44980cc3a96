"""Batches for JAX out of torch's data pipelines."""

from .events import PackEvents as PackEvents
from .loader import JaxLoader as JaxLoader
from .padding import PadSequences as PadSequences
from .workers import worker_options as worker_options
