"""How accurate sums are, with the options that change it: against NumPy in float64."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from lazyjax import Vi, Vj, explain

from .dense import close, normal, sqdists, trees_close
from .kernels_of import RUNS, run_on

KAHAN: dict[str, Any] = {"sum_scheme": "kahan_scheme"}
DOUBLE: dict[str, Any] = {"dtype_acc": "float64"}
ULP = 2.0**-24  # the rounding of a result in float32


# A million terms. 1024 rows: fewer would be cut into segments that are summed side by side.

TERMS = np.stack([np.random.default_rng(seed).random(10**6).astype(np.float32) for seed in range(4)], 1)


@pytest.mark.parametrize(
    ("options", "bound"),
    [
        ({}, 3.6e-7),
        ({"sum_scheme": "block_sum"}, 3.6e-7),
        ({"sum_scheme": "direct_sum"}, 7.4e-6),
        (KAHAN, ULP),
        (DOUBLE, ULP),
        ({"use_double_acc": True}, ULP),
    ],
    ids=str,
)
def test_a_million_uniform_terms(options, bound):
    """Block sums are as accurate as KeOps' (3.6e-7), direct ones too (7.4e-6); the others to the last bit."""
    ones = jnp.ones((1024, 1), jnp.float32)
    total = (Vi(ones) * Vj(TERMS[:, :1])).sum(axis=1, **options)
    assert total.dtype == np.float32
    exact = TERMS[:, :1].astype(float).sum()
    assert np.abs(np.asarray(total, float) / exact - 1).max() <= bound


def test_a_million_uniform_terms_on_average():
    """Over several samples, because one may be lucky."""
    total = (Vi(jnp.ones((1024, 1), jnp.float32)) * Vj(TERMS)).sum(axis=1)
    errors = np.asarray(total, float)[0] / TERMS.astype(float).sum(0) - 1
    assert np.sqrt((errors**2).mean()) <= 3.6e-7


def test_direct_sums_are_direct():
    """One chain of additions: in float32 a sum of ones stops at 2**24, whereas groups go on."""
    ones, many = jnp.ones((1024, 1), jnp.float32), jnp.ones((2**24 + 2**12, 1), jnp.float32)
    assert float((Vi(ones[:1]) * Vj(many[:10])).sum(axis=1, sum_scheme="direct_sum")[0, 0]) == 10
    (plain,) = explain(lambda x, y: (Vi(x) * Vj(y)).sum(axis=1), ones, many)
    (direct,) = explain(lambda x, y: (Vi(x) * Vj(y)).sum(axis=1, sum_scheme="direct_sum"), ones, many)
    assert plain.plan.tiles.group * plain.plan.tiles.unroll <= 4096 < direct.plan.tiles.group


# Sums that cancel: the terms are 1e6 times larger than the result.

LARGE = np.random.default_rng(1).standard_normal((300, 1)) * 1e2
CANCELLING = np.concatenate([LARGE, normal(2, 100, 1) * 1e-2, -LARGE]).astype(np.float32)
CANCELLING = CANCELLING[np.random.default_rng(3).permutation(700)]
SCALES = np.array([[1.0], [0.5], [2.0]], np.float32)  # powers of two: products are exact


def _cancelling(scales: Any, terms: Any, **options: Any) -> Any:
    return (Vi(scales) * Vj(terms)).sum(axis=1, **options)


@pytest.mark.parametrize("kernel", [kernel for kernel in RUNS if "sorted lists" not in kernel])  # sums have none
def test_compensation_survives_every_kernel(kernel):
    """No compiler has simplified (a + b) - a to b: then the result would be that of a plain sum, which is far off."""
    exact = SCALES * CANCELLING.astype(float).sum()
    args = jnp.asarray(SCALES), jnp.asarray(CANCELLING)
    got = jax.jit(lambda *a: run_on(lambda *b: _cancelling(*b, **KAHAN), RUNS[kernel], *a))(*args)
    plain = jax.jit(lambda *a: run_on(_cancelling, RUNS[kernel], *a))(*args)
    assert np.abs(got / exact - 1).max() < 1e-6
    assert np.abs(plain / exact - 1).max() > 1e-4


@pytest.mark.parametrize("options", [KAHAN, DOUBLE], ids=str)
def test_everything_that_adds(options):
    """Products with vectors, means, softmax-weighted sums of cancelling weights, and gradients: all accumulate so."""
    s, c = jnp.asarray(SCALES), jnp.asarray(CANCELLING)
    total = CANCELLING.astype(float).sum()
    sign = np.float32(np.sign(total))
    ones = Vi(jnp.ones_like(s)) * Vj(jnp.ones_like(c))

    def loss(s: Any) -> Any:
        return _cancelling(s, c, **options).sum()

    got = {
        "matvec": ones.matvec(c[:, 0], **options),
        "matvec of columns": ones.matvec(jnp.concatenate([c, c], 1), **options)[:, 1],
        "rmatvec": ones.T.rmatvec(c[:, 0], **options),
        "mean": 700 * (Vi(jnp.ones_like(s)) * Vj(c)).mean(axis=1, **options)[:, 0],
        "both": (Vi(jnp.ones_like(s)) * Vj(c)).sum(axis="ij", **options) / 3,
        "softmax": 700 * (0 * ones).sumsoftmaxweight(Vj(c), axis=1, **options)[:, 0],
        "logsumexp": sign * jnp.exp((0 * ones).logsumexp(axis=1, weight=Vj(sign * c), **options)[:, 0]),
        "gradient": jax.grad(loss)(s)[:, 0],
        "tangent": jax.jvp(loss, (s,), (jnp.ones_like(s),))[1] / 3,
    }
    for name, value in got.items():
        assert value.dtype == np.float32, name
        np.testing.assert_allclose(np.asarray(value, float), total, rtol=3e-6, err_msg=name)


def test_dtype_of_the_accumulator():
    """Every reduction that adds or multiplies, in float32 and float16, accumulated wider: as if done in float64."""
    x, y = normal(4, 5, 2), normal(5, 300, 2)

    def exactly(x: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
        K, V = -sqdists(x, y), x[:, None] * y
        return [
            (1 + K / 4000).prod(1)[:, None],
            V.sum(0),
            V.mean(1),
            V.var(1),
            V.std((0, 1)),
            scipy.special.logsumexp(K, 1, keepdims=True),
            scipy.special.softmax(K, 1) @ y,
        ]

    def every(x: Any, y: Any, options: Any) -> Any:
        K = -Vi(x).sqdist(Vj(y))
        V = Vi(x) * Vj(y)
        # The factors of a product are not exact in 16 bits, whatever they are multiplied in.
        product = [] if x.dtype.itemsize == 2 else [(1 + K / 4000).prod(axis=1, **options)]
        return [
            *product,
            V.sum(axis=0, **options),
            V.mean(axis=1, **options),
            V.var(axis=1, **options),
            V.std(axis="ij", **options),
            K.logsumexp(axis=1, **options),
            K.sumsoftmaxweight(Vj(y), axis=1, **options),
        ]

    for dtype, acc in (("float32", "float64"), ("float16", jnp.float32), ("bfloat16", np.float64)):
        short = x.astype(dtype), y.astype(dtype)
        got = jax.jit(lambda x, y, acc=acc: every(x, y, {"dtype_acc": acc}))(*short)
        want = exactly(*(a.astype(np.float64) for a in short))[-len(got) :]
        eps = float(jnp.finfo(dtype).eps)
        for a, b in zip(got, want, strict=True):
            assert a.dtype == dtype and a.shape == b.shape
            np.testing.assert_allclose(a.astype(float), b, rtol=8 * eps, atol=8 * eps)


@pytest.mark.parametrize("options", [KAHAN, DOUBLE], ids=str)
def test_large_problems(options):
    """Many rows and long sums take other ways through the kernels: a pass for the maximum, matrix products."""
    c = jnp.asarray(np.tile(CANCELLING, (6, 1)))
    rows = jnp.ones((1024, 1), jnp.float32)
    total = 6 * CANCELLING.astype(float).sum()
    sign = np.float32(np.sign(total))

    @jax.jit
    def every(rows: Any, c: Any) -> Any:
        ones = Vi(rows) * Vj(jnp.ones_like(c))
        columns = jnp.concatenate([c, c], 1)
        return {
            "columns": ones.matvec(columns, **options),
            "softmax": c.shape[0] * (0 * ones).sumsoftmaxweight(Vj(columns), axis=1, **options),
            "logsumexp": sign * jnp.exp((0 * ones).logsumexp(axis=1, weight=Vj(sign * c), **options)),
            "gradient": jax.grad(lambda r: (Vi(r) * Vj(jnp.ones_like(c))).matvec(columns, **options).sum() / 2)(rows),
        }

    for name, value in every(rows, c).items():
        np.testing.assert_allclose(np.asarray(value, float), total, rtol=3e-6, err_msg=name)


# Derivatives of compensated reductions.


def test_derivatives_of_compensated_reductions():
    x, y, b = normal(6, 4, 2), normal(7, 6, 2), normal(8, 6, 1)

    def ours(x: Any, y: Any, b: Any, options: Any) -> Any:
        K = -Vi(x).sqdist(Vj(y))
        return (
            K.logsumexp(axis=1, weight=Vj(b).exp(), **options).sum()
            + (K.sumsoftmaxweight(Vj(b), axis=1, **options) ** 2).sum()
            + K.exp().mean(axis=0, **options).sum() ** 2
        )

    def derivatives(options: Any) -> Any:
        f = jax.grad(lambda *a: ours(*a, options), (0, 1, 2))
        return jax.jit(lambda: (f(x, y, b), jax.jvp(f, (x, y, b), (y[:4], y, b))[1]))()

    plain = derivatives({})
    for options in (KAHAN, DOUBLE, {"sum_scheme": "direct_sum"}):
        trees_close(derivatives(options), plain, 1e-12)


# Edges.


@pytest.mark.parametrize("options", [KAHAN, DOUBLE], ids=str)
def test_nan_and_infinity(options):
    a = np.array([[np.inf, np.inf, np.nan, -np.inf], [1.0, -np.inf, 1.0, 2.0], [1.0, 1.0, np.inf, 2.0]], np.float32)
    np.testing.assert_array_equal(Vi(a).sum(axis=0, **options), [[np.inf, np.nan, np.nan, -np.inf]])
    close(Vi(a).logsumexp(axis=0, **options)[0, [0, 3]], np.array([np.inf, 2 + np.log(2)], np.float32), 1e-6)
    nothing = Vi(jnp.zeros((3, 1))) * Vj(jnp.zeros((0, 1)))
    close(nothing.sum(axis=1, **options), np.zeros((3, 1)))
    close(nothing.logsumexp(axis=1, **options), np.full((3, 1), -np.inf))


def test_integers_and_complex_numbers():
    whole = np.arange(12).reshape(6, 2)
    for options in (KAHAN, DOUBLE, {"sum_scheme": "direct_sum"}):
        total = Vi(whole).sum(axis=0, **options)
        np.testing.assert_array_equal(total, whole.sum(0, keepdims=True))
        assert total.dtype == whole.dtype
    c = CANCELLING + 1j * CANCELLING[::-1]
    exact = c.astype(complex).sum()
    for options in (KAHAN, DOUBLE):
        total = Vj(c).sum(axis=1, **options)
        assert total.dtype == np.complex64
        np.testing.assert_allclose(total[0, 0], exact, rtol=1e-5)


def test_symbolic_variables_take_options():
    total = (Vi(0, 1) * Vj(1, 1)).sum(axis=1, **KAHAN)
    np.testing.assert_allclose(total(SCALES, CANCELLING), SCALES * CANCELLING.astype(float).sum(), rtol=1e-6)
