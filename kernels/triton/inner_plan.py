"""Whether the inner products of a short result are matrix products, and in which tiles, by the same model as `plan`.

A program loads pieces of both sides, F features at a time, by way of shared memory, 16 bytes a thread; of these a warp
multiplies (WI, F) by (F, WJ).  What a loop over features takes instead stands in `long_plan`: one fused multiply-add
for each pair and feature at least.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ..description import Description
from ..long_features import size
from ..reduction import TracedReduction
from ..weighted_sums import WeightedSums, inner_products
from . import long_plan
from .body import Fold, computing
from .inner_products import FEATURES, PRODUCTS, half, padded
from .plan import LANES, LIMIT, OVERHEAD, STEP, Chip, Model, TritonPlan, chip, crowding, words
from .stages import Stages, rest_of, stages_of

# Rows, numbers of j of a step, and warps.
PROGRAMS = ((32, 128, 4), (32, 64, 4), (32, 32, 2), (16, 64, 4), (16, 32, 2), (16, 32, 4), (16, 16, 1), (16, 16, 2))
# Where four warps multiply 64 rows together (wgmma), which they read from shared memory as they are, and not a float64.
WARPGROUP_PROGRAMS = ((64, 64, 4), (128, 64, 8))
WARPGROUP = 8  # times as many numbers as an instruction of one warp multiplies
WIDE = 4  # words of 32 bits that a thread loads at once
# Instructions of such a load on its way to shared memory: itself, the store, addresses, its share of barriers.
LOAD = 5
# Rows or columns that a matrix product adds to an array, at most.
PADDED = 128
# Steps that a part of j has at least, where j is split.
STEPS_OF_A_PART = 4


class Kind(NamedTuple):
    """How numbers of a dtype are multiplied: 32-bit words of a number, and how many a thread reads at once from shared
    memory; for each pair and feature the instructions, arithmetic of floats, and multiplications of tensor cores, as
    many of TF32 as take as long."""

    words: float
    read: int
    instructions: float
    floats: float
    tensor: float
    totals: int = 1  # words of the sums of a pair, while there are any


# One instruction multiplies 16 by 8 by 16 numbers of half precision: 64 of each thread; of float64 8 by 8 by 4.  Tensor
# cores multiply half precision twice as fast as TF32, and float64 twice as fast as other lanes.
HALF = Kind(0.5, 4, 1 / 64, 0.0, 0.5)
SINGLE = Kind(1.5, 4, len(PRODUCTS) / 64, 0.0, len(PRODUCTS) / 2, totals=2)
DOUBLE = Kind(2.0, 2, 1 / 8, 0.5, 0.0, totals=2)


class Cost(NamedTuple):
    """What all inner products take: of a pair, and registers of a thread."""

    instructions: float
    floats: float
    tensor: float
    registers: int


def cost(sums: WeightedSums, block_i: int, block_j: int, warps: int, warpgroup: bool) -> Cost:
    """Of a program that takes tensor cores."""
    pairs, (rows, columns) = block_i * block_j / (LANES * warps), warp_tile(block_i, block_j, warps)
    instructions = floats = tensor = 0.0
    held, flying = 0, 0
    for x in sums.inner:
        kind = HALF if half(sums, x) else DOUBLE if computing(x.dtype) == np.float64 else SINGLE
        length = padded(size(x.of_i[0]))
        step = min(length, FEATURES)
        loads = (block_i + block_j) * step * kind.words / (WIDE * LANES * warps)
        fragments = kind.words / kind.read * (1 / rows + 1 / columns) + kind.instructions
        fragments = kind.instructions / WARPGROUP if warpgroup else fragments
        instructions += length * (fragments + (LOAD * loads + STEP) / (pairs * step))
        instructions += 2 * kind.totals  # zeros, and what brings the sums together
        floats, tensor = floats + length * kind.floats, tensor + length * kind.tensor
        held += words(x.dtype)
        flying = max(flying, int(pairs * (kind.totals - words(x.dtype)) + WIDE * loads))
    return Cost(instructions, floats, tensor, int(pairs * held) + flying)


def warp_tile(block_i: int, block_j: int, warps: int) -> tuple[int, int]:
    """Rows and columns of a warp, as Triton shares out a matrix product."""
    along_i, along_j = 1, 1
    while along_i * along_j < warps:
        if block_i // along_i >= block_j // along_j and block_i > 16 * along_i:
            along_i *= 2
        else:
            along_j *= 2
    return max(16, block_i // along_i), max(8, block_j // along_j)


class Candidate(NamedTuple):
    model: Model
    block_i: int
    block_j: int
    warps: int
    bound: float  # pairs per second
    warpgroup: bool

    @property
    def worth(self) -> tuple[float, float]:
        """Pairs per second, fewer where registers leave room for few warps, which four together do with; of two that
        are alike, fewer instructions."""
        return self.bound / (1 if self.warpgroup else crowding(self.model.registers)), -self.model.pair


def choose_way(desc: Description, traced: TracedReduction, loops: TritonPlan, platform: str) -> TritonPlan:
    """`loops`, the tiles of the kernel that walks through features, or, where they take less time, those of matrix
    products."""
    sums = inner_products(desc)
    reason = sums if isinstance(sums, str) else refused(desc, sums, platform)
    if reason is None and isinstance(sums, WeightedSums):
        stages, target = stages_of(sums.short, sums.short_roles), chip()
        found = list(_candidates(desc, traced, sums, stages, target))
        best = max(found, key=lambda c: c.worth, default=None)
        if best is not None and best.worth[0] > loops.bound / crowding(loops.registers):
            return _plan(desc, stages, best, target)
        reason = "they take more time" if best else "their tiles are too many for registers"
    return dataclasses.replace(loops, reason=f"{loops.reason}, and no matrix products: {reason}")


def refused(desc: Description, sums: WeightedSums, platform: str) -> str | None:
    """None, or why tensor cores do not take these inner products."""
    if platform != "cuda":
        return "tensor cores are taken on CUDA alone"
    if desc.precision != "fast" and any(computing(x.dtype) != np.float64 for x in sums.inner):
        return f"tensor cores do not round as precision='{desc.precision}' says"
    longest = max(padded(size(x.of_i[0])) for x in sums.inner)
    if (max(desc.m, desc.n) + PADDED) * longest > np.iinfo(np.int32).max:
        return "an array of more than 2**31 elements, padded, is beyond the 32-bit offsets of its loads"
    return None


def _candidates(
    desc: Description, traced: TracedReduction, sums: WeightedSums, stages: Stages, target: Chip
) -> Iterator[Candidate]:
    """Of every size of a program that registers allow."""
    long, program = long_plan.cost(desc, stages), Fold(rest_of(desc, stages), traced, 1, assembly=False).program
    own, special, column = program.cost()
    row, _ = program.words()
    loads = sum(size(v) for v in stages.inputs if stages.axis(v) == "j")
    accumulators = sum(math.prod(a.shape) * words(a.dtype) for a in traced.acc_avals)
    together = target.warpgroup and all(computing(x.dtype) != np.float64 for x in sums.inner)
    for block_i, block_j, warps in (*PROGRAMS, *(WARPGROUP_PROGRAMS if together else ())):
        warpgroup = (block_i, block_j, warps) in WARPGROUP_PROGRAMS
        inner, (high, wide) = cost(sums, block_i, block_j, warps, warpgroup), warp_tile(block_i, block_j, warps)
        rows, columns, pairs = high // 8, wide // 4, block_i * block_j // (LANES * warps)
        nested = int(desc.reduction.rounds and desc.n > block_j * TritonPlan.group)
        held = pairs * (accumulators * (1 + nested) + long.contracted) + rows * row
        registers = OVERHEAD + held + inner.registers + rows * long.read[0] + columns * long.read[1]
        if registers > LIMIT:
            continue
        pair = own + (1.25 * loads + column + long.of_j) / rows + long.own + long.of_i / columns
        pair += STEP * (1 + long.features / long_plan.FEATURES) / pairs + inner.instructions
        floats, few = long.own - long.special + own - special + inner.floats, _idle(desc, block_i)
        bound = target.pairs_per_second(pair, floats, special + long.special, inner.tensor, warpgroup) / few
        model = Model(rows, 1, registers, pair, floats, special + long.special, nested)
        yield Candidate(model, block_i, block_j, warps, bound, warpgroup)


def _idle(desc: Description, block_i: int) -> float:
    """How many rows programs have for each one that there is."""
    return max(1.0, -(-desc.m // block_i) * block_i / max(1, desc.m))


def _plan(desc: Description, stages: Stages, best: Candidate, target: Chip) -> TritonPlan:
    programs = -(-desc.m // best.block_i) * math.prod(desc.batch)
    wanted, splits = target.programs(best.model.registers, best.warps), 1
    if programs < wanted:
        splits = max(1, min(-(-wanted // max(1, programs)), desc.n // (best.block_j * STEPS_OF_A_PART)))
    return TritonPlan(
        best.block_i, best.block_j, best.warps, splits=splits, features=long_plan.FEATURES if stages.loops else 0,
        registers=best.model.registers, instructions=round(best.model.pair, 2), chip=target.name, bound=best.bound,
        reason="features are long, and inner products of them are matrix products", assembly=True, products=True,
    )  # fmt: skip
