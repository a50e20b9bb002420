"""Compiled for the H100 and the A100, every reduction gives dense numbers, spills nothing and fits the chip.

The PTX is what XLA makes of the kernel on the version of JAX that is installed, at sizes that fill no tile; the
emulator (`ptx`) runs it, and raises an error for an access out of bounds, a race, or two programs that write the same
element.
`LAZYJAX_FULL=1 python -m pytest tests/gpu` checks the whole table; without it, all cases once and a sample.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lazyjax import Vi, Vj

from ...cases import CASES, Case, arguments
from ...full import FULL
from ..chips import A100, CHIPS, H100, Chip
from ..compiling import compile_for, lower_for
from ..emulating import Launch, emulate
from ..hardware import HARDWARE
from .ceilings import SPILLED

M, N = 100, 150
TOLERANCE = {"float64": 1e-12, "float32": 5e-6, "float16": 2e-3, "bfloat16": 2e-2, "int32": 0.0}


@dataclasses.dataclass(frozen=True)
class Row:
    case: Case
    what: str  # values, gradient, batch
    dtype: str = "float32"
    chip: Chip = H100

    def __str__(self) -> str:
        return f"{self.case}, {self.what}, {self.dtype}, {self.chip.name}"

    def possible(self) -> bool:
        return self.case.smooth or self.what != "gradient"


def named(*names: str) -> list[Case]:
    return [next(c for c in CASES if c.name == n) for n in names]


def table() -> list[Row]:
    if FULL:
        every = itertools.product(CASES, ("values", "gradient", "batch"), ("float32", "float64"), CHIPS)
        return [row for row in itertools.starmap(Row, every) if row.possible()]
    some = named("K @ b", "argmin of min_argmin", "logsumexp", "mean over i", "sumsoftmaxweight")
    return [
        *(Row(c, "values") for c in CASES),
        *(Row(c, "values", "float64") for c in named("K @ b", "argKmin", "logsumexp", "compensated sum")),
        *(Row(c, "values", "float32", A100) for c in some),
        *(Row(c, "gradient") for c in named("K @ b", "logsumexp with weight", "min of min_argmin", "mean over i")),
        *(Row(c, "gradient", "float64") for c in named("K @ b, sqrt")),
        *(Row(c, "batch") for c in named("K @ b", "argKmin")),
    ]


def in_batches(f: Callable[..., Any]) -> Callable[..., Any]:
    """Two axes: of x three, of y two."""

    def run(x: Any, y: Any, b: Any, s: Any) -> Any:
        each = jax.vmap(jax.vmap(f, in_axes=(0, None, None, None)), in_axes=(None, 0, None, None))
        return each(jnp.stack([x, x + 1, x * 2])[:, :40], jnp.stack([y, 1 - y]), b, s)

    return run


def gradient(f: Callable[..., Any]) -> Callable[..., Any]:
    """Of a function whose slope is as well known as its argument, however large: sin of a sum of 3000 is not."""
    return jax.grad(lambda *a: jnp.sum(jnp.log1p(f(*a) ** 2)), (0, 1, 2, 3))


VARIANTS: dict[str, Callable[..., Any]] = {"values": lambda f: f, "gradient": gradient, "batch": in_batches}


def check(chip: Chip, launches: list[Launch], spilled: int = 0, instruction: str = "") -> None:
    """What holds for every kernel on every chip; `instruction`: that one of them has."""
    if HARDWARE:
        return
    assert any(instruction in launch.kernel.ptx for launch in launches)
    for launch in launches:
        kernel, assembled = launch.kernel, launch.kernel.assembled
        assert launch.call.grid == kernel.grid and launch.call.warps * 32 == kernel.threads[0]
        assert launch.call.refused() == []
        assert chip.refuses(kernel.grid, kernel.threads, kernel.shared, assembled.registers) == []
        assert assembled.spilled <= spilled
        assert launch.program.memory.temp_size_in_bytes == 0


def spills_nothing(chip: Chip, f: Callable[..., Any], *args: Any) -> None:
    """Of sizes that take too long to emulate: all kernels compiled, none run."""
    kernels = [k for k in compile_for(chip, lower_for(chip, f, *args)).kernels if "lazyjax" in k.name]
    assert kernels
    for kernel in kernels:
        assert kernel.assembled.spilled == 0
        assert chip.refuses(kernel.grid, kernel.threads, kernel.shared, kernel.assembled.registers) == []


def compare(got: Any, want: Any, tolerance: float) -> None:
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        a, b = np.asarray(a), np.asarray(b, np.float64)
        assert a.shape == b.shape
        exact = a.dtype.kind in "iub"
        scale = float(np.max(np.abs(b), initial=1e-300))
        np.testing.assert_allclose(a.astype(np.float64), b, rtol=0, atol=0 if exact else tolerance * scale)


@pytest.mark.parametrize("row", table(), ids=str)
def test_case(row: Row) -> None:
    args = tuple(a.astype(row.dtype) for a in arguments(M, N))
    variant = VARIANTS[row.what]
    got, launches = emulate(row.chip, variant(row.case.ours), *args)
    want = jax.jit(variant(row.case.dense))(*(a.astype(jnp.float64) for a in args))
    compare(got, want, TOLERANCE[row.dtype])
    check(row.chip, launches, SPILLED.get(row.case.name, 0))


def _spread(x: Any, y: Any) -> Any:
    """Formulas of many functions, as the features of one: x (M, 3), y (N, 3) positive."""
    square, product = Vi(x).sqdist(Vj(y)), Vi(x) | Vj(y)
    return [
        (-square.sqrt()).exp(), 1 / (1 + square), product.tanh(), product.log(), square.power(3), product.cos(),
        (square - 1).relu(), product.sign() * square.rsqrt(), (Vi(x[:, :1]) - Vj(y[:, :1])).abs(), product.atan(),
        (square - 1).step(), square.clamp(0.5, 1.5), product.mod(0.7),
        (Vi(x[:, :1]) - Vj(y[:, :1])).ifelse(square, product),
    ]  # fmt: skip


def _spread_dense(x: Any, y: Any) -> Any:
    d = x[:, None] - y[None]
    s, p, first = (d**2).sum(-1), x @ y.T, d[..., 0]
    return [
        np.exp(-np.sqrt(s)), 1 / (1 + s), np.tanh(p), np.log(p), s**3, np.cos(p), np.maximum(s - 1, 0),
        np.sign(p) / np.sqrt(s),
        np.abs(first), np.arctan(p), (s > 1) * 1.0, np.clip(s, 0.5, 1.5), p % 0.7, np.where(first > 0, s, p),
    ]  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("chip", CHIPS if FULL else [H100], ids=lambda c: c.name)
def test_functions(chip: Chip, dtype: str) -> None:
    """Maxima, of which every one is a value of the function and none a sum of errors."""
    r = np.random.default_rng(0)
    x, y = (r.uniform(0.5, 1.5, size=(n, 3)).astype(dtype) for n in (M, N))

    def ours(x: Any, y: Any) -> Any:
        first, *rest = _spread(x, y)
        return _joined(first, rest).max(axis=1)

    got, launches = emulate(chip, ours, jnp.asarray(x), jnp.asarray(y))
    want = np.stack([v.max(1) for v in _spread_dense(x.astype(np.float64), y.astype(np.float64))], 1)
    tolerance = TOLERANCE[dtype]
    np.testing.assert_allclose(np.asarray(got, np.float64), want, rtol=tolerance, atol=tolerance)
    check(chip, launches)


def _joined(first: Any, rest: Any) -> Any:
    for each in rest:
        first = first.concat(each)
    return first


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int32"])
def test_other_dtypes(dtype: str) -> None:
    r = np.random.default_rng(0)
    x, y = (jnp.asarray(r.integers(-8, 8, size=(n, 2)), dtype) for n in (M, N))
    for f, g in (
        (lambda x, y: (Vi(x) * Vj(y)).max(axis=1), lambda p: p.max(1)),
        (lambda x, y: (Vi(x) - Vj(y)).abs().sum(-1).argmin(axis=1), None),
        (lambda x, y: (Vi(x) * Vj(y)).sum(axis=1), lambda p: p.sum(1)),
    ):
        got, launches = emulate(H100, f, x, y)
        wide = [np.asarray(v).astype(np.float64) for v in (x, y)]
        difference = np.abs(wide[0][:, None] - wide[1]).sum(-1)
        want = g(wide[0][:, None] * wide[1]) if g else difference.argmin(1)[:, None]
        compare(got, want, TOLERANCE[dtype])
        check(H100, launches)


def test_approximate_instructions_may_be_off_by_all_that_they_are_allowed() -> None:
    """A Gaussian sum is as exact when every approximate instruction errs its most."""
    case = named("K @ b")[0]
    args = tuple(a.astype(jnp.float32) for a in arguments(M, N))
    want = case.dense(*(a.astype(jnp.float64) for a in args))
    for error in (-1.0, 1.0):
        compare(emulate(H100, case.ours, *args, error=error)[0], want, TOLERANCE["float32"])
