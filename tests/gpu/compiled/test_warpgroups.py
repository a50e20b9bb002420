"""Both kernels of matrix products in programs of 64 rows and more, which the H100 multiplies by `wgmma`: compiled for
it, and emulated, whatever tiles the planner takes."""

from __future__ import annotations

import dataclasses
import itertools
import re
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from lazyjax.kernels import plan

from ...full import FULL
from .. import emulating
from ..chips import H100
from ..emulating import Launch, emulate
from ..ptx import DivergenceError, MemoryFault, PtxError, RaceError, run
from ..test_inner_products import arguments as inner_arguments
from ..test_products import FORMULAS as PRODUCTS
from ..test_products import arguments
from .test_cases import TOLERANCE, check, compare
from .test_inner_products import MORE as INNER
from .test_mutations import replaced

pytestmark = pytest.mark.described


def take(patch: pytest.MonkeyPatch, tiles: tuple[int, ...]) -> None:
    """Rows, numbers of j of a step, warps and stages of all kernels that the planner chooses."""
    block_i, block_j, warps, stages = tiles
    new = {"block_i": block_i, "block_j": block_j, "warps": warps, "stages": stages}

    def planned(desc: Any, platform: str) -> Any:
        own = plan(desc, platform)
        return dataclasses.replace(own, tiles=dataclasses.replace(own.tiles, **new))

    patch.setattr(emulating, "plan", planned)


# Rows, columns and features that fill no tile.
CHOSEN = [
    ("logsumexp", "float32", (128, 64, 8, 1)), ("argmin, product form", "bfloat16", (64, 64, 4, 1)),
    ("attention", "float32", (128, 64, 8, 1)), ("K @ b", "float32", (64, 32, 4, 2)),
    ("causal", "float32", (64, 32, 4, 1)),
]  # fmt: skip
TILES = [(64, 64, 4, 1), (64, 64, 4, 3), (128, 64, 8, 1)]
PRODUCT_TILES = [(64, 32, 4, 1), (64, 32, 4, 3), (64, 64, 4, 2), (128, 32, 4, 1), (128, 64, 8, 1)]
DTYPES = ("float32", "bfloat16")  # no wgmma multiplies float64
ROWS = CHOSEN
if FULL:
    many = [name for name in PRODUCTS if name != "few columns"]
    ROWS = [*itertools.product(INNER, DTYPES[:1], TILES), *itertools.product(many, DTYPES, PRODUCT_TILES)]


@pytest.mark.parametrize("name, dtype, tiles", ROWS, ids=str)
def test_formula(name: str, dtype: str, tiles: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    take(monkeypatch, tiles)
    rows = 2 * tiles[0] - 30
    if name in INNER:
        (ours, dense), args = INNER[name], inner_arguments(dtype, rows, 70)
    else:
        (ours, dense), args = PRODUCTS[name], arguments(dtype, rows, 70, 50)
    got, launches = emulate(H100, ours, *args, backend="pallas-triton")
    compare(got, dense(*(a.astype(jnp.float64) for a in args)), TOLERANCE[dtype])
    assert all("wgmma" in launch.kernel.ptx for launch in launches)  # none is seen on a GPU


@pytest.fixture(scope="module", params=["sum of exponentials, 64, 1", "attention, 32, 3"])
def launch(request: pytest.FixtureRequest) -> Launch:
    """Of 64 rows: operands in shared memory, and a in registers, rows of j copied two steps ahead."""
    name, block_j, stages = request.param.split(", ")
    ours, dense = (INNER | PRODUCTS)[name]
    args = inner_arguments("float32", 50, 70) if name in INNER else arguments("float32", 50, 70, 50)
    with pytest.MonkeyPatch.context() as patch:
        take(patch, (64, int(block_j), 4, int(stages)))
        got, launches = emulate(H100, ours, *args)
    compare(got, dense(*(a.astype(jnp.float64) for a in args)), 1e-6)
    check(H100, launches, instruction="wgmma.mma_async")
    return launches[0]


def rerun(launch: Launch, ptx: str, error: float = 0.0) -> Any:
    like, kernel = [np.empty_like(o) for o in launch.outputs], launch.kernel
    return run(ptx, kernel.grid, launch.inputs, like, kernel.name, kernel.shared, error)


def test_tensor_cores_that_err_as_much_as_they_may(launch: Launch) -> None:
    for error in (1.0, -1.0):
        (got, *_) = rerun(launch, launch.kernel.ptx, error)
        assert 0 < np.abs(got - launch.outputs[0]).max() < 3e-6 * np.abs(launch.outputs[0]).max()


def test_dropped_waits_and_fences(launch: Launch) -> None:
    """Each barrier, but those that follow copies, which threads may make for themselves; all of the others: of those in
    a row one is enough."""
    text = launch.kernel.ptx
    before = re.split(r"bar\.sync\s+0;", text)
    for k, changed in enumerate(replaced(text, r"bar\.sync\s+0;", "")):
        *_, last = re.findall(r"cp\.async|(?:ld|st)\.shared|matrix|wgmma", before[k]) or [""]
        if k == 0 or last not in ("", "cp.async"):
            with pytest.raises(RaceError):
                rerun(launch, changed)
    waits = r"wgmma\.wait_group\.sync\.aligned\s+0;"
    for pattern, error, message in (
        (r"fence\.proxy\.async\.shared::cta;", RaceError, "no fence.proxy.async since it was written"),
        (r"wgmma\.fence\.sync\.aligned;", PtxError, "no wgmma.fence"),
        (waits, PtxError, "not waited for"),
        (r"wgmma\.commit_group\.sync\.aligned;", PtxError, "not waited for"),
        (r"cp\.async\.wait_group\s+\d+;", RaceError, "a copy writes which was not waited for"),
    ):
        changed = re.sub(pattern, "", text)
        if changed != text or "cp" not in pattern:
            with pytest.raises(error, match=message):
                rerun(launch, changed)
    with pytest.raises(PtxError, match="not waited for"):
        rerun(launch, replaced(text, waits, "")[-1])


def test_wrong_descriptors_and_places(launch: Launch) -> None:
    """Another swizzle or stride, and another place of what is stored: an error, or a wrong number."""
    text, changed = launch.kernel.ptx, []
    descriptor = r"((?:or|add)\.[bs]64\s+%rd\d+, %rd\d+, )(-?\d{15,});"
    for bit in (63, 62, 36, 37):
        turned = lambda m, bit=bit: f"{m[1]}{int(m[2]) % 2**64 ^ 1 << bit};"  # noqa: E731
        changed.append(re.sub(descriptor, turned, text))
    changed += replaced(text, r"(st\.shared\.v4\.b32\s+\[%rd\d+)\]", r"\1+16]")[:1]
    for each in changed:
        try:
            (got, *_) = rerun(launch, each)
        except (DivergenceError, MemoryFault, RaceError):
            continue
        assert not np.abs(got - launch.outputs[0]).max() < 1e-3 * np.abs(launch.outputs[0]).max()
