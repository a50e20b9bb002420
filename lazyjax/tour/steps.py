"""The steps of the tour: each computes, takes the time, and compares a few rows with NumPy in float64."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .computations import EPSILON, SIGMA, kernel_energy, kernel_product, log_density, nearest, potential, recolour

SUPPORT = 4096  # pixels of each photograph on which the transfer is balanced
CHECKED = 16  # rows of each result that are compared with NumPy


class Photographs(NamedTuple):
    """The data of the tour: two photographs (H, W, 3), and colours of each, x (M, 3) and y (N, 3)."""

    source: np.ndarray
    target: np.ndarray
    x: jax.Array
    y: jax.Array

    @property
    def signal(self) -> jax.Array:
        """(N, 4): the colours of y and 1, over N."""
        return jnp.concatenate([self.y, jnp.ones((len(self.y), 1), self.y.dtype)], axis=1) / len(self.y)

    @property
    def rows(self) -> np.ndarray:
        """Some rows of x."""
        return np.linspace(0, len(self.x) - 1, CHECKED).astype(int)

    @property
    def pairs(self) -> int:
        """M times N."""
        return len(self.x) * len(self.y)


class Step(NamedTuple):
    """What one step of the tour found."""

    seconds: float
    pairs: int
    error: float  # against NumPy in float64, on a few rows
    said: str
    image: np.ndarray | None = None


def _timed(compute: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    result = jax.block_until_ready(compute())
    return result, time.perf_counter() - start


def find_nearest(data: Photographs) -> Step:
    """argmin over j of |x_i - y_j|^2."""
    x, y = data.x, data.y
    index, seconds = _timed(lambda: nearest(x, y))
    distance = np.linalg.norm(np.asarray(x) - np.asarray(y)[np.asarray(index)], axis=-1)
    # The distance to the winner is compared, not its index: of two that differ by a rounding, either may win.
    error = discrepancy(distance, data.rows, lambda i: _offsets(x[i], y)[1].min())
    said = f"mean distance to the nearest colour {distance.mean():.6f}, largest {distance.max():.6f}"
    return Step(seconds, data.pairs, error, said)


def multiply(data: Photographs) -> Step:
    """K @ b, with K_ij = exp(-|x_i - y_j| / sigma) and b of four columns."""
    x, y, b = data.x, data.y, data.signal
    product, seconds = _timed(lambda: kernel_product(x, y, b))
    error = discrepancy(product, data.rows, lambda i: _kernel_row(x[i], y, b))
    return Step(seconds, data.pairs, error, f"mean entry of the kernel matrix {product[:, 3].mean():.6f}")


def differentiate(data: Photographs) -> Step:
    """jax.grad, with respect to x, of the sum of the squares of that product."""
    x, y, b = data.x, data.y, data.signal
    slope, seconds = _timed(lambda: jax.grad(kernel_energy)(x, y, b))
    error = discrepancy(slope, data.rows, lambda i: _gradient_row(x[i], y, b))
    return Step(seconds, data.pairs, error, f"mean length of a row {jnp.linalg.norm(slope, axis=-1).mean():.6f}")


def estimate_density(data: Photographs) -> Step:
    """logsumexp over j of -|x_i - y_j|^2 / 2 sigma^2."""
    x, y = data.x, data.y
    density, seconds = _timed(lambda: log_density(x, y))
    error = discrepancy(density, data.rows, lambda i: _density_row(x[i], y))
    said = f"mean log-density {density.mean():.4f}, from {density.min():.4f} to {density.max():.4f}"
    return Step(seconds, data.pairs, error, said)


def transfer(data: Photographs) -> Step:
    """sumsoftmaxweight: each pixel of one photograph as a mean of colours of the other, balanced by logsumexp."""
    count = min(SUPPORT, len(data.x), len(data.y))
    palette, pixels = data.y[:count], jnp.asarray(data.source.reshape(-1, 3))
    g, balancing = _timed(lambda: potential(data.x[:count], palette))
    recoloured, seconds = _timed(lambda: recolour(pixels, palette, g))
    rows = np.linspace(0, len(pixels) - 1, CHECKED).astype(int)
    error = discrepancy(recoloured, rows, lambda i: _recolour_row(pixels[i], palette, g))
    was, now, goal = (np.asarray(a).reshape(-1, 3).mean(0).round(3) for a in (data.source, recoloured, data.target))
    said = f"mean colour {was} became {now}, the other has {goal}; balanced on {count} x {count} in {balancing:.1f} s"
    return Step(seconds, len(pixels) * count, error, said, np.asarray(recoloured).reshape(data.source.shape))


STEPS: dict[str, Callable[[Photographs], Step]] = {
    "nearest colour": find_nearest,
    "kernel product": multiply,
    "its gradient": differentiate,
    "log-density": estimate_density,
    "colour transfer": transfer,
}


# What NumPy says of one row, in float64.


def _offsets(x: jax.Array, y: jax.Array) -> tuple[np.ndarray, np.ndarray]:
    """x_i - y_j (N, 3) and |x_i - y_j| (N,) for one row x (3,)."""
    difference = np.asarray(x, np.float64) - np.asarray(y, np.float64)
    return difference, np.sqrt((difference**2).sum(-1))


def _kernel_row(x: jax.Array, y: jax.Array, b: jax.Array) -> np.ndarray:
    return np.exp(-_offsets(x, y)[1] / SIGMA) @ np.asarray(b, np.float64)


def _gradient_row(x: jax.Array, y: jax.Array, b: jax.Array) -> np.ndarray:
    difference, distance = _offsets(x, y)
    signal, k = np.asarray(b, np.float64), np.exp(-distance / SIGMA)
    with np.errstate(invalid="ignore"):
        slope = -difference / distance[:, None] * k[:, None] / SIGMA
    slope[distance == 0] = 0.0
    return 2.0 * slope.T @ (signal @ (k @ signal))


def _density_row(x: jax.Array, y: jax.Array) -> np.ndarray:
    return np.log(np.mean(np.exp(-(_offsets(x, y)[1] ** 2) / (2.0 * SIGMA**2))))


def _recolour_row(x: jax.Array, palette: jax.Array, g: jax.Array) -> np.ndarray:
    scores = (np.asarray(g, np.float64) - _offsets(x, palette)[1] ** 2) / EPSILON
    weights = np.exp(scores - scores.max())
    return weights @ np.asarray(palette, np.float64) / weights.sum()


def discrepancy(result: jax.Array, rows: np.ndarray, reference: Callable[[int], Any]) -> float:
    """The largest |result - reference| on the given rows, relative to the largest |reference|."""
    expected = np.stack([reference(int(i)) for i in rows])
    return float(np.abs(np.asarray(result)[rows] - expected).max() / np.abs(expected).max())
