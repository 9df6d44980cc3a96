"""Everything that goes into a model: neurons, containers, functions, and how they are wired."""

from ..engine import (
    AbstractContainer as AbstractContainer,
    AbstractFunction as AbstractFunction,
    AbstractLayer as AbstractLayer,
    Previous as Previous,
    State as State,
)
from ._decay import AbstractDecay as AbstractDecay, Factor as Factor, Rate as Rate
from ._firing import Firing as Firing
from ._function import Flatten as Flatten, Lambda as Lambda, Value as Value, flatten as flatten
from ._graph import Graph as Graph
from ._if import IF as IF, IFState as IFState
from ._li import LI as LI, LIState as LIState
from ._lif import LIF as LIF, LIFState as LIFState
from ._model import AbstractModel as AbstractModel
from ._sequential import Sequential as Sequential
