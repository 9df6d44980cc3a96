"""What values parameters may have."""

from ._domain import (
    FRACTION as FRACTION,
    KEPT as KEPT,
    NOT_NEGATIVE as NOT_NEGATIVE,
    NUMBER as NUMBER,
    POSITIVE as POSITIVE,
    Domain as Domain,
    check as check,
    parameters_as_given as parameters_as_given,
)
