"""The KeOps tutorial "A wrapper for NumPy and PyTorch arrays", spelled for lazyjax, against dense JAX."""

import jax
import jax.numpy as jnp
import numpy as np

from lazyjax import LazyTensor, Vi, Vj

from .dense import close, normal, sqdists, trees_close, uniform


def test_nearest_neighbours():
    x, y = uniform(0, 1000, 2), uniform(1, 2000, 2)
    x_i, y_j = LazyTensor(x[:, None, :]), LazyTensor(y[None, :, :])
    assert x_i.shape == (1000, 1, 2) and y_j.shape == (1, 2000, 2)
    D_ij = ((x_i - y_j) ** 2).sum(-1)
    assert D_ij.shape == (1000, 2000)
    s_i = D_ij.argmin(dim=1)
    assert s_i.shape == (1000, 1) and s_i.dtype == np.int32
    np.testing.assert_array_equal(s_i[:, 0], sqdists(x, y).argmin(1))


def exponential_sum(x, y, b):
    """sum_j exp(-|x_i - y_j|) b_j."""
    K_ij = (-((LazyTensor(x[:, None, :]) - LazyTensor(y[None, :, :])) ** 2).sum(-1).sqrt()).exp()
    return K_ij @ b


def dense_exponential_sum(x, y, b):
    return jnp.exp(-jnp.sqrt(((x[:, None, :] - y[None, :, :]) ** 2).sum(-1))) @ b


def test_exponential_kernel():
    x, y, b = normal(0, 100, 10), normal(1, 150, 10), normal(2, 150, 4)
    a = exponential_sum(x, y, b)
    assert a.shape == (100, 4)
    close(a, dense_exponential_sum(x, y, b))


def test_gradient_and_second_derivative():
    args = normal(0, 20, 3), normal(1, 15, 3), normal(2, 15, 4)

    def derivatives(product):
        def g(x, y, b):
            return jax.grad(lambda x: (product(x, y, b) ** 2).sum())(x)

        h = jax.grad(lambda x, y, b: jnp.exp(0.1 * g(x, y, b)).sum(), (0, 1, 2))
        return jax.jit(lambda *args: (g(*args), h(*args)))(*args)

    ours, dense = derivatives(exponential_sum), derivatives(dense_exponential_sum)
    for got, expected in zip(jax.tree.leaves(ours), jax.tree.leaves(dense), strict=True):
        scale = jnp.abs(expected).max()
        close(got / scale, expected / scale)


def test_min_is_argmin_and_gather():
    x, y = normal(0, 30, 3), normal(1, 40, 3)

    def minimum(x):
        return ((Vi(x) - Vj(y)) ** 2).sum(-1).min(dim=1)

    def gathered(x):
        nearest = ((Vi(x) - Vj(y)) ** 2).sum(-1).argmin(dim=1)[:, 0]
        return ((x - jnp.asarray(y)[nearest]) ** 2).sum(-1, keepdims=True)

    expected = sqdists(x, y).min(1)[:, None]
    close(minimum(x), expected)
    close(gathered(x), expected)
    slopes = [jax.grad(lambda x, f=f: jnp.sin(f(x)).sum())(x) for f in (minimum, gathered)]
    dense = jax.grad(lambda x: jnp.sin(((x[:, None] - y) ** 2).sum(-1).min(1)).sum())(x)
    for slope in slopes:
        close(slope, dense)


A, B, M, N, D = 7, 3, 10, 11, 10


def batch_data(D=D):
    return {
        "x": uniform(0, A, B, M, 1, D) + 0.1, "l": uniform(1, 1, 1, M, 1, D) + 0.5, "y": normal(2, 1, B, 1, N, D),
        "s": normal(3, A, 1, 1, 1, 1),
    }  # fmt: skip


def test_batch_shapes():
    x_i, l_i, y_j, s = (LazyTensor(data) for data in batch_data().values())
    assert x_i.shape == (A, B, M, 1, D)
    assert l_i.shape == (1, 1, M, 1, D)
    assert y_j.shape == (1, B, 1, N, D)
    assert s.shape == (A, 1, 1, 1) and s._shape == (A, 1, 1, 1, 1)
    D_ij = ((l_i * x_i - y_j) ** 2).sum(-1)
    K_ij = -1.6 * D_ij / (1 + s**2)
    assert K_ij.shape == (A, B, M, N)
    assert K_ij._shape == (A, B, M, N, 1)
    assert K_ij.sum(dim=3).shape == (A, B, M, 1)
    assert K_ij.sum(dim=2).shape == (A, B, N, 1)


def batch_sums(x, l, y, s):
    x_i, l_i, y_j, s = LazyTensor(x), LazyTensor(l), LazyTensor(y), LazyTensor(s)
    K_ij = -1.6 * ((l_i * x_i - y_j) ** 2).sum(-1) / (1 + s**2)
    F_ij = (x_i**1.5 + y_j / l_i).cos() - (x_i | y_j) + (x_i[:, :, :, :, 2] * s.relu() * y_j)
    return K_ij.sum(dim=3), F_ij.sum(dim=2)


def dense_batch_sums(x, l, y, s):
    K = -1.6 * ((l * x - y) ** 2).sum(-1, keepdims=True) / (1 + s**2)
    F = jnp.cos(x**1.5 + y / l) - (x * y).sum(-1, keepdims=True) + x[..., 2:3] * jnp.maximum(s, 0) * y
    return K.sum(3), F.sum(2)


def test_batch_values():
    data = batch_data().values()
    got = batch_sums(*data)
    assert got[0].shape == (A, B, M, 1) and got[1].shape == (A, B, N, D)
    trees_close(got, dense_batch_sums(*data))


def test_batch_gradients():
    data = tuple(batch_data(D=3).values())

    def gradient(f):
        return jax.jit(jax.grad(lambda args: sum(jnp.sin(out).sum() for out in f(*args))))(data)

    trees_close(gradient(batch_sums), gradient(dense_batch_sums))
