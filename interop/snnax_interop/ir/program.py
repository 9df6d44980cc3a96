"""The program of a network: what a torch module computes, at any batch size and length.

It knows nothing of runs, tapes or JAX: it is made by `symbols.unify`, rewritten by the passes behind it, printed by
`ir.printer`, run by torch itself in `ir.evaluator`, and becomes native graphs in `lower`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from .invariants import check
from .printer import printed
from .regions import Call, Constant, Item, Loop, Value


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """What a network computes: `body` makes `outputs` of `inputs`, `parameters` (by state_dict name) and `constants`.

    `outputs` is the structure that forward returns. `length` is the input, and its axis, whose size is T; None where
    the network runs as long as it always does. `shortest` is the least T at which it does the same. `example` holds the
    batch size and the length that the program was made from.
    """

    name: str
    inputs: Mapping[Value, str]
    parameters: Mapping[Value, str]
    constants: Mapping[Value, Constant]
    body: tuple[Item, ...]
    outputs: Any
    example: tuple[int, int]
    length: tuple[int, int] | None = None
    shortest: int = 1

    def __str__(self) -> str:
        return printed(self.name, self.inputs, self.parameters, self.constants, self.body, self.outputs)

    def check(self) -> None:
        """Whether the invariants hold.

        **Raises:** `AssertionError` that names the one that does not, and where.
        """
        check((*self.inputs, *self.parameters, *self.constants), self.body, self.outputs)

    @property
    def calls(self) -> list[Call]:
        """All calls, those in loops too."""
        return [call for item in self.body for call in (item.body if isinstance(item, Loop) else (item,))]

    @property
    def loops(self) -> list[Loop]:
        return [item for item in self.body if isinstance(item, Loop)]

    @property
    def makers(self) -> dict[Value, Item]:
        """Which call or loop makes a value, outside of loops."""
        return {value: item for item in self.body for value in item.made}
