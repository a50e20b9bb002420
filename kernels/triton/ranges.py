"""The GPU kernel over the pairs that ranges keep, as KeOps does it: work is proportional to them.

A program owns a block of rows of one cluster, and walks through the ranges of columns of that cluster, each in whole
blocks and, masked, what is left over of it.  Which rows and which ranges are its own, it reads in a table that XLA
makes from the arrays.  How many programs there may be is static; those in excess own nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ..ranges import gaps, row_tiles, slice_starts
from .body import Fold, in_groups
from .pallas import Kernel
from .plan import TritonPlan, many_ranges


class RangeKernel(Kernel):
    """One problem whose pairs ranges keep."""

    tables = 6  # of every program: first row, end of rows, first range, end of ranges; of every range: start, end

    def __init__(self, desc: Any, plan: TritonPlan):
        super().__init__(desc, plan)
        self.programs += 2 * desc.ranges.clusters + 1  # each cluster, and the rows between two, may end within a tile

    def _splits(self) -> int:
        return 1  # the ranges of a cluster are walked through by one program

    def __call__(self, args: Sequence[jax.Array]) -> Sequence[jax.Array]:
        own, arrays = self.desc.split(args)
        ranges, slices, redranges = (x.astype(jnp.int32) for x in arrays[:3])
        # Rows of no cluster are a cluster without ranges: every result is written.
        every = jnp.concatenate([ranges, gaps(ranges, self.desc.m)])
        rows, _ = row_tiles(every, jnp.ones(every.shape[:1], bool), self.plan.block_i, self.programs)
        none = jnp.zeros(every.shape[0] - ranges.shape[0], jnp.int32)
        bounds = [jnp.concatenate([x, none])[rows.cluster] for x in (slice_starts(slices), slices)]
        # In order within a cluster, so that the lowest of equals wins (see `Reduction.fold`).
        cluster = jnp.searchsorted(slices, jnp.arange(redranges.shape[0], dtype=jnp.int32), side="right")
        redranges = redranges[jnp.lexsort((redranges[:, 0], cluster))]
        first, end = (jnp.where(rows.real, x, 0) for x in bounds)
        return self.call(own, [rows.row, rows.end, first, end, redranges[:, 0], redranges[:, 1]])

    def _array(self, role: str, aval: Any, x: jax.Array) -> jax.Array:
        """Ranges start anywhere: all numbers of a feature of j stand one after the other."""
        x = x.astype(jnp.int32) if x.dtype == bool else x
        return x.reshape(-1) if role != "j" else x.reshape(-1, math.prod(aval.shape)).T.reshape(-1)

    def _address(self, row: Any, start: Any, lane: Any, features: int) -> tuple[Any, int]:
        del row, features
        return start + lane, self.desc.n

    def _own_rows(self, table: Sequence[Any]) -> tuple[Any, Any]:
        from jax.experimental import pallas as pl

        return table[0][pl.program_id(0)], table[1][pl.program_id(0)]

    def _over_j(self, blocks_of: Any, fixed: Any, table: Sequence[Any], shape: tuple[int, int]) -> list[jax.Array]:
        from jax.experimental import pallas as pl

        desc, plan, columns = self.desc, self.plan, self.plan.block_j
        first, last = table[2][pl.program_id(0)], table[3][pl.program_id(0)]
        single, whole = (Fold(desc, self.traced, u, plan.assembly) for u in (1, plan.unroll))
        known, before = single.before(fixed), whole.before(fixed)
        length = columns * plan.unroll

        def one(k: Any, acc: list[jax.Array]) -> list[jax.Array]:
            """A range, from its last column to its first (see `Reduction.fold`)."""
            start, end = table[4][k], table[5][k]
            steps = lax.div(end - start, jnp.int32(length))
            beyond = start + steps * length
            rest = lax.div(end - beyond + (columns - 1), jnp.int32(columns))
            masked = lambda b, acc: blocks_of(single, known, beyond + (rest - 1 - b) * columns, end, acc)  # noqa: E731
            acc = lax.fori_loop(0, rest, masked, acc)
            step = lambda s, acc: blocks_of(whole, before, start + s * length, None, acc)  # noqa: E731
            return self._walk(step, 0, steps, desc.n // length, acc, shape)

        def walk(start: Any, count: Any, acc: list[jax.Array]) -> list[jax.Array]:
            return lax.fori_loop(0, count, lambda k, acc: one(start + count - 1 - k, acc), acc)

        neutral = lambda: self.monoid.neutral(shape)  # noqa: E731
        # So many ranges as make some `group` steps, if those of a row are disjoint.
        most, count = table[4].shape[0], last - first
        of_a_range = 1 + lax.div(jnp.int32(desc.n // length), jnp.maximum(count, 1))
        group = jnp.maximum(1, lax.div(jnp.int32(plan.group), of_a_range)) if many_ranges(desc, plan.group) else most
        return in_groups(walk, first, count, most, group, neutral, self.monoid.merge, neutral())
