"""The K smallest of all j, for one tile of i, where features are long: the values of a stretch of j's are held.

To compute a value again costs more than to keep it, so group minima (see `groups`) name K groups of a stretch, and
their values are looked up.  Where groups of nothing but NaN deceive, the whole stretch is selected from.  On the CPU
and for few numbers, every value enters the sorted list of its lane instead (see `insertion`): nothing is held.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import jaxpr_as_fun

from ..description import Description
from ..pairs import pad_leading, padded_size
from ..reduction import Selection, TracedReduction, trace
from ..scalarize import broadcast_tile, evaluate, tiles
from .insertion import Insertion
from .long import Acc, Long

GROUP = 32


class LongSelection(Long):
    """For a `Selection` of scalar values; plan.tile_j: values of one row that are held, a multiple of `GROUP`."""

    def __init__(self, desc: Description, plan: Any, traced: TracedReduction):
        super().__init__(desc, plan, traced)
        assert isinstance(desc.reduction, Selection)  # the planner chooses this shape for nothing else
        self.selection = desc.reduction
        group_reduction = self.selection.group_reduction()
        assert group_reduction is not None
        values = tuple((v.shape, v.dtype) for v in desc.pair.out_avals)
        self.minimum = trace(group_reduction, values, desc.index_dtype)
        self.insertion = Insertion(traced, self.lanes, plan.inserted)

    def merge(self, a: Acc, b: Acc) -> Acc:
        avals = self.traced.acc_avals
        merged = jax.vmap(jaxpr_as_fun(self.traced.merge), -1, -1)(*self._pack(a, avals), *self._pack(b, avals))
        return self._unpack(merged, avals)

    def columns(self, args: Sequence[jax.Array]) -> list[jax.Array]:
        extra = padded_size(self.desc.n, self.plan.tile_j) - self.desc.n
        padded = [pad_leading(x, extra) if r == "j" else x for x, r in zip(args, self.desc.roles, strict=True)]
        return super().columns(padded)

    def __call__(self, args: Sequence[jax.Array]) -> Acc:
        columns, most = self.columns(args), self.plan.tile_j
        if self.plan.inserted:
            return self._inserted(columns)
        body = lambda k, acc: self.merge(acc, self._stretch(columns, k * most))  # noqa: E731
        return lax.fori_loop(0, -(-self.desc.n // most), body, self.neutral())

    def _stretch(self, columns: Sequence[jax.Array], start: Any) -> Acc:
        """The accumulator of `tile_j` j's from `start` on."""
        length, chunk = self.plan.tile_j, self.plan.chunk
        index = jnp.asarray(start, self.desc.index_dtype) + jnp.arange(length, dtype=self.desc.index_dtype)
        (value,) = self.desc.pair.out_avals

        groups, k = length // GROUP, self.selection.k

        def fill(c: Any, filled: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            held, minima = filled
            new = self._values(columns, start + c * chunk, chunk)
            least = self._minima(new, lax.dynamic_slice_in_dim(index, c * chunk, chunk) < self.desc.n)
            held = lax.dynamic_update_slice_in_dim(held, new, c * chunk, 0)
            return held, lax.dynamic_update_slice_in_dim(minima, least, c * (chunk // GROUP), 0)

        def everything(held: jax.Array, index: jax.Array) -> Acc:
            everywhere = jnp.broadcast_to(index[:, None], held.shape)
            return self._selected(held, everywhere, everywhere < self.desc.n)

        empty = (jnp.zeros((size, self.lanes), value.dtype) for size in (length, groups))
        held, minima = lax.fori_loop(0, length // chunk, fill, tuple(empty))
        if groups < 2 * k:
            return everything(held, index)
        best = jnp.sort(self.selection.best_groups(minima.T, k), axis=1).T  # (k, lanes)
        members = jnp.take_along_axis(held.reshape(groups, GROUP, self.lanes), best[:, None], axis=0)
        inside = jnp.arange(GROUP, dtype=index.dtype)[None, :, None]
        where = (index[0] + best[:, None].astype(index.dtype) * GROUP + inside).reshape(k * GROUP, self.lanes)
        acc = self._selected(members.reshape(k * GROUP, self.lanes), where, where < self.desc.n)
        real = (members == members) & (where < self.desc.n).reshape(members.shape)
        complete = jnp.all(real.any(1) | (where[::GROUP] >= self.desc.n))
        return lax.cond(complete, lambda held, index: acc, everything, held, index)

    def _inserted(self, columns: Sequence[jax.Array]) -> Acc:
        """Every value enters the sorted list of its lane."""
        chunk = self.plan.chunk
        lists = self.insertion.of_all(self.desc.n, chunk, lambda first: self._values(columns, first, chunk))
        return self._unpack(self.insertion.arrays(lists), self.traced.acc_avals)

    def _values(self, columns: Sequence[jax.Array], row: Any, length: int) -> jax.Array:
        """The values of a chunk, (length, lanes)."""
        tile, parts = self.tile(columns, row, length), self.parts
        inputs = [*(parts.jaxpr.jaxpr.invars[k] for k in parts.short), *parts.kept]
        (out,) = evaluate(parts.rest, [tile.tiled(v) for v in inputs], self.arithmetic)
        return broadcast_tile(jnp.asarray(out.item()), (length, self.lanes))

    def _minima(self, values: jax.Array, valid: jax.Array) -> jax.Array:
        """The minima of the groups of a chunk, (groups, lanes)."""
        groups = values.shape[0] // GROUP
        worst = evaluate(self.minimum.init, [], self.arithmetic)[0].item()
        shape = self.desc.pair.out_avals[0].shape
        rows = values.reshape(groups, GROUP, self.lanes)
        there = valid.reshape(groups, GROUP, 1)
        members = [jnp.where(there[:, u], rows[:, u], jnp.asarray(worst, values.dtype)) for u in range(GROUP)]
        first = tiles(shape, [jnp.full((groups, self.lanes), worst, values.dtype)])
        indices = tiles((GROUP,), [None] * GROUP)
        (minima,) = evaluate(
            self.minimum.fold(GROUP), [first, tiles((GROUP, *shape), members), indices], self.arithmetic
        )
        return minima.item()

    def _selected(self, values: jax.Array, index: jax.Array, valid: jax.Array) -> Acc:
        """The accumulator of some values of every lane."""
        shape = self.desc.pair.out_avals[0].shape

        def row(v: jax.Array, at: jax.Array, there: jax.Array) -> list[jax.Array]:
            leaves = jax.tree.leaves(self.selection.block([v.reshape(-1, *shape)], at, there))
            return [jnp.asarray(x, a.dtype) for x, a in zip(leaves, self.traced.acc_avals, strict=True)]

        return self._unpack(jax.vmap(row, -1, -1)(values, index, valid), self.traced.acc_avals)
