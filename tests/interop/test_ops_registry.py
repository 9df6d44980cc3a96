"""Calls in normal form, and what the registry of operations takes."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_ops import ROWS, X, Y
from torch.overrides import TorchFunctionMode

from snnax_interop.ops import OPS, bind, floats_are, op, registry


VALUES = {
    "x": X,
    "y": Y,
    "m": X > 0,
    "p": np.abs(X) + 0.5,
    "i": np.array([[[2, 0, 1, 2], [0, 0, 1, 2]], [[1, 2, 0, 2], [1, 1, 0, 0]]]),
    "n": np.array([[0, 2], [1, 1]]),
    "w": Y[0],
    "image": np.arange(96.0).reshape(2, 3, 4, 4) % 7,
    "a": Y[0, :, 0].copy(),
    "b": np.abs(Y[1, :, 0]) + 0.5,
    "c": Y[1, 1].copy(),
}
# The operation, its arguments by name, and calls that are this one.
FORMS = [
    ("reshape", {"input": "x", "shape": (4, 6)},
     ["x.view(4, 6)", "x.view((4, 6))", "x.view([4, 6])", "x.reshape(4, 6)", "torch.reshape(x, (4, 6))",
      "torch.reshape(x, shape=[4, 6])", "x.view(torch.Size((4, 6)))", "x.reshape(shape=(4, 6))",
      "x.view(size=(4, 6))"]),
    ("reshape", {"input": "x", "shape": (-1,)}, ["x.view(-1)", "x.reshape((-1,))"]),
    ("permute", {"input": "x", "dims": (2, 0, 1)},
     ["x.permute(2, 0, 1)", "x.permute((2, 0, 1))", "torch.permute(x, [2, 0, 1])", "x.permute(dims=(2, 0, 1))"]),
    ("transpose", {"input": "x", "dim0": 0, "dim1": 1},
     ["x.transpose(0, 1)", "torch.transpose(x, 0, dim1=1)", "x.swapaxes(0, 1)", "torch.swapaxes(x, axis0=0, axis1=1)",
      "torch.swapdims(x, 0, 1)", "x.transpose_(0, 1)"]),
    ("T", {"input": "w"}, ["w.T", "w.t()", "torch.t(w)"]),
    ("mT", {"input": "x"}, ["x.mT", "x.adjoint()"]),
    ("squeeze", {"input": "x", "dim": (0, 1)}, ["x.squeeze(0, 1)", "x.squeeze((0, 1))", "torch.squeeze(x, (0, 1))"]),
    ("squeeze", {"input": "x", "dim": (1,)}, ["x.squeeze(1)", "torch.squeeze(x, dim=1)", "x.squeeze(axis=1)"]),
    ("squeeze", {"input": "x"}, ["x.squeeze()", "torch.squeeze(x)"]),
    ("expand", {"input": "x", "size": (5, -1, -1, 4)}, ["x.expand(5, -1, -1, 4)", "x.expand((5, -1, -1, 4))"]),
    ("repeat", {"input": "x", "repeats": (2, 1, 3)}, ["x.repeat(2, 1, 3)", "x.repeat((2, 1, 3))"]),
    ("tile", {"input": "x", "dims": (2, 3)}, ["x.tile(2, 3)", "x.tile((2, 3))", "torch.tile(x, (2, 3))"]),
    ("flip", {"input": "x", "dims": (0, 2)}, ["x.flip(0, 2)", "x.flip((0, 2))", "torch.flip(x, [0, 2])"]),
    ("unflatten", {"input": "x", "dim": 2, "sizes": (2, -1)},
     ["x.unflatten(2, (2, -1))", "torch.unflatten(x, 2, (2, -1))"]),
    ("sum", {"input": "x", "dim": 1, "keepdim": True},
     ["x.sum(1, True)", "x.sum(1, keepdim=True)", "torch.sum(x, dim=1, keepdim=True)",
      "torch.sum(x, axis=1, keepdims=True)"]),
    ("sum", {"input": "x"}, ["x.sum()", "torch.sum(x)", "torch.sum(input=x)", "torch.sum(a=x)"]),
    ("sum", {"input": "x", "dim": (0, 2)},
     ["x.sum((0, 2))", "torch.sum(x, (0, 2))", "x.sum(axis=(0, 2))", "x.sum([0, 2])"]),
    ("mean", {"input": "m", "dim": 0, "dtype": torch.float64}, ["m.mean(0, dtype=torch.float64)"]),
    ("cumsum", {"input": "m", "dim": 1, "dtype": torch.float64}, ["m.cumsum(1, dtype=torch.float64)"]),
    ("count_nonzero", {"input": "x", "dim": (0, 1)}, ["x.count_nonzero(0, 1)", "torch.count_nonzero(x, (0, 1))"]),
    ("max", {"input": "x"}, ["x.max()", "torch.max(x)"]),
    ("max", {"input": "x", "dim": 1}, ["x.max(1)", "torch.max(x, dim=1)", "x.max(dim=1)"]),
    ("min", {"input": "x", "dim": 1, "keepdim": True}, ["x.min(1, True)", "torch.min(x, 1, keepdim=True)"]),
    ("maximum", {"input": "x", "other": "y"}, ["torch.max(x, y)", "x.max(y)", "x.max(other=y)", "torch.maximum(x, y)"]),
    ("minimum", {"input": "x", "other": "y"}, ["x.min(y)", "torch.minimum(x, other=y)"]),
    ("var", {"input": "x"}, ["x.var()", "torch.var(x)"]),
    ("var", {"input": "x", "correction": 0}, ["x.var(False)", "torch.var(x, unbiased=False)", "x.var(correction=0)"]),
    ("var", {"input": "x", "dim": 1, "correction": 0, "keepdim": True},
     ["x.var(1, False, True)", "torch.var(x, 1, unbiased=False, keepdim=True)",
      "x.var(dim=1, correction=0, keepdim=True)"]),
    ("std", {"input": "x", "dim": (0, 1), "correction": 1},
     ["x.std((0, 1), True)", "torch.std(x, dim=(0, 1), correction=1)"]),
    ("std_mean", {"input": "x", "dim": 1, "correction": 0}, ["torch.std_mean(x, 1, False)"]),
    ("norm", {"input": "x", "p": 2, "dim": 1}, ["x.norm(2, 1)", "torch.norm(x, 2, 1, False)"]),
    ("linalg_norm", {"input": "x", "dim": 1}, ["torch.linalg.norm(x, dim=1)"]),
    ("linalg_vector_norm", {"input": "x", "ord": 1, "dim": 1},
     ["torch.linalg.vector_norm(x, 1, 1)", "torch.linalg.vector_norm(x=x, ord=1, dim=1)"]),
    ("softmax", {"input": "x", "dim": 1},
     ["x.softmax(1)", "torch.softmax(x, dim=1)", "torch._softmax(x, 1, False)", "x.softmax(axis=1)"]),
    ("softmax", {"input": "m", "dim": 1, "dtype": torch.float64},
     ["m.softmax(1, torch.float64)", "torch.softmax(m, 1, torch.float64)", "F.softmax(m, 1, dtype=torch.float64)"]),
    ("add", {"input": "x", "other": "y"},
     ["x + y", "torch.add(x, y)", "x.add(other=y)", "x.__iadd__(y)", "x.add_(y)",
      "torch.add(x, y, out=torch.empty(0))"]),
    ("add", {"input": "x", "other": 2}, ["2 + x", "x + 2"]),
    ("add", {"input": "x", "other": "y", "alpha": 3}, ["x.add(y, alpha=3)", "torch.add(x, y, alpha=3)"]),
    ("sub", {"input": 2, "other": "x"}, ["2 - x", "x.__rsub__(2)", "torch.rsub(x, 2)", "torch.rsub(input=x, other=2)"]),
    ("sub", {"input": "y", "other": "x", "alpha": 3}, ["torch.rsub(x, y, alpha=3)"]),
    ("div", {"input": 2, "other": "p"}, ["2 / p", "p.__rtruediv__(2)"]),
    ("div", {"input": "x", "other": "p"},
     ["x / p", "torch.divide(x, p)", "x.true_divide(p)", "x.div_(p)", "x.__itruediv__(p)"]),
    ("pow", {"input": 2, "exponent": "x"}, ["2 ** x", "torch.pow(2, x)"]),
    ("floor_divide", {"input": 7, "other": "p"}, ["7 // p"]),
    ("remainder", {"input": 7, "other": "p"}, ["7 % p"]),
    ("remainder", {"input": "x", "other": "p"}, ["x % p", "torch.remainder(x, p)", "x.remainder_(p)"]),
    ("matmul", {"input": "w", "other": "c"}, ["w.mv(c)", "torch.mv(w, vec=c)", "w @ c", "torch.matmul(w, c)"]),
    ("matmul", {"input": "a", "other": "b"}, ["a @ b", "torch.dot(a, b)", "a.vdot(b)", "torch.dot(a, tensor=b)"]),
    ("matmul", {"input": "b", "other": "w"}, ["w.__rmatmul__(b)", "b @ w"]),
    ("bitwise_and", {"input": "m", "other": True}, ["True & m", "m & True"]),
    ("bitwise_left_shift", {"input": 1, "other": "n"}, ["1 << n"]),
    ("where", {"condition": "m", "input": "x", "other": "y"},
     ["torch.where(m, x, y)", "x.where(m, y)", "torch.where(m, x, other=y)"]),
    ("clamp", {"input": "x", "min": 0}, ["x.clamp(0)", "x.clip(min=0)", "x.clamp_(0)", "torch.clip(x, 0)"]),
    ("relu", {"input": "x"},
     ["x.relu()", "F.relu(x)", "F.relu(x, True)", "torch.relu_(x)", "F.relu(x, inplace=False)"]),
    ("hardtanh", {"input": "x", "min_val": -2.0, "max_val": 2.0},
     ["F.hardtanh(x, -2.0, 2.0)", "F.hardtanh(x, -2.0, max_val=2.0)"]),
    ("dropout", {"input": "x", "training": False},
     ["F.dropout(x, 0.5, False)", "torch.dropout(x, 0.5, train=False)", "F.dropout(x, training=False)"]),
    ("gt", {"input": "x", "other": 0}, ["x > 0", "torch.greater(x, 0)", "x.gt(0)"]),
    ("neg", {"input": "x"}, ["-x", "torch.negative(x)"]),
    ("bitwise_not", {"input": "m"}, ["~m", "torch.bitwise_not(m)"]),
    ("abs", {"input": "x"}, ["abs(x)", "x.absolute()", "torch.abs(x)"]),
    ("clone", {"input": "x"}, ["x.clone()", "x.clone(memory_format=torch.contiguous_format)", "x.contiguous()", "+x"]),
    ("detach", {"input": "x"}, ["x.detach()", "x.data"]),
    ("to", {"input": "x", "dtype": torch.int64},
     ["x.to(torch.int64)", "x.to('cpu', torch.int64)", "x.to(dtype=torch.int64)", "x.type(torch.int64)",
      "x.to(torch.int64, True)", "x.to(torch.device('cpu'), dtype=torch.int64, copy=True)",
      "x.type(dtype=torch.int64)"]),
    ("to", {"input": "x"}, ["x.to('cpu')", "x.to(torch.device('cpu'))", "x.to(device='cpu', non_blocking=True)"]),
    ("to", {"input": "x", "other": "n"}, ["x.to(n)"]),
    ("split", {"input": "x", "split_size_or_sections": 3, "dim": 2},
     ["x.split(3, 2)", "torch.split(x, 3, 2)", "torch.split(tensor=x, split_size_or_sections=3, dim=2)",
      "x.split(split_size=3, dim=2)"]),
    ("split", {"input": "x", "split_size_or_sections": (1, 2), "dim": 1},
     ["x.split([1, 2], dim=1)", "x.split((1, 2), 1)"]),
    ("chunk", {"input": "x", "chunks": 2, "dim": -1}, ["x.chunk(2, -1)", "torch.chunk(x, 2, dim=-1)"]),
    ("tensor_split", {"input": "x", "indices_or_sections": (1, 2), "dim": 1},
     ["x.tensor_split((1, 2), 1)", "torch.tensor_split(x, indices=(1, 2), dim=1)"]),
    ("unfold", {"input": "x", "dimension": 2, "size": 3, "step": 1}, ["x.unfold(2, 3, 1)"]),
    ("im2col", {"input": "image", "kernel_size": 3}, ["F.unfold(image, 3)"]),
    ("cat", {"tensors": ("x", "y"), "dim": 1},
     ["torch.cat([x, y], 1)", "torch.concat([x, y], dim=1)", "torch.cat([x, y], axis=1)"]),
    ("broadcast_tensors", {"tensors": ("x", "w")}, ["torch.broadcast_tensors(x, w)"]),
    ("einsum", {"equation": "bij,ij->bi", "operands": ("x", "w")},
     ["torch.einsum('bij,ij->bi', x, w)", "torch.einsum('bij,ij->bi', [x, w])"]),
    ("getitem", {"input": "x", "index": (slice(None), 1)}, ["x[:, 1]"]),
    ("getitem", {"input": "x", "index": [1, 0]}, ["x[[1, 0]]"]),
    ("getitem", {"input": "x", "index": (slice(None), [2, 0])}, ["x[:, [2, 0]]"]),
    ("setitem", {"input": "x", "index": 0, "value": "w"}, ["x.__setitem__(0, w)"]),
    ("scatter", {"input": "x", "dim": 1, "index": "i", "src": 0.5},
     ["x.scatter(1, i, 0.5)", "x.scatter(1, i, value=0.5)", "torch.scatter(x, 1, i, 0.5)"]),
    ("gather", {"input": "x", "dim": 1, "index": "i"}, ["x.gather(1, i)", "torch.gather(x, 1, i, sparse_grad=False)"]),
    ("embedding", {"input": "n", "weight": "w"}, ["torch.embedding(w, n)", "torch.embedding(weight=w, indices=n)"]),
    ("batch_norm", {"input": "image", "running_mean": "a", "running_var": "b", "weight": "b", "bias": "a"},
     ["torch.batch_norm(image, b, a, a, b, False, 0.1, 1e-5, False)", "F.batch_norm(image, a, b, b, a)"]),
    ("one_hot", {"tensor": "n", "num_classes": 3}, ["F.one_hot(n, 3)"]),
    ("zeros", {"size": (2, 3)}, ["torch.zeros(2, 3)", "torch.zeros((2, 3))", "torch.zeros(size=[2, 3], device='cpu')"]),
    ("zeros", {"size": ()}, ["torch.zeros(())", "torch.zeros([])"]),
    ("new_zeros", {"input": "x", "size": (2, 3)}, ["x.new_zeros(2, 3)", "x.new_zeros((2, 3), requires_grad=False)"]),
    ("zeros_like", {"input": "x"}, ["torch.zeros_like(x)", "torch.zeros_like(x, memory_format=torch.preserve_format)"]),
    ("arange", {"end": 7}, ["torch.arange(7)", "torch.arange(end=7)"]),
    ("arange", {"start": 2, "end": 7}, ["torch.arange(2, 7)", "torch.arange(start=2, end=7)"]),
    ("arange", {"start": 2, "end": 7, "step": 2}, ["torch.arange(2, 7, 2)", "torch.arange(2, 7, step=2)"]),
]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Marker:
    """In the place of a tensor."""

    name: str


def _marked(value):
    """A structure with markers in the place of the names of tensors."""
    if isinstance(value, dict):
        return {key: _marked(each) for key, each in value.items()}
    if isinstance(value, str) and value in VALUES:
        return Marker(value)
    return type(value)(map(_marked, value)) if type(value) in (list, tuple) else value


class _LastCall(TorchFunctionMode):
    """Keeps the last call that is made under it."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.call = (func, args, kwargs or {})
        return func(*args, **(kwargs or {}))


def _called(expression):
    """What an expression of tensors gives, and its outermost call with names in the place of tensors."""
    tensors = {name: torch.from_numpy(value.copy()) for name, value in VALUES.items()}
    names = {id(tensor): name for name, tensor in tensors.items()}

    def named(value):
        if isinstance(value, torch.Tensor):
            return Marker(names.get(id(value), "another"))
        return type(value)(map(named, value)) if type(value) in (list, tuple) else value

    with _LastCall() as mode:
        result = eval(expression, {"torch": torch, "F": F, **tensors})
    function, args, kwargs = mode.call
    return result, (function, named(args), {name: named(value) for name, value in kwargs.items()})


@pytest.mark.parametrize(
    ("expression", "name", "bound"),
    [(expression, name, bound) for name, bound, expressions in FORMS for expression in expressions],
    ids=lambda value: value if isinstance(value, str) and " " in value else "",
)
def test_all_forms_of_a_call_are_one(expression, name, bound):
    _, call = _called(expression)
    assert bind(*call) == (name, _marked(bound))


def test_the_normal_form_computes_what_torch_does():
    # Of the first of its forms; as one program, which compiles in a fraction of the time of its parts.
    def filled(value, arrays):
        if isinstance(value, Marker):
            return arrays[value.name]
        return type(value)(filled(each, arrays) for each in value) if type(value) in (list, tuple) else value

    @jax.jit
    def run(arrays):
        return [
            OPS[name].function(**{key: filled(value, arrays) for key, value in _marked(bound).items()})
            for name, bound, _ in FORMS
        ]

    wanted = [_called(expressions[0])[0] for _, _, expressions in FORMS]
    with jax.enable_x64(True), floats_are(jnp.float64):
        found = run({name: jnp.asarray(value) for name, value in VALUES.items()})
    for a, (_, _, expressions), b in zip(found, FORMS, wanted, strict=True):
        if ".__setitem__(" in expressions[0]:  # returns nothing; what it does is checked in test_ops
            continue
        pairs = list(zip(a, b, strict=True)) if isinstance(a, tuple) else [(a, b)]
        for x, y in pairs:
            y = y.double() if y.dtype == torch.float32 else y
            np.testing.assert_allclose(np.asarray(x), y.numpy(), rtol=1e-12, atol=1e-12, err_msg=expressions[0])


def test_every_row_of_test_ops_has_a_normal_form_which_is_what_its_function_is_given():
    for name, _, args, kwargs in ROWS:
        bound_name, bound = bind(name, args, kwargs)
        given = OPS[bound_name]
        seen = dataclasses.replace(given, function=functools.wraps(given.function)(lambda **named: named))
        assert set(bound) <= set(given.signature.parameters)
        assert seen(**bound) is not None and list(seen(**bound)) == list(bound), name  # as it is: no name changes
        if OPS[name] is given:
            again = seen(*args, **kwargs)
            assert list(again) == list(bound), name
            assert all(again[key] is bound[key] or again[key] == bound[key] for key in bound)


@pytest.mark.parametrize(
    ("name", "args", "kwargs", "message"),
    [
        ("relu", ("x",), {"slope": 1}, r"relu is called with 'slope'. Allowed: relu\(input, inplace\)"),
        ("relu", ("x", True, 3), {}, "relu is called with 3 arguments in a row"),
        ("add", ("x", "y"), {"other": 3}, "add is called with 'other' twice"),
        ("add", ("x",), {}, "add is called with no 'other'"),
        ("where", ("m",), {}, r"where is called with no 'input'. Allowed: where\(condition, input, other\)"),
        ("view", ("x", torch.int32), {}, r"called with a type. Allowed: sizes; x.to\(dtype\) casts"),
        ("repeat_interleave", ("i",), {}, "no 'repeats'"),
        ("embedding_bag", ("x",), {}, "no 'weight'"),
        (torch.embedding_bag, ("w", "i", "o"), {}, "embedding_bag is called with 3 arguments in a row"),
    ],
)
def test_a_form_that_an_operation_does_not_take_says_what_it_takes(name, args, kwargs, message):
    with pytest.raises(TypeError, match=message):
        bind(name, args, kwargs)


def test_a_function_that_is_no_operation_is_named():
    with pytest.raises(LookupError, match="no operation is called bernoulli"):
        bind(torch.Tensor.bernoulli_, ("x",), {})


def test_an_operation_says_which_axes_it_mixes_or_is_none():
    with pytest.raises(TypeError, match="axes"):
        op("forgotten")(lambda input: input)  # pyright: ignore[reportCallIssue]
    with pytest.raises(TypeError, match="'all'"):
        op("forgotten", axes="all")  # pyright: ignore[reportArgumentType]
    assert "forgotten" not in OPS


def test_two_operations_have_no_name_in_common(monkeypatch):
    monkeypatch.setattr(registry, "OPS", dict(OPS))
    with pytest.raises(ValueError, match="clip is an operation already: clamp"):
        op("new", "clip", axes="elementwise")(lambda input: input)


def test_names_lead_to_parameters_that_exist():
    for each in OPS.values():
        known = {*each.signature.parameters, "cudnn_enabled", "cudnn_enable"}
        assert not each.names.keys() & each.signature.parameters.keys(), each.name
        assert {*each.names.values(), *itertools.chain(*each.orders.values())} <= known, each.name
        assert each.variadic is None or each.variadic in known, each.name
