"""What XLA on the CPU fuses, and the two ways to have it compute once what several results share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# XLA on the CPU writes a loop for each result of a chunk, which computes anew what they share.  It writes one loop for
# all results of one operation alone, and a reduction is the only such operation that is fused with what it reads.  So
# the results are reduced: over an axis of two, along which each is repeated, by "or" of their bits, which changes none.
# LLVM removes that inner loop, for nothing in it depends on the axis.  Integers cross the outer loop, because XLA would
# copy what is converted behind a reduction.


def joinable(dtype: Any) -> bool:
    """Whether a result of this dtype can be one of a joined loop."""
    return np.dtype(dtype).kind in "iu" or jnp.issubdtype(dtype, jnp.floating)


def packed(x: jax.Array) -> jax.Array:
    return x if x.dtype.kind in "iub" else lax.bitcast_convert_type(x, np.dtype(f"i{x.dtype.itemsize}"))


def unpacked(bits: Sequence[jax.Array], dtypes: Sequence[Any]) -> list[jax.Array]:
    """The results of `as_one` in their own dtypes."""
    return [x if x.dtype == d else lax.bitcast_convert_type(x, d) for x, d in zip(bits, dtypes, strict=True)]


def as_one(results: Sequence[jax.Array]) -> list[jax.Array]:
    """The bits of all results, computed in one loop."""
    return _reduced([lax.broadcast(packed(x), (2,)) for x in results])


def fused(fn: Callable[..., Sequence[jax.Array]], *operands: Any) -> list[jax.Array]:
    """`as_one` of fn(*operands), for element-wise functions with more results than `as_one` takes.

    XLA fuses nothing that more than some 15 others read, each in its own place.  What is repeated here are the
    operands, so that all results are read in the same place, by the reduction alone.
    """
    repeated = jax.tree.map(lambda x: lax.broadcast(x, (2,)) if x.ndim else x, operands)
    return _reduced([packed(x) for x in fn(*repeated)])


def _reduced(repeated: Sequence[jax.Array]) -> list[jax.Array]:
    zeros = [np.zeros((), x.dtype) for x in repeated]
    either = lambda a, b: [lax.bitwise_or(x, y) for x, y in zip(a, b, strict=True)]  # noqa: E731
    return list(lax.reduce(repeated, zeros, either, (0,)))


def apart(step: Any, fn: Callable[[], Any]) -> Any:
    """fn(), computed once, whatever reads it; `step` is a number of a loop that is not negative.

    XLA on the CPU would compute it anew in the loop of every result that reads it.  A branch that only the run
    chooses is the one wall that it respects: it removes `optimization_barrier` before it fuses.
    """
    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(fn))
    return lax.cond(step >= 0, fn, lambda: nothing)
