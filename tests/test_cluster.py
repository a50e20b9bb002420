"""The cluster helpers, against plain NumPy; against KeOps itself in tests/test_keops_conformance.py."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lazyjax
from lazyjax import Vi, Vj, cluster
from lazyjax.cluster import (
    cluster_centroids,
    cluster_ranges,
    cluster_ranges_centroids,
    from_matrix,
    grid_cluster,
    sort_clusters,
    swap_axes,
)

from .dense import close, normal, sqdists, uniform

x = normal(0, 40, 3)
lab = np.array([k % 5 if k % 7 else 2 for k in range(40)])
weights = uniform(1, 40, low=0.1)


@pytest.mark.parametrize("size", [0.5, [0.5, 1.0, 2.0]])
def test_grid_cluster(size: Any) -> None:
    labels = np.asarray(grid_cluster(x, size))
    cells = np.floor(x / size).astype(int)
    assert labels.dtype == np.int32 and set(labels) == set(range(labels.max() + 1))
    np.testing.assert_array_equal(labels[:, None] == labels, (cells[:, None] == cells).all(-1))
    order = sorted({tuple(c) for c in cells})
    np.testing.assert_array_equal(labels, [order.index(tuple(c)) for c in cells])
    np.testing.assert_array_equal(grid_cluster(jnp.asarray(x), size), labels)


def test_sort_clusters() -> None:
    order = sorted(range(40), key=lambda k: lab[k])
    found, labels = sort_clusters(x, lab)
    close(found, x[order])
    np.testing.assert_array_equal(labels, np.sort(lab))
    both, _ = jax.jit(sort_clusters)((x, weights), lab)
    assert isinstance(both, tuple)
    close(both[1], weights[order])
    assert isinstance(sort_clusters([x, weights], lab)[0], list)


def test_cluster_ranges() -> None:
    found = np.asarray(cluster_ranges(lab))
    labels = np.sort(lab)
    for k, (start, end) in enumerate(found):
        np.testing.assert_array_equal(np.flatnonzero(labels == k), np.arange(start, end))
    counts = np.bincount(lab)
    np.testing.assert_array_equal(jax.jit(cluster_ranges)(lab, counts), found)
    np.testing.assert_array_equal(cluster_ranges(lab, counts.astype(float)), found)


def test_cluster_centroids() -> None:
    close(cluster_centroids(x, lab), [x[lab == k].mean(0) for k in range(5)])
    want = [np.average(x[lab == k], 0, weights[lab == k]) for k in range(5)]
    close(cluster_centroids(x, lab, weights=weights), want)
    close(cluster_centroids(x, lab, weights=weights[:, None], weights_c=np.bincount(lab, weights)), want)
    slope = jax.grad(lambda x: (cluster_centroids(x, lab, weights=weights)[2] ** 2).sum())(x)
    share = np.where(lab == 2, weights, 0) / weights[lab == 2].sum()
    close(slope, 2 * share[:, None] * np.asarray(want)[2])


def test_cluster_ranges_centroids() -> None:
    ranges, centroids, total = cluster_ranges_centroids(x, lab, weights)
    np.testing.assert_array_equal(ranges, cluster_ranges(lab))
    close(centroids, cluster_centroids(x, lab, weights=weights))
    close(total, np.bincount(lab, weights))
    _, centroids, total = cluster_ranges_centroids(x, lab)
    close(centroids, cluster_centroids(x, lab))
    close(total, np.bincount(lab))
    _, centroids, _ = cluster_ranges_centroids(x, lab, np.zeros(40))  # the smallest weight is not zero
    close(centroids, cluster_centroids(x, lab))


def test_from_matrix_and_swap_axes() -> None:
    rows, columns, keep = np.array([[2, 5], [7, 12]]), np.array([[1, 4], [4, 9], [20, 30]]), np.eye(2, 3, 1) > 0
    ranges = from_matrix(rows, columns, keep)
    want = (rows, [1, 2], [[4, 9], [20, 30]], columns, [0, 1, 2], [[2, 5], [7, 12]])
    for got, expected in zip(ranges, want, strict=True):
        assert got.dtype == jnp.int32
        np.testing.assert_array_equal(got, expected)
    for got, expected in zip(swap_axes(ranges), (*want[3:], *want[:3]), strict=True):
        np.testing.assert_array_equal(got, expected)
    assert swap_axes(None) is None and lazyjax.cluster is cluster


def test_the_way_from_points_to_a_reduction() -> None:
    y = normal(2, 50, 3)
    found = []
    for points in (x, y):
        labels = grid_cluster(points, 0.8)
        ranges, centroids, _ = cluster_ranges_centroids(points, labels)
        found.append((np.asarray(sort_clusters(points, labels)[0]), np.asarray(ranges), np.asarray(centroids)))
    (a, rows, mine), (b, columns, other) = found
    keep = sqdists(mine, other) < 4
    mask = np.zeros((40, 50))
    for k, l in zip(*np.nonzero(keep), strict=True):
        mask[slice(*rows[k]), slice(*columns[l])] = 1
    assert 0.1 < mask.mean() < 0.9
    K = (-Vi(a).sqdist(Vj(b))).exp()
    K.ranges = from_matrix(rows, columns, keep)
    close(K @ b, (np.exp(-sqdists(a, b)) * mask) @ b)


MISUSE = {
    "grid: traced": (lambda: jax.jit(lambda x: grid_cluster(x, 1.0))(x), TypeError,
                     r"grid_cluster: x is a traced value.*how many clusters there are depends.*outside of jax\.jit"),
    "grid: flat": (lambda: grid_cluster(x[:, 0], 1.0), ValueError, r"x is f64\[40\], expected real numbers \(M, D\)"),
    "grid: size": (lambda: grid_cluster(x, -1.0), ValueError, r"size is -1.0, expected positive numbers"),
    "grid: sizes": (lambda: grid_cluster(x, [1.0, 2.0]), ValueError, r"size is f64\[2\], expected a number or \(3,"),
    "grid: infinite": (lambda: grid_cluster(x / 0, 1.0), ValueError, r"not finite, which are in no cell"),
    "sort: lengths": (lambda: sort_clusters(x, lab[1:]), ValueError, r"expected as many labels as points"),
    "sort: floats": (lambda: sort_clusters(x, lab + 0.5), ValueError, r"lab is f64\[40\], expected integer labels"),
    "ranges: traced": (lambda: jax.jit(cluster_ranges)(lab), TypeError, r"cluster_ranges: lab is a traced value"),
    "ranges: negative": (lambda: cluster_ranges(lab - 1), ValueError, r"lab holds -1, expected labels of at least 0"),
    "ranges: counts": (lambda: cluster_ranges(lab, [1, 2]), ValueError, r"Nlab does not count the labels; leave it"),
    "centroids: weights": (lambda: cluster_centroids(x, lab, weights=weights[1:]), ValueError,
                           r"weights is f64\[39\], expected real numbers \(40,\)"),
    "matrix: numbers": (lambda: from_matrix([[0, 1]], [[0, 1]], [[1]]), TypeError,
                        r"keep is i64\[1,1\], expected booleans, as distances < threshold"),
    "matrix: shape": (lambda: from_matrix([[0, 1]], [[0, 1]], [[True, True]]), ValueError,
                      r"keep is bool\[1,2\], expected \(1, 1\) for 1 clusters of rows and 1 of columns"),
    "matrix: traced": (lambda: jax.jit(lambda k: from_matrix([[0, 1]], [[0, 1]], k))(np.ones((1, 1), bool)), TypeError,
                       r"from_matrix: keep is a traced value.*how many blocks are kept"),
    "matrix: ranges": (lambda: from_matrix([0, 1], [[0, 1]], [[True]]), ValueError,
                       r"ranges_i is i64\[2\], expected integers \(C, 2\)"),
    "swap": (lambda: swap_axes((1, 2)), TypeError, r"swap_axes: ranges is 2 of them, expected None or six"),
}  # fmt: skip


@pytest.mark.parametrize("misuse", MISUSE)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_misuse(misuse: str) -> None:
    call, error, message = MISUSE[misuse]
    with pytest.raises(error, match=message):
        call()
