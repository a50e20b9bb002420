"""One tile of i against all j, with i in vector lanes: no array of pairs, a single fused loop."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..description import Description
from ..pairs import pad_leading
from ..reduction import TracedReduction, tree_merge
from ..scalarize import Arithmetic, Tiles, broadcast_tile, evaluate, tiles
from .elementary import FAR, FUNCTIONS, near_functions
from .fusion import apart, as_one, packed, unpacked
from .sharing import Replay, without

Flat = list[jax.Array]  # an accumulator: one array of lanes for every feature of every leaf


class Lanes:
    """One tile of i against all j: i's in lanes, j's one scalar after the other, unrolled in chunks.

    Where i alone is too short, j is cut into segments that run side by side: each row of `segments` consecutive j's is
    one of every segment.  The lanes are then (rows of i, segments), or (segments, rows of i), whichever is longer last.
    """

    def __init__(self, desc: Description, plan: Any, traced: TracedReduction):
        if plan.segments > 1 and desc.n < plan.segments:
            plan = dataclasses.replace(plan, segments=desc.n)
        self.desc, self.plan, self.traced = desc, plan, traced
        self.rows = () if isinstance(desc.m, int) and desc.m == 1 else (plan.tile_i,)
        self.shape, self.shape_i, self.shape_j = self.rows, self.rows, ()  # of a pair, of an i, of a j
        if plan.segments > 1:
            j_last = not self.rows or plan.tile_i <= plan.segments
            self.shape_j = (plan.segments,) if j_last else (plan.segments, 1)
            self.shape_i = (*self.rows, *(1 for _ in self.rows if j_last))
            self.shape = np.broadcast_shapes(self.shape_i, self.shape_j)
        self.arithmetic = Arithmetic(functions=FUNCTIONS if plan.elementary else None)
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

    def _evaluate(self, jaxpr: Any, args: Sequence[Tiles]) -> list[Tiles]:
        return evaluate(jaxpr, args, self.arithmetic)

    def neutral(self, segments: bool = False) -> Flat:
        """The neutral element of every row of i, or of every segment of each."""
        shape = self.shape if segments else self.rows
        return [jnp.asarray(broadcast_tile(t, shape)) for a in self._evaluate(self.traced.init, []) for t in a.ravel()]

    def merge(self, a: Sequence[jax.Array], b: Sequence[jax.Array]) -> Flat:
        out = self._evaluate(self.traced.merge, [*self._tiled(a), *self._tiled(b)])
        return [jnp.asarray(broadcast_tile(t, np.shape(a[0]))) for array in out for t in array.ravel()]

    def select(self, keep: jax.Array, new: Flat, old: Flat) -> Flat:
        return [lax.select(jnp.broadcast_to(keep, x.shape), x, y) for x, y in zip(new, old, strict=True)]

    def _outputs(self, flat: Sequence[jax.Array], shape: tuple[int, ...]) -> list[jax.Array]:
        outs = []
        for array in self._evaluate(self.traced.finalize, self._tiled(flat)):
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
        outs = self._outputs(flat, self.rows)
        return outs if self.rows else [o[None] for o in outs]

    def finalize_over_i(self, flat: Flat) -> list[jax.Array]:
        return self._outputs(tree_merge(self.merge, flat) if self.rows else flat, ())

    # The loop.

    def __call__(self, args: Sequence[jax.Array]) -> Flat:
        acc = self._sweep(self.columns(args))
        return acc if self.plan.segments == 1 else self._merge_segments(acc)

    def _merge_segments(self, acc: Flat) -> Flat:
        segments, axis = self.plan.segments, len(self.shape) - len(self.shape_j)
        size = segments // math.gcd(segments, 16)

        def part(k: Any) -> Flat:
            return [lax.dynamic_slice_in_dim(x, k * size, size, axis) for x in acc]

        # A loop first: XLA would fuse the halves with what computes them, and compute that anew in every half.
        some = lax.fori_loop(1, segments // size, lambda k, so_far: self.merge(so_far, part(k)), part(0))
        return tree_merge(self.merge, some, axis)

    def columns(self, args: Sequence[jax.Array]) -> list[Any]:
        """The features of every argument as the loop reads them: i (F, *shape_i), j (n, F), p (F,).

        Then two lists, of what is computed before the loop: for every i (*shape_i), and for every j (n,).
        """
        desc = self.desc
        columns: list[Any] = []  # features lead, so that the lanes of one feature are contiguous
        for role, aval, x in zip(desc.roles, desc.pair.in_avals, args, strict=True):
            features = int(np.prod(aval.shape))
            if role == "p":
                columns.append(x.reshape(features))
            elif role == "i":
                columns.append(list(x.reshape(x.shape[0], features).T.reshape(features, *self.shape_i)))
            else:
                column = x.reshape(x.shape[0], features)
                symbolic = not isinstance(desc.n, int)  # then nothing says that there are enough for one chunk
                columns.append(pad_leading(column, self.plan.unroll) if symbolic else column)
        return [*columns, self._before(columns, "i"), self._before(columns, "j")]

    def _before(self, columns: Sequence[Any], role: str) -> list[jax.Array]:
        """The kept scalars that read this role and parameters alone."""
        desc, places = self.desc, self.plan.kept.rows if role == "i" else self.plan.kept.columns
        if not places:
            return []
        args = []
        for r, aval, c in zip(desc.roles, desc.pair.in_avals, columns, strict=True):
            if r in (role, "p"):
                args.append(tiles(aval.shape, list(c.T) if r == "j" else list(c)))
            else:
                args.append(tiles(aval.shape, [None] * math.prod(aval.shape)))
        replay = Replay(self.arithmetic, without(desc, "j" if role == "i" else "i"))
        evaluate(desc.pair.jaxpr, args, replay)
        return [replay.computed[k] for k in places]

    def _sweep(self, columns: Sequence[Any]) -> Flat:
        """All pairs of each lane, from the last to the first (see `Reduction.fold`)."""
        n, stride, group = self.desc.n, self.plan.segments, self.plan.group
        length = stride * self.plan.unroll  # of a chunk
        acc = self.neutral(segments=True)
        full = n // length

        def tail(k: Any, acc: Flat) -> Flat:
            first = (n // stride - 1 - k) * stride
            return self.chunk(columns, first, 1, acc)

        def chunks(first: Any, count: Any, acc: Flat) -> Flat:
            if isinstance(count, int) and isinstance(first, int) and count == 1:
                return self.chunk(columns, first * length, self.plan.unroll, acc)

            def body(k: Any, acc: Flat) -> Flat:
                at, rows = (first + count - 1 - k) * length, self.plan.unroll
                if not self.plan.joined:
                    return self.chunk(columns, at, rows, acc)
                # Two halves: XLA copies the result of a reduction that reads what it replaces.  They are cut from
                # one slice: with a dynamic slice for each, XLA (jax 0.10.2) fails to compile some formulas.
                fixed = self._rows(columns, at, rows)
                for lo, hi in ((rows // 2, rows), (0, rows // 2)):
                    if lo < hi:
                        part = self._part(fixed, lo, hi)
                        acc = as_one(self._absorb(part, at + lo * stride, hi - lo, unpacked(acc, acc_dtypes)))
                return acc

            acc_dtypes = [x.dtype for x in acc]
            if not self.plan.joined:
                return lax.fori_loop(0, count, body, acc)
            return unpacked(lax.fori_loop(0, count, body, [packed(x) for x in acc]), acc_dtypes)

        if stride > 1 and n % stride:  # the last `stride` pairs, of which some belong to the row before
            new = self.chunk(columns, n - stride, 1, acc)
            acc = self.select(self._indices(n - stride, 1)[0] >= n // stride * stride, new, acc)
        acc = self.rest(columns, full * length, n // stride - full * self.plan.unroll, tail, acc)
        if isinstance(full, int) and full <= group:
            return chunks(0, full, acc) if full else acc
        # A float32 sum of many terms is summed by groups: the error grows with their size, not with n.
        groups = full // group
        acc = chunks(groups * group, full - groups * group, acc)

        def body(k: Any, acc: Flat) -> Flat:
            return self.merge(chunks((groups - 1 - k) * group, group, self.neutral(segments=True)), acc)

        return lax.fori_loop(0, groups, body, acc)

    def rest(self, columns: Sequence[Any], first: Any, rows: Any, one: Callable[[Any, Flat], Flat], acc: Flat) -> Flat:
        """The rows after the last whole chunk, which are few: `one` folds the k-th of them, from the last."""
        del columns, first
        return acc if isinstance(rows, int) and rows == 0 else lax.fori_loop(0, rows, one, acc)

    def _indices(self, first: Any, length: int) -> jax.Array:
        """The indices of `length` rows of j from the j `first` on, (length, *shape_j)."""
        dtype, stride = self.desc.index_dtype, self.plan.segments
        rows = jnp.asarray(first, dtype) + np.arange(0, length * stride, stride, dtype=dtype)
        return rows.reshape(length, *(1 for _ in self.shape_j)) + lax.iota(dtype, stride).reshape(self.shape_j)

    def chunk(self, columns: Sequence[Any], first: Any, length: int, acc: Flat) -> Flat:
        """Fold `length` consecutive rows of j, from the j `first` on, into the accumulator."""
        return self._absorb(self._rows(columns, first, length), first, length, acc)

    def _absorb(self, fixed: Sequence[Sequence[Any]], first: Any, length: int, acc: Flat) -> Flat:
        kept = self._kept(fixed, first, length) if length > 1 else {}
        index = self._indices(first, length)
        indices = tiles((length,), [lax.index_in_dim(index, u, 0, keepdims=False) for u in range(length)])

        def fold(near: bool) -> Flat:
            values, _ = self._values(fixed, kept, length, near)
            return self._flat(self._evaluate(self.traced.fold(length), [*self._tiled(acc), *values, indices]))

        if not self.plan.angles or length == 1:
            return fold(near=False)
        # Angles are small but in rare chunks: those take the long way.
        _, angles = self._values(fixed, kept, length, near=True)
        # A selection, for jnp.maximum hands NaN on, which takes more instructions; NaN angles take either way.
        largest = functools.reduce(lambda a, b: jnp.where(a > b, a, b), angles)
        return lax.cond(jnp.any(largest >= FAR), lambda: fold(near=False), lambda: fold(near=True))

    def _values(
        self, fixed: Sequence[Sequence[jax.Array]], kept: dict[int, jax.Array], length: int, near: bool
    ) -> tuple[list[Tiles], list[jax.Array]]:
        """The values of `length` pairs of every lane, stacked, and, where all are taken to be `near`, their angles."""
        desc, values, angles = self.desc, [], []

        # Traced and lowered once, however long the chunk: XLA inlines the calls.
        @jax.jit
        def pair(own: list[Any], given: dict[int, Any]) -> tuple[list[list[Any]], list[Any]]:
            its_angles: list[Any] = []
            arithmetic = Arithmetic(functions=near_functions(its_angles)) if near else self.arithmetic
            args = [tiles(aval.shape, x) for aval, x in zip(desc.pair.in_avals, own, strict=True)]
            outs = evaluate(desc.pair.jaxpr, args, Replay(arithmetic, given))
            return [list(v.ravel()) for v in outs], its_angles

        for u in range(length):
            own = [
                [_row(x, u) for x in c] if role == "j" else list(c)
                for role, c in zip(desc.roles, fixed[:-2], strict=True)
            ]
            of_j = zip(self.plan.kept.columns, fixed[-1], strict=True)
            given = dict(zip(self.plan.kept.rows, fixed[-2], strict=True))
            given |= {place: _row(x, u) for place, x in [*kept.items(), *of_j]}
            outs, its_angles = pair(own, given)
            values.append([tiles(a.shape, x) for a, x in zip(desc.pair.out_avals, outs, strict=True)])
            angles += its_angles
        return [np.stack(v) for v in zip(*values, strict=True)], angles

    def _rows(self, columns: Sequence[Any], first: Any, length: int) -> list[Sequence[Any]]:
        """One array for each feature of each argument: `shape_i` of i, (length, *shape_j) of j, a number of p."""
        *own, of_i, of_j = columns
        of_rows = [c for role, c in zip(self.desc.roles, own, strict=True) if role == "j"]

        def rows() -> list[list[jax.Array]]:
            return [self._features(c, first, length) for c in [*of_rows, *of_j]]

        # Consecutive j's in lanes: copied once, which takes less than reading each feature where it lies.
        cut = iter(rows() if self.plan.segments == 1 or isinstance(first, int) else apart(first, rows))
        fixed = [next(cut) if r == "j" else list(c) for r, c in zip(self.desc.roles, own, strict=True)]
        return [*fixed, of_i, [x for c in cut for x in c]]

    def _part(self, fixed: Sequence[Sequence[Any]], lo: int, hi: int) -> list[Sequence[Any]]:
        """The rows from `lo` to `hi` of those that `_rows` gave."""
        of_j = [*(role == "j" for role in self.desc.roles), False, True]
        return [[x[lo:hi] for x in c] if own else c for own, c in zip(of_j, fixed, strict=True)]

    def _features(self, c: jax.Array, first: Any, length: int) -> list[Any]:
        """`length` rows of j from `first` on of c (n, F) or (n,), for each feature: an array or a list of its rows."""
        stride, features = self.plan.segments, range(1 if c.ndim == 1 else c.shape[1])
        c = c.reshape(c.shape[0], -1)
        if isinstance(first, int) and stride > 1:  # one slice for each row, which XLA reads where it lies
            ends = [(first + u * stride, first + (u + 1) * stride) for u in range(length)]
            return [[lax.slice(c, (lo, k), (hi, k + 1)).reshape(self.shape_j) for lo, hi in ends] for k in features]
        c = lax.dynamic_slice_in_dim(c, first, length * stride).reshape(length, *self.shape_j, -1)
        return [lax.index_in_dim(c, k, c.ndim - 1, keepdims=False) for k in features]

    def _kept(self, fixed: Sequence[Sequence[jax.Array]], first: Any, length: int) -> dict[int, jax.Array]:
        """The scalars that several results need, (length, *shape) each."""
        desc, plan = self.desc, self.plan
        if not plan.kept.pairs:
            return {}
        between = range(1, 1 + len(self.shape) - len(self.shape_j))
        column = lambda x: lax.expand_dims(jnp.stack(x) if isinstance(x, list) else x, between)  # noqa: E731

        def compute() -> list[jax.Array]:
            args = [
                tiles(aval.shape, list(map(column, c)) if role == "j" else c)
                for role, aval, c in zip(desc.roles, desc.pair.in_avals, fixed[:-2], strict=True)
            ]
            given = dict(zip(plan.kept.rows, fixed[-2], strict=True))
            given |= dict(zip(plan.kept.columns, map(column, fixed[-1]), strict=True))
            replay = Replay(self.arithmetic, given)
            evaluate(desc.pair.jaxpr, args, replay)
            return [broadcast_tile(replay.computed[k], (length, *self.shape)) for k in plan.kept.pairs]

        return dict(zip(plan.kept.pairs, apart(first, compute), strict=True))


def _row(x: Any, u: int) -> jax.Array:
    return x[u] if isinstance(x, list) else lax.index_in_dim(x, u, 0, keepdims=False)
