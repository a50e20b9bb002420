"""The best of many values in every lane, kept in order by insertion: a list for each lane, one loop for all of them.

XLA's top_k on the CPU runs on one core and takes some 10 ns for every value that it looks at.  Here a value takes a
comparison and four selections for each place of the list, for a vector of lanes at a time and on every core.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..reduction import Selection, TracedReduction, trace
from ..scalarize import Arithmetic, Tiles, broadcast_tile, evaluate, tiles
from .fusion import apart, fused, packed, unpacked

Lists = list[jax.Array]  # the bits of an accumulator: an array of lanes for every feature of every leaf


class Insertion:
    """For a `Selection` of scalar values, by its `fold`: some `rows` values of each lane enter its list at once."""

    def __init__(self, traced: TracedReduction, lanes: int, rows: int):
        assert isinstance(traced.reduction, Selection)
        self.traced, self.lanes, self.rows, self.arithmetic = traced, lanes, rows, Arithmetic()
        self.dtypes = [a.dtype for a in traced.acc_avals for _ in range(a.size)]  # of all lists
        (self.value,) = traced.values
        least = traced.reduction.group_reduction() or traced.reduction
        (self.worst,) = evaluate(trace(least, ((self.value.shape, self.value.dtype),), traced.index_dtype).init, [])
        self.fold = jax.jit(self._fold)  # traced once for all steps whose operands have these shapes

    def neutral(self) -> Lists:
        leaves = evaluate(self.traced.init, [])
        return [packed(jnp.asarray(broadcast_tile(t, (self.lanes,)))) for leaf in leaves for t in leaf.ravel()]

    def arrays(self, lists: Lists) -> list[jax.Array]:
        """The leaves of the accumulator, (*F, lanes)."""
        leaves, avals = self._leaves(lists), self.traced.acc_avals
        stacked = [jnp.stack(list(x.ravel())).reshape(*x.shape, self.lanes) for x in leaves]
        return unpacked(stacked, [a.dtype for a in avals])

    def add(self, step: Any, lists: Lists, values: jax.Array, first: Any, end: int | None = None) -> Lists:
        """The lists with values (T, lanes) whose indices lie before those that they hold; T: best some 2 * rows.

        The indices are first, first + 1 and so on, for first () or (lanes,); from `end` on there is nothing.  `values`
        and `first` have been computed, see `apart`; `step` is a number of a loop that is not negative.
        """
        length = values.shape[0]
        rows = math.gcd(length, self.rows)
        both = 2 * rows if length % (2 * rows) == 0 else rows
        steps = length // both

        def two(k: Any, lists: Lists, values: jax.Array) -> Lists:
            # Two halves: XLA copies the result of a reduction that reads what it replaces.
            for start in reversed(range(0, both, rows)):
                at = first + jnp.asarray(k * both + start, self.traced.index_dtype)
                lists = self.fold(lists, list(values[start : start + rows]), at, end)
            return lists

        if steps == 1:
            return two(0, lists, values)

        def body(s: Any, lists: Lists) -> Lists:
            k = steps - 1 - s
            return two(k, lists, apart(step + s, lambda: lax.dynamic_slice_in_dim(values, k * both, both)))

        return lax.fori_loop(0, steps, body, lists)

    def of_all(self, n: int, chunk: int, values: Callable[[Any], jax.Array]) -> Lists:
        """The lists of n values of each lane: values(first) are those of a chunk from `first` on, (chunk, lanes)."""
        steps = -(-n // chunk)

        def body(s: Any, lists: Lists) -> Lists:
            first = (steps - 1 - s) * chunk
            some = apart(s, lambda: values(first))
            return self.add(s, lists, some, jnp.asarray(first, self.traced.index_dtype), n if n % chunk else None)

        return lax.fori_loop(0, steps, body, self.neutral())

    def _leaves(self, lists: Sequence[jax.Array]) -> list[Tiles]:
        cuts = np.cumsum([0, *(a.size for a in self.traced.acc_avals)])
        own = zip(self.traced.acc_avals, cuts[:-1], cuts[1:], strict=True)
        return [tiles(a.shape, list(lists[lo:hi])) for a, lo, hi in own]

    def _fold(self, lists: Lists, values: list[jax.Array], first: jax.Array, end: Any) -> Lists:
        (worst,), shape, count = self.worst.ravel(), self.value.shape, len(values)

        def inserted(lists: Lists, values: list[jax.Array], first: jax.Array) -> list[jax.Array]:
            indices = [first + jnp.asarray(u, first.dtype) for u in range(count)]
            if end is not None:
                there = [at < end for at in indices]
                values = [jnp.where(t, v, worst) for t, v in zip(there, values, strict=True)]
                indices = [jnp.where(t, at, jnp.asarray(-1, at.dtype)) for t, at in zip(there, indices, strict=True)]
            rows = tiles((count, *shape), values)
            leaves = self._leaves(unpacked(lists, self.dtypes))
            out = evaluate(self.traced.fold(count), [*leaves, rows, tiles((count,), indices)])
            both = values[0].shape
            return [jnp.asarray(broadcast_tile(t, both)) for leaf in out for t in leaf.ravel()]

        return fused(inserted, lists, values, first)


def in_order(rows: jax.Array) -> jax.Array:
    """Numbers of every lane, (k, lanes), in ascending order: odd-even transposition (Knuth, TAOCP 3, 5.3.4)."""
    k, lanes = rows.shape

    def exchanged(rows: jax.Array, first: int) -> jax.Array:
        last = first + (k - first) // 2 * 2
        pairs = rows[first:last].reshape(-1, 2, lanes)
        both = jnp.stack([pairs.min(1), pairs.max(1)], 1).reshape(-1, lanes)
        return jnp.concatenate([rows[:first], both, rows[last:]])

    return lax.fori_loop(0, (k + 1) // 2, lambda _, rows: exchanged(exchanged(rows, 0), 1), rows)
