"""Tiled loops that XLA compiles for any platform: memory stays linear, both axes are walked in tiles.

Shapes of the same loop, in a file each.  `lanes`: one vector of i's per feature, a chunk of j's unrolled as scalars, so
that XLA emits a single fused, vectorised and multi-threaded loop with no array of pairs.  `products`: the weights of a
chunk, then a matrix product with numbers of j.  `groups`: the smallest, or the K smallest, which first looks only at
the minimum of every group of j's; `sorted lists`: the K smallest, at every value.  `passes`: a maximum, then sums of
exponentials, each in one of the other shapes.
`long`, `long products`, `long selection`: lanes of i where features are long, by loops over them and matrix products.
`block`: the pair function is mapped over an (i, j) tile, whatever it holds, and the tile is reduced at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ..description import Description, traced_of
from ..pairs import batched, by_rows, tiles_of_rows
from . import ranges
from .block import Block
from .groups import Groups
from .lanes import Lanes
from .long import Long
from .long_products import LongProducts
from .long_selection import LongSelection
from .passes import two_passes
from .plan import XlaPlan, choose
from .products import Products
from .sorted_lists import SortedLists

name = "xla"

SHAPES = {
    "lanes": Lanes,
    "products": Products,
    "block": Block,
    "groups": Groups,
    "sorted lists": SortedLists,
    "long": Long,
    "long products": LongProducts,
    "long selection": LongSelection,
}


def supports(desc: Description, platform: str) -> str | None:
    """None: every effect-free pair function runs, on every platform."""
    return None


def plan(desc: Description, platform: str) -> XlaPlan:
    """Tiles for this description."""
    return choose(desc, platform)


def lower(desc: Description, plan: XlaPlan) -> Callable[..., Sequence[jax.Array]]:
    """A function of the arrays of `desc`, for the tiles of `plan`."""
    if plan.shape == "passes":
        plans = iter(plan.passes)
        return two_passes(desc, lambda one, args: lower(one, next(plans))(*args))
    if desc.ranges is not None:
        return ranges.lower(desc, plan)
    traced = traced_of(desc)
    if isinstance(desc.m, int):
        plan = dataclasses.replace(plan, tile_i=min(plan.tile_i, desc.m))
    reduce_rows = SHAPES[plan.shape](desc, plan, traced)
    if desc.over == "j":
        problem = by_rows(desc, plan.tile_i, lambda args: reduce_rows.finalize(reduce_rows(args)))
    else:
        problem = _both(desc, plan, reduce_rows)
    return lambda *args: batched(problem, desc, args, together=plan.problems)


def _both(desc: Description, plan: XlaPlan, reduce_rows: Any) -> Callable[[Sequence[jax.Array]], Sequence[jax.Array]]:
    """All pairs into one result: one accumulator, merged tile after tile, so no array has m rows."""
    m, tile = desc.m, plan.tile_i

    def problem(args: Sequence[jax.Array]) -> Sequence[jax.Array]:
        if isinstance(m, int) and m <= tile:
            return reduce_rows.finalize_over_i(reduce_rows(args))
        _, args_of = tiles_of_rows(desc, args, tile)

        def step(k: Any, acc: list[jax.Array]) -> list[jax.Array]:
            inside = k * tile + jnp.arange(tile) < m
            new = reduce_rows.select(inside, reduce_rows(args_of(k)), reduce_rows.neutral())
            return reduce_rows.merge(acc, new)

        return reduce_rows.finalize_over_i(lax.fori_loop(0, -(-m // tile), step, reduce_rows.neutral()))

    return problem
