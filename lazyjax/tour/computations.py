"""What the tour computes: short functions of arrays, each a formula on pairs and a reduction."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from .. import LazyTensor, Vi, Vj

SIGMA = 0.1  # width of the kernels; the colour cube has side 1
EPSILON = 0.02  # temperature of the transfer: a blur of about sqrt(EPSILON / 2) in colour


def squared_distances(x: jax.Array, y: jax.Array) -> LazyTensor:
    """|x_i - y_j|^2 for x (M, 3) and y (N, 3): a formula of shape (M, N), nothing is computed yet."""
    return Vi(x).sqdist(Vj(y))


def nearest(x: jax.Array, y: jax.Array) -> jax.Array:
    """The index of the nearest y of each x, the lowest of several: (M, 3), (N, 3) -> (M,)."""
    return squared_distances(x, y).argmin(axis=1)[:, 0]


def kernel_product(x: jax.Array, y: jax.Array, b: jax.Array, sigma: float = SIGMA) -> jax.Array:
    """K @ b with K_ij = exp(-|x_i - y_j| / sigma): (M, 3), (N, 3), (N, E) -> (M, E)."""
    return (-squared_distances(x, y).sqrt() / sigma).exp() @ b


def kernel_energy(x: jax.Array, y: jax.Array, b: jax.Array, sigma: float = SIGMA) -> jax.Array:
    """The sum of the squares of K @ b: a scalar."""
    return (kernel_product(x, y, b, sigma) ** 2).sum()


def log_density(x: jax.Array, y: jax.Array, sigma: float = SIGMA) -> jax.Array:
    """log mean_j exp(-|x_i - y_j|^2 / 2 sigma^2), the density of y around x: (M, 3), (N, 3) -> (M,)."""
    exponent = -squared_distances(x, y) / (2.0 * sigma**2)
    return exponent.logsumexp(axis=1)[:, 0] - math.log(len(y))


def potential(x: jax.Array, y: jax.Array, epsilon: float = EPSILON, sweeps: int = 40) -> jax.Array:
    """Sinkhorn's algorithm: the dual potential of y in the entropic transport of x onto y.

    With it, softmax_j((g_j - |x_i - y_j|^2) / epsilon) as weights take every y about equally often.

    Args:
        x, y: colours (M, 3) and (N, 3), all of the same weight.
        epsilon: the temperature reached at the end; it starts at 1, the scale of the cube, and decreases geometrically.
        sweeps: updates of both potentials, two thirds of them while the temperature decreases.

    Returns:
        g (N,), in units of the squared distance.
    """
    f, g = jnp.zeros(len(x), x.dtype), jnp.zeros(len(y), y.dtype)
    cooling = max(1, 2 * sweeps // 3)
    cost = squared_distances(x, y)
    for k in range(sweeps):
        t = float(epsilon ** min(1.0, k / cooling))  # one compilation serves every temperature: floats are data
        f = -t * (((Vj(g[:, None]) - cost) / t).logsumexp(axis=1)[:, 0] - math.log(len(y)))
        g = -t * (((Vi(f[:, None]) - cost) / t).logsumexp(axis=0)[:, 0] - math.log(len(x)))
    return g


def recolour(pixels: jax.Array, palette: jax.Array, g: jax.Array, epsilon: float = EPSILON) -> jax.Array:
    """Each pixel becomes a mean of the palette, weighted by softmax_j((g_j - |x_i - y_j|^2) / epsilon).

    Args:
        pixels: (P, 3).
        palette: (N, 3).
        g: (N,), the potential of the palette.

    Returns:
        (P, 3).
    """
    scores = (Vj(g[:, None]) - squared_distances(pixels, palette)) / epsilon
    return scores.sumsoftmaxweight(Vj(palette), axis=1)


def photographs() -> tuple[np.ndarray, np.ndarray]:
    """Two photographs that come with scikit-learn: float32 (427, 640, 3) in [0, 1]."""
    from sklearn.datasets import load_sample_images

    temple, flower = load_sample_images().images
    return temple.astype(np.float32) / 255, flower.astype(np.float32) / 255


def sample(photograph: np.ndarray, count: int, seed: int) -> jax.Array:
    """Distinct pixels drawn at random: (count, 3)."""
    pixels = photograph.reshape(-1, photograph.shape[-1])
    return jnp.asarray(np.random.default_rng(seed).choice(pixels, count, replace=False))
