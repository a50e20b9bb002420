"""Index variables: the numbers i and j of a pair, so that a mask is a formula."""

from __future__ import annotations

import functools
from typing import Any

import jax.numpy as jnp
import numpy as np

from ._errors import show
from ._lazytensor import LazyTensor
from ._symbolic_reduction import unbound
from ._tape import Leaf
from .kernels.description import Role


def i_index(K: LazyTensor) -> LazyTensor:
    """The number of the row, i, of every pair of K: an integer LazyTensor with one feature.

    Args:
        K: a LazyTensor, whose sizes it takes.

    Returns:
        An i-variable of shape (M, 1): int32, int64 where M needs it. It holds M numbers, whatever the batch dims.

    Raises:
        TypeError: for anything but a LazyTensor. ValueError: where K has a symbolic i-variable, whose size is unknown.

    Example:
        >>> import jax.numpy as jnp
        >>> from lazyjax import Vi, Vj, i_index, j_index
        >>> x = jnp.ones((4, 3))
        >>> K = Vi(x) | Vj(x)
        >>> causal = (j_index(K) <= i_index(K)).where(K, 0)
        >>> causal.sum(axis=1, keepdims=False).tolist()
        [3.0, 6.0, 9.0, 12.0]
    """
    return _index(K, "i", "i_index")


def j_index(K: LazyTensor) -> LazyTensor:
    """The number of the column, j, of every pair of K: an integer LazyTensor with one feature.

    Args:
        K: a LazyTensor, whose sizes it takes.

    Returns:
        A j-variable of shape (N, 1): int32, int64 where N needs it.

    Raises:
        TypeError: for anything but a LazyTensor. ValueError: where K has a symbolic j-variable, whose size is unknown.

    Example:
        >>> import jax.numpy as jnp
        >>> from lazyjax import Vi, Vj, i_index, j_index
        >>> x = jnp.array([[0.0], [1.0], [3.0]])
        >>> D = Vi(x).sqdist(Vj(x))
        >>> (i_index(D) == j_index(D)).where(jnp.inf, D).argmin(axis=1, keepdims=False).tolist()  # the nearest other
        [1, 0, 1]
    """
    return _index(K, "j", "j_index")


def _index(K: Any, role: Role, name: str) -> LazyTensor:
    if not isinstance(K, LazyTensor):
        raise TypeError(f"{name}: got {show(K)}, expected a LazyTensor, whose pairs are numbered.")
    if any(leaf.role == role for leaf in unbound(K)):
        raise ValueError(
            f"{name}: K has a symbolic {role}-variable, so its size is not known yet. Make the index a variable too, "
            f"V{role}(index, 1), and give it jnp.arange(size)[:, None] when the reduction is called."
        )
    size = K._sizes[1 if role == "i" else 2]
    size = 1 if size is None else size
    data = _numbers(size) if isinstance(size, int) else jnp.arange(size, dtype=jnp.int32)[:, None]
    return LazyTensor._of_leaf(Leaf(role, 1, "rows"), data)


@functools.lru_cache(maxsize=16)
def _numbers(size: int) -> np.ndarray:
    """0 to size - 1, the same array every time, so that a formula holds it once."""
    numbers = np.arange(size, dtype=np.int32 if size <= np.iinfo(np.int32).max else np.int64)[:, None]
    numbers.setflags(write=False)
    return numbers
