"""Which kernel, which tiles, and why the others were refused."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import numpy as np

from . import dense, elementary, pallas_triton, scalarize, xla, xla_passes
from .description import Description
from .pairs import nothing
from .reduction import Selection, ShiftedSum, trace
from .sharing import Kept, shared_scalars

KERNELS = {k.name: k for k in (pallas_triton, xla, dense)}
GPU = ("cuda", "rocm")

# One core's second-level cache, in bytes: what a tile of i and its accumulators should fit in.
CACHE = 1 << 20
# Instructions that one unrolled loop body may hold: beyond it, compile time grows and speed does not.
UNROLLED = 640
# Scalar operations on one pair beyond which features are no longer unrolled.
SCALARS = 512
# Pairs from which a longer program, with several loops, earns its compilation.
LARGE = 1 << 20


class UnsupportedError(ValueError):
    """The kernel that was asked for cannot run this reduction; the text says why and what to do."""


@dataclasses.dataclass(frozen=True)
class XlaPlan:
    """Tiles of the `xla` kernel."""

    shape: Literal["lanes", "products", "block", "groups", "passes"]
    tile_i: int
    tile_j: int = 0  # block: pairs of one row that are held at once; groups: minima of one row
    unroll: int = 1  # lanes: j's written out in the loop body; groups: pairs of a group
    segments: int = 1  # lanes: parts of j that run side by side where i alone is too short
    group: int = 256  # lanes: chunks that are summed before they meet the total
    elementary: bool = False  # exp, sin, cos, tan of float32 by `elementary`, where the platform's are slow
    angles: bool = False  # lanes: sin, cos, tan first look whether all angles are small
    kept: Kept = dataclasses.field(default_factory=Kept)  # lanes, products: what is computed first, see `sharing`
    passes: tuple[XlaPlan, ...] = ()  # passes: the plan of each
    problems: int | None = None  # batch: problems that are vectorised together
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Plan:
    """The choice made for one description on one platform."""

    kernel: str
    tiles: Any
    platform: str
    operations: int | None  # scalar operations on one pair
    refused: tuple[tuple[str, str], ...]  # (kernel, reason)

    def lower(self, desc: Description) -> Callable[..., Sequence[jax.Array]]:
        """A JAX function of the arrays of the description."""
        empty = [s for s in (desc.m, desc.n, *desc.batch) if isinstance(s, int) and s == 0]
        return nothing(desc) if empty else KERNELS[self.kernel].lower(desc, self.tiles)


@functools.lru_cache(maxsize=1024)
def operations(desc: Description) -> int | str:
    """Scalar operations on one pair, or why its features cannot be held as scalars."""
    try:
        total = scalarize.count(desc.pair.jaxpr)
        values = trace(desc.reduction, tuple((v.shape, v.dtype) for v in desc.pair.out_avals), desc.index_dtype)
        total += scalarize.count(values.fold(1))
        if scalarize.moves_by_index(desc.pair.jaxpr):
            jax.eval_shape(lambda: _dry_run(desc))  # finds indices that depend on the data
        return total
    except scalarize.Unsupported as error:
        return str(error)


def _dry_run(desc: Description) -> None:
    args = []
    for aval in desc.pair.in_avals:
        one = jax.numpy.zeros((), aval.dtype)
        args.append(scalarize.tiles(aval.shape, [one] * math.prod(aval.shape)))
    scalarize.evaluate(desc.pair.jaxpr, args)


def plan(desc: Description, platform: str) -> Plan:
    """Choose a kernel for a platform ("cpu", "cuda", "rocm", "tpu"), or refuse with the reason."""
    cost = operations(desc)
    number = cost if isinstance(cost, int) else None
    refused: list[tuple[str, str]] = []
    if desc.backend is not None:
        kernel = KERNELS[desc.backend]
        if (reason := _refusal(desc, kernel, platform, cost)) is not None:
            raise UnsupportedError(
                f"backend={desc.backend!r} cannot run this reduction on {platform}: {reason}. "
                "Leave backend=None to let the planner choose a kernel that can."
            )
        return Plan(desc.backend, _tiles(desc, desc.backend, cost, platform), platform, number, ())
    if platform in GPU:
        reason = _refusal(desc, pallas_triton, platform, cost)
        if reason is None:
            return Plan("pallas-triton", _tiles(desc, "pallas-triton", cost, platform), platform, number, ())
        refused.append(("pallas-triton", reason))
    else:
        refused.append(("pallas-triton", f"it is for {' and '.join(GPU)}, not {platform}"))
    refused.append(("dense", "it holds all pairs in memory, so it runs only when asked for"))
    return Plan("xla", _tiles(desc, "xla", cost, platform), platform, number, tuple(refused))


def _refusal(desc: Description, kernel: Any, platform: str, cost: int | str) -> str | None:
    """Why a kernel cannot run this description, None if it can."""
    if kernel is pallas_triton and isinstance(cost, str):
        return cost
    return kernel.supports(desc, platform)


def _tiles(desc: Description, kernel: str, cost: int | str, platform: str) -> Any:
    if kernel == "xla":
        return plan_xla(desc, cost, platform)
    if kernel == "pallas-triton":
        return pallas_triton.plan(desc, platform)
    return None


def plan_xla(desc: Description, cost: int | str, platform: str) -> XlaPlan:
    """Tiles from sizes, features and formula cost."""
    if isinstance(cost, str):
        return _block(desc, cost)
    if isinstance(desc.reduction, Selection) and desc.reduction.group_reduction() is not None:
        plan = _groups(desc, cost, platform)
        if plan is not None:
            return plan
        if desc.reduction.k > 1:
            return _block(desc, "the reduction selects among many values at once")
    if cost > SCALARS:
        return _block(desc, f"{cost} operations on one pair are too many to unroll")
    large = isinstance(desc.m, int) and isinstance(desc.n, int) and desc.m * desc.n >= LARGE
    if isinstance(desc.reduction, ShiftedSum) and desc.over == "j" and large:
        plans = tuple(plan_xla(one, operations(one), platform) for one in xla_passes.passes(desc))
        return XlaPlan("passes", 1, passes=plans, reason="first the maximum, then the sums")
    return _lanes(desc, platform, large)


def _lanes(desc: Description, platform: str, large: bool) -> XlaPlan:
    traced = trace(desc.reduction, tuple((v.shape, v.dtype) for v in desc.pair.out_avals), desc.index_dtype)
    # The CPU's compiler writes a loop for each result; others fuse them.
    shared = shared_scalars(desc, pairs=large and platform == "cpu")
    own = [a for a, r in zip(desc.pair.in_avals, desc.roles, strict=True) if r == "i"]
    row_bytes = sum(math.prod(a.shape) * np.dtype(a.dtype).itemsize for a in [*own, *traced.acc_avals])
    lanes = _power_of_two(CACHE // max(row_bytes, 8), 512, 16384)
    m, n = desc.m, desc.n
    tile = _balanced(m, lanes) if isinstance(m, int) else 4096
    together = max(1, lanes // tile)
    inside = min(together, math.prod(desc.batch)) if all(isinstance(b, int) for b in desc.batch) else 1
    segments = 1
    if isinstance(n, int) and tile * inside < 1024 and n >= 4096:
        # Too few rows to fill the vectors and the cores: cut j.
        segments = _power_of_two(min(8192 // (tile * inside), n // 256), 1, 8192)
    # Many results make many loops: those of small problems are not worth compiling at length.
    body, program = UNROLLED // max(shared.largest, 1), (8 if large else 1) * UNROLLED // max(shared.total, 1)
    unroll = _power_of_two(min(body, program), 1, 32)
    if isinstance(n, int):
        unroll = min(unroll, _power_of_two(max(1, n // segments), 1, 32))
    shape = "lanes"
    if shared.linear:
        one_dtype = len({np.dtype(a.dtype) for a in traced.acc_avals}) == 1
        if desc.reduction.adds and one_dtype and sum(math.prod(a.shape) for a in traced.acc_avals) >= 3:
            shape, unroll = "products", _power_of_two(max(1, n // segments), 1, 64)
    alone = together < 2 or not desc.batch  # a branch of vectorised problems would take both ways
    angles = platform == "cpu" and large and segments == 1 and alone and shape == "lanes"
    angles = angles and elementary.takes_angles(scalarize.primitives(desc.pair.jaxpr))
    group = max(1, 4096 // unroll) if desc.reduction.rounds else np.iinfo(np.int32).max
    return XlaPlan(
        shape, tile, unroll=unroll, segments=segments, group=int(group), problems=together, kept=shared.kept,
        elementary=platform == "cpu", angles=angles,
    )  # fmt: skip


def _block(desc: Description, reason: str) -> XlaPlan:
    """Tiles such that the largest array of pairs takes a few megabytes."""
    widest = max([1, *(math.prod(v.aval.shape) for e in desc.pair.jaxpr.jaxpr.eqns for v in e.outvars)])
    pairs = max(64 * 64, (1 << 20) // widest)
    m, n = desc.m, desc.n
    side = _power_of_two(int(math.sqrt(pairs)), 64, 1024)
    tile_i = _balanced(m, side) if isinstance(m, int) else side
    tile_j = _balanced(n, max(64, pairs // tile_i)) if isinstance(n, int) else side
    together = max(1, pairs // (tile_i * tile_j))
    return XlaPlan("block", tile_i, tile_j=tile_j, problems=together, reason=reason)


def _groups(desc: Description, cost: int, platform: str) -> XlaPlan | None:
    """Group minima, where there are so many pairs that looking again at K groups costs little."""
    assert isinstance(desc.reduction, Selection)
    k, m, n = desc.reduction.k, desc.m, desc.n
    scalar = all(math.prod(v.shape) == 1 for v in desc.pair.out_avals)
    if not (scalar and isinstance(m, int) and isinstance(n, int) and cost <= SCALARS):
        return None
    group = _power_of_two(8 * UNROLLED // cost, 8, 64) if k == 1 else 32
    if n < 8 * k * group:
        return None
    if k == 1:
        if m < 4096:
            return None  # the lanes of a tile would not be filled, and j is not cut here
        return XlaPlan("groups", _balanced(m, 16384), unroll=group, problems=1, elementary=platform == "cpu",
                       reason="minima of groups find the smallest")  # fmt: skip
    tile = _balanced(m, 4096)
    stretch = max(2 * k, (1 << 21) // tile)  # minima that are held at once
    reason = "minima of groups find the K smallest"
    return XlaPlan("groups", tile, tile_j=stretch, unroll=group, problems=1, elementary=platform == "cpu",
                   reason=reason)  # fmt: skip


def _balanced(size: int, most: int) -> int:
    """A tile of at most `most` (a multiple of 16 where there are several), so that little is padded."""
    if size <= most:
        return max(size, 1)
    count = -(-size // most)
    return -(-size // count // 16) * 16 if size // count >= 16 else -(-size // count)


def _power_of_two(size: int, least: int, most: int) -> int:
    return max(least, min(most, 1 << max(0, int(size).bit_length() - 1)))
