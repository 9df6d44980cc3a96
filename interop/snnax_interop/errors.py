"""What the bridge raises. Every message says where (module path), what was found, what is allowed, what to do."""

from typing import Any


class InteropError(Exception):
    """Root of the bridge's errors.

    `path` is the dotted path of the module concerned (`""`: the whole network), `framework` the framework it came from.
    """

    def __init__(self, message: str, *, path: str = "", framework: str = ""):
        super().__init__(f"at '{path}': {message}" if path else message)
        self.path = path
        self.framework = framework


class UnsupportedModuleError(InteropError):
    """A module that has no exact counterpart here."""


class UnsupportedOptionError(InteropError):
    """A module that is known, with an option or value that cannot be converted exactly."""


class RecordingError(InteropError):
    """Control flow or an idiom of `forward` that cannot be represented; the message shows the source line."""


class LengthError(RecordingError):
    """Something that is known for the length of the example only."""


class WeightMappingError(InteropError):
    """Parameters that do not fit: missing, unexpected, or of another shape or dtype."""


class TransferError(InteropError):
    """An array that cannot cross between torch and JAX as asked."""


class MissingDependencyError(InteropError, ImportError):
    """A package that is not installed; the message holds the pip line that installs it."""


class EquivalenceError(InteropError):
    """Both sides computed different things, or nothing that could differ. `report` holds the comparison."""

    def __init__(self, message: str, *, report: Any = None, path: str = "", framework: str = ""):
        super().__init__(message, path=path, framework=framework)
        self.report = report
