"""The kernel of matrix products, compiled for the H100 and the A100, and emulated: dense numbers, nothing spilled."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from ...full import FULL
from ..chips import A100, CHIPS, H100, Chip
from ..compiling import compile_for, lower_for
from ..emulating import emulate
from ..test_products import FORMULAS, arguments, attention, gaussian
from .test_cases import TOLERANCE, check, compare

# Rows, columns and features that fill no tile.
CHOSEN = [
    ("attention", "float32", H100), ("derivatives of K @ b", "float32", A100), ("several terms", "float64", H100),
    ("causal", "bfloat16", A100),
]  # fmt: skip
ROWS = list(itertools.product(FORMULAS, ("float32", "float64", "float16", "bfloat16"), CHIPS)) if FULL else CHOSEN


@pytest.mark.parametrize("name, dtype, chip", ROWS, ids=lambda v: getattr(v, "name", v))
def test_formula(name: str, dtype: str, chip: Chip) -> None:
    ours, dense = FORMULAS[name]
    args = arguments(dtype, 50, 70, 50)
    got, launches = emulate(chip, ours, *args)
    compare(got, dense(*(a.astype(jnp.float64) for a in args)), TOLERANCE[dtype])
    check(chip, launches)


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
