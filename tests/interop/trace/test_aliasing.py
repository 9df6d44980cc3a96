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
from snnax_interop.trace.record import record
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
    assert_same(replay(tape, *inputs), expected)
    computed = [
        entry for entry in tape.entries if entry.converter is None and not all(map(tape.is_constant, entry.made))
    ]
    assert {op_name(base_name(entry.target)) for entry in computed} <= OPS.keys()
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


FEW_VIEWS = ("the tensor itself", "index", "view", "transpose", "part of a view", "unbind")
FEW_WRITES = ("v[0] =", "*=", "copy_ one", "nn.ReLU(inplace=True)")
PAIRS = [(view, write) for view in VIEWS for write in WRITES if view in FEW_VIEWS or write in FEW_WRITES]


@pytest.mark.parametrize(("view", "write"), PAIRS)
def test_a_write_is_a_value_of_all_that_looks_at_the_memory(view, write):
    differentiable = view not in OF_SEVERAL and write not in WITHOUT_GRADIENT
    check(written_through(view, write, single_views), gradients=differentiable)


@pytest.mark.parametrize("view", VIEWS)
def test_a_write_is_a_value_of_each_of_several_views(view):
    check(written_through(view, "+=", several_views), gradients=False)


def gates(net, a, b):
    """Parts of one tensor, each written over, in the way of a recurrent cell."""
    gate = a.flatten(1) * 1.0
    i, f, g, o = gate.chunk(4, 1)
    i.sigmoid_()
    f.sigmoid_()
    g.tanh_()
    o.mul_(i)
    return f * g + o, i, gate


def filled_parts(net, a, b):
    rec = torch.zeros(3, 2, 4)
    for slot, value in zip(rec, a.unbind(1), strict=True):
        slot.copy_(value).mul_(2)
    return rec


def filled_list(net, a, b):
    """The tensor is read through parts that were taken before it was filled."""
    rec = torch.zeros(2, 3, 4)
    parts = rec.unbind(0)
    rec += a
    return [part * 2 for part in parts]


def added_in_place(net, a, b):
    rec = torch.zeros(3, 2, 4)
    for t in range(3):
        rec[t] += a[:, t]
        rec[t, 0] *= 2
    return rec


def nested(net, a, b):
    x = a * 1.0
    x[1].view(2, 6)[0].unsqueeze(0)[:, 2:4] += b[:2]
    return x, x[1] * 2


def reshaped_in_place(net, a, b):
    x = (a * 1.0).flatten(1)
    whole = x + 0
    x.unsqueeze_(1).mul_(2)
    x.transpose_(0, 1)
    x[0, 1] = 3.0
    x.squeeze_()
    return x, x * 2, whole


def written_twice(net, a, b):
    x = a * 1.0
    row, column = x[0], x[:, 0]
    row += 1
    column *= 2
    row -= column[0] * 1
    return x, row, column


def written_and_read(net, a, b):
    """Each value that a tensor had is read at its time."""
    x = a * 1.0
    seen = [x[0] * 1]
    for number in range(3):
        x[:, number] = b[:4]
        seen.append(x[0].sum(-1))
        x.mul_(0.5)
        seen.append(x.view(-1)[:5] * 1)
    return seen


def moved_along(net, a, b):
    x = a * 1.0
    x[:, 1:] = x[:, :-1].clone()
    x[:, 0] = 0.0
    return x


def into_the_input(net, a, b):
    a[0].clamp_(max=0.5)
    a.mul_(2)
    return a, b


def whole_numbers(net, a, b):
    count = torch.zeros(2, 4, dtype=torch.int64)
    count[0] += (a[0, 0] > 0).long()
    count.add_(a[:, 1] > 0)
    count[1] *= 3
    return count, count[1] * 2


def spread(net, a, b):
    """Views that repeat elements, and windows, are read again."""
    x = a[:, :1] * 1.0
    wide, windows = x.expand(2, 5, 4), x.unfold(2, 2, 1)
    x[0] = b[:4]
    return x, wide * 2, windows * 2


def detached(net, a, b):
    x = a * 1.0
    kept = x.detach()
    x[0] = b[:12].view(3, 4)
    state = (x * 2).detach()
    state[:, 0] = 0.0
    state *= 2
    return x, kept * 1, state


def swapped(net, a, b):
    x = a * 1.0
    x[0], x[1] = x[1] * 1, x[0] * 1
    return x


def with_indices(net, a, b):
    x = a * 1.0
    x[:, torch.tensor([0, 2])] = b[:4]
    x[1][torch.tensor([1]), 2:] += 5.0
    x.index_put_((torch.tensor([0]), torch.tensor([1])), b[:4])
    return x


def through_out(net, a, b):
    buffer = torch.zeros(3, 2, 4)
    for t in range(3):
        torch.mul(a[:, t], 2.0, out=buffer[t])
    values, places = torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.int64)
    torch.max(a, 2, out=(values, places))
    torch.add(a.transpose(1, 2), 1.0, out=(other := torch.zeros(2, 4, 3)))
    return buffer, values, places, other.view(-1)


FUNCTIONS = (
    gates, filled_parts, filled_list, added_in_place, nested, reshaped_in_place, written_twice, written_and_read,
    moved_along, into_the_input, whole_numbers, spread, detached, swapped, with_indices, through_out,
)  # fmt: skip
# Those that torch takes gradients of.
DIFFERENTIABLE = {
    added_in_place, nested, reshaped_in_place, written_and_read, moved_along, detached, swapped, with_indices,
}  # fmt: skip


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_writes_of_many_kinds_follow_each_other(function):
    check(function, gradients=function in DIFFERENTIABLE)


def kinds(function, *shapes):
    tape = taped(Function(function), *map(torch.randn, shapes))
    return [entry.kind[0] for entry in tape.entries]


def test_a_loop_that_fills_a_tensor_is_one_call_per_step():
    def function(net, a):
        rec = torch.zeros(3, 4)
        for t in range(3):
            rec[t] = a[t] * 2
        return rec

    assert kinds(function, (3, 4)) == ["zeros", *["getitem", "mul", "setitem"] * 3]


def test_adding_to_a_place_is_one_write():
    assert kinds(lambda net, a: added_to_places(a), (3, 4)) == ["zeros", *["getitem", "add", "setitem"] * 3]


def added_to_places(a):
    rec = torch.zeros(3, 4)
    for t in range(3):
        rec[t] += a[t]
    return rec


def test_what_nobody_reads_is_not_on_the_tape():
    def function(net, a):
        x = a * 1.0
        part, other = x[0], x.view(-1)
        part.mul_(2)
        return part, other.shape[0]

    assert kinds(function, (3, 4)) == ["mul", "getitem", "reshape", "mul"]


def test_parts_that_a_write_does_not_touch_keep_their_values():
    def function(net, a):
        x = a * 1.0
        left, right, row = x[:, :2], x[:, 2:], x.t()[3]
        left.mul_(2)
        return left, right * 3, row * 3

    assert kinds(function, (3, 4)) == ["mul", "getitem", "getitem", "T", "getitem", "mul", "mul", "mul"]


class Kept(nn.Module):
    """Keeps two views of one tensor: what is written through one is read through the other."""

    def __init__(self):
        super().__init__()
        self.table = torch.zeros(4)
        self.half = self.table[:2]

    def forward(self, x):
        self.table.copy_(x)
        return self.half * 2


def test_constants_that_share_memory_in_unknown_ways_are_refused():
    with pytest.raises(RecordingError, match=r"(?s)shape \(2,\) shares memory with one that .*return self.half \* 2"):
        taped(Kept(), torch.ones(4))


# Networks


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.lif = nn.Linear(5, 6), snntorch.Leaky(beta=0.9)

    def start(self, x):
        return self.lif.reset_mem(), torch.zeros(x.size(0), x.size(1), 6)


class PartOfCurrent(Net):
    """Written through views of the current, in a time loop."""

    def forward(self, x):
        mem, rec = self.start(x)
        for t in range(x.size(0)):
            cur = self.fc(x[t])
            cur[:, 0].mul_(2)
            cur[:, 1:3] += 0.5
            rec[t], mem = self.lif(cur, mem)
        return rec, mem


class AddedRecord(Net):
    def forward(self, x):
        mem, rec = self.start(x)
        for t in range(x.size(0)):
            spk, mem = self.lif(self.fc(x[t]), mem)
            rec[t] += spk
        return rec


class SumRecord(Net):
    def forward(self, x):
        mem, rec = self.start(x)
        for t in range(x.size(0)):
            spk, mem = self.lif(self.fc(x[t]), mem)
            rec[t] = rec[t] + spk
        return rec


class PartOfState(Net):
    """A trace, written by slices, and read through a view that was taken before the loop."""

    def forward(self, x):
        mem, rec = self.start(x)
        h = torch.zeros(x.size(1), 6)
        left = h[:, :4]
        for t in range(x.size(0)):
            rec[t], mem = self.lif(self.fc(x[t]) + 0.3 * h, mem)
            h[:, :4] = rec[t][:, 2:] + 0.5 * left
        return rec, h


class CopiedSelect(Net):
    def forward(self, x):
        mem, rec = self.start(x)
        for t in range(x.size(0)):
            spk, mem = self.lif(self.fc(x[t]), mem)
            rec.select(0, t).copy_(spk).mul_(2)
        return rec


class FlatWrite(Net):
    def forward(self, x):
        mem, rec = self.start(x)
        for t in range(x.size(0)):
            cur = self.fc(x[t])
            cur.view(-1, 2, 3)[:, 0, 1:] = cur.detach()[:, :2] * 0.7
            rec[t], mem = self.lif(cur, mem)
            mem[:, :2].clamp_(min=-0.1)
        return rec, mem


@pytest.mark.parametrize("kind", [PartOfCurrent, AddedRecord, SumRecord, PartOfState, CopiedSelect, FlatWrite])
def test_networks_that_write_into_parts_of_tensors_convert(kind):
    torch.manual_seed(0)
    module = kind()
    converted = from_torch(module, (torch.rand(6, 3, 5) * 4,))
    other = torch.rand(9, 2, 5) * 4
    check_equivalence(module, converted, (other,)).raise_if_failed()
    spikes = leaves_of(module(other), torch.Tensor)[0]
    assert 0 < spikes.count_nonzero() < spikes.numel()
