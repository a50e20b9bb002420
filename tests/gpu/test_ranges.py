"""Block-sparse reductions in the Pallas kernel, interpreted: derivatives and batches, ties, many ranges."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lazyjax import Vi, Vj

from ..cases import arguments, distance
from ..kernels_of import on_pallas, run_on
from ..masked import BOTH, COLUMNS, ROWS, SEVERAL, M, N, agree, gaussian, mask_of

INTERPRETED = on_pallas(block_i=4, block_j=2, unroll=2, group=1)


def test_gradients_and_batches() -> None:
    """Interpreted: both halves of the ranges, and ranges of their own for each problem."""
    x, y, b, s = arguments(M, N)
    run = INTERPRETED

    def ours(x: Any, y: Any, b: Any, s: Any, ranges: Any) -> Any:
        each = lambda x, b, r: gaussian(x, y, s).matvec(b, ranges=r)  # noqa: E731
        return jax.vmap(each, (None, 0, 0))(x, jnp.stack([b, b + 1]), ranges)

    def dense(x: Any, y: Any, b: Any, s: Any) -> Any:
        masks = [jnp.asarray(mask_of(ROWS, COLUMNS, k, M, N)) for k in SEVERAL]
        return jnp.stack([jnp.where(k, jnp.exp(-distance(x, y, s)), 0) @ (b + i) for i, k in enumerate(masks)])

    def slopes(f: Any) -> Any:
        return jax.value_and_grad(lambda *a: jnp.sum(jnp.sin(f(*a))), (0, 1, 2, 3))

    got = jax.jit(lambda *a: run_on(slopes(lambda *a: ours(*a, BOTH)), run, *a))(x, y, b, s)
    agree(got, jax.jit(slopes(dense))(x, y, b, s))


def test_takes_ranges_in_any_order() -> None:
    """Of equal values the lowest index wins, also where a later range is listed first."""
    ranges = tuple(
        np.array(a, np.int32)
        for a in ([[0, 4]], [2], [[10, 20], [0, 10]], [[0, 10], [10, 20]], [1, 2], [[0, 4], [0, 4]])
    )
    run = INTERPRETED
    ours = lambda x, y: (0 * Vi(x) * Vj(y)).argmin(axis=1, ranges=ranges)  # noqa: E731
    assert np.asarray(run_on(ours, run, np.ones((4, 1)), np.ones((20, 1)))).ravel().tolist() == [0] * 4


def test_sums_many_ranges_by_groups() -> None:
    """Interpreted: one after the other, 20 000 equal numbers are off by 1.7e-4."""
    n = 20_000
    terms, one = np.full((2 * n, 1), 0.1, np.float32), np.array([[0, 2]], np.int32)
    columns = np.stack([np.arange(0, 2 * n, 2), np.arange(1, 2 * n, 2)], 1).astype(np.int32)
    ranges = (one, np.array([n], np.int32), columns, columns, np.arange(1, n + 1, dtype=np.int32), np.tile(one, (n, 1)))
    ours = lambda y, *ranges: (Vj(y) + Vi(np.zeros((2, 1), np.float32))).sum(axis=1, ranges=ranges)  # noqa: E731
    run = on_pallas(block_i=2, block_j=2, unroll=2)
    total = jax.jit(lambda *a: run_on(ours, run, *a))(terms, *ranges)
    np.testing.assert_allclose(total, np.full((2, 1), terms[::2].sum(dtype=float)), rtol=2e-5)
