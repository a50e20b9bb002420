"""Kernels of long features, compiled for the H100 and the A100, and emulated: dense numbers, nothing spilled."""

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
from ..test_long import NARROW
from .test_cases import TOLERANCE, check, compare

# Sizes that fill no tile, and two lengths of features: a step of a loop takes four of the one, two of the other.
M, N, D, E = 50, 70, 36, 34
CHOSEN = [
    ("Gaussian sum", "float64", A100), ("loops that wait", "float32", A100),
    ("a batch and a parameter", "float32", H100),
]  # fmt: skip
ROWS = list(itertools.product(NARROW, ("float32", "float64"), CHIPS)) if FULL else CHOSEN


@pytest.mark.parametrize("name, dtype, chip", ROWS, ids=lambda v: getattr(v, "name", v))
def test_formula(name: str, dtype: str, chip: Chip) -> None:
    ours, dense = NARROW[name]
    r = np.random.default_rng(0)
    args = [jnp.asarray(r.normal(size=s).astype(dtype)) for s in ((M, D), (N, D), (N, E))]
    got, launches = emulate(chip, ours, *args)
    compare(got, dense(*(a.astype(jnp.float64) for a in args)), TOLERANCE[dtype])
    check(chip, launches)


@pytest.mark.described
def test_memory_is_linear() -> None:
    """Transposed copies of x and y, and no array of all pairs."""

    def f(x: Any, y: Any) -> Any:
        return Vi(x).sqdist(Vj(y)).argmin(axis=1)

    m, d = 16384, 300
    shape = jax.ShapeDtypeStruct((m, d), jnp.float32)
    compiled = compile_for(H100, lower_for(H100, f, shape, shape))
    assert compiled.memory.temp_size_in_bytes <= 2.1 * 4 * m * d
    assert all(k.assembled.spilled == 0 for k in compiled.kernels)
