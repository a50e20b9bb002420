"""GPU kernels written in Pallas for its Triton backend (CUDA and ROCm).

One program owns BM rows and walks through j in blocks of BN.  Features of i are (BM, 1) tiles in registers, features of
j (1, BN) tiles, and the accumulator is a (BM, BN) tile that is merged along j only after the loop: a merge inside
the loop would shuffle values between threads for every pair.  Lanes of a warp stand along j, so that every number of
j is loaded once for all rows of a thread.  The loop holds no mask: what is left over of j comes first, masked.

Pallas-Triton is deprecated in JAX; what knows of it: this file, `launch`, `ranges`, `groups`, `long`, `inner_products`,
`products`, `merge` and `arithmetic.instructions`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .. import scalarize
from ..cost import operations
from ..description import Description, traced_of
from ..long_features import LONG
from ..pairs import batched
from ..reduction import TracedReduction
from ..weighted_sums import WeightedSums, by_length
from . import inner_plan, long_plan, product_plan
from .arithmetic import composites
from .body import Accumulators, Fold, computing, in_groups
from .complex import in_parts, real_of, run_in_parts
from .launch import launch
from .long import LongKernel
from .plan import TritonPlan, choose, held, worth
from .products import ProductKernel, sums_of
from .products import stages_of as stages_of_products
from .stages import parts_of, stages_of

name = "pallas-triton"

# What the Triton backend of Pallas lowers, on every version that we support, of what `scalarize` runs.
LOWERED = frozenset(
    """abs acos acosh add add_any and asin asinh atan atan2 atanh cbrt ceil clamp clz
    convert_element_type cos cosh div eq erf_inv exp exp2 expm1 floor ge gt integer_pow is_finite le log log1p
    logistic lt max min mul ne neg nextafter not or population_count pow rem rsqrt select_n shift_left
    shift_right_arithmetic shift_right_logical sign sin sinh sqrt square sub tan tanh xor""".split()
)
_KNOWN = (LOWERED, scalarize.ELEMENTWISE, scalarize.STRUCTURAL, scalarize.REDUCING, scalarize.IDENTITY)
DTYPES = frozenset(["bool", "int32", "int64", "float16", "bfloat16", "float32", "float64"])
# Values that one program may hold in scalars before the compiler spills them.
FEATURES = 128
ACCUMULATORS = 128
# Rows and columns that matrix products add to an array, at most.
PADDED = 128


def supports(desc: Description, platform: str) -> str | None:
    """None, or why Triton cannot run this description."""
    if isinstance(cost := operations(desc), str):
        return cost
    if platform == "tpu":
        return "it emits Triton, which TPUs do not run"
    if not all(isinstance(s, int) for s in (desc.m, desc.n, *desc.batch, *(desc.ranges or ()))):
        return "its grid needs sizes that are known when it is compiled, not symbolic ones"
    sizes = {"i": desc.m, "j": desc.n, "p": 1}
    largest = max([0, *(math.prod(a.shape) * sizes[r] for a, r in zip(desc.pair.in_avals, desc.roles, strict=True))])
    if max(largest, *(math.prod(o.shape[len(desc.batch) :]) for o in desc.outputs)) > np.iinfo(np.int32).max:
        return "an array of more than 2**31 elements is beyond the 32-bit offsets of its loads"
    if desc.ranges is not None and max(desc.m, desc.n) > np.iinfo(np.int32).max:
        return "ranges of an axis of more than 2**31 rows are beyond its 32-bit integers"
    if isinstance(own := real_of(desc), str):
        return own
    desc, traced = own, traced_of(own)
    products = _no_products(desc, sums := sums_of(desc))
    alone = None if products is None else _not_alone(desc, traced, products)
    return products if alone and _has_long_results(desc) and not isinstance(sums, str) else alone


def _has_long_results(desc: Description) -> bool:
    return max(math.prod(v.shape) for v in desc.pair.out_avals) > LONG


def _no_products(desc: Description, sums: WeightedSums | str) -> str | None:
    """None, or why results are not computed as matrix products."""
    if isinstance(sums, str):
        return sums
    if any(t.difference for t in sums.terms) and _not_alone(desc, traced_of(desc), "") is None and held(desc):
        return "differences of features that can be held as they are, are not told apart"
    longest = max(desc.m, desc.n) + PADDED
    widest = max(math.prod(v.aval.shape) for v in (*sums.whole.jaxpr.jaxpr.invars, *sums.whole.jaxpr.jaxpr.outvars))
    if longest * (widest + PADDED) > np.iinfo(np.int32).max:
        return "an array of more than 2**31 elements, padded, is beyond the 32-bit offsets of its loads"
    return _unsupported(*stages_of_products(desc, sums).emitted())


def _not_alone(desc: Description, traced: TracedReduction, products: str) -> str | None:
    """None, or why a kernel that keeps an accumulator for every number of a result cannot run this description, which
    is no matrix product for another reason."""
    features = sum(math.prod(a.shape) for a in desc.pair.in_avals)
    accumulators = sum(math.prod(a.shape) for a in traced.acc_avals)
    if accumulators > ACCUMULATORS:
        many = f"{accumulators} accumulators are more than the {ACCUMULATORS} that one program holds in registers"
        return f"{many}, and they are no matrix product: {products}"
    parts = parts_of(desc)
    if isinstance(parts, str) and features > FEATURES:
        many = f"{features} features are more than the {FEATURES} that one program holds in registers"
        return f"{many}, and no loop walks through them: {parts}"
    pair = _inside(desc.pair.jaxpr) if isinstance(parts, str) else stages_of(parts, desc.roles).emitted()
    for eqns, read in (pair, *map(_inside, (traced.fold(1), traced.merge, traced.finalize))):
        if (reason := _unsupported(eqns, read)) is not None:
            return reason
    return None


def _inside(closed: Any) -> tuple[list[Any], list[Any]]:
    return closed.jaxpr.eqns, [*closed.jaxpr.invars, *closed.jaxpr.outvars]


def _unsupported(eqns: Sequence[Any], read: Sequence[Any]) -> str | None:
    for v in [*read, *(o for e in eqns for o in e.outvars)]:
        if str(v.aval.dtype) not in DTYPES:
            return f"{v.aval.dtype} values are not available in Triton"
    for eqn in eqns:
        op = eqn.primitive.name
        if (inner := scalarize.inner_jaxpr(eqn)) is not None:
            if (reason := _unsupported(*_inside(inner))) is not None:
                return reason
        elif op in scalarize.ELEMENTWISE and op not in LOWERED and not composites.known(eqn):
            return f"Pallas-Triton has no rule for {op}"
        elif not any(op in known for known in _KNOWN):
            return f"{op} acts on whole feature arrays"
    return None


def plan(desc: Description, platform: str) -> TritonPlan:
    """The tiles for a platform; where that is no GPU the kernel is interpreted."""
    from .group_plan import choose_way  # which plans kernels of this file, too

    desc = in_parts(desc)
    sums, traced, found = sums_of(desc), traced_of(desc), []
    if not isinstance(sums, str) and _no_products(desc, sums) is None:
        found.append(_apart(desc, product_plan.choose(desc, sums, platform), platform))
        if _has_long_results(desc) or _not_alone(desc, traced, "") is not None:
            return found[0]
    if isinstance(parts := parts_of(desc), str):
        found.append(choose_way(desc, choose(desc, traced, platform), platform))
    else:
        loops = long_plan.choose(desc, traced, stages_of(parts, desc.roles), platform)
        found.append(inner_plan.choose_way(desc, traced, loops, platform))
    return max(found, key=worth)


def _apart(desc: Description, together: TritonPlan, platform: str) -> TritonPlan:
    """A plan of matrix products, or one that leaves short results to another kernel: every block of columns would
    compute them again."""
    parts = by_length(desc) if together.columns < max(math.prod(v.shape) for v in desc.pair.out_avals) else []
    if not parts or any(supports(part, platform) is not None for part, _ in parts):
        return together
    plans = tuple(plan(part, platform) for part, _ in parts)
    bound = 1 / sum(1 / p.bound for p in plans)
    if bound <= together.bound:
        return together
    return dataclasses.replace(
        together, apart=plans, bound=bound, instructions=round(sum(p.instructions for p in plans), 2),
        registers=max(p.registers for p in plans), reason="short results and long ones have a kernel each",
    )  # fmt: skip


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the one warning that says that Pallas-Triton is deprecated, while a kernel is lowered."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*[Tt]riton.*", category=DeprecationWarning)
        yield


def lower(desc: Description, plan: TritonPlan) -> Callable[..., Sequence[jax.Array]]:
    """One kernel call, or three; batch dims become axes of their grids."""
    from .groups import by_groups  # these two are kernels of this file
    from .ranges import RangeKernel

    own = in_parts(desc)
    if plan.members:
        return run_in_parts(desc, lambda args: by_groups(own, plan)(*args))
    if plan.apart:
        each = [lower(part, its) for (part, _), its in zip(by_length(own), plan.apart, strict=True)]
        return run_in_parts(desc, lambda args: _each(own, each)(*args))
    long = ProductKernel if plan.columns else LongKernel if plan.features or plan.products else Kernel
    kernel = RangeKernel if desc.ranges is not None else long
    return run_in_parts(desc, lambda args: batched(kernel(own, plan), own, args))


def _each(desc: Description, kernels: Sequence[Callable[..., Any]]) -> Callable[..., Sequence[jax.Array]]:
    """Results that several kernels give, in order."""
    places = [places for _, places in by_length(desc)]

    def run(*args: jax.Array) -> Sequence[jax.Array]:
        found = {
            k: x for own, kernel in zip(places, kernels, strict=True) for k, x in zip(own, kernel(*args), strict=True)
        }
        return [found[k] for k in sorted(found)]

    return run


class Kernel:
    """One problem: the arrays as the kernel reads them, the kernel, and the arrays that it wrote as results."""

    def __init__(self, desc: Description, plan: TritonPlan):
        self.desc, self.plan, self.traced = desc, plan, traced_of(desc)
        self.monoid = Accumulators(self.traced)
        self.blocks = -(-desc.n // plan.block_j)
        self.chunks = desc.n // (plan.block_j * plan.unroll)  # steps of the loop: whole, without a mask
        self.rest = self.blocks - self.chunks * plan.unroll  # blocks that come first, masked
        self.splits = self._splits()
        self.programs = -(-desc.m // plan.block_i)
        # Accumulators are stored, to be merged by XLA, where several programs hold parts of a result.
        self.parts = desc.over == "ij" or self.splits > 1

    def _splits(self) -> int:
        return max(1, min(self.plan.splits, self.chunks))

    def __call__(self, args: Sequence[jax.Array]) -> Sequence[jax.Array]:
        return self.call(args, ())

    def call(self, args: Sequence[jax.Array], table: Sequence[jax.Array]) -> Sequence[jax.Array]:
        """Launch the kernel; what `table` holds of every program, it reads by itself."""
        desc = self.desc
        flat = [self._array(r, a, x) for r, a, x in zip(desc.roles, desc.pair.in_avals, args, strict=True) if x.size]
        grid = (self.programs, self.splits)
        return self._results(launch(self._kernel, self.plan, [*flat, *table], self._written(), grid))

    def _written(self) -> list[jax.ShapeDtypeStruct]:
        """The arrays that the kernel writes."""
        if self.parts:
            held = self.splits * (self.programs if self.desc.over == "ij" else self.desc.m)
            accs = [a for a in self.traced.acc_avals for _ in range(math.prod(a.shape))]
            return [jax.ShapeDtypeStruct((held,), computing(a.dtype)) for a in accs]
        sizes = [(a, math.prod(a.shape)) for a in self.traced.out_avals]
        return [jax.ShapeDtypeStruct((self.desc.m * size,), a.dtype) for a, size in sizes if size]

    def _results(self, outs: list[jax.Array]) -> Sequence[jax.Array]:
        desc = self.desc
        rows = 1 if desc.over == "ij" else desc.m
        if self.parts:
            # Splits, or splits and programs, lead.
            results = self.monoid.results(outs, self.splits * (self.programs if desc.over == "ij" else 1), rows)
        else:
            avals = self.traced.out_avals
            results = [outs.pop(0) if math.prod(a.shape) else jnp.zeros((rows, *a.shape), a.dtype) for a in avals]
        lead = () if desc.over == "ij" else (desc.m,)
        return [r.reshape(*lead, *a.shape) for r, a in zip(results, self.traced.out_avals, strict=True)]

    def _array(self, role: str, aval: Any, x: jax.Array) -> jax.Array:
        """The array as the kernel reads it: of j, the features of a block stand one after the other, BN numbers each,
        so that one address and constant distances reach them all."""
        x = x.astype(jnp.int32) if x.dtype == bool else x  # Triton stores booleans as bytes of its own
        features = math.prod(aval.shape)
        if role != "j" or features == 1:
            return x.reshape(-1)
        extra, columns = self.blocks * self.plan.block_j - self.desc.n, self.plan.block_j
        x = jnp.pad(x.reshape(-1, features), ((0, extra), (0, 0)))
        return jnp.swapaxes(x.reshape(self.blocks, columns, features), 1, 2).reshape(-1)

    def _kernel(self, *refs: Any) -> None:
        from jax.experimental.pallas import triton as plt

        desc, rows, columns = self.desc, self.plan.block_i, self.plan.block_j
        shape = (rows, columns)
        kinds = list(zip(desc.roles, desc.pair.in_avals, strict=True))
        count = sum(math.prod(a.shape) > 0 for _, a in kinds)
        ins, table, outs = list(refs[:count]), refs[count : count + self.tables], list(refs[count + self.tables :])
        refs_of = [ins.pop(0) if math.prod(a.shape) else None for _, a in kinds]
        first_row, last_row = self._own_rows(table)

        def load(ref: Any, aval: Any, offset: Any, step: int, mask: Any) -> list[Any]:
            items = []
            for k in range(math.prod(aval.shape)):
                x = plt.load(ref.at[offset + k * step], mask=mask, other=None if mask is None else 0)
                items.append(x != 0 if aval.dtype == bool else x.astype(computing(aval.dtype)))
            return items

        row = first_row + lax.broadcasted_iota(jnp.int32, (rows, 1), 0)
        lane = lax.broadcasted_iota(jnp.int32, (1, columns), 1)
        fixed = []
        for (role, aval), ref in zip(kinds, refs_of, strict=True):
            if role == "p":
                fixed.append(load(ref, aval, jnp.zeros((1, 1), jnp.int32), 1, None))
            elif role == "i":
                fixed.append(load(ref, aval, row * math.prod(aval.shape), 1, row < last_row))

        def blocks_of(fold: Fold, before: dict[int, Any], first: Any, end: Any, acc: Any) -> list[jax.Array]:
            """Fold consecutive blocks from a column on, which are whole, or masked from a column `end` on."""
            own, indices, inside = [], [], None
            for u in range(len(fold.blocks)):
                start = first + u * columns
                j = self._columns(start, lane)
                inside = None if end is None else j < end
                own.append(
                    [
                        load(ref, a, *self._address(row, start, lane, math.prod(a.shape)), inside)
                        for (r, a), ref in zip(kinds, refs_of, strict=True)
                        if "j" in r
                    ]
                )
                indices.append(j.astype(desc.index_dtype))
            new = fold(before, own, indices, acc, shape, inside)
            if inside is None or fold.masked:
                return new
            keep = lax.broadcast_in_dim(inside, shape, (0, 1))
            return [lax.select(keep, a, b) for a, b in zip(new, acc, strict=True)]

        self._run(blocks_of, fixed, table, outs, shape)

    def _run(self, blocks_of: Any, fixed: Any, table: Sequence[Any], outs: list[Any], shape: tuple[int, int]) -> None:
        """Fold the columns of this part, and write what comes of it."""
        from jax.experimental import pallas as pl
        from jax.experimental.pallas import triton as plt

        desc, monoid, m, rows = self.desc, self.monoid, self.desc.m, self.plan.block_i
        first_row, last_row = self._own_rows(table)
        part = pl.program_id(1)
        acc = self._over_j(blocks_of, fixed, table, shape)
        if desc.over == "ij":
            here = first_row + lax.broadcasted_iota(jnp.int32, (rows, 1), 0) < last_row
            keep = lax.broadcast_in_dim(here, shape, (0, 1))
            acc = [lax.select(keep, a, b) for a, b in zip(acc, monoid.neutral(shape), strict=True)]
        acc = monoid.merged(desc.reduction, acc, 1)
        if desc.over == "ij":
            at = part * self.programs + pl.program_id(0)
            for ref, value in zip(outs, monoid.merged(desc.reduction, acc, 0), strict=True):
                plt.store(ref.at[at], value)
            return
        i = first_row + jnp.arange(rows, dtype=jnp.int32)
        if self.parts:
            for ref, value in zip(outs, acc, strict=True):
                plt.store(ref.at[part * m + i], value, mask=i < last_row)
            return
        for features in monoid.finalize(acc, (rows,)):
            if features:
                ref = outs.pop(0)
                for k, value in enumerate(features):
                    plt.store(ref.at[i * len(features) + k], value, mask=i < last_row)

    tables = 0  # arrays that hold a number of every program

    def _own_rows(self, table: Sequence[Any]) -> tuple[Any, Any]:
        """The first row of this program, and the end of those that it may own."""
        from jax.experimental import pallas as pl

        del table
        return pl.program_id(0) * self.plan.block_i, self.desc.m

    def _columns(self, start: Any, lane: Any) -> Any:
        """The numbers of the columns of the block from `start` on."""
        return start + lane

    def _address(self, row: Any, start: Any, lane: Any, features: int) -> tuple[Any, int]:
        """Where the first feature of the columns from `start` on stands, and how far apart features are."""
        del row
        return start * features + lane, self.plan.block_j

    def _over_j(self, blocks_of: Any, fixed: Any, table: Sequence[Any], shape: tuple[int, int]) -> list[jax.Array]:
        """The accumulators of all columns of this part."""
        from jax.experimental import pallas as pl

        del table
        desc, plan, traced, columns = self.desc, self.plan, self.traced, self.plan.block_j
        acc = self.monoid.neutral(shape)
        part = pl.program_id(1)
        if self.rest:
            single = Fold(desc, traced, 1, plan.assembly)
            known = single.before(fixed)
            last = self.rest  # they belong to the last part (a selection between 1 and 0 would be lowered as a boolean)
            if self.splits > 1:
                last = self.rest * jnp.maximum(part - (self.splits - 2), 0)
            step = lambda k, acc: blocks_of(single, known, (self.blocks - 1 - k) * columns, desc.n, acc)  # noqa: E731
            acc = lax.fori_loop(0, last, step, acc)
        if self.chunks:
            whole = Fold(desc, traced, plan.unroll, plan.assembly)
            before = whole.before(fixed)
            per = -(-self.chunks // self.splits)
            start, steps = 0, self.chunks
            if self.splits > 1:
                start = part * per
                steps = jnp.minimum(per, self.chunks - start)
            step = lambda k, acc: blocks_of(whole, before, k * (plan.unroll * columns), None, acc)  # noqa: E731
            acc = self._walk(step, start, steps, per, acc, shape)
        return acc

    def _walk(
        self, step: Any, start: Any, steps: Any, most: int, acc: list[jax.Array], shape: tuple[int, int]
    ) -> list[jax.Array]:
        """Steps (`most` or fewer) of the loop, from the last to the first (see `Reduction.fold`)."""

        def walk(first: Any, steps: Any, acc: list[jax.Array]) -> list[jax.Array]:
            return lax.fori_loop(0, steps, lambda k, acc: step(first + steps - 1 - k, acc), acc)

        group = self.plan.group if self.desc.reduction.rounds else most
        neutral = lambda: self.monoid.neutral(shape)  # noqa: E731
        return in_groups(walk, start, steps, most, group, neutral, self.monoid.merge, acc)
