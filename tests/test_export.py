"""jax.export: for the CPU, for CPU and CUDA at once, and with symbolic sizes on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from lazyjax import GPU_EXPORT_CHECKS, Vi, Vj

from .cases import CASES, Case, arguments
from .gpu.lowering import abstract_gpu


def _gradient(f: Callable[..., Any]) -> Callable[..., Any]:
    return jax.grad(lambda *a: jnp.sum(jnp.sin(f(*a))), (0, 1, 2))


def test_serialized() -> None:
    case = next(c for c in CASES if c.name == "K @ b")
    args = arguments()
    exported = export.export(jax.jit(case.ours))(*args)
    again = export.deserialize(exported.serialize())
    np.testing.assert_allclose(again.call(*args), case.dense(*args), rtol=1e-10)


def test_serialized_with_its_gradient() -> None:
    case = next(c for c in CASES if c.name == "K @ b")
    args = arguments()
    again = export.deserialize(export.export(jax.jit(case.ours))(*args).serialize(vjp_order=1))
    got = jax.grad(lambda *a: jnp.sum(jnp.sin(again.call(*a))), (0, 1, 2))(*args)
    for a, b in zip(got, _gradient(case.dense)(*args), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_cpu_and_cuda_in_one_module() -> None:
    """Lowering is chosen for each platform of a module, not while tracing."""
    case = next(c for c in CASES if c.name == "K @ b")
    exact = arguments()
    args = tuple(a.astype(jnp.float32) for a in exact)
    platforms = ("cpu", "cuda")
    with abstract_gpu():
        exported = export.export(jax.jit(case.ours), platforms=platforms, disabled_checks=GPU_EXPORT_CHECKS)(*args)
    assert exported.platforms == ("cpu", "cuda")
    assert "gpu.triton" in exported.mlir_module()
    np.testing.assert_allclose(exported.call(*args), case.dense(*exact), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["K @ b", "argmin", "sum over both", "Kmin", "logsumexp"])
def test_symbolic_sizes(name: str) -> None:
    case: Case = next(c for c in CASES if c.name == name)
    m, n = export.symbolic_shape("m, n")
    shapes = [(m, 2), (n, 2), (n, 3), ()]
    exported = export.export(jax.jit(case.ours))(*(jax.ShapeDtypeStruct(s, jnp.float64) for s in shapes))
    for sizes in ((5, 7), (1, 4), (300, 41)):
        args = arguments(*sizes)
        np.testing.assert_allclose(exported.call(*args), case.dense(*args), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["K @ b", "min"])
def test_symbolic_sizes_of_a_gradient(name: str) -> None:
    case = next(c for c in CASES if c.name == name)
    m, n = export.symbolic_shape("m, n")
    shapes = [(m, 2), (n, 2), (n, 3), ()]
    exported = export.export(jax.jit(_gradient(case.ours)))(*(jax.ShapeDtypeStruct(s, jnp.float64) for s in shapes))
    args = arguments(20, 33)
    for a, b in zip(exported.call(*args), _gradient(case.dense)(*args), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_symbolic_sizes_are_refused_by_the_gpu_kernel() -> None:
    n = export.symbolic_shape("n")[0]
    spec = jax.ShapeDtypeStruct((n, 2), jnp.float32)
    f = lambda x: Vi(x).sqdist(Vj(x)).sum(axis=1, backend="pallas-triton")  # noqa: E731
    with pytest.raises(ValueError, match=r"backend='pallas-triton' cannot run this reduction on cpu: .*symbolic"):
        export.export(jax.jit(f))(spec)
