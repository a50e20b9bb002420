"""The kernels of group minima, compiled for the H100 and the A100, and emulated: dense numbers, nothing spilled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lazyjax import Vi, Vj
from lazyjax.kernels.triton import group_plan

from ...full import FULL
from ..chips import A100, CHIPS, H100, Chip
from ..compiling import compile_for, lower_for
from ..emulating import emulate
from ..hardware import HARDWARE
from ..test_groups import best
from .test_cases import TOLERANCE, check, compare

# Stretches of columns, of which the last is not full, and rows that fill no program.
M, N = 100, 700


def _numbers(dtype: str) -> list[np.ndarray]:
    """Few different numbers: many ties, and nothing is rounded."""
    r = np.random.default_rng(0)
    return [r.integers(-4, 4, (n, 2)).astype("int32" if dtype == "int32" else "float64") for n in (M, N)]


def _nan(x: Any, y: Any) -> Any:
    """Columns of NaN before columns of infinity."""
    column = jnp.where(jnp.arange(N) < 200, jnp.nan, jnp.where(jnp.arange(N) % 150, jnp.inf, 0))
    return Vi(x).sqdist(Vj(y)) + Vj(column[:, None].astype(x.dtype))


FORMULAS: dict[str, Callable[..., Any]] = {
    "Kmin": lambda x, y: Vi(x).sqdist(Vj(y)).Kmin_argKmin(4, axis=1),
    "Kmax": lambda x, y: (Vi(x) | Vj(y)).Kmax_argKmax(3, axis=1),
    "NaN": lambda x, y: _nan(x, y).Kmin_argKmin(4, axis=1),
    "batch": lambda x, y: jax.vmap(lambda x: Vi(x).sqdist(Vj(y)).Kmin_argKmin(2, axis=1))(jnp.stack([x, x + 1])),
}


def _dense(name: str, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    square = ((x[:, None] - y) ** 2).sum(-1)
    if name == "batch":
        found = [best(d, 2) for d in (square, ((x[:, None] + 1 - y) ** 2).sum(-1))]
        return np.stack([f[0] for f in found]), np.stack([f[1] for f in found])
    if name == "NaN":
        j = np.arange(N)
        return best(square + np.where(j < 200, np.nan, np.where(j % 150, np.inf, 0)), 4)
    return best(x @ y.T, 3, largest=True) if name == "Kmax" else best(square, 4)


ROWS = [(f, d, c) for f in FORMULAS for d in ("float32", "float64") for c in CHIPS]
ROWS += [(f, d, c) for f in ("Kmin", "Kmax", "batch") for d in ("int32", "float16", "bfloat16") for c in CHIPS]
CHOSEN = [
    ("Kmin", "float32", A100), ("Kmin", "float64", H100), ("Kmax", "int32", H100), ("NaN", "float32", H100),
    ("batch", "bfloat16", H100),
]  # fmt: skip


@pytest.mark.parametrize("name, dtype, chip", ROWS if FULL else CHOSEN, ids=lambda v: getattr(v, "name", v))
def test_selection(name: str, dtype: str, chip: Chip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_plan, "LAUNCHES", 0.0)  # as if there were many pairs
    x, y = _numbers(dtype)
    got, launches = emulate(chip, FORMULAS[name], jnp.asarray(x, dtype), jnp.asarray(y, dtype))
    for a, b in zip(got, _dense(name, x, y), strict=True):
        np.testing.assert_array_equal(np.asarray(a, b.dtype), b)
    assert HARDWARE or len(launches) == 3
    check(chip, launches)


def test_what_is_rounded_is_rounded_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pairs that are computed again are those that the minima were: with fused multiply-adds and a square root."""
    monkeypatch.setattr(group_plan, "LAUNCHES", 0.0)
    r = np.random.default_rng(0)
    x, y = (r.normal(size=(n, 3)).astype("float32") for n in (M, N))
    f = lambda x, y: Vi(x).sqdist(Vj(y)).sqrt().Kmin_argKmin(3, axis=1)  # noqa: E731
    got, launches = emulate(A100, f, jnp.asarray(x), jnp.asarray(y))
    want = best(np.sqrt(((x[:, None].astype("float64") - y) ** 2).sum(-1)), 3)
    compare(got, want, TOLERANCE["float32"])
    check(A100, launches)


@pytest.mark.described
@pytest.mark.parametrize("chip", CHIPS if FULL else [H100], ids=lambda c: c.name)
def test_memory_is_bounded(chip: Chip) -> None:
    """A million rows and columns have gigabytes of minima, and terabytes of pairs."""
    shape = jax.ShapeDtypeStruct((1_000_000, 3), jnp.float32)
    f = lambda x, y: Vi(x).sqdist(Vj(y)).argKmin(10, axis=1)  # noqa: E731
    compiled = compile_for(chip, lower_for(chip, f, shape, shape))
    assert compiled.memory.temp_size_in_bytes <= 2 * group_plan.HELD + 16 * 4 * 1_000_000
    ours = [k for k in compiled.kernels if "lazyjax" in k.name]
    assert len(ours) == 3 and all(k.assembled.spilled == 0 for k in ours)
    assert all(chip.refuses(k.grid, k.threads, k.shared, k.assembled.registers) == [] for k in ours)
