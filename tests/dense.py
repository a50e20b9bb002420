"""What the tests share: data, dense references, comparison."""

import jax
import numpy as np


def close(got, expected, tolerance=1e-10, message=""):
    """Equal up to `tolerance`, relative and absolute; same shape; NaN and inf in the same places."""
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape, f"{message} shape {got.shape}, expected {expected.shape}"
    np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance, err_msg=message)


def trees_close(got, expected, tolerance=1e-10):
    """`close` on every leaf."""
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        close(a, b, tolerance)


def normal(seed, *shape):
    """Standard normal float64 numbers."""
    return np.random.default_rng(seed).standard_normal(shape)


def uniform(seed, *shape, low=0.0, high=1.0):
    """Uniform float64 numbers."""
    return np.random.default_rng(seed).uniform(low, high, shape)


def sqdists(x, y):
    """Squared distances (M, N) of rows (M, D) and (N, D)."""
    return ((x[..., :, None, :] - y[..., None, :, :]) ** 2).sum(-1)


def gaussian(x, y):
    """exp(-|x_i - y_j|^2), (M, N), in NumPy."""
    return np.exp(-sqdists(np.asarray(x), np.asarray(y)))
