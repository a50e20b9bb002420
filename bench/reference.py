"""Errors against NumPy in float64, on a sample of rows: direct differences, chunks of pairs, nothing of any contender.

The error of sums is relative to the largest reference value; that of neighbours is how much farther they are than the
true ones, relative to the largest true distance (a tie that rounding decides is no error).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .cases import Case, Data

PAIRS = 1 << 22  # at once
ROWS = 32


def error(case: Case, data: Data, result: Any) -> float:
    """The largest error of what a contender returned."""
    wide = {name: a.astype(np.float64) for name, a in data.items()}
    outs = [np.asarray(out) for out in (result if isinstance(result, tuple) else (result,))]
    return max(ERRORS[case.problem](case, wide, outs))


def _sample(size: int) -> np.ndarray:
    return np.unique(np.linspace(0, size - 1, ROWS).astype(int))


def _chunks(n: int, rows: int) -> Iterator[slice]:
    step = max(1, PAIRS // rows)
    return (slice(start, start + step) for start in range(0, n, step))


def _squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    out = np.zeros((len(x), len(y)))
    for a, b in zip(x.T, y.T, strict=True):
        out += (a[:, None] - b) ** 2
    return out


def _reduce(x: np.ndarray, n: int, chunk: Callable[[slice], Any]) -> Any:
    return sum(chunk(s) for s in _chunks(n, len(x)))


def _relative(out: np.ndarray, expected: np.ndarray) -> float:
    assert out.shape == expected.shape, f"{out.shape} instead of {expected.shape}"
    return float(np.abs(out - expected).max() / np.abs(expected).max())


def _gaussian(x: np.ndarray, y: np.ndarray, b: np.ndarray) -> np.ndarray:
    return _reduce(x, len(y), lambda s: np.exp(-_squared_distances(x, y[s])) @ b[s])


def _weighted_differences(x: Any, y: Any, weights: Callable[[slice, np.ndarray], np.ndarray]) -> np.ndarray:
    """sum_j w_ij (x_i - y_j), the weights being a function of a chunk and its squared distances."""

    def chunk(s: slice) -> np.ndarray:
        w = weights(s, _squared_distances(x, y[s]))
        return w.sum(1)[:, None] * x - w @ y[s]

    return _reduce(x, len(y), chunk)


def gaussian(case: Case, a: Data, outs: list[np.ndarray]) -> list[float]:
    rows = _sample(case.m)
    return [_relative(outs[0][rows], _gaussian(a["x"][rows], a["y"], a["b"]))]


def _gradient(x: Any, y: Any, b: Any, g: Any) -> np.ndarray:
    """d/dx of sum_j exp(-|x - y_j|^2) b_j . g"""
    return -2 * _weighted_differences(x, y, lambda s, d: np.exp(-d) * (g @ b[s].T))


def gradient_x(case: Case, a: Data, outs: list[np.ndarray]) -> list[float]:
    rows = _sample(case.m)
    return [_relative(outs[0][rows], _gradient(a["x"][rows], a["y"], a["b"], a["g"][rows]))]


def gradients(case: Case, a: Data, outs: list[np.ndarray]) -> list[float]:
    """The gradient in y is that in x with the sides exchanged, and that in b is a sum over i."""
    columns = _sample(case.n)
    y, b = a["y"][columns], a["b"][columns]
    in_y, in_b = _gradient(y, a["x"], a["g"], b), _gaussian(y, a["x"], a["g"])
    return [
        *gradient_x(case, a, outs[:1]),
        _relative(outs[1][columns], in_y),
        _relative(outs[2][columns], in_b),
    ]


def hvp(case: Case, a: Data, outs: list[np.ndarray]) -> list[float]:
    """The Hessian of sum_j exp(-|x - y_j|^2) b_j is sum_j e b (4 (x - y)(x - y)^T - 2)."""
    rows = _sample(case.m)
    x, y, b, t = a["x"][rows], a["y"], a["b"].sum(1), a["t"][rows]

    def along(s: slice) -> np.ndarray:  # (x_i - y_j) . t_i
        return (x * t).sum(1)[:, None] - t @ y[s].T

    expected = 4 * _weighted_differences(x, y, lambda s, d: np.exp(-d) * b[s] * along(s))
    expected -= 2 * t * _gaussian(x, y, b[:, None])
    return [_relative(outs[0][rows], expected)]


def argkmin(case: Case, a: Data, outs: list[np.ndarray]) -> list[float]:
    rows = _sample(case.m)
    distances = _squared_distances(a["x"][rows], a["y"])
    chosen = outs[0][rows].reshape(len(rows), -1)
    k = chosen.shape[1]
    assert all(len(set(row)) == k for row in chosen.tolist()), "the same neighbour twice"
    best = np.sort(np.partition(distances, k - 1, axis=1)[:, :k], axis=1)
    got = np.take_along_axis(distances, chosen, axis=1)
    return [float(np.abs(got - best).max() / best.max())]


def logsumexp(case: Case, a: Data, outs: list[np.ndarray]) -> list[float]:
    rows = _sample(case.m)
    x, y = a["x"][rows], a["y"]
    expected = np.log(_reduce(x, case.n, lambda s: np.exp(-_squared_distances(x, y[s])).sum(1)))
    return [_relative(outs[0][rows].ravel(), expected)]


def attention(case: Case, a: Data, outs: list[np.ndarray]) -> list[float]:
    rows = _sample(case.m)
    scores = a["q"][rows] @ a["k"].T * case.d**-0.5
    weights = np.exp(scores - scores.max(1, keepdims=True))
    return [_relative(outs[0][rows], weights @ a["v"] / weights.sum(1, keepdims=True))]


def batched(case: Case, a: Data, outs: list[np.ndarray]) -> list[float]:
    problems = _sample(case.batch)
    expected = np.stack([_gaussian(a["x"][p], a["y"][p], a["b"][p]) for p in problems])
    return [_relative(outs[0][problems], expected)]


def batched_argkmin(case: Case, a: Data, outs: list[np.ndarray]) -> list[float]:
    found = []
    for p in _sample(case.batch):
        found += argkmin(case, {name: x[p] for name, x in a.items()}, [outs[0][p]])
    return found


def matern(case: Case, a: Data, outs: list[np.ndarray]) -> list[float]:
    """(1 + r) exp(-r) has the gradient -exp(-r) (x - y)."""
    rows = _sample(case.m)
    x, y, b, g = a["x"][rows], a["y"], a["b"], a["g"][rows]

    def chunk(s: slice) -> np.ndarray:
        r = np.sqrt(_squared_distances(x, y[s]))
        return ((1 + r) * np.exp(-r)) @ b[s]

    gradient = -_weighted_differences(x, y, lambda s, d: np.exp(-np.sqrt(d)) * (g @ b[s].T))
    return [_relative(outs[0][rows], _reduce(x, case.n, chunk)), _relative(outs[1][rows], gradient)]


ERRORS: dict[str, Callable[[Case, Data, list[np.ndarray]], list[float]]] = {
    "gaussian": gaussian,
    "eager": gaussian,
    "gradient_x": gradient_x,
    "gradients": gradients,
    "hvp": hvp,
    "argmin": argkmin,
    "argkmin": argkmin,
    "logsumexp": logsumexp,
    "attention": attention,
    "batched": batched,
    "batched_argkmin": batched_argkmin,
    "matern": matern,
}
