"""One tile of i against all j where features are long: loops over features, and matrix products.

For a chunk of j's beside the lanes of i, three steps (see `long_features` for what is told apart):

1. Every contraction of long features becomes an array (chunk, lanes), see `long_tile`.
2. The short rest of the formula runs pair by pair as in `Lanes`, reading these arrays, and is folded.
3. Long results, which only sums have, become arrays (features, lanes): a number of the pair times features of j is a
   matrix product over the chunk; anything else is a loop over a few j's at a time.

So the code does not grow with the number of features, nor what is held with that of pairs.  Sums of exponentials are
shifted by the maximum of each chunk, which is found before the chunk is summed.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import jaxpr_as_fun

from ..description import Description
from ..long_features import LONG, Split, computed, parts_of, sums
from ..reduction import ShiftedSum, TracedReduction, trace, tree_merge
from ..scalarize import Arithmetic, Tiles, broadcast_tile, evaluate, tiles
from .elementary import FUNCTIONS
from .fusion import apart
from .long_tile import Tile

# An accumulator: for each leaf a list of lanes, one for each of a few features, or an array (features, lanes) of many.
Acc = list[Any]


class Long:
    """One tile of i against all j, a chunk of j at a time."""

    leading: Literal["i", "j"] = "j"  # of the two axes of a chunk of pairs

    def __init__(self, desc: Description, plan: Any, traced: TracedReduction):
        self.desc, self.plan, self.traced, self.lanes = desc, plan, traced, plan.tile_i
        self.arithmetic = Arithmetic(functions=FUNCTIONS if plan.elementary else None)
        self.computed = computed(desc)
        parts = parts_of(desc)
        assert isinstance(parts, Split)  # the planner chooses this shape for nothing else
        self.parts = parts
        self.adds = sums(desc)
        self.one = trace(desc.reduction, tuple(map(_one, desc.pair.out_avals)), desc.index_dtype)
        self.of_i = parts.of_i(without=len(self.computed.roles) - 1 if self.computed is not desc else None)

    # Accumulators.

    def _unpack(self, arrays: Sequence[jax.Array], avals: Sequence[Any]) -> Acc:
        """Arrays (*F, lanes) as an accumulator."""
        acc: Acc = []
        for x, a in zip(arrays, avals, strict=True):
            flat = x.reshape(math.prod(a.shape), self.lanes)
            acc.append(flat if flat.shape[0] > LONG else list(flat))
        return acc

    def _pack(self, acc: Acc, avals: Sequence[Any]) -> list[jax.Array]:
        arrays = (jnp.stack(x) if isinstance(x, list) else x for x in acc)
        return [x.reshape(*a.shape, self.lanes) for x, a in zip(arrays, avals, strict=True)]

    def _constant(self, traced: TracedReduction) -> Acc:
        init = jaxpr_as_fun(traced.init)()
        arrays = [jnp.broadcast_to(e[..., None], (*e.shape, self.lanes)) for e in init]
        return self._unpack(arrays, traced.acc_avals)

    def neutral(self) -> Acc:
        return self._constant(self.traced)

    def merge(self, a: Acc, b: Acc) -> Acc:
        if self.adds:
            return jax.tree.map(jnp.add, a, b)
        operands = self._tiled([*a, *b], [*self.one.acc_avals] * 2)
        return self._untiled(evaluate(self.one.merge, operands, self.arithmetic))

    # Long features are treated alike, so that one, a tile (features, lanes), stands for all of them in `one`.  Mapped
    # over lanes by vmap instead, they are transposed, and XLA transposes the matrix products that they come from.

    def _tiled(self, acc: Acc, avals: Sequence[Any]) -> list[Tiles]:
        return [tiles(a.shape, x if isinstance(x, list) else [x]) for a, x in zip(avals, acc, strict=True)]

    def _untiled(self, leaves: Sequence[Tiles]) -> Acc:
        acc: Acc = []
        for x, a in zip(leaves, self.traced.acc_avals, strict=True):
            features = math.prod(a.shape)
            if features > LONG:
                acc.append(broadcast_tile(x.item(), (features, self.lanes)))
            else:
                acc.append([jnp.asarray(broadcast_tile(t, (self.lanes,))) for t in x.ravel()])
        return acc

    def select(self, keep: jax.Array, new: Acc, old: Acc) -> Acc:
        return jax.tree.map(lambda x, y: jnp.where(keep, x, y), new, old)

    def finalize(self, acc: Acc) -> list[jax.Array]:
        arrays = self._pack(acc, self.traced.acc_avals)
        return list(jax.vmap(jaxpr_as_fun(self.traced.finalize), -1, 0)(*arrays))

    def finalize_over_i(self, acc: Acc) -> list[jax.Array]:
        arrays = self._pack(acc, self.traced.acc_avals)
        if self.adds:
            total = [x.sum(-1) for x in arrays]
        else:
            rows = [jnp.moveaxis(x, -1, 0) for x in arrays]
            pairwise = jax.vmap(lambda a, b: list(jaxpr_as_fun(self.traced.merge)(*a, *b)))
            total = tree_merge(pairwise, rows)
        return list(jaxpr_as_fun(self.traced.finalize)(*total))

    # The loop over j.

    def columns(self, args: Sequence[jax.Array]) -> list[jax.Array]:
        """Features first for i, as every step reads them; then what is computed from i alone."""
        own = [jnp.moveaxis(x, 0, -1) if r == "i" else x for x, r in zip(args, self.desc.roles, strict=True)]
        rows = Tile(self.parts, own, 0, 1, self.lanes, 1, self.arithmetic)
        return [*own, *map(rows.value, self.of_i)]

    def __call__(self, args: Sequence[jax.Array]) -> Acc:
        n, most = self.desc.n, self.plan.tile_j
        columns, acc = self.columns(args), self.neutral()
        full = n // most
        if n % most:  # from the last chunk to the first, see `Reduction.fold`
            acc = self.chunk(columns, jnp.asarray(full * most), n % most, acc)
        body = lambda k, acc: self.chunk(columns, (full - 1 - k) * most, most, acc)  # noqa: E731
        return lax.fori_loop(0, full, body, acc)

    def tile(self, columns: Sequence[jax.Array], row: Any, length: int) -> Tile:
        """The chunk of `length` j's from `row` on."""
        args: list[Any] = []
        own = len(self.desc.roles)
        for x, role in zip(columns[:own], self.desc.roles, strict=True):
            args.append(jnp.moveaxis(lax.dynamic_slice_in_dim(x, row, length), 0, -1) if role == "j" else x)
        if len(self.computed.roles) > own:  # a maximum that nothing kept reads: it is set before it is used
            (kind,) = self.computed.pair.in_avals[own:]
            args.append(jnp.zeros((*kind.shape, self.lanes), kind.dtype))
        tile = Tile(self.parts, args, row, length, self.lanes, self.plan.features, self.arithmetic, self.leading)
        tile.env.update(zip(self.of_i, columns[own:], strict=True))
        return tile

    def chunk(self, columns: Sequence[jax.Array], row: Any, length: int, acc: Acc) -> Acc:
        tile = self.tile(columns, row, length)
        if isinstance(self.desc.reduction, ShiftedSum):
            return self.merge(acc, self._shifted_sums(tile))
        if self.adds:
            return self.merge(acc, self._sums(tile, self.traced.acc_avals, first=0))
        return self._folded(tile, acc, self.traced)

    def _shifted_sums(self, tile: Tile) -> Acc:
        reduction, values = self.desc.reduction, self.computed.pair.out_avals
        assert isinstance(reduction, ShiftedSum)
        score = trace(reduction.maximum(), ((values[0].shape, values[0].dtype),), self.desc.index_dtype)
        (maximum,) = self._folded(tile, self._constant(score), score)
        tile.env[self.parts.jaxpr.jaxpr.invars[-1]] = jnp.stack(maximum).reshape(*values[0].shape, self.lanes)
        sums = self._sums(tile, values[1:], first=1)

        def assemble(m: Any, *totals: Any) -> list[Any]:
            leaves = jax.tree.leaves(reduction.assemble(m, totals))
            return [jnp.asarray(x, a.dtype) for x, a in zip(leaves, self.one.acc_avals, strict=True)]

        ones = [jax.ShapeDtypeStruct(*_one(v)) for v in values]
        held = self._tiled([maximum, *sums], ones)
        return self._untiled(evaluate(jax.make_jaxpr(assemble)(*ones), held, self.arithmetic))

    # The short rest, some j's at a time.

    def _walk(self, tile: Tile, acc: Acc, body: Callable[[list[list[Tiles]], Any, Acc], Acc]) -> Acc:
        """body(values of each of some j's, their positions in the chunk, acc), from the last to the first."""
        parts = self.parts
        inputs = [*(parts.jaxpr.jaxpr.invars[k] for k in parts.short), *parts.kept]
        axes = [tile.axis(v) for v in inputs]
        held = [tile.tiled(v) for v in inputs]  # computed here, outside the loop
        moving = [[_moves(x, tile.length) for x in t.ravel()] for t in held]

        def cut(start: Any, count: int) -> list[list[Any]]:
            return [
                [lax.dynamic_slice_in_dim(x, start, count) if m else x for x, m in zip(t.ravel(), ms, strict=True)]
                for t, ms in zip(held, moving, strict=True)
            ]

        def absorb(start: Any, count: int, acc: Acc) -> Acc:
            own = apart(tile.step, lambda: cut(start, count))
            values = []
            for u in range(count):
                args = []
                for v, axis, xs, ms in zip(inputs, axes, own, moving, strict=True):
                    row = [lax.index_in_dim(x, u, 0, False) if m else x for x, m in zip(xs, ms, strict=True)]
                    args.append(tiles(v.aval.shape, [x.reshape(()) if axis == "j" else x for x in row]))
                values.append(evaluate(parts.rest, args, self.arithmetic))
            return body(values, start + np.arange(count), acc)

        # What is left over is written out a second time: shortly.
        step = min(self.plan.unroll if tile.length == self.plan.tile_j else 4, tile.length)
        full = tile.length // step
        if tile.length % step:
            acc = absorb(jnp.asarray(full * step), tile.length % step, acc)
        return lax.fori_loop(0, full, lambda k, acc: absorb((full - 1 - k) * step, step, acc), acc)

    def _folded(self, tile: Tile, acc: Acc, traced: TracedReduction) -> Acc:
        """The first values of the rest, as many as the reduction takes, by its own `fold`."""
        dtype = self.desc.index_dtype

        def body(values: list[list[Tiles]], positions: Any, acc: Acc) -> Acc:
            count = len(values)
            index = jnp.asarray(tile.step + positions, dtype)
            indices = tiles((count,), [lax.index_in_dim(index, u, 0, keepdims=False) for u in range(count)])
            wanted = [list(v)[: len(traced.values)] for v in values]
            stacked = [np.stack(v) for v in zip(*wanted, strict=True)]
            held = [tiles(a.shape, list(x)) for a, x in zip(traced.acc_avals, acc, strict=True)]
            out = evaluate(traced.fold(count), [*held, *stacked, indices], self.arithmetic)
            return [[jnp.asarray(broadcast_tile(t, (self.lanes,))) for t in leaf.ravel()] for leaf in out]

        return self._walk(tile, acc, body)

    def _sums(self, tile: Tile, avals: Sequence[Any], first: int) -> Acc:
        """The results of the pair function from `first` on, summed over the chunk, in the dtypes of `avals`."""
        outs, long = self.parts.jaxpr.jaxpr.outvars, self.parts.long_results
        kinds = dict(enumerate(avals, first))
        totals: dict[int, Any] = {k: tile.summed(outs[k], a.dtype) for k, a in kinds.items() if long[k]}
        # What these sums read is there for every pair: it is added up, not computed again.
        totals |= {k: [tile.total(outs[k], a.dtype)] for k, a in kinds.items() if not long[k] and tile.holds(outs[k])}
        totals |= self._walked_sums(tile, {k: a for k, a in kinds.items() if k not in totals})
        return [totals[k] for k in kinds]

    def _walked_sums(self, tile: Tile, kinds: dict[int, Any]) -> dict[int, list[jax.Array]]:
        """Short results, by their numbers, summed over the chunk in the dtypes of these kinds."""
        if not kinds:
            return {}
        places = [sum(not long for long in self.parts.long_results[:k]) for k in kinds]
        zeros: Acc = [[jnp.zeros(self.lanes, a.dtype) for _ in range(math.prod(a.shape))] for a in kinds.values()]

        def body(values: list[list[Tiles]], positions: Any, acc: Acc) -> Acc:
            del positions
            new = []
            for place, leaf, a in zip(places, acc, kinds.values(), strict=True):
                terms = [v[place].ravel() for v in values]
                cast = [[broadcast_tile(lax.convert_element_type(t, a.dtype), (self.lanes,)) for t in x] for x in terms]
                new.append(
                    [
                        functools.reduce(jnp.add, column, x)
                        for x, column in zip(leaf, zip(*cast, strict=True), strict=True)
                    ]
                )
            return new

        return dict(zip(kinds, self._walk(tile, zeros, body), strict=True))


def _one(value: Any) -> tuple[tuple[int, ...], Any]:
    """The shape and dtype of a value, one feature standing for many."""
    return (1,) if math.prod(value.shape) > LONG else value.shape, value.dtype


def _moves(x: Any, length: int) -> bool:
    """Whether a tile has a row for every j of the chunk."""
    return np.ndim(x) == 2 and np.shape(x)[0] == length
