"""Sums of exponentials shifted by their maximum, in two passes over the pairs: the maximum, then plain sums.

A maximum costs little beside an exponential, and the second pass rescales nothing, shares its exponential among all its
sums, and rounds as a sum does.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax

from ..description import Description, PairFunction, trace_pair
from ..reduction import ShiftedSum, config_key


def passes(desc: Description) -> tuple[Description, Description]:
    """The description of the maximum, and that of the sums, which has the maximum as one more argument of role i."""
    assert isinstance(desc.reduction, ShiftedSum)  # the planner chooses this shape for nothing else
    score, terms = _pairs(desc.pair, desc.reduction, config_key())
    return (
        desc.replace(pair=score, reduction=desc.reduction.maximum()),
        desc.replace(pair=terms, reduction=desc.reduction.sums(), roles=(*desc.roles, "i")),
    )


@functools.lru_cache(maxsize=512)
def _pairs(pair: PairFunction, reduction: ShiftedSum, context: Any) -> tuple[PairFunction, PairFunction]:
    del context
    score = trace_pair(lambda *args: [reduction.score(pair(*args))], pair.in_avals)
    (kind,) = score.out_avals
    terms = trace_pair(lambda *args: reduction.terms(pair(*args[:-1]), args[-1]), [*pair.in_avals, kind])
    return score, terms


def two_passes(
    desc: Description, run: Callable[[Description, Sequence[jax.Array]], Sequence[jax.Array]]
) -> Callable[..., Sequence[jax.Array]]:
    """A function of the arrays of `desc`; `run` runs one pass."""
    assert isinstance(desc.reduction, ShiftedSum)
    reduction = desc.reduction
    maximum, sums = passes(desc)
    values = desc.pair.out_avals

    def row(m: jax.Array, totals: Sequence[jax.Array]) -> tuple[Any, ...]:
        return tuple(reduction.finalize(reduction.assemble(m, totals), values))

    def call(*args: jax.Array) -> Sequence[jax.Array]:
        own, ranges = desc.split(args)
        (m,) = run(maximum, args)
        totals = run(sums, [*own, m, *ranges])
        over_rows = row
        for _ in range(len(desc.batch) + 1):
            over_rows = jax.vmap(over_rows)
        return list(over_rows(m, list(totals)))

    return call
