"""One tile of i against all j, a block of j at a time: the pair function is mapped over the tile, whatever it holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import jaxpr_as_fun

from ..description import Description
from ..pairs import all_pairs, axes_for, pad_leading, padded_size
from ..reduction import TracedReduction, tree_merge

Flat = list[jax.Array]  # an accumulator: its leaves, with a leading axis of rows


class Block:
    """One tile of i against all j, a block of j at a time, with the pair function mapped over the tile."""

    def __init__(self, desc: Description, plan: Any, traced: TracedReduction):
        self.desc, self.plan, self.traced = desc, plan, traced
        self.values = [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in desc.pair.out_avals]
        self.unflatten = traced.treedef.unflatten
        self._merge = jax.vmap(self._merge_one)

    def _merge_one(self, a: Sequence[jax.Array], b: Sequence[jax.Array]) -> Flat:
        return list(jaxpr_as_fun(self.traced.merge)(*a, *b))

    def neutral(self) -> Flat:
        init = jaxpr_as_fun(self.traced.init)()
        return [jnp.broadcast_to(e, (self.plan.tile_i, *e.shape)) for e in init]

    def merge(self, a: Flat, b: Flat) -> Flat:
        return self._merge(a, b)

    def select(self, keep: jax.Array, new: Flat, old: Flat) -> Flat:
        return [jnp.where(keep.reshape(-1, *(1,) * (x.ndim - 1)), x, y) for x, y in zip(new, old, strict=True)]

    def finalize(self, acc: Flat) -> list[jax.Array]:
        return list(jax.vmap(jaxpr_as_fun(self.traced.finalize))(*acc))

    def finalize_over_i(self, acc: Flat) -> list[jax.Array]:
        return list(jaxpr_as_fun(self.traced.finalize)(*tree_merge(self._merge, acc)))

    def accumulate(self, values: Sequence[jax.Array], indices: jax.Array, valid: jax.Array) -> Flat:
        """The accumulator of a block of values of one row."""
        leaves = jax.tree.leaves(self.desc.reduction.block(values, indices, valid))
        return [jnp.asarray(x, a.dtype) for x, a in zip(leaves, self.traced.acc_avals, strict=True)]

    def whole(self, args: Sequence[jax.Array]) -> Flat:
        """All j's at once: a loop of one step would take its time to trace and to compile."""
        n, dtype = self.desc.n, self.desc.index_dtype
        values = all_pairs(self.desc, self.plan.tile_i, n)(*args)
        indices, valid = jnp.arange(n, dtype=dtype), jnp.ones(n, bool)
        return jax.vmap(lambda row: self.accumulate(row, indices, valid))(values)

    def __call__(self, args: Sequence[jax.Array]) -> Flat:
        desc, plan = self.desc, self.plan
        tile_j = plan.tile_j
        if isinstance(desc.n, int) and 0 < desc.n <= tile_j:
            return self.whole(args)
        values_of = all_pairs(desc, plan.tile_i, tile_j)
        count = -(-desc.n // tile_j)
        mapped = axes_for(desc.roles, "j")
        extra = padded_size(desc.n, tile_j) - desc.n
        padded = [pad_leading(x, extra) if axis == 0 else x for x, axis in zip(args, mapped, strict=True)]

        def body(k: Any, acc: Flat) -> Flat:
            own = [
                lax.dynamic_slice_in_dim(x, k * tile_j, tile_j) if axis == 0 else x
                for x, axis in zip(padded, mapped, strict=True)
            ]
            indices = jnp.asarray(k * tile_j, desc.index_dtype) + jnp.arange(tile_j, dtype=desc.index_dtype)
            valid = indices < desc.n

            rows = jax.vmap(lambda values: self.accumulate(values, indices, valid))(values_of(*own))
            return self.merge(acc, rows)

        return lax.fori_loop(0, count, body, self.neutral())
