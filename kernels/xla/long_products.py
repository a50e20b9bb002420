"""Long results that are a number of the pair times features of j, such as attention: the rows of i come first.

The numbers of a chunk of pairs lie as (lanes, chunk), and multiply (chunk, features) from the left: XLA's library for
matrix products takes only a left factor that lies as it is written, and packs the right one, which is the small one
here.  What `Long` does row by row, for any reduction, is done for the whole chunk: these are sums.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..long_features import LONG
from ..reduction import TracedReduction
from ..scalarize import Tiles, broadcast_tile, evaluate
from .long import Acc, Long
from .long_tile import Tile

# Lanes of vectors of a row, in which its largest number is sought.
VECTOR = 8


class LongProducts(Long):
    """As `Long`, for long results that are `sums_of_products`; long parts of an accumulator are (lanes, L)."""

    leading = "i"

    def _unpack(self, arrays: Sequence[jax.Array], avals: Sequence[Any]) -> Acc:
        return [x if isinstance(x, list) else x.T for x in super()._unpack(arrays, avals)]

    def _pack(self, acc: Acc, avals: Sequence[Any]) -> list[jax.Array]:
        return super()._pack([x if isinstance(x, list) else x.T for x in acc], avals)

    def _tiled(self, acc: Acc, avals: Sequence[Any]) -> list[Tiles]:
        return super()._tiled([[t[:, None] for t in x] if isinstance(x, list) else x for x in acc], avals)

    def _untiled(self, leaves: Sequence[Tiles]) -> Acc:
        acc: Acc = []
        for x, a in zip(leaves, self.traced.acc_avals, strict=True):
            features = math.prod(a.shape)
            if features > LONG:
                acc.append(broadcast_tile(x.item(), (self.lanes, features)))
            else:
                acc.append([jnp.asarray(broadcast_tile(t, (self.lanes, 1)))[:, 0] for t in x.ravel()])
        return acc

    def select(self, keep: jax.Array, new: Acc, old: Acc) -> Acc:
        return jax.tree.map(lambda x, y: jnp.where(keep if x.ndim == 1 else keep[:, None], x, y), new, old)

    # Between chunks, what reads i has its rows first: a left factor lies so.

    def columns(self, args: Sequence[jax.Array]) -> list[jax.Array]:
        return self._moved(super().columns(args), -1, 0)

    def tile(self, columns: Sequence[jax.Array], row: Any, length: int) -> Tile:
        return super().tile(self._moved(columns, 0, -1), row, length)

    def _moved(self, columns: Sequence[jax.Array], source: int, target: int) -> list[jax.Array]:
        reads = [*self.desc.roles, *("i" for _ in self.of_i)]
        return [jnp.moveaxis(x, source, target) if r == "i" else x for x, r in zip(columns, reads, strict=True)]

    # The short rest, all pairs of a chunk at once.

    def _rest(self, tile: Tile) -> list[Tiles]:
        parts = self.parts
        inputs = [*(parts.jaxpr.jaxpr.invars[k] for k in parts.short), *parts.kept]
        return evaluate(parts.rest, [tile.tiled(v) for v in inputs], self.arithmetic)

    def _folded(self, tile: Tile, acc: Acc, traced: TracedReduction) -> Acc:
        """The largest score, which is all that is asked for."""
        (leaf,), (kind,) = acc, traced.acc_avals
        scores = jnp.asarray(broadcast_tile(self._rest(tile)[0].item(), tile.pair)).astype(kind.dtype)
        return [[lax.max(x, _largest(scores)) for x in leaf]]  # x, the maximum before the chunk, is -inf

    def _walked_sums(self, tile: Tile, kinds: dict[int, Any]) -> dict[int, list[jax.Array]]:
        if not kinds:
            return {}
        rest, long = self._rest(tile), self.parts.long_results
        totals = {}
        for k, a in kinds.items():
            terms = rest[sum(not x for x in long[:k])].ravel()
            cast = (lax.convert_element_type(broadcast_tile(t, tile.pair), a.dtype) for t in terms)
            totals[k] = [tile.over_chunk(x) for x in cast]
        return totals


def _largest(scores: jax.Array) -> jax.Array:
    """The largest of every row, NaN skipped: of vectors first, for LLVM takes one number of a row after the other."""
    rows, length = scores.shape

    def largest(x: jax.Array) -> jax.Array:
        least = np.array(-np.inf, x.dtype)
        return lax.reduce(x, least, lambda a, b: lax.select(lax.gt(b, a), b, a), (1,))

    return largest(largest(scores.reshape(rows, -1, VECTOR))) if length % VECTOR == 0 else largest(scores)
