"""The loop over the pairs that ranges keep: work is proportional to them, memory to the rows.

Clusters are cut into tiles of rows.  Several tiles are walked through at once, each along the ranges of its own
cluster, a chunk of j's at a time; how often is known only when it runs.  Tiles with about as many chunks go together,
so that few have to wait for the last.  A chunk that reaches beyond its range is masked after f.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..description import Description, traced_of
from ..pairs import all_pairs, batched, nothing, pad_leading
from ..ranges import between, parts, row_tiles, slice_starts
from ..reduction import TracedReduction, tree_merge
from ..scalarize import Tiles, tiles
from .block import Block
from .lanes import Flat, Lanes


class RangeLanes(Lanes):
    """A chunk of j's against a tile of i's in lanes."""

    def __init__(self, desc: Description, plan: Any, traced: TracedReduction):
        super().__init__(desc, plan, traced)
        self.rows = self.shape = self.shape_i = (plan.tile_i,)  # a tile of its own for a single row, too

    @property
    def length(self) -> int:
        return self.plan.unroll

    def of_j(self, args: Sequence[jax.Array]) -> list[Any]:
        """What all tiles read: columns of j, with rows to spare for the last chunk, and of parameters."""
        columns: list[Any] = []
        for role, x in zip(self.desc.roles, args, strict=True):
            if role == "j":
                columns.append(pad_leading(x.reshape(x.shape[0], -1), self.length))
            else:
                columns.append(x.reshape(-1) if role == "p" else None)
        return [*columns, [], self._before(columns, "j")]

    def of_i(self, args: Sequence[Any], shared: Sequence[Any]) -> list[Any]:
        """What one tile reads beside: the places where `shared` holds nothing."""
        columns: list[Any] = [
            x.reshape(x.shape[0], -1).T.reshape(-1, *self.shape) if r == "i" else None
            for r, x in zip(self.desc.roles, args, strict=True)
        ]
        together = [c if s is None else s for c, s in zip(columns, shared, strict=False)]
        return [*columns, self._before(together, "i"), []]

    def join(self, own: Sequence[Any], shared: Sequence[Any]) -> list[Any]:
        *columns, of_i, _ = own
        return [*(s if c is None else c for c, s in zip(columns, shared, strict=False)), of_i, shared[-1]]

    def part(self, columns: Sequence[Any], row: Any, valid: jax.Array, step: Any) -> Flat:
        """The accumulator of a chunk, of its valid pairs alone."""
        length, dtype = self.length, self.desc.index_dtype
        fixed = self._rows(columns, row, length)
        kept = self._kept(fixed, step, length)
        index = jnp.asarray(row, dtype) + np.arange(length, dtype=dtype)
        indices = tiles((length,), [lax.index_in_dim(index, u, 0, keepdims=False) for u in range(length)])
        there = [lax.index_in_dim(valid, u, 0, keepdims=False) for u in range(length)]
        values, _ = self._values(fixed, kept, length, near=False)
        ignored = self.desc.reduction.ignored(self.desc.pair.out_avals)
        if ignored is None:
            return self._flat(self._evaluate(self.traced.block(length), [*values, indices, tiles((length,), there)]))
        masked = [
            np.stack([_where(valid, v[u, ...], nothing) for u, valid in enumerate(there)])
            for v, nothing in zip(values, ignored, strict=True)
        ]
        return self._flat(self._evaluate(self.traced.fold(length), [*self._tiled(self.neutral()), *masked, indices]))


def _where(valid: jax.Array, value: Tiles, other: np.ndarray) -> Tiles:
    """A value of one pair where it is valid."""
    chosen = [jnp.where(valid, x, y) for x, y in zip(value.ravel(), other.ravel(), strict=True)]
    return tiles(value.shape, chosen)


class RangeBlock(Block):
    """A block of j's against a tile of i's, the pair function being mapped over both."""

    @property
    def length(self) -> int:
        return self.plan.tile_j

    def of_j(self, args: Sequence[jax.Array]) -> list[Any]:
        by_role = {"i": lambda x: None, "j": lambda x: pad_leading(x, self.length), "p": lambda x: x}
        return [by_role[r](x) for x, r in zip(args, self.desc.roles, strict=True)]

    def of_i(self, args: Sequence[Any], shared: Sequence[Any]) -> list[Any]:
        return [x if r == "i" else None for x, r in zip(args, self.desc.roles, strict=True)]

    def join(self, own: Sequence[Any], shared: Sequence[Any]) -> list[Any]:
        return [s if x is None else x for x, s in zip(own, shared, strict=True)]

    def part(self, columns: Sequence[Any], row: Any, valid: jax.Array, step: Any) -> Flat:
        desc, length = self.desc, self.length
        own = [
            lax.dynamic_slice_in_dim(x, row, length) if r == "j" else x
            for x, r in zip(columns, desc.roles, strict=True)
        ]
        indices = jnp.asarray(row, desc.index_dtype) + jnp.arange(length, dtype=desc.index_dtype)
        values = all_pairs(desc, self.plan.tile_i, length)(*own)
        return jax.vmap(lambda v: self.accumulate(v, indices, valid))(values)


SHAPES: dict[str, Any] = {"lanes": RangeLanes, "block": RangeBlock}


def lower(desc: Description, plan: Any) -> Callable[..., Sequence[jax.Array]]:
    """A function of the arrays of `desc`, for the tiles of `plan` (see `plan.XlaPlan`)."""
    traced = traced_of(desc)
    walk = SHAPES[plan.shape](desc, plan, traced)

    def problem(args: Sequence[jax.Array]) -> Sequence[jax.Array]:
        return _problem(desc, plan, walk, args)

    # Problems follow one another: loops of different lengths would all wait for the longest.
    return lambda *args: batched(problem, desc, args, together=1)


class Schedule(NamedTuple):
    """Tiles of rows, (T,) each: the first row, the end of its cluster, its first range, the number of its chunks."""

    row: jax.Array
    end: jax.Array
    range: jax.Array
    chunks: jax.Array


def _schedule(half: Sequence[jax.Array], m: Any, tile: int, length: int, together: int) -> tuple[Schedule, jax.Array]:
    """All tiles, those with most chunks first, a multiple of `together`; and how many there are really."""
    ranges, slices, redranges = half
    dtype = ranges.dtype
    # An empty range takes a chunk too, in which nothing is valid.
    chunks = between(jnp.maximum(parts(redranges, length), np.asarray(1, dtype)), slices)
    most = ranges.shape[0] + -(-m // tile)
    most = -(-most // together) * together
    own, count = row_tiles(ranges, chunks > 0, tile, most)
    found = Schedule(own.row, own.end, slice_starts(slices)[own.cluster], jnp.where(own.real, chunks[own.cluster], 0))
    if isinstance(most, int) and most == together:
        return found, count  # all at once: their order does not matter
    order = jnp.argsort(-found.chunks)
    return Schedule(*(x[order] for x in found)), jnp.minimum(count, most)


# Chunks that are summed before they meet the total, so that the error of a float32 sum does not grow with their number.
GROUP = 64


def _problem(desc: Description, plan: Any, walk: Any, args: Sequence[jax.Array]) -> Sequence[jax.Array]:
    own, ranges = desc.split(args)
    half = ranges[:3]
    m, tile, together, length = desc.m, plan.tile_i, plan.tiles, walk.length
    schedule, count = _schedule(half, m, tile, length, together)
    redranges, dtype = half[2], half[2].dtype
    last = np.asarray(redranges.shape[0] - 1, dtype)
    shared = walk.of_j(own)
    rows = [pad_leading(x, tile) if r == "i" else None for x, r in zip(own, desc.roles, strict=True)]

    def of_row(row: jax.Array) -> list[Any]:
        return walk.of_i([None if x is None else lax.dynamic_slice_in_dim(x, row, tile) for x in rows], shared)

    def several(fn: Callable[..., Any], in_axes: Any = 0) -> Callable[..., Any]:
        """`fn` of one tile, on all that are walked through together."""
        return jax.vmap(fn, in_axes, axis_size=together)

    neutral = several(walk.neutral, ())()
    merge = several(walk.merge)

    def reduced(now: Schedule) -> Flat:
        """The accumulators of these tiles."""
        columns = several(of_row)(now.row)

        def step(k: Any, state: Any) -> Any:
            at, position, acc = state
            stop = redranges[at, 1]
            ahead = position[:, None] + np.arange(length, dtype=dtype)[None]
            valid = (ahead < stop[:, None]) & (k < now.chunks)[:, None]
            part = several(lambda c, p, v: walk.part(walk.join(c, shared), p, v, k))(columns, position, valid)
            position = position + np.asarray(length, dtype)
            through = position >= stop
            at = jnp.minimum(at + through.astype(dtype), last)
            return at, jnp.where(through, redranges[at, 0], position), merge(part, acc)

        def group(g: Any, state: Any) -> Any:
            *where, total = state
            end = jnp.minimum((g + 1) * GROUP, most)
            *where, acc = lax.fori_loop(g * GROUP, end, step, (*where, neutral))
            return *where, merge(acc, total)

        most = jnp.max(now.chunks)
        first = jnp.minimum(now.range, last)
        start = (first, redranges[first, 0], neutral)
        if isinstance(desc.n, int) and -(-desc.n // length) + redranges.shape[0] <= GROUP:
            return lax.fori_loop(0, most, step, start)[2]
        return lax.fori_loop(0, lax.div(most + np.asarray(GROUP - 1, dtype), np.asarray(GROUP, dtype)), group, start)[2]

    def tiles_of(g: Any) -> tuple[Schedule, jax.Array]:
        """Group g, and the row of every place in it, (T, tile), beyond all where there is none."""
        now = Schedule(*(lax.dynamic_slice_in_dim(x, g * together, together) for x in schedule))
        number = now.row[:, None] + np.arange(tile, dtype=dtype)[None]
        return now, jnp.where(number < now.end[:, None], number, m)

    groups = lax.div(count + np.asarray(together - 1, dtype), np.asarray(together, dtype))
    alone = schedule.row.shape[0] == together  # a single group
    if desc.over == "ij":

        def into_one(g: Any, total: Flat) -> Flat:
            now, number = tiles_of(g)
            return merge(total, several(walk.select)(number < m, reduced(now), neutral))

        total = into_one(0, neutral) if alone else lax.fori_loop(0, groups, into_one, neutral)
        whole = tree_merge(walk.merge, total)
        return walk.finalize_over_i(whole)

    def into_rows(g: Any, outs: list[jax.Array]) -> list[jax.Array]:
        now, number = tiles_of(g)
        found = several(walk.finalize)(reduced(now))
        flat = number.reshape(-1)
        new = [x.reshape(-1, *x.shape[2:]) for x in found]
        return [o.at[flat].set(x, mode="drop") for o, x in zip(outs, new, strict=True)]

    outs = nothing(desc.replace(batch=()))()
    return into_rows(0, list(outs)) if alone else lax.fori_loop(0, groups, into_rows, list(outs))
