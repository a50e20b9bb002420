"""The K smallest of all j, or the place of the smallest, for one tile of i, by group minima.

The K groups of j's with the smallest minima contain the K smallest values: any other group has a minimum that is no
smaller than those of K groups, so K values come before each of its own.  A first pass keeps only the minimum of every
group, as fast as a min; a selection among the minima names K groups; their values are computed again and selected from.
A tie between minima goes to the lower group, so ties of values go to the lower index.

NaN is skipped, so a group of nothing else looks like one that holds infinity.  Where one of the K groups is such, all
groups of the tile are looked at.

Two ways to select: sorted lists (see `insertion`), on the CPU and for few numbers; top_k, for many.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ..description import Description
from ..reduction import Selection, TracedReduction, trace, tree_merge
from ..scalarize import broadcast_tile, evaluate, tiles
from .block import Block
from .fusion import apart
from .insertion import Insertion, Lists, in_order
from .lanes import Lanes

Flat = list[jax.Array]

# Groups whose minima are looked at together first, where there are many.
WIDE = 16


class Groups(Block):
    """For a `Selection` of scalar values; accumulators as in `Block`."""

    def __init__(self, desc: Description, plan: Any, traced: TracedReduction):
        super().__init__(desc, plan, traced)
        assert isinstance(desc.reduction, Selection)  # the planner chooses this shape for nothing else
        self.selection = desc.reduction
        group_reduction = self.selection.group_reduction()
        assert group_reduction is not None
        minimum = desc.replace(reduction=group_reduction)
        values = tuple((v.shape, v.dtype) for v in desc.pair.out_avals)
        lanes = dataclasses.replace(plan, shape="lanes", segments=1)
        self.minimum = Lanes(minimum, lanes, trace(minimum.reduction, values, desc.index_dtype))
        self.lanes = math.prod(self.minimum.rows)
        self.insertion = Insertion(traced, self.lanes, plan.inserted)
        side = max(1, (1 << 18) // plan.tile_i)
        self.slow = Block(desc, dataclasses.replace(plan, shape="block", tile_j=min(side, desc.n)), traced)

    def __call__(self, args: Sequence[jax.Array]) -> Flat:
        if self.plan.inserted or self.selection.k == 1:
            columns = self.minimum.columns(args)
            return self._inserted(args, columns, self._chosen(columns))
        acc, complete = self._by_groups(args)
        return lax.cond(complete, lambda: acc, lambda: self.slow(args))

    def _by_groups(self, args: Sequence[jax.Array]) -> tuple[Flat, jax.Array]:
        """The accumulator, and whether all chosen groups held a value."""
        n, size, most = self.desc.n, self.plan.unroll, self.plan.tile_j
        groups = n // size
        columns = self.minimum.columns(args)
        acc, complete = self.neutral(), jnp.asarray(True)

        def add(so_far: Any, first: Any, count: int) -> Any:
            acc, complete = so_far
            more, held = self._runs(args, self._best_groups(columns, first, count) * size, size)
            return self.merge(acc, more), complete & held

        if groups >= most:
            # Memory for the minima is bounded: j is worked through in stretches of groups.
            acc, complete = lax.fori_loop(
                0, groups // most, lambda k, so_far: add(so_far, k * most, most), (acc, complete)
            )
        if rest := groups % most:
            acc, complete = add((acc, complete), groups - rest, rest)
        if n % size:
            last = jnp.full((self.plan.tile_i, 1), groups * size, self.desc.index_dtype)
            acc = self.merge(acc, self._runs(args, last, n % size)[0])
        return acc, complete

    def _minimum_of(self, columns: Sequence[Any], group: Any, length: int = 0) -> jax.Array:
        size = self.plan.unroll
        (minimum,) = self.minimum.chunk(columns, group * size, length or size, self.minimum.neutral())
        return minimum.reshape(-1)

    def _best_group(self, columns: Sequence[Any]) -> jax.Array:
        """The group of the smallest minimum, (1, lanes)."""
        groups, rest = divmod(self.desc.n, self.plan.unroll)
        together = math.gcd(groups, 4)  # few short loops beside the long ones

        def step(k: Any, so_far: Any) -> Any:
            # From the last to the first, so that the lowest of equals wins.
            some = [groups - 1 - (k * together + u) for u in range(together)]
            minima = apart(k, lambda: [self._minimum_of(columns, group) for group in some])
            best, at = so_far
            for group, minimum in zip(some, minima, strict=True):
                best = self.minimum.merge([best], [minimum])[0]
                at = jnp.where(best == minimum, jnp.asarray(group, self.desc.index_dtype), at)
            return best, at

        least = self._minimum_of(columns, groups, rest) if rest else self.minimum.neutral()[0].reshape(-1)
        last = jnp.full(self.lanes, groups if rest else 0, self.desc.index_dtype)
        return lax.fori_loop(0, groups // max(together, 1), step, (least, last))[1][None]

    def _best_groups(self, columns: Sequence[Any], first: Any, count: int) -> jax.Array:
        """The groups of the k smallest minima among first, first + 1, ..., first + count - 1: (lanes, k), ascending."""
        k, best_of = min(self.selection.k, count), self.selection.best_groups
        minima = lax.map(lambda g: self._minimum_of(columns, first + g), jnp.arange(count))
        if count % WIDE or count < 2 * k * WIDE:
            best = jnp.sort(best_of(minima.T, k), axis=1)
        else:  # the same thing once more: k groups of groups contain the k groups
            (least,) = tree_merge(self.minimum.merge, [minima.reshape(count // WIDE, WIDE, -1)], axis=1)
            wide = jnp.sort(best_of(least.T, k), axis=1)
            members = (wide[:, :, None] * WIDE + jnp.arange(WIDE, dtype=wide.dtype)).reshape(-1, k * WIDE)
            within = minima.T.reshape(-1, count // WIDE, WIDE)
            chosen = jnp.take_along_axis(within, wide[:, :, None], axis=1).reshape(-1, k * WIDE)
            best = jnp.sort(jnp.take_along_axis(members, best_of(chosen, k), axis=1), axis=1)
        return best.astype(self.desc.index_dtype) + jnp.asarray(first, self.desc.index_dtype)

    def _chosen(self, columns: Sequence[Any]) -> jax.Array:
        """The groups of the k smallest minima, (k, lanes), ascending; all of them where they are few."""
        k, most, dtype = self.selection.k, self.plan.tile_j, self.desc.index_dtype
        groups, rest = divmod(self.desc.n, self.plan.unroll)
        total = groups + (rest > 0)
        if total <= 2 * k:
            return jnp.broadcast_to(jnp.arange(total, dtype=dtype)[:, None], (total, self.lanes))
        if k == 1:
            return self._best_group(columns)
        steps = -(-total // most)

        def body(s: Any, lists: Lists) -> Lists:
            first = (steps - 1 - s) * most

            def minimum(u: Any) -> jax.Array:
                # Apart: what is computed where it is written runs on one core.
                whole = lambda: self._minimum_of(columns, jnp.minimum(first + u, groups - 1))  # noqa: E731
                if not rest:
                    return apart(u, whole)
                return lax.cond(first + u < groups, whole, lambda: self._minimum_of(columns, groups, rest))

            minima = lax.map(minimum, jnp.arange(most))
            return self.insertion.add(s, lists, minima, jnp.asarray(first, dtype), total if total % most else None)

        lists = lax.fori_loop(0, steps, body, self.insertion.neutral())
        return in_order(jnp.stack(lists[k : 2 * k]))

    def _inserted(self, args: Sequence[jax.Array], columns: Sequence[Any], chosen: jax.Array) -> Flat:
        """The accumulator of all pairs of the chosen groups, (k, lanes), or of all groups if one of those is of NaN."""
        size, n, count, total = self.plan.unroll, self.desc.n, chosen.shape[0], -(-self.desc.n // self.plan.unroll)

        def look(everything: Any) -> tuple[Lists, jax.Array]:
            def body(s: Any, so_far: tuple[Lists, jax.Array]) -> tuple[Lists, jax.Array]:
                def group() -> tuple[jax.Array, jax.Array]:
                    its = lax.dynamic_index_in_dim(chosen, count - 1 - s, 0, keepdims=False)
                    first = jnp.where(everything, jnp.asarray(total - 1 - s, its.dtype), its) * size
                    return self._pairs(args, columns, first, size), first

                values, first = apart(s, group)
                held = functools.reduce(jnp.logical_or, [v == v for v in values])
                lists = self.insertion.add(s, so_far[0], values, first, n if n % size else None)
                return lists, so_far[1] & held

            steps = jnp.where(everything, total, count)
            return lax.fori_loop(0, steps, body, (self.insertion.neutral(), jnp.ones(self.lanes, bool)))

        if count == total or not jnp.issubdtype(self.values[0].dtype, jnp.floating):
            lists, _ = look(False)
        else:

            def again(so_far: Any) -> Any:
                lists, held = look(so_far[1])
                return lists, True, so_far[1] | jnp.all(held)

            start = self.insertion.neutral(), jnp.asarray(False), jnp.asarray(False)
            lists, *_ = lax.while_loop(lambda so_far: ~so_far[2], again, start)
        return [jnp.moveaxis(x, -1, 0) for x in self.insertion.arrays(lists)]

    def _pairs(self, args: Sequence[jax.Array], columns: Sequence[Any], first: jax.Array, length: int) -> jax.Array:
        """The values (length, lanes) of each i beside the j's from `first` (lanes,) on; beyond n: those of the last."""
        desc = self.desc
        at = jnp.minimum(first + jnp.arange(length, dtype=first.dtype)[:, None], desc.n - 1)
        own = []
        for x, c, role, aval in zip(args, columns[:-2], desc.roles, desc.pair.in_avals, strict=True):
            if role == "j":
                x = x.reshape(desc.n, -1)
                c = [x.at[at, f].get(mode="promise_in_bounds") for f in range(x.shape[1])]
            own.append(tiles(aval.shape, list(c)))
        (out,) = evaluate(desc.pair.jaxpr, own, self.minimum.arithmetic)
        return broadcast_tile(jnp.asarray(out.item()), at.shape)

    def _runs(self, args: Sequence[jax.Array], starts: jax.Array, length: int) -> tuple[Flat, jax.Array]:
        """The accumulator of the pairs (i, starts[i] to starts[i] + length - 1), for starts (lanes, k); and whether
        each of these runs has a value that is not NaN."""
        desc, size = self.desc, starts.shape[1] * length
        own = [k for k, r in enumerate(desc.roles) if r == "i"]
        shared = dict(enumerate(args))

        def row(item: Any) -> tuple[list[jax.Array], jax.Array]:
            mine, starts = item
            merged = shared | dict(zip(own, mine, strict=True))

            def gather(x: jax.Array) -> jax.Array:  # runs are copied whole, much faster than one j after the other
                runs = jax.vmap(lambda start: lax.dynamic_slice_in_dim(x, start, length))(starts)
                return runs.reshape(size, *x.shape[1:])

            # Feature by feature, as in the first pass: an inner axis of features would not vectorise.
            features = []
            for x, r, aval in zip(merged.values(), desc.roles, desc.pair.in_avals, strict=True):
                x = gather(x).reshape(size, -1).T if r == "j" else x.reshape(-1)
                features.append(tiles(aval.shape, list(x)))
            outs = evaluate(desc.pair.jaxpr, features, self.minimum.arithmetic)
            values = [
                jnp.asarray(broadcast_tile(out.item(), (size,)), v.dtype).reshape(size, *v.shape)
                for out, v in zip(outs, self.values, strict=True)
            ]
            indices = (starts[:, None] + jnp.arange(length, dtype=starts.dtype)[None]).reshape(size)
            held = (values[0] == values[0]).reshape(-1, length).any(1).all()
            return self.accumulate(values, indices, jnp.ones(size, bool)), held

        together = max(1, (1 << 16) // size)
        acc, held = lax.map(row, ([args[k] for k in own], starts), batch_size=min(together, starts.shape[0]))
        return acc, jnp.all(held)
