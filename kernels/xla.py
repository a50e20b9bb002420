"""Tiled loops that XLA compiles for any platform: memory stays linear, both axes are walked in tiles.

Two shapes of the same loop.  `lanes`: one vector of i's per feature, a chunk of j's unrolled as scalars, so that
XLA emits a single fused, vectorised and multi-threaded loop with no array of pairs at all.  `block`: the pair
function is mapped over an (i, j) tile, whatever it holds, and the tile is reduced at once: for formulas with
long features (whose inner products become matrix products) and for reductions that want many values
together (K smallest).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from . import scalarize
from .description import Description
from .pairs import all_pairs, axes_for, batched, pad_leading
from .reduction import TracedReduction, trace, tree_merge
from .scalarize import Tiles, broadcast_tile, evaluate, tiles

name = "xla"

Flat = list[jax.Array]  # an accumulator: one array of lanes for every feature of every leaf


def supports(desc: Description, platform: str) -> str | None:
    """None: every effect-free pair function runs, on every platform."""
    return None


def lower(desc: Description, plan: Any) -> Callable[..., Sequence[jax.Array]]:
    """A function of the arrays of `desc`, for the tiles of `plan` (see `planner.XlaPlan`)."""
    traced = trace(desc.reduction, tuple((v.shape, v.dtype) for v in desc.pair.out_avals), desc.index_dtype)
    if isinstance(desc.m, int):
        plan = dataclasses.replace(plan, tile_i=min(plan.tile_i, desc.m))
    reduce_rows = _Lanes(desc, plan, traced) if plan.shape == "lanes" else _Block(desc, plan, traced)
    problem = _rows(desc, plan, reduce_rows) if desc.over == "j" else _both(desc, plan, reduce_rows)
    return lambda *args: batched(problem, desc, args, together=plan.problems)


def _rows(desc: Description, plan: Any, reduce_rows: Any) -> Callable[[Sequence[jax.Array]], Sequence[jax.Array]]:
    """Every row on its own: walk through the tiles of i."""
    m, tile = desc.m, plan.tile_i

    def problem(args: Sequence[jax.Array]) -> Sequence[jax.Array]:
        if isinstance(m, int) and m <= tile:
            return reduce_rows.finalize(reduce_rows(args))
        rows, args_of = _tiles_of_i(desc, args, tile)
        single = desc.replace(batch=())

        def step(k: Any, outs: list[jax.Array]) -> list[jax.Array]:
            new = reduce_rows.finalize(reduce_rows(args_of(k)))
            return [lax.dynamic_update_slice_in_dim(o, x, k * tile, 0) for o, x in zip(outs, new, strict=True)]

        outs = [jnp.zeros((rows, *o.shape[1:]), o.dtype) for o in single.outputs]
        return [o[:m] for o in lax.fori_loop(0, -(-m // tile), step, outs)]

    return problem


def _both(desc: Description, plan: Any, reduce_rows: Any) -> Callable[[Sequence[jax.Array]], Sequence[jax.Array]]:
    """All pairs into one result: one accumulator, merged tile after tile, so no array has m rows."""
    m, tile = desc.m, plan.tile_i

    def problem(args: Sequence[jax.Array]) -> Sequence[jax.Array]:
        if isinstance(m, int) and m <= tile:
            return reduce_rows.finalize_over_i(reduce_rows(args))
        _, args_of = _tiles_of_i(desc, args, tile)

        def step(k: Any, acc: Flat) -> Flat:
            inside = k * tile + jnp.arange(tile) < m
            new = reduce_rows.select(inside, reduce_rows(args_of(k)), reduce_rows.neutral())
            return reduce_rows.merge(acc, new)

        return reduce_rows.finalize_over_i(lax.fori_loop(0, -(-m // tile), step, reduce_rows.neutral()))

    return problem


def _padded(size: Any, tile: int) -> Any:
    """Rows that tiles of this size may touch.  A symbolic size takes a tile more, which needs no comparison."""
    return -(-size // tile) * tile if isinstance(size, int) else size + tile


def _tiles_of_i(desc: Description, args: Sequence[jax.Array], tile: int) -> tuple[Any, Callable[[Any], list[jax.Array]]]:
    """How many rows all tiles have together, and the arguments for tile k."""
    rows = _padded(desc.m, tile)
    padded = [pad_leading(x, rows - desc.m) if r == "i" else x for x, r in zip(args, desc.roles, strict=True)]

    def args_of(k: Any) -> list[jax.Array]:
        return [
            lax.dynamic_slice_in_dim(x, k * tile, tile) if r == "i" else x
            for x, r in zip(padded, desc.roles, strict=True)
        ]

    return rows, args_of


class _Lanes:
    """One tile of i against all j: i's in lanes, j's one scalar after the other, unrolled in chunks."""

    def __init__(self, desc: Description, plan: Any, traced: TracedReduction):
        self.desc, self.plan, self.traced = desc, plan, traced
        self.shape = () if isinstance(desc.m, int) and desc.m == 1 else (plan.tile_i,)
        self.sizes = [int(np.prod(a.shape)) for a in traced.acc_avals]

    # Accumulators: flat lists of lanes, and the arrays of tiles that jaxprs read.

    def _flat(self, arrays: Sequence[Tiles]) -> Flat:
        return [jnp.asarray(broadcast_tile(t, self.shape)) for a in arrays for t in a.ravel()]

    def _tiled(self, flat: Sequence[jax.Array]) -> list[Tiles]:
        cuts = np.cumsum([0, *self.sizes])
        return [
            tiles(a.shape, list(flat[lo:hi]))
            for a, lo, hi in zip(self.traced.acc_avals, cuts[:-1], cuts[1:], strict=True)
        ]

    def neutral(self) -> Flat:
        return self._flat(evaluate(self.traced.init, []))

    def merge(self, a: Sequence[jax.Array], b: Sequence[jax.Array]) -> Flat:
        out = evaluate(self.traced.merge, [*self._tiled(a), *self._tiled(b)])
        return [jnp.asarray(t) for array in out for t in array.ravel()]

    def select(self, keep: jax.Array, new: Flat, old: Flat) -> Flat:
        return [lax.select(jnp.broadcast_to(keep, x.shape), x, y) for x, y in zip(new, old, strict=True)]

    def _outputs(self, flat: Sequence[jax.Array], shape: tuple[int, ...]) -> list[jax.Array]:
        outs = []
        for array in evaluate(self.traced.finalize, self._tiled(flat)):
            if array.size == 0:
                outs.append(None)
                continue
            columns = jnp.stack([jnp.asarray(broadcast_tile(t, shape)) for t in array.ravel()], -1)
            outs.append(columns.reshape(*shape, *array.shape))
        return [
            jnp.zeros((*shape, *a.shape), a.dtype) if o is None else o
            for o, a in zip(outs, self.traced.out_avals, strict=True)
        ]

    def finalize(self, flat: Flat) -> list[jax.Array]:
        outs = self._outputs(flat, self.shape)
        return outs if self.shape else [o[None] for o in outs]

    def finalize_over_i(self, flat: Flat) -> list[jax.Array]:
        return self._outputs(tree_merge(self.merge, flat) if self.shape else flat, ())

    # The loop.

    def __call__(self, args: Sequence[jax.Array]) -> Flat:
        desc, lanes = self.desc, self.plan.segments
        rows = -(-desc.n // lanes)
        columns: list[jax.Array] = []  # features lead, so that the lanes of one feature are contiguous
        for role, aval, x in zip(desc.roles, desc.pair.in_avals, args, strict=True):
            features = int(np.prod(aval.shape))
            if role == "p":
                columns.append(x.reshape(features))
            elif role == "i":
                columns.append(x.reshape(-1, features).T.reshape(features, *self.shape))
            elif lanes == 1:
                column = x.reshape(-1, features)
                symbolic = not isinstance(desc.n, int)  # then nothing says that there are enough for one chunk
                columns.append(pad_leading(column, self.plan.unroll) if symbolic else column)
            else:
                padded = pad_leading(x.reshape(-1, features), rows * lanes - desc.n)
                columns.append(jnp.swapaxes(padded.reshape(rows, lanes, features), 1, 2))
        if lanes == 1:
            return self._sweep(columns, np.zeros((), desc.index_dtype)[()])
        # j is cut into interleaved segments that run side by side and are merged by the monoid.
        in_axes = tuple(2 if r == "j" else None for r in desc.roles)
        starts = jnp.arange(lanes, dtype=desc.index_dtype)
        return tree_merge(self.merge, jax.vmap(self._sweep, in_axes=(in_axes, 0))(tuple(columns), starts))

    def _sweep(self, columns: Sequence[jax.Array], start: Any) -> Flat:
        """Pairs start, start + segments, ...; from the last to the first (see `Reduction.fold`)."""
        desc, plan = self.desc, self.plan
        unroll, stride, group = plan.unroll, plan.segments, plan.group
        acc = self.neutral()
        full = desc.n // stride // unroll  # chunks in which every segment is whole
        rows = -(-desc.n // stride)

        def tail(k: Any, acc: Flat) -> Flat:
            row = rows - 1 - k
            new = self._chunk(columns, row, 1, start, acc)
            return self.select(row * stride + start < desc.n, new, acc)

        def chunks(first: Any, count: Any, acc: Flat) -> Flat:
            def body(k: Any, acc: Flat) -> Flat:
                return self._chunk(columns, (first + count - 1 - k) * unroll, unroll, start, acc)

            return lax.fori_loop(0, count, body, acc)

        if not (isinstance(rows, int) and rows == full * unroll):
            acc = lax.fori_loop(0, rows - full * unroll, tail, acc)
        if isinstance(full, int) and full <= group:
            return chunks(0, full, acc) if full else acc
        # A float32 sum of many terms is summed by groups: the error grows with their size, not with n.
        groups = full // group
        acc = chunks(groups * group, full - groups * group, acc)

        def body(k: Any, acc: Flat) -> Flat:
            return self.merge(chunks((groups - 1 - k) * group, group, self.neutral()), acc)

        return lax.fori_loop(0, groups, body, acc)

    def _chunk(self, columns: Sequence[jax.Array], row: Any, length: int, start: Any, acc: Flat) -> Flat:
        """Fold `length` consecutive rows of j into the accumulator."""
        desc = self.desc
        fixed: list[Any] = []
        for role, aval, c in zip(desc.roles, desc.pair.in_avals, columns, strict=True):
            if role == "j":
                fixed.append(lax.dynamic_slice_in_dim(c, row, length))
            else:
                items = [lax.index_in_dim(c, k, 0, keepdims=False) for k in range(c.shape[0])]
                fixed.append(tiles(aval.shape, items))
        values, indices = [], []
        for u in range(length):
            args = []
            for role, aval, c in zip(desc.roles, desc.pair.in_avals, fixed, strict=True):
                if role == "j":
                    row_u = lax.index_in_dim(c, u, 0, keepdims=False)
                    items = [lax.index_in_dim(row_u, k, 0, keepdims=False) for k in range(c.shape[1])]
                    c = tiles(aval.shape, items)
                args.append(c)
            values.append(evaluate(desc.pair.jaxpr, args))
            position = jnp.asarray(row, desc.index_dtype) + np.asarray(u, desc.index_dtype)
            indices.append(position * np.asarray(self.plan.segments, desc.index_dtype) + start)
        stacked = [np.stack(v) for v in zip(*values, strict=True)]
        fold = self.traced.fold(length)
        return self._flat(evaluate(fold, [*self._tiled(acc), *stacked, tiles((length,), indices)]))


class _Block:
    """One tile of i against all j, a block of j at a time, with the pair function mapped over the tile."""

    def __init__(self, desc: Description, plan: Any, traced: TracedReduction):
        self.desc, self.plan, self.traced = desc, plan, traced
        self.values = [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in desc.pair.out_avals]
        self.unflatten = traced.treedef.unflatten
        self._merge = jax.vmap(self._merge_one)

    def _merge_one(self, a: Sequence[jax.Array], b: Sequence[jax.Array]) -> Flat:
        return list(scalarize.jaxpr_as_fun(self.traced.merge)(*a, *b))

    def neutral(self) -> Flat:
        init = scalarize.jaxpr_as_fun(self.traced.init)()
        return [jnp.broadcast_to(e, (self.plan.tile_i, *e.shape)) for e in init]

    def merge(self, a: Flat, b: Flat) -> Flat:
        return self._merge(a, b)

    def select(self, keep: jax.Array, new: Flat, old: Flat) -> Flat:
        return [jnp.where(keep.reshape(-1, *(1,) * (x.ndim - 1)), x, y) for x, y in zip(new, old, strict=True)]

    def finalize(self, acc: Flat) -> list[jax.Array]:
        return list(jax.vmap(lambda *a: scalarize.jaxpr_as_fun(self.traced.finalize)(*a))(*acc))

    def finalize_over_i(self, acc: Flat) -> list[jax.Array]:
        return list(scalarize.jaxpr_as_fun(self.traced.finalize)(*tree_merge(self._merge, acc)))

    def __call__(self, args: Sequence[jax.Array]) -> Flat:
        desc, plan = self.desc, self.plan
        tile_j = plan.tile_j
        values_of = all_pairs(desc, plan.tile_i, tile_j)
        count = -(-desc.n // tile_j)
        mapped = axes_for(desc.roles, "j")
        extra = _padded(desc.n, tile_j) - desc.n
        padded = [pad_leading(x, extra) if axis == 0 else x for x, axis in zip(args, mapped, strict=True)]

        def body(k: Any, acc: Flat) -> Flat:
            own = [
                lax.dynamic_slice_in_dim(x, k * tile_j, tile_j) if axis == 0 else x
                for x, axis in zip(padded, mapped, strict=True)
            ]
            indices = jnp.asarray(k * tile_j, desc.index_dtype) + jnp.arange(tile_j, dtype=desc.index_dtype)
            valid = indices < desc.n

            def row(values: Sequence[jax.Array]) -> list[jax.Array]:
                leaves = jax.tree.leaves(desc.reduction.block(values, indices, valid))
                return [jnp.asarray(x, a.dtype) for x, a in zip(leaves, self.traced.acc_avals, strict=True)]

            return self.merge(acc, jax.vmap(row)(values_of(*own)))

        return lax.fori_loop(0, count, body, self.neutral())
