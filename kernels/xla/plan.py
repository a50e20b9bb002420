"""Which loop of XLA, and its tiles, from sizes, features and formula cost: one model, which `explain` prints."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

import numpy as np

from .. import long_features, scalarize, tuning
from ..cost import operations
from ..description import Description, traced_of
from ..reduction import Selection, ShiftedSum
from ..weighted_sums import sums_of_products
from . import elementary
from .fusion import joinable
from .passes import passes
from .sharing import Kept, shared_scalars

# One core's second-level cache, in bytes: what a tile of i and its accumulators should fit in.
CACHE = 1 << 20
# Instructions that one unrolled loop body may hold: beyond it, compile time grows and speed does not.
UNROLLED = 640
# Scalar operations on one pair beyond which features are no longer unrolled.
SCALARS = 512
# Results that one loop computes together. Beyond it, its accumulators leave no registers: what they share is computed
# first and kept. Matrix products, where they can take what is kept, are the faster of the two from COLUMNS results on;
# in small problems, which keep nothing, from where joined loops end.
JOINED = 8
COLUMNS = 8
# Lanes that are held at once where i is short.
FEW = 1 << 16
# Pairs from which a longer program, with several loops, earns its compilation.
LARGE = 1 << 20
# Pairs, over all batch dims, up to which the shortest program is best: all of them at once, in one block.
SMALL = 1 << 10

# Numbers up to which the K smallest are found by insertion, which takes time in proportion to K; rows from which its
# vectors are filled; and the exchanges of two numbers that its loops hold, about, which take time to compile.
INSERTED = 32
INSERTED_ROWS = 128
EXCHANGES = 256
# Lanes of sorted lists, of several problems together; and rows that a problem then has at least.
SORTED = 4096
LEAST_SORTED = 16
# Columns up to which they beat top_k among the minima of groups, in problems of too few rows for lists of their own.
SORTED_COLUMNS = 2560

# Rows from which lanes are filled where features are long.
LEAST_ROWS = 64


@dataclasses.dataclass(frozen=True)
class XlaPlan:
    """Tiles of the `xla` kernel."""

    shape: Literal[
        "lanes", "products", "block", "groups", "sorted lists", "passes", "long", "long products", "long selection"
    ]
    tile_i: int
    tile_j: int = 0  # block: pairs of one row that are held at once; groups: minima of one row; long: j's of a chunk
    unroll: int = 1  # lanes: j's written out in the loop body; products, sorted lists: of a chunk; groups: of a group
    segments: int = 1  # lanes: parts of j that run side by side where i alone is too short
    group: int = 256  # lanes: chunks that are summed before they meet the total
    elementary: bool = False  # exp, sin, cos, tan of float32 by `elementary`, where the platform's are slow
    joined: bool = False  # lanes: one loop computes all results, see `fusion.as_one`
    angles: bool = False  # lanes: sin, cos, tan first look whether all angles are small
    chunk: int = 0  # long selection: j's of a chunk, tile_j being those that are held
    inserted: int = 0  # of the K smallest: values that enter sorted lists at once, see `insertion`; 0: top_k
    features: int = 0  # long: features, or j's, that one step of a loop takes
    kept: Kept = dataclasses.field(default_factory=Kept)  # lanes, products: what is computed first, see `sharing`
    passes: tuple[XlaPlan, ...] = ()  # passes: the plan of each
    tiles: int = 1  # ranges: tiles of i that are walked through at once
    problems: int | None = None  # batch: problems that are vectorised together
    reason: str = ""


def choose(desc: Description, platform: str) -> XlaPlan:
    """Tiles from sizes, features and formula cost, unless the pinned table has measured ones."""
    cost = operations(desc)
    if desc.ranges is not None:
        return _ranges(desc, cost, platform)
    plan = _planned(desc, cost, platform)
    choice = tuning.choice(desc, platform)
    return plan if choice is None else _chosen(desc, cost, platform, plan, dict(choice))


def _chosen(desc: Description, cost: int | str, platform: str, plan: XlaPlan, choice: dict[str, Any]) -> XlaPlan:
    """The plan that a table says, the planner's own where there is no such plan."""
    shape = choice.pop("shape", plan.shape)
    base: XlaPlan | None = plan
    if shape != plan.shape:
        base = None
        if shape == "block":
            base = _block(desc, "")
        elif shape in ("long", "long products"):
            base = _long(desc, platform)
        elif isinstance(cost, int) and cost <= SCALARS and not isinstance(desc.reduction, Selection):
            base = _lanes(desc, platform, large=True)
    if base is None or base.shape != shape:
        return plan
    return dataclasses.replace(base, **choice, reason="measured by autotune")


def candidates(desc: Description, platform: str) -> list[tuning.Choice]:
    """The plans worth measuring, the planner's own first."""
    with tuning.pinned(None):
        cost = operations(desc)
        plan = choose(desc, platform)
    long = ("tile_i", "tile_j", "features")
    scaled = {"long": long, "long products": long, "products": ("tile_i",), "block": ("tile_i", "tile_j"), "passes": (),
              "long selection": ("tile_i",)}.get(plan.shape, ("tile_i", "unroll"))  # fmt: skip
    found: list[tuning.Choice] = [()]
    for field in scaled:
        for value in (getattr(plan, field) // 2, getattr(plan, field) * 2):
            if 1 <= value <= tuning.FIELDS[field] and (field != "tile_i" or value <= 2 * desc.m):
                found.append(((field, value),))
    for shape in tuning.SHAPES:
        other = _chosen(desc, cost, platform, plan, {"shape": shape})
        if plan.shape in tuning.SHAPES and other.shape == shape != plan.shape:
            found.append((("shape", shape),))
    return found


def _planned(desc: Description, cost: int | str, platform: str) -> XlaPlan:
    if (plan := _long(desc, platform)) is not None:
        return plan
    if isinstance(cost, str):
        return _block(desc, cost)
    if _pairs(desc) <= SMALL:
        return _block(desc, "few pairs: compiling would take longer than running")
    if isinstance(desc.reduction, Selection) and desc.reduction.group_reduction() is not None:
        plan = _selection(desc, cost, platform)
        if plan is not None:
            return plan
        if desc.reduction.k > 1:
            return _block(desc, "the reduction selects among many values at once")
    if cost > SCALARS:
        return _block(desc, f"{cost} operations on one pair are too many to unroll")
    large = isinstance(desc.m, int) and isinstance(desc.n, int) and desc.m * desc.n >= LARGE
    if isinstance(desc.reduction, ShiftedSum) and desc.over == "j" and large:
        plans = tuple(choose(one, platform) for one in passes(desc))
        return XlaPlan("passes", 1, passes=plans, reason="first the maximum, then the sums")
    return _lanes(desc, platform, large)


def _pairs(desc: Description) -> float:
    """How many pairs are visited, over all batch dims; infinite where a size is symbolic."""
    sizes = (desc.m, desc.n, *desc.batch)
    return math.prod(sizes) if all(isinstance(s, int) for s in sizes) else math.inf


# Pairs of one tile of a cluster and one chunk of j, and of all tiles that are walked through at once.
RANGE_LANES = 1024
RANGE_PAIRS = 1 << 19


def _ranges(desc: Description, cost: int | str, platform: str) -> XlaPlan:
    """Tiles of about the size of a cluster, several of them at once."""
    assert desc.ranges is not None
    m, n, ranges = desc.m, desc.n, desc.ranges
    rows = m // max(ranges.clusters, 1) if isinstance(m, int) else RANGE_LANES
    columns = n // max(ranges.other_clusters, 1) if isinstance(n, int) else RANGE_LANES
    large = isinstance(m, int) and isinstance(n, int) and m * n >= LARGE
    reason = _unrolled(desc, cost)
    if reason is None and isinstance(desc.reduction, ShiftedSum) and desc.over == "j" and large:
        plans = tuple(choose(one, platform) for one in passes(desc))
        return XlaPlan("passes", 1, passes=plans, reason="first the maximum, then the sums")
    tile = _power_of_two(rows, 16, RANGE_LANES)
    tile = min(tile, max(m, 1)) if isinstance(m, int) else tile
    most = ranges.clusters + -(-m // tile) if isinstance(m, int) else 64
    if reason is None:
        shared = shared_scalars(desc, pairs=large and platform == "cpu")
        body, program = UNROLLED // max(shared.largest, 1), (8 if large else 1) * UNROLLED // max(shared.total, 1)
        unroll = _power_of_two(min(body, program, columns), 4, 32)
        together = max(1, min(RANGE_PAIRS // (tile * unroll), most))
        return XlaPlan("lanes", tile, unroll=unroll, tiles=together, kept=shared.kept, elementary=platform == "cpu",
                       reason="only the pairs of the ranges")  # fmt: skip
    plan = _block(desc, reason)
    tile_j = min(_power_of_two(columns, 8, RANGE_LANES), plan.tile_j)
    tile = min(tile, plan.tile_i)
    together = max(1, min(plan.tile_i * plan.tile_j // (tile * tile_j), most))
    return dataclasses.replace(plan, tile_i=tile, tile_j=tile_j, tiles=together)


def _unrolled(desc: Description, cost: int | str) -> str | None:
    """Why pairs cannot be held as scalars, lane by lane; None if they can."""
    if isinstance(cost, str):
        return cost
    if isinstance(desc.reduction, Selection) and desc.reduction.k > 1:
        return "the reduction selects among many values at once"
    if cost > SCALARS:
        return f"{cost} operations on one pair are too many to unroll"
    if desc.reduction.ignored(desc.pair.out_avals) is not None:
        return None
    traced = traced_of(desc)
    try:
        scalarize.count(traced.block(2))
    except scalarize.Unsupported as error:
        return f"the reduction of a chunk: {error}"
    return None


def _long(desc: Description, platform: str) -> XlaPlan | None:
    """Loops over features and matrix products, where features are long and pairs are many."""
    m, n = desc.m, desc.n
    if platform != "cpu":
        return None  # its many small steps are for caches; elsewhere `block` has fewer and larger ones
    if not (isinstance(m, int) and isinstance(n, int) and m >= LEAST_ROWS and m * n >= LARGE // 16):
        return None
    if isinstance(parts := long_features.parts_of(desc), str):
        return None
    cost = long_features.cost_of_rest(parts)
    if cost > SCALARS:
        return None
    tile = _balanced(m, 1024)
    if sums_of_products(desc):
        return XlaPlan("long products", tile, tile_j=_chunk(n, 512), features=8, problems=1,
                       elementary=platform == "cpu", reason="features are long, results matrix products")  # fmt: skip
    tile += 16 * (tile % 256 == 0)  # features that lie a multiple of 1 kB apart meet in the same lines of the cache
    most = max(256, _power_of_two((1 << 18) // tile, 1, 1024))
    plan = XlaPlan("long", tile, tile_j=_chunk(n, most), unroll=_power_of_two(UNROLLED // max(cost, 1), 4, 32),
                   features=8, problems=1, elementary=platform == "cpu", reason="features are long")  # fmt: skip
    if isinstance(desc.reduction, Selection) and desc.reduction.k > 1:
        (value,) = desc.pair.out_avals
        if math.prod(value.shape) != 1:
            return None
        chunk = min(256, -(-n // 32) * 32)
        stretch = chunk * min(32, -(-n // chunk))
        inserted = _inserted(desc.reduction.k, m, platform, loops=1)
        return dataclasses.replace(plan, shape="long selection", tile_j=stretch, chunk=chunk, inserted=inserted)
    return plan


def _lanes(desc: Description, platform: str, large: bool) -> XlaPlan:
    traced = traced_of(desc)
    # The CPU's compiler writes a loop for each result, where they are not joined; others fuse them.
    shared = shared_scalars(desc, pairs=platform == "cpu")
    results = sum(math.prod(a.shape) for a in traced.acc_avals)
    one_dtype = len({np.dtype(a.dtype) for a in traced.acc_avals}) == 1
    several = results >= COLUMNS if large else results > JOINED and LARGE <= _pairs(desc) < math.inf
    products = several and shared.linear and desc.reduction.adds and one_dtype
    shape = "products" if products else "lanes"
    turning = platform == "cpu" and large and elementary.takes_angles(scalarize.primitives(desc.pair.jaxpr))
    joined = shape == "lanes" and not turning and bool(shared.kept.pairs) and results <= JOINED
    joined = joined and all(joinable(a.dtype) for a in traced.acc_avals)
    if not (joined or large or products):
        shared = shared_scalars(desc, pairs=False)
    own = [a for a, r in zip(desc.pair.in_avals, desc.roles, strict=True) if r == "i"]
    row_bytes = sum(math.prod(a.shape) * np.dtype(a.dtype).itemsize for a in [*own, *traced.acc_avals])
    m, n = desc.m, desc.n
    # Many results make many loops: those of small problems are not worth compiling at length.
    body, program = UNROLLED // max(shared.largest, 1), (8 if large else 1) * UNROLLED // max(shared.total, 1)
    program = min(program, (8 if large else 4) * UNROLLED // (shared.total + scalarize.count(traced.fold(1)) + 1))
    unroll = _power_of_two(UNROLLED // shared.once if joined else min(body, program), 1, 32)
    lanes = 2048 if products else _power_of_two(CACHE // max(row_bytes, 8), 512, 16384)
    tile = _balanced(m, lanes) if isinstance(m, int) else 4096
    together = max(1, lanes // tile)
    inside = min(together, math.prod(desc.batch)) if all(isinstance(b, int) for b in desc.batch) else 1
    segments = 1
    if shape == "products":
        # Vectors run along j.  Weights that are held at once take some 2 MB.
        unroll = _power_of_two((1 << 19) // (tile * inside), 256, 1 << 14)
        unroll = min(unroll, _power_of_two(n, 1, unroll)) if isinstance(n, int) else unroll
    elif isinstance(n, int) and tile * inside < 1024 and n >= 4096:
        # Too few rows to fill the vectors and the cores: cut j.
        segments = _segments(n, FEW // (tile * inside), unroll)
        unroll = min(unroll, n // segments)
    elif isinstance(n, int):
        unroll = min(unroll, _power_of_two(n, 1, 32))
    if shape == "lanes" and not joined and shared.kept.pairs and isinstance(m, int) and segments == 1:
        # What is kept of a chunk is read again from the cache; long loops over short chunks serve it best.
        unroll = min(unroll, 16)
        kept_bytes = 4 * unroll * len(shared.kept.pairs)
        tile = _spread(m, min(tile, _power_of_two(CACHE // 4 // kept_bytes, 1024, 16384)))
    alone = together < 2 or not desc.batch  # a branch of vectorised problems would take both ways
    angles = turning and segments == 1 and alone and shape == "lanes"
    kept = dataclasses.replace(shared.kept, pairs=()) if joined else shared.kept
    group = max(1, 4096 // unroll) if desc.reduction.rounds else np.iinfo(np.int32).max
    return XlaPlan(
        shape, tile, unroll=int(unroll), segments=segments, group=int(group), problems=together, kept=kept,
        elementary=platform == "cpu", joined=joined, angles=angles,
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


def _selection(desc: Description, cost: int, platform: str) -> XlaPlan | None:
    """Sorted lists where group minima would leave little out, or would leave a little to XLA's top_k."""
    assert isinstance(desc.reduction, Selection)
    scalar = all(math.prod(v.shape) == 1 for v in desc.pair.out_avals)
    if not (scalar and isinstance(desc.m, int) and isinstance(desc.n, int) and cost <= SCALARS):
        return None
    lists = _sorted_lists(desc, desc.reduction.k, platform)
    if lists is not None and desc.n <= 2 * desc.reduction.k * lists.unroll:
        return lists
    groups = _groups(desc, cost, platform)
    beaten = groups is None or (not groups.inserted and desc.n <= SORTED_COLUMNS)
    return lists if lists is not None and beaten else groups


def _sorted_lists(desc: Description, k: int, platform: str) -> XlaPlan | None:
    """Sorted lists of every value, of several problems at once where those are small."""
    tile = _balanced(desc.m, SORTED)
    together = max(1, SORTED // tile)
    problems = math.prod(desc.batch) if all(isinstance(b, int) for b in desc.batch) else 1
    inserted = _inserted(k, tile * min(together, problems), platform, loops=1)
    if not inserted or k == 1 or tile < LEAST_SORTED or _pairs(desc) < LARGE // 16:
        return None
    return XlaPlan("sorted lists", tile, unroll=2 * inserted, inserted=inserted, problems=together, elementary=True,
                   reason="every value enters a sorted list")  # fmt: skip


def _groups(desc: Description, cost: int, platform: str) -> XlaPlan | None:
    """Group minima, where there are so many pairs that looking again at K groups costs little."""
    assert isinstance(desc.reduction, Selection)
    k, m, n = desc.reduction.k, desc.m, desc.n
    inserted = _inserted(k, m, platform, loops=2)
    group = _power_of_two(8 * UNROLLED // cost, 8, 64)
    if k == 1:
        if m < 4096 or n < 8 * group:
            return None  # the lanes of a tile would not be filled, and j is not cut here
        return XlaPlan("groups", _balanced(m, 16384), unroll=group, inserted=min(group // 2, inserted), problems=1,
                       elementary=platform == "cpu", reason="minima of groups find the smallest")  # fmt: skip
    if n < 8 * k * 32 and (m * n < LARGE or not (inserted or n >= 3 * k * 32)):
        return None
    tile = _balanced(m, 4096)
    # Fewest numbers are looked at where there are as many minima, n / group, as values of chosen groups, k * group.
    group = _power_of_two(math.isqrt(n // k), 4, group) if inserted else 32
    stretch = 32 if inserted else max(2 * k, (1 << 21) // tile)  # minima that are held at once
    return XlaPlan("groups", tile, tile_j=stretch, unroll=group, inserted=inserted, problems=1,
                   elementary=platform == "cpu", reason="minima of groups find the K smallest")  # fmt: skip


def _inserted(k: int, m: int, platform: str, loops: int) -> int:
    """Values that enter the sorted lists of k numbers at once, see `insertion`; 0 where XLA's top_k is as fast."""
    fast = platform == "cpu" and k <= INSERTED and m >= INSERTED_ROWS
    return _power_of_two(EXCHANGES // (loops * k), 4, 16) if fast else 0


def _chunk(n: int, most: int) -> int:
    """j's of a chunk: all chunks of one length, where there is one, for that is compiled once."""
    one = (k for k in range(min(most, n), most // 2, -1) if n % k == 0 and k % 8 == 0)
    return next(one, _balanced(n, most))


def _balanced(size: int, most: int) -> int:
    """A tile of at most `most` (a multiple of 16 where there are several), so that little is padded."""
    if size <= most:
        return max(size, 1)
    count = -(-size // most)
    return -(-size // count // 16) * 16 if size // count >= 16 else -(-size // count)


def _spread(size: int, most: int) -> int:
    """A tile of about `most`, an odd multiple of 16: rows of an array then do not share lines of the cache."""
    if size <= most and (size % 1024 or size < 4096):
        return size
    count = max(2, -(-size // most))
    return 16 * (-(-size // count // 16) | 1)


def _segments(n: int, most: int, unroll: int) -> int:
    """Parts of j, at most `most`, such that whole chunks of `unroll` rows leave less than one row over."""
    chunks = -(-n // (most * unroll))
    size = n // (chunks * unroll)
    return max(1, size if size < 16 else size // 16 * 16)


def _power_of_two(size: int, least: int, most: int) -> int:
    return max(least, min(most, 1 << max(0, int(size).bit_length() - 1)))
