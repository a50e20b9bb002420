"""One tile of i against all j, with i in vector lanes: no array of pairs, a single fused loop."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .description import Description
from .elementary import FAR, FUNCTIONS, near_functions
from .pairs import pad_leading
from .reduction import TracedReduction, tree_merge
from .scalarize import Arithmetic, Tiles, broadcast_tile, evaluate, tiles
from .sharing import Replay, without

Flat = list[jax.Array]  # an accumulator: one array of lanes for every feature of every leaf


class Lanes:
    """One tile of i against all j: i's in lanes, j's one scalar after the other, unrolled in chunks."""

    def __init__(self, desc: Description, plan: Any, traced: TracedReduction):
        self.desc, self.plan, self.traced = desc, plan, traced
        self.shape = () if isinstance(desc.m, int) and desc.m == 1 else (plan.tile_i,)
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

    def neutral(self) -> Flat:
        return self._flat(self._evaluate(self.traced.init, []))

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
        in_axes = (*(2 if r == "j" else None for r in desc.roles), None, 1)
        starts = jnp.arange(lanes, dtype=desc.index_dtype)
        return tree_merge(self.merge, jax.vmap(self._sweep, in_axes=(in_axes, 0))(tuple(columns), starts))

    def columns(self, args: Sequence[jax.Array]) -> list[Any]:
        """The features of every argument as the loop reads them: i (F, lanes), j (rows, F[, segments]), p (F,).

        Then two lists, of what is computed before the loop: for every i (lanes,), and for every j (rows[, segments]).
        """
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
        return [*columns, self._before(columns, "i"), self._before(columns, "j")]

    def _before(self, columns: Sequence[jax.Array], role: str) -> list[jax.Array]:
        """The kept scalars that read this role and parameters alone."""
        desc, places = self.desc, self.plan.kept.rows if role == "i" else self.plan.kept.columns
        if not places:
            return []
        args = []
        for r, aval, c in zip(desc.roles, desc.pair.in_avals, columns, strict=True):
            axis = 1 if r == "j" else 0
            if r in (role, "p"):
                args.append(tiles(aval.shape, [lax.index_in_dim(c, k, axis, False) for k in range(c.shape[axis])]))
            else:
                args.append(tiles(aval.shape, [None] * math.prod(aval.shape)))
        replay = Replay(self.arithmetic, without(desc, "j" if role == "i" else "i"))
        evaluate(desc.pair.jaxpr, args, replay)
        return [replay.computed[k] for k in places]

    def _sweep(self, columns: Sequence[Any], start: Any) -> Flat:
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

    def chunk(self, columns: Sequence[Any], row: Any, length: int, start: Any, acc: Flat) -> Flat:
        """Fold `length` consecutive rows of j into the accumulator."""
        fixed = self._rows(columns, row, length)
        kept = self._kept(fixed, row, length) if length > 1 else {}
        position = jnp.asarray(row, self.desc.index_dtype) + np.arange(length, dtype=self.desc.index_dtype)
        index = position * np.asarray(self.plan.segments, self.desc.index_dtype) + start
        indices = tiles((length,), [lax.index_in_dim(index, u, 0, keepdims=False) for u in range(length)])

        def fold(arithmetic: Arithmetic) -> Flat:
            values = self._values(fixed, kept, length, arithmetic)
            return self._flat(self._evaluate(self.traced.fold(length), [*self._tiled(acc), *values, indices]))

        if not self.plan.angles or length == 1:
            return fold(self.arithmetic)
        # Angles are small but in rare chunks: those take the long way.
        angles: list[Any] = []
        near = Arithmetic(functions=near_functions(angles))
        self._values(fixed, kept, length, near)
        # A selection, for jnp.maximum hands NaN on, which takes more instructions; NaN angles take either way.
        largest = functools.reduce(lambda a, b: jnp.where(a > b, a, b), angles)
        return lax.cond(jnp.any(largest >= FAR), lambda: fold(self.arithmetic), lambda: fold(near))

    def _values(
        self, fixed: Sequence[Sequence[jax.Array]], kept: dict[int, jax.Array], length: int, arithmetic: Arithmetic
    ) -> list[Tiles]:
        """The values of `length` pairs of every lane, stacked."""
        desc, values = self.desc, []
        for u in range(length):
            args = []
            for role, aval, c in zip(desc.roles, desc.pair.in_avals, fixed[:-2], strict=True):
                own = [lax.index_in_dim(x, u, 0, keepdims=False) for x in c] if role == "j" else c
                args.append(tiles(aval.shape, own))
            of_j = zip(self.plan.kept.columns, fixed[-1], strict=True)
            given = dict(zip(self.plan.kept.rows, fixed[-2], strict=True))
            given |= {place: lax.index_in_dim(x, u, 0, keepdims=False) for place, x in [*kept.items(), *of_j]}
            values.append(evaluate(desc.pair.jaxpr, args, Replay(arithmetic, given)))
        return [np.stack(v) for v in zip(*values, strict=True)]

    def _rows(self, columns: Sequence[Any], row: Any, length: int) -> list[list[jax.Array]]:
        """One array for each feature of each argument: lanes of i, `length` rows of j, a number of a parameter."""
        *own, of_i, of_j = columns
        fixed: list[list[jax.Array]] = []
        for role, c in zip(self.desc.roles, own, strict=True):
            c, axis = (lax.dynamic_slice_in_dim(c, row, length), 1) if role == "j" else (c, 0)
            fixed.append([lax.index_in_dim(c, k, axis, keepdims=False) for k in range(c.shape[axis])])
        return [*fixed, of_i, [lax.dynamic_slice_in_dim(x, row, length) for x in of_j]]

    def _kept(self, fixed: Sequence[Sequence[jax.Array]], row: Any, length: int) -> dict[int, jax.Array]:
        """The scalars that several results need, (length, lanes) each."""
        desc, plan = self.desc, self.plan
        if not plan.kept.pairs:
            return {}
        column = (lambda x: lax.expand_dims(x, [1])) if self.shape else (lambda x: x)

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

        return dict(zip(plan.kept.pairs, apart(row, compute), strict=True))


def apart(step: Any, fn: Callable[[], Any]) -> Any:
    """fn(), computed once, whatever reads it; `step` is a number of a loop that is not negative.

    XLA on the CPU would compute it anew in the loop of every result that reads it.  A branch that only the run
    chooses is the one wall that it respects: it removes `optimization_barrier` before it fuses.
    """
    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(fn))
    return lax.cond(step >= 0, fn, lambda: nothing)
