"""Tiles of the GPU kernel of matrix products, by the same model as `plan`: registers, and instructions of a pair.

A weight takes what its formula takes, once for every block of columns; a column takes one fused multiply-add for a
pair, and loads from shared memory which serve several.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from ..description import Description
from ..long_features import size
from ..reduction import ShiftedSum
from ..weighted_sums import WeightedSums
from . import long_plan
from .plan import LANES, LIMIT, OVERHEAD, STEP, Model, TritonPlan, chip
from .products import LEAST, Values, kind_of, padded, stages_of, width_of
from .stages import Stages

# Numbers of j of a step, and terms of a chain of additions: longer sums are summed by groups.
NUMBERS, CHAIN = 32, 1024
# Registers of a thread for accumulators; where sums are grouped there are two of each.
HELD = 64
COLUMNS = (128, 64, 32, 16)
# Loads of a column, for each pair; of a weight that goes through shared memory.
SHARED, EXCHANGED = 0.1, 2.0
# Steps that a part of j has at least, where j is split.
STEPS_OF_A_PART = 8


def choose(desc: Description, sums: WeightedSums, platform: str) -> TritonPlan:
    """The rows, columns and warps of a program that take the fewest instructions for a pair."""
    stages, target = stages_of(desc, sums), chip()
    best = min(_models(desc, sums, stages), key=lambda m: m[0].pair)
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


def _models(desc: Description, sums: WeightedSums, stages: Stages) -> Iterator[tuple[Model, int, int, int]]:
    """(model, rows of a program, warps, columns of a block)."""
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
    for columns in COLUMNS:
        if columns >= 2 * widest and columns > LEAST:
            continue
        blocks = -(-widest // columns)
        for block_i, warps in ((64, 8), (64, 4), (32, 4), (16, 4)):
            if block_i > LEAST and block_i >= 2 * desc.m:
                continue
            threads = LANES * warps
            held = words * terms * block_i * columns // threads * (1 + nested)
            pairs = block_i * NUMBERS // threads
            rows = max(1, block_i // warps)
            registers = OVERHEAD + held + 3 * pairs * words + rows * row + columns * NUMBERS // threads
            registers += shorts * pairs * (1 + nested)
            if (held > HELD or registers > LIMIT) and (columns, block_i) != (LEAST, LEAST):
                continue
            weight = own + 1 + EXCHANGED + (column + long.of_j) / rows + long.own + long.of_i + STEP / pairs
            weight += shifted * (2 + 5 * LANES / NUMBERS + columns * terms / NUMBERS)
            weight += long.features * STEP / long_plan.FEATURES / rows
            weight += features * (1 + 2 * SHARED)
            product = terms * columns * (1 + SHARED)
            pair = blocks * (weight + product)
            floats = blocks * (long.own + own - special + features + terms * columns)
            yield (
                Model(rows, 1, registers, pair, floats, blocks * (special + long.special), nested),
                block_i,
                warps,
                columns,
            )
