"""Sizes from which the planner takes the longer programs of the CPU, in float32, against NumPy in float64."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from lazyjax import Vi, Vj, explain

M, N = 4200, 1100  # more than one tile of group minima; neither a multiple of any chunk


def _clouds() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    r = np.random.default_rng(0)
    x, y, b = (r.normal(size=s).astype("f4") for s in ((M, 3), (N, 3), (N, 4)))
    wide = (x[:, None].astype("f8") - y[None].astype("f8")) ** 2
    return x, y, b, wide.sum(-1)


def _close(got: Any, want: Any, tolerance: float = 1e-5) -> None:
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * np.max(np.abs(want)))


def _kernel(x: Any, y: Any) -> Any:
    return (-Vi(x).sqdist(Vj(y))).exp()


def test_sums_of_shared_weights() -> None:
    x, y, b, d = _clouds()
    k = np.exp(-d)
    _close(_kernel(x, y) @ b, k @ b)
    ct = np.cos(k @ b)
    gradients = jax.jit(jax.grad(lambda *a: jnp.sum(jnp.sin(_kernel(*a[:2]) @ a[2])), (0, 1, 2)))(x, y, b)
    weights = k * (ct @ b.T.astype("f8"))
    x8, y8 = x.astype("f8"), y.astype("f8")
    _close(gradients[0], -2 * (weights.sum(1)[:, None] * x8 - weights @ y8))
    _close(gradients[1], -2 * (weights.sum(0)[:, None] * y8 - weights.T @ x8))
    _close(gradients[2], k.T @ ct)


def test_sums_of_exponentials() -> None:
    x, y, b, d = _clouds()
    _close((-Vi(x).sqdist(Vj(y))).logsumexp(axis=1)[:, 0], np.log(np.exp(-d).sum(1)))
    softmax = np.exp(-d) / np.exp(-d).sum(1, keepdims=True)
    _close((-Vi(x).sqdist(Vj(y))).sumsoftmaxweight(Vj(b), axis=1), softmax @ b)
    kahan = (-Vi(x).sqdist(Vj(y))).logsumexp(axis=1, sum_scheme="kahan_scheme")
    _close(kahan[:, 0], np.log(np.exp(-d).sum(1)))
    shifted = (1000 - Vi(x).sqdist(Vj(y))).logsumexp(axis=0)
    _close(shifted[:, 0], 1000 + np.log(np.exp(-d).sum(0)), 1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_selections(seed: int) -> None:
    """Integers have ties: values and indices must be NumPy's, in a stable order."""
    r = np.random.default_rng(seed)
    n, k = int(r.integers(1100, 3000)), int(r.integers(2, 4))
    x, y = r.integers(-40, 40, (M, 1)).astype("f4"), r.integers(-40, 40, (n, 1)).astype("f4")
    y[r.integers(0, n, 200)] = np.nan
    y[r.integers(0, n, 200)] = np.inf
    values = np.abs(x - y.T)
    order = np.argsort(np.where(np.isnan(values), np.inf, values) + 0.0, axis=1, kind="stable")
    formula = (Vi(x) - Vj(y)).abs()
    (explained,) = explain(lambda: formula.argmin(axis=1))
    assert explained.plan.tiles.shape == "groups"
    np.testing.assert_array_equal(formula.argmin(axis=1), order[:, :1])
    best, at = formula.Kmin_argKmin(k, axis=1)
    np.testing.assert_array_equal(at, order[:, :k])
    np.testing.assert_array_equal(best, np.take_along_axis(values, order[:, :k], 1))
    largest = (-formula).argmax(axis=1)
    np.testing.assert_array_equal(largest, order[:, :1])


def test_an_oscillating_sum() -> None:
    x, y, b, _ = _clouds()
    got = (Vj(b[:, :1]) * (100j * (Vi(x) | Vj(y))).exp()).sum(axis=1)[:, 0]
    angles = 100.0 * (x[:, None] * y[None]).sum(-1)  # in float32, whose rounding of the angles is not the sum's
    _close(got, np.exp(1j * angles.astype("f8")) @ b[:, 0], 2e-3)
    whole = np.round(4 * x[:, :1]), np.round(4 * y[:, :1])  # integer angles are exact
    got = (Vi(whole[0]) * Vj(whole[1])).sin().sum(axis=1)[:, 0]
    _close(got, np.sin(whole[0].astype("f8") * whole[1].astype("f8").T).sum(1))


def test_on_two_devices() -> None:
    x, y, b, d = _clouds()
    mesh = jax.make_mesh((2,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))

    def f(x: Any, y: Any, b: Any) -> Any:
        return _kernel(x, y) @ b, Vi(x).sqdist(Vj(y)).argmin(axis=1), (-Vi(x).sqdist(Vj(y))).logsumexp(axis=1)

    sharded = jax.jit(jax.shard_map(f, mesh=mesh, in_specs=(P("i"), P(), P()), out_specs=P("i")))
    product, nearest, total = sharded(x, y, b)
    _close(product, np.exp(-d) @ b)
    assert np.mean(nearest[:, 0] == d.argmin(1)) > 0.999  # rounding may exchange two that are as near
    _close(total[:, 0], np.log(np.exp(-d).sum(1)))
