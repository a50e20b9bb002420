"""Differences of long features in matrix products, compiled for the H100 and the A100, and emulated."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lazyjax import Vi, Vj

from ...full import FULL
from ..chips import A100, CHIPS, H100, Chip
from ..compiling import compile_for, lower_for
from ..emulating import emulate
from ..hardware import HARDWARE
from ..test_differences import FORMULAS, dense_weighted_difference, points, weighted_difference
from ..test_products import gaussian
from .test_cases import TOLERANCE, check, compare, spills_nothing

CHOSEN = [("several terms", "float32", A100)]
ROWS = list(itertools.product(FORMULAS, ("float32", "float64", "float16", "bfloat16"), CHIPS)) if FULL else CHOSEN
# In float64 "several terms" does spill (docs/gpu.md).
LARGE = [("several terms", "float32", 70, H100), ("weights of a softmax", "float64", 40, H100)]
if FULL:
    LARGE = list(itertools.product(FORMULAS, ["float32"], [40, 70], CHIPS))
    LARGE += itertools.product([name for name in FORMULAS if name != "several terms"], ["float64"], [40], CHIPS)


@pytest.mark.parametrize("name, dtype, chip", ROWS, ids=lambda v: getattr(v, "name", v))
def test_formula(name: str, dtype: str, chip: Chip) -> None:
    ours, dense = FORMULAS[name]
    args = points(dtype, 34, 40, 40)
    got, launches = emulate(chip, ours, *args)
    compare(got, dense(*(a.astype(jnp.float64) for a in args)), TOLERANCE[dtype])
    check(chip, launches)


@pytest.mark.described
@pytest.mark.parametrize("name, dtype, d, chip", LARGE, ids=lambda v: getattr(v, "name", str(v)))
def test_parts_of_j_and_groups_of_steps_spill_nothing(name: str, dtype: str, d: int, chip: Chip) -> None:
    ours, _ = FORMULAS[name]
    spills_nothing(chip, ours, *points(dtype, 5000, 7000, d))


# Rows that fill no program, columns that take two blocks or half of one, and points far from 0: the bound on errors is
# that of points near 0.
FAR = [
    ("float32", H100, 264, 1000.0, 1e-6),
    ("float64", A100, 136, 1000.0, 1e-14),
    ("bfloat16", A100, 136, 32.0, 2**-8),
]


@pytest.mark.parametrize("dtype, chip, d, offset, tolerance", FAR, ids=lambda v: getattr(v, "name", str(v)))
def test_points_far_from_0(dtype: str, chip: Chip, d: int, offset: float, tolerance: float) -> None:
    x, y = (jnp.asarray(a + offset, dtype) for a in points(np.float64, 40, 70, d)[:2])
    got, launches = emulate(chip, weighted_difference, x, y)
    want = dense_weighted_difference(x, y)
    assert np.abs(np.asarray(got, np.float64) - want).max() <= tolerance * np.abs(want).max()
    assert HARDWARE or len(launches) == 1
    check(chip, launches, instruction="mma.sync")


@pytest.mark.described
@pytest.mark.parametrize("chip", CHIPS, ids=lambda c: c.name)
def test_large_problems_spill_nothing_and_memory_is_linear(chip: Chip) -> None:
    m, d = 16384, 200

    def sums(x: Any, y: Any) -> Any:
        return gaussian(x, y) @ jnp.ones(m, x.dtype)

    def program(x: Any, y: Any) -> Any:
        gradient = jax.grad(lambda x: jnp.sum(jnp.sin(sums(x, y))))
        softmax = (-Vi(x).sqdist(Vj(y))).sumsoftmaxweight(Vi(x) - Vj(y), axis=1)
        return jax.jvp(gradient, (x,), (y,)), softmax

    shape = jax.ShapeDtypeStruct((m, d), "float32")
    compiled = compile_for(chip, lower_for(chip, program, shape, shape))
    assert compiled.memory.temp_size_in_bytes <= 4 * m * 24 * d  # of all pairs: a gigabyte
    kernels = [k for k in compiled.kernels if "lazyjax" in k.name]
    assert len(kernels) == 5  # two sums, the gradient, its derivative, the softmax
    for kernel in kernels:
        assert kernel.assembled.spilled == 0
        assert chip.refuses(kernel.grid, kernel.threads, kernel.shared, kernel.assembled.registers) == []
