"""Sorted lists kept by insertion: NumPy's stable sort of every lane, and where the planner takes them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lazyjax import Vi, Vj, explain
from lazyjax._reductions import KSmallest
from lazyjax.kernels.reduction import trace
from lazyjax.kernels.xla.insertion import Insertion, in_order

LANES = 5


def _values(dtype: Any, count: int) -> np.ndarray:
    """Few different values, so that most are equal to some other, and those at the ends of the dtype."""
    r = np.random.default_rng(count)
    if np.dtype(dtype).kind == "f":
        ends = np.finfo(dtype)
        some = np.array([0.0, -0.0, 1.5, -2.0, ends.max, ends.min, np.inf, -np.inf, np.nan])
    elif np.dtype(dtype).kind == "b":
        some = np.array([False, True])
    else:
        some = np.array([0, 3, np.iinfo(dtype).min, np.iinfo(dtype).max])
    return r.choice(some, (count, LANES)).astype(dtype)


def _sorted(values: np.ndarray, k: int, largest: bool) -> np.ndarray:
    """The indices of the k best of each lane, (k, lanes), -1 where there is none."""
    out = np.full((k, values.shape[1]), -1)
    for lane, column in enumerate(values.T):
        there = [j for j in range(len(column)) if not np.isnan(column[j])]
        ranked = sorted(there, key=lambda j: column[j].item(), reverse=largest)  # stable, in reverse too
        out[: min(k, len(ranked)), lane] = ranked[:k]
    return out


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int32, np.uint8, np.bool_])
def test_lists_of_every_dtype(dtype: Any) -> None:
    """Steps of two halves, a step of one, lengths that are odd; some values are beyond the end."""
    lengths, end, k = (24, 7, 8), 36, 6  # from the first index on
    starts = np.cumsum([0, *lengths[:-1]])
    values = _values(dtype, sum(lengths))

    def run(values: jax.Array, largest: bool) -> list[jax.Array]:
        traced = trace(KSmallest(k, "both", largest), (((1,), values.dtype),), np.dtype(np.int32))
        insertion = Insertion(traced, LANES, 4)
        lists = insertion.neutral()
        for first, length in zip(starts[::-1], lengths[::-1], strict=True):
            part = values[int(first) : int(first) + length]
            lists = insertion.add(jnp.int32(0), lists, part, jnp.full(LANES, first, jnp.int32), end)
        return insertion.arrays(lists)

    for largest, (best, at) in zip(
        (False, True), jax.jit(lambda v: [run(v, False), run(v, True)])(values), strict=True
    ):
        want = _sorted(values[:end], k, largest)
        np.testing.assert_array_equal(at[:, 0], want)
        found = np.take_along_axis(values, np.maximum(want, 0), 0)
        turned = np.asarray(best[:, 0])
        if largest:
            turned = -turned if np.dtype(dtype).kind == "f" else ~turned
        np.testing.assert_array_equal(turned[want >= 0], found[want >= 0])


def test_numbers_in_order() -> None:
    r = np.random.default_rng(0)
    for k in (1, 2, 5, 8):
        rows = r.integers(0, 9, (k, LANES)).astype(np.int32)
        np.testing.assert_array_equal(jax.jit(in_order)(rows), np.sort(rows, 0))


@pytest.mark.parametrize(
    "m, n, k, shape, inserted",
    [
        (127, 8192, 32, "groups", 0),  # too few rows to fill vectors
        (128, 8192, 32, "groups", 4),
        (128, 16384, 33, "groups", 0),  # too many numbers
        (4096, 640, 10, "sorted lists", 16),  # twenty groups of 32, of which ten would be chosen
        (4096, 641, 10, "groups", 8),
        (128, 2559, 10, "sorted lists", 16),  # few pairs, for which groups are not worth compiling
        (128, 2560, 10, "groups", 8),
        (128, 511, 10, "block", 0),  # too few pairs for a longer program
        (127, 4096, 16, "groups", 0),
        (127, 4095, 16, "block", 0),  # XLA's top_k selects, and groups save little
        (4096, 9600, 100, "groups", 0),
        (4096, 9599, 100, "block", 0),
    ],
)
def test_where_lists_are_planned(m: int, n: int, k: int, shape: str, inserted: int) -> None:
    x, y = jax.ShapeDtypeStruct((m, 2), jnp.float32), jax.ShapeDtypeStruct((n, 2), jnp.float32)
    (found,) = explain(lambda x, y: Vi(x).sqdist(Vj(y)).argKmin(k, axis=1), x, y)
    assert (found.plan.tiles.shape, found.plan.tiles.inserted) == (shape, inserted)


@pytest.mark.parametrize(
    "batch, m, n, lists",
    [(8, 16, 600, True), (7, 16, 600, False), (60, 15, 600, False), (60, 64, 2560, True), (60, 64, 2561, False)],
)
def test_where_problems_share_lists(batch: int, m: int, n: int, lists: bool) -> None:
    """Together they have 128 lanes, of at least 16 rows each; beyond 2560 columns they have groups, one by one."""
    x, y = jax.ShapeDtypeStruct((batch, m, 2), jnp.float32), jax.ShapeDtypeStruct((batch, n, 2), jnp.float32)
    (found,) = explain(jax.vmap(lambda x, y: Vi(x).sqdist(Vj(y)).argKmin(5, axis=1)), x, y)
    assert (found.plan.tiles.shape == "sorted lists") == lists


@pytest.mark.parametrize("m, n, k", [(300, 3600, 7), (21000, 50, 5), (131072, 8, 11)])
def test_as_planned(m: int, n: int, k: int) -> None:
    """Groups with a rest, sorted lists of all values because they are few, fewer numbers than are wanted."""
    r = np.random.default_rng(n)
    x, y = r.integers(-40, 40, (m, 1)).astype("f4"), r.integers(-40, 40, (n, 1)).astype("f4")
    y[r.integers(0, n, n // 8)] = np.inf
    y[r.integers(0, n, n // 8)] = np.nan
    values = np.abs(x - y.T)
    gone = np.isnan(values)
    order = np.lexsort((np.where(gone, 0, values), gone))[:, :k]
    gone = np.take_along_axis(gone, order, 1)
    some = [np.where(gone, np.inf, np.take_along_axis(values, order, 1)), np.where(gone, -1, order)]
    want = [
        np.pad(a, ((0, 0), (0, max(0, k - n))), constant_values=fill)
        for a, fill in zip(some, (np.inf, -1), strict=True)
    ]
    for got, known in zip((Vi(x) - Vj(y)).abs().Kmin_argKmin(k, axis=1), want, strict=True):
        np.testing.assert_array_equal(got, known)


@pytest.mark.parametrize("batch, m, n", [(2, 1100, 1000), (3000, 17, 41), (3, 5000, 33)])
def test_a_batch_of_problems(batch: int, m: int, n: int) -> None:
    """Groups, problem after problem; sorted lists of many problems together; of several tiles of each."""
    r = np.random.default_rng(1)
    x, y = r.integers(-9, 9, (batch, m, 1)).astype("f4"), r.integers(-9, 9, (batch, n, 1)).astype("f4")
    got = jax.vmap(lambda x, y: (Vi(x) - Vj(y)).abs().argKmin(4, axis=1))(x, y)
    np.testing.assert_array_equal(got, np.argsort(np.abs(x - y.swapaxes(1, 2)), 2, kind="stable")[..., :4])
