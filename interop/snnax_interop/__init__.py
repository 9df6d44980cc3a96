"""The bridge that brings spiking networks from PyTorch to snnax and back."""

from types import ModuleType as _ModuleType

from ._core import check_core as _check_core
from ._optional import require as _require


_check_core()
_require("torch", "interop")

from .checkpoint.hidden_states import hidden_states as hidden_states  # noqa: E402
from .checkpoint.hyperparameters import (  # noqa: E402
    hyperparameters as hyperparameters,
    load_hyperparameters as load_hyperparameters,
    save_hyperparameters as save_hyperparameters,
)
from .checkpoint.load_state_dict import load_state_dict as load_state_dict  # noqa: E402
from .convert import from_torch as from_torch  # noqa: E402
from .data.events import PackEvents as PackEvents  # noqa: E402
from .data.loader import JaxLoader as JaxLoader  # noqa: E402
from .data.padding import PadSequences as PadSequences  # noqa: E402
from .data.workers import worker_options as worker_options  # noqa: E402
from .errors import (  # noqa: E402
    EquivalenceError as EquivalenceError,
    InteropError as InteropError,
    MissingDependencyError as MissingDependencyError,
    RecordingError as RecordingError,
    TransferError as TransferError,
    UnsupportedModuleError as UnsupportedModuleError,
    UnsupportedOptionError as UnsupportedOptionError,
    WeightMappingError as WeightMappingError,
)
from .runtime.converted import Converted as Converted, state_dict as state_dict  # noqa: E402
from .runtime.report import ConversionReport as ConversionReport  # noqa: E402
from .transfer.trees import to_jax as to_jax, to_torch as to_torch  # noqa: E402
from .verify.equivalence import check_equivalence as check_equivalence  # noqa: E402
from .verify.report import EquivalenceReport as EquivalenceReport  # noqa: E402


def __dir__() -> list[str]:
    # Of the modules that importing this one made its attributes, these alone have public names of their own.
    public = {"data", "errors", "transfer"}
    return sorted(
        name
        for name, value in globals().items()
        if not name.startswith("_") and (name in public or not isinstance(value, _ModuleType))
    )
