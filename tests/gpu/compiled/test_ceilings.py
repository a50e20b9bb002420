"""The inner loops in machine code: how many instructions a pair takes, and nothing there that should not be."""

from __future__ import annotations

import pytest

from bench.gpu_instructions import FORMULAS, count

from ..chips import A100, H100, Chip
from .ceilings import CEILINGS

# How many exponentials a pair takes, where that is known.
SHIFTED = ("logsumexp", "attention")
EXPONENTIALS = {
    name: 0 if "argmin" in name or "feature" in name else 1
    for name in FORMULAS
    if not any(word in name for word in SHIFTED)
}


@pytest.mark.parametrize("chip", [H100, A100], ids=lambda c: c.name)
@pytest.mark.parametrize("name", FORMULAS)
def test_instructions_of_a_pair(name: str, chip: Chip) -> None:
    found = count(name, chip)
    if name in EXPONENTIALS:
        assert found.loop.opcodes["MUFU.EX2"] == EXPONENTIALS[name] * found.tiles.pairs
    if "attention" not in name:  # the maximum of a block
        assert found.loop.count("SHFL") == 0, "a shuffle for every pair"
    assert found.loop.count("LDL", "STL") == 0, "registers are spilled for every pair"
    assert found.kernel.assembled.spilled == 0
    assert found.instructions <= CEILINGS[name]
