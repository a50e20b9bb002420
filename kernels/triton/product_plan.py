"""Tiles of the GPU kernel of matrix products, by the same model as `plan`: registers, and instructions of a pair.

A weight takes what its formula takes, once for every block of columns; a column takes one fused multiply-add for a
pair, and loads from shared memory which serve several.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

from ..description import Description
from ..long_features import size
from ..reduction import ShiftedSum
from ..weighted_sums import WeightedSums
from . import long_plan
from .plan import LANES, LIMIT, OVERHEAD, STEP, Model, TritonPlan, chip, price
from .products import FEATURES, LEAST, Values, kind_of, padded, stages_of, width_of
from .stages import Stages

# Numbers of j of a step, and terms of a chain of additions: longer sums are summed by groups.
NUMBERS, CHAIN = 32, 1024
# Registers of a thread for accumulators; where sums are grouped there are two of each.
HELD = 32
COLUMNS = (128, 64, 32, 16)
PROGRAMS = ((64, 8), (64, 4), (32, 8), (32, 4), (16, 4))  # rows and warps
# Loads of a column, for each pair; of a weight that goes through shared memory.
SHARED, EXCHANGED = 0.1, 2.0
# Steps that a part of j has at least, where j is split.
STEPS_OF_A_PART = 8


class Candidate(NamedTuple):
    model: Model
    block_i: int
    warps: int
    columns: int  # of a block


def choose(desc: Description, sums: WeightedSums, platform: str) -> TritonPlan:
    """The rows, columns and warps of a program that take the fewest instructions for a pair."""
    stages, target = stages_of(desc, sums), chip()
    best = min(_candidates(desc, sums, stages), key=lambda c: price(c.model))
    model, block_i, warps, columns = best
    blocks = -(-max(width_of(sums, t) for t in sums.terms) // columns)
    programs = -(-desc.m // block_i) * blocks * math.prod(desc.batch)
    wanted = 2 * target.multiprocessors * max(1, target.registers // (max(model.registers, 32) * LANES * warps))
    splits = 1
    if programs < wanted:
        splits = max(1, min(-(-wanted // programs), desc.n // (NUMBERS * STEPS_OF_A_PART)))
    return TritonPlan(
        block_i, NUMBERS, warps, splits=splits, features=long_plan.FEATURES if stages.loops else 0, columns=columns,
        group=CHAIN // NUMBERS, assembly=platform == "cuda", interpret=platform not in ("cuda", "rocm"),
        registers=model.registers, instructions=round(model.pair, 2), chip=target.name,
        reason="results with long features are matrix products",
        bound=target.pairs_per_second(model.pair, model.floats, model.special),
    )  # fmt: skip


def _candidates(desc: Description, sums: WeightedSums, stages: Stages) -> Iterator[Candidate]:
    """Of every size of a program that registers allow."""
    values = Values(desc, sums, stages, assembly=False)
    long = long_plan.cost(desc, stages)
    parts = [p.program for p in (values.score, values.rest)]
    own, special, column = (sum(x) for x in zip(*(p.cost() for p in parts), strict=True))
    row = sum(p.words()[0] for p in parts)
    widest = max(width_of(sums, t) for t in sums.terms)
    terms = len(sums.terms)
    words = max(kind_of(sums, t).itemsize // 4 for t in sums.terms)
    shifted = isinstance(desc.reduction, ShiftedSum)
    nested = desc.n > CHAIN
    features = sum(padded(size(x.of_i[0])) for x in sums.inner)
    shorts = sum(size(v) for v in sums.short.rest.jaxpr.outvars) - len({t.weight for t in sums.terms}) - shifted
    for columns, (block_i, warps) in itertools.product(COLUMNS, PROGRAMS):
        if (columns > LEAST and columns >= 2 * widest) or (block_i > LEAST and block_i >= 2 * desc.m):
            continue  # a smaller one holds everything
        blocks, threads, rows = -(-widest // columns), LANES * warps, max(1, block_i // warps)
        pairs = block_i * NUMBERS // threads
        held = terms * block_i * columns // threads
        # Beside accumulators: weights and what they are made of, rows of j, sides of inner products, rescaling.
        tiles = 2 * pairs + columns * NUMBERS // threads + 3 * pairs * shifted
        tiles += bool(features) * (pairs + (block_i + NUMBERS) * FEATURES // threads)
        sums_of_shorts = shorts * pairs
        registers = OVERHEAD + words * ((held + sums_of_shorts) * (1 + nested) + tiles) + rows * row
        if (words * held > HELD or registers > LIMIT) and (columns, block_i) != (LEAST, LEAST):
            continue
        weight = own + 1 + EXCHANGED + (column + long.of_j) / rows + long.own + long.of_i + STEP / pairs
        weight += shifted * (2 + 5 * LANES / NUMBERS + columns * terms / NUMBERS)
        weight += long.features * STEP / long_plan.FEATURES / pairs + features * (1 + 2 * SHARED)
        pair = blocks * (weight + terms * columns * (1 + SHARED))
        floats = blocks * (long.own + own - special + features + terms * columns)
        yield Candidate(
            Model(rows, 1, registers, pair, floats, blocks * (special + long.special), nested), block_i, warps, columns
        )
