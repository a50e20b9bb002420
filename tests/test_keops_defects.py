"""What KeOps 2.3 gets wrong or refuses, one test each, and what is expected instead."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lazyjax import Genred, Pm, Vi, Vj
from lazyjax.cluster import from_matrix, grid_cluster

from .cases import SMOOTH, arguments
from .dense import close, derivatives_agree, normal, sqdists, uniform

M, N, D = 4, 5, 3
x, y = normal(0, M, D), normal(1, N, D)


def test_constants_are_exact_in_float64():
    d = uniform(2, M, 1, low=0.5, high=2.0)
    close((Vi(x) / 3).sum(axis=1), x / 3, 1e-15)
    close((Vi(d) ** 1.5).sum(axis=1), d * np.sqrt(d), 1e-15)
    close(Genred("RatCst(1, 3) * x", ["x = Vi(3)"], axis=1)(x), x / 3, 1e-15)


def test_gradient_of_ifelse_with_a_vector_condition_before_a_linear_map():
    def ours(x, y):
        a, b = Vi(x), Vj(y)
        return (a - b).ifelse(a * b, b.sin()).sum(-1).sum(axis=1)

    def dense(x, y):
        a, b = x[:, None], y[None]
        return jnp.where(a - b >= 0, a * b, jnp.sin(b)).sum((1, 2))[:, None]

    for argument in (0, 1):
        slope = jax.grad(lambda *v: (ours(*v) ** 2).sum(), argument)
        close(slope(x, y), jax.grad(lambda *v: (dense(*v) ** 2).sum(), argument)(x, y))


@pytest.mark.parametrize("name", ["power", "atan2", "ifelse"])
def test_gradient_of_a_scalar_that_broadcasts(name):
    s = uniform(3, N, 1, low=0.5, high=2.0)
    lazy = {
        "power": lambda a, b: (a * a + 1) ** b,
        "atan2": lambda a, b: a.atan2(b),
        "ifelse": lambda a, b: a.ifelse(b, -b),
    }
    plain = {
        "power": lambda a, b: (a * a + 1) ** b,
        "atan2": jnp.arctan2,
        "ifelse": lambda a, b: jnp.where(a >= 0, b, -b),
    }

    def ours(s):
        return (lazy[name](Vi(x), Vj(s)).sum(axis=1) ** 2).sum()

    def dense(s):
        return (plain[name](x[:, None], s[None]).sum(1) ** 2).sum()

    slope = jax.grad(ours)(s)
    assert slope.shape == s.shape
    close(slope, jax.grad(dense)(s))
    v = Vj(s)
    assert lazy[name](Vi(x), v).grad(v, 1)._shape == (M, N, 1)


def test_zero_times_a_variable_keeps_its_axis():
    close((Vi(x) + 0 * Vj(y)).sum(axis=1), N * x)
    close((Vi(x) + Vj(y) * 0.0).sum(axis=1), N * x)
    close(Genred("x + 0 * y", ["x = Vi(3)", "y = Vj(3)"], axis=1)(x, y), N * x)


def test_complex_arithmetic_and_its_forward_mode():
    u = x + 1j * normal(5, M, D)
    z = Vi(u)
    lazy = [z * 2, z**2, 1 / z, z.cos(), z.log(), z.sqrt()]
    dense = [u * 2, u * u, 1 / u, np.cos(u), np.log(u), np.sqrt(u)]
    slopes = [2 + 0 * u, 2 * u, -1 / (u * u), -np.sin(u), 1 / u, 0.5 / np.sqrt(u)]
    for got, value, slope in zip(lazy, dense, slopes, strict=True):
        close(got.sum(axis=1), value)
        close(got.diff(z, 1).sum(axis=1), slope)
        close(jax.jvp(lambda z, got=got: _with(got, z).sum(axis=1), (u,), (np.ones_like(u),))[1], slope)


def _with(tensor, data):
    """The formula on other data."""
    leaves, structure = jax.tree.flatten(tensor)
    return jax.tree.unflatten(structure, [data if np.shape(leaf) == np.shape(data) else leaf for leaf in leaves])


FORWARD = {
    "ifelse": lambda a, b: (a - b).ifelse(a, b).sum(-1),
    "matvecmult": lambda a, b: a.tensorprod(b).matvecmult(a).sum(-1),
    "vecmatmult": lambda a, b: b.vecmatmult(a.tensorprod(a)).sum(-1),
    "tensorprod": lambda a, b: a.tensorprod(b).sin().sum(-1),
    "tensordot": lambda a, b: a.tensorprod(a).keops_tensordot(b, (D, D), (D,), (1,), (0,)).sum(-1),
    "norm2": lambda a, b: (a - b).norm2() * a.sum(-1),
}


@pytest.mark.parametrize("name", FORWARD)
def test_forward_mode_and_laplacians_of_every_operation(name):
    derivatives_agree(lambda x, y: FORWARD[name](Vi(x), Vj(y)).sum(axis=1), (x, y))
    a, b = Vi(x), Vj(y)
    hessian = jax.hessian(lambda row: FORWARD[name](Vi(row[None]), Vj(y)).sum(axis=1)[0, 0])
    expected = jax.vmap(lambda row: jnp.trace(hessian(row)))(jnp.asarray(x))
    close(FORWARD[name](a, b).laplacian(a).sum(axis=1)[:, 0], expected)


@pytest.mark.parametrize("name", ["min", "max", "Kmin"])
def test_gradients_of_extrema(name):
    def dense(x):
        d = jnp.sort(((x[:, None] - y) ** 2).sum(-1), axis=1)
        return (d[:, :2] if name == "Kmin" else d[:, :1] if name == "min" else d[:, -1:]).sum()

    def ours(x):
        K = Vi(x).sqdist(Vj(y))
        return (K.Kmin(2, axis=1) if name == "Kmin" else getattr(K, name)(axis=1)).sum()

    close(jax.grad(ours)(x), jax.grad(dense)(x))


def test_a_batched_product_with_a_vector_keeps_the_batch():
    xs, v = np.stack([x, 2 * x]), normal(6, N)
    K = (-Vi(xs).sqdist(Vj(y))).exp()
    close(K @ v, np.exp(-sqdists(xs, y)) @ v)


def test_more_neighbours_than_there_are():
    K = Vi(x).sqdist(Vj(y))
    value, index = K.Kmin_argKmin(N + 2, axis=1)
    np.testing.assert_array_equal(index[:, N:], -1)
    assert np.all(np.isinf(value[:, N:]))
    np.testing.assert_array_equal(index[:, :N], np.argsort(sqdists(x, y), 1))


def test_logsumexp_of_minus_infinity():
    nothing = (Vi(x[:, :1]) * 0 + Vj(np.full((N, 1), -np.inf))).logsumexp(axis=1)
    np.testing.assert_array_equal(nothing, np.full((M, 1), -np.inf))


def test_wrong_sized_arrays_are_refused():
    f = Genred("Exp(-SqDist(x, y)) * b", ["x = Vi(3)", "y = Vj(3)", "b = Vj(1)"], axis=1)
    ones = np.ones((N, 1))
    for arrays in ((x, y[:-1], ones), (x, y, ones[:-1]), (x[:, :2], y, ones), (x, y, np.ones((N, 2)))):
        with pytest.raises(ValueError, match=r"Genred|this formula"):
            f(*arrays)
    with pytest.raises(ValueError, match="this formula: the j-variables"):
        (Vi(0, 3) * Vj(1, 3) * Vj(2, 1)).sum(axis=1)(x, y, ones[:-1])


def test_linear_systems_return_within_maxiter_and_say_so():
    line = np.linspace(0, 1, 30)[:, None]
    K = (-Vi(line).sqdist(Vj(line))).exp()  # numerically singular
    b = normal(7, 30, 1)
    for system, alpha, reasons in ((K, 1e-10, (1, 2, 3)), (K - 1.0, 0.0, (1, 3))):  # ill-conditioned; indefinite
        out = system.solve(b, alpha=alpha, maxiter=40, full_output=True)
        assert not out.converged.any() and (out.iterations <= 40).all() and out.status[0] in reasons
        assert np.isfinite(out.value).all()
    with pytest.raises(np.linalg.LinAlgError, match="solve: the system ended after"):
        K.solve(b, maxiter=40)


def test_preconditioners_of_linear_systems():
    line, landmarks = np.linspace(0, 1, 30)[:, None], np.linspace(0, 1, 6)[:, None]
    alpha, b = 1e-4, normal(7, 30)
    G = np.exp(-sqdists(line, line))
    C = np.exp(-sqdists(line, landmarks))  # Nyström: C W^-1 C^T + alpha I, inverted by Woodbury's identity
    W = np.exp(-sqdists(landmarks, landmarks))
    inverse = (np.eye(30) - C @ np.linalg.solve(alpha * W + C.T @ C, C.T)) / alpha
    K = (-Vi(line).sqdist(Vj(line))).exp()
    plain = K.solve(b, alpha=alpha, full_output=True)
    faster = K.solve(b, alpha=alpha, full_output=True, preconditioner=lambda r: jnp.asarray(inverse) @ r)
    assert plain.converged and faster.converged and faster.iterations <= plain.iterations / 2
    close(G @ faster.value + alpha * faster.value, b, 1e-5)


def test_small_right_hand_sides_are_not_zero():
    b = 1e-9 * normal(7, M)
    K = (-Vi(x).sqdist(Vj(x))).exp()
    close(K.solve(b, alpha=0.1) * 1e9, np.linalg.solve(np.exp(-sqdists(x, x)) + 0.1 * np.eye(M), 1e9 * b), 1e-5)


ROWS, COLUMNS, KEEP = np.array([[0, 2], [2, 4]]), np.array([[0, 1], [1, 5]]), np.array([[1, 0], [1, 1]], bool)
MASK = np.array([[1, 0, 0, 0, 0], [1, 0, 0, 0, 0], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1]])


def test_batch_dims_together_with_ranges():
    xs = np.stack([x, 2 * x])
    K = (-Vi(xs).sqdist(Vj(y))).exp()
    K.ranges = from_matrix(ROWS, COLUMNS, KEEP)
    close(K @ y, (np.exp(-sqdists(xs, y)) * MASK) @ y)
    close(K.sum(axis="i")[..., 0], (np.exp(-sqdists(xs, y)) * MASK).sum(1))


def test_ranges_are_validated():
    K = Vi(x).sqdist(Vj(y))
    ranges = [np.asarray(r) for r in from_matrix(ROWS, COLUMNS, KEEP)]
    for k, wrong in ((0, [[0, 2], [2, 9]]), (1, [1, 9]), (2, [[0, 1], [-4, 1], [1, 5]]), (0, [[0, 3], [2, 4]])):
        with pytest.raises(ValueError, match=r"expected"):
            K.sum(axis=1, ranges=(*ranges[:k], np.asarray(wrong), *ranges[k + 1 :]))
    far = (ranges[0], ranges[1], np.array([[0, 1], [0, 1], [1, 10**9]]), *ranges[3:])
    with pytest.raises(ValueError, match=r"redranges_j\[2\] is \[1, 1000000000\], expected 0 <= start <= end <= 5"):
        K.min(axis=1, ranges=far)


def test_distinct_cells_of_a_fine_grid_have_distinct_labels():
    # 2^10 cells along an axis and more: (0, 1024) and (1, 0) are one cell there.
    np.testing.assert_array_equal(grid_cluster(np.array([[0.5, 1024.5], [1.5, 0.5]]), 1.0), [0, 1])
    assert grid_cluster(normal(3, 6, 4), 0.1).shape == (6,)  # and D = 4 is refused there


def test_views_of_the_pairs():
    K, G = (-Vi(x).sqdist(Vj(y))).exp(), np.exp(-sqdists(x, y))
    close(K.dense(), G)
    close(K[1:3, :].dense(), G[1:3])
    close((-Vi(x).sqdist(Vj(x))).exp().diagonal(), np.ones(M))
    close(K.at_pairs(np.array([0, 3]), np.array([4, 1])), G[[0, 3], [4, 1]])


@pytest.mark.parametrize("case", SMOOTH[:3], ids=str)
def test_second_derivatives_are_not_zero(case):
    # Every operation and every reduction: tests/test_operations.py, tests/test_transformations.py.
    args = arguments()
    second = jax.hessian(lambda x: (case.ours(x, *args[1:]) ** 2).sum())(args[0])
    close(second, jax.hessian(lambda x: (case.dense(x, *args[1:]) ** 2).sum())(args[0]))
    assert np.abs(second).max() > 1e-3


def test_parameters_have_gradients_of_their_own_size():
    p = np.asarray([0.7])
    slope = jax.grad(lambda p: (Pm(p) * Vi(x).sqdist(Vj(y))).sum(axis=1).sum())(p)
    close(slope, [sqdists(x, y).sum()])
