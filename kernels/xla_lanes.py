"""One tile of i against all j, with i in vector lanes: no array of pairs, a single fused loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .description import Description
from .pairs import pad_leading
from .reduction import TracedReduction, tree_merge
from .scalarize import Tiles, broadcast_tile, evaluate, tiles

Flat = list[jax.Array]  # an accumulator: one array of lanes for every feature of every leaf


class Lanes:
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
        return [jnp.asarray(broadcast_tile(t, np.shape(a[0]))) for array in out for t in array.ravel()]

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
        columns = self.columns(args)
        if lanes == 1:
            return self._sweep(columns, np.zeros((), desc.index_dtype)[()])
        # j is cut into interleaved segments that run side by side and are merged by the monoid.
        in_axes = tuple(2 if r == "j" else None for r in desc.roles)
        starts = jnp.arange(lanes, dtype=desc.index_dtype)
        return tree_merge(self.merge, jax.vmap(self._sweep, in_axes=(in_axes, 0))(tuple(columns), starts))

    def columns(self, args: Sequence[jax.Array]) -> list[jax.Array]:
        """The features of every argument as the loop reads them: i (F, lanes), j (rows, F[, segments]), p (F,)."""
        desc, lanes = self.desc, self.plan.segments
        rows = -(-desc.n // lanes)
        columns: list[jax.Array] = []  # features lead, so that the lanes of one feature are contiguous
        for role, aval, x in zip(desc.roles, desc.pair.in_avals, args, strict=True):
            features = int(np.prod(aval.shape))
            if role == "p":
                columns.append(x.reshape(features))
            elif role == "i":
                columns.append(x.reshape(x.shape[0], features).T.reshape(features, *self.shape))
            elif lanes == 1:
                column = x.reshape(x.shape[0], features)
                symbolic = not isinstance(desc.n, int)  # then nothing says that there are enough for one chunk
                columns.append(pad_leading(column, self.plan.unroll) if symbolic else column)
            else:
                padded = pad_leading(x.reshape(x.shape[0], features), rows * lanes - desc.n)
                columns.append(jnp.swapaxes(padded.reshape(rows, lanes, features), 1, 2))
        return columns

    def _sweep(self, columns: Sequence[jax.Array], start: Any) -> Flat:
        """Pairs start, start + segments, ...; from the last to the first (see `Reduction.fold`)."""
        desc, plan = self.desc, self.plan
        unroll, stride, group = plan.unroll, plan.segments, plan.group
        acc = self.neutral()
        full = desc.n // stride // unroll  # chunks in which every segment is whole
        rows = -(-desc.n // stride)

        def tail(k: Any, acc: Flat) -> Flat:
            row = rows - 1 - k
            new = self.chunk(columns, row, 1, start, acc)
            return self.select(row * stride + start < desc.n, new, acc)

        def chunks(first: Any, count: Any, acc: Flat) -> Flat:
            def body(k: Any, acc: Flat) -> Flat:
                return self.chunk(columns, (first + count - 1 - k) * unroll, unroll, start, acc)

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

    def chunk(self, columns: Sequence[jax.Array], row: Any, length: int, start: Any, acc: Flat) -> Flat:
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
