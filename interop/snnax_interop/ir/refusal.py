"""Why a pass does not return a program."""

import dataclasses
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from ..errors import RecordingError


_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class Refusal:
    """What a pass returns in the place of a program: the error that says where, what was found, what is allowed.

    A lesser result carries the refusal of the better one into the report.
    """

    error: RecordingError

    def __str__(self) -> str:
        """The reason on one line."""
        return str(self.error).splitlines()[0]


def attempt(pass_: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T | Refusal:
    """What a pass returns, or its refusal."""
    try:
        return pass_(*args, **kwargs)
    except RecordingError as error:
        return Refusal(error)
