"""Merging a tile of accumulators along an axis by any monoid, as one reduction of Triton.

Pallas reduces tiles by sums, extrema and their positions only.  Triton itself reduces by any associative function of
several values, which the machine runs as exchanges between the threads of a warp; the only other way in Pallas,
halving a tile again and again, goes through shared memory each time.  So this file, alone in `kernels`, uses private
functions of Pallas: the table of its rules, and the rule that reduces by a function.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import mlir

from ..reduction import tree_merge

Merge = Callable[[list[Any], list[Any]], list[Any]]

merge_along_p = Primitive("merge_along")
merge_along_p.multiple_results = True


def merge_along(merge: Merge, acc: Sequence[jax.Array], axis: int) -> list[jax.Array]:
    """The arrays of an accumulator, all of one shape, merged along an axis, which goes."""
    _register()
    return merge_along_p.bind(*acc, merge=merge, axis=axis)


def in_one_order(merge: Merge) -> Merge:
    """The same merge with its operands in an order that depends on their values alone.

    The threads of a warp that exchange accumulators merge them in the one order and in the other.  Where merging
    rounds, they would hold different results, and which of them is stored would change from run to run.
    """

    def ordered(a: list[Any], b: list[Any]) -> list[Any]:
        exchange, equal = jnp.zeros_like(a[0], bool), jnp.ones_like(a[0], bool)
        for x, y in zip(a, b, strict=True):
            exchange, equal = exchange | (equal & (y < x)), equal & (x == y)
        first = [jnp.where(exchange, y, x) for x, y in zip(a, b, strict=True)]
        second = [jnp.where(exchange, x, y) for x, y in zip(a, b, strict=True)]
        return merge(first, second)

    return ordered


@merge_along_p.def_abstract_eval
def _abstract(*avals: Any, merge: Merge, axis: int) -> list[Any]:
    del merge
    return [a.update(shape=(*a.shape[:axis], *a.shape[axis + 1 :])) for a in avals]


@merge_along_p.def_impl
def _run(*acc: Any, merge: Merge, axis: int) -> list[Any]:
    return tree_merge(merge, [jnp.moveaxis(x, axis, 0) for x in acc])


mlir.register_lowering(merge_along_p, mlir.lower_fun(_run, multiple_results=True))


@functools.cache
def _register() -> None:
    from jax._src.pallas.triton import lowering

    def rule(ctx: Any, *acc: Any, merge: Merge, axis: int) -> Any:
        return lowering._reduction_lowering(lambda a, b: merge(list(a), list(b)), ctx, list(acc), (axis,))

    lowering.register_lowering(merge_along_p)(rule)
