"""Checkpoints: any pytree to one file and back, exactly; never by unpickling."""

from ._checkpoint import load as load, read_metadata as read_metadata, save as save
from ._checkpoints import Checkpoints as Checkpoints
from ._error import CheckpointError as CheckpointError
