"""Memory stays linear: the temporaries of compiled programs, by XLA's own account."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from .cases import CASES, SMOOTH, Case

SIZE = 4096
PAIRS = SIZE * SIZE * 4  # bytes of one float32 array of all pairs: 67 MB

# Temporaries may hold arrays of M or N rows with a few features: the derivative of K = 4 smallest vectors of D = 2
# keeps 8 values, 8 indices and the 16 features of the gathered winners, 32 of M + N rows (1 MB); and tiles of a size
# that grows with neither, for which the planner allows 2**20 elements (4 MB).
LIMIT = 32 * (2 * SIZE) * 4 + (1 << 20) * 4


def _temporaries(f: Any) -> int:
    shapes = [(SIZE, 2), (SIZE, 2), (SIZE, 3), ()]
    args = [jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes]
    return jax.jit(f).lower(*args).compile().memory_analysis().temp_size_in_bytes


def _gradient(case: Case) -> Any:
    return jax.grad(lambda *a: jnp.sum(jnp.sin(case.ours(*a))), (0, 1, 2, 3))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_forward(case: Case) -> None:
    assert _temporaries(case.ours) < LIMIT < PAIRS / 10


@pytest.mark.parametrize("case", SMOOTH, ids=str)
def test_gradient(case: Case) -> None:
    assert _temporaries(_gradient(case)) < LIMIT


@pytest.mark.parametrize("case", SMOOTH, ids=str)
def test_hessian_vector_product(case: Case) -> None:
    assert _temporaries(lambda *a: jax.jvp(_gradient(case), a, a)[1]) < LIMIT


def test_the_measure_sees_an_array_of_pairs() -> None:
    """Dense JAX exceeds the limit, so the limit can fail: a sort needs all pairs at once."""
    case = next(c for c in CASES if c.name == "Kmin")
    assert _temporaries(case.dense) >= PAIRS
