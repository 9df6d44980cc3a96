"""What wires layers into a model, functions as nodes of it, and what can be said of a whole model."""

from ._function import Flatten as Flatten, Lambda as Lambda, Value as Value, flatten as flatten
from ._graph import Graph as Graph
from ._model import AbstractModel as AbstractModel
from ._nodes import shared_by_caller as shared_by_caller
from ._parallel import Parallel as Parallel, Residual as Residual
from ._sequential import Sequential as Sequential
from ._trainable import trainable as trainable
