"""A write is a value on the tape: of what is written, of what it is a part of, and of all in the same memory."""

import contextlib

import pytest
import snntorch
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils import _pytree as pytree

from snnax_interop import RecordingError, check_equivalence, from_torch
from snnax_interop.frameworks import registry_for
from snnax_interop.ops import OPS, op_name
from snnax_interop.trace.recorder import record
from snnax_interop.trace.tape import Ref, base_name, leaves_of, refs


class Function(nn.Module):
    """A function as a network."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.relu, self.hardtanh = nn.ReLU(inplace=True), nn.Hardtanh(inplace=True)

    def forward(self, *inputs):
        return self.function(self, *inputs)


def taped(module, *inputs):
    return record(module, inputs, registry_for(module))


def replay(tape, *inputs):
    """What the calls of a tape compute from other inputs; none of them may write into what it is given."""
    values = dict(zip((ref.index for ref in tape.inputs), inputs, strict=True))

    def value(item):
        if not isinstance(item, Ref):
            return item
        assert item.index in values or tape.is_constant(item), "a value is used before it is made"
        return values.get(item.index, tape.tensors[item.index])

    for entry in tape.entries:
        args, kwargs = pytree.tree_map(value, (entry.args, entry.kwargs))
        given = leaves_of((args, kwargs), torch.Tensor)
        versions = [tensor._version for tensor in given]
        with torch.no_grad() if entry.no_grad else contextlib.nullcontext():
            results = leaves_of(entry.target(*args, **kwargs), torch.Tensor)
        assert [tensor._version for tensor in given] == versions, f"{entry.name} writes"
        for ref, result in zip(refs(entry.result), results, strict=True):
            assert ref.index not in values, "a value is made twice"
            assert result.shape == tape.shape(ref)
            values[ref.index] = result
    return pytree.tree_map(value, tape.result)


def check(function, *, gradients=True, others=((2, 3, 4), (24,))):
    """A function on inputs that its tape has not seen, against the tape."""
    torch.manual_seed(0)
    module = Function(function)
    tape = taped(module, *map(torch.randn, others))
    inputs = tuple(map(torch.randn, others))
    expected = module(*(x.clone() for x in inputs))
    assert not all(torch.equal(a, b) for a, b in zip(*(map(torch.clone, leaves_of(x, torch.Tensor)) for x in (
        expected, module(*(x.clone() * 0.9 for x in inputs)))), strict=True))  # fmt: skip
    assert_same(replay(tape, *inputs), expected)
    unknown = {op_name(base_name(entry.target)) for entry in tape.entries if entry.leaf is None} - OPS.keys()
    assert not unknown
    if gradients:
        assert_same(
            gradients_of(lambda *given: replay(tape, *given), inputs), gradients_of(module, inputs), exact=False
        )
    return tape


def gradients_of(function, inputs):
    given = [x.double().requires_grad_() for x in inputs]
    outputs = leaves_of(function(*given), torch.Tensor)
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(out.shape, generator=generator, dtype=torch.float64) for out in outputs]
    loss = sum((out * weight).sum() for out, weight in zip(outputs, weights, strict=True))
    return torch.autograd.grad(loss, given, allow_unused=True, materialize_grads=True)


def assert_same(found, expected, exact=True):
    found, expected = leaves_of(found, torch.Tensor), leaves_of(expected, torch.Tensor)
    assert len(found) == len(expected) > 0
    for a, b in zip(found, expected, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        assert torch.equal(a, b) if exact else torch.allclose(a, b)


# Views, as they are taken out of a tensor of shape (2, 3, 4)
VIEWS = {
    "the tensor itself": lambda x: x,
    "index": lambda x: x[1],
    "negative index": lambda x: x[:, -1],
    "index of the last axis": lambda x: x[..., 2],
    "slice": lambda x: x[:, 1:],
    "every second": lambda x: x[..., ::2],
    "new axis": lambda x: x[None, 0],
    "element": lambda x: x[1, 2, 3],
    "index that is a tensor": lambda x: x[torch.tensor(1)],
    "select": lambda x: x.select(-1, 1),
    "torch.select": lambda x: torch.select(x, dim=1, index=-1),
    "narrow": lambda x: x.narrow(1, 1, 2),
    "view": lambda x: x.view(6, 4),
    "view of all": lambda x: x.view(-1),
    "view_as": lambda x: x.view_as(torch.zeros(4, 6)),
    "reshape": lambda x: x.reshape(2, 12),
    "flatten": lambda x: x.flatten(1),
    "unflatten": lambda x: x.unflatten(2, (2, 2)),
    "ravel": lambda x: x.ravel(),
    "squeeze": lambda x: x.unsqueeze(1).squeeze(1),
    "squeeze of all": lambda x: x[:1].squeeze(),
    "unsqueeze": lambda x: x.unsqueeze(-1),
    "transpose": lambda x: x.transpose(0, 2),
    "swapaxes": lambda x: x.swapaxes(0, 1),
    "permute": lambda x: x.permute(2, 0, 1),
    "movedim": lambda x: x.movedim(0, -1),
    "t": lambda x: x[0].t(),
    "T": lambda x: x[1].T,
    "mT": lambda x: x.mT,
    "unbind": lambda x: x.unbind(1)[2],
    "iteration": lambda x: list(x)[1],
    "unpacking": lambda x: [*x[0]][2],
    "split": lambda x: x.split([1, 2], 1)[1],
    "split evenly": lambda x: torch.split(x, 3, dim=2)[1],
    "chunk": lambda x: x.chunk(2, -1)[1],
    "tensor_split": lambda x: x.tensor_split((1,), dim=1)[1],
    "hsplit": lambda x: x.hsplit((2,))[1],
    "diagonal": lambda x: x[0].diagonal(),
    "other diagonal": lambda x: x.diagonal(1, 2, 1),
    "part of a view": lambda x: x.view(6, 4)[1:4].t()[2],
    "view of a part": lambda x: x[1].view(2, 6)[:, 1:3],
    "part of parts": lambda x: x.unbind(0)[1].chunk(2, 1)[0][1],
    "rows in another order": lambda x: x.transpose(0, 1).select(0, 2).unsqueeze(0),
    "layer": lambda x: nn.functional.pad(x, (0, 0)) if x is None else x.flatten(0, 1).unflatten(0, (3, 2)),
}  # fmt: skip
# torch computes no gradients of writes through one of several views.
OF_SEVERAL = {
    "unbind", "iteration", "unpacking", "split", "split evenly", "chunk", "tensor_split", "hsplit", "part of parts",
}  # fmt: skip


def setitem(net, v, o):
    v[...] = o


def set_number(net, v, o):
    v[()] = 0.5


def set_part(net, v, o):
    if v.ndim:
        v[0] = o[0] * 2
    else:
        v.mul_(o)


def set_mask(net, v, o):
    v[o > 0] = 0.25


def set_indices(net, v, o):
    v.view(-1)[torch.tensor([0])] = 2.0 if not v.is_contiguous() else 3.0


def add(net, v, o):
    v += o


def subtract(net, v, o):
    v -= 0.5 * o


def multiply(net, v, o):
    v *= 0.9


def divide(net, v, o):
    v /= o * o + 1


def raise_to(net, v, o):
    v **= 2


def twice(net, v, o):
    v.mul_(0.9).add_(o, alpha=0.1)


def in_no_grad(net, v, o):
    with torch.no_grad():
        v.add_(1.0)


WRITES = {
    "v[...] =": setitem,
    "v[()] = 0.5": set_number,
    "v[0] =": set_part,
    "v[mask] =": set_mask,
    "+=": add,
    "-=": subtract,
    "*=": multiply,
    "/=": divide,
    "**=": raise_to,
    "mul_ add_": twice,
    "copy_": lambda net, v, o: v.copy_(o),
    "copy_ one": lambda net, v, o: v.copy_(o.sum()),
    "copy_ of bool": lambda net, v, o: v.copy_(o > 0),
    "fill_": lambda net, v, o: v.fill_(0.5),
    "fill_ with a tensor": lambda net, v, o: v.fill_(o.sum()),
    "zero_": lambda net, v, o: v.zero_(),
    "masked_fill_": lambda net, v, o: v.masked_fill_(o > 0, 0.3),
    "clamp_": lambda net, v, o: v.clamp_(-0.4, max=0.4),
    "sigmoid_": lambda net, v, o: v.sigmoid_(),
    "torch.relu_": lambda net, v, o: torch.relu_(v),
    "lerp_": lambda net, v, o: v.lerp_(o, 0.3),
    "addcmul_": lambda net, v, o: v.addcmul_(o, o, value=0.5),
    "gt_": lambda net, v, o: v.gt_(o),
    "add_ of bool": lambda net, v, o: v.add_(o > 0),
    "scatter_": lambda net, v, o: v.scatter_(0, torch.zeros_like(v[:1] if v.ndim else v, dtype=torch.int64), 2.0),
    "index_add_": lambda net, v, o: v.index_add_(0, torch.tensor([0]), o[:1] if v.ndim else o),
    "out=": lambda net, v, o: torch.mul(o, 3.0, out=v),
    "out= of bool": lambda net, v, o: torch.gt(o, 0.1, out=v),
    "F.relu(v, True)": lambda net, v, o: F.relu(v, True),
    "F.leaky_relu(inplace=True)": lambda net, v, o: F.leaky_relu(v, 0.2, inplace=True),
    "F.elu_": lambda net, v, o: F.elu_(v),
    "nn.ReLU(inplace=True)": lambda net, v, o: net.relu(v),
    "nn.Hardtanh(inplace=True)": lambda net, v, o: net.hardtanh(v),
}  # fmt: skip
# Comparisons have no gradient, and torch takes none of `out=`.
WITHOUT_GRADIENT = {"gt_", "out=", "out= of bool"}


def written_through(view, write, siblings):
    """What is seen in one memory, before and after a write through a view."""

    def function(net, a, b):
        x = a * 1.5
        before = x + 0
        taken = VIEWS[view](x)
        others = siblings(x)
        seen = taken + 0
        WRITES[write](net, taken, b[: taken.numel()].reshape(taken.shape))
        return before, seen, x * 2, taken * 2, VIEWS[view](x) * 2, [other * 2 for other in others]

    return function


def single_views(x):
    return [x[0], x[:, 1], x.view(-1), x.transpose(0, 1), x[1].view(-1)[3:5]]


def several_views(x):
    return [*x.unbind(2), *x.split([1, 2], 1)]


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("view", VIEWS)
def test_a_write_is_a_value_of_all_that_looks_at_the_memory(view, write):
    differentiable = view not in OF_SEVERAL and write not in WITHOUT_GRADIENT
    check(written_through(view, write, single_views), gradients=differentiable)


@pytest.mark.parametrize("view", VIEWS)
def test_a_write_is_a_value_of_each_of_several_views(view):
    check(written_through(view, "+=", several_views), gradients=False)
