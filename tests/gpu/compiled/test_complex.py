"""Complex formulas, compiled for a chip and emulated: dense numbers on ragged sizes, nothing spilled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lazyjax import LazyTensor, Pm, Vi, Vj

from ...full import FULL
from ..chips import A100, CHIPS, H100, Chip
from ..emulating import emulate
from .test_cases import TOLERANCE, check

M, N, D = 50, 70, 2


def _arguments(dtype: str) -> list[jax.Array]:
    """z (M, D), w (N, D) and b (N, 1), complex; t (M, 1), real."""
    r = np.random.default_rng(0)
    sizes = [(M, D), (N, D), (N, 1)]
    z = [r.normal(size=s) + 1j * r.normal(size=s) for s in sizes]
    return [
        *(jnp.asarray(a.astype(dtype)) for a in z),
        jnp.asarray(r.normal(size=(M, 1)), jnp.dtype(dtype).type(0).real.dtype),
    ]


def _gradient(f: Callable[..., Any]) -> Callable[..., Any]:
    return jax.grad(lambda *a: jnp.sum(jnp.abs(f(*a)) ** 2), (0, 1, 2, 3))


def _batch(f: Callable[..., Any]) -> Callable[..., Any]:
    return lambda z, w, b, t: jax.vmap(f, (0, None, None, None))(jnp.stack([z, 1j * z, z - 1])[:, :20], w, b, t[:20])


def _scores(z: Any, w: Any, b: Any, t: Any) -> Any:
    """An exponential of an inner product with a real factor, times complex numbers."""
    return ((Vi(z) | Vj(w).conj()) * Vi(t) * Pm(0.2 - 0.5j)).exp() @ b


def _scores_dense(z: Any, w: Any, b: Any, t: Any) -> Any:
    return jnp.exp((z @ w.conj().T) * t * (0.2 - 0.5j)) @ b


def _functions(z: Any, w: Any, b: Any, t: Any) -> Any:
    d = Vi(z[:, :1]) - Vj(w[:, :1])
    values = d.sqrt(), d.log(), 1 / d, d.tan(), d**1.5, d.asin()
    return LazyTensor.cat([d.abs(), d.angle(), *(p for f in values for p in (f.real, f.imag))]).max(axis=1)


def _functions_dense(z: Any, w: Any, b: Any, t: Any) -> Any:
    d = np.asarray(z[:, :1]) - np.asarray(w[:, 0])
    fs = [np.sqrt(d), np.log(d), 1 / d, np.tan(d), np.exp(1.5 * np.log(d)), np.arcsin(d)]
    return np.stack([x.max(1) for x in [np.abs(d), np.angle(d), *(p for f in fs for p in (f.real, f.imag))]], 1)


FORMULAS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "sum": (_scores, _scores_dense),
    "gradient": (_gradient(_scores), _gradient(_scores_dense)),
    "batch": (_batch(_scores), _batch(_scores_dense)),
    "functions": (_functions, _functions_dense),
}
SAMPLE = [("sum", "complex64", A100), ("gradient", "complex64", H100), ("batch", "complex128", H100),
          ("functions", "complex64", H100), ("functions", "complex128", A100)]  # fmt: skip
EVERY = [(f, d, c) for f in FORMULAS for d in ("complex64", "complex128") for c in CHIPS]


@pytest.mark.parametrize(("name", "dtype", "chip"), EVERY if FULL else SAMPLE, ids=lambda v: getattr(v, "name", v))
def test_formula(name: str, dtype: str, chip: Chip) -> None:
    ours, dense = FORMULAS[name]
    args = _arguments(dtype)
    got, launches = emulate(chip, ours, *args)
    wide = [a.astype(jnp.promote_types(a.dtype, jnp.float64)) for a in args]
    tolerance = TOLERANCE["float32" if dtype == "complex64" else "float64"]
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(dense(*wide)), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert a.shape == b.shape and np.iscomplexobj(a) == np.iscomplexobj(b)
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.max(np.abs(b)))
    check(chip, launches)


def test_numbers_of_every_size() -> None:
    """Up to the largest of float32, though reciprocals and roots are approximate and flush small numbers to 0."""
    r = np.random.default_rng(0)
    size = lambda: np.exp(r.uniform(-87, 88, 60))  # noqa: E731
    z = np.concatenate([size() * np.exp(1j * r.uniform(-np.pi, np.pi, 60)), size() - 1j * size()])[:, None]
    z = z.astype("complex64")

    def ours(z: Any) -> Any:
        d = Vi(z) + Vj(np.zeros((1, 1), "complex64"))
        values = 1 / d, d / d.conj(), d.log(), d.sqrt(), d.sign(), d.rsqrt(), d.asin(), d.atanh()
        return LazyTensor.cat([d.abs(), *(p for f in values for p in (f.real, f.imag))]).sum(axis=1)

    got, launches = emulate(H100, ours, jnp.asarray(z))
    w = z.astype(np.complex128)
    values = [1 / w, w / w.conj(), np.log(w), np.sqrt(w), w / np.abs(w), 1 / np.sqrt(w), np.arcsin(w), np.arctanh(w)]
    np.testing.assert_allclose(got[:, :1], np.abs(w), rtol=5e-7)
    for k, want in enumerate(values):
        own = np.asarray(got[:, 2 * k + 1 : 2 * k + 2]) + 1j * np.asarray(got[:, 2 * k + 2 : 2 * k + 3])
        assert np.all(np.abs(own - want) <= 5e-7 * np.maximum(np.abs(want), 1e-37)), k
    check(H100, launches)
