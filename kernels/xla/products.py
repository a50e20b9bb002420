"""Sums whose terms are one weight of a pair times several numbers of j: a chunk of weights, then a matrix product.

K @ b with several columns, for instance, and its gradients with respect to b: the weight is computed once for all
columns, and XLA's matrix product takes the rest.  The weights lie as (rows of i, chunk of j) and multiply (chunk,
columns) from the left: the small factor is then the one that XLA's library packs, which takes a third less than with
the axes the other way round.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ..scalarize import broadcast_tile, evaluate, tiles
from .fusion import apart
from .lanes import Flat, Lanes
from .sharing import Replay, coefficients


class Products(Lanes):
    """As `Lanes`, for a reduction that `adds`; an accumulator is one array (rows of i, results)."""

    def neutral(self, segments: bool = False) -> Flat:
        return [jnp.zeros((*self.shape, sum(self.sizes)), self.traced.acc_avals[0].dtype)]

    def merge(self, a: Sequence[jax.Array], b: Sequence[jax.Array]) -> Flat:
        return [x + y for x, y in zip(a, b, strict=True)]

    def select(self, keep: jax.Array, new: Flat, old: Flat) -> Flat:
        return [jnp.where(keep[..., None], x, y) for x, y in zip(new, old, strict=True)]

    def _outputs(self, flat: Sequence[jax.Array], shape: tuple[int, ...]) -> list[jax.Array]:
        return super()._outputs([flat[0][..., k] for k in range(sum(self.sizes))], shape)

    def finalize_over_i(self, flat: Flat) -> list[jax.Array]:
        return self._outputs([flat[0].sum(0)] if self.rows else flat, ())

    def rest(self, columns: Sequence[Any], first: Any, rows: Any, one: Any, acc: Flat) -> Flat:
        if not isinstance(rows, int):
            return super().rest(columns, first, rows, one, acc)
        return self.chunk(columns, first, rows, acc) if rows else acc  # nothing is written out, so one chunk takes them

    def chunk(self, columns: Sequence[Any], first: Any, length: int, acc: Flat) -> Flat:
        desc, dtype = self.desc, acc[0].dtype
        fixed = self._rows(columns, first, length)
        args = [
            tiles(aval.shape, [None] * len(c) if role == "i" else c)
            for role, aval, c in zip(desc.roles, desc.pair.in_avals, fixed[:-2], strict=True)
        ]
        given = dict(zip(self.plan.kept.columns, fixed[-1], strict=True))
        (place,) = self.plan.kept.pairs
        numbers = coefficients(desc, place, args, given, self.arithmetic)
        matrix = jnp.stack([broadcast_tile(lax.convert_element_type(c, dtype), (length,)) for c in numbers], -1)
        weights = apart(first, lambda: self._weights(fixed, length, dtype))
        product = lax.dot_general(
            weights, matrix, (((weights.ndim - 1,), (0,)), ((), ())), precision=lax.Precision.HIGHEST
        )
        return [acc[0] + product.astype(dtype)]

    def _weights(self, fixed: Sequence[Sequence[Any]], length: int, dtype: Any) -> jax.Array:
        """The weight of every pair of a chunk, (*rows of i, length)."""
        desc, kept = self.desc, self.plan.kept
        column = lambda x: lax.expand_dims(x, (x.ndim,))  # noqa: E731
        args = [
            tiles(aval.shape, list(map(column, c)) if role == "i" else c)
            for role, aval, c in zip(desc.roles, desc.pair.in_avals, fixed[:-2], strict=True)
        ]
        given = dict(zip(kept.rows, map(column, fixed[-2]), strict=True))
        given |= dict(zip(kept.columns, fixed[-1], strict=True))
        replay = Replay(self.arithmetic, given)
        evaluate(desc.pair.jaxpr, args, replay)
        (place,) = kept.pairs
        return broadcast_tile(replay.computed[place], (*self.shape, length)).astype(dtype)
