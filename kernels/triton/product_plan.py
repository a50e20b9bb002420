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
from .inner_products import FEATURES, LEAST, padded
from .plan import LANES, LIMIT, OVERHEAD, STEP, Chip, Model, TritonPlan, chip, crowding
from .products import Values, contracts_rows, kind_of, stages_of, summed_alone, width_of
from .stages import Stages

# Terms of a chain of additions: longer sums are summed by groups.
CHAIN = 1024
COLUMNS = (256, 128, 64, 32, 16)
# Rows, numbers of j of a block, and warps.  More warps take more columns, so that long contractions are computed for
# fewer blocks of columns.
PROGRAMS = ((64, 32, 8), (64, 32, 4), (32, 32, 16), (32, 32, 8), (32, 32, 4), (16, 32, 4))
# Every warp takes 16 rows, and further warps other columns.
TENSOR_ROWS = 16
TENSOR_PROGRAMS = (*itertools.product((32,), (32, 16), (8, 4, 2)), (16, 32, 1), (16, 16, 1))
# Where four warps multiply 64 rows together (wgmma).
WARPGROUP_PROGRAMS = ((64, 64, 4), (64, 32, 4))
# Blocks of j whose long contractions are computed at once, so that a number of i that is loaded serves all of them.
BLOCKS = (2, 1)
# Registers of loops over features that the model does not see, and where inner products stand beside them.
LOOPS, BESIDE = 10, 16
# Steps that a part of j has at least, where j is split.
STEPS_OF_A_PART = 8


class Products(NamedTuple):
    """What matrix products take, in instructions of a pair and registers of a thread; fitted to compiled kernels."""

    programs: tuple[tuple[int, int, int], ...]
    column: float  # of each column
    feature: float  # of each feature of an inner product
    weight: float  # of each weight, on its way to other threads or into two parts
    floats: float  # of each column or feature, those that are arithmetic of floats
    multiplied: int  # of each column or feature, those in tensor cores
    held: int  # registers for accumulators, at most; where sums are grouped there are two of each
    overhead: int
    pair: float  # of each pair at once
    block: int  # of each further block of j whose contractions are computed at once
    threads: int  # of a warp that stand along i
    row: int  # of each number of a row of j
    shift: int  # of each pair, where sums of exponentials are rescaled
    limit: int


PLAIN = Products(PROGRAMS, 1.1, 1.2, 2.0, 1.0, 0, 32, OVERHEAD, 2.0, 16, 1, 1, 3, LIMIT)
TENSOR = Products(TENSOR_PROGRAMS, 0.4, 0.8, 12.0, 0.15, 3, 32, OVERHEAD + 16, 1.75, 12, 8, 2, 3, 240)
WARPGROUP = Products(WARPGROUP_PROGRAMS, 0.165, 0.45, 11.0, 0.15, 3, 32, OVERHEAD - 19, 5.5, 12, 8, 1, 1, 248)


class Candidate(NamedTuple):
    model: Model
    block_i: int
    block_j: int
    warps: int
    columns: int  # of a block
    unroll: int
    tensor: bool
    bound: float  # pairs per second


def choose(desc: Description, sums: WeightedSums, platform: str) -> TritonPlan:
    """The program that takes the fewest ticks for a pair."""
    stages, target = stages_of(desc, sums), chip()
    kinds = [PLAIN]
    if in_tensor_cores(desc, sums, platform):
        kinds += [TENSOR, WARPGROUP] if target.warpgroup else [TENSOR]
    found = [c for kind in kinds for c in _candidates(desc, sums, stages, kind, target)]
    best = max(found, key=_worth)
    blocks = -(-max(width_of(sums, t) for t in sums.terms if t.is_product) // best.columns)
    programs = -(-desc.m // best.block_i) * blocks * math.prod(desc.batch)
    wanted = target.programs(best.model.registers, best.warps)
    reason = "results with long features are matrix products"
    if any(t.difference for t in sums.terms):
        reason += ", differences about a centre of each program"
    splits = 1
    if programs < wanted:
        splits = max(1, min(-(-wanted // programs), desc.n // (best.block_j * best.unroll * STEPS_OF_A_PART)))
    return TritonPlan(
        best.block_i, best.block_j, best.warps, unroll=best.unroll, splits=splits,
        features=long_plan.FEATURES if stages.loops else 0, columns=best.columns,
        group=CHAIN // (best.block_j * best.unroll), assembly=platform == "cuda", tensor=best.tensor,
        interpret=platform not in ("cuda", "rocm"), registers=best.model.registers, chip=target.name,
        instructions=round(best.model.pair, 2), reason=reason, bound=best.bound,
    )  # fmt: skip


def _worth(c: Candidate) -> tuple[float, float]:
    """Pairs per second, fewer where registers leave room for few warps; of two that are alike, fewer instructions."""
    return c.bound / (1 if c.tensor else crowding(c.model.registers)), -c.model.pair


def in_tensor_cores(desc: Description, sums: WeightedSums, platform: str) -> bool:
    """Whether float32 may be multiplied as three products of TF32."""
    return platform == "cuda" and desc.precision == "fast" and all(kind_of(sums, t) == "float32" for t in sums.terms)


def _candidates(
    desc: Description, sums: WeightedSums, stages: Stages, kind: Products, target: Chip
) -> Iterator[Candidate]:
    """Of every size of a program that registers allow."""
    values = Values(desc, sums, stages, assembly=False)
    long = long_plan.cost(desc, stages)
    parts = [p.program for p in (values.score, values.rest)]
    own, special, column = (sum(x) for x in zip(*(p.cost() for p in parts), strict=True))
    row = sum(p.words()[0] for p in parts)
    products = [t for t in sums.terms if t.is_product]
    widest = max(width_of(sums, t) for t in products)
    terms, weights = len(products), len({t.weight for t in products})
    centred = sum(contracts_rows(t) for t in products)
    words = max(kind_of(sums, t).itemsize // 4 for t in sums.terms)
    shifted = isinstance(desc.reduction, ShiftedSum)
    nested = desc.n > CHAIN
    features = sum(padded(size(x.of_i[0])) for x in sums.inner)
    flat = summed_alone(sums)
    shorts = sum(size(v) for v in sums.short.rest.jaxpr.outvars) - len({t.weight for t in sums.terms}) - shifted
    shorts += len(flat)
    blocks_of_j = BLOCKS if stages.loops else (1,)
    for columns, (block_i, block_j, warps), unroll in itertools.product(COLUMNS, kind.programs, blocks_of_j):
        if (columns > LEAST and columns >= 2 * widest) or (block_i > LEAST and block_i >= 2 * desc.m):
            continue  # a smaller one holds everything
        if words > 1 and warps > 8 and any(t.difference for t in products):
            continue  # ptxas keeps 16 warps to 64 registers, and spills
        blocks, threads, rows = -(-widest // columns), LANES * warps, max(1, block_i // warps // kind.threads)
        pairs = block_i * block_j // threads
        held = terms * block_i * columns // threads
        # Tensor cores take weights in fragments, each of them all that multiply the columns of a warp.
        fragments = max(1, TENSOR_ROWS * warps // block_i) if kind.multiplied else 1
        # Beside accumulators: weights and what they are made of, rows of j, rescaling, sides of inner products.
        tiles = kind.pair * pairs * fragments + kind.row * columns * block_j // threads + kind.shift * pairs * shifted
        tiles += pairs * long.contracted * unroll + kind.block * (unroll - 1) + LOOPS * bool(stages.loops)
        tiles += BESIDE * bool(features and stages.loops)
        if features and kind is not WARPGROUP:  # which reads both sides from shared memory
            tiles += pairs + (block_i + block_j) * FEATURES // threads
        registers = kind.overhead + int(words * ((held + shorts * pairs) * (1 + nested) + tiles)) + rows * row
        # Of many warps the machine limits registers, some of which addresses and numbers on their way take.
        limit = min(kind.limit, target.registers // threads - words * OVERHEAD // 2)
        last = kind is PLAIN and columns == block_i == LEAST and unroll == 1  # there must be one
        if (words * held > kind.held or registers > limit) and not last:
            continue
        weight = own + 1 + column / rows + STEP / (pairs * unroll) + kind.weight * weights * fragments
        weight += shifted * (2 + 5 * LANES / block_j + columns * terms / block_j) + kind.feature * features
        weight += long.own + long.of_i / unroll + long.of_j / max(1, block_i // warps)
        weight += long.features * STEP / long_plan.FEATURES / (pairs * unroll) + centred * columns / block_i
        multiplied = features + terms * columns
        pair = blocks * (weight + kind.column * terms * columns)
        floats = blocks * (long.own + own - special + kind.floats * multiplied)
        special_ones = blocks * (special + long.special)
        tensor = blocks * kind.multiplied * multiplied
        bound = target.pairs_per_second(pair, floats, special_ones, tensor, kind is WARPGROUP)
        model = Model(rows, unroll, registers, pair, floats, special_ones, nested)
        yield Candidate(model, block_i, block_j, warps, columns, unroll, kind.multiplied > 0, bound)
