"""Which tensors look at the same memory, and what a write through one of them makes of the others.

torch writes into memory; a tape knows values only. So a write is a new value of the tensor that it goes through, and
then of every tensor that this one is a view of: the calls that took the view out are undone (`x[i]` by `setitem`,
`x.view(...)` by `reshape`). All other views are read again, by the calls that made them, when they are next used and
the write has touched them.
"""

import dataclasses
from typing import Any, Protocol, runtime_checkable

import torch
from torch.utils import _pytree as pytree

from ..errors import RecordingError
from ..nodes.markers import unseen_write
from ..ops import op_name
from .functional import setitem
from .memory import Region, geometry, region_of, strides
from .tape import Entry, Ref, base_name, refs, replaced


# The views that take a part out of a tensor, those that reorder axes, and those that keep the order of all elements.
_PARTS = {"getitem", "select", "narrow", "unbind", "split", "chunk", "tensor_split", "hsplit", "vsplit", "dsplit"}
_PARTS |= {"split_with_sizes"}
_PERMUTED = {"permute", "transpose", "swapaxes", "swapdims", "movedim", "moveaxis", "t", "T", "mT", "adjoint"}
_RESHAPED = {"view", "view_as", "reshape", "reshape_as", "flatten", "ravel", "unflatten", "squeeze", "unsqueeze"}
# Views that are read, but not written through.
_READ = {"expand", "expand_as", "broadcast_to", "unfold"}
DETACHED = {"detach", "data"}

_ALLOWED = (
    "Allowed: writes into tensors of their own, and into views by indices, slices, select, narrow, split, chunk, "
    "unbind, view, reshape, flatten, squeeze, unsqueeze, transpose, permute and diagonal. Use the out-of-place form "
    "(x = x + y for x += y), or clone() what is written into."
)


@dataclasses.dataclass(eq=False)
class View:
    """A tensor and its present value; `entry` is the call that took it out of `parent`, there given as `taken`.

    Its value holds the first `seen` of the writes into its memory. `apart`: it was detached from `parent` and written
    into, so that the two have the same values and other gradients.
    """

    tensor: torch.Tensor
    ref: Ref
    memory: "Memory"
    seen: int
    parent: "View | None" = None
    entry: Entry | None = None
    taken: Ref | None = None
    apart: bool = False


@dataclasses.dataclass(eq=False)
class Memory:
    """The tensors that look at one piece of memory, and the regions that have been written over, in order."""

    views: list[View] = dataclasses.field(default_factory=list)
    writes: list[Region] = dataclasses.field(default_factory=list)


@runtime_checkable
class Writer(Protocol):
    """A tape that grows."""

    def value(self, tensor: torch.Tensor) -> Ref:
        """A new value, with a tensor that holds it."""
        ...

    def assign(self, tensor: torch.Tensor, ref: Ref) -> None:
        """Let a tensor have this value from now on."""
        ...

    def derive(self, target: Any, args: Any, kwargs: Any, result: Ref, like: Entry | None = None) -> None:
        """Write down a call that the user has not made, with path and gradient as in the call that it is `like`."""
        ...

    def learns(self, ref: Ref) -> bool:
        """Whether a gradient may pass a value."""
        ...

    def refuse(self, what: str, *, advice: str) -> RecordingError: ...


class Aliases:
    """The memory of all tensors of a recording."""

    def __init__(self, writer: Writer):
        self.writer = writer
        self.views: dict[int, View] = {}
        self.memories: dict[int, Memory] = {}
        self.unlinked: list[View] = []

    # Tensors

    def memory_of(self, tensor: torch.Tensor) -> Memory:
        """The memory that a tensor looks at; that of nobody else where it is sparse or empty."""
        if tensor.layout != torch.strided:
            return Memory()
        place = tensor.untyped_storage().data_ptr()
        return self.memories.setdefault(place, Memory()) if place else Memory()

    def sharing(self, tensor: torch.Tensor) -> list[View]:
        """The tensors that look at the memory of one, itself among them."""
        view = self.views.get(id(tensor))
        return (self.memory_of(tensor) if view is None else view.memory).views

    def register(self, tensor: torch.Tensor, ref: Ref) -> None:
        """Note the value of a tensor."""
        view = self.views.get(id(tensor))
        if view is None:
            memory = self.memory_of(tensor)
            view = self.views[id(tensor)] = View(tensor, ref, memory, 0)
            if memory.views:
                self.unlinked.append(view)
            memory.views.append(view)
        view.ref, view.seen = ref, len(view.memory.writes)

    def link(self, entry: Entry, alive: list[torch.Tensor]) -> None:
        """Note which of the results of a call are views of its arguments."""
        if not self.unlinked:  # nearly always
            return
        for view in self.unlinked:
            if view.ref not in entry.made:
                continue
            for given in refs((entry.args, entry.kwargs, entry.state_in)):
                parent = self.views.get(id(alive[given.index]))
                if parent is not None and parent.memory is view.memory and parent is not view:
                    view.parent, view.entry, view.taken = parent, entry, given
                    break
        self.unlinked = [view for view in self.unlinked if view.ref not in entry.made]

    def reshaped(self, tensor: torch.Tensor, before: torch.Tensor, entry: Entry, taken: Ref) -> None:
        """A tensor has another shape from now on; `before` looks at its memory in the old one."""
        view = self.views[id(tensor)]
        view.tensor = before
        (ref,) = entry.made
        seen = len(view.memory.writes)
        self.views[id(tensor)] = View(tensor, ref, view.memory, seen, view, entry, taken)
        view.memory.views.append(self.views[id(tensor)])

    def is_same_place(self, target: torch.Tensor, index: Any, value: Any) -> bool:
        """Whether `target[index] = value` writes what is there: the end of `target[index] += 1`."""
        if not isinstance(value, torch.Tensor) or id(value) not in self.views:
            return False
        if id(target) not in self.views or self.views[id(target)].memory is not self.views[id(value)].memory:
            return False
        with torch.no_grad():
            place = target[index]
        return place.data_ptr() == value.data_ptr() and geometry(place) == geometry(value)

    # Reading

    def is_current(self, tensor: torch.Tensor) -> bool:
        """Whether the value of a tensor is known to hold all that has been written into its memory."""
        view = self.views.get(id(tensor))
        return view is None or view.seen == len(view.memory.writes)

    def refresh(self, tensor: torch.Tensor) -> None:
        """Let the value of a tensor hold all that has been written into its memory."""
        self._current(self.views[id(tensor)])

    def _current(self, view: View) -> Ref:
        writes = view.memory.writes
        if view.seen < len(writes):
            region = self._region(view)
            if any(region.overlaps(written) for written in writes[view.seen :]):
                self._read_again(view)
            view.seen = len(writes)
        return view.ref

    def _read_again(self, view: View) -> None:
        parent, entry = view.parent, view.entry
        if parent is None or entry is None or view.taken is None or not _is_readable(entry):
            how = f" through {entry.name}" if entry is not None else ""
            raise self.writer.refuse(
                f"a tensor of shape {tuple(view.tensor.shape)} is read after a write into memory that it shares with "
                f"another tensor{how}",
                advice=_ALLOWED,
            )
        given = self._current(parent)
        made = self.writer.value(view.tensor)
        if isinstance(entry.result, Ref):
            args, kwargs = replaced((entry.args, entry.kwargs), {view.taken.index: given})
            self.writer.derive(entry.target, args, kwargs, made, entry)
        else:
            self.writer.derive(torch.Tensor.__getitem__, (given, _place(view)), {}, made, entry)
        self._assign(view, self._unseen(view, made) if view.apart else made)

    # Writing

    def prepare(self, tensor: torch.Tensor) -> None:
        """Before a write: let all that a tensor is a view of be known as it is now."""
        view: View | None = self.views[id(tensor)]
        while view is not None:
            self._current(view)
            view = view.parent

    def write(self, tensor: torch.Tensor, ref: Ref) -> None:
        """Note the value that a tensor has after a write through it."""
        view = self.views[id(tensor)]
        view.memory.writes.append(self._region(view))
        self._assign(view, ref)

    def keep_gradient(self, tensor: torch.Tensor, before: Ref) -> None:
        """After a write: under `no_grad`, a tensor has the gradient that it had, whatever its values are."""
        self._keep_gradient(self.views[id(tensor)], before)

    def _keep_gradient(self, view: View, before: Ref) -> None:
        if not torch.is_grad_enabled() and self.writer.learns(before):
            self._assign(view, self._unseen(view, view.ref, before))

    def write_back(self, tensor: torch.Tensor, name: str) -> None:
        """After `write`: let all that a tensor is a view of have what was written through it."""
        view = self.views[id(tensor)]
        while view.parent is not None:
            parent = view.parent
            if view.entry is not None and _op(view.entry) in DETACHED:
                view.apart = True
                self._assign(parent, self._unseen(parent, view.ref))
            else:
                self._undo(view, view.ref, name)
            view = parent

    def overwrite(self, tensor: torch.Tensor, value: Any, name: str) -> None:
        """All of a tensor has been written over: by a number, or by a value that broadcasts to it."""
        view = self.views[id(tensor)]
        view.memory.writes.append(self._region(view))
        if view.parent is None or _part_of(view) is None:
            made, before = self.writer.value(tensor), view.ref
            self.writer.derive(setitem, (view.ref, Ellipsis, value), {}, made)
            self._assign(view, made)
            self.keep_gradient(tensor, before)
            self.write_back(tensor, name)
        else:  # now it is a part of its parent, to be read where it is used
            self._undo(view, value, name)
            self.write_back(view.parent.tensor, name)

    def _assign(self, view: View, ref: Ref) -> None:
        view.ref, view.seen = ref, len(view.memory.writes)
        self.writer.assign(view.tensor, ref)

    def _undo(self, view: View, value: Any, name: str) -> None:
        """Give the parent of a view the value that it has with this value of the view."""
        parent, entry, writer = view.parent, view.entry, self.writer
        assert parent is not None and entry is not None
        made = writer.value(parent.tensor)
        part = _part_of(view)
        op = _op(entry)
        if part is not None:
            writer.derive(setitem, (parent.ref, part, value), {}, made)
        elif op == "diagonal":
            self._undo_diagonal(view, value, made)
        elif op in _PERMUTED:
            # With the layout of the parent: it may be viewed in another shape.
            moved = writer.value(parent.tensor)
            writer.derive(torch.permute, (value, _inverse(view)), {}, moved)
            writer.derive(torch.Tensor.contiguous, (moved,), {}, made)
        elif (op in _RESHAPED or entry.converter is not None) and _keeps_order(view):
            writer.derive(torch.reshape, (value, tuple(parent.tensor.shape)), {}, made)
        else:
            raise writer.refuse(
                f"{name} writes into memory that another tensor shares, through {entry.name}", advice=_ALLOWED
            )
        before = parent.ref
        self._assign(parent, made)
        self._keep_gradient(parent, before)

    def _unseen(self, view: View, value: Any, before: Ref | None = None) -> Ref:
        """A value with the gradient of what a tensor was before."""
        made = self.writer.value(view.tensor)
        self.writer.derive(unseen_write, (view.ref if before is None else before, value), {}, made)
        return made

    def cut(self, tensor: torch.Tensor, ref: Ref) -> None:
        """A tensor is detached in place: what was taken out of it before has the gradient that it had."""
        view = self.views[id(tensor)]
        for other in view.memory.views:
            if other.parent is view:
                other.parent = other.entry = None
        view.parent = view.entry = None
        self._assign(view, ref)

    def moved(self, tensor: torch.Tensor, ref: Ref) -> None:
        """A tensor looks at other memory from now on, which is as it was."""
        view = self.views.pop(id(tensor))
        view.memory.views.remove(view)
        for other in view.memory.views:
            if other.parent is view:
                other.parent = other.entry = None
        self.register(tensor, ref)
        self.unlinked = [other for other in self.unlinked if other is not self.views[id(tensor)]]
        self.writer.assign(tensor, ref)

    def _undo_diagonal(self, view: View, value: Any, made: Ref) -> None:
        """A diagonal is a part by two rows of indices, once its axes are the last two."""
        parent, entry, writer = view.parent, view.entry, self.writer
        assert parent is not None and entry is not None
        given = dict(zip(("input", "offset", "dim1", "dim2"), entry.args, strict=False)) | entry.kwargs
        offset, axes = given.get("offset", 0), (given.get("dim1", 0), given.get("dim2", 1))
        steps = torch.arange(view.tensor.shape[-1])
        index = (Ellipsis, writer.value(steps + max(-offset, 0)), writer.value(steps + max(offset, 0)))
        last = parent.tensor.movedim(axes, (-2, -1))
        moved, filled = writer.value(last), writer.value(last)
        writer.derive(torch.movedim, (parent.ref, axes, (-2, -1)), {}, moved)
        writer.derive(setitem, (moved, index, value), {}, filled)
        writer.derive(torch.movedim, (filled, (-2, -1), axes), {}, made)

    def _region(self, view: View) -> Region:
        return region_of(view.tensor, view.memory.views[0].tensor)


# Calls that make views


def _op(entry: Entry) -> str:
    return "" if entry.converter is not None else op_name(base_name(entry.target))


def _is_readable(entry: Entry) -> bool:
    """Whether a call only looks at its argument, so that it gives the same view again."""
    if entry.converter is not None:
        return not entry.is_neuron
    several = not isinstance(entry.result, Ref)
    return _op(entry) in (_PARTS if several else _PARTS | _PERMUTED | _RESHAPED | _READ | DETACHED | {"diagonal"})


def _part_of(view: View) -> Any:
    """The index of a part in the tensor that it was taken out of; None for views that are no such part."""
    entry = view.entry
    return _place(view) if entry is not None and _op(entry) in _PARTS else None


def _place(view: View) -> Any:
    """The index of a part in the tensor that it was taken out of."""
    entry, parent = view.entry, view.parent
    assert entry is not None and parent is not None
    name, rank = _op(entry), parent.tensor.ndim
    if name == "getitem":
        return entry.args[1]
    names = {"select": ("input", "dim", "index"), "narrow": ("input", "dim", "start", "length"), "unbind": ("", "dim")}
    given: dict[str, Any] = dict(zip(names.get(name, ("input", "sizes", "dim")), entry.args, strict=False))
    given |= entry.kwargs
    fixed = {"hsplit": min(rank - 1, 1), "vsplit": 0, "dsplit": 2}
    axis = int(fixed[name] if name in fixed else given.get("dim", 0)) % rank
    before = (slice(None),) * axis
    if name == "select":
        return (*before, given["index"])
    if name == "narrow":
        return (*before, slice(given["start"], given["start"] + given["length"]))
    # One of several, which follow each other along the axis.
    stride = parent.tensor.stride(axis)
    start = int(view.tensor.storage_offset() - parent.tensor.storage_offset()) // stride if stride else 0
    return (*before, start if name == "unbind" else slice(start, start + view.tensor.shape[axis]))


def _inverse(view: View) -> tuple[int, ...]:
    """The order of axes that leads from a view with other ones back to what it is a view of."""
    entry, parent = view.entry, view.parent
    assert entry is not None and parent is not None and view.taken is not None
    # Axes that can be told apart by their lengths.
    marked = torch.empty(tuple(range(2, 2 + parent.tensor.ndim)), device="meta")
    args, kwargs = pytree.tree_map(lambda item: marked if item == view.taken else item, (entry.args, entry.kwargs))
    shown = entry.target(*args, **kwargs).shape
    return tuple(shown.index(size) for size in marked.shape)


def _keeps_order(view: View) -> bool:
    """Whether a view shows all elements of its parent, as they are and in the same order."""
    tensor, parent = view.tensor, view.parent
    assert parent is not None
    if tensor.dtype != parent.tensor.dtype or tensor.numel() != parent.tensor.numel():
        return False
    with torch.no_grad():
        again = parent.tensor.reshape(tensor.shape)
    return again.data_ptr() == tensor.data_ptr() and strides(again) == strides(tensor)
