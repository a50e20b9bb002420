"""Inner products by tensor cores where results are short, compiled for the H100 and the A100, and emulated."""

from __future__ import annotations

import itertools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lazyjax import Vi, Vj

from ...full import FULL
from ..chips import A100, CHIPS, H100, Chip
from ..compiling import compile_for, lower_for
from ..emulating import Launch, emulate
from ..ptx import run
from ..test_inner_products import FORMULAS, arguments, extreme, product_form, total_product
from .test_cases import TOLERANCE, check, compare

BF16 = "mma.sync.aligned.m16n8k16.row.col.f32.bf16"
HALF = {"bfloat16": BF16, "float16": BF16.replace("bf16", "f16")}
DOUBLE = "mma.sync.aligned.m8n8k4.row.col.f64"
MORE = {
    **FORMULAS,
    "sum of exponentials": (
        lambda x, y, u, v, b: ((Vi(x) | Vj(y)) / 9).exp() @ b,
        lambda x, y, u, v, b: jnp.exp(x @ y.T / 9) @ b,
    ),
    "logsumexp": (
        lambda x, y, u, v, b: (Vi(x) | Vj(y)).logsumexp(axis=1),
        lambda x, y, u, v, b: jax.nn.logsumexp(x @ y.T, 1)[:, None],
    ),
}
# Rows, columns and features that fill no tile.
CHOSEN = [
    ("argmin, product form", "float64", A100), ("several", "float32", A100),
    ("derivatives of a batch", "float32", H100),
]  # fmt: skip
ROWS = list(itertools.product(MORE, ("float32", "float64"), CHIPS)) if FULL else CHOSEN


@pytest.mark.parametrize("name, dtype, chip", ROWS, ids=lambda v: getattr(v, "name", v))
def test_formula(name: str, dtype: str, chip: Chip) -> None:
    ours, dense = MORE[name]
    args = arguments(dtype, 50, 70)
    got, launches = emulate(chip, ours, *args)
    compare(got, dense(*(a.astype(jnp.float64) for a in args)), TOLERANCE[dtype])
    check(chip, launches, instruction=BF16 if dtype == "float32" else DOUBLE)


@pytest.mark.described
@pytest.mark.parametrize("dtype", HALF if FULL else ["bfloat16"])
def test_products_of_half_precision_are_exact(dtype: str) -> None:
    args = arguments(dtype, 50, 70)
    value = lambda x, y: ((Vi(x) | Vj(y)) / 2).max_argmax(axis=1)  # noqa: E731
    got, launches = emulate(H100, value, *args[:2])
    x, y = (np.asarray(a, np.float64) for a in args[:2])
    np.testing.assert_array_equal(got[1][:, 0], (x @ y.T).argmax(1))
    compare(got[0], (x @ y.T / 2).max(1)[:, None], float(jnp.finfo(dtype).eps))
    (launch,) = launches
    assert set(re.findall(r"mma\.sync[.\w]*", launch.kernel.ptx)) == {f"{HALF[dtype]}.{HALF[dtype].split('.')[-1]}.f32"}
    check(H100, launches)


def test_infinite_and_large_features() -> None:
    x, y, want = extreme()
    got, launches = emulate(H100, total_product, x, y)
    np.testing.assert_allclose(got, want, rtol=2e-6, atol=1e-4)
    check(H100, launches)


@pytest.fixture(scope="module")
def exponentials() -> tuple[Launch, Any]:
    """A launch for the H100, and dense numbers."""
    ours, dense = MORE["sum of exponentials"]
    args = arguments(np.float32, 50, 70)
    got, launches = emulate(H100, ours, *args)
    want = np.asarray(dense(*(a.astype(jnp.float64) for a in args)))
    compare(got, want, 1e-6)
    check(H100, launches)
    return launches[0], want


def _error(launch: Launch, want: Any, ptx: str, inputs: Any = None, error: float = 0.0) -> float:
    """Of the emulated kernel, relative to the largest result."""
    like = [np.empty_like(o) for o in launch.outputs]
    kernel = launch.kernel
    written = run(ptx, kernel.grid, inputs or launch.inputs, like, kernel.name, kernel.shared, error)
    got = np.stack([np.asarray(w, np.float64).reshape(-1, len(want)).sum(0) for w in written], -1)
    return float(np.abs(got - want).max() / np.abs(want).max())


@pytest.mark.described
def test_tensor_cores_that_err_as_much_as_they_may(exponentials: tuple[Launch, Any]) -> None:
    launch, want = exponentials
    for error in (1.0, -1.0):
        assert 0 < _error(launch, want, launch.kernel.ptx, error=error) < 3e-6


@pytest.mark.described
def test_a_part_that_is_left_out_is_noticed(exponentials: tuple[Launch, Any]) -> None:
    """Of the three of every number of i: the larger the part, the larger the error."""
    launch, want = exponentials
    lines = list(re.finditer(r"mma\.sync[^;]*;", launch.kernel.ptx))
    assert lines and len(lines) % 12 == 0  # six products of two steps of 16 features
    assert _error(launch, want, launch.kernel.ptx) < 1e-6
    for part in range(3):
        inputs = list(launch.inputs)
        halves = [k for k, x in enumerate(inputs) if x.dtype == jnp.bfloat16]
        assert len(halves) == 6
        inputs[halves[part]] = np.zeros_like(inputs[halves[part]])
        assert _error(launch, want, launch.kernel.ptx, inputs) > 2.0 ** (-8 * part - 4) / 8


@pytest.mark.described
def test_features_that_fill_no_piece_are_zeros(exponentials: tuple[Launch, Any]) -> None:
    """Of 60 features the kernel reads 64: what stands behind must not matter, and does."""
    launch, want = exponentials
    inputs = [np.array(x) for x in launch.inputs]
    for x in inputs:
        if x.dtype == jnp.bfloat16:
            rows = x.reshape(-1, 64)
            assert not rows[:, 60:].astype(np.float32).any()
            rows[:, 60] = 1
    assert _error(launch, want, launch.kernel.ptx, inputs) > 0.1


@pytest.mark.described
def test_memory_is_linear() -> None:
    """Three parts of x and y in bfloat16, centred before, and no array of all pairs, which were a gigabyte."""
    m, d = 16384, 300
    x = jax.ShapeDtypeStruct((m, d), "float32")
    compiled = compile_for(A100, lower_for(A100, lambda x, y: product_form(x, y).argmin(axis=1), x, x))
    assert compiled.memory.temp_size_in_bytes <= 4 * m * 10 * d
    (kernel,) = (k for k in compiled.kernels if "lazyjax" in k.name)
    assert BF16 in kernel.ptx and kernel.assembled.spilled == 0
