"""Whole programs as XLA compiles them for a GPU hold no array of all pairs, and every reduction is a kernel of ours."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from ...cases import CASES, SMOOTH, Case, D, E
from ...full import FULL
from ..chips import H100
from ..compiling import compile_for, lower_for

pytestmark = pytest.mark.described

M, N = 5000, 3000
CHOSEN = SMOOTH if FULL else [c for c in CASES if c.name in ("K @ b", "logsumexp with weight", "Kmin")]


@pytest.mark.parametrize("case", CHOSEN, ids=str)
def test_temporaries_are_linear(case: Case) -> None:
    def program(*args: Any) -> Any:
        return case.ours(*args), jax.grad(lambda *a: jnp.sum(case.ours(*a)), (0, 1, 2, 3))(*args)

    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((M, D), (N, D), (N, E), ())]
    compiled = compile_for(H100, lower_for(H100, program, *shapes))
    assert len(compiled.kernels) >= 2
    assert compiled.memory.temp_size_in_bytes <= 100 * 4 * (M + N)  # of all pairs: 15 million
