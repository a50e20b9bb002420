"""Memory stays linear: the temporaries of compiled programs, by XLA's own account."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from .cases import CASES, SMOOTH, TANGENTS, Case
from .full import FULL
from .unoptimised import UNOPTIMISED

SIZE = 4096
PAIRS = SIZE * SIZE * 4  # bytes of one float32 array of all pairs: 67 MB

# Temporaries may hold arrays of M or N rows with a few features. The most of all cases: the second derivative of the
# K = 4 smallest vectors of D = 2 has 8 winners in each row, and gathers for each the 2 features of x, of y and of their
# two tangents, 64, beside 8 values and 8 indices: 80 features of M rows (1.3 MB). And tiles of a size that
# grows with neither, for which the planner allows 2**20 elements (4 MB).
LIMIT = 80 * SIZE * 4 + (1 << 20) * 4


def _temporaries(f: Any, size: int = SIZE) -> int:
    shapes = [(size, 2), (size, 2), (size, 3), ()]
    args = [jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes]
    return jax.jit(f).lower(*args).compile(UNOPTIMISED).memory_analysis().temp_size_in_bytes


def _gradient(case: Case) -> Any:
    return jax.grad(lambda *a: jnp.sum(jnp.sin(case.ours(*a))), (0, 1, 2, 3))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_forward(case: Case) -> None:
    assert _temporaries(case.ours) < LIMIT < PAIRS / 10


@pytest.mark.parametrize("case", SMOOTH if FULL else TANGENTS, ids=str)
def test_gradient(case: Case) -> None:
    assert _temporaries(_gradient(case)) < LIMIT


@pytest.mark.parametrize("case", SMOOTH if FULL else [c for c in TANGENTS if not c.costly], ids=str)
def test_hessian_vector_product(case: Case) -> None:
    assert _temporaries(lambda *a: jax.jvp(_gradient(case), a, a)[1]) < LIMIT


@pytest.mark.parametrize("name", ["K @ b", "Kmin of vectors", "logsumexp"] if FULL else ["K @ b"])
def test_growth_is_linear(name: str) -> None:
    """Twice the rows take about twice the memory, padding of a second tile included; an array of pairs takes four."""
    gradient = _gradient(next(c for c in CASES if c.name == name))
    once, twice = (_temporaries(lambda *a: jax.jvp(gradient, a, a)[1], k * SIZE) for k in (1, 2))
    assert twice < 3 * once


def test_the_measure_sees_an_array_of_pairs() -> None:
    """Dense JAX exceeds the limit, so the limit can fail: a sort needs all pairs at once."""
    case = next(c for c in CASES if c.name == "Kmin")
    assert _temporaries(case.dense) >= PAIRS
