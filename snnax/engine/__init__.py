"""How a model runs over time."""

from ._contract import (
    AbstractContainer as AbstractContainer,
    AbstractFunction as AbstractFunction,
    AbstractLayer as AbstractLayer,
)
from ._layerwise import layerwise as layerwise
from ._sequence import Repeat as Repeat
from ._step import init_states as init_states, step as step
from ._stepwise import stepwise as stepwise
from ._wiring import Previous as Previous, Source as Source, State as State, Wiring as Wiring, wire as wire
