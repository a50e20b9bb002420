"""The GPU kernels of group minima, interpreted on the CPU, lowered, planned.  Nothing here runs on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lazyjax import Pm, Vi, Vj, explain
from lazyjax.cluster import from_matrix
from lazyjax.kernels import Selection
from lazyjax.kernels.triton.group_plan import HELD
from lazyjax.kernels.triton.plan import TritonPlan

from ..kernels_of import on_pallas, run_on
from ..unoptimised import UNOPTIMISED
from .lowering import kernel_calls, lowered_for

# Stretches of four groups of eight columns, in two parts; rows in tiles of 16; two lanes that select.
TILES = {"block_i": 16, "block_j": 4, "unroll": 2, "members": 8, "rows": 16, "selecting": (8, 2), "splits": 2}
M, N = 21, 157


def best(values: Any, k: int, largest: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """The k best of each row and where they are, one row after the other, in Python's numbers."""
    values = np.asarray(values)
    kept, where = [], []
    none = (np.inf, -np.inf) if values.dtype.kind == "f" else (np.iinfo(values.dtype).max, np.iinfo(values.dtype).min)
    for row in values.tolist():
        order = sorted((-v if largest else v, j) for j, v in enumerate(row) if v == v)[:k]
        kept.append([row[j] for _, j in order] + [none[largest]] * (k - len(order)))
        where.append([j for _, j in order] + [-1] * (k - len(order)))
    return np.asarray(kept), np.asarray(where)


def _whole(*shape: int, seed: int = 0, most: int = 4) -> np.ndarray:
    """Few different numbers: many ties, and no rounding."""
    return np.random.default_rng(seed).integers(-most, most, shape).astype(np.float64)


def run(f: Callable[..., Any], *args: Any, **tiles: Any) -> Any:
    """f(*args), its selections by group minima, whatever their size."""
    by_groups, as_it_goes = on_pallas(**TILES | tiles), on_pallas(block_i=16, block_j=4)
    way = lambda d, args: (by_groups if isinstance(d.reduction, Selection) else as_it_goes)(d, args)  # noqa: E731
    return jax.jit(lambda *a: run_on(f, way, *a), compiler_options=UNOPTIMISED)(*args)


def test_ties_infinities_and_groups_of_nothing_but_nan() -> None:
    """Six problems, three of them at once."""
    x, y, extra = _whole(2, M, 2), _whole(N, 2, seed=1), np.zeros((3, N))
    extra[1] = np.where(np.arange(N) < 20, np.nan, np.inf)  # the first groups look as if they were infinite
    extra[1, [60, 90]] = 0, -np.inf
    extra[2] = np.nan

    def ours(x: Any, y: Any, s: Any, extra: Any) -> Any:
        f = lambda x, v: (Pm(s) * Vi(x).sqdist(Vj(y)) + Vj(v[:, None])).Kmin_argKmin(4, axis=1)  # noqa: E731
        return jax.vmap(jax.vmap(f, (None, 0)), (0, None))(x, extra)

    values, indices = run(ours, x, y, jnp.float64(2), extra, rows=4 * M)
    dense = 2 * ((x[:, :, None] - y) ** 2).sum(-1)[:, None] + extra[:, None]
    want = best(dense.reshape(-1, N), 4)
    np.testing.assert_array_equal(values.reshape(-1, 4), want[0])
    np.testing.assert_array_equal(indices.reshape(-1, 4), want[1])


def test_the_largest_of_integers_in_tiles_of_rows() -> None:
    """The last number of the range is not taken for padding, of which whole groups consist."""
    x, y = _whole(M, 1).astype(np.int32), np.full((N, 1), np.iinfo(np.int32).min)
    x[3], y[60] = 1, 7
    got = run(lambda x, y: (Vi(x) * Vj(y)).Kmax_argKmax(3, axis=1), x, y, members=16)
    for a, b in zip(got, best(x * y.T, 3, largest=True), strict=True):
        np.testing.assert_array_equal(a, b)


def test_fewer_columns_than_are_wanted() -> None:
    """Lanes that select beyond the end of a group, in half precision."""
    x, y = (jnp.asarray(_whole(n, 1), jnp.bfloat16) for n in (5, 2))
    values, indices = run(lambda x, y: (Vi(x) * Vj(y)).Kmin_argKmin(3, axis=1), x, y, members=2, selecting=(8, 4))
    assert values.dtype == jnp.bfloat16
    want = best(np.asarray(x, np.float64) * np.asarray(y, np.float64).T, 3)
    np.testing.assert_array_equal(np.asarray(values, np.float64), want[0])
    np.testing.assert_array_equal(indices, want[1])


def test_derivatives() -> None:
    r = np.random.default_rng(0)
    x, y = (jnp.asarray(r.normal(size=(n, 2))) for n in (M, N))
    ours = lambda x, y: jnp.sin(Vi(x).sqdist(Vj(y)).Kmin(3, axis=0)).sum()  # noqa: E731
    dense = lambda x, y: jnp.sin(jnp.sort(((x[:, None] - y) ** 2).sum(-1), 0)[:3]).sum()  # noqa: E731
    got = run(jax.grad(ours, (0, 1)), x, y, members=6, selecting=(8, 4))  # the last lanes stand beyond a group
    for a, b in zip(got, jax.grad(dense, (0, 1))(x, y), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


def _found(m: int, n: int, f: Callable[..., Any], d: int = 3, dtype: str = "float32") -> Any:
    x, y = jax.ShapeDtypeStruct((m, d), dtype), jax.ShapeDtypeStruct((n, d), dtype)
    return explain(f, x, y, platform="cuda")[-1]


def _argkmin(x: Any, y: Any) -> Any:
    return Vi(x).sqdist(Vj(y)).argKmin(10, axis=1)


@pytest.mark.parametrize("m, n", [(1000, 1_000_000), (1_000_000, 1000), (100_000, 100_000), (1_000_000, 1_000_000)])
def test_large_problems_take_group_minima(m: int, n: int) -> None:
    found = _found(m, n, _argkmin)
    tiles: TritonPlan = found.plan.tiles
    groups = tiles.block_j * -(-n // (tiles.block_j * tiles.members))
    assert tiles.rows * groups * 4 <= HELD
    assert tiles.splits * -(-min(m, tiles.rows) // tiles.block_i) >= 108  # multiprocessors
    rows, lanes = tiles.selecting
    assert tiles.block_i % rows == 0 and tiles.block_j % lanes == 0  # no program of theirs leaves the array
    assert groups + 10 * tiles.members < 10 * (10 * n) ** 0.5
    assert "(minima of groups find the 10 best)" in str(found) and "members=" in str(found)
    assert tiles.instructions < 0.5 * 55  # what one kernel takes for K = 10


# Formula, sizes, and what is printed.
KEPT: dict[str, tuple[Callable[..., Any], int, int, str]] = {
    "few columns": (_argkmin, 100_000, 100, "no minima of groups: there are few pairs for three kernels"),
    "few pairs": (_argkmin, 100, 10_000, "no minima of groups: there are few pairs for three kernels"),
    "vectors": (
        lambda x, y: (Vi(x) * Vj(y)).argKmin(10, axis=1), 100_000, 100_000,
        "no minima of groups: every feature has winners of its own",
    ),
    "booleans": (
        lambda x, y: (Vi(x).sqdist(Vj(y)) > 1).Kmin(10, axis=1), 100_000, 100_000,
        "no minima of groups: values are booleans",
    ),
    "ranges": (
        lambda x, y: Vi(x).sqdist(Vj(y)).argKmin(10, axis=1, ranges=RANGES), 100_000, 100_000,
        "no minima of groups: the columns of a row are ranges",
    ),
    "one winner": (lambda x, y: Vi(x).sqdist(Vj(y)).argKmin(1, axis=1), 100_000, 100_000, "on cuda\n"),
}  # fmt: skip
RANGES = from_matrix(*(np.array([[0, 50_000], [50_000, 100_000]]),) * 2, np.eye(2, dtype=bool))


@pytest.mark.parametrize("name", KEPT)
def test_what_keeps_one_kernel_says_why(name: str) -> None:
    f, m, n, why = KEPT[name]
    found = _found(m, n, f)
    assert found.plan.kernel == "pallas-triton" and not found.plan.tiles.members
    assert why in str(found)


def test_long_features_keep_their_kernel() -> None:
    found = _found(100_000, 100_000, _argkmin, d=100)
    assert found.plan.tiles.features and not found.plan.tiles.members


@pytest.mark.parametrize("platform", ["cuda", "rocm"])
def test_lowers(platform: str) -> None:
    """Three kernels, in a loop over tiles of rows, and no array of all pairs."""
    m, n = 30_000, 40_000
    for dtype in ("float32", "float64") if platform == "cuda" else ("float32",):
        shapes = [jax.ShapeDtypeStruct((s, 3), dtype) for s in (m, n)]
        text = lowered_for(platform, _argkmin, *shapes)
        assert kernel_calls(text) == 3 and f"{m}x{n}" not in text
