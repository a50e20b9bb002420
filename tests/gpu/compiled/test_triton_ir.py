"""The second emitter's kernels, compiled and emulated as those of the first."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lazyjax import Vi, Vj

from ...cases import CASES, Case, arguments
from ..chips import A100, CHIPS, H100, Chip
from ..emulating import emulate
from .test_cases import FULL, TOLERANCE, M, N, check, compare, in_batches, named

SAMPLE = (
    *("K @ b", "argmin of min_argmin", "argmax over i", "logsumexp with weight"),
    *("std over both", "count_nonzero over both"),
)
CHOSEN = CASES if FULL else named(*SAMPLE)


ROWS = [(c, H100, "float32") for c in CHOSEN] + [(named("logsumexp with weight")[0], A100, "float64")]
if FULL:
    ROWS = list(itertools.product(CASES, CHIPS, ("float32", "float64")))


@pytest.mark.parametrize("case, chip, dtype", ROWS, ids=lambda v: getattr(v, "name", v))
def test_case(case: Case, chip: Chip, dtype: str) -> None:
    args = tuple(a.astype(dtype) for a in arguments(M, N))
    got, launches = emulate(chip, case.ours, *args, backend="triton-ir")
    compare(got, jax.jit(case.dense)(*(a.astype(jnp.float64) for a in args)), TOLERANCE[dtype])
    check(chip, launches)


def test_batches() -> None:
    (case,) = named("argmax over i")
    args = tuple(a.astype(jnp.float32) for a in arguments(M, N))
    got, launches = emulate(H100, in_batches(case.ours), *args, backend="triton-ir")
    compare(got, in_batches(case.dense)(*args), 0)
    check(H100, launches)


def test_complex_numbers() -> None:
    r = np.random.default_rng(0)
    z, w = (jnp.asarray(r.normal(size=(n, 2)) + 1j * r.normal(size=(n, 2)), jnp.complex64) for n in (50, 70))
    ours = lambda z, w: (0.5 * (Vi(z) | Vj(w)).sqrt()).exp().sum(axis=1)  # noqa: E731
    got, launches = emulate(H100, ours, z, w, backend="triton-ir")
    want = np.exp(0.5 * np.sqrt(np.asarray(z, np.complex128) @ np.asarray(w, np.complex128).T)).sum(1)
    np.testing.assert_allclose(got[:, 0], want, rtol=0, atol=5e-6 * np.max(np.abs(want)))
    check(H100, launches)
