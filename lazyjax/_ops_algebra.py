"""Rows of the table of operations: KeOps' small matrices and tensors, flattened row by row into one feature axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from ._op import Op, binary, flat, floating, vector


def _matvecmult(a: Any, x: Any) -> Any:
    a, x = flat(a), flat(x)
    return a.reshape(-1, x.shape[0]) @ x


def _vecmatmult(x: Any, a: Any) -> Any:
    x, a = flat(x), flat(a)
    return x @ a.reshape(x.shape[0], -1)


def _tensorprod(x: Any, y: Any) -> Any:
    return flat(flat(x)[:, None] * flat(y)[None, :])


def _tensordot(
    x: Any, y: Any, *, dims: tuple[Sequence[int], Sequence[int]], axes: tuple[Sequence[int], Sequence[int]],
    permutation: Sequence[int],
) -> Any:  # fmt: skip
    """numpy.tensordot of x and y read as tensors of `dims`, whose axis k then becomes axis permutation[k]."""
    product = jnp.tensordot(flat(x).reshape(dims[0]), flat(y).reshape(dims[1]), axes)
    return flat(jnp.transpose(product, tuple(int(k) for k in np.argsort(permutation))))


def _kron(x: Any, y: Any, *, dims: tuple[Sequence[int], Sequence[int]]) -> Any:
    """numpy.kron of x and y read as tensors of `dims`: axes of the outer product in pairs."""
    rank = len(dims[0])
    pairs = [axis for k in range(rank) for axis in (k, rank + k)]
    outer = flat(x)[:, None] * flat(y)[None, :]
    return flat(jnp.transpose(outer.reshape(*dims[0], *dims[1]), pairs))


def _one_hot(x: Any, *, size: int) -> Any:
    """1 for the k with k - 1/2 <= x < k + 1/2; only zeros where that is not one of 0 ... size - 1."""
    x = vector(x)
    dtype = jnp.result_type(int) if x.dtype == bool else x.dtype
    k = jnp.arange(size).astype(dtype)
    if not jnp.issubdtype(dtype, jnp.floating):
        return (x.astype(dtype) == k).astype(dtype)
    half = jnp.asarray(0.5, dtype)
    return ((k - half <= x) & (x < k + half)).astype(dtype)


def _bspline(knots: Any, x: Any, *, order: int) -> Any:
    """The recursion of Cox and de Boor, where 0 / 0 of repeated knots is 0.

    B_i,0 = [t_i <= x < t_i+1],  B_i,k = w_i,k B_i,k-1 + (1 - w_i+1,k) B_i+1,k-1,  w_i,k = (x - t_i) / (t_i+k - t_i)
    (de Boor, A Practical Guide to Splines, chapter IX).
    """
    dtype = jnp.result_type(floating(knots), floating(x))
    t, x = flat(knots).astype(dtype), flat(x).astype(dtype)
    b = ((t[:-1] <= x) & (x < t[1:])).astype(dtype)
    for k in range(1, order + 1):
        span = t[k:] - t[:-k]
        apart = span > 0
        w = jnp.where(apart, (x - t[:-k]) / jnp.where(apart, span, jnp.ones_like(span)), jnp.zeros_like(span))
        b = w[:-1] * b[:-1] + (1 - w[1:]) * b[1:]
    return b


def _softdtw(x: Any, y: Any, gamma: Any) -> Any:
    """Soft dynamic time warping of two series of numbers (Cuturi and Blondel, ICML 2017, algorithm 1).

    R_ij = (x_i - y_j)^2 + softmin(R_i-1,j-1, R_i-1,j, R_i,j-1), softmin(a) = -gamma log sum exp(-a / gamma), by
    antidiagonals: i + j is the same for all of one step, so that a step is an operation on vectors.
    """
    dtype = jnp.result_type(floating(x), floating(y), floating(gamma))
    x, y, gamma = (flat(a).astype(dtype) for a in (x, y, gamma))
    n, m = x.shape[0], y.shape[0]
    backwards = jnp.flip(y)
    older, first_older, old, first_old = None, 0, None, 0  # the two antidiagonals before, and the first i of each
    for s in range(n + m - 1):
        first, last = max(0, s - m + 1), min(n - 1, s)
        cost = jnp.square(x[first : last + 1] - backwards[first - s + m - 1 : last - s + m])
        low, high = max(first, 1), min(last, s - 1)  # where all three neighbours exist
        before = []
        if old is not None and first == 0:  # (0, s) has only the neighbour (0, s - 1)
            before.append(old[:1])
        if low <= high:
            assert older is not None and old is not None
            near = [(older, first_older + 1), (old, first_old + 1), (old, first_old)]
            a, b, c = (r[low - start : high + 1 - start] for r, start in near)
            # The shift cancels, so no derivative goes through it.
            least = lax.stop_gradient(jnp.minimum(jnp.minimum(a, b), c))
            terms = sum(jnp.exp((least - r) / gamma) for r in (a, b, c))
            before.append(least - gamma * jnp.log(terms))
        if old is not None and last == s:  # (s, 0) has only the neighbour (s - 1, 0)
            before.append(old[-1:])
        older, first_older = old, first_old
        old, first_old = (cost + jnp.concatenate(before) if before else cost), first
    assert old is not None
    return old


ALGEBRA: list[Op] = [
    binary("matvecmult", _matvecmult, None, "the product of a matrix, row by row, and a vector", broadcast=False),
    binary("vecmatmult", _vecmatmult, None, "the product of a vector and a matrix, row by row", broadcast=False),
    binary("tensorprod", _tensorprod, None, "x_a y_b for every a, b, flattened", broadcast=False),
    binary("keops_tensordot", _tensordot, None, "numpy.tensordot, flattened", broadcast=False),
    binary("keops_kron", _kron, None, "numpy.kron, flattened", broadcast=False),
    Op("one_hot", _one_hot, 1, None, "1 at the nearest integer, 0 elsewhere"),
    binary("bspline", _bspline, None, "the B-splines of some knots at x", broadcast=False),
    Op("softdtw_sqdist", _softdtw, 3, None, "soft dynamic time warping of squared differences", broadcast=False),
]
