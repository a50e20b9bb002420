"""The K smallest of all j, for one tile of i, by group minima.

The K groups of j's with the smallest minima contain the K smallest values: any other group has a minimum that is no
smaller than those of K groups, so K values come before each of its own.  A first pass keeps only the minimum of every
group, as fast as a min; a selection among the minima names K groups; their values are computed again and selected from.
A tie between minima goes to the lower group, so ties of values go to the lower index.  The index of the minimum is kept
too, because a group of nothing but NaN, whose minimum is infinite, must come after one that holds an infinite value.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .description import Description
from .pairs import axes_for
from .reduction import Selection, TracedReduction, trace
from .xla_block import Block
from .xla_lanes import Lanes

Flat = list[jax.Array]


class Groups(Block):
    """For a `Selection` of scalar values; accumulators as in `Block`."""

    def __init__(self, desc: Description, plan: Any, traced: TracedReduction):
        super().__init__(desc, plan, traced)
        assert isinstance(desc.reduction, Selection)  # the planner chooses this shape for nothing else
        self.selection = desc.reduction
        minimum = desc.replace(reduction=self.selection.group_reduction())
        values = tuple((v.shape, v.dtype) for v in desc.pair.out_avals)
        lanes = dataclasses.replace(plan, shape="lanes", segments=1)
        self.minimum = Lanes(minimum, lanes, trace(minimum.reduction, values, desc.index_dtype))

    def __call__(self, args: Sequence[jax.Array]) -> Flat:
        n, size, most = self.desc.n, self.plan.unroll, self.plan.tile_j
        groups = n // size
        columns = self.minimum.columns(args)
        acc = self.neutral()
        if groups >= most:
            # Memory for the minima is bounded: j is worked through in stretches of groups.
            def stretch(k: Any, acc: Flat) -> Flat:
                return self.merge(acc, self._best_of(args, columns, k * most, most))

            acc = lax.fori_loop(0, groups // most, stretch, acc)
        if rest := groups % most:
            acc = self.merge(acc, self._best_of(args, columns, groups - rest, rest))
        if n % size:
            last = jnp.arange(groups * size, n, dtype=self.desc.index_dtype)
            together = jnp.broadcast_to(last, (self.plan.tile_i, n % size))
            acc = self.merge(acc, self._select(args, together))
        return acc

    def _best_of(self, args: Sequence[jax.Array], columns: Sequence[jax.Array], first: Any, count: int) -> Flat:
        """The accumulator of groups first, first + 1, ..., first + count - 1."""
        size, start = self.plan.unroll, jnp.zeros((), self.desc.index_dtype)

        def minimum_of(g: Any) -> Flat:
            return self.minimum.chunk(columns, (first + g) * size, size, start, self.minimum.neutral())

        minima = [x.reshape(count, -1).T for x in lax.map(minimum_of, jnp.arange(count))]
        best = self.selection.best_groups(self.minimum.traced.treedef.unflatten(minima), min(self.selection.k, count))
        chosen = jnp.sort(best, axis=1).astype(self.desc.index_dtype) + jnp.asarray(first, self.desc.index_dtype)
        within = jnp.arange(size, dtype=self.desc.index_dtype)
        members = chosen[:, :, None] * size + within[None, None, :]
        return self._select(args, members.reshape(members.shape[0], -1))

    def _select(self, args: Sequence[jax.Array], members: jax.Array) -> Flat:
        """The accumulator of the pairs (i, members[i])."""
        desc = self.desc
        own = [k for k, r in enumerate(desc.roles) if r == "i"]
        shared = dict(enumerate(args))

        def row(item: Any) -> list[jax.Array]:
            mine, indices = item
            merged = shared | dict(zip(own, mine, strict=True))
            gathered = tuple(x[indices] if r == "j" else x for x, r in zip(merged.values(), desc.roles, strict=True))
            over_j = jax.vmap(lambda a: tuple(desc.pair(*a)), (axes_for(desc.roles, "j"),), axis_size=indices.size)
            values = over_j(gathered)
            return self.accumulate(values, indices, jnp.ones(indices.shape, bool))

        together = max(1, (1 << 18) // members.shape[1])
        return lax.map(row, ([args[k] for k in own], members), batch_size=min(together, members.shape[0]))
