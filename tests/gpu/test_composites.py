"""Functions that Triton lacks: against the C library and SciPy in float64, and in a formula on the GPU kernel."""

from __future__ import annotations

import math
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from scipy import special

from lazyjax import Vi, Vj
from lazyjax.kernels.triton.arithmetic import composites

from ..kernels_of import on_pallas, run_on
from ..unoptimised import UNOPTIMISED
from .lowering import kernel_calls, lowered_for


def _exact(name: str) -> Any:
    return lambda x: jnp.asarray(getattr(np, name)(np.asarray(x, np.float64)), x.dtype)


@pytest.fixture
def libdevice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elementary functions within 1 unit in the last place, as those of libdevice; XLA's on the CPU err by up to 65."""
    own = {name: _exact(name) for name in ("exp", "log", "sin", "tan")}
    monkeypatch.setattr(composites, "lax", types.SimpleNamespace(**{**vars(lax), **own}))


def _digamma(x: np.ndarray) -> np.ndarray:
    """psi(x) = psi(x + 40) - sum_k 1 / (x + k) in extended precision: SciPy's own loses digits below 0."""
    x = x.astype(np.longdouble)
    y = x + 40
    series = sum(b / y ** (2 * k) for k, b in enumerate((1 / 12, -1 / 120, 1 / 252, -1 / 240, 1 / 132), 1))
    out = np.log(y) - 0.5 / y - series - sum(1 / (x + k) for k in range(40))
    positive = x > 0
    np.testing.assert_allclose(out[positive].astype("f8"), special.digamma(x[positive].astype("f8")), 1e-13, 1e-14)
    return out.astype("f8")


# Those of the C library for erf and erfc: SciPy's erfc (Cephes) errs by up to 250 units in the last place.
# Function: reference, intervals, the least size of a result whose last place counts.
RANGES = {
    "erf": (np.vectorize(math.erf), [(-8, 8), (-1e-5, 1e-5)], 0.0),
    "erfc": (np.vectorize(math.erfc), [(-8, 8), (0.5, 1.5)], 0.0),
    "lgamma": (special.gammaln, [(1e-3, 12), (8, 1e6), (-3, 0)], 1.0),
    "digamma": (_digamma, [(1e-3, 12)], 1.0),
    "digamma below 0": (_digamma, [(-6, 0)], 4.0),  # the difference of two numbers of about this size
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", RANGES)
def test_error_in_the_last_place(name: str, dtype: Any, libdevice: None) -> None:
    reference, intervals, least = RANGES[name]
    r = np.random.default_rng(0)
    x = np.concatenate([r.uniform(*i, 20_000) for i in intervals]).astype(dtype)
    got, want = (
        np.asarray(getattr(composites, name.partition(" ")[0])(jnp.asarray(x)), np.float64),
        reference(x.astype(np.float64)),
    )
    place = np.spacing(np.maximum(np.abs(want), least).astype(dtype)).astype(np.float64)
    assert np.max(np.abs(got - want) / place) <= 4


@pytest.mark.parametrize("method", list(lax.RoundingMethod))
def test_round(method: Any) -> None:
    r = np.random.default_rng(0)
    x = np.concatenate([r.uniform(-9, 9, 1000), np.arange(-5, 5) + 0.5, [0.49999997, 1e9, -1e9, np.inf, -np.inf]])
    for dtype in (np.float32, np.float64):
        own = jnp.asarray(x, dtype)
        np.testing.assert_array_equal(composites.round_(own, rounding_method=method), lax.round(own, method))


def test_special_values() -> None:
    x = jnp.asarray([0.0, -1.0, np.inf, -np.inf, np.nan])
    np.testing.assert_array_equal(composites.erf(x)[jnp.asarray([0, 2, 3, 4])], [0, 1, -1, np.nan])
    np.testing.assert_array_equal(composites.erfc(x)[jnp.asarray([0, 2, 3, 4])], [1, 0, 2, np.nan])
    np.testing.assert_array_equal(composites.lgamma(x), [np.inf, np.inf, np.inf, np.inf, np.nan])
    np.testing.assert_array_equal(composites.digamma(x)[jnp.asarray([1, 2, 4])], [np.nan, np.inf, np.nan])


def test_in_a_formula() -> None:
    def ours(x: jax.Array, y: jax.Array) -> jax.Array:
        z = 1 + Vi(x).sqdist(Vj(y))
        return (z.erf() + z.erfc() + z.lgamma() + z.digamma() + z.round(1) + (z // 2) + z.prod(-1)).sum(axis=1)

    r = np.random.default_rng(0)
    x, y = r.normal(size=(20, 3)), r.normal(size=(30, 3))
    z = 1 + ((x[:, None] - y) ** 2).sum(-1)
    tenths = np.floor(z * 10 + 0.5) / 10
    want = 1 + special.gammaln(z) + special.digamma(z) + tenths + z // 2 + z
    run = on_pallas(block_i=16, block_j=64)
    got = jax.jit(lambda x, y: run_on(ours, run, x, y), compiler_options=UNOPTIMISED)(x, y)
    np.testing.assert_allclose(got[:, 0], want.sum(1), rtol=1e-12)
    for platform in ("cuda", "rocm"):
        assert kernel_calls(lowered_for(platform, ours, jnp.asarray(x, "f4"), jnp.asarray(y, "f4"))) == 1
