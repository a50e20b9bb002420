"""The inner loops in machine code: how many instructions a pair takes, and nothing there that should not be."""

from __future__ import annotations

import pytest

from bench.gpu_instructions import FORMULAS, count

from ...full import FULL
from ..chips import A100, H100, Chip
from .ceilings import CEILINGS

pytestmark = pytest.mark.described

# How many exponentials a pair takes, where that is known.
SHIFTED, NONE = ("logsumexp", "attention"), ("min", "D = 1000, for each feature")
EXPONENTIALS = {
    name: 0 if any(n in name for n in NONE) else 1 for name in FORMULAS if not any(word in name for word in SHIFTED)
}


# The H100 is the measure; its loops and the A100's are nearly the same.
ROWS = [*((name, H100) for name in FORMULAS), *((name, A100) for name in list(FORMULAS)[:: 1 if FULL else 3])]


@pytest.mark.parametrize("name, chip", ROWS, ids=lambda v: getattr(v, "name", v))
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
