"""On a machine without a GPU: every reduction and its gradient lowers to Triton kernels for CUDA and ROCm.

Nothing here runs on a GPU; the kernels' values are checked by `tests/test_kernels.py`, interpreted on the CPU.
"""

from __future__ import annotations

import warnings

import jax
import jax.numpy as jnp
import pytest

from lazyjax import Vi, Vj, explain, lift

from ..cases import CASES, Case, arguments
from ..full import FULL
from .lowering import kernel_calls, lowered_for

EVERY = [("cuda", "float32"), ("cuda", "float64"), ("rocm", "float32"), ("rocm", "float64")]


@pytest.mark.parametrize(("platform", "dtype"), EVERY if FULL else EVERY[:3])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_lowers(case: Case, platform: str, dtype: str) -> None:
    args = tuple(a.astype(dtype) for a in arguments(100, 150))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the deprecation of Pallas-Triton is ours to know, not the user's
        text = lowered_for(platform, case.ours, *args)
        assert kernel_calls(text) == case.passes
        assert "100x150" not in text  # no array of all pairs
        if case.smooth:
            gradient = jax.grad(lambda *a: jnp.sum(case.ours(*a)), (0, 1, 2, 3))
            assert kernel_calls(lowered_for(platform, gradient, *args)) >= 1


def test_all_derivatives_of_one_role_leave_one_kernel() -> None:
    x, y, b, _ = arguments(100, 150)
    f = lambda x, y, b: jnp.sum((-Vi(x).sqdist(Vj(y))).exp() @ b)  # noqa: E731
    assert kernel_calls(lowered_for("cuda", jax.grad(f, (0, 1, 2)), x, y, b)) == 2


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int32", "bool"])
def test_other_dtypes_lower(dtype: str) -> None:
    x, y = jnp.ones((100, 3), dtype), jnp.ones((150, 3), dtype)
    for f in (lambda x, y: (Vi(x) * Vj(y)).sum(axis=1), lambda x, y: (Vi(x) * Vj(y)).argmin(axis=1)):
        assert kernel_calls(lowered_for("cuda", f, x, y)) == 1


def test_batches_are_axes_of_the_grid() -> None:
    x, y, b, s = arguments(100, 150)
    f = jax.vmap(jax.vmap(CASES[0].ours, in_axes=(0, None, None, None)), in_axes=(None, 0, None, None))
    assert kernel_calls(lowered_for("cuda", f, jnp.stack([x] * 3), jnp.stack([y] * 2), b, s)) == 1


def test_what_triton_lacks_runs_on_xla_and_says_why() -> None:
    x = jnp.ones((100, 3))
    f = lambda x: lift(jax.scipy.special.i0e)(Vi(x).sqdist(Vj(x))).sum(axis=1)  # noqa: E731
    (explained,) = explain(f, x, platform="cuda")
    assert explained.plan.kernel == "xla"
    assert dict(explained.plan.refused)["pallas-triton"] == "Pallas-Triton has no rule for bessel_i0e"
    assert kernel_calls(lowered_for("cuda", f, x)) == 0


def test_a_symbolic_number_of_problems_runs_on_xla_and_says_why() -> None:
    (b,) = jax.export.symbolic_shape("b")
    x = jax.ShapeDtypeStruct((b, 1000, 3), jnp.float32)
    f = jax.vmap(lambda x: (-Vi(x).sqdist(Vj(x))).exp().sum(axis=1))
    (explained,) = explain(f, x, platform="cuda")
    assert explained.plan.kernel == "xla"
    assert "sizes that are known when it is compiled" in dict(explained.plan.refused)["pallas-triton"]
