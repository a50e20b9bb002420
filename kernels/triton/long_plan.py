"""Tiles of the GPU kernel of long features, by the same model as `plan`: registers, and instructions of a pair.

A thread holds R rows beside C blocks of j.  What a loop over features contracts takes R C registers; for each feature
it loads R numbers of i and C of j, which serve R C pairs.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator

from ..description import Description
from ..long_features import size
from ..reduction import TracedReduction
from .arithmetic.expression import J
from .body import Fold
from .plan import LANES, LIMIT, LOOP, OVERHEAD, STEP, Model, TritonPlan, chip, price, words
from .stages import FeatureLoop, Stages, rest_of, words_of

WARPS = 4
# Features that a step of a loop takes, at most.
FEATURES = 4
# Rows of a thread: of a program with more, Triton loads numbers of i by way of shared memory.
ROWS = (16, 8, 4, 2, 1)
BLOCKS = (8, 4, 2, 1)
# Steps that a part of j has at least, where j is split: each of them is long.
STEPS_OF_A_PART = 1


@dataclasses.dataclass(frozen=True)
class Cost:
    """What the loops take for one feature, and the rest for one pair."""

    own: float  # instructions of a pair and feature, times features
    of_i: float  # of a row, those that serve all blocks
    of_j: float  # of a column, those that serve all rows
    special: float
    features: int  # of all loops
    contracted: int  # words of a pair that stay in registers
    read: tuple[int, int]  # words of i and of j that a feature takes


def cost(desc: Description, stages: Stages) -> Cost:
    own = of_i = of_j = special = 0.0
    features, i, j = 0, 0, 0
    for which in range(len(stages.loops)):
        loop = FeatureLoop(desc, stages, which, 1, 1, assembly=False)
        pair, approximate, column = loop.program.cost()
        rows = [v for v, *_ in loop.rows if stages.axis(v) != "j"]
        columns = [v for v, *_ in loop.rows if stages.axis(v) == "j"]
        moved = sum(not n.reads & J and n.name != "argument" for n in loop.program.nodes)
        own, special = own + loop.length * pair, special + loop.length * approximate
        of_i += loop.length * (len(rows) + moved)
        of_j += loop.length * (len(columns) + column)
        features += loop.length
        i, j = max(i, sum(map(_number, rows))), max(j, sum(map(_number, columns)))
    held = sum(words_of(v) for eqns in stages.loops for eqn in eqns for v in eqn.outvars)
    return Cost(own, of_i, of_j, special, features, held, (i, j))


def _number(v: object) -> int:
    return words_of(v) // size(v)


def models(desc: Description, traced: TracedReduction, stages: Stages, group: int) -> Iterator[Model]:
    """Of every number of rows and blocks that registers allow."""
    long, rest = cost(desc, stages), rest_of(desc, stages)
    program = Fold(rest, traced, 1, assembly=False).program
    own, special, column = program.cost()
    row, width = program.words()
    accumulators = sum(math.prod(a.shape) * words(a.dtype) for a in traced.acc_avals)
    for rows in ROWS:
        for blocks in BLOCKS:
            nested = int(desc.reduction.rounds and desc.n > LANES * blocks * group)
            held = rows * (row + accumulators * (1 + nested)) + rows * blocks * long.contracted + OVERHEAD
            registers = held + max(rows * long.read[0] + blocks * long.read[1], rows * min(width, 4))
            code = rows * blocks * FEATURES * long.own / max(1, long.features)
            if (rows, blocks) != (1, 1) and (registers > LIMIT or code > LOOP):
                continue
            steps = long.features * STEP / FEATURES / (rows * blocks)
            pair = long.own + long.of_i / blocks + long.of_j / rows + steps + own + column / rows
            floats = long.own - long.special + own - special
            yield Model(rows, blocks, registers, pair, floats, long.special + special, nested)


def choose(desc: Description, traced: TracedReduction, stages: Stages, platform: str) -> TritonPlan:
    """The rows of a thread and the blocks of a step that take the fewest instructions for a pair."""
    group, target = TritonPlan.group, chip()
    best = min(models(desc, traced, stages, group), key=price)
    block_i, blocks = min(best.rows * WARPS, 1 << max(0, desc.m - 1).bit_length()), best.unroll
    block_j = LANES
    while block_i * block_j < WARPS * LANES:  # where there are few rows, warps stand along j
        block_j *= 2
    wanted = target.programs(best.registers, WARPS)
    programs = functools.partial(_programs, desc)
    # Few programs: smaller steps, so that there are enough of them to share out.
    while programs(block_i) * desc.n < wanted * STEPS_OF_A_PART * block_j * blocks and (blocks > 1 or block_i > WARPS):
        blocks, block_i = (blocks // 2, block_i) if blocks > 1 else (1, block_i // 2)
    splits = 1
    if (count := programs(block_i)) < wanted:
        splits = max(1, min(-(-wanted // count), desc.n // (block_j * blocks * STEPS_OF_A_PART)))
    return TritonPlan(
        block_i, block_j, WARPS, unroll=blocks, splits=splits, features=FEATURES,
        group=group if best.registers <= LIMIT else 1 << 30,
        assembly=platform == "cuda", interpret=platform not in ("cuda", "rocm"), registers=best.registers,
        instructions=round(best.pair, 2), chip=target.name, reason="features are long",
        bound=target.pairs_per_second(best.pair, best.floats, best.special),
    )  # fmt: skip


def _programs(desc: Description, block_i: int) -> int:
    return -(-desc.m // block_i) * math.prod(desc.batch)
