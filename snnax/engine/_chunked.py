"""Scanning in chunks that are computed again in the backward pass: memory of O(sqrt(time)) for any number of steps."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def scan_chunks(
    run: Callable[[Any, Any, int], tuple[Any, Any]], carry: Any, sequences: Any, num_steps: int, chunk: int | None
) -> tuple[Any, Any]:
    """`run(carry, sequences of n steps, n) -> (carry, outputs)` over chunks of `chunk` steps and the rest of them.

    A chunk keeps its carry and nothing else for the backward pass. With `chunk=None` it is the square root of the
    number of steps, which balances the carries of all chunks against the inside of one.
    """
    if chunk is not None and chunk < 1:
        raise ValueError(f"a chunk has at least one time step, found {chunk}")
    size = max(1, math.isqrt(num_steps) if chunk is None else min(chunk, num_steps))
    count, rest = divmod(num_steps, size)

    def recomputed(steps: int, *, in_scan: bool) -> Callable[[Any, Any], tuple[Any, Any]]:
        # Outside of a scan the compiler would merge the second computation with the first, and keep what it needs.
        return jax.checkpoint(lambda carry, piece: run(carry, piece, steps), prevent_cse=not in_scan)

    whole = jax.tree.map(lambda x: x[: count * size].reshape(count, size, *x.shape[1:]), sequences)
    carry, outs = jax.lax.scan(recomputed(size, in_scan=True), carry, whole, length=count)
    outs = jax.tree.map(lambda x: x.reshape(count * size, *x.shape[2:]), outs)
    if rest:
        carry, last = recomputed(rest, in_scan=False)(carry, jax.tree.map(lambda x: x[count * size :], sequences))
        outs = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), outs, last)
    return carry, outs
