"""How a model runs over time."""

from ._errors import NodeError as NodeError
from ._layerwise import (
    checkpointed as checkpointed,
    layerwise as layerwise,
    parallel as parallel,
    walk as walk,
)
from ._nodes import (
    AbstractContainer as AbstractContainer,
    AbstractFunction as AbstractFunction,
    AbstractLayer as AbstractLayer,
    AbstractLinearLayer as AbstractLinearLayer,
    AbstractSequenceLayer as AbstractSequenceLayer,
    add as add,
)
from ._recurrence import linear_recurrence as linear_recurrence
from ._sequence import (
    Repeat as Repeat,
    input_sequences as input_sequences,
    scan_layer as scan_layer,
    step_keys as step_keys,
    time_slice as time_slice,
)
from ._step import apply as apply, infer_shapes as infer_shapes, init_states as init_states, step as step
from ._stepwise import stepwise as stepwise
from ._wiring import Previous as Previous, Source as Source, State as State, Wiring as Wiring, wire as wire
