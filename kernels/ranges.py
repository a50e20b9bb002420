"""Block-sparse reductions: which pairs are kept, as ranges of rows and of the columns that each of them meets.

Six integer arrays, as in KeOps: (ranges_i, slices_i, redranges_j, ranges_j, slices_j, redranges_i).  Cluster k, the
rows ranges_i[k, 0] to ranges_i[k, 1] - 1, meets the columns of redranges_j[l] for all l from slices_i[k - 1] (0 for
k = 0) to slices_i[k] - 1.  The last three say the same of columns: derivatives with respect to j-arguments walk through
them.  A kernel reads the first three, the half of its own rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


class RangeSizes(NamedTuple):
    """What is static of the six arrays: clusters (C) and ranges (L) of either half; (C, 2), (C,), (L, 2) each."""

    clusters: int
    ranges: int
    other_clusters: int
    other_ranges: int

    def swapped(self) -> RangeSizes:
        """i and j exchanged."""
        return RangeSizes(*self[2:], *self[:2])


def swapped(arrays: Sequence[Any]) -> list[Any]:
    """The six arrays with i and j exchanged; none if there are none."""
    return [*arrays[3:], *arrays[:3]]


def within(arrays: Sequence[jax.Array], m: Any, n: Any) -> list[jax.Array]:
    """The six arrays as kernels want them, int32 (int64 for an axis that needs it), and so that nothing is read out of
    bounds: bounds are clamped to the axis, an end before its start makes an empty range, slices never decrease."""
    large = any(isinstance(s, int) and s > np.iinfo(np.int32).max for s in (m, n))
    dtype = np.int64 if large else np.int32

    def bounds(x: jax.Array, size: Any) -> jax.Array:
        clamped = _clamped(x, size, dtype)
        start = clamped[..., :1]
        return lax.concatenate([start, jnp.maximum(start, clamped[..., 1:])], clamped.ndim - 1)

    def half(ranges: Any, slices: Any, redranges: Any, size: Any, other: Any) -> list[jax.Array]:
        ends = _clamped(slices, redranges.shape[-2], dtype)
        return [bounds(ranges, size), lax.cummax(ends, axis=ends.ndim - 1), bounds(redranges, other)]

    (own_i, slices_i, red_j), (own_j, slices_j, red_i) = arrays[:3], arrays[3:]
    return [*half(own_i, slices_i, red_j, m, n), *half(own_j, slices_j, red_i, n, m)]


def _clamped(x: jax.Array, most: Any, dtype: Any) -> jax.Array:
    x = jnp.asarray(x)
    if isinstance(most, int):
        most = min(most, jnp.iinfo(x.dtype).max)
    low, high = (jnp.asarray(v, x.dtype) for v in (0, most))
    return jnp.clip(x, low, high).astype(dtype)


def slice_starts(slices: jax.Array) -> jax.Array:
    """Where the ranges of every cluster begin in `redranges`: the end of those before."""
    return lax.concatenate([jnp.zeros_like(slices[:1]), slices[:-1]], 0)


def between(totals: jax.Array, slices: jax.Array) -> jax.Array:
    """The sum of `totals` (one number of every range) over the ranges of each cluster.

    Differences of a running sum: they are right even where that wraps around, as long as they fit themselves.
    """
    running = lax.concatenate([jnp.zeros((1,), totals.dtype), jnp.cumsum(totals, dtype=totals.dtype)], 0)
    return running[slices] - running[slice_starts(slices)]


class RowTiles(NamedTuple):
    """Tiles of rows, (T,) each: the first row, the end of its cluster, the cluster; whether it is one at all."""

    row: jax.Array
    end: jax.Array
    cluster: jax.Array
    real: jax.Array


def row_tiles(ranges: jax.Array, wanted: Any, tile: int, most: Any) -> tuple[RowTiles, jax.Array]:
    """The clusters that are wanted, (C,), in tiles of rows: `most` of them, and how many there are really.

    Clusters that do not overlap have at most C + ceil(m / tile) tiles.
    """
    dtype = ranges.dtype
    count = parts(ranges, tile) * wanted.astype(dtype)
    ends = lax.cumsum(count)
    number = jnp.arange(most, dtype=dtype)
    few = isinstance(most, int) and most * ranges.shape[0] <= 1 << 16
    cluster = jnp.searchsorted(ends, number, side="right", method="compare_all" if few else "scan")
    cluster = jnp.minimum(cluster, np.asarray(ranges.shape[0] - 1, cluster.dtype))
    within = number - (ends - count)[cluster]
    real = number < ends[-1]
    row = jnp.where(real, ranges[cluster, 0] + within * np.asarray(tile, dtype), 0)
    return RowTiles(row, jnp.where(real, ranges[cluster, 1], 0), cluster, real), ends[-1]


def gaps(ranges: jax.Array, m: Any) -> jax.Array:
    """The rows that no cluster owns, as (C + 1, 2) ranges, many of them empty."""
    order = jnp.argsort(ranges[:, 0])
    ends = jnp.concatenate([jnp.zeros((1,), ranges.dtype), lax.cummax(ranges[order, 1])])
    starts = jnp.concatenate([ranges[order, 0], jnp.full((1,), m, ranges.dtype)])
    return jnp.stack([ends, jnp.maximum(ends, starts)], 1)


def parts(ranges: jax.Array, size: int) -> jax.Array:
    """How many pieces of a size, the last of which may be shorter, every range has."""
    dtype = ranges.dtype
    return lax.div(ranges[:, 1] - ranges[:, 0] + np.asarray(size - 1, dtype), np.asarray(size, dtype))


def cluster_of_rows(ranges: jax.Array, m: Any) -> jax.Array:
    """The cluster of every row, (m,); -1 where there is none."""
    number = jnp.arange(1, ranges.shape[0] + 1, dtype=ranges.dtype)
    change = jnp.zeros((m + 1,), ranges.dtype).at[ranges[:, 0]].add(number).at[ranges[:, 1]].add(-number)
    return jnp.cumsum(change, dtype=ranges.dtype)[:m] - jnp.asarray(1, ranges.dtype)


def kept(half: Sequence[jax.Array], m: Any, n: Any) -> jax.Array:
    """The mask (m, n) of the pairs that one half keeps.  For the dense kernel: it holds all pairs."""
    ranges, slices, redranges = half
    clusters, count = ranges.shape[0], redranges.shape[0]
    owner = jnp.searchsorted(slices, jnp.arange(count, dtype=slices.dtype), side="right")
    change = jnp.zeros((clusters + 1, n + 1), ranges.dtype)
    change = change.at[owner, redranges[:, 0]].add(1).at[owner, redranges[:, 1]].add(-1)
    covered = (jnp.cumsum(change, axis=1)[:, :n] > 0).at[clusters].set(False)  # the row of no cluster
    return covered[cluster_of_rows(ranges, m)]  # -1 is the last row


def pairs_of_rows(half: Sequence[jax.Array], m: Any) -> jax.Array:
    """How many pairs every row has, (m,)."""
    ranges, slices, redranges = half
    if ranges.shape[0] == 0:
        return jnp.zeros((m,), ranges.dtype)
    per_cluster = between(redranges[:, 1] - redranges[:, 0], slices)
    cluster = cluster_of_rows(ranges, m)
    return jnp.where(cluster >= 0, per_cluster[cluster], 0)


def pairs_in_all(half: Sequence[jax.Array], dtype: Any) -> jax.Array:
    """How many pairs there are, as a float."""
    ranges, slices, redranges = half
    per_cluster = between(redranges[:, 1] - redranges[:, 0], slices)
    return jnp.sum(per_cluster.astype(dtype) * (ranges[:, 1] - ranges[:, 0]).astype(dtype))
