"""The inner loops in machine code: how many instructions a pair takes, and nothing there that should not be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from lazyjax import Vi, Vj, explain

from ..chips import A100, H100, Chip
from ..compiling import compile_for, lower_for
from .ceilings import CEILINGS

M, N = 2048, 4096


def gaussian(x: Any, y: Any, b: Any) -> Any:
    return (-Vi(x).sqdist(Vj(y))).exp() @ b


# The formula, its features, and how many exponentials it takes of a pair where that is known.
FORMULAS: dict[str, tuple[Callable[..., Any], int, int | None]] = {
    "Gaussian sum, D = 3": (gaussian, 3, 1),
    "Gaussian sum, D = 10": (gaussian, 10, 1),
    "Laplacian sum, D = 3": (lambda x, y, b: (-Vi(x).sqdist(Vj(y)).sqrt()).exp() @ b, 3, 1),
    "x-gradient of the Gaussian sum, D = 3": (jax.grad(lambda x, y, b: jnp.sum(gaussian(x, y, b))), 3, 1),
    "logsumexp, D = 3": (lambda x, y, b: (-Vi(x).sqdist(Vj(y))).logsumexp(axis=1), 3, None),
    "argmin, D = 3": (lambda x, y, b: Vi(x).sqdist(Vj(y)).argmin(axis=1), 3, 0),
}


@pytest.mark.parametrize("chip", [H100, A100], ids=lambda c: c.name)
@pytest.mark.parametrize("name", FORMULAS)
def test_instructions_of_a_pair(name: str, chip: Chip) -> None:
    f, d, exponentials = FORMULAS[name]
    args = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((M, d), (N, d), (N,))]
    tiles = explain(f, *(jnp.zeros(a.shape, a.dtype) for a in args), platform="cuda")[-1].plan.tiles
    (kernel,) = compile_for(chip, lower_for(chip, f, *args)).kernels[-1:]
    loop = kernel.assembled.loops[0]
    pairs = tiles.block_i * tiles.block_j // kernel.threads[0]  # of one thread, each time round
    if exponentials is not None:
        assert loop.opcodes["MUFU.EX2"] == exponentials * pairs
    assert loop.count("SHFL") == 0, "a shuffle for every pair"
    measured = {"instructions": len(loop) / pairs, "spills": loop.count("LDL", "STL") / pairs}
    assert all(measured[k] <= CEILINGS[name, chip.name][k] for k in measured), measured
