"""Block-sparse reductions, compiled for a chip and emulated: only the pairs that ranges keep, on ragged clusters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lazyjax import Vi, Vj
from lazyjax.cluster import from_matrix

from ...cases import arguments
from ...full import FULL
from ..chips import A100, H100, Chip
from ..emulating import emulate
from .test_cases import TOLERANCE, M, N, check, compare, gradient

ROWS = np.array([[0, 40], [40, 45], [48, 99]])  # rows 45 to 47 and the last belong to no cluster
COLUMNS = np.array([[0, 5], [5, 5], [7, 117], [117, 150]])
KEEP = np.array([[1, 0, 1, 1], [0, 0, 0, 0], [1, 1, 0, 1]], bool)  # the second cluster meets none
RANGES = from_matrix(ROWS, COLUMNS, KEEP)
MASK = np.zeros((M, N), bool)
for cluster, range_ in np.argwhere(KEEP):
    MASK[slice(*ROWS[cluster]), slice(*COLUMNS[range_])] = True


def _ours(x: Any, y: Any) -> Any:
    return Vi(x).sqdist(Vj(y))


def _dense(x: Any, y: Any) -> Any:
    return ((x[:, None] - y) ** 2).sum(-1)


def _found(d: Any) -> Any:
    return jnp.where(MASK.any(1), jnp.where(MASK, d, jnp.inf).argmin(1), -1)[:, None]


FORMULAS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "K @ b": (
        lambda x, y, b, s: (-_ours(x, y)).exp().matvec(b, ranges=RANGES),
        lambda x, y, b, s: jnp.where(MASK, jnp.exp(-_dense(x, y)), 0) @ b,
    ),
    "argmin": (
        lambda x, y, b, s: _ours(x, y).argmin(axis=1, ranges=RANGES),
        lambda x, y, b, s: _found(_dense(x, y)),
    ),
    "sum over both": (
        lambda x, y, b, s: (s * _ours(x, y) * 1e-4).sum(axis=(0, 1), ranges=RANGES),
        lambda x, y, b, s: jnp.where(MASK, s * _dense(x, y) * 1e-4, 0).sum()[None],
    ),
    "logsumexp over i": (
        lambda x, y, b, s: (-_ours(x, y)).logsumexp(axis=0, ranges=RANGES)[:5],
        lambda x, y, b, s: jax.nn.logsumexp(jnp.where(MASK, -_dense(x, y), -jnp.inf), axis=0)[:5, None],
    ),
}
SAMPLE = [("K @ b", "values", H100), ("K @ b", "gradient", H100), ("argmin", "values", A100)]
EVERY = [(f, w, c) for f in FORMULAS for w in ("values", "gradient") for c in (H100, A100)
         if w == "values" or f in ("K @ b", "sum over both")]  # fmt: skip


@pytest.mark.parametrize(("name", "what", "chip"), EVERY if FULL else SAMPLE)
def test_ranges(name: str, what: str, chip: Chip) -> None:
    args = tuple(jnp.asarray(a, jnp.float32) for a in arguments(M, N))
    variant = gradient if what == "gradient" else lambda f: f
    ours, dense = map(variant, FORMULAS[name])
    got, launches = emulate(chip, ours, *args)
    compare(got, jax.jit(dense)(*(a.astype(jnp.float64) for a in args)), TOLERANCE["float32"])
    check(chip, launches)


def test_many_ranges() -> None:
    """More than are added one after the other: groups of them, whose size is known only when the kernel runs."""
    m, n = 3, 1050
    columns = np.stack([np.arange(0, 3 * n, 3), np.arange(2, 3 * n, 3)], 1)
    ranges = from_matrix([[0, m]], columns, np.ones((1, n), bool))
    r = np.random.default_rng(0)
    x, y = (jnp.asarray(r.normal(size=(s, 1)), jnp.float32) for s in (m, 3 * n))
    got, launches = emulate(H100, lambda x, y: (-Vi(x).sqdist(Vj(y))).exp().sum(axis=1, ranges=ranges), x, y)
    kept = np.delete(np.asarray(y, np.float64), np.s_[2::3])
    compare(got, np.exp(-((np.asarray(x, np.float64) - kept) ** 2)).sum(1, keepdims=True), 1e-6)
    check(H100, launches)
