"""The axes that each operation says it mixes, against what torch's own function does when its operands are changed.

`test_ops` shows that an operation is torch's function on its rows. Here the functions of these rows run on changed
operands, in torch itself: which results follow from which places, and whether one place alone gives its part of the
result. An axis is mixed where it does not; a rule names these axes, all of them and no others.
"""

import collections
import dataclasses
import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_ops import ROWS, SPIKES, X, Y, _outputs

from snnax_interop.ops import OPS, Mixing, Operand, bind


DRAWS = 4
INDEX = np.array([[[2, 0, 1, 2], [0, 0, 1, 2]], [[1, 2, 0, 2], [1, 1, 0, 0]]])
# Where test_ops has indices for a part of the other axes, which cuts these: here for all of them. And both axes pooled.
_PARTIAL = {"gather", "scatter", "scatter_add"}
_ROWS = [
    *(row for row in ROWS if row[0] not in _PARTIAL),
    ("gather", torch.gather, (X, 1, INDEX), {}),
    ("scatter", torch.scatter, (X, 1, INDEX, Y[:, :2].copy()), {}),
    ("scatter", torch.scatter, (X, 1, INDEX), {"value": 0.5}),
    ("scatter_add", torch.scatter_add, (X, 1, INDEX, Y[:, :2].copy()), {}),
    ("getitem", lambda x, i: x[i], (X, (slice(None), np.array([2, 0, 1]))), {}),
    ("getitem", lambda x, i: x[i], (X, (..., np.array([3, 0, 1]))), {}),
    ("adaptive_max_pool2d", F.adaptive_max_pool2d, (SPIKES, 3), {}),
]  # fmt: skip


class Experiment:
    """A row's function, and where its results follow from which places of its operands."""

    def __init__(self, row):
        name, self.function, args, kwargs = row
        self.args, self.kwargs = _apart(list(args)), _apart(dict(kwargs))
        name, self.bound = bind(name, self.args, self.kwargs)
        self.op = OPS[name]
        self.operands = {}
        for parameter, value in self.bound.items():
            for position, each in enumerate(value if isinstance(value, list | tuple) else [value]):
                if isinstance(each, np.ndarray):
                    self.operands[Operand(parameter, each.ndim, position)] = each
        self.random = np.random.default_rng(0)
        self.results = self.run(self.operands)
        self.changed = {(operand, axis): self._changed(operand, axis) for operand, axis in self.axes()}
        self.same = {key: self._same_places(*key) for key in self.changed}

    def axes(self):
        """All operands with each of their axes that has several places."""
        for operand, array in self.operands.items():
            yield from ((operand, axis) for axis, size in enumerate(array.shape) if size > 1)

    def run(self, arrays):
        """The results for other arrays, by operand."""
        values = {id(self.operands[operand]): array for operand, array in arrays.items()}

        def tensor(value):
            if isinstance(value, np.ndarray):
                return torch.from_numpy(np.ascontiguousarray(values[id(value)]))
            return type(value)(map(tensor, value)) if type(value) in (list, tuple) else value

        options = {name: tensor(value) for name, value in self.kwargs.items()}
        return [each.numpy() for each in _outputs(self.function(*map(tensor, self.args), **options))]

    def draw(self):
        """Other operands, of the same values; indices stay, so that they go on to name the places that they do."""
        return {
            operand: array if array.dtype == np.int64 else self.random.choice(array.ravel(), array.shape)
            for operand, array in self.operands.items()
        }

    def _changed(self, operand, axis):
        """For each result, where it changes with the place along the axis; the place comes first."""
        size = self.operands[operand].shape[axis]
        found = [np.zeros((size, *x.shape), bool) for x in self.results]
        for arrays in (self.draw() for _ in range(DRAWS)):
            before = self.run(arrays)
            for place in range(size):
                other = arrays[operand].copy()
                there = (*(slice(None),) * axis, place)
                other[there] = self.random.choice(other.ravel(), other[there].shape)
                for seen, a, b in zip(found, before, self.run(arrays | {operand: other}), strict=True):
                    seen[place] |= (a != b) & ~((a != a) & (b != b))
        return found

    def matters(self, operand, axis):
        return any(seen.any() for seen in self.changed[operand, axis])

    def _same_places(self, operand, axis):
        """For each result, the axes along which a place follows from the same place of the operand, and no other."""
        return [
            {
                along
                for along, size in enumerate(seen.shape[1:])
                if size == len(seen) and not any(np.delete(part, n, along).any() for n, part in enumerate(seen))
            }
            for seen in self.changed[operand, axis]
        ]  # fmt: skip

    def is_reordered(self, operand, axis):
        """Whether a result has the places of an axis along one of its own, in another order."""
        for seen, same in zip(self.changed[operand, axis], self.same[operand, axis], strict=True):
            for along, size in enumerate(seen.shape[1:]):
                others = tuple(each for each in range(1, seen.ndim) if each != along + 1)
                found = [set(np.flatnonzero(part)) for part in seen.any(others)]
                if not same and size == len(seen) and all(len(each) == 1 for each in found):
                    return True
        return False

    def commutes(self, operand, axis, along):
        """Whether one place of the operand gives that place of each result, along these axes of the results.

        With it goes that place of all other operands that lie along the same axes.
        """
        arrays = self.draw()
        whole = self.run(arrays)
        taken = {}
        for each, own in self.axes():
            lies = all(map(set.__contains__, self.same[each, own], along))
            level = all(x.ndim - place == each.rank - own for x, place in zip(whole, along, strict=True))
            same_size = len(self.changed[each, own][0]) == len(self.changed[operand, axis][0])
            if same_size and lies and (level or self.matters(each, own)):
                taken.setdefault(each, own)
        taken[operand] = axis
        for place in range(self.operands[operand].shape[axis]):
            try:
                found = self.run(arrays | {each: np.take(arrays[each], [place], own) for each, own in taken.items()})
            except (RuntimeError, IndexError, AssertionError):  # the other operands, or sizes, do not fit one place
                return False
            for a, b, each in zip(found, whole, along, strict=True):
                wanted = np.take(b, [place], each)
                if a.shape != wanted.shape or not np.allclose(a, wanted, rtol=1e-9, atol=1e-9, equal_nan=True):
                    return False
        return True

    def is_mixed(self, operand, axis):
        return not any(self.commutes(operand, axis, al) for al in itertools.product(*self.same[operand, axis]))

    def moves(self):
        """Whether the results hold elements of the operands, and nothing else."""
        kept = {each: x for each, x in self.operands.items() if x.dtype != np.float64}
        numbers = itertools.count(1)
        new = {each: np.array([float(next(numbers)) for _ in x.ravel()]).reshape(x.shape)
               for each, x in self.operands.items() if each not in kept}  # fmt: skip
        values = [x.ravel() for x in new.values()]
        return all(np.isin(each, np.concatenate(values)).all() for each in self.run(kept | new))


def _apart(tree):
    """The structure with a copy of each array, so that no two are one."""
    if isinstance(tree, np.ndarray):
        return tree.copy()
    if isinstance(tree, dict):
        return {name: _apart(value) for name, value in tree.items()}
    return type(tree)(map(_apart, tree)) if type(tree) in (list, tuple) else tree


def faults(experiments, axes):
    """What is not as `axes` say it."""
    found = []
    shown, said = collections.defaultdict(set), collections.defaultdict(set)
    for e in experiments:
        op = dataclasses.replace(e.op, axes=axes)
        moving = axes == "shape" or (isinstance(axes, Mixing) and axes.moves)
        if moving and not e.moves():
            found.append("the results are not elements of the operands")
        for operand, axis in e.axes():
            where = f"{operand.name}[{operand.position}] along axis {axis}"
            declared = axis in op.mixed_axes(operand, e.bound)
            if axes == "elementwise":
                along = [x.ndim - operand.rank + axis for x in e.results]
                lies = all(map(set.__contains__, e.same[operand, axis], along))
                found += [] if lies and e.commutes(operand, axis, along) else [f"{where}: not each element by itself"]
            elif axes == "constant":
                found += [f"{where}: it matters"] if e.matters(operand, axis) else []
            elif moving:
                found += [f"{where}: in another order"] if not declared and e.is_reordered(operand, axis) else []
            else:
                mixed = e.is_mixed(operand, axis)
                found += [f"{where}: mixed, and not named"] if mixed and not declared else []
                key = (operand.name, operand.rank)
                shown[key] |= {axis} if mixed else set()
                said[key] |= {axis} if declared else set()
    return found + [
        f"{key[0]}: {said[key] - shown[key]} named, and not mixed" for key in said if said[key] - shown[key]
    ]


@pytest.fixture(autouse=True)
def one_thread():
    """Small tensors: more threads take longer."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _bound_name(row):
    return bind(row[0], *row[2:])[0]


def _experiments(name):
    with torch.no_grad():
        return [Experiment(row) for row in _ROWS if _bound_name(row) == name]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
@pytest.mark.parametrize("name", sorted(set(map(_bound_name, _ROWS))))
def test_the_axes_that_an_operation_mixes_are_those_that_it_names(name):
    assert faults(_experiments(name), OPS[name].axes) == []


@pytest.mark.parametrize(
    ("name", "axes", "fault"),
    [
        ("softmax", "elementwise", "input[0] along axis 1: not each element by itself"),
        ("softmax", "separate", "input[0] along axis 1: mixed, and not named"),
        ("sum", "separate", "input[0] along axis 2: mixed, and not named"),
        ("tril", "separate", "input[0] along axis 1: mixed, and not named"),
        ("tril", "shape", "the results are not elements of the operands"),
        ("index_add", "separate", "input[0] along axis 1: mixed, and not named"),
        ("flip", "shape", "input[0] along axis 0: in another order"),
        ("roll", "separate", "input[0] along axis 1: mixed, and not named"),
        ("prelu", "elementwise", "weight[0] along axis 0: not each element by itself"),
        ("relu", "constant", "input[0] along axis 0: it matters"),
        ("getitem", "shape", "input[0] along axis 1: in another order"),
        ("scaled_dot_product_attention", OPS["tril"].axes, "key[0] along axis 1: mixed, and not named"),
        ("cumsum", OPS["group_norm"].axes, "input: {1, 2} named, and not mixed"),
    ],
)  # fmt: skip
def test_axes_that_are_not_true_are_found(name, axes, fault):
    assert fault in faults(_experiments(name), axes)
