"""`ranges`: which pairs a block-sparse reduction keeps, as KeOps says it, checked where its numbers are known."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ._errors import show
from ._variables import is_array
from .kernels.ranges import RangeSizes, swapped, within

Ranges = tuple[Any, ...]  # six integer arrays

NAMES = ("ranges_i", "slices_i", "redranges_j", "ranges_j", "slices_j", "redranges_i")
_SHAPES = ("(Mc, 2)", "(Mc,)", "(Mcc, 2)", "(Nc, 2)", "(Nc,)", "(Ncc, 2)")
NDIM = (2, 1, 2, 2, 1, 2)
_ALL = f"({', '.join(NAMES)})"
_MAKE = "lazyjax.cluster.from_matrix makes them"


def checked_form(ranges: Any, name: str) -> Ranges | None:
    """Six integer arrays of the right shapes, whatever they hold; None stays None."""
    if ranges is None:
        return None
    if not isinstance(ranges, tuple | list) or len(ranges) != len(NAMES):
        what = f"{len(ranges)} of them" if isinstance(ranges, tuple | list) else show(ranges)
        raise TypeError(f"{name}: ranges is {what}, expected None or six integer arrays {_ALL}; {_MAKE}.")
    out = []
    for k, (x, own, shape, ndim) in enumerate(zip(ranges, NAMES, _SHAPES, NDIM, strict=True)):
        given, x = x, x if is_array(x) else np.asarray(x) if isinstance(x, list | tuple) else None
        if x is not None and x.size == 0 and x.ndim <= 1 and not is_array(given):
            x = np.zeros((0, 2)[: NDIM[k]], np.int32)  # an empty list
        if x is None or not jnp.issubdtype(x.dtype, jnp.integer):
            raise TypeError(f"{name}: ranges[{k}], {own}, is {show(given)}, expected an array of integers {shape}.")
        if x.ndim < ndim or (ndim == 2 and x.shape[-1] != 2):
            raise ValueError(
                f"{name}: ranges[{k}], {own}, is {show(x)}, expected {shape}"
                f"{', a start and an end for each range' if ndim == 2 else ', one number for each cluster'}."
            )
        out.append(x)
    for letter, (k, s) in (("M", (0, 1)), ("N", (3, 4))):
        if out[k].shape[-2] != out[s].shape[-1]:
            raise ValueError(
                f"{name}: {NAMES[k]} is {show(out[k])} and {NAMES[s]} {show(out[s])}, expected one slice for each of "
                f"the {letter}c clusters."
            )
    return tuple(out)


def checked(ranges: Ranges, batch: Sequence[Any], m: Any, n: Any, name: str) -> None:
    """The numbers, where they are known; sizes and batch dims, always."""
    for k, (x, ndim) in enumerate(zip(ranges, NDIM, strict=True)):
        own = x.shape[: x.ndim - ndim]
        if len(own) > len(batch) or any(a not in (1, b) for a, b in zip(own[::-1], tuple(batch)[::-1], strict=False)):
            raise ValueError(
                f"{name}: {NAMES[k]} is {show(x)}, with batch dims {own}, but those of the formula are "
                f"{tuple(batch)}; expected {_SHAPES[k]}, or as many batch dims, of the same sizes or 1."
            )
    symbolic = not (isinstance(m, int) and isinstance(n, int))
    if symbolic or any(isinstance(x, Tracer) for x in ranges):
        return
    batched = np.broadcast_shapes(*(x.shape[: x.ndim - d] for x, d in zip(ranges, NDIM, strict=True)))
    known = [np.broadcast_to(np.asarray(x), (*batched, *x.shape[x.ndim - d :])) for x, d in
             zip(ranges, NDIM, strict=True)]  # fmt: skip
    for place in np.ndindex(*batched):
        _check_one([x[place].astype(np.int64) for x in known], m, n, name)


def _check_one(arrays: Sequence[np.ndarray], m: int, n: int, name: str) -> None:
    for first, size, other in ((0, m, n), (3, n, m)):
        _check_half(arrays[first : first + 3], NAMES[first : first + 3], size, other, name)
    # Two sets of pairs are equal if the sums over their pairs of u_i v_j are, for random integers u and v modulo 2^64
    # (Freivalds, "Probabilistic machines can use less running time", IFIP 1977): prefix sums of u and v do for a block.
    by_rows = _signature(arrays[:3], _running(m, 0), _running(n, 1))
    by_columns = _signature(arrays[3:], _running(n, 1), _running(m, 0))
    if by_rows != by_columns:
        raise ValueError(
            f"{name}: {', '.join(NAMES[:3])} keep {by_rows[0]} pairs, and {', '.join(NAMES[3:])} keep "
            f"{'others' if by_rows[0] == by_columns[0] else by_columns[0]}; expected the same pairs, once by rows and "
            f"once by columns, because derivatives need both; {_MAKE}."
        )


def _signature(half: Sequence[np.ndarray], u: np.ndarray, v: np.ndarray) -> tuple[int, int]:
    """How many pairs one half keeps, and the sum of u_i v_j over them; u and v are running sums."""
    ranges, slices, redranges = half
    ends = np.concatenate([[0], slices])
    counts, sums = (
        np.concatenate([np.zeros(1, w.dtype), np.cumsum(w[redranges[:, 1]] - w[redranges[:, 0]], dtype=w.dtype)])
        for w in (np.arange(len(v)), v)
    )
    pairs = ((ranges[:, 1] - ranges[:, 0]) * np.diff(counts[ends])).sum()
    rows = u[ranges[:, 1]] - u[ranges[:, 0]]
    return int(pairs), int((rows * (sums[ends[1:]] - sums[ends[:-1]])).sum(dtype=np.uint64))


@functools.lru_cache(maxsize=16)
def _running(size: int, seed: int) -> np.ndarray:
    """Running sums of random integers modulo 2^64."""
    random = np.random.default_rng(seed).integers(0, 2**64 - 1, size, np.uint64, endpoint=True)
    return np.concatenate([np.zeros(1, np.uint64), np.cumsum(random, dtype=np.uint64)])


def _check_half(half: Sequence[np.ndarray], names: Sequence[str], m: int, n: int, name: str) -> None:
    ranges, slices, redranges = half
    for x, own, most in ((ranges, names[0], m), (redranges, names[2], n)):
        wrong = (x[:, 0] < 0) | (x[:, 1] < x[:, 0]) | (x[:, 1] > most)
        if wrong.any():
            k = int(np.argmax(wrong))
            raise ValueError(
                f"{name}: {own}[{k}] is [{x[k, 0]}, {x[k, 1]}], expected 0 <= start <= end <= {most}, the size of that "
                "axis."
            )
    ends = np.concatenate([[0], slices])
    if (np.diff(ends) < 0).any():
        k = int(np.argmax(np.diff(ends) < 0))
        raise ValueError(
            f"{name}: {names[1]}[{k}] is {slices[k]}, less than {ends[k]} before it; expected numbers that never "
            "decrease: how many ranges the clusters up to this one have together."
        )
    if ends[-1] != len(redranges):
        raise ValueError(
            f"{name}: {names[1]} ends with {ends[-1]}, but {names[2]} has {len(redranges)} ranges; expected it to end "
            "with their number."
        )
    order = _overlap(ranges, np.zeros(len(ranges), int))
    if order is not None:
        a, b = order
        raise ValueError(
            f"{name}: {names[0]}[{a}] and {names[0]}[{b}] are {ranges[a].tolist()} and {ranges[b].tolist()}, which "
            "overlap; expected each row to belong to one cluster at most. Join their ranges."
        )
    owner = np.repeat(np.arange(len(slices)), np.diff(ends))
    order = _overlap(redranges, owner)
    if order is not None:
        a, b = order
        raise ValueError(
            f"{name}: {names[2]}[{a}] and {names[2]}[{b}] are {redranges[a].tolist()} and {redranges[b].tolist()}, "
            f"which overlap, and both belong to cluster {owner[a]}; expected each pair once."
        )


def _overlap(ranges: np.ndarray, group: np.ndarray) -> tuple[int, int] | None:
    """Two ranges of one group that overlap; empty ones overlap none."""
    there = np.flatnonzero(ranges[:, 1] > ranges[:, 0])
    order = there[np.lexsort((ranges[there, 0], group[there]))]
    a, b = order[:-1], order[1:]
    wrong = (group[a] == group[b]) & (ranges[a, 1] > ranges[b, 0])
    if not wrong.any():
        return None
    k = int(np.argmax(wrong))
    return int(min(a[k], b[k])), int(max(a[k], b[k]))


def range_sizes(ranges: Sequence[Any]) -> RangeSizes:
    """What is static of checked ranges."""
    return RangeSizes(*(ranges[k].shape[-2] for k in (0, 2, 3, 5)))


def canonical_ranges(ranges: Sequence[Any], nbatch: int, m: Any, n: Any) -> list[jax.Array]:
    """The six arrays with all the batch dims, as the primitive wants them, never out of bounds."""
    full = [jnp.expand_dims(x, range(nbatch + d - x.ndim)) for x, d in zip(ranges, NDIM, strict=True)]
    return within(full, m, n)


def exchanged(ranges: Ranges | None) -> Ranges | None:
    """The ranges of K.T."""
    return None if ranges is None else tuple(swapped(ranges))


def common_ranges(operands: Sequence[Any], name: str) -> Ranges | None:
    """The ranges of a formula of several LazyTensors: those that have any must have the same."""
    found: Ranges | None = None
    for own in (o._ranges for o in operands):
        if own is None or own is found:
            continue
        if found is not None and not all(map(_same, own, found)):
            raise ValueError(
                f"{name}: the operands have different ranges. Set them once, on the formula that is reduced: "
                "K.ranges = ..., or give them to the reduction: K.sum(axis=1, ranges=...)."
            )
        found = own
    return found


def _same(a: Any, b: Any) -> bool:
    if a is b:
        return True
    known = is_array(a) and is_array(b) and not isinstance(a, Tracer) and not isinstance(b, Tracer)
    return known and a.shape == b.shape and bool(np.array_equal(np.asarray(a), np.asarray(b)))
