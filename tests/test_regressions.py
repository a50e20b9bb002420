"""Combinations that were once wrong, each against dense JAX or NumPy."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lazyjax
from lazyjax import Vi, Vj, explain, lift

from .cases import M, N, arguments

NAN, INF = np.nan, np.inf


def _column(*values: float, dtype: Any = np.float64) -> np.ndarray:
    return np.asarray(values, dtype)[:, None]


def test_infinite_values_come_before_groups_of_nan() -> None:
    v = np.full((512, 1), INF)
    v[:64] = NAN  # two groups, as many as are looked at again
    rows = Vi(np.zeros((3, 1))) + Vj(v)
    assert explain(lambda: rows.argKmin(2, axis=1))[0].plan.tiles.shape == "groups"
    assert rows.argKmin(2, axis=1).tolist() == [[64, 65]] * 3
    v[300] = 1  # its group holds infinity, too, but later
    assert (Vi(np.zeros((3, 1))) + Vj(v)).argKmin(2, axis=1).tolist() == [[300, 64]] * 3
    many = (Vi(np.zeros((2048, 1))) + Vj(v)).argKmin(2, axis=1)
    assert np.unique(many, axis=0).tolist() == [[300, 64]]


@pytest.mark.parametrize(
    "values, dtype",
    [([255, 254, 3], np.uint8), ([2**31 - 1, 2**31 - 2, 3], np.int32), ([INF, np.finfo("f8").max, 1.0], np.float64)],
)
def test_the_k_smallest_of_extreme_values(values: list[float], dtype: Any) -> None:
    v, at = (Vi(_column(0, dtype=dtype)) + Vj(_column(*values, dtype=dtype))).Kmin_argKmin(3, axis=1)
    assert v[0].tolist() == sorted(values)
    assert at[0].tolist() == [2, 1, 0]


@pytest.mark.parametrize("dtype", [np.int32, np.bool_])
def test_logsumexp_of_integers(dtype: Any) -> None:
    x, y = np.arange(3).astype(dtype)[:, None], np.arange(4).astype(dtype)[:, None]
    got = (Vi(x) * Vj(y)).logsumexp(axis=1)
    want = np.log(np.exp((x[:, None] * y[None])[..., 0].astype(float)).sum(1))
    np.testing.assert_allclose(got[:, 0], want)
    softmax = (Vi(x) * Vj(y)).sumsoftmaxweight(Vj(y), axis=1)
    p = np.exp((x[:, None] * y[None])[..., 0].astype(float))
    np.testing.assert_allclose(softmax[:, 0], (p / p.sum(1, keepdims=True)) @ y[:, 0].astype(float))


@pytest.mark.parametrize("reverse", [True, False])
def test_rows_without_a_winner_do_not_reach_the_gradient(reverse: bool) -> None:
    x, y, *_ = arguments()
    x = x.at[2].set(NAN)

    def loss(y: Any) -> Any:
        low = (Vi(x) - Vj(y)).sqnorm2().min(axis=1)
        return jnp.where(jnp.isfinite(low), low, 0.0).sum()

    def dense(y: Any) -> Any:
        kept = jnp.delete(x, 2, axis=0)
        return ((kept[:, None] - y[None]) ** 2).sum(-1).min(1).sum()

    for order in (jax.jacrev if reverse else jax.jacfwd, jax.hessian):
        np.testing.assert_allclose(order(loss)(y), order(dense)(y), atol=1e-12)


def test_padding_of_the_k_smallest_does_not_reach_the_gradient() -> None:
    x, y, *_ = arguments(3, 6)
    y = y.at[0].set(NAN)
    got = jax.grad(lambda y: (Vi(x) - Vj(y)).sqnorm2().Kmin(9, axis=1)[:, :5].sum())(y)
    want = jax.grad(lambda y: ((x[:, None] - y[None]) ** 2).sum())(y[1:])
    np.testing.assert_allclose(got[1:], want)
    assert np.all(np.asarray(got[0]) == 0)


@pytest.mark.parametrize("row", [[0.0, 1.0, 2.0], [NAN, 0.0, 1.0], [INF, 0.0, 1.0], [-INF, 0.0, 1.0]])
def test_gradient_of_logsumexp_at_singular_rows(row: list[float]) -> None:
    f = jnp.asarray(row)
    got = jax.grad(lambda f: (Vi(np.zeros((1, 1))) + Vj(f[:, None])).logsumexp(axis=1).sum())(f)
    np.testing.assert_allclose(got, jax.grad(jax.nn.logsumexp)(f))


def test_gradient_of_logsumexp_at_a_row_of_minus_infinity_is_zero() -> None:
    f = jnp.full((3,), -jnp.inf)
    loss = lambda f: (Vi(np.zeros((1, 1))) + Vj(f[:, None])).logsumexp(axis=1).sum()  # noqa: E731
    assert jax.grad(loss)(f).tolist() == [0.0, 0.0, 0.0]
    assert np.all(np.asarray(jax.hessian(loss)(f)) == 0.0)


def test_weights_whose_sum_is_zero_or_negative() -> None:
    def total(w: Any) -> Any:
        return (Vi(np.zeros((1, 1))) + Vj(np.zeros((2, 1)))).logsumexp(axis=1, weight=Vj(w[:, None])).sum()

    assert np.isneginf(total(jnp.asarray([1.0, -1.0])))
    assert np.all(np.isinf(jax.grad(total)(jnp.asarray([1.0, -1.0]))))
    assert np.all(np.isnan(jax.grad(total)(jnp.asarray([1.0, -2.0]))))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_softmax_weights_of_short_floats_sum_to_one(dtype: str) -> None:
    f = jnp.linspace(0, 1, 3000).astype(dtype)[:, None]
    ones = (jnp.ones_like(f),)
    _, tangent = jax.jvp(lambda f: (Vi(jnp.zeros((1, 1), dtype)) + Vj(f)).logsumexp(axis=1), (f,), ones)
    assert tangent.dtype == dtype
    assert float(tangent[0, 0]) == 1.0


class _Scaled:
    w: Any = 1.0

    def pair(self, a: Any, b: Any) -> Any:
        return jnp.sum(self.w * a * b)


def test_lift_sees_an_object_that_changed() -> None:
    x, y, *_ = arguments()
    model, base = _Scaled(), jnp.sum(x @ y.T)

    def total(w: Any) -> Any:
        model.w = w
        return lift(model.pair)(Vi(x), Vj(y)).sum(axis=1).sum()

    for w in (1.0, 2.0):
        np.testing.assert_allclose(total(jnp.asarray(w)), w * base)
    np.testing.assert_allclose(jax.grad(total)(jnp.asarray(3.0)), base)


def test_lift_sees_a_global_that_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, *_ = arguments()
    for w in (1.0, 2.0):
        monkeypatch.setitem(globals(), "SCALE", w)
        np.testing.assert_allclose(lift(_scaled_by_global)(Vi(x), Vj(y)).sum(axis=1).sum(), w * jnp.sum(x @ y.T))


def _scaled_by_global(a: Any, b: Any) -> Any:
    return jnp.sum(SCALE * a * b)


SCALE = 0.0


@pytest.mark.parametrize("name", ["sum", "min", "logsumexp"])
def test_custom_vjp_in_a_lifted_function_is_reverse_mode_only(name: str) -> None:
    @jax.custom_vjp
    def square(t: Any) -> Any:
        return t * t

    square.defvjp(lambda t: (t * t, t), lambda t, ct: (3 * t * ct,))  # a rule of its own: 3 t instead of 2 t
    x, y, *_ = arguments()

    def total(f: Any, x: Any) -> Any:
        return getattr(lift(lambda a, b: jnp.sum(f(a - b)))(Vi(x), Vj(y)), name)(axis=1).sum()

    got = jax.grad(lambda x: total(square, x))(x)
    plain = jax.grad(lambda x: total(jnp.square, x))(x)
    np.testing.assert_allclose(got, 1.5 * plain)
    with pytest.raises(TypeError, match="custom_vjp"):
        jax.jvp(lambda x: total(square, x), (x,), (x,))


def test_disable_jit() -> None:
    x, y, b, _ = arguments()
    f = lambda x: (-Vi(x).sqdist(Vj(y))).exp() @ b  # noqa: E731
    want = f(x)
    with jax.disable_jit():
        np.testing.assert_allclose(f(x), want)


def test_debug_nans() -> None:
    with jax.debug_nans(True):
        assert Vi(np.ones((2, 1))).sqdist(Vj(np.ones((3, 1)))).sum(axis=1).tolist() == [[0.0], [0.0]]
        with pytest.raises(FloatingPointError, match="nan"):
            (Vi(-np.ones((2, 1))) * Vj(np.ones((3, 1)))).log().sum(axis=1)


def test_indices_that_depend_on_data_are_refused_by_triton_in_time() -> None:
    x, y, *_ = arguments()
    f = lambda: lift(lambda a, b: a[jnp.argmax(b)] * b[0])(Vi(x), Vj(y)).sum(axis=1)  # noqa: E731
    (e,) = explain(f, platform="cuda")
    assert e.plan.kernel == "xla"
    assert "indices that depend on the data" in dict(e.plan.refused)["pallas-triton"]
    want = jnp.take_along_axis(x[:, None].repeat(N, 1), jnp.argmax(y, 1)[None, :, None].repeat(M, 0), 2)[..., 0]
    np.testing.assert_allclose(f()[:, 0], (want * y[None, :, 0]).sum(1))


def test_no_features() -> None:
    out = (Vi(np.zeros((3, 0))) - Vj(np.zeros((4, 0)))).sum(-1).sum(axis=1)
    assert out.tolist() == [[0.0]] * 3


def test_bits_of_another_width() -> None:
    x, y, *_ = arguments()
    got = lift(lambda a, b: jax.lax.bitcast_convert_type(a * b, jnp.uint32).astype(float).ravel())(Vi(x), Vj(y))
    want = jax.lax.bitcast_convert_type(x[:, None] * y[None], jnp.uint32).astype(float).reshape(M, N, -1).sum(1)
    np.testing.assert_allclose(got.sum(axis=1), want)


def test_strict_promotion() -> None:
    x, y, b, _ = arguments(5, 700)
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        d = Vi(x).sqdist(Vj(y))
        for f in (
            lambda: d.logsumexp(axis=1),
            lambda: d.logsumexp(axis=1, weight=Vj(b)),
            lambda: d.sumsoftmaxweight(Vj(b), axis=1),
            lambda: d.Kmin(2, axis=1),
            lambda: d.argmin(axis=1),
            lambda: d[..., 0].exp() @ b,
            lambda: d.Kmin(2, axis=1, backend="dense"),
        ):
            jax.jit(f).lower()  # what JAX refuses, it refuses before it compiles
        jax.jit(jax.grad(lambda x: Vi(x).sqdist(Vj(y)).logsumexp(axis=1).sum())).lower(x)
        jax.jit(jax.grad(lambda x: Vi(x).sqdist(Vj(y)).Kmin(2, axis=1).sum())).lower(x)


def test_tangents_of_integers_are_float0() -> None:
    x, y, *_ = arguments()
    _, tangent = jax.jvp(lambda x: (Vi(x) < Vj(y)).sum(axis=1), (x,), (x,))
    assert tangent.dtype == jax.dtypes.float0


def test_a_product_with_feature_axes() -> None:
    r = np.random.default_rng(0)
    x, y, b = r.normal(size=(4, 1, 1)), r.normal(size=(5, 1, 1)), r.normal(size=5)
    with pytest.raises(ValueError, match=r"K has 2 features, expected a scalar formula"):
        (Vi(np.ones((4, 2, 1)), feature_ndim=2) * Vj(np.ones((5, 2, 1)), feature_ndim=2)) @ b
    np.testing.assert_allclose(((Vi(x[:, 0]) * Vj(y[:, 0])) @ b), (x[:, 0] @ y[:, 0].T) @ b)


def test_a_random_key_closed_over() -> None:
    key = jax.random.key(0)
    with pytest.raises(TypeError, match=r"lift\(.*\): the function closes over .*Draw random numbers before"):
        lift(lambda a, b: jnp.sum(a * b) + jax.random.normal(key))(Vi(np.ones((2, 1))), Vj(np.ones((2, 1))))


# A user's reduction with a mistake in it is refused before anything runs.


@dataclasses.dataclass(frozen=True)
class _Total(lazyjax.Reduction):
    mistake: str = ""

    def init(self, values: Any) -> Any:
        return 0.0 if self.mistake != "structure" else (0.0, 0.0)

    def lift(self, values: Any, index: Any) -> Any:
        return values[0].sum()

    def merge(self, a: Any, b: Any) -> Any:
        return {"dtype": (a + b).astype(jnp.int32), "constant": jnp.zeros(())}.get(self.mistake, a + b)

    def finalize(self, acc: Any, values: Any) -> Any:
        return (acc,)


def test_a_reduction_that_starts_from_a_plain_number() -> None:
    x, y, *_ = arguments()
    (out,) = (Vi(x) * Vj(y)).reduction(_Total(), axis=1)
    np.testing.assert_allclose(out, (x[:, None] * y[None]).sum((1, 2)))


def test_a_merge_that_returns_a_constant_runs() -> None:
    (out,) = (Vi(np.ones((2, 1))) * Vj(np.ones((5000, 1)))).reduction(_Total("constant"), axis=1)
    assert out.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    "mistake, message",
    [
        ("structure", r"_Total.lift gives an accumulator float64\[\], but init gives \('float64\[\]', 'float64\[\]'\)"),
        ("dtype", r"_Total.merge gives an accumulator int32\[\], but lift gives float64\[\]"),
    ],
)
def test_a_reduction_with_a_mistake(mistake: str, message: str) -> None:
    x, y, *_ = arguments()
    with pytest.raises(TypeError, match=message):
        (Vi(x) * Vj(y)).reduction(_Total(mistake), axis=1)


def test_a_reduction_that_cannot_be_hashed() -> None:
    class Mutable(_Total):
        __hash__ = None  # type: ignore[assignment]

    with pytest.raises(TypeError, match=r"Mutable is not hashable.*frozen=True"):
        Vi(np.ones((2, 1))).reduction(Mutable(), axis=0)


def test_a_reduction_that_lacks_a_method() -> None:
    class NoMerge(lazyjax.Reduction):
        def init(self, values: Any) -> Any:
            return 0.0

        def lift(self, values: Any, index: Any) -> Any:
            return values[0]

        def finalize(self, acc: Any, values: Any) -> Any:
            return (acc,)

    with pytest.raises(TypeError, match=r"NoMerge.*merge"):
        NoMerge()
