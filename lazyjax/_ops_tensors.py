"""Rows of the table of operations: features with several axes, read as matrices and tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ._op import Op, binary, cut, floating, unary, vector

# The largest matrix whose determinant and inverse are written out.
LARGEST = 4


def _take(x: Any, *, key: tuple[Any, ...]) -> Any:
    """NumPy's basic indexing: an int takes one and drops the axis, (start, stop, step) cuts, None is a new axis."""
    x, axis = vector(x), 0
    for k in key:
        if k is None:
            x = lax.expand_dims(x, (axis,))
        elif isinstance(k, int):
            x = lax.index_in_dim(x, k, axis, keepdims=False)
            continue
        else:
            x = cut(x, axis, *k)
        axis += 1
    return vector(x)


def _stack(*xs: Any, axis: int) -> Any:
    """A new feature axis; numbers become a vector."""
    dtype, rank = jnp.result_type(*xs), max(1, *map(jnp.ndim, xs))
    xs = tuple(jnp.asarray(x, dtype).reshape(jnp.shape(x) if jnp.ndim(x) == rank else (1,) * rank) for x in xs)
    shape = jnp.broadcast_shapes(*map(jnp.shape, xs))
    if shape == (1,):
        return jnp.concatenate(xs)
    return jnp.stack([jnp.broadcast_to(x, shape) for x in xs], axis)


def _reshape(x: Any, *, shape: Sequence[int]) -> Any:
    return vector(x).reshape(tuple(shape))


def _transpose(x: Any, *, axes: Sequence[int]) -> Any:
    return jnp.transpose(vector(x), tuple(axes))


def _matmul(x: Any, y: Any) -> Any:
    return vector(jnp.matmul(vector(x), vector(y)))


def _einsum(*xs: Any, subscripts: str) -> Any:
    terms = subscripts.partition("->")[0].split(",")
    given = [x if term else jnp.reshape(x, ()) for x, term in zip(map(vector, xs), terms, strict=True)]
    return vector(jnp.einsum(subscripts, *given))


def _entries(x: Any) -> list[list[jax.Array]]:
    """The entries of matrices (..., D, D), each an array (...)."""
    rows = [lax.index_in_dim(x, a, x.ndim - 2, keepdims=False) for a in range(x.shape[-2])]
    return [[lax.index_in_dim(r, b, r.ndim - 1, keepdims=False) for b in range(x.shape[-1])] for r in rows]


def _matrix(rows: Sequence[Sequence[jax.Array]]) -> jax.Array:
    return jnp.stack([jnp.stack(list(r), -1) for r in rows], -2)


def _trace(x: Any) -> Any:
    return vector(sum(row[k] for k, row in enumerate(_entries(x))))


def _minors(a: Sequence[jax.Array], b: Sequence[jax.Array]) -> dict[tuple[int, int], jax.Array]:
    """The determinants of every two columns of two rows."""
    n = len(a)
    return {(j, k): a[j] * b[k] - a[k] * b[j] for j in range(n) for k in range(j + 1, n)}


def _cofactors(m: list[list[jax.Array]]) -> list[list[jax.Array]]:
    """The cofactors of a matrix of at most 4 by 4: what multiplies each entry in the determinant.

    Those of 4 by 4 share the 2 by 2 minors of the upper and of the lower two rows (Laplace expansion by two rows).
    """
    n = len(m)
    if n == 1:
        return [[jnp.ones_like(m[0][0])]]
    if n == 2:
        return [[m[1][1], -m[1][0]], [-m[0][1], m[0][0]]]
    if n == 3:
        (a, b, c) = m
        return [
            [r[1] * s[2] - r[2] * s[1], r[2] * s[0] - r[0] * s[2], r[0] * s[1] - r[1] * s[0]]
            for r, s in ((b, c), (c, a), (a, b))
        ]
    upper, lower = _minors(m[0], m[1]), _minors(m[2], m[3])

    def cofactor(i: int, j: int) -> jax.Array:
        p, q, r = (k for k in range(n) if k != j)
        other, minors = m[i ^ 1], lower if i < 2 else upper  # i ^ 1: the row that shares a pair with row i
        minor = other[p] * minors[q, r] - other[q] * minors[p, r] + other[r] * minors[p, q]
        return -minor if (i + j) % 2 else minor

    return [[cofactor(i, j) for j in range(n)] for i in range(n)]


def _det_of(m: list[list[jax.Array]]) -> jax.Array:
    if len(m) == 4:
        upper, lower = _minors(m[0], m[1]), _minors(m[2], m[3])
        sign = {(0, 1): 1, (0, 2): -1, (0, 3): 1, (1, 2): 1, (1, 3): -1, (2, 3): 1}
        other = {p: q for p in sign for q in sign if not {*p} & {*q}}
        products = [s * upper[p] * lower[other[p]] for p, s in sign.items()]
        return sum(products[1:], products[0])
    products = [x * c for x, c in zip(m[0], _cofactors(m)[0], strict=True)]
    return sum(products[1:], products[0])


def _det(x: Any) -> Any:
    return vector(_det_of(_entries(x)))


@jax.custom_jvp
def _inverse(x: Any) -> Any:
    """The adjugate over the determinant, of the matrix over its largest entry, whose powers then neither overflow
    nor vanish."""
    scale = jnp.max(jnp.abs(x), (-2, -1), keepdims=True).astype(x.dtype)
    m = _entries(x / scale)
    cofactors = _cofactors(m)
    products = [a * c for a, c in zip(m[0], cofactors[0], strict=True)]
    one_over = 1 / sum(products[1:], products[0])
    return _matrix([[cofactors[j][i] * one_over for j in range(len(m))] for i in range(len(m))]) / scale


@_inverse.defjvp
def _inverse_jvp(primals: Any, tangents: Any) -> Any:
    (x,), (t,) = primals, tangents
    y = _inverse(x)
    return y, -(y @ t @ y)


TENSORS: list[Op] = [
    unary("take", _take, "features by NumPy's basic indexing"),
    Op("stack", _stack, -1, None, "along a new feature axis", broadcast=False),
    unary("reshape_features", _reshape, "the same features in another shape"),
    unary("transpose_features", _transpose, "the feature axes in another order"),
    binary("matmul", _matmul, None, "the matrix product over the last two feature axes", broadcast=False),
    Op("einsum", _einsum, -1, None, "Einstein's sum over feature axes", broadcast=False),
    unary("trace", _trace, "the sum of the diagonal"),
    unary("det", _det, "the determinant"),
    unary("inv", lambda x: _inverse(floating(x)), "the inverse matrix"),
]
