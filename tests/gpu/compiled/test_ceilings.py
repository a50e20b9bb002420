"""The inner loops in machine code: how many instructions a pair takes, and nothing there that should not be."""

from __future__ import annotations

import pytest

from bench.gpu_instructions import FORMULAS, count

from ..chips import A100, H100, Chip
from .ceilings import CEILINGS

# How many exponentials a pair takes, where that is known.
SHIFTED, NONE = ("logsumexp", "attention"), ("min", "D = 1000, for each feature")
EXPONENTIALS = {
    name: 0 if any(n in name for n in NONE) else 1 for name in FORMULAS if not any(word in name for word in SHIFTED)
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
    assert all(s.loop.count("SHFL", "LDL", "STL") == 0 for s in found.then)
    assert all(a.spilled == 0 for a in found.assembled)
    assert found.instructions <= CEILINGS[name]
