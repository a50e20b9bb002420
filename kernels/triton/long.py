"""The GPU kernel of formulas with long features: its code does not grow with them.

One program owns BM rows, and walks through j in steps of a few blocks of BN.  In a step, loops over features contract
what is long to numbers of the pair, a (BM, BN) tile for each block (see `stages`); each loop takes a few features at a
time, and a number of i that is loaded serves all blocks, a number of j all rows of a thread.  Inner products may be
matrix products instead (`inner_products`), of one block.  The short rest of the formula and the fold then run block by
block as in `pallas`.  What is left over of j is masked in the fold alone.

Arrays are laid out before, one feature after the other for the rows of a program and for the columns of a step, and
filled up with zeros, so that no load needs a mask.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ..description import Description, traced_of
from ..long_features import Split, is_long, size
from ..scalarize import Tiles, tiles
from ..weighted_sums import WeightedSums, inner_products
from .body import Accumulators, Fold, computing, in_groups
from .inner_products import InnerProducts
from .launch import launch
from .plan import TritonPlan
from .stages import FeatureLoop, Numbers, Stages, parts_of, rest_of, stages_of, steps_of


class StagedKernel:
    """What kernels share whose pair function is told apart into stages: rows as they are read, and loops over features.

    One problem, in programs of `block_i` rows that walk through j in steps of `columns`.
    """

    def __init__(self, desc: Description, plan: TritonPlan, stages: Stages):
        self.desc, self.plan, self.traced, self.stages = desc, plan, traced_of(desc), stages
        self.columns = plan.block_j * plan.unroll  # of a step
        self.steps = -(-desc.n // self.columns)
        most = max(1, min(plan.splits, self.steps))
        self.per = -(-self.steps // most)  # steps of a part of j, at most
        self.splits = -(-self.steps // self.per)  # no part is empty
        self.programs = -(-desc.m // plan.block_i)
        self.read = [v for v in stages.leaves if size(v)]
        self.loops = []
        for which, contractions in enumerate(stages.loops):
            step = steps_of(size(contractions[0].invars[0]), plan.features)
            self.loops.append(FeatureLoop(desc, stages, which, step, plan.unroll, plan.assembly))

    def arrays(self, args: Sequence[jax.Array]) -> list[jax.Array]:
        """The leaves as the kernel reads them, from the arguments of the pair function of the stages."""
        leaves = self.stages.rows(args)
        return [self._array(self.stages.axis(v), leaves[v]) for v in self.read]

    def _array(self, role: str, x: jax.Array) -> jax.Array:
        """A leaf as the kernel reads it: of the rows or columns that are read together, feature after feature."""
        x = x.astype(jnp.int32) if x.dtype == bool else x  # Triton stores booleans as bytes of its own
        if role == "p":
            return x.reshape(-1)
        together, count = {"i": (self.plan.block_i, self.programs), "j": (self.columns, self.steps)}[role]
        x = jnp.pad(x, ((0, together * count - x.shape[0]), (0, 0)))
        return jnp.swapaxes(x.reshape(count, together, x.shape[1]), 1, 2).reshape(-1)

    def share(self) -> tuple[Any, Any, int]:
        """The first step of this part of j, how many it has, and how many it has at most."""
        from jax.experimental import pallas as pl

        # That there is a first step is said, or the compiler holds numbers for a program without one, over the loop.
        part, per = pl.program_id(1), self.per
        return part * per, jnp.clip(self.steps - part * per, 1, per), per

    def contract(self, numbers: Numbers, load: Any, shape: tuple[int, int]) -> None:
        """Run the loops over features; load(leaf, first feature, feature of the step, block) reads a tile."""
        for loop in self.loops:
            self._contract(loop, numbers, load, shape)

    def _contract(self, loop: FeatureLoop, numbers: Numbers, load: Any, shape: tuple[int, int]) -> None:
        given = {node.place: numbers.value(v, block).item() for (v, block), node in loop.numbers.items()}

        def body(k: Any, acc: Any) -> Any:
            first = k * loop.step
            found = loop(given, acc, lambda v, q, block: load(v, first, q, block))
            return [jnp.broadcast_to(x, shape) for x in found]

        totals = lax.fori_loop(0, loop.length // loop.step, body, loop.neutral(shape))
        left = iter(totals)
        for eqn in loop.contractions:
            for block in range(loop.blocks):
                (out,) = eqn.outvars
                numbers.known[out, block] = tiles(out.aval.shape, [next(left)])


class Reader:
    """Loads of one program."""

    def __init__(self, kernel: StagedKernel, refs: Sequence[Any]):
        from jax.experimental import pallas as pl

        self.kernel, self.ref_of = kernel, dict(zip(kernel.read, refs, strict=True))
        plan = kernel.plan
        self.program = pl.program_id(0)
        self.row = lax.broadcasted_iota(jnp.int32, (plan.block_i, 1), 0)
        self.lane = lax.broadcasted_iota(jnp.int32, (1, plan.block_j), 1)
        leaves = kernel.stages.leaves
        self.fixed = {v: self.whole(v, 0, 0) for v, r in leaves.items() if r != "j" and not is_long(v)}

    def load(self, v: Any, first: Any, k: int, block: int, step: Any) -> Any:
        """Feature first + k of a leaf, as (BM, 1), (1, BN) or (1, 1)."""
        from jax.experimental.pallas import triton as plt

        plan, role = self.kernel.plan, self.kernel.stages.axis(v)
        if role == "i":  # constants are added last, so that one address serves many loads
            at = (self.program * size(v) + first) * plan.block_i + k * plan.block_i + self.row
        elif role == "j":
            at = (step * size(v) + first) * self.kernel.columns
            at = at + (k * self.kernel.columns + block * plan.block_j) + self.lane
        else:
            at = first + k + jnp.zeros((1, 1), jnp.int32)
        x = plt.load(self.ref_of[v].at[at])
        return x != 0 if v.aval.dtype == bool else x.astype(computing(v.aval.dtype))

    def whole(self, v: Any, step: Any, block: int) -> Tiles:
        return tiles(v.aval.shape, [self.load(v, 0, k, block, step) for k in range(size(v))])

    def numbers(self, step: Any) -> Numbers:
        """The short numbers of a step."""
        return Numbers(self.kernel.stages, self.fixed, lambda v, block: self.whole(v, step, block))


class LongKernel(StagedKernel):
    """Leaves as the kernel reads them, the kernel, and the accumulators that it wrote, merged."""

    def __init__(self, desc: Description, plan: TritonPlan):
        sums = inner_products(desc) if plan.products else None
        parts, roles = parts_of(desc), desc.roles
        if isinstance(sums, WeightedSums):
            parts, roles = sums.short, sums.short_roles
        assert isinstance(parts, Split)  # the planner chooses this kernel for nothing else
        super().__init__(desc, plan, stages_of(parts, roles))
        self.inner = InnerProducts(self, sums) if isinstance(sums, WeightedSums) else None
        self.monoid = Accumulators(self.traced)

    def __call__(self, args: Sequence[jax.Array]) -> Sequence[jax.Array]:
        desc, plan = self.desc, self.plan
        rows = self.programs if desc.over == "ij" else desc.m
        accs = [a for a in self.traced.acc_avals for _ in range(math.prod(a.shape))]
        out_shape = [jax.ShapeDtypeStruct((self.splits * rows,), computing(a.dtype)) for a in accs]
        if self.inner is None:
            arrays = self.arrays(args)
        else:
            arrays = [*self.arrays([args[k] for k in self.inner.sums.used]), *self.inner.arrays(args)]
        outs = launch(self._kernel, plan, arrays, out_shape, (self.programs, self.splits))
        if desc.over == "ij":
            return [r[0] for r in self.monoid.results(outs, self.splits * self.programs, 1)]
        return self.monoid.results(outs, self.splits, desc.m)

    def _kernel(self, *refs: Any) -> None:
        from jax.experimental import pallas as pl
        from jax.experimental.pallas import triton as plt

        desc, plan = self.desc, self.plan
        shape = (plan.block_i, plan.block_j)
        leaves, sides = len(self.read), 0 if self.inner is None else self.inner.sides
        outs = refs[leaves + sides :]
        reader = Reader(self, refs[:leaves])
        body = _Step(self, reader, refs[leaves : leaves + sides], shape)

        def walk(first: Any, count: Any, acc: list[jax.Array]) -> list[jax.Array]:
            return lax.fori_loop(0, count, lambda k, acc: body(first + count - 1 - k, acc), acc)

        start, count, per = self.share()
        neutral = lambda: self.monoid.neutral(shape)  # noqa: E731
        group = plan.group if desc.reduction.rounds else per
        acc = in_groups(walk, start, count, per, group, neutral, self.monoid.merge, neutral())
        program, part = pl.program_id(0), pl.program_id(1)
        i = program * plan.block_i + jnp.arange(plan.block_i, dtype=jnp.int32)
        if desc.over == "ij":
            keep = lax.broadcast_in_dim(program * plan.block_i + reader.row < desc.m, shape, (0, 1))
            acc = [lax.select(keep, a, b) for a, b in zip(acc, neutral(), strict=True)]
        acc = self.monoid.merged(desc.reduction, acc, 1)
        if desc.over == "ij":
            for ref, value in zip(outs, self.monoid.merged(desc.reduction, acc, 0), strict=True):
                plt.store(ref.at[part * self.programs + program], value)
            return
        for ref, value in zip(outs, acc, strict=True):
            plt.store(ref.at[part * desc.m + i], value, mask=i < desc.m)


class _Step:
    """What one step does with a few blocks of j: what features contract to, then the rest and the fold."""

    def __init__(self, kernel: LongKernel, reader: Reader, features: Sequence[Any], shape: tuple[int, int]):
        self.kernel, self.reader, self.features, self.shape = kernel, reader, features, shape
        stages, fixed = kernel.stages, reader.fixed
        self.fold = Fold(rest_of(kernel.desc, stages), kernel.traced, 1, kernel.plan.assembly)
        self.before = self.fold.before([list(fixed[v].ravel()) for v in stages.inputs if "j" not in stages.axis(v)])

    def __call__(self, at: Any, acc: list[jax.Array]) -> list[jax.Array]:
        desc, plan, stages, reader = self.kernel.desc, self.kernel.plan, self.kernel.stages, self.reader
        numbers = reader.numbers(at)
        if self.kernel.inner is not None:
            numbers.known |= self.kernel.inner.numbers(self.features, reader.program, at)
        self.kernel.contract(numbers, functools.partial(reader.load, step=at), self.shape)
        for block in reversed(range(plan.unroll)):
            own = [list(numbers.value(v, block).ravel()) for v in stages.inputs if "j" in stages.axis(v)]
            j = (at * plan.unroll + block) * plan.block_j + reader.lane
            new = self.fold(self.before, [own], [j.astype(desc.index_dtype)], acc, self.shape)
            keep = lax.broadcast_in_dim(j < desc.n, self.shape, (0, 1))
            acc = [lax.select(keep, a, b) for a, b in zip(new, acc, strict=True)]
        return acc
