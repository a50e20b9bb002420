"""The kernel of matrix products, compiled for the H100 and the A100, and emulated: dense numbers, nothing spilled."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lazyjax import Vj

from ...full import FULL
from ..chips import A100, CHIPS, H100, Chip
from ..compiling import compile_for, lower_for
from ..emulating import emulate
from ..hardware import HARDWARE
from ..test_products import FORMULAS, arguments, attention, dense_attention, dense_gaussian, gaussian
from .test_cases import TOLERANCE, check, compare, spills_nothing

# Rows, columns and features that fill no tile.
CHOSEN = [
    ("attention", "float32", H100), ("derivatives of K @ b", "float32", A100), ("several terms", "float64", H100),
    ("causal", "bfloat16", A100), ("causal", "float32", H100),
]  # fmt: skip
ROWS = list(itertools.product(FORMULAS, ("float32", "float64", "float16", "bfloat16"), CHIPS)) if FULL else CHOSEN
LARGE = list(itertools.product(FORMULAS, CHIPS)) if FULL else [("derivatives of K @ b", A100)]


@pytest.mark.parametrize("name, dtype, chip", ROWS, ids=lambda v: getattr(v, "name", v))
def test_formula(name: str, dtype: str, chip: Chip) -> None:
    ours, dense = FORMULAS[name]
    args = arguments(dtype, 50, 70, 50)
    got, launches = emulate(chip, ours, *args)
    compare(got, dense(*(a.astype(jnp.float64) for a in args)), TOLERANCE[dtype])
    check(chip, launches)


@pytest.mark.described
@pytest.mark.parametrize("name, chip", LARGE, ids=lambda v: getattr(v, "name", v))
def test_parts_of_j_and_groups_of_steps_spill_nothing(name: str, chip: Chip) -> None:
    ours, _ = FORMULAS[name]
    spills_nothing(chip, ours, *arguments(np.float32, 5000, 7000, 50))


def test_tensor_cores_that_err_as_much_as_they_may() -> None:
    args = arguments(np.float32, 50, 300, 50)[2:5]
    want = dense_attention(*(a.astype(jnp.float64) for a in args))
    for error in (1.0, -1.0):
        got, launches = emulate(H100, attention, *args, error=error)
        compare(got, want, 3e-6)
        assert HARDWARE or len(launches) == 1
        check(H100, launches, instruction="mma.sync.aligned.m16n8k8.row.col.f32.tf32")


def test_exact_products_are_fused_multiply_adds() -> None:
    def exact(x: Any, y: Any, v: Any) -> Any:
        return (gaussian(x, y) * Vj(v)).sum(axis=1, precision="exact")

    x, y, *_, v, _ = arguments(np.float32, 50, 70, 50)
    got, launches = emulate(A100, exact, x, y, v)
    assert not any("mma" in x.kernel.ptx for x in launches)  # none is seen on a GPU
    compare(got, dense_gaussian(*(a.astype(jnp.float64) for a in (x, y))) @ v, 1e-6)
    check(A100, launches)


@pytest.mark.described
@pytest.mark.parametrize("chip", CHIPS, ids=lambda c: c.name)
def test_large_problems_spill_nothing_and_memory_is_linear(chip: Chip) -> None:
    m, d, e = 16384, 64, 300

    def program(x: Any, q: Any, b: Any) -> Any:
        return gaussian(x, x) @ b, attention(q, q, q)

    shapes = [jax.ShapeDtypeStruct((m, k), "float32") for k in (3, d, e)]
    compiled = compile_for(chip, lower_for(chip, program, *shapes))
    assert len([k for k in compiled.kernels if "lazyjax" in k.name]) == 2
    assert compiled.memory.temp_size_in_bytes <= 4 * m * (10 * d + 3 * e)  # of all pairs: a gigabyte
    for kernel in compiled.kernels:
        assert kernel.assembled.spilled == 0
        assert chip.refuses(kernel.grid, kernel.threads, kernel.shared, kernel.assembled.registers) == []
