"""What a GPU kernel computes for every pair: the pair function and the fold, rearranged, then emitted tile by tile."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..description import Description
from ..reduction import Reduction, TracedReduction, tree_merge
from ..scalarize import Arithmetic, Tiles, broadcast_tile, evaluate, tiles
from .arithmetic import composites
from .arithmetic.expression import PAIR, READS, J, Program, Recorder
from .merge import in_one_order, merge_along


def computing(dtype: Any) -> np.dtype:
    """float16 and bfloat16 are computed in float32: most functions do not compile below it."""
    dtype = np.dtype(dtype)
    return np.dtype(np.float32) if dtype.itemsize == 2 and dtype.kind in "fV" else dtype


class _Plain(Arithmetic):
    """What stands outside the loop: no rearrangement, but no function that Triton lacks."""

    def apply(self, name: str, fn: Any, *operands: Any) -> Any:
        return super().apply(name, composites.replaced(name, fn), *operands)


ARITHMETIC = _Plain(computing)


class Fold:
    """Absorbs `length` blocks of j into an accumulator of tiles.

    Arguments are nodes while this is built, and tiles when it is called; an accumulator is a flat list, one tile for
    every feature of every leaf.  An argument of role "ij" is a number of the pair.  With `masked` only those pairs are
    absorbed that a mask lets in, for one instruction; the reduction must have values that it ignores.
    """

    def __init__(self, desc: Description, traced: TracedReduction, length: int, assembly: bool, masked: bool = False):
        self.masked = masked
        recorder = Recorder(computing, approximate=desc.precision == "fast")
        self.fixed: list[list[Any]] = []  # arguments of roles i and p, in order
        self.blocks: list[list[list[Any]]] = [[] for _ in range(length)]  # those of roles j and ij, for each block
        values = []
        fixed: list[Tiles] = []
        for role, aval in zip(desc.roles, desc.pair.in_avals, strict=True):
            own = self._nodes(recorder, aval, READS[role]) if "j" not in role else []
            fixed.append(tiles(aval.shape, own) if "j" not in role else np.empty(0, object))
            if "j" not in role:
                self.fixed.append(own)
        for u in range(length):
            args = []
            for role, aval, given in zip(desc.roles, desc.pair.in_avals, fixed, strict=True):
                if "j" in role:
                    own = self._nodes(recorder, aval, READS[role])
                    self.blocks[u].append(own)
                    given = tiles(aval.shape, own)
                args.append(given)
            values.append(evaluate(desc.pair.jaxpr, args, recorder))
        self.inside = [recorder.argument(np.bool_, PAIR) for _ in range(length if masked else 0)]
        ignored = [np.asarray(x) for x in desc.reduction.ignored(desc.pair.out_avals) or ()] if masked else []
        for mask, own in zip(self.inside, values, strict=False):
            own[:] = [self._let_in(recorder, mask, *each) for each in zip(ignored, own, strict=True)]
        self.indices = [recorder.argument(desc.index_dtype, J) for _ in range(length)]
        self.acc = [
            recorder.argument(computing(a.dtype), PAIR) for a in traced.acc_avals for _ in range(math.prod(a.shape))
        ]
        stacked = [np.stack(v) for v in zip(*values, strict=True)]
        index = tiles((length,), self.indices)
        outs = evaluate(traced.fold(length), [*tiled(traced, self.acc), *stacked, index], recorder)
        flat = [recorder.plain(t) for a in outs for t in a.ravel()]
        self.program = Program(flat, assembly)

    @staticmethod
    def _nodes(recorder: Recorder, aval: Any, reads: int) -> list[Any]:
        return [recorder.argument(computing(aval.dtype), reads) for _ in range(math.prod(aval.shape))]

    @staticmethod
    def _let_in(recorder: Recorder, mask: Any, ignored: np.ndarray, value: Tiles) -> Tiles:
        other = ignored.astype(computing(ignored.dtype)).ravel()
        chosen = [
            recorder.apply("select_n", lax.select_n, mask, o, v) for o, v in zip(other, value.ravel(), strict=True)
        ]
        return tiles(value.shape, chosen)

    def before(self, fixed: Sequence[Sequence[Any]]) -> dict[int, Any]:
        """What is known of i and the parameters alone, by place."""
        given = {
            n.place: t for own, args in zip(self.fixed, fixed, strict=True) for n, t in zip(own, args, strict=True)
        }
        return self.program.before(given)

    def __call__(
        self, before: dict[int, Any], blocks: Sequence[Any], indices: Sequence[Any], acc: Sequence[Any], shape: Any,
        inside: Any = None,
    ) -> list[jax.Array]:  # fmt: skip
        values = dict(before)
        for nodes, args in zip(self.blocks, blocks, strict=True):
            values |= {n.place: t for own, a in zip(nodes, args, strict=True) for n, t in zip(own, a, strict=True)}
        values |= {n.place: t for n, t in zip(self.indices, indices, strict=True)}
        values |= {n.place: t for n, t in zip(self.acc, acc, strict=True)}
        values |= {n.place: inside for n in self.inside}
        return [jnp.asarray(broadcast_tile(t, shape)) for t in self.program.results(values)]


def tiled(traced: TracedReduction, flat: Sequence[Any]) -> list[Tiles]:
    """A flat accumulator as the arrays of tiles that the jaxprs of a reduction read."""
    sizes = [math.prod(a.shape) for a in traced.acc_avals]
    cuts = np.cumsum([0, *sizes])
    return [tiles(a.shape, list(flat[lo:hi])) for a, lo, hi in zip(traced.acc_avals, cuts[:-1], cuts[1:], strict=True)]


class Accumulators:
    """The monoid on flat accumulators."""

    def __init__(self, traced: TracedReduction):
        self.traced = traced

    def neutral(self, shape: tuple[int, ...]) -> list[jax.Array]:
        return self._flat(evaluate(self.traced.init, [], ARITHMETIC), shape)

    def merge(self, a: Sequence[jax.Array], b: Sequence[jax.Array]) -> list[jax.Array]:
        out = evaluate(self.traced.merge, [*tiled(self.traced, a), *tiled(self.traced, b)], ARITHMETIC)
        return self._flat(out, np.shape(a[0]))

    def finalize(self, acc: Sequence[jax.Array], shape: tuple[int, ...]) -> list[list[jax.Array]]:
        """For every result the tiles of its features."""
        out = evaluate(self.traced.finalize, tiled(self.traced, acc), ARITHMETIC)
        return [
            [jnp.asarray(broadcast_tile(t, shape), a.dtype) for t in r.ravel()]
            for r, a in zip(out, self.traced.out_avals, strict=True)
        ]

    def merged(self, reduction: Reduction, acc: Sequence[jax.Array], axis: int) -> list[jax.Array]:
        """Merged along an axis of the tiles, which goes."""
        if reduction.adds:
            return [jnp.sum(x, axis) for x in acc]
        return merge_along(in_one_order(self.merge) if reduction.rounds else self.merge, acc, axis)

    def results(self, stored: Sequence[jax.Array], lead: int, rows: int) -> list[jax.Array]:
        """The results of every row, (rows, *F), from accumulators (lead * rows,) of all parts, which are merged."""
        total = tree_merge(self.merge, [x.reshape(lead, rows) for x in stored])
        return [
            jnp.stack(r, -1).reshape(rows, *a.shape) if r else jnp.zeros((rows, *a.shape), a.dtype)
            for r, a in zip(self.finalize(total, (rows,)), self.traced.out_avals, strict=True)
        ]

    @staticmethod
    def _flat(arrays: Sequence[Tiles], shape: tuple[int, ...]) -> list[jax.Array]:
        return [jnp.asarray(broadcast_tile(t, shape)) for a in arrays for t in a.ravel()]


def in_groups(
    walk: Callable[..., Any], start: Any, steps: Any, most: int, group: Any, neutral: Callable[[], Any], merge: Any,
    acc: Any,
) -> Any:  # fmt: skip
    """walk(first step, count, acc) from the last of the steps to the first (see `Reduction.fold`), `most` at most.

    A float32 sum of many terms is summed by groups: the error grows with their size, not with n.  `group` may be known
    only when the kernel runs.
    """
    if isinstance(group, int) and most <= group:
        return walk(start, steps, acc)
    known = isinstance(steps, int) and isinstance(group, int)
    groups = -(-steps // group) if known else lax.div(steps + (group - 1), jnp.asarray(group, jnp.int32))

    def body(k: Any, acc: Any) -> Any:
        first = start + (groups - 1 - k) * group
        own = jnp.clip(start + steps - first, 1, group)
        return merge(walk(first, own, neutral()), acc)

    return lax.fori_loop(0, groups, body, acc)
