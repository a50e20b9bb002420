"""Sums whose terms are one weight of a pair times several numbers of j: a chunk of weights, then a matrix product.

K @ b with several columns, for instance, and its gradients with respect to b: the weight is computed once for all
columns, and XLA's matrix product takes the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..scalarize import broadcast_tile, tiles
from .lanes import Flat, Lanes
from .sharing import coefficients


class Products(Lanes):
    """As `Lanes`, for a reduction that `adds`; an accumulator is one array (results, lanes)."""

    def neutral(self, segments: bool = False) -> Flat:
        return [jnp.zeros((sum(self.sizes), *self.shape), self.traced.acc_avals[0].dtype)]

    def merge(self, a: Sequence[jax.Array], b: Sequence[jax.Array]) -> Flat:
        return [x + y for x, y in zip(a, b, strict=True)]

    def _outputs(self, flat: Sequence[jax.Array], shape: tuple[int, ...]) -> list[jax.Array]:
        return super()._outputs(list(flat[0]), shape)

    def finalize_over_i(self, flat: Flat) -> list[jax.Array]:
        return self._outputs([flat[0].sum(1)] if self.rows else flat, ())

    def rest(self, columns: Sequence[Any], first: Any, rows: Any, one: Any, acc: Flat) -> Flat:
        if not isinstance(rows, int):
            return super().rest(columns, first, rows, one, acc)
        return self.chunk(columns, first, rows, acc) if rows else acc  # nothing is written out, so one chunk takes them

    def chunk(self, columns: Sequence[Any], first: Any, length: int, acc: Flat) -> Flat:
        desc = self.desc
        fixed = self._rows(columns, first, length)
        ((place, weights),) = self._kept(fixed, first, length).items()
        args = [
            tiles(aval.shape, [None] * len(c) if role == "i" else c)
            for role, aval, c in zip(desc.roles, desc.pair.in_avals, fixed[:-2], strict=True)
        ]
        given = dict(zip(self.plan.kept.columns, fixed[-1], strict=True))
        dtype = acc[0].dtype
        numbers = coefficients(desc, place, args, given, self.arithmetic)
        matrix = jnp.stack([broadcast_tile(lax.convert_element_type(c, dtype), (length,)) for c in numbers])
        product = lax.dot_general(
            matrix, weights.astype(dtype), (((1,), (0,)), ((), ())), precision=lax.Precision.HIGHEST
        )
        return [acc[0] + product.astype(np.dtype(dtype))]
