"""Means, variances, products, the K largest, any, all, and reductions over both axes: against NumPy and dense JAX."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lazyjax import Vi, Vj
from lazyjax._statistics import ORDERS, _quotient

from .dense import close, normal, trees_close

M, N, D = 6, 5, 3
x, y = normal(0, M, D), normal(1, N, D)
AXES = {"i": 0, "j": 1, "ij": (0, 1)}
STATISTICS: dict[str, dict[str, Any]] = {
    "sum": {}, "mean": {}, "prod": {}, "var": {"ddof": 1}, "std": {"ddof": 0.5}, "min": {}, "max": {},
}  # fmt: skip
LOGICAL = ("any", "all", "count_nonzero")


def products(x: Any, y: Any) -> Any:
    return Vi(x) * Vj(y)


def dense(x: Any, y: Any) -> Any:
    return x[..., :, None, :] * y[..., None, :, :]


def every_statistic(K: Any, keepdims: bool = True) -> dict[str, Any]:
    found = {(n, a): getattr(K, n)(axis=a, keepdims=keepdims, **o) for n, o in STATISTICS.items() for a in AXES}
    positive = K > 0.5
    return found | {(n, a): getattr(positive, n)(axis=a, keepdims=keepdims) for n in LOGICAL for a in AXES}


def dense_statistics(G: Any) -> dict[str, Any]:
    """Of values (M, N, D), in NumPy."""
    found = {(n, a): getattr(G, n)(axis=axis, **o) for n, o in STATISTICS.items() for a, axis in AXES.items()}
    return found | {(n, a): getattr(np, n)(G > 0.5, axis=axis) for n in LOGICAL for a, axis in AXES.items()}


def test_values():
    got = jax.jit(lambda x, y: every_statistic(products(x, y)))(x, y)
    trees_close(got, {k: jnp.asarray(v) for k, v in dense_statistics(dense(x, y)).items()})


def test_batch_dims():
    X = normal(2, 4, M, D)
    got = jax.jit(lambda x, y: every_statistic(products(x, y)))(X, y)
    each = [dense_statistics(dense(problem, y)) for problem in X]
    trees_close(got, {k: jnp.asarray(np.stack([e[k] for e in each])) for k in each[0]})


def test_keepdims():
    """keepdims=False drops a feature axis of size 1, and no other."""
    scalars = jax.jit(lambda x, y: every_statistic(products(x, y)[..., 0], keepdims=False))(x, y)
    trees_close(scalars, {k: jnp.asarray(v[..., 0]) for k, v in dense_statistics(dense(x, y)[..., :1]).items()})
    vectors = jax.eval_shape(lambda x, y: every_statistic(products(x, y), keepdims=False), x, y)
    assert {v.shape for v in vectors.values()} == {(M, D), (N, D), (D,)}
    K = products(x, y)[..., 0]
    assert K.min_argmin(axis=1, keepdims=False)[1].shape == (M,)
    assert K.Kmin(1, axis=1, keepdims=False).shape == (M, 1)
    assert K.logsumexp(axis=1, keepdims=False).shape == (M,)


def test_aliases_and_names_of_axes():
    K = products(x, y)
    close(K.mean_reduction(axis=1), K.mean(dim="j"))
    close(K.Kmax_reduction(2, axis=1), K.Kmax(2, dim=-2))
    close(K.std(axis=(1, 0)), dense(x, y).std((0, 1)))
    weights = np.exp(dense(x, y)[..., 0])
    close(K[..., 0].sumsoftmaxweight(Vj(y), axis="ij"), (weights[..., None] * y).sum((0, 1)) / weights.sum())
    close(K[..., 0].logsumexp(axis="ij", weight=Vj(y**2)), np.log((weights[..., None] * y**2).sum((0, 1))))


def test_over_the_features():
    K, G = products(x, y), dense(x, y)
    lazy = [K.mean(-1), K.mean(), K.prod(-1), K.var(-1), K.var(-1, ddof=1), K.std(), (K > 0.5).any(-1), (K > 0.5).all(),
            K.count_nonzero(-1)]  # fmt: skip
    full = [G.mean(-1), G.mean(-1), G.prod(-1), G.var(-1), G.var(-1, ddof=1), G.std(-1), (G > 0.5).any(-1),
            (G > 0.5).all(-1), np.count_nonzero(G, -1)]  # fmt: skip
    got = jax.jit(lambda lazy: [f.dense() for f in lazy])(lazy)
    trees_close(got, [jnp.asarray(v) for v in full])


def test_symbolic_variables():
    K = Vi(0, D) * Vj(1, D)
    for name, options in STATISTICS.items():
        close(getattr(K, name)(axis=1, **options)(x, y), getattr(dense(x, y), name)(1, **options), message=name)
    close(K.min(axis="ij", keepdims=False)(x, y), dense(x, y).min((0, 1)))


# Dtypes.


@pytest.mark.parametrize("dtype", ["bool", "int32", "float16", "bfloat16", "float32", "complex64"])
def test_dtypes(dtype):
    """Result dtypes are those of jnp, and of NumPy for averages of integers and booleans, which are float64."""
    a = jnp.asarray(np.array([[3.0], [0], [2], [1], [2]]) + (1j if dtype == "complex64" else 0)).astype(dtype)
    K = Vi(a)
    for name in ("sum", "mean", "prod", "var", "std", "any", "all", "count_nonzero"):
        of, b = (np, np.asarray(a)) if name in LOGICAL else (jnp, a)  # jnp.all reads real parts alone
        got, want = getattr(K, name)(axis=0), getattr(of, name)(b, axis=0, keepdims=True)
        average = dtype in ("bool", "int32") and name in ("mean", "var", "std")
        assert got.dtype == (np.float64 if average else want.dtype), name
        np.testing.assert_allclose(got.astype(complex), want.astype(complex), rtol=1e-2 if a.itemsize == 2 else 1e-6)


def test_a_mean_of_float16_does_not_overflow():
    a = jnp.full((3000, 1), 100.0, jnp.float16)  # the sum, 300000, is beyond the largest float16
    assert float(Vi(a).mean(axis=0)[0, 0]) == 100


@pytest.mark.parametrize("backend", ["xla", "pallas-triton", "dense"])
def test_variance_does_not_cancel(backend):
    """Values of mean 1e4 and deviation 1 in float32: E[f^2] - E[f]^2 would have no right digit (1e8 * 6e-8 = 6)."""
    a = jnp.asarray(1e4 + normal(3, 4000, 1), jnp.float32)
    exact = np.asarray(a, np.float64).var()
    for rows in (1, 40):
        K = Vj(a) * Vi(jnp.ones((rows, 1), jnp.float32))
        close(K.var(axis=1, backend=backend), np.full((rows, 1), exact), 1e-4)
    assert abs(float((a**2).mean() - a.mean() ** 2) - exact) > 0.5  # what is avoided


# Nothing, NaN and infinity.


@pytest.mark.parametrize(("m", "n"), [(0, 4), (4, 0)])
def test_no_pairs(m, n):
    K = products(np.ones((m, 1)), np.ones((n, 1)))
    axis = "i" if m == 0 else "j"
    nothing = {"sum": 0, "prod": 1, "mean": np.nan, "var": np.nan, "std": np.nan, "min": np.inf, "max": -np.inf,
               "any": False, "all": True, "count_nonzero": 0, "logsumexp": -np.inf}  # fmt: skip
    for name, value in nothing.items():
        close(getattr(K, name)(axis=axis), np.full((4, 1), value), message=name)
        close(getattr(K, name)(axis="ij"), np.full((1,), value), message=name)
    close(K.Kmax(2, axis=axis), np.full((4, 2), -np.inf))
    close(K.argKmax(2, axis=axis), np.full((4, 2), -1))


def test_a_single_pair():
    K = products(x[:1], y[:1])
    close(K.var(axis=1), np.zeros((1, D)))
    assert np.isnan(K.var(axis=1, ddof=1)).all() and np.isnan(K.std(axis="ij", ddof=2)).all()


def test_nan_and_infinity():
    a = np.array([[np.nan, np.inf, 0.0], [1.0, 2.0, 0.0]])
    for name in ("sum", "mean", "prod", "any", "all", "count_nonzero"):
        close(getattr(Vi(a), name)(axis=0), getattr(np, name)(a, axis=0, keepdims=True), message=name)
    assert np.isnan(Vi(a).var(axis=0)[0, :2]).all() and Vi(a).var(axis=0)[0, 2] == 0


def test_a_count_that_int32_cannot_hold_is_refused():
    a = np.ones((50_000, 1), np.float32)
    with jax.enable_x64(False):
        with pytest.raises(ValueError, match=r"count_nonzero: 2500000000 pairs.*jax_enable_x64.*over one axis"):
            (Vi(a) > Vj(a)).count_nonzero(axis="ij")
        assert (Vi(a[:9]) >= Vj(a[:9])).count_nonzero(axis="ij").dtype == np.int32


# Derivatives at singular points; those elsewhere are tested with all other reductions.


def test_derivatives_of_a_product_with_zeros():
    """prod_k (c_k + s t_k), with 0 to 4 of the c_k zero: its derivatives at s = 0 are k! times the coefficients of a
    polynomial. Four of them."""
    c, t = np.tile(normal(4, 1, 6) + 2, (5, 1)), normal(5, 6)
    for zeros in range(5):
        c[zeros, :zeros] = 0

    def derivatives(c: Any) -> Any:
        f = lambda s: Vj((c + s * t)[:, None]).prod(axis=1, keepdims=False)[0]  # noqa: E731
        forward, found = f, []
        for k in range(4):
            if k == 1:
                found.append(jax.grad(forward)(0.0))
            forward = jax.jacfwd(forward)
            found.append(forward(0.0))
        return jnp.stack(found)

    d1, d2r, d2, d3, d4 = jax.jit(jax.vmap(derivatives))(c).T
    polynomials = [np.polynomial.polynomial.polyfromroots(-own / t)[:5] * np.prod(t) for own in c]
    want = np.array(polynomials).T * np.array([1, 1, 2, 6, 24])[:, None]
    for got, k in ((d1, 1), (d2r, 2), (d2, 2), (d3, 3), (d4, 4)):
        close(got, want[k], 1e-9, f"order {k}")


def test_a_derivative_of_a_product_that_is_not_known_is_nan():
    """Not a wrong number. (v + t) P(t) divided by v + t is P whatever v is, so all derivatives in v are zero."""
    p = np.array([3.0, 5.0, 7.0, 2.0, 1.0])

    def others(v: Any) -> Any:
        c = [v * a + b for a, b in zip(p, [0, *p[:-1]], strict=True)]
        return _quotient(v, c, 0)

    found = []
    for _ in range(ORDERS + 1):
        found.append([float(others(0.0)), float(others(1.5))])
        others = jax.jacfwd(others)
    want = np.zeros((ORDERS + 1, 2))
    want[0], want[-1, 0] = p[0], np.nan
    close(found, want, 1e-9)


def test_the_hessian_of_a_product_with_zeros():
    a, c = normal(4, 2, 1) + 2, normal(5, 5, 1) + 3
    c[1:3] = 0
    ours = lambda x, y: (Vi(x) * Vj(y)).prod(axis=1)  # noqa: E731
    dense = lambda x, y: (x[:, None] * y).prod(1)  # noqa: E731
    got, want = (jax.jit(lambda f=f: (jax.jacrev(f, 1)(a, c), jax.hessian(f, (0, 1))(a, c)))() for f in (ours, dense))
    trees_close(got, want)


def test_the_derivative_of_a_deviation_that_is_zero_is_zero():
    slope = jax.grad(lambda x: Vi(x).std(axis=0).sum())(np.ones((4, 2)))
    close(slope, np.zeros((4, 2)))


# The K largest.


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "float16", "float32"])
@pytest.mark.parametrize("n", [3, 40, 2000])
def test_k_largest(dtype, n):
    """Of few values, and of so many that groups are searched; ties go to the lowest index, what is missing is -1."""
    k = 4
    a = jnp.asarray(np.random.default_rng(n).integers(-3, 3, (n, 1)) % 7).astype(dtype)
    order = np.argsort(-np.asarray(a[:, 0]).astype(float), kind="stable")[:k]
    values, indices = Vj(a).Kmax_argKmax(k, axis=1)
    pad = k - len(order)
    lowest = {"bool": False, "uint8": 0, "int32": np.iinfo(np.int32).min}.get(dtype, -np.inf)
    np.testing.assert_array_equal(indices, np.pad(order, (0, pad), constant_values=-1)[None])
    np.testing.assert_array_equal(values, [[*np.asarray(a[order, 0]), *[lowest] * pad]])
    assert values.dtype == a.dtype and indices.dtype == np.int32


def test_k_largest_skips_nan():
    a = np.array([[np.nan], [-np.inf], [np.inf], [1.0], [np.nan]])
    values, indices = Vj(a).Kmax_argKmax(4, axis=1)
    np.testing.assert_array_equal(values, [[np.inf, 1, -np.inf, -np.inf]])
    np.testing.assert_array_equal(indices, [[2, 3, 1, -1]])
