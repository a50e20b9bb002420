"""Formulas with many features: loops over features and matrix products give dense NumPy's numbers, in bounded code."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lazyjax import Pm, Sum, Vi, Vj, explain
from lazyjax.kernels import Description, planner, trace_pair
from lazyjax.kernels.xla import kernel as xla
from lazyjax.kernels.xla import plan as planning

from .kernels_of import run_on

M, N, D, E = 35, 41, 37, 34


def _arguments(seed: int = 0) -> tuple[jax.Array, ...]:
    r = np.random.default_rng(seed)
    return tuple(jnp.asarray(a) for a in (r.normal(size=(M, D)), r.normal(size=(N, D)), r.normal(size=(N, E))))


def _small(desc: Description, args: Sequence[jax.Array]) -> Sequence[jax.Array]:
    """The shape that the planner takes for many pairs, in small ragged tiles."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "LARGE", 0)
        patch.setattr(planning, "LEAST_ROWS", 1)
        patch.setattr(planning, "INSERTED_ROWS", 1)
        chosen = xla.plan(desc, "cpu")
    assert chosen.shape in ("long", "long products", "long selection")
    tiles = {"long": {"tile_j": 14}, "long products": {"tile_j": 16}, "long selection": {"tile_j": 32, "chunk": 32}}
    return xla.lower(desc, dataclasses.replace(chosen, tile_i=16, unroll=4, features=5, **tiles[chosen.shape]))(*args)


def _differences(x: Any, y: Any) -> Any:
    return x[:, None] - y[None]


def _laplacian(x: Any, y: Any) -> Any:
    return (-(Vi(x) - Vj(y)).abs().sum(-1) / D).exp()


WEIGHTS = np.random.default_rng(1).uniform(size=D)

# Values with derivatives: ours, and dense JAX.
SMOOTH: dict[str, tuple[Any, Any]] = {
    "Gaussian sum": (
        lambda x, y, v: (-Vi(x).sqdist(Vj(y)) / D).exp() @ v[:, :2],
        lambda x, y, v: jnp.exp(-(_differences(x, y) ** 2).sum(-1) / D) @ v[:, :2],
    ),
    "Laplacian sum with many columns": (
        lambda x, y, v: _laplacian(x, y) @ v,
        lambda x, y, v: jnp.exp(-jnp.abs(_differences(x, y)).sum(-1) / D) @ v,
    ),
    "attention": (
        lambda x, y, v: ((Vi(x) | Vj(y)) / 6.0).sumsoftmaxweight(Vj(v), axis=1),
        lambda x, y, v: jax.nn.softmax(x @ y.T / 6.0, axis=1) @ v,
    ),
    "product form": (
        lambda x, y, v: (-Vi(x).sqdist(Vj(y), form="product") / D).exp() @ v[:, :2],
        lambda x, y, v: jnp.exp(-(_differences(x, y) ** 2).sum(-1) / D) @ v[:, :2],
    ),
}

VALUES: dict[str, tuple[Any, Any]] = {
    "logsumexp of weighted distances over i": (
        lambda x, y, v: (-Vi(x).weightedsqdist(Vj(y), Pm(jnp.asarray(WEIGHTS)))).logsumexp(axis=0),
        lambda x, y, v: jax.nn.logsumexp(-(WEIGHTS * _differences(x, y) ** 2).sum(-1), axis=0)[:, None],
    ),
    "vectors over both axes": (
        lambda x, y, v: ((Vi(x) - Vj(y)).sin() * Vj(v)[..., 0]).sum(axis="ij"),
        lambda x, y, v: (jnp.sin(_differences(x, y)) * v[None, :, :1]).sum((0, 1)),
    ),
    "weights of vectors over both axes": (
        lambda x, y, v: (_laplacian(x, y) * Vj(v)).sum(axis="ij"),
        lambda x, y, v: (jnp.exp(-jnp.abs(_differences(x, y)).sum(-1) / D) @ v).sum(0),
    ),
    "softmax over both axes": (
        lambda x, y, v: ((Vi(x) | Vj(y)) / 6.0).sumsoftmaxweight(Vj(v), axis="ij"),
        lambda x, y, v: (jax.nn.softmax((x @ y.T / 6.0).ravel()).reshape(M, N) @ v).sum(0),
    ),
    "derivative with respect to a parameter": (
        lambda x, y, v: jax.grad(lambda p: ((Vi(x) * Pm(p)) | Vj(y)).exp().sum(axis="ij").sum())(y[0] / 9),
        lambda x, y, v: jax.grad(lambda p: jnp.exp((x * p) @ y.T).sum())(y[0] / 9),
    ),
    "a number times a sum": (
        lambda x, y, v: (_laplacian(x, y) * ((Vi(x) | Vj(y)) * Vj(v) + Vj(v).sin())).sum(axis=1),
        lambda x, y, v: (
            jnp.einsum("ij,ij,jk->ik", jnp.exp(-jnp.abs(_differences(x, y)).sum(-1) / D), x @ y.T, v)
            + jnp.exp(-jnp.abs(_differences(x, y)).sum(-1) / D) @ jnp.sin(v)
        ),
    ),
    "argmin": (
        lambda x, y, v: Vi(x).sqdist(Vj(y)).argmin(axis=1),
        lambda x, y, v: (_differences(x, y) ** 2).sum(-1).argmin(1)[:, None].astype(jnp.int32),
    ),
    "argKmin": (
        lambda x, y, v: Vi(x).sqdist(Vj(y)).argKmin(5, axis=1),
        lambda x, y, v: jnp.argsort((_differences(x, y) ** 2).sum(-1), 1)[:, :5].astype(jnp.int32),
    ),
    "cosine similarity": (
        lambda x, y, v: (Vi(x).normalize() | Vj(y).normalize()).max(axis=1),
        lambda x, y, v: (x @ y.T / jnp.linalg.norm(x, axis=1)[:, None] / jnp.linalg.norm(y, axis=1)).max(1)[:, None],
    ),
    "softmax over features": (
        lambda x, y, v: ((Vi(x) * Vj(y)).softmax(-1) * Vj(y)).sum(axis=1),
        lambda x, y, v: (jax.nn.softmax(x[:, None] * y[None], axis=-1) * y).sum(1),
    ),
    "largest difference, and one feature": (
        lambda x, y, v: ((Vi(x) - Vj(y)).abs().max(-1) * Vi(x)[..., 3]).std(axis=1),
        lambda x, y, v: (jnp.abs(_differences(x, y)).max(-1) * x[:, 3:4]).std(1)[:, None],
    ),
}


def _programs(which: int) -> Any:
    def run(*args: Any) -> Any:
        outs: dict[str, Any] = {name: f[which](*args) for name, f in VALUES.items()}
        for name, f in SMOOTH.items():
            loss = lambda *a, g=f[which]: jnp.sum(jnp.sin(g(*a)))  # noqa: E731
            outs[name] = f[which](*args), jax.grad(loss, (0, 1, 2))(*args)
        return outs

    return run


def test_values_and_gradients() -> None:
    args = _arguments()
    got = jax.jit(lambda *a: run_on(_programs(0), _small, *a))(*args)
    want = jax.jit(_programs(1))(*args)
    for name in want:
        for a, b in zip(jax.tree.leaves(got[name]), jax.tree.leaves(want[name]), strict=True):
            assert a.shape == b.shape and a.dtype == b.dtype, name
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10 * float(jnp.max(jnp.abs(b))), err_msg=name)


def _clouds(m: int, n: int, d: int, far: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    r = np.random.default_rng(3)
    return tuple((far + r.normal(size=(k, d))).astype("f4") for k in (m, n))  # type: ignore[return-value]


def _squares(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    x, y = x.astype("f8"), y.astype("f8")
    return (x * x).sum(1)[:, None] + (y * y).sum(1) - 2 * x @ y.T


def test_as_planned_in_float32() -> None:
    """Two tiles of i, chunks of j of two lengths."""
    x, y = _clouds(1100, 331, 64)
    d = _squares(x, y)
    K = (-Vi(x).sqdist(Vj(y)) / 64).exp()
    (plan,) = explain(lambda: K.sum(axis=1))
    assert plan.plan.tiles.shape == "long" and "features are long" in str(plan)
    np.testing.assert_allclose(K.sum(axis=1)[:, 0], np.exp(-d / 64).sum(1), rtol=2e-6)


@pytest.mark.parametrize("m, n, inserted", [(1100, 331, 16), (100, 700, 0)])
def test_the_smallest_as_planned_in_float32(m: int, n: int, inserted: int) -> None:
    """Sorted lists where lanes are many, group minima where they are few: a tail of j, ties, and groups of NaN."""
    x, y = _clouds(m, n, 64)
    y[200:230] = y[100:130]
    y[:64] = np.nan
    d = np.where(np.arange(n) < 64, np.inf, _squares(x, y))
    (plan,) = explain(lambda: Vi(x).sqdist(Vj(y)).Kmin_argKmin(6, axis=1))
    assert (plan.plan.tiles.shape, plan.plan.tiles.inserted) == ("long selection", inserted)
    nearest = jax.jit(lambda x, y: Vi(x).sqdist(Vj(y)).Kmin_argKmin(6, axis=1))
    best, at = nearest(x, y)
    np.testing.assert_allclose(best, np.sort(d, 1)[:, :6], rtol=2e-6)
    assert np.mean(np.asarray(at) == np.argsort(d, 1, kind="stable")[:, :6]) > 0.99  # rounding may exchange neighbours
    for row in np.asarray(at):  # of equals the lowest index comes first
        place = {int(j): k for k, j in enumerate(row)}
        assert all(place.get(j - 100, 99) < k for j, k in place.items() if 200 <= j < 230)
    y[(np.arange(n) >= 64) & (np.arange(n) != 300)] = np.inf  # as good as what is taken for the minimum of NaN
    assert np.unique(nearest(x, y)[1], axis=0).tolist() == [[300, 64, 65, 66, 67, 68]]


@pytest.mark.parametrize("dtype, tolerance", [(jnp.float32, 1e-6), (jnp.bfloat16, 1e-2)])
def test_scores_of_attention_that_are_infinite_or_nan(dtype: Any, tolerance: float) -> None:
    """A chunk in which every score is -inf, and a row of NaN, which spoils no other."""
    x, y, v = (a.astype(dtype) for a in _arguments())
    masked, row = jnp.where(jnp.arange(N) < 20, -jnp.inf, 0.0), jnp.where(jnp.arange(M) == 3, jnp.nan, 0.0)
    biases = masked[:, None].astype(dtype), row[:, None].astype(dtype)
    scores = lambda x, y, b, c: (Vi(x) | Vj(y)) / 6.0 + Vj(b) + Vi(c)  # noqa: E731
    got = run_on(lambda x, y, v, b, c: scores(x, y, b, c).sumsoftmaxweight(Vj(v), axis=1), _small, x, y, v, *biases)
    wide = [np.asarray(a, np.float64) for a in (x, y, v)]
    want = jax.nn.softmax(wide[0] @ wide[1].T / 6.0 + masked + row[:, None], axis=1) @ wide[2]
    assert np.isnan(want[3]).all() and np.isfinite(np.delete(want, 3, 0)).all()
    np.testing.assert_allclose(got.astype(jnp.float64), want, rtol=tolerance, atol=tolerance)


def test_what_is_used_twice_is_looked_at_once() -> None:
    """Planning takes no longer for a polynomial of degree 2^26, of which each step reads the last twice."""
    x, y = _clouds(300, 700, 40)

    def power(x: Any, y: Any) -> Any:
        t = Vi(x) * Vj(y)
        for _ in range(26):
            t = t * (1 - t)
        return t.sum(axis=1)

    (found,) = explain(power, x, y)
    assert found.plan.tiles.shape == "long"


def test_vectors_that_are_exponentiated() -> None:
    """One score for each long feature has no loop over features: another shape takes it."""
    x, y = _clouds(300, 700, 40)
    scores = lambda x, y: (Vi(x) - Vj(y)).logsumexp(axis=1)  # noqa: E731
    (found,) = explain(scores, x, y)
    assert found.plan.tiles.shape == "lanes"
    assert jax.jit(scores).lower(x, y).out_info.shape == (300, 40)
    got = scores(x[:20], y[:40])
    d = x[:20, None].astype("f8") - y[:40]
    np.testing.assert_allclose(got, np.log(np.exp(d).sum(1)), rtol=2e-6, atol=2e-6)


def test_a_result_that_is_a_number() -> None:
    """Beside a long result; every pair adds it."""
    m, n = 300, 700
    x, y = _clouds(m, n, 40)
    one = jax.ShapeDtypeStruct((40,), np.float32)
    pair = trace_pair(lambda a, b: (jnp.dot(a, b) * b, jnp.float32(2.0)), [one, one])
    desc = Description(pair, ("i", "j"), Sum(), m, n)
    found = planner.plan(desc, "cpu")
    assert found.tiles.shape == "long products"
    long, short = jax.jit(found.lower(desc))(x, y)
    np.testing.assert_array_equal(short.ravel(), np.full(m, 2.0 * n))
    want = (x.astype("f8") @ y.T) @ y
    np.testing.assert_allclose(long, want, rtol=1e-5, atol=1e-5 * np.abs(want).max())


def test_product_form_is_as_accurate_as_it_says() -> None:
    """Errors of the order of eps (|a|^2 + |b|^2), a and b being centered: a cloud far from the origin loses nothing."""
    eps = float(np.finfo(np.float32).eps)
    for far in (0.0, 1000.0):
        x, y = _clouds(70, 80, 64, far)
        y[:10] = x[:10]
        center = 0.5 * (x.astype("f8").mean(0) + y.astype("f8").mean(0))
        scale = ((x - center) ** 2).sum(1)[:, None] + ((y - center) ** 2).sum(1)
        want = ((x[:, None].astype("f8") - y) ** 2).sum(-1)
        got = np.asarray(Vi(x).sqdist(Vj(y), form="product").dense())
        # 64 products and sums, and the rounding of x - center, which is eps |x| for each feature.
        assert np.all(np.abs(got - want) <= 8 * eps * scale + 4 * eps * far * 8 * np.sqrt(scale))
        assert got.min() >= 0
        direct = np.asarray(Vi(x).sqdist(Vj(y)).dense())
        assert np.all(np.diag(direct)[:10] == 0)


def test_product_form_under_transformations() -> None:
    r = np.random.default_rng(0)
    x, y, s = (jnp.asarray(r.normal(size=k)) for k in ((2, 5, 4), (2, 6, 4), (4,)))

    def ours(x: Any, y: Any) -> Any:
        return (-(Vi(x) * Pm(s)).sqdist(Vj(y) * Pm(s), form="product")).exp().sum(axis=1).sum()

    def dense(x: Any, y: Any) -> Any:
        return jnp.exp(-((s * (x[..., :, None, :] - y[..., None, :, :])) ** 2).sum(-1)).sum()

    def programs(f: Any) -> Any:
        # A batch, mapped and as it is; and the curvature, at distance 0 as well.
        return lambda x, y: (jax.vmap(f)(x, y), f(x, y), jax.hessian(lambda x: f(x, x))(x[0]))

    for got, want in zip(jax.jit(programs(ours))(x, y), jax.jit(programs(dense))(x, y), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-11)


def test_a_row_of_nan_spoils_no_other_in_product_form() -> None:
    x, y = (np.asarray(a[:, :4]).copy() for a in _arguments()[:2])
    y[3], y[5] = np.nan, np.inf
    got = np.asarray(Vi(x).sqdist(Vj(y), form="product").dense())
    good = np.setdiff1d(np.arange(N), [3, 5])
    np.testing.assert_allclose(got[:, good], _squares(x, y[good]), rtol=1e-9)


def test_what_product_form_refuses() -> None:
    x, y, _ = _arguments()
    with pytest.raises(ValueError, match="form='fast', expected 'direct' or 'product'"):
        Vi(x).sqdist(Vj(y), form="fast")
    with pytest.raises(ValueError, match="one operand of i and one of j, got operands of i and i"):
        Vi(x).sqdist(Vi(x), form="product")
    with pytest.raises(ValueError, match="symbolic variables do not have yet"):
        Vi(0, 3).sqdist(Vj(1, 3), form="product")
    with pytest.raises(TypeError, match="takes real features, got complex128"):
        Vi(1j * x).sqdist(Vj(y), form="product")


def _compiled(d: int) -> Any:
    f = jax.grad(lambda x, y, v: jnp.sum((-Vi(x).sqdist(Vj(y))).exp() @ v), (0, 1))
    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((4096, d), (4096, d), (4096, d))]
    return jax.jit(f).lower(*shapes).compile()


def test_code_and_memory_do_not_grow_with_features_and_pairs() -> None:
    few, many = _compiled(64), _compiled(640)
    assert len(many.as_text()) < 1.1 * len(few.as_text())
    # Padded and transposed copies of x, y, v and the results, of 4096 rows and 640 features each, and a few tiles.
    assert many.memory_analysis().temp_size_in_bytes < 10 * 4096 * 640 * 4 < 4096 * 4096 * 4 * 2
