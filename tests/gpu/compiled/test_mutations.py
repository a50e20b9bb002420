"""A compiled kernel that is broken on purpose: the emulator must notice, or the numbers must."""

from __future__ import annotations

import re
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from lazyjax import Vi, Vj

from ..chips import A100, H100, Chip
from ..emulating import Launch, emulate
from ..ptx import MemoryFault, PtxError, RaceError, run

X, Y, B = (
    np.random.default_rng(k).normal(size=s).astype(np.float32) for k, s in enumerate([(101, 3), (151, 3), (151,)])
)

pytestmark = pytest.mark.described


@pytest.fixture(scope="module", params=[H100, A100], ids=lambda c: c.name)
def launch(request: pytest.FixtureRequest) -> Launch:
    chip: Chip = request.param
    args = [jnp.asarray(a) for a in (X, Y, B)]
    got, launches = emulate(chip, lambda x, y, b: (-Vi(x).sqdist(Vj(y))).exp() @ b, *args)
    want = np.exp(-((X[:, None].astype(np.float64) - Y) ** 2).sum(-1)) @ B
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-5)
    (own,) = launches
    return own


def rerun(launch: Launch, ptx: str) -> list[Any]:
    assert ptx != launch.kernel.ptx
    like = [np.empty_like(o) for o in launch.outputs]
    return run(ptx, launch.kernel.grid, launch.inputs, like, launch.kernel.name, launch.kernel.shared)


def replaced(text: str, pattern: str, new: str) -> list[str]:
    """The text with one occurrence replaced, for each of the occurrences."""
    return [text[: m.start()] + m.expand(new) + text[m.end() :] for m in re.finditer(pattern, text)]


def test_dropped_barriers_are_races(launch: Launch) -> None:
    changed = replaced(launch.kernel.ptx, r"bar(rier)?\.sync\s+0;", "")
    assert changed
    for text in changed:
        with pytest.raises(RaceError):
            rerun(launch, text)


@pytest.mark.parametrize("access", ["ld", "st"])
def test_ignored_predicates_are_out_of_bounds(launch: Launch, access: str) -> None:
    """101 rows and 151 columns fill no tile: without its mask, some access of the last one leaves the arrays."""
    text = re.sub(rf"@!?%p\d+ ({access}\.global)", r"\1", launch.kernel.ptx)
    with pytest.raises((MemoryFault, RaceError), match=r"out of bounds|another program"):
        rerun(launch, text)


def test_masks_that_let_one_row_too_many_in(launch: Launch) -> None:
    text = re.sub(r"(setp\.lt\.[su]32\s+%p\d+, %r\d+), 101;", r"\1, 102;", launch.kernel.ptx)
    with pytest.raises(MemoryFault, match="out of bounds"):
        rerun(launch, text)


def test_what_crosses_threads_must_go_the_right_way(launch: Launch) -> None:
    """Another place in shared memory and another distance of a shuffle: an error, or a wrong number."""
    text = launch.kernel.ptx
    elsewhere = lambda m: f"{m[1]}+{int(m[2] or 0) ^ 16}]"  # noqa: E731
    changed = [re.sub(r"(ld\.shared[^\[]*\[%r?d?\d+)(?:\+(\d+))?\]", elsewhere, text, count=1)]
    changed += [re.sub(r"(shfl\.sync\.bfly\.b32\s+%r\d+, %r\d+), 1,", r"\1, 2,", text, count=1)]
    changed = [c for c in changed if c != text]
    assert changed
    for each in changed:
        try:
            (got,) = rerun(launch, each)
        except PtxError:
            continue
        assert np.abs(got - launch.outputs[0]).max() > 1e-3
