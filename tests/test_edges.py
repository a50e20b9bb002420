"""Empty axes, size-1 axes, ragged sizes, ties, NaN and infinities: against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from lazyjax import LazyTensor, Vi, Vj

from .dense import close, normal, sqdists


def pairs(x, y):
    return ((Vi(x) - Vj(y)) ** 2).sum(-1)


def every_reduction(K, w):
    """Each reduction of a scalar formula over j, w being (N, 2)."""
    return {
        "sum": K.sum(axis="j"), "min": K.min(axis="j"), "max": K.max(axis="j"), "argmin": K.argmin(axis="j"),
        "argmax": K.argmax(axis="j"), "min_argmin": K.min_argmin(axis="j"), "max_argmax": K.max_argmax(axis="j"),
        "logsumexp": K.logsumexp(axis="j"), "logsumexp, weight": K.logsumexp(axis="j", weight=Vj(w)),
        "sumsoftmaxweight": K.sumsoftmaxweight(Vj(w), axis="j"), "Kmin": K.Kmin(3, axis="j"),
        "argKmin": K.argKmin(3, axis="j"), "Kmin_argKmin": K.Kmin_argKmin(3, axis="j"), "K @ b": K @ w,
        "b @ K": w[:, 0] @ K.T,
    }  # fmt: skip


def dense_reductions(G, w):
    """The same of a matrix (..., M, N) without NaN, in NumPy."""
    with np.errstate(divide="ignore"):
        return _dense_reductions(G, w)


def _dense_reductions(G, w):
    *lead, n = G.shape
    one = (*lead, 1)
    if n == 0:
        nothing, none = np.full(one, np.inf), np.full(one, -1)
        zeros = np.zeros((*lead, w.shape[-1]))
        least, largest = (nothing, none), (-nothing, none)
        smallest = np.full((*lead, 3), np.inf), np.full((*lead, 3), -1)
        total, weighted, softmax = -nothing, zeros - np.inf, zeros
    else:
        low, high = G.argmin(-1)[..., None], G.argmax(-1)[..., None]
        least, largest = (G.min(-1, keepdims=True), low), (G.max(-1, keepdims=True), high)
        order = np.argsort(G, -1, kind="stable")[..., :3]
        pad = [(0, 0)] * len(lead) + [(0, max(0, 3 - n))]
        smallest = (np.pad(np.take_along_axis(G, order, -1), pad, constant_values=np.inf),
                    np.pad(order, pad, constant_values=-1))  # fmt: skip
        total = scipy.special.logsumexp(G, -1, keepdims=True)
        e = np.exp(G - G.max(-1, keepdims=True))
        weighted = np.log(e @ w) + G.max(-1, keepdims=True)
        softmax = e @ w / e.sum(-1, keepdims=True)
    return {
        "sum": G.sum(-1, keepdims=True), "min": least[0], "max": largest[0], "argmin": least[1], "argmax": largest[1],
        "min_argmin": least, "max_argmax": largest, "logsumexp": total, "logsumexp, weight": weighted,
        "sumsoftmaxweight": softmax, "Kmin": smallest[0], "argKmin": smallest[1], "Kmin_argKmin": smallest,
        "K @ b": G @ w, "b @ K": G @ w[..., 0],
    }  # fmt: skip


def same(got, expected, tolerance=1e-10):
    assert got.keys() == expected.keys()
    for name, want in expected.items():
        found, wants = (got[name], want) if isinstance(want, tuple) else ((got[name],), (want,))
        for a, b in zip(found, wants, strict=True):
            close(a, b, tolerance, name)


SIZES = [(0, 4), (4, 0), (0, 0), (1, 1), (1, 17), (17, 1), (17, 33), (2, 2)]


@pytest.mark.parametrize(("m", "n"), SIZES)
def test_sizes(m, n):
    x, y, w = normal(0, m, 3), normal(1, n, 3), np.abs(normal(2, n, 2))
    got = jax.jit(lambda x, y, w: every_reduction(pairs(x, y), w))(x, y, w)
    same(got, dense_reductions(sqdists(x, y), w))


@pytest.mark.parametrize(("batch", "m", "n"), [(0, 4, 5), (1, 4, 5), (3, 0, 5), (3, 4, 0), (3, 1, 1)])
def test_batch_sizes(batch, m, n):
    x, y, w = normal(0, batch, m, 3), normal(1, n, 3), np.abs(normal(2, n, 2))

    @jax.jit
    def reductions(x, y, w):
        K = pairs(x, y)
        return K.sum(axis=2), K.min_argmin(axis=2), K.logsumexp(axis=1), K.argKmin(3, axis=2), K @ w

    G = sqdists(x, y)
    total, least, lse, nearest, product = reductions(x, y, w)
    want = dense_reductions(G, w)
    close(total, want["sum"])
    close(least[0], want["min"])
    close(least[1], want["argmin"])
    close(lse, dense_reductions(np.swapaxes(G, -1, -2), np.ones((m, 1)))["logsumexp"])
    close(nearest, want["argKmin"])
    close(product, want["K @ b"])


def test_ragged_large_sizes():
    x, y, w = normal(0, 1000, 3), normal(1, 1001, 3), np.abs(normal(2, 1001, 2))

    @jax.jit
    def reductions(x, y, w):
        K = -pairs(x, y)
        return K.exp() @ w, K.argKmin(3, axis=1), K.argmax(axis=0), K.logsumexp(axis=1), K.sum(axis=("i", "j"))

    G = -sqdists(x, y)
    product, nearest, best, lse, total = reductions(x, y, w)
    close(product, np.exp(G) @ w)
    np.testing.assert_array_equal(nearest, np.argsort(G, 1, kind="stable")[:, :3])
    np.testing.assert_array_equal(best[:, 0], G.argmax(0))
    close(lse, scipy.special.logsumexp(G, 1, keepdims=True))
    close(total, np.asarray([G.sum()]))


@pytest.mark.parametrize(("m", "n"), [(0, 4), (4, 0), (1, 1)])
def test_gradients_at_empty_axes(m, n):
    x, y = normal(0, m, 3), normal(1, n, 3)

    def loss(x, y):
        K = pairs(x, y)
        least = jnp.where(jnp.isfinite(K.min(axis=1)), K.min(axis=1), 0)
        return (K.sum(axis=1).sum() + K.sum(axis=0).sum() + jnp.exp(K.logsumexp(axis=1)).sum() + least.sum()) / 4

    for got, like in zip(jax.jit(jax.grad(loss, (0, 1)))(x, y), (x, y), strict=True):
        assert got.shape == like.shape
    if m == n == 1:
        d, q = x - y, ((x - y) ** 2).sum()
        close(jax.grad(loss)(x, y), d * (2 + 1 + np.exp(q)) * 2 / 4)
    else:
        close(jax.grad(loss)(x, y), np.zeros_like(x))


def test_a_formula_without_one_of_the_axes():
    x, y = normal(0, 6, 3), normal(1, 5, 3)
    close(Vi(x).sum(axis="j"), x)
    close(Vi(x).sum(axis="i"), x.sum(0)[None])
    close(Vj(y).max(axis="j"), y.max(0)[None])
    close(Vj(y).sum(axis="i"), y)
    close((LazyTensor(2.0) * 3).sum(axis="j"), [[6.0]])


# Ties.


def test_ties_take_the_lowest_index():
    f = np.tile([[2.0], [1.0], [3.0], [1.0], [3.0]], (9, 1))
    for size in (5, 17, 45):
        g = f[:size]
        row = g[:, 0]
        K = Vi(np.zeros((2, 1))) + Vj(g)
        least, largest, order = jax.jit(lambda K: (K.argmin(axis=1), K.argmax(axis=1), K.argKmin(7, axis=1)))(K)
        expected = np.full(7, -1)
        expected[: min(7, size)] = np.argsort(row, kind="stable")[:7]
        np.testing.assert_array_equal(least, np.full((2, 1), row.argmin()))
        np.testing.assert_array_equal(largest, np.full((2, 1), row.argmax()))
        np.testing.assert_array_equal(order, np.tile(expected, (2, 1)))


def test_signed_zeros_tie():
    K = Vi(np.zeros((1, 1))) + Vj(np.asarray([[1.0], [0.0], [-0.0]]))
    np.testing.assert_array_equal(K.argmin(axis=1), [[1]])
    np.testing.assert_array_equal(K.argKmin(3, axis=1), [[1, 2, 0]])
    np.testing.assert_array_equal((-K).argmax(axis=1), [[1]])
    K = Vi(np.ones((2, 1))) * Vj(np.asarray([[1.0], [0.0], [-0.0], [0.0]]))
    for k in (1, 2, 3):
        np.testing.assert_array_equal(K.argKmin(k, axis=1), np.tile([1, 2, 3][:k], (2, 1)))
        np.testing.assert_array_equal((-K).argKmax(k, axis=1), np.tile([1, 2, 3][:k], (2, 1)))


def test_more_neighbours_than_points():
    x, y = normal(0, 4, 2), normal(1, 3, 2)
    values, indices = pairs(x, y).Kmin_argKmin(6, axis=1)
    G = sqdists(x, y)
    np.testing.assert_array_equal(indices[:, 3:], np.full((4, 3), -1))
    np.testing.assert_array_equal(values[:, 3:], np.full((4, 3), np.inf))
    np.testing.assert_array_equal(indices[:, :3], G.argsort(1))
    close(values[:, :3], np.sort(G, 1))
    slope = jax.grad(lambda x: jnp.where(jnp.isfinite(k := pairs(x, y).Kmin(6, axis=1)), k, 0).sum())(x)
    close(slope, 2 * (x[:, None] - y).sum(1))


def test_kmin_of_vectors():
    x, y = normal(0, 4, 2), normal(1, 9, 2)
    values, indices = (Vi(x) * Vj(y)).Kmin_argKmin(3, axis=1)
    G = x[:, None] * y
    assert values.shape == (4, 3, 2)
    close(values, np.sort(G, 1)[:, :3])
    np.testing.assert_array_equal(indices, np.argsort(G, 1, kind="stable")[:, :3])


def test_integers():
    x, y = np.arange(-4, 3)[:, None], np.asarray([[3], [-2], [3], [0]])
    K, G = Vi(x) * Vj(y), x * y.T
    low, high = K.min_argmin(axis=1), K.max_argmax(axis=1)
    np.testing.assert_array_equal(low[0][:, 0], G.min(1))
    np.testing.assert_array_equal(low[1][:, 0], G.argmin(1))
    np.testing.assert_array_equal(high[0][:, 0], G.max(1))
    np.testing.assert_array_equal(high[1][:, 0], G.argmax(1))
    assert low[0].dtype == G.dtype and low[1].dtype == np.int32
    np.testing.assert_array_equal(K.Kmin(2, axis=1), np.sort(G, 1)[:, :2])
    np.testing.assert_array_equal((K > 0).sum(axis=1)[:, 0], (G > 0).sum(1))
    extremes = np.asarray([[np.iinfo(np.int32).max], [np.iinfo(np.int32).min]], np.int32)
    np.testing.assert_array_equal(Vj(extremes).argmin(axis=1), [[1]])
    np.testing.assert_array_equal(Vj(extremes[:1]).argmin(axis=1), [[0]])
    np.testing.assert_array_equal(Vj(extremes[1:]).argmax(axis=1), [[0]])
    np.testing.assert_array_equal(Vj(extremes).argKmin(3, axis=1), [[1, 0, -1]])


# NaN and infinities.

NAN, INF = np.nan, np.inf
ROWS = np.asarray([
    [1.0, NAN, -2.0, 3.0, -2.0], [NAN] * 5, [INF, NAN, INF, NAN, NAN], [-INF, 1.0, NAN, -INF, INF],
    [INF] * 5, [-INF] * 5,
    [NAN, 0.0, NAN, NAN, 0.0],
])  # fmt: skip


def matrix(rows):
    """A formula whose (i, j) value is rows[i, j]: feature j of i-variables, chosen by comparison."""
    m, n = rows.shape
    chosen = Vj(np.arange(n)[:, None])
    value = Vi(rows[:, :1])
    for k in range(1, n):
        value = (chosen == k).where(Vi(rows[:, k : k + 1]), value)
    return value


def test_nan_is_skipped_by_extrema():
    def best(row, worst, pick):
        known = np.flatnonzero(~np.isnan(row))
        if known.size == 0:
            return worst, -1
        k = known[pick(row[known])]
        return row[k], k

    low = np.asarray([best(r, INF, np.argmin) for r in ROWS])
    high = np.asarray([best(r, -INF, np.argmax) for r in ROWS])

    @jax.jit
    def extrema(rows):
        K = matrix(rows)
        return (*K.min_argmin(axis=1), *K.max_argmax(axis=1), K.min(axis=1), K.max(axis=1), K.argmin(axis=1),
                K.argmax(axis=1))  # fmt: skip

    expected = [low[:, :1], low[:, 1:], high[:, :1], high[:, 1:], low[:, :1], high[:, :1], low[:, 1:], high[:, 1:]]
    for got, want in zip(extrema(ROWS), expected, strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("k", [1, 3, 7])
def test_nan_is_skipped_by_the_k_smallest(k):
    values, indices = jax.jit(lambda rows: matrix(rows).Kmin_argKmin(k, axis=1))(ROWS)
    for row, got, at in zip(ROWS, values, indices, strict=True):
        known = np.flatnonzero(~np.isnan(row))
        order = known[np.argsort(row[known], kind="stable")][:k]
        missing = k - len(order)
        np.testing.assert_array_equal(got, [*row[order], *[INF] * missing])
        np.testing.assert_array_equal(at, [*order, *[-1] * missing])


def test_nan_goes_through_sums():
    K = matrix(ROWS)
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(K.sum(axis=1)[:, 0], ROWS.sum(1))
    np.testing.assert_array_equal(jnp.isnan(K.logsumexp(axis=1)[:, 0]), np.isnan(ROWS).any(1))


def test_logsumexp_of_infinities():
    rows = np.asarray([[-INF, -INF], [-INF, 2.0], [INF, 1.0], [INF, INF], [1000.0, 1000.0], [-1000.0, -1000.0]])
    expected = np.asarray([[-INF], [2.0], [INF], [INF], [1000 + np.log(2)], [-1000 + np.log(2)]])
    close(matrix(rows).logsumexp(axis=1), expected)
    slope = jax.grad(lambda rows: matrix(rows).logsumexp(axis=1).sum())(rows[[0, 1, 4, 5]])
    close(slope, [[0, 0], [0, 1], [0.5, 0.5], [0.5, 0.5]])


def test_logsumexp_with_signed_weights():
    x, y = normal(0, 6, 2), normal(1, 9, 2)
    w = np.linspace(-0.3, 1.5, 9)[:, None]
    G = np.exp(x @ y.T)
    got = (Vi(x) | Vj(y)).logsumexp(axis=1, weight=Vj(w))
    with np.errstate(invalid="ignore"):
        close(got, np.log(G @ w))


def test_softmax_of_large_numbers():
    rows = np.asarray([[1000.0, 999.0], [-1000.0, -1001.0], [-INF, 3.0]])
    weight = np.asarray([[1.0, 2.0], [3.0, -4.0]])
    share = scipy.special.softmax(rows, 1)
    close(matrix(rows).sumsoftmaxweight(Vj(weight), axis=1), share @ weight)


def test_padding_is_never_read():
    # 1 / x and log(x) of padding rows would be inf or NaN.
    x, y = np.abs(normal(0, 13, 1)) + 1, np.abs(normal(1, 19, 1)) + 1
    K, G = (1 / (Vi(x) * Vj(y))).log(), -np.log(x * y.T)
    close(K.sum(axis=1)[:, 0], G.sum(1))
    close(K.max(axis=0)[:, 0], G.max(0))
    close(K.logsumexp(axis=0)[:, 0], scipy.special.logsumexp(G, 0))
    close(jax.grad(lambda x: ((1 / (Vi(x) * Vj(y))).log() @ y).sum())(x), -y.sum() / x)


def test_subnormal_and_huge_numbers():
    tiny = np.asarray([[1e-200], [3.0]])
    close((Vi(tiny) * Vj(np.asarray([[1e200], [0.0]]))).sum(axis=1), [[1.0], [3e200]])
    assert np.isinf((Vi(np.asarray([[1e200]])) ** 2).sum(axis=1)[0, 0])
