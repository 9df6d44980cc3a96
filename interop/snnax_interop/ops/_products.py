"""Products of vectors, matrices and tensors."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from .mixing import Mixing, Operand, along, contracted, last
from .registry import op


@op("matmul", "mm", "bmm", "mv", "dot", "vdot", axes=contracted("input", "other"),
    names={"mat2": "other", "vec": "other", "tensor": "other"})  # fmt: skip
def matmul(input, other) -> Array:
    return input @ other


@op("addmm", axes=contracted("mat1", "mat2"))
def addmm(input, mat1, mat2, *, beta=1, alpha=1) -> Array:
    return beta * input + alpha * (mat1 @ mat2)


@op("addmv", axes=contracted("mat", "vec"))
def addmv(input, mat, vec, *, beta=1, alpha=1) -> Array:
    return addmm(input, mat, vec, beta=beta, alpha=alpha)


@op("baddbmm", axes=contracted("batch1", "batch2"))
def baddbmm(input, batch1, batch2, *, beta=1, alpha=1) -> Array:
    return addmm(input, batch1, batch2, beta=beta, alpha=alpha)


@op("outer", "ger", axes="separate")
def outer(input, vec2) -> Array:
    return jnp.outer(input, vec2)


@op("inner", axes=last(1, of=("input", "other")))
def inner(input, other) -> Array:
    return jnp.inner(input, other)


@op("linalg_vecdot", axes=along(of=("x", "y")))
def vecdot(x, y, *, dim=-1) -> Array:
    if dim >= 0 and jnp.ndim(x) != jnp.ndim(y):
        raise NotImplementedError("dim from the first axis, of operands with different numbers of axes")
    return jnp.sum(x * y, axis=dim)


def _tensordot(operand: Operand, arguments: Mapping[str, Any]) -> Iterable[int]:
    dims, left = arguments["dims"], operand.name == "a"
    if isinstance(dims, int):
        return range(-dims, 0) if left else range(dims)
    return dims[0] if left else dims[1]


@op("tensordot", axes=Mixing(_tensordot))
def tensordot(a, b, dims=2) -> Array:
    return jnp.tensordot(a, b, dims)


def _summed(operand: Operand, arguments: Mapping[str, Any]) -> Iterable[int]:
    """The axes whose letters are not in the result."""
    terms, arrow, result = arguments["equation"].replace(" ", "").partition("->")
    remaining = set(result) if arrow else {letter for letter in terms if terms.count(letter) == 1}
    before, dots, after = terms.split(",")[operand.position].partition("...")
    letters = dict(enumerate(before)) | dict(enumerate(after, start=-len(after)) if dots else ())
    return [axis for axis, letter in letters.items() if letter not in remaining]


@op("einsum", axes=Mixing(_summed), variadic="operands")
def einsum(equation, operands) -> Array:
    return jnp.einsum(equation, *operands)
