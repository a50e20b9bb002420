"""What the tests share: data, dense references, comparison."""

import jax
import jax.numpy as jnp
import numpy as np

from .full import FULL


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


def derivatives_agree(f, args, seed=0, step=3e-4, tolerance=1e-7):
    """First and second derivatives of f, forward and reverse, against finite differences; both orders with FULL.

    Along a random direction t, f' is compared with differences of f, and f'' with differences of f', of sixth order;
    reverse mode is compared with forward mode through random cotangents: <c, f'(x) t> = <f'(x)^T c, t>.
    """
    rng = np.random.default_rng(seed)
    args = tuple(jnp.asarray(a) for a in args)
    t = tuple(rng.standard_normal(a.shape) for a in args)
    moved = jax.jit(lambda k, *x: jax.jvp(f, tuple(a + k * step * d for a, d in zip(x, t, strict=True)), t))
    at = {k: moved(float(k), *args) for k in (-3, -2, -1, 1, 2, 3)}
    slope, bend = (
        (45 * (at[1][n] - at[-1][n]) - 9 * (at[2][n] - at[-2][n]) + (at[3][n] - at[-3][n])) / (60 * step)
        for n in (0, 1)
    )
    c = rng.standard_normal(slope.shape)

    def dot(a, b):
        return sum(jnp.vdot(x, y) for x, y in zip(a, b, strict=True))

    def along(g):
        return lambda *x: jax.jvp(g, x, t)[1]

    def gradient(*x):
        return jax.grad(lambda *x: jnp.vdot(c, f(*x)), range(len(x)))(*x)

    @jax.jit
    def derivatives(*x):
        found = {
            "forward": along(f)(*x),
            "forward over forward": along(along(f))(*x),
            "reverse": dot(gradient(*x), t),
            "forward over reverse": dot(along(gradient)(*x), t),
        }
        if FULL:
            twice = jax.grad(lambda *x: dot(gradient(*x), t), range(len(x)))
            slopes = jax.grad(lambda *x: jnp.vdot(c, along(f)(*x)), range(len(x)))
            found |= {"reverse over reverse": dot(twice(*x), t), "reverse over forward": dot(slopes(*x), t)}
        return found

    found = derivatives(*args)
    for name, expected in (("forward", slope), ("forward over forward", bend)):
        scale = np.maximum(1.0, np.abs(bend).max(0))
        close(found[name] / scale, expected / scale, tolerance, name)
    for name in found.keys() - {"forward", "forward over forward"}:
        forward = found["forward over forward" if "over" in name else "forward"]
        scale = np.abs(c * forward).max()
        close(found[name] / scale, jnp.vdot(c, forward) / scale, 1e-10, name)
