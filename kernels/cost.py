"""What one pair costs: scalar operations, where its features can be held as scalars."""

from __future__ import annotations

import functools
import math

import jax

from . import scalarize
from .description import Description, traced_of


@functools.lru_cache(maxsize=1024)
def operations(desc: Description) -> int | str:
    """Scalar operations on one pair, or why its features cannot be held as scalars."""
    try:
        total = scalarize.count(desc.pair.jaxpr)
        values = traced_of(desc)
        total += scalarize.count(values.fold(1))
        if scalarize.moves_by_index(desc.pair.jaxpr):
            jax.eval_shape(lambda: _dry_run(desc))  # finds indices that depend on the data
        return total
    except scalarize.Unsupported as error:
        return str(error)


def _dry_run(desc: Description) -> None:
    args = []
    for aval in desc.pair.in_avals:
        one = jax.numpy.zeros((), aval.dtype)
        args.append(scalarize.tiles(aval.shape, [one] * math.prod(aval.shape)))
    scalarize.evaluate(desc.pair.jaxpr, args)
