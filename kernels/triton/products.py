"""The GPU kernel of results with long features: `sum_j w_ij v_j` by matrix products (see `weighted_sums`).

One program owns BM rows and a block of C columns of the result, and walks through j in blocks of BN.  A block of
weights is a (BM, BN) tile in registers, computed as any other formula is (`stages`, `expression`); the rows of j that
it multiplies are a (C, BN) tile, and their product is added to a (BM, C) accumulator.  So a weight is computed once for
all columns of a block, and each number of j that is loaded serves all rows of a program.  Of weights that multiply rows
of i alone the sum is kept.

Of differences the centre is the mean of the rows of a program, which is taken from the (BN, C) tile as it is loaded:
points that are far off cost other programs no precision.

Sums of exponentials keep the running maximum of each row; where a block raises it, what was summed before is rescaled
(Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018; Dao et al., "FlashAttention", 2022).

Products are those of the dtype that the formula is computed in: of float32 by fused multiply-adds, or where `precision`
is "fast" by three products of TF32 (Ootomo and Yokota, "Recovering single precision accuracy from Tensor Cores while
surpassing the FP32 theoretical peak performance", 2022); of float64 by the double-precision tensor cores.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

from ..description import Description, traced_of
from ..long_features import LONG, as_jaxpr, needed, size
from ..reduction import ShiftedSum, config_key, tree_merge
from ..scalarize import broadcast_tile, evaluate, tiles
from ..weighted_sums import Difference, Term, WeightedSums, weighted_sums
from .arithmetic.expression import PAIR, READS, J, Program, Recorder
from .arithmetic.instructions import emit
from .body import computing, in_groups
from .inner_products import LEAST, InnerProducts, multiplied, product
from .launch import launch
from .long import Reader, StagedKernel
from .plan import TritonPlan
from .stages import Numbers, Stages

# What a program keeps: the running maximum of sums of exponentials (BM, 1), sums of short results (BM, BN), and of each
# term (BM, C).
State = tuple[Any, list[Any], list[Any]]

HELD = 64  # short numbers and results of a pair


def sums_of(desc: Description) -> WeightedSums | str:
    """The pair function told apart, or why this kernel cannot run it.

    Few columns may be a matrix product, too; but differences of few features stay what they are.
    """
    if desc.ranges is not None:
        return "ranges are walked through with all features at hand"
    sums = weighted_sums(desc, LEAST // 2)
    if isinstance(sums, str) or any(t.difference and width_of(sums, t) <= LONG for t in sums.terms):
        sums = weighted_sums(desc)
    if isinstance(sums, str):
        return sums
    if desc.over == "ij":
        return "results with long features are summed over both axes"
    if desc.precision == "exact" and any(t.difference for t in sums.terms):
        return "differences of long features are told apart, which precision='exact' does not allow"
    if not isinstance(desc.reduction, ShiftedSum):
        for a, v in zip(traced_of(desc).acc_avals, desc.pair.out_avals, strict=True):
            if computing(a.dtype) != computing(v.dtype):
                return f"{v.dtype} values are accumulated in {a.dtype}"
    stages = stages_of(desc, sums)
    held = sum(size(v) for v in stages.inputs) + sum(size(v) for v in sums.short.rest.jaxpr.outvars)
    if held > HELD:
        return f"{held} short numbers beside those with long features are more than the {HELD} that one program holds"
    return sums


class Values:
    """Short results and weights of a tile: `score` first, where there is one, then everything else.

    inputs: variables of the short part, `numbers` of which are read; the maximum is one of them.
    """

    def __init__(self, desc: Description, sums: WeightedSums, stages: Stages, assembly: bool):
        self.shifted = isinstance(desc.reduction, ShiftedSum)
        self.stages, self.shorts = stages, len(sums.shorts)
        rest = sums.short.rest
        self.maximum = stages.inputs.index(maximum_of(sums)) if self.shifted else None
        score = rest.jaxpr.outvars[: int(self.shifted)]
        reads = [READS[stages.axis(v)] for v in stages.inputs]
        if self.maximum is not None:
            reads[self.maximum] = J  # it changes from step to step, and belongs to a row: no number of the pair
        approximate = desc.precision == "fast"
        self.score = _Part(_cut(rest, score, []), reads, approximate, assembly)
        self.rest = _Part(_cut(rest, rest.jaxpr.outvars[len(score) :], score), [*reads, *[PAIR] * len(score)],
                          approximate, assembly)  # fmt: skip

    def before(self, fixed: dict[Any, Any]) -> tuple[dict[int, Any], dict[int, Any]]:
        """What is known of i and the parameters alone, for each of the two."""
        given = [
            None if "j" in self.stages.axis(v) or k == self.maximum else fixed[v]
            for k, v in enumerate(self.stages.inputs)
        ]
        return self.score.before(given), self.rest.before(given)


class _Part:
    """Results of a short function as a program on tiles."""

    def __init__(self, closed: ClosedJaxpr, reads: Sequence[int], approximate: bool, assembly: bool):
        recorder = Recorder(computing, approximate)
        self.inputs = [
            [recorder.argument(computing(a.dtype), r) for _ in range(math.prod(a.shape))]
            for a, r in zip(closed.in_avals, reads, strict=True)
        ]
        args = [tiles(a.shape, own) for a, own in zip(closed.in_avals, self.inputs, strict=True)]
        outs = [recorder.plain(t) for a in evaluate(closed, args, recorder) for t in a.ravel()]
        self.program = Program(outs, assembly)

    def _values(self, given: Sequence[Any]) -> dict[int, Any]:
        pairs = [(n, t) for own, x in zip(self.inputs, given, strict=False) if x is not None
                 for n, t in zip(own, x.ravel(), strict=True)]  # fmt: skip
        return {n.place: t for n, t in pairs}

    def before(self, given: Sequence[Any]) -> dict[int, Any]:
        return self.program.before(self._values(given))

    def __call__(self, before: dict[int, Any], given: Sequence[Any], shape: tuple[int, int]) -> list[jax.Array]:
        found = self.program.results(before | self._values(given))
        return [jnp.asarray(broadcast_tile(t, shape)) for t in found]


def _cut(closed: ClosedJaxpr, results: Sequence[Any], given: Sequence[Any]) -> ClosedJaxpr:
    """(inputs, given) -> results, of a function that computes both."""
    eqns, read = needed(closed.jaxpr.eqns, [v for v in results if v not in given], given)
    constants = {v: c for v, c in zip(closed.jaxpr.constvars, closed.consts, strict=True) if v in read}
    return as_jaxpr(eqns, constants, [*closed.jaxpr.invars, *given], results)


def maximum_of(sums: WeightedSums) -> Any:
    """The argument that is the maximum of a row."""
    return sums.short.jaxpr.jaxpr.invars[sums.used.index(len(sums.roles) - 1)]


@functools.lru_cache(maxsize=256)
def _stages(sums: WeightedSums, shifted: bool, context: Any) -> Stages:
    del context
    stages = Stages(sums.short, sums.short_roles)
    if shifted:
        del stages.leaves[maximum_of(sums)]  # found on the way, never read
    return stages


def stages_of(desc: Description, sums: WeightedSums) -> Stages:
    return _stages(sums, isinstance(desc.reduction, ShiftedSum), config_key())


def width_of(sums: WeightedSums, term: Term) -> int:
    """Columns of a term."""
    return size(sums.whole.jaxpr.jaxpr.outvars[term.result])


def kind_of(sums: WeightedSums, term: Term) -> Any:
    """What a term is computed in."""
    return computing(sums.whole.jaxpr.jaxpr.outvars[term.result].aval.dtype)


def contracts_rows(term: Term) -> bool:
    """Whether the rows of j of a term are a tile (BN, C), and not (C, BN)."""
    return term.side == "j"


def summed_alone(sums: WeightedSums) -> dict[int, Term]:
    """The weights that multiply no rows of j, each with a term that it stands in."""
    return {t.weight: t for t in sums.terms if not t.is_product}


class ProductKernel(StagedKernel):
    """One problem: leaves and rows of j as the kernel reads them, the kernel, and what it wrote, merged."""

    def __init__(self, desc: Description, plan: TritonPlan):
        sums = sums_of(desc)
        assert isinstance(sums, WeightedSums)  # the planner chooses this kernel for nothing else
        super().__init__(desc, plan, stages_of(desc, sums))
        self.inner = InnerProducts(self, sums)
        self.sums, self.shifted = sums, isinstance(desc.reduction, ShiftedSum)
        self.terms = [t for t in sums.terms if t.is_product]
        self.flat = summed_alone(sums)
        self.widths = [width_of(sums, t) for t in self.terms]
        self.blocks = -(-max(self.widths) // plan.columns)
        self.height = self.steps * self.columns
        self.values = Values(desc, sums, self.stages, plan.assembly)
        short = [a for k, a in enumerate(self._sum_avals()) if k not in {t.result - self.shifted for t in sums.terms}]
        self.shorts = [computing(a.dtype) for a in short for _ in range(math.prod(a.shape))]
        self.shorts += [kind_of(sums, t) for t in self.flat.values()]

    def _sum_avals(self) -> list[Any]:
        """Of everything that is summed, in order."""
        reduction = self.desc.reduction
        if not isinstance(reduction, ShiftedSum):
            return self.traced.acc_avals
        results = self.sums.whole.jaxpr.jaxpr.outvars[1:]
        return [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in results]

    def __call__(self, args: Sequence[jax.Array]) -> Sequence[jax.Array]:
        desc, plan, sums = self.desc, self.plan, self.sums
        given: list[Any] = [args[k] if k < len(args) else None for k in sums.used]  # no maximum yet
        matrices = [x for t in self.terms for x in self._matrices(t, args)]
        arrays = [*self.arrays(given), *matrices, *self.inner.arrays(args)]
        held = self.splits * desc.m
        out_shape = [jax.ShapeDtypeStruct((held,), self._score_kind())] if self.shifted else []
        out_shape += [jax.ShapeDtypeStruct((held,), kind) for kind in self.shorts]
        out_shape += [
            jax.ShapeDtypeStruct((held * width,), kind_of(sums, t))
            for t, width in zip(self.terms, self.widths, strict=True)
        ]
        outs = launch(self._kernel, plan, arrays, out_shape, (self.programs, self.splits, self.blocks))
        outs = [o.reshape(self.splits, desc.m, -1) for o in outs]
        maximum = outs.pop(0) if self.shifted else None
        return self._merged(self._accumulators(maximum, outs, args))

    def _merged(self, acc: list[jax.Array]) -> list[jax.Array]:
        """The results, from accumulators (splits, rows, ...)."""
        merge, finalize = jaxpr_as_fun(self.traced.merge), jaxpr_as_fun(self.traced.finalize)
        pairwise = jax.vmap(jax.vmap(lambda a, b: list(merge(*a, *b))))
        return list(jax.vmap(finalize)(*tree_merge(pairwise, acc)))

    def _score_kind(self) -> Any:
        return computing(self.sums.whole.jaxpr.jaxpr.outvars[0].aval.dtype)

    def _matrices(self, term: Term, args: Sequence[jax.Array]) -> list[jax.Array]:
        """What a term reads: of a difference the rows of j and the centres of all programs, and the product of other
        rows of j, where there are any."""
        found = []
        if term.side == "j":
            assert term.difference is not None
            centre = self._centres(term.difference, args)
            found += [self._matrix(term, self.sums.rows(args, "j", [term.difference.of_j], computing)[0])]
            found += [self._padded(-centre if term.difference.adds else centre, self.programs).reshape(-1)]
        if term.of_j:
            rows = [*self.sums.rows(args, "j", term.of_j, computing), *self.sums.rows(args, "p", term.of_p, computing)]
            found += [self._matrix(term, multiplied(rows))]
        return found

    def _matrix(self, term: Term, x: jax.Array) -> jax.Array:
        """Rows of j, one column after the other: what a matrix product contracts stands side by side, as tensor cores
        take it, and goes through shared memory without being transposed there; but one row after the other where a
        centre is to be taken from them, which takes fewer registers so."""
        x = self._padded(x, self.height)
        return (x if contracts_rows(term) else x.T).reshape(-1)

    def _padded(self, x: jax.Array, height: int) -> jax.Array:
        """With zeros where a block of rows or columns is not full."""
        extra = height - x.shape[0], self.blocks * self.plan.columns - x.shape[1]
        return jnp.pad(x, [(0, k) for k in extra])

    def _centres(self, difference: Difference, args: Sequence[jax.Array]) -> jax.Array:
        """The mean of the rows of i of every program, where it is finite: (programs, features)."""
        (rows,) = self.sums.rows(args, "i", [difference.of_i], computing)
        x, count = rows.astype(computing(rows.dtype)), self.plan.block_i
        x = jnp.pad(x, ((0, self.programs * count - x.shape[0]), (0, 0))).reshape(self.programs, count, x.shape[1])
        own = jnp.minimum(count, self.desc.m - count * jnp.arange(self.programs))
        mean = x.sum(1) / own[:, None].astype(x.dtype)
        return jnp.where(jnp.abs(mean) < jnp.inf, mean, 0)

    def _accumulators(self, maximum: Any, outs: list[jax.Array], args: Sequence[jax.Array]) -> list[jax.Array]:
        """The accumulators of the reduction, (splits, rows, ...), from what programs wrote."""
        first = len(self.shorts)
        sums = dict(zip(self.flat, outs[first - len(self.flat) : first], strict=True))
        products = iter(outs[first:])
        totals: dict[int, Any] = {}
        for term in self.sums.terms:
            total = next(products) if term.is_product else sums[term.weight]
            rows = self.sums.rows(args, "i", term.of_i, computing)
            rows += [] if term.of_j else self.sums.rows(args, "p", term.of_p, computing)
            if term.side == "i":
                assert term.difference is not None
                (own,) = self.sums.rows(args, "i", [term.difference.of_i], computing)
                centre = jnp.repeat(self._centres(term.difference, args), self.plan.block_i, 0)[: self.desc.m]
                rows.append(own.astype(centre.dtype) - centre)
            for x in rows:
                total = total * x
            total = -total if term.minus else total
            totals[term.result] = totals[term.result] + total if term.result in totals else total
        found, first = [], 0
        for k, a in enumerate(self._sum_avals(), int(self.shifted)):
            if k not in totals:
                count = math.prod(a.shape)
                empty = jnp.zeros((self.splits, self.desc.m, 0))
                totals[k] = jnp.concatenate([*outs[first : first + count]] or [empty], -1)
                first += count
            found.append(totals[k].reshape(self.splits, self.desc.m, *a.shape).astype(a.dtype))
        if not self.shifted:
            return found
        reduction: Any = self.desc.reduction

        def assemble(m: Any, totals: Any) -> list[Any]:
            leaves = jax.tree.leaves(reduction.assemble(m, totals))
            return [jnp.asarray(x, a.dtype) for x, a in zip(leaves, self.traced.acc_avals, strict=True)]

        score = self.sums.whole.jaxpr.jaxpr.outvars[0].aval
        maximum = maximum.reshape(self.splits, self.desc.m, *score.shape).astype(score.dtype)
        return jax.vmap(jax.vmap(assemble))(maximum, found)

    # In the kernel.

    def neutral(self) -> State:
        plan = self.plan
        shorts = [jnp.zeros((plan.block_i, plan.block_j), kind) for kind in self.shorts]
        wide = [jnp.zeros((plan.block_i, plan.columns), kind_of(self.sums, t)) for t in self.terms]
        maximum = jnp.full((plan.block_i, 1), -jnp.inf, self._score_kind()) if self.shifted else ()
        return maximum, shorts, wide

    def merge(self, a: State, b: State) -> State:
        maximum = ()
        if self.shifted:
            maximum = jnp.maximum(a[0], b[0])
            a, b = self._rescaled(a, maximum), self._rescaled(b, maximum)
        (_, shorts, wide), (_, more_shorts, more_wide) = a, b
        return maximum, list(map(jnp.add, shorts, more_shorts)), list(map(jnp.add, wide, more_wide))

    def _rescaled(self, state: State, maximum: Any) -> State:
        """The same sums for a maximum that is no smaller: terms are exp(score - maximum), or exp(score) where the
        maximum is infinite (`ShiftedSum`)."""
        shift = jnp.where(jnp.abs(maximum) < jnp.inf, maximum, jnp.zeros_like(maximum))
        exponent = state[0] - shift
        if self.desc.precision == "fast" and exponent.dtype == jnp.float32:
            factor = emit("exp2", (exponent * math.log2(math.e),), self.plan.assembly)
        else:
            factor = jnp.exp(exponent)
        scaled = [[x * jnp.broadcast_to(factor, x.shape).astype(x.dtype) for x in own] for own in state[1:]]
        return maximum, scaled[0], scaled[1]

    def _kernel(self, *refs: Any) -> None:
        from jax.experimental import pallas as pl
        from jax.experimental.pallas import triton as plt

        desc, plan = self.desc, self.plan
        leaves, sides = len(self.read), self.inner.sides
        matrices = leaves + sum(2 * (t.side == "j") + bool(t.of_j) for t in self.terms)
        features, outs = refs[matrices : matrices + sides], list(refs[matrices + sides :])
        reader = Reader(self, refs[:leaves])
        before = self.values.before(reader.fixed)
        block = pl.program_id(2)
        across = lax.broadcasted_iota(jnp.int32, (1, plan.block_j), 1)
        down = lax.broadcasted_iota(jnp.int32, (plan.block_j, 1), 0)
        column = block * plan.columns + lax.broadcasted_iota(jnp.int32, (1, plan.columns), 1)
        height = block * plan.columns + lax.broadcasted_iota(jnp.int32, (plan.columns, 1), 0)

        def tile(ref: Any, row: Any, kind: Any) -> Any:
            return plt.load(ref.at[row * (self.blocks * plan.columns) + column]).astype(kind)

        # Of every term: its rows of j, those of a difference with their centre first.
        sources, kinds, own = [], [kind_of(self.sums, t) for t in self.terms], iter(refs[leaves:matrices])
        for term, kind in zip(self.terms, kinds, strict=True):
            sources.append([(next(own), tile(next(own), pl.program_id(0), kind))] if term.side == "j" else [])
            sources[-1] += [(next(own), None)] if term.of_j else []

        def load(k: int, start: Any) -> Any:
            found = []
            for ref, centre in sources[k]:
                if contracts_rows(self.terms[k]):
                    x = tile(ref, start + down, kinds[k])
                else:
                    x = plt.load(ref.at[height * self.height + start + across]).astype(kinds[k])
                found.append(x if centre is None else x - centre)
            return functools.reduce(jnp.multiply, found)

        def walk(first: Any, count: Any, state: State) -> State:
            def step(k: Any, state: State) -> State:
                at = first + count - 1 - k
                numbers = self._numbers(reader, features, at)
                for b in reversed(range(plan.unroll)):
                    state = self._step(reader, before, load, numbers, at, b, state)
                return state

            return lax.fori_loop(0, count, step, state)

        start, count, per = self.share()
        maximum, shorts, wide = in_groups(walk, start, count, per, plan.group, self.neutral, self.merge, self.neutral())
        i = pl.program_id(0) * plan.block_i + reader.row
        at = pl.program_id(1) * desc.m + i
        first = (i < desc.m) & (block == 0)  # every block of columns found the same
        narrow = [maximum] if self.shifted else []
        narrow += [jnp.sum(x, 1, keepdims=True) for x in shorts]
        for value in narrow:
            plt.store(outs.pop(0).at[at], value, mask=first)
        for value, width in zip(wide, self.widths, strict=True):
            plt.store(outs.pop(0).at[at * width + column], value, mask=(i < desc.m) & (column < width))

    def _numbers(self, reader: Reader, features: Sequence[Any], at: Any) -> Numbers:
        """The short numbers of a step: inner products, and what loops over features find, of all its blocks of j."""
        plan, numbers = self.plan, reader.numbers(at)
        numbers.known |= self.inner.numbers(features, reader.program, at)
        self.contract(numbers, functools.partial(reader.load, step=at), (plan.block_i, plan.block_j))
        return numbers

    def _step(
        self, reader: Reader, before: Any, load: Any, numbers: Numbers, at: Any, block: int, state: State
    ) -> State:
        """Take in one block of j of a step."""
        desc, plan, values, stages = self.desc, self.plan, self.values, self.stages
        shape = (plan.block_i, plan.block_j)
        start = (at * plan.unroll + block) * plan.block_j
        inside = jnp.broadcast_to(start + reader.lane < desc.n, shape)
        given = [
            numbers.value(v, block) if "j" in stages.axis(v) and k != values.maximum else None
            for k, v in enumerate(stages.inputs)
        ]
        if values.maximum is not None:
            (score,) = values.score(before[0], given, shape)
            score = self._shared_out(score)
            score = lax.select(inside, score, jnp.full(shape, -jnp.inf, score.dtype))
            maximum = jnp.maximum(state[0], jnp.max(score, 1, keepdims=True))
            state = self._rescaled(state, maximum)
            given[values.maximum] = tiles((1,), [maximum])
            given.append(tiles((1,), [score]))
        found = values.rest(before[1], given, shape)
        found = [lax.select(inside, x, jnp.zeros_like(x)) for x in found]
        maximum, shorts, wide = state
        plain = len(shorts) - len(self.flat)
        weights = found[plain:]
        short = [*found[:plain], *(weights[k] for k in self.flat)]
        shorts = [x + y.astype(x.dtype) for x, y in zip(shorts, short, strict=True)]
        new = []
        for k, (acc, term) in enumerate(zip(wide, self.terms, strict=True)):
            axis = 0 if contracts_rows(term) else 1
            new.append(acc + product(weights[term.weight].astype(acc.dtype), load(k, start), axis, plan.tensor))
        return maximum, shorts, new

    def _shared_out(self, score: jax.Array) -> jax.Array:
        """The same numbers, given to threads as the result of a matrix product is: 2 rows to a thread, beside several
        numbers of j.

        Triton gives a tile to threads as what it is added to, and else a thread of a warp all its rows, of which it
        would hold the maximum and the numbers of i, and shuffle each through the whole warp.  Weights that are summed
        without a maximum are computed as their product takes them; inner products come as they should, and loops over
        features would be held twice.
        """
        plan = self.plan
        tensor = plan.assembly and (plan.tensor or score.dtype == jnp.float64)
        if not tensor or self.inner.sides or self.stages.loops:
            return score
        of_i, of_j = (jnp.zeros((size, LEAST), jnp.float16) for size in score.shape)
        return score + product(of_i, of_j, 1, tensor=False).astype(score.dtype)
