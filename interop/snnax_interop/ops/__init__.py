"""What tensor functions compute, in JAX, with torch's arguments, defaults and gradients.

Each operation is one function with `@op`, in the file of its kind: `F.relu`, `torch.relu` and `Tensor.relu_` are all
"relu". The decorator says by which names torch knows it, which axes of its operands it mixes, and torch's gradient
where JAX has another (`relu` and `abs` at 0, `clamp` at a bound). `OPS` has all of them by all of their names; `bind`
brings a call into normal form. Operations see the batch axis where torch saw it.
"""

from . import (
    _activations as _activations,
    _arithmetic as _arithmetic,
    _attention as _attention,
    _elementary as _elementary,
    _factories as _factories,
    _indexing as _indexing,
    _norms as _norms,
    _pools as _pools,
    _products as _products,
    _recurrent as _recurrent,
    _reductions as _reductions,
    _shapes as _shapes,
)
from ._casts import floats_are as floats_are
from ._layers import conv_padding as conv_padding
from ._shapes import Steps as Steps
from .binding import bind as bind
from .mixing import Mixing as Mixing, Operand as Operand
from .names import base_name as base_name, op_name as op_name
from .registry import OPS as OPS, Op as Op, op as op


# Operations that act on each element by itself: they need no batch axis to be right.
ELEMENTWISE = frozenset(each.name for each in OPS.values() if each.axes == "elementwise")
# Operations that work along axes, with the rule for which.
WORK = {each.name: each.axes for each in OPS.values() if isinstance(each.axes, Mixing)}
