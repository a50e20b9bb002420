"""Every operation of the table of test_operations.py: batched over each operand, in the GPU kernel (interpreted, and
lowered for CUDA), and through JAX's own `check_grads`."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from lazyjax import LazyTensor, explain

from .dense import close
from .full import FULL
from .gpu.lowering import kernel_calls, lowered_for
from .kernels_of import RUNS, run_on
from .test_operations import SMOOTH, TABLE, N, Row, dense_values, draws, grouped, lazy_values
from .unoptimised import UNOPTIMISED

# What Triton has no instruction for, and why. Everything else runs there.
OF_COMPLEX = ("real2complex", "imag2complex", "exp1j", "real", "imag", "conj", "angle")


def _sum(rows: list[Row], u: Any, v: Any) -> jax.Array:
    """The sums over j of several operations, in one kernel: (M, features of all of them)."""
    return LazyTensor.cat([lazy_values(row, u, v) for row in rows]).sum(axis=1)


def _dense_sum(rows: list[Row], u: Any, v: Any) -> np.ndarray:
    return np.concatenate([np.asarray(dense_values(row, u, v)).sum(1) for row in rows], -1)


def _groups(rows: list[Row]) -> list[list[Row]]:
    """Operations whose values have one kind of dtype: of several kinds, all would become the widest."""
    args = draws()
    kinds = [[r for r in rows if np.asarray(dense_values(r, *args)).dtype.kind == k] for k in "fib"]
    return [group for some in kinds for group in grouped(some, 1 if FULL else 6)]


def _agree(rows: list[Row], got: Any, want: np.ndarray) -> None:
    close(got / N, want / N, 1e-10 * max(1.0, np.abs(want).max()), str([row.op for row in rows]))


def test_batched_over_each_operand() -> None:
    u, v = draws()
    us, vs = (np.stack([x, x[::-1]]) for x in (u, v))
    groups = _groups(TABLE)

    @jax.jit
    def programs(us: Any, vs: Any) -> Any:
        def both(rows: list[Row]) -> Any:
            return jax.vmap(lambda a: jax.vmap(lambda b: _sum(rows, a, b), out_axes=1)(vs))(us)

        def each(rows: list[Row]) -> Any:
            return jax.vmap(lambda a: _sum(rows, a, vs[0]))(us), jax.vmap(lambda b: _sum(rows, us[0], b))(vs)

        return [(both(rows), each(rows) if FULL else ()) for rows in groups]

    for rows, (both, each) in zip(groups, programs(us, vs), strict=True):
        _agree(rows, both, np.stack([np.stack([_dense_sum(rows, a, b) for b in vs], 1) for a in us]))
        wanted = [[_dense_sum(rows, a, v) for a in us], [_dense_sum(rows, u, b) for b in vs]]
        for got, want in zip(each, wanted, strict=False):
            _agree(rows, got, np.stack(want))


def test_in_the_gpu_kernel() -> None:
    """Every operation has one; those of real numbers are right when interpreted, and lower to one kernel (of complex
    numbers: `tests/gpu/test_complex.py`)."""
    args = draws()
    runs = []
    for row in TABLE:
        (found,) = explain(lambda u, v, row=row: _sum([row], u, v), *args, platform="cuda")
        assert found.plan.kernel == "pallas-triton", (row.op, found.plan.refused)
        if row.op not in OF_COMPLEX:
            runs.append(row)
    groups = _groups(runs)
    kernel = RUNS["pallas-triton, interpreted"]
    ours = lambda u, v: [run_on(lambda u, v, rows=rows: _sum(rows, u, v), kernel, u, v) for rows in groups]  # noqa: E731
    got = jax.jit(ours, compiler_options=UNOPTIMISED)(*args)
    for rows, values in zip(groups, got, strict=True):
        _agree(rows, values, _dense_sum(rows, *args))
    for dtype in ("float32", "float64") if FULL else ("float32",):
        typed = tuple(jnp.asarray(x, dtype) for x in args)
        text = lowered_for("cuda", lambda u, v: [_sum(rows, u, v) for rows in groups], *typed)
        assert kernel_calls(text) == len(groups)


@pytest.mark.parametrize("rows", [[r] for r in SMOOTH] if FULL else [SMOOTH[::12]], ids=lambda r: r[0].op)
def test_check_grads(rows: list[Row]) -> None:
    """Coarser than `derivatives_agree` of test_operations.py, which takes every operation, but not our own code."""
    u, v = draws()
    check_grads(jax.jit(lambda u, v: _sum(rows, u, v)), (u, v), order=2, modes=("fwd", "rev"), atol=1e-4, rtol=1e-4)
