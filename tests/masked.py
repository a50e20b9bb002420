"""Dense references with an explicit mask, for reductions on the pairs that ranges keep."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lazyjax import LazyTensor
from lazyjax.cluster import from_matrix

from . import cases
from .cases import Case, K, distance, squares, vector

M, N = 21, 37
ROWS = np.array([[0, 4], [4, 9], [11, 20]])  # rows 9, 10 and 20 belong to no cluster
COLUMNS = np.array([[0, 3], [3, 3], [5, 20], [20, 37]])  # an empty one, and two columns of none
KEEP = np.array([[1, 0, 0, 1], [0, 0, 0, 0], [1, 1, 1, 0]], bool)  # the second cluster meets none


def mask_of(rows: np.ndarray, columns: np.ndarray, keep: np.ndarray, m: int, n: int) -> np.ndarray:
    """The pairs that are kept, one by one."""
    mask = np.zeros((m, n), bool)
    for k, (start, end) in enumerate(rows):
        for wanted, (first, last) in zip(keep[k], columns, strict=True):
            mask[start:end, first:last] |= wanted
    return mask


MASK = mask_of(ROWS, COLUMNS, KEEP, M, N)
RANGES = from_matrix(ROWS, COLUMNS, KEEP)

# For derivatives: every row has K pairs and every column two, so that no result is infinite.
m, n = cases.M, cases.N
EVERY_ROW = (np.array([[0, 2], [2, 5]]), np.array([[0, 2], [2, 5], [5, 7]]), np.array([[1, 1, 0], [0, 1, 1]], bool))
EVERY_ROW_MASK, EVERY_ROW_RANGES = mask_of(*EVERY_ROW, m, n), from_matrix(*EVERY_ROW)

# As many blocks at other places, for the problems of a batch.
SEVERAL = [np.roll(KEEP, k, axis=0) for k in range(2)]
BOTH = tuple(jnp.stack(pair) for pair in zip(*(from_matrix(ROWS, COLUMNS, k) for k in SEVERAL), strict=True))


def gaussian(x: Any, y: Any, s: Any = 0.8) -> LazyTensor:
    return (-cases.lazy_distance(x, y, s)).exp()


def sparse(case: Case, ranges: Any) -> Callable[..., Any]:
    """The case on the pairs of ranges, which its formula carries from its first step to the reduction."""

    def ours(*args: Any) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            for name in ("lazy_distance", "lazy_vector"):
                patch.setattr(cases, name, _with(getattr(cases, name), ranges))
            return case.ours(*args)

    return ours


def _with(formula: Callable[..., LazyTensor], ranges: Any) -> Callable[..., LazyTensor]:
    def made(*args: Any) -> LazyTensor:
        tensor = formula(*args)
        tensor.ranges = ranges
        return tensor

    return made


def where(v: Any, mask: Any, other: Any) -> Any:
    return jnp.where(mask.reshape(mask.shape + (1,) * (v.ndim - 2)), v, other)


def log_sum(f: Any, w: Any) -> Any:
    m = jax.lax.stop_gradient(f.max(1))
    m = jnp.where(jnp.isfinite(m), m, 0.0)
    return m[:, None] + jnp.log((jnp.exp(f - m[:, None])[:, :, None] * w[None]).sum(1))


def softmax(f: Any, w: Any) -> Any:
    m = f.max(1, keepdims=True)
    e = jnp.exp(f - jnp.where(jnp.isfinite(m), m, 0.0))
    return (e @ w) / jnp.maximum(e.sum(1, keepdims=True), 1e-300)


def var(v: Any, mask: Any, axis: Any, ddof: int = 0) -> Any:
    count = mask.sum(axis)
    mean = where(v, mask, 0.0).sum(axis, keepdims=True) / jnp.expand_dims(count, axis)
    squares = jnp.where(mask, (v - mean) ** 2, 0.0).sum(axis)
    return squares / jnp.where(count > ddof, count - ddof, 0)


def at(index: Any, found: Any) -> Any:
    return jnp.where(found, index, -1).astype(jnp.int32)


def k_first(v: Any, mask: Any, k: int, largest: bool = False) -> tuple[Any, Any]:
    v = where(v, mask, -jnp.inf if largest else jnp.inf)
    index = jnp.argsort(-v if largest else v, axis=1)[:, :k]
    value = jnp.take_along_axis(v, index, 1)
    return value, at(index, jnp.isfinite(value))


# The same reductions as in tests/cases.py, of values where the mask holds: functions of x, y, b, s and the mask.
MASKED: dict[str, Callable[..., Any]] = {
    "sum over j": lambda x, y, b, s, k: where(jnp.exp(-distance(x, y, s)), k, 0.0).sum(1)[:, None],
    "sum over i": lambda x, y, b, s, k: where(vector(x, y, s), k, 0.0).sum(0),
    "sum over both": lambda x, y, b, s, k: where(vector(x, y, s), k, 0.0).sum((0, 1)),
    "K @ b": lambda x, y, b, s, k: where(jnp.exp(-distance(x, y, s)), k, 0.0) @ b,
    "K @ b, sqrt": lambda x, y, b, s, k: where(jnp.arctan(jnp.sqrt(distance(x, y, s))), k, 0.0) @ b[:, 0],
    "min": lambda x, y, b, s, k: where(vector(x, y, s), k, jnp.inf).min(1),
    "max over i": lambda x, y, b, s, k: where(vector(x, y, s), k, -jnp.inf).max(0),
    "min of min_argmin": lambda x, y, b, s, k: where(distance(x, y, s), k, jnp.inf).min(1)[:, None],
    "max of max_argmax": lambda x, y, b, s, k: where(distance(x, y, s), k, -jnp.inf).max(1)[:, None],
    "argmin": lambda x, y, b, s, k: at(where(vector(x, y, s), k, jnp.inf).argmin(1), k.any(1)[:, None]),
    "argmax over i": lambda x, y, b, s, k: at(where(distance(x, y, s), k, -jnp.inf).argmax(0), k.any(0))[:, None],
    "argmin of min_argmin": lambda x, y, b, s, k: at(where(distance(x, y, s), k, jnp.inf).argmin(1), k.any(1))[:, None],
    "Kmin": lambda x, y, b, s, k: k_first(distance(x, y, s), k, K)[0],
    "Kmin of vectors": lambda x, y, b, s, k: k_first(vector(x, y, s), k, K)[0],
    "argKmin": lambda x, y, b, s, k: k_first(distance(x, y, s), k, K)[1],
    "Kmin of Kmin_argKmin": lambda x, y, b, s, k: k_first(distance(x, y, s), k, K)[0],
    "logsumexp": lambda x, y, b, s, k: log_sum(where(distance(x, y, s), k, -jnp.inf), jnp.ones((y.shape[0], 1))),
    "logsumexp with weight": lambda x, y, b, s, k: log_sum(where(distance(x, y, s), k, -jnp.inf), jnp.exp(b)),
    "sumsoftmaxweight": lambda x, y, b, s, k: softmax(where(distance(x, y, s), k, -jnp.inf), b),
    "mean over i": lambda x, y, b, s, k: (where(distance(x, y, s), k, 0.0).sum(0) / k.sum(0))[:, None],
    "prod": lambda x, y, b, s, k: where(1 + 0.1 * jnp.sin(distance(x, y, s)), k, 1.0).prod(1)[:, None],
    "var": lambda x, y, b, s, k: var(distance(x, y, s), k, 1, 1)[:, None],
    "std over both": lambda x, y, b, s, k: jnp.sqrt(var(distance(x, y, s), k, (0, 1)))[None],
    "min over both": lambda x, y, b, s, k: where(-squares(x, y, s), k, jnp.inf).min((0, 1)),
    "Kmax": lambda x, y, b, s, k: k_first(distance(x, y, s), k, 2, True)[0],
    "argKmax": lambda x, y, b, s, k: k_first(distance(x, y, s), k, 2, True)[1],
    "any": lambda x, y, b, s, k: where(vector(x, y, s) > s, k, False).any(1).astype(jnp.int32),
    "count_nonzero over both": lambda x, y, b, s, k: jnp.count_nonzero(where(vector(x, y, s) > 0, k, False), (0, 1)),
    "compensated sum": lambda x, y, b, s, k: where(distance(x, y, s), k, 0.0).sum(1)[:, None],
    "compensated logsumexp": lambda x, y, b, s, k: log_sum(where(distance(x, y, s), k, -jnp.inf), jnp.exp(b[:, :2])),
    "compensated sumsoftmaxweight": lambda x, y, b, s, k: softmax(where(distance(x, y, s), k, -jnp.inf), b[:, :2]),
    "a user's monoid": lambda x, y, b, s, k: (
        -log_sum(where(-distance(x, y, s), k, -jnp.inf), jnp.ones((y.shape[0], 1)))
    ),
}


def agree(got: Any, want: Any, message: str = "") -> None:
    got, want = jax.tree.leaves(got), jax.tree.leaves(want)
    assert len(got) == len(want), message
    for a, b in zip(map(np.asarray, got), map(np.asarray, want), strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype, (message, a.shape, b.shape, a.dtype, b.dtype)
        scale = np.max(np.abs(b), where=np.isfinite(b), initial=0.0)
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9 * scale + 1e-14, err_msg=message)
