"""exp, sin, cos and tan of the CPU's loops, against NumPy in float64, and decimals."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lazyjax import LazyTensor, Vj
from lazyjax.kernels.xla import elementary
from lazyjax.kernels.xla.plan import XlaPlan

from .kernels_of import on_xla, run_on

EPS = 2.0**-24  # half a unit in the last place of 1


def _angles() -> np.ndarray:
    r = np.random.default_rng(0)
    sign = r.choice([-1.0, 1.0], 60_000)
    sizes = [10.0 ** r.uniform(-30, 4.5, 20_000), r.uniform(0, 40_000, 20_000), 10.0 ** r.uniform(4, 38.5, 20_000)]
    multiples = np.arange(1, 20_000) * (np.pi / 2)  # where a sine or a cosine all but vanishes
    return np.concatenate([sign * np.concatenate(sizes), multiples, -multiples, [0.0, 2.0**15, 3.4e38]]).astype("f4")


@pytest.mark.parametrize("name", ["sin", "cos"])
def test_sin_cos(name: str) -> None:
    x = _angles()
    got = np.asarray(jax.jit(getattr(elementary, name))(x), np.float64)
    want = getattr(np, name)(x.astype(np.float64))
    assert np.max(np.abs(got - want)) <= 3 * EPS
    near = np.abs(x) < 100  # where small values are right to their own last places too
    assert np.max(np.abs(got - want)[near] / np.maximum(np.abs(want[near]), 1e-30)) <= 8 * EPS


def test_tan() -> None:
    x = _angles()
    x = x[np.abs(x) < elementary.FAR]
    got, want = np.asarray(jax.jit(elementary.tan)(x), np.float64), np.tan(x.astype(np.float64))
    # The reduced angle is right to 4e-12, a rounding of k pi / 2 less its first three parts.
    assert np.all(np.abs(got - want) <= 8 * EPS * np.abs(want) + 4e-12 * (1 + want**2))


def test_exp() -> None:
    r = np.random.default_rng(0)
    x = np.concatenate([r.uniform(-86.9, 88.72, 200_000), r.normal(size=50_000), [0.0, 88.722]]).astype("f4")
    got, want = np.asarray(jax.jit(elementary.exp)(x), np.float64), np.exp(x.astype(np.float64))
    assert np.max(np.abs(got - want) / want) <= 2 * EPS
    edges = jnp.asarray([-np.inf, -200.0, -87.5, 88.8, np.inf, np.nan], jnp.float32)
    np.testing.assert_array_equal(jax.jit(elementary.exp)(edges), [0, 0, 0, np.inf, np.inf, np.nan])
    low = jnp.asarray([-87.3, -87.0], jnp.float32)
    np.testing.assert_allclose(jax.jit(elementary.exp)(low), np.exp(np.asarray(low, np.float64)), atol=1.7e-38)


def test_exp_of_float64() -> None:
    r = np.random.default_rng(0)
    x = np.concatenate([r.uniform(-708, 709.78, 1000), r.normal(size=1000), [0.0, 1e-300, 709.782]])
    got = np.asarray(jax.jit(elementary.exp)(x))
    error = [float(Decimal(float(g)) / Decimal(float(v)).exp() - 1) for g, v in zip(got, x, strict=True)]  # 28 digits
    assert np.max(np.abs(error)) <= 2.0**-52  # within 1 unit in the last place of 1
    edges = jnp.asarray([-np.inf, -800.0, -708.4, 709.8, np.inf, np.nan])
    np.testing.assert_array_equal(jax.jit(elementary.exp)(edges), [0, 0, 0, np.inf, np.inf, np.nan])


def test_complex_exp() -> None:
    r = np.random.default_rng(0)
    z = (r.normal(size=10_000) + 1j * r.uniform(-1e6, 1e6, 10_000)).astype(np.complex64)
    got, want = np.asarray(jax.jit(elementary.complex_exp)(z)), np.exp(z.astype(np.complex128))
    assert np.max(np.abs(got - want) / np.abs(want)) <= 6 * EPS


@pytest.mark.parametrize("function", ["sin", "cos", "tan"])
def test_infinite_angles(function: str) -> None:
    bad = jnp.asarray([np.inf, -np.inf, np.nan], jnp.float32)
    assert np.all(np.isnan(jax.jit(getattr(elementary, function))(bad)))


@pytest.mark.parametrize("scale", [1.0, 2.0**10, 2.0**20])  # products are exact
def test_a_loop_looks_at_its_angles(scale: float) -> None:
    """Chunks of small angles take the short way, others the long one: scale 1024 has both."""
    r = np.random.default_rng(0)
    x, y = (np.round(r.uniform(-64, 64, (n, 1))).astype("f4") * np.float32(s) for n, s in ((21, 1.0), (37, scale)))
    plan = XlaPlan("lanes", tile_i=16, unroll=4, elementary=True, angles=True)

    def ours(x: Any, y: Any) -> Any:
        return (LazyTensor(x[:, None]) * Vj(y)).cos().sum(axis=1)

    want = np.cos(x.astype(np.float64) * y.astype(np.float64).T).sum(1, keepdims=True)
    got = jax.jit(lambda x, y: run_on(ours, on_xla(plan), x, y))(x, y)
    np.testing.assert_allclose(got, want, atol=37 * 4 * EPS)
