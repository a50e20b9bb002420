"""Clusters of points, and the `ranges` of a block-sparse reduction: KeOps' helpers, under its names.

The way is: label the points (`grid_cluster`, or any other clustering), sort them so that clusters are contiguous
(`sort_clusters`), say where each one stands (`cluster_ranges_centroids`), decide from the centroids which clusters meet
which (a Boolean matrix), and make `ranges` of it (`from_matrix`).  Results are JAX arrays.

Where the size of a result depends on the data (how many clusters there are, how many blocks are kept), the data must be
known: such a function raises an error inside `jax.jit`.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ._errors import show
from ._ranges import Ranges, checked_form, exchanged
from ._variables import checked_array, is_array

__all__ = [
    "cluster_centroids",
    "cluster_ranges",
    "cluster_ranges_centroids",
    "from_matrix",
    "grid_cluster",
    "sort_clusters",
    "swap_axes",
]


def grid_cluster(x: Any, size: Any) -> jax.Array:
    """Label points by the cubic cell of a grid that they fall into.

    The grid has a corner at the origin, as that of `pykeops.numpy.cluster`. Labels count the cells that are not empty,
    in lexicographic order; any D, and any number of cells.

    Args:
        x: real numbers (M, D).
        size: the side of a cell, a number, or one for each axis, (D,).

    Returns:
        int32 labels (M,), in [0, C).

    Raises:
        TypeError, ValueError: for other arrays, numbers that are not finite, sizes that are not positive, and inside
            `jax.jit`.

    Example:
        >>> from lazyjax.cluster import grid_cluster
        >>> grid_cluster([[0.0], [0.1], [0.9], [0.05], [0.5]], 0.2)
        Array([0, 0, 2, 0, 1], dtype=int32)
    """
    x = _known(_points(x, "grid_cluster"), "grid_cluster", "x", "how many clusters there are")
    cell = _known(checked_array(np.asarray(size) if np.isscalar(size) else size, "grid_cluster: size"), "grid_cluster",
                  "size", "how many clusters there are")  # fmt: skip
    if cell.shape not in ((), (1,), (x.shape[1],)):
        raise ValueError(
            f"grid_cluster: size is {show(cell)}, expected a number or ({x.shape[1]},), one for each axis."
        )
    if cell.dtype.kind not in "fiu" or not (np.isfinite(cell) & (cell > 0)).all():
        raise ValueError(f"grid_cluster: size is {cell}, expected positive numbers.")
    if not np.isfinite(x).all():
        raise ValueError(f"grid_cluster: x is {show(x)} and holds numbers that are not finite, which are in no cell.")
    x = x.astype(np.float64) if x.dtype not in (np.float32, np.float64) else x
    cells = np.floor(x / cell.astype(x.dtype))
    return jnp.asarray(np.unique(cells, axis=0, return_inverse=True)[1].reshape(-1), jnp.int32)


def sort_clusters(x: Any, lab: Any) -> tuple[Any, jax.Array]:
    """Sort points by their labels, so that each cluster is contiguous; points of one cluster keep their order.

    Works under `jax.jit`, and is differentiable in x.

    Args:
        x: an array (M, ...), or a tuple or a list of such arrays, that are all sorted in the same way.
        lab: integer labels (M,).

    Returns:
        (x sorted, an array, a tuple or a list as it came; labels sorted, (M,)).

    Raises:
        TypeError, ValueError: for labels that are no integers (M,), or not as many as points.

    Example:
        >>> import jax.numpy as jnp
        >>> from lazyjax.cluster import sort_clusters
        >>> x, lab = sort_clusters(jnp.array([[0.0], [5.0], [0.5], [2.0]]), jnp.array([0, 2, 0, 1]))
        >>> x[:, 0].tolist(), lab.tolist()
        ([0.0, 0.5, 2.0, 5.0], [0, 0, 1, 2])
    """
    lab = _labels(lab, "sort_clusters")
    several = isinstance(x, tuple | list) and all(is_array(a) for a in x) and bool(x)
    arrays = [checked_array(a, "sort_clusters: x") for a in (x if several else [x])]
    for a in arrays:
        if a.ndim == 0 or a.shape[0] != lab.shape[0]:
            raise ValueError(
                f"sort_clusters: x is {show(a)} and lab is {show(lab)}, expected as many labels as points."
            )
    order = jnp.argsort(lab, stable=True)
    out = [jnp.asarray(a)[order] for a in arrays]
    return (type(x)(out) if several else out[0]), jnp.asarray(lab)[order]


def cluster_ranges(lab: Any, Nlab: Any = None) -> jax.Array:
    """Where each cluster stands among sorted points.

    Args:
        lab: integer labels (M,), in [0, C), sorted or not.
        Nlab: how many points each cluster has, (C,), if that is known already; `lab` may then be traced.

    Returns:
        int32 (C, 2): the start and the end of each cluster.

    Raises:
        TypeError, ValueError: for other arrays; for a traced `lab` without `Nlab`.

    Example:
        >>> import jax.numpy as jnp
        >>> from lazyjax.cluster import cluster_ranges
        >>> cluster_ranges(jnp.array([0, 0, 0, 1, 2]))
        Array([[0, 3],
               [3, 4],
               [4, 5]], dtype=int32)
    """
    ends = jnp.cumsum(_counts(lab, Nlab, "cluster_ranges"), dtype=jnp.int32)
    return jnp.stack([jnp.concatenate([jnp.zeros_like(ends[:1]), ends[:-1]]), ends], 1)


def cluster_centroids(x: Any, lab: Any, Nlab: Any = None, weights: Any = None, weights_c: Any = None) -> jax.Array:
    """The weighted mean of the points of each cluster; differentiable in x and in the weights.

    Args:
        x: (M, D).
        lab: integer labels (M,), in [0, C), sorted or not.
        Nlab: how many points each cluster has, (C,), if that is known already; `lab` may then be traced.
        weights: one for each point, (M,); 1 if None.
        weights_c: the sums of the weights of each cluster, (C,), if they are known already.

    Returns:
        (C, D), in the dtype of x and the weights; NaN for a cluster without points, or of weight 0.

    Raises:
        TypeError, ValueError: for arrays of other shapes and dtypes; where `lab` is traced and Nlab is not given.

    Example:
        >>> import jax.numpy as jnp
        >>> from lazyjax.cluster import cluster_centroids
        >>> x, lab = jnp.array([[0.0], [1.0], [4.0], [5.0], [6.0]]), jnp.array([0, 0, 1, 1, 1])
        >>> cluster_centroids(x, lab, weights=jnp.array([0.5, 0.5, 2.0, 1.0, 1.0])).tolist()
        [[0.5], [4.75]]
    """
    name = "cluster_centroids"
    x, lab = _points(x, name), _labels(lab, name)
    if x.shape[0] != lab.shape[0]:
        raise ValueError(f"{name}: x is {show(x)} and lab is {show(lab)}, expected as many labels as points.")
    counts = _counts(lab, Nlab, name)
    size = counts.shape[0]
    x = jnp.asarray(x)
    x = x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(float)
    if weights is None:
        sums, totals = jax.ops.segment_sum(x, lab, size), counts.astype(x.dtype)
    else:
        w = _weights(weights, lab.shape[0], name)
        x, w = (a.astype(jnp.promote_types(x.dtype, w.dtype)) for a in (x, w))
        sums = jax.ops.segment_sum(x * w[:, None], lab, size)
        totals = jax.ops.segment_sum(w, lab, size)
        if weights_c is not None:
            totals = jnp.ravel(jnp.asarray(checked_array(weights_c, f"{name}: weights_c"))).astype(x.dtype)
            if totals.shape != (size,):
                raise ValueError(f"{name}: weights_c is {show(weights_c)}, expected ({size},), one for each cluster.")
    return sums / totals[:, None]


def cluster_ranges_centroids(
    x: Any, lab: Any, weights: Any = None, min_weight: float = 1e-9
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Where each cluster stands, its weighted mean and its weight: `cluster_ranges`, `cluster_centroids`, and sums.

    Args:
        x: (M, D).
        lab: integer labels (M,), in [0, C), sorted or not; not traced.
        weights: one for each point, (M,); 1 if None. Smaller ones than `min_weight` count as that, as in
            `pykeops.torch.cluster`.

    Returns:
        (int32 (C, 2), (C, D), (C,)).

    Example:
        >>> import jax.numpy as jnp
        >>> from lazyjax.cluster import cluster_ranges_centroids
        >>> x, lab = jnp.array([[0.0], [0.5], [1.0], [2.0], [3.0]]), jnp.array([0, 0, 1, 1, 1])
        >>> ranges, centroids, weights = cluster_ranges_centroids(x, lab)
        >>> ranges.tolist(), centroids.tolist(), weights.tolist()
        ([[0, 2], [2, 5]], [[0.25], [2.0]], [2.0, 3.0])
    """
    name = "cluster_ranges_centroids"
    x, lab = _points(x, name), _labels(lab, name)
    counts = _counts(lab, None, name)
    if weights is not None:
        weights = _weights(weights, lab.shape[0], name)
        weights = jnp.maximum(weights, jnp.asarray(min_weight, weights.dtype))
    centroids = cluster_centroids(x, lab, counts, weights)
    w = jnp.ones(lab.shape, centroids.dtype) if weights is None else weights.astype(centroids.dtype)
    return cluster_ranges(lab, counts), centroids, jax.ops.segment_sum(w, lab, counts.shape[0])


def from_matrix(ranges_i: Any, ranges_j: Any, keep: Any) -> Ranges:
    """The `ranges` of a reduction that keeps the pairs of some clusters.

    Args:
        ranges_i: integers (Mc, 2): cluster k of the rows is ranges_i[k, 0] to ranges_i[k, 1] - 1.
        ranges_j: integers (Nc, 2): the clusters of the columns.
        keep: booleans (Mc, Nc): whether cluster k of the rows meets cluster l of the columns.

    Returns:
        Six int32 arrays, (ranges_i, slices_i, redranges_j, ranges_j, slices_j, redranges_i): see `LazyTensor.ranges`.

    Raises:
        TypeError, ValueError: for other arrays; for a traced `keep`.

    Example:
        >>> import numpy as np
        >>> from lazyjax.cluster import from_matrix
        >>> rows, columns = np.array([[2, 5], [7, 12]]), np.array([[1, 4], [4, 9], [20, 30]])
        >>> ranges = from_matrix(rows, columns, np.array([[True, True, False], [False, True, False]]))
        >>> ranges[1], ranges[2].tolist()
        (Array([2, 3], dtype=int32), [[1, 4], [4, 9], [4, 9]])
        >>> ranges[4], ranges[5].tolist()
        (Array([1, 3, 3], dtype=int32), [[2, 5], [2, 5], [7, 12]])
    """
    name = "from_matrix"
    rows, columns = _bounds(ranges_i, "ranges_i", name), _bounds(ranges_j, "ranges_j", name)
    keep = checked_array(keep, f"{name}: keep")
    if keep.dtype != bool:
        raise TypeError(f"{name}: keep is {show(keep)}, expected booleans, as distances < threshold gives them.")
    if keep.shape != (rows.shape[0], columns.shape[0]):
        raise ValueError(
            f"{name}: keep is {show(keep)}, expected ({rows.shape[0]}, {columns.shape[0]}) for {rows.shape[0]} "
            f"clusters of rows and {columns.shape[0]} of columns."
        )
    keep = _known(keep, name, "keep", "how many blocks are kept")

    def half(own: jax.Array, other: jax.Array, keep: np.ndarray) -> tuple[jax.Array, jax.Array, jax.Array]:
        return own, jnp.asarray(np.cumsum(keep.sum(1)), jnp.int32), other[np.nonzero(keep)[1]]

    return (*half(rows, columns, keep), *half(columns, rows, keep.T))


def swap_axes(ranges: Any) -> Ranges | None:
    """The ranges of the transposed formula: i and j exchanged.

    Args:
        ranges: six integer arrays, see `LazyTensor.ranges`; or None.

    Returns:
        The last three, then the first three; None of None.

    Raises:
        TypeError, ValueError: for anything else.

    Example:
        >>> from lazyjax.cluster import from_matrix, swap_axes
        >>> ranges = from_matrix([[0, 2]], [[0, 3], [3, 4]], [[True, False]])
        >>> [r.tolist() for r in swap_axes(ranges)[:3]]
        [[[0, 3], [3, 4]], [1, 1], [[0, 2]]]
    """
    return exchanged(checked_form(ranges, "swap_axes"))


# What comes in.


def _known(x: Any, method: str, name: str, why: str) -> np.ndarray:
    if isinstance(x, Tracer):
        raise TypeError(
            f"{method}: {name} is a traced value ({show(x)}), but {why} depends on it, and so the size of the result. "
            f"Call {method} outside of jax.jit, jax.vmap and jax.grad, and pass its results in."
        )
    return np.asarray(x)


def _points(x: Any, method: str) -> Any:
    x = checked_array(x, f"{method}: x")
    if x.ndim != 2 or not (jnp.issubdtype(x.dtype, jnp.floating) or jnp.issubdtype(x.dtype, jnp.integer)):
        raise ValueError(f"{method}: x is {show(x)}, expected real numbers (M, D); write scalars as x[:, None].")
    return x


def _labels(lab: Any, method: str) -> Any:
    lab = checked_array(lab, f"{method}: lab")
    if not jnp.issubdtype(lab.dtype, jnp.integer) or lab.ndim != 1:
        raise ValueError(f"{method}: lab is {show(lab)}, expected integer labels (M,).")
    if not isinstance(lab, Tracer) and lab.size and np.asarray(lab).min() < 0:
        raise ValueError(f"{method}: lab holds {np.asarray(lab).min()}, expected labels of at least 0.")
    return lab


def _counts(lab: Any, given: Any, method: str) -> jax.Array:
    """How many points each cluster has."""
    lab = _labels(lab, method)
    if given is None:
        known = _known(lab, method, "lab", "how many clusters there are")
        return jnp.asarray(np.bincount(known), jnp.int32)
    counts = checked_array(given, f"{method}: Nlab")
    if counts.ndim != 1:
        raise ValueError(f"{method}: Nlab is {show(counts)}, expected (C,), the number of points of each cluster.")
    if not isinstance(lab, Tracer) and not isinstance(counts, Tracer):
        found = np.bincount(np.asarray(lab), minlength=counts.shape[0])
        if found.shape != counts.shape or (found != np.asarray(counts)).any():
            raise ValueError(f"{method}: Nlab does not count the labels; leave it out, or give jnp.bincount(lab).")
    return jnp.asarray(counts).astype(jnp.int32)


def _weights(weights: Any, count: int, method: str) -> jax.Array:
    w = checked_array(weights, f"{method}: weights")
    if w.shape not in ((count,), (count, 1)) or not jnp.issubdtype(w.dtype, jnp.floating):
        raise ValueError(f"{method}: weights is {show(w)}, expected real numbers ({count},), one for each point.")
    return jnp.ravel(jnp.asarray(w))


def _bounds(ranges: Any, name: str, method: str) -> jax.Array:
    ranges = checked_array(ranges, f"{method}: {name}")
    if ranges.ndim != 2 or ranges.shape[1] != 2 or not jnp.issubdtype(ranges.dtype, jnp.integer):
        raise ValueError(f"{method}: {name} is {show(ranges)}, expected integers (C, 2): a start and an end for each.")
    return jnp.asarray(ranges).astype(jnp.int32)
