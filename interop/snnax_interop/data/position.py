"""Where the caller stands in a loader's epochs, and the plain dict that stores it."""

import operator
from dataclasses import dataclass
from typing import Any


@dataclass
class Position:
    """`batch` batches of epoch `epoch` have reached the caller; `begun`: an iterator of that epoch was handed out."""

    epoch: int = 0
    batch: int = 0
    begun: bool = False

    def finish(self) -> None:
        self.epoch, self.batch, self.begun = self.epoch + 1, 0, False

    def following(self) -> "Position":
        """Where the next iterator starts."""
        return Position(self.epoch + 1) if self.begun else Position(self.epoch, self.batch)


def to_state(position: Position, identity: dict[str, Any]) -> dict[str, Any]:
    """The position beside what the loader must have in common with the one that continues."""
    return {"epoch": position.epoch, "batch": position.batch, **identity}


def from_state(state: Any, identity: dict[str, Any]) -> Position:
    """The inverse of `to_state`. **Raises:** `ValueError` for anything else, and for another identity."""
    expected = to_state(Position(), identity)
    if not isinstance(state, dict) or set(state) != set(expected):
        found = sorted(map(str, state)) if isinstance(state, dict) else type(state).__name__
        raise ValueError(f"found a state of {found}; allowed: {sorted(expected)}, as JaxLoader.state_dict() returns it")
    try:
        # Whatever holds one integer counts as one: checkpoints make arrays of numbers
        values = {name: None if value is None else operator.index(value) for name, value in state.items()}
    except TypeError as error:
        raise ValueError(f"found the state {state}; allowed: integers; {error}") from error
    for name, value in identity.items():
        if values[name] != value and name == "order":
            raise ValueError(
                "the state is of a loader that draws its samples in another order; allowed: the shuffle, or the "
                "sampler and its options, of the loader that was saved"
            )
        if values[name] != value:
            raise ValueError(
                f"the state is of a loader with {name}={values[name]}; allowed: {name}={value}, as this loader has; "
                "make the loader as the one that was saved"
            )
    epoch, batch = values["epoch"], values["batch"]
    length = identity["length"]
    if epoch is None or batch is None or epoch < 0 or batch < 0 or (length is not None and batch > length):
        limit = "" if length is None else f" to {length}"
        raise ValueError(f"found epoch {epoch}, batch {batch}; allowed: an epoch from 0, a batch from 0{limit}")
    return Position(epoch, batch)
