"""The K smallest of all j, or the place of the smallest, for one tile of i, by group minima.

The K groups of j's with the smallest minima contain the K smallest values: any other group has a minimum that is no
smaller than those of K groups, so K values come before each of its own.  A first pass keeps only the minimum of every
group, as fast as a min; a selection among the minima names K groups; their values are computed again and selected from.
A tie between minima goes to the lower group, so ties of values go to the lower index.

NaN is skipped, so a group of nothing else looks like one that holds infinity.  Where the K groups hold fewer than K
values for that reason, which the result shows, the tile is computed again by the slow way.
"""

from __future__ import annotations

import dataclasses
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
        self.insertion = Insertion(traced, math.prod(self.minimum.rows), plan.inserted)
        side = max(1, (1 << 18) // plan.tile_i)
        self.slow = Block(desc, dataclasses.replace(plan, shape="block", tile_j=min(side, desc.n)), traced)

    def __call__(self, args: Sequence[jax.Array]) -> Flat:
        if self.plan.inserted:
            columns = self.minimum.columns(args)
            groups = self.desc.n // self.plan.unroll
            chosen = self._best_group(columns, groups).T if self.selection.k == 1 else self._nearest(columns, groups)
            return self._inserted(args, columns, chosen)
        acc, complete = self._by_groups(args)
        return lax.cond(complete, lambda: acc, lambda: self.slow(args))

    def _by_groups(self, args: Sequence[jax.Array]) -> tuple[Flat, jax.Array]:
        """The accumulator, and whether all chosen groups held as many values as were wanted of them."""
        n, size, most = self.desc.n, self.plan.unroll, self.plan.tile_j
        groups = n // size
        columns = self.minimum.columns(args)
        if self.selection.k == 1:
            acc, complete = self._members(args, self._best_group(columns, groups))
        else:
            acc, complete = self.neutral(), jnp.asarray(True)

            def add(so_far: Any, first: Any, count: int) -> Any:
                acc, complete = so_far
                more, held = self._members(args, self._best_groups(columns, first, count))
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
            acc = self.merge(acc, self._runs(args, last, n % size))
        return acc, complete

    def _minimum_of(self, columns: Sequence[Any], group: Any) -> jax.Array:
        size = self.plan.unroll
        (minimum,) = self.minimum.chunk(columns, group * size, size, self.minimum.neutral())
        return minimum.reshape(-1)

    def _minima(self, columns: Sequence[Any], first: Any, count: int, total: int) -> jax.Array:
        """The minima of `count` groups from `first` on, (count, lanes); those beyond `total` repeat the last."""

        def minimum(k: Any) -> jax.Array:
            # Apart: what is computed where it is written runs on one core.
            return apart(k, lambda: self._minimum_of(columns, jnp.minimum(first + k, total - 1)))

        return lax.map(minimum, jnp.arange(count))

    def _best_group(self, columns: Sequence[Any], groups: int) -> jax.Array:
        """The group of the smallest minimum, (lanes, 1)."""

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

        (neutral,) = self.minimum.neutral()
        first = jnp.zeros(self.plan.tile_i, self.desc.index_dtype)
        return lax.fori_loop(0, groups // together, step, (neutral.reshape(-1), first))[1][:, None]

    def _best_groups(self, columns: Sequence[Any], first: Any, count: int) -> jax.Array:
        """The groups of the k smallest minima among first, first + 1, ..., first + count - 1: (lanes, k), ascending."""
        k, best_of = min(self.selection.k, count), self.selection.best_groups
        minima = self._minima(columns, first, count, count)
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

    def _nearest(self, columns: Sequence[Any], groups: int) -> jax.Array:
        """The groups of the k smallest minima, (k, lanes), ascending."""
        k, most = self.selection.k, self.plan.tile_j
        steps = -(-groups // most)

        def body(s: Any, lists: Lists) -> Lists:
            first = (steps - 1 - s) * most
            minima = self._minima(columns, first, most, groups)
            end = groups if groups % most else None
            return self.insertion.add(s, lists, minima, jnp.asarray(first, self.desc.index_dtype), end)

        lists = lax.fori_loop(0, steps, body, self.insertion.neutral())
        return in_order(jnp.stack(lists[k : k + min(k, groups)]))

    def _inserted(self, args: Sequence[jax.Array], columns: Sequence[Any], chosen: jax.Array) -> Flat:
        """The accumulator of all pairs of the chosen groups, (k, lanes), and of those after the last whole group."""
        size, n, total = self.plan.unroll, self.desc.n, -(-self.desc.n // self.plan.unroll)
        if n % size:
            chosen = jnp.concatenate([chosen, jnp.full((1, chosen.shape[1]), total - 1, chosen.dtype)])
        count, wanted = chosen.shape[0], min(self.selection.k, n)

        def look(so_far: Any) -> Any:
            """At the chosen groups, then at all of them, unless those held enough."""
            everything = so_far[1]

            def body(s: Any, lists: Lists) -> Lists:
                def group() -> tuple[jax.Array, jax.Array]:
                    its = lax.dynamic_index_in_dim(chosen, count - 1 - s, 0, keepdims=False)
                    first = jnp.where(everything, jnp.asarray(total - 1 - s, its.dtype), its) * size
                    return self._pairs(args, columns, first, size), first

                return self.insertion.add(s, lists, *apart(s, group), n if n % size else None)

            lists = lax.fori_loop(0, jnp.where(everything, total, count), body, self.insertion.neutral())
            holds = jax.vmap(lambda *acc: self.selection.holds(self.unflatten(acc), wanted), -1)
            return lists, True, everything | jnp.all(holds(*self.insertion.arrays(lists)))

        start = self.insertion.neutral(), jnp.asarray(count == total), jnp.asarray(False)
        lists, *_ = lax.while_loop(lambda so_far: ~so_far[2], look, start)
        return [jnp.moveaxis(x, -1, 0) for x in self.insertion.arrays(lists)]

    def _pairs(self, args: Sequence[jax.Array], columns: Sequence[Any], first: jax.Array, length: int) -> jax.Array:
        """The values (length, lanes) of each i beside the j's from `first` (lanes,) on; beyond n the last is repeated."""
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

    def _members(self, args: Sequence[jax.Array], chosen: jax.Array) -> tuple[Flat, jax.Array]:
        """The accumulator of all pairs of some groups of each row, and whether it is complete."""
        size = self.plan.unroll
        acc = self._runs(args, chosen * size, size)
        wanted = min(self.selection.k, chosen.shape[1] * size)
        return acc, jnp.all(jax.vmap(lambda a: self.selection.holds(self.unflatten(a), wanted))(acc))

    def _runs(self, args: Sequence[jax.Array], starts: jax.Array, length: int) -> Flat:
        """The accumulator of the pairs (i, starts[i] to starts[i] + length - 1), for starts (lanes, k)."""
        desc, size = self.desc, starts.shape[1] * length
        own = [k for k, r in enumerate(desc.roles) if r == "i"]
        shared = dict(enumerate(args))

        def row(item: Any) -> list[jax.Array]:
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
            return self.accumulate(values, indices, jnp.ones(size, bool))

        together = max(1, (1 << 16) // size)
        return lax.map(row, ([args[k] for k in own], starts), batch_size=min(together, starts.shape[0]))
