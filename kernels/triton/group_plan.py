"""Tiles of the kernels of group minima, by the same model as `plan`, and whether they take less time than one kernel.

With groups of G columns a row takes its minima, then a selection among N / G numbers and one among the K G columns that
are computed again.  With s and t instructions for each of them, s N / G + t K G is least where G is sqrt(s N / (t K)).
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from ..description import Description, traced_of
from ..reduction import Selection
from .body import Fold, computing
from .groups import among_groups, minimum_of
from .plan import STEP, Model, TritonPlan, chip, choose, model

# Bytes of group minima that are held at once.
HELD = 1 << 26
# Seconds that a program takes for three more launches, and for the layout of columns: an estimate.
LAUNCHES = 2e-5
# Lanes of a row in the kernels that select: each has K accumulators, to be merged; and the most where rows are few.
LANES, MOST = 8, 32
# Threads of a multiprocessor that hide each other's waits.
THREADS = 512


def refused(desc: Description) -> str | None:
    """None, or why minima of groups do not find what a selection among many values is to find."""
    if desc.ranges is not None:
        return "the columns of a row are ranges"
    (value,) = desc.pair.out_avals
    if math.prod(value.shape) != 1:
        return "every feature has winners of its own"
    return "values are booleans" if value.dtype == bool else None


def choose_way(desc: Description, one: TritonPlan, platform: str) -> TritonPlan:
    """`one`, the tiles of the kernel that folds all pairs, or, where they take less time, those of group minima."""
    reduction = desc.reduction
    if not isinstance(reduction, Selection) or reduction.k == 1 or reduction.group_reduction() is None:
        return one
    groups, reason = None, refused(desc)
    if reason is None:
        groups = _by_groups(desc, reduction, platform)
        pairs = desc.m * desc.n * math.prod(desc.batch)
        if groups is None or pairs / groups.bound + LAUNCHES >= pairs / one.bound:
            groups, reason = None, "there are few pairs for three kernels"
    return groups or dataclasses.replace(one, reason=f"no minima of groups: {reason}")


def _by_groups(desc: Description, reduction: Selection, platform: str) -> TritonPlan | None:
    """The tiles of group minima; None where the columns of whole groups would be too many for 32-bit offsets."""
    least, among, n, target = minimum_of(desc), among_groups(desc, desc.n), desc.n, chip()
    base = choose(least, traced_of(least), platform)
    choice, again = _model(among, masked=False), _model(desc, reduction.ignored(desc.pair.out_avals) is not None)
    best = math.sqrt(choice.pair * n / (again.pair * reduction.k))
    lanes, step = base.block_j, base.unroll if best < 2 * LANES else 2 * LANES  # whole steps of all kernels
    members = -(-n // (lanes * max(1, round(n / (lanes * best))) * step)) * step
    stretches = -(-n // (lanes * members))
    features = [math.prod(a.shape) for a, r in zip(desc.pair.in_avals, desc.roles, strict=True) if r == "j"]
    if stretches * lanes * members * max([1, *features]) > np.iinfo(np.int32).max:
        return None
    # For each pair: how many groups there are to be selected from, and how many pairs are computed again.
    groups, twice = stretches * lanes / n, reduction.k * members / n
    pair = base.instructions + STEP / members + choice.pair * groups + again.pair * twice
    special = again.special * (1 + twice)
    (value,) = desc.pair.out_avals
    size = stretches * lanes * np.dtype(computing(value.dtype)).itemsize
    rows = max(1, HELD // (size * base.block_i)) * base.block_i
    at_once = min(rows, desc.m * math.prod(desc.batch))
    own = LANES
    while own < min(lanes, MOST) and at_once * own < target.multiprocessors * THREADS:
        own *= 2
    programs = -(-at_once // base.block_i)
    return dataclasses.replace(
        base, members=members, rows=rows, selecting=(min(base.block_i, 32 * base.warps // own), own),
        splits=min(-(-target.programs(base.registers, base.warps) // programs), stretches),
        instructions=round(pair, 2), registers=max(base.registers, choice.registers, again.registers),
        bound=target.pairs_per_second(pair, pair - special, special),
        reason=f"minima of groups find the {reduction.k} best",
    )  # fmt: skip


def _model(desc: Description, masked: bool) -> Model:
    """Of a kernel that selects: one row and one lane for each thread."""
    traced = traced_of(desc)
    return model(desc, traced, Fold(desc, traced, 1, assembly=False, masked=masked), 1, 1, TritonPlan.group)
