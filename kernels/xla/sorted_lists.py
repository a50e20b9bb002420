"""The K smallest of all j, for one tile of i: every value enters the sorted list of its lane (see `insertion`).

For few j's, where group minima (see `groups`) leave little out, and for many small problems at once, which are
vectorised together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ..description import Description
from ..pairs import pad_leading, padded_size
from ..reduction import Selection, TracedReduction
from ..scalarize import Arithmetic, Tiles, broadcast_tile, evaluate, tiles
from .block import Block, Flat
from .elementary import FUNCTIONS
from .insertion import Insertion


class SortedLists(Block):
    """For a `Selection` of scalar values; accumulators as in `Block`."""

    def __init__(self, desc: Description, plan: Any, traced: TracedReduction):
        super().__init__(desc, plan, traced)
        assert isinstance(desc.reduction, Selection)  # the planner chooses this shape for nothing else
        self.insertion = Insertion(traced, plan.tile_i, plan.inserted)
        self.arithmetic = Arithmetic(functions=FUNCTIONS if plan.elementary else None)

    def __call__(self, args: Sequence[jax.Array]) -> Flat:
        desc, chunk = self.desc, self.plan.unroll
        extra = padded_size(desc.n, chunk) - desc.n
        padded = [pad_leading(x, extra) if r == "j" else x for x, r in zip(args, desc.roles, strict=True)]
        lists = self.insertion.of_all(desc.n, chunk, lambda first: self._values(padded, first))
        return [jnp.moveaxis(x, -1, 0) for x in self.insertion.arrays(lists)]

    def _values(self, args: Sequence[jax.Array], first: Any) -> jax.Array:
        """The values of a chunk, (j's of a chunk, lanes)."""
        features: list[Tiles] = []
        for x, role, aval in zip(args, self.desc.roles, self.desc.pair.in_avals, strict=True):
            if role == "j":
                x = lax.dynamic_slice_in_dim(x, first, self.plan.unroll)
            column = x.reshape(1 if role == "p" else x.shape[0], -1).T  # lanes of a feature are contiguous
            features.append(tiles(aval.shape, list(column[:, :, None] if role == "j" else column)))
        (out,) = evaluate(self.desc.pair.jaxpr, features, self.arithmetic)
        return broadcast_tile(jnp.asarray(out.item()), (self.plan.unroll, self.plan.tile_i))
