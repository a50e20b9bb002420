"""The reductions of the language, as monoids, each with its derivative written by other reductions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ._calculus import Call
from .kernels import Reduction, Selection, ShiftedSum

Values = Sequence[Any]


def _sum_dtype(dtype: Any) -> np.dtype:
    """The dtype of a sum: that of jnp.sum (booleans and short integers are counted in int32)."""
    return np.dtype(jax.eval_shape(jnp.sum, jax.ShapeDtypeStruct((1,), dtype)).dtype)


def _wide(dtype: Any) -> np.dtype:
    """float16 and bfloat16 accumulate in float32."""
    dtype = np.dtype(dtype)
    return np.dtype(np.float32) if jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize == 2 else dtype


def _infinity(dtype: Any, sign: int) -> np.ndarray:
    """The largest (sign=1) or lowest value of a dtype, infinite where there is one."""
    if np.dtype(dtype) == np.bool_:
        return np.asarray(sign > 0)
    if jnp.issubdtype(dtype, jnp.integer):
        info = jnp.iinfo(dtype)
        return np.asarray(info.max if sign > 0 else info.min, dtype)
    return np.asarray(sign * np.inf).astype(dtype)


def _is_nan(x: jax.Array) -> jax.Array:
    return x != x


def _finite_or_zero(m: jax.Array) -> jax.Array:
    """A shift for exponentials: exp(m - shift) is right for m = -inf and inf too, never inf - inf."""
    return jnp.where(jnp.isfinite(m), m, jnp.zeros_like(m))


@dataclasses.dataclass(frozen=True)
class Sum(Reduction):
    """sum_j f_ij, for every value and every feature on its own; the tangents of other reductions are written with it.

    Booleans and short integers are counted as in `jnp.sum`, float16 and bfloat16 added in float32.

    Example:
        >>> from lazyjax import Sum, Vi, Vj
        >>> D = Vi([[0.0], [1.0]]).sqdist(Vj([[0.0], [2.0], [4.0]]))
        >>> (total,) = D.reduction(Sum(), axis=1)
        >>> total.tolist()
        [[20.0], [11.0]]
    """

    adds = True

    def init(self, values: Values) -> Any:
        return [jnp.zeros(v.shape, _wide(_sum_dtype(v.dtype))) for v in values]

    def lift(self, values: Values, index: jax.Array) -> Any:
        return [jnp.asarray(v, _wide(_sum_dtype(v.dtype))) for v in values]

    def merge(self, a: Any, b: Any) -> Any:
        return [x + y for x, y in zip(a, b, strict=True)]

    def finalize(self, acc: Any, values: Values) -> tuple[Any, ...]:
        return tuple(a.astype(_sum_dtype(v.dtype)) for a, v in zip(acc, values, strict=True))

    def fold(self, acc: Any, values: Values, indices: jax.Array) -> Any:
        return [a + v.sum(0) for a, v in zip(acc, self.lift(values, indices), strict=True)]

    def block(self, values: Values, indices: jax.Array, valid: jax.Array) -> Any:
        lifted = self.lift(values, indices)
        return [jnp.where(valid.reshape(-1, *(1,) * (v.ndim - 1)), v, 0).sum(0) for v in lifted]

    def ignored(self, values: Values) -> Values:
        return [np.zeros(v.shape, v.dtype) for v in values]

    def narrow(self, used: Sequence[bool], count: int) -> tuple[Reduction, Sequence[bool]]:
        return self, used

    def tangent(self, call: Call) -> tuple[Sequence[Any], Sequence[Any]]:
        return call.reduce(self), call.sum(self, _tangent_of_sum)


def _tangent_of_sum(values: Values, dvalues: Values) -> Values:
    # An integer sum has no tangent; its place is kept so that results and tangents correspond.
    return [d if jnp.issubdtype(v.dtype, jnp.inexact) else jnp.zeros_like(d) for v, d in zip(values, dvalues)]  # noqa: B905


class _Exponentials(ShiftedSum):
    """Sums of exp(f) for the first value f."""

    def score(self, values: Values) -> jax.Array:
        return values[0].astype(_wide(_inexact(values)))

    def ignored(self, values: Values) -> Values | None:
        f, *w = values
        if not jnp.issubdtype(f.dtype, jnp.floating):
            return None
        return [np.full(f.shape, _infinity(f.dtype, -1)), *(np.zeros(v.shape, v.dtype) for v in w)]

    def maximum(self) -> Reduction:
        return Extremum(largest=True)

    def sums(self) -> Reduction:
        return Sum()


@dataclasses.dataclass(frozen=True)
class LogSumExp(_Exponentials):
    """log sum_j w_ij exp(f_ij); values (f,) or (f, w), with f a scalar (1,) where there is a weight.

    The running maximum m is kept beside s = sum_j w_ij exp(f_ij - m), so nothing overflows
    (Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018).
    """

    wide: bool = False  # results in the dtype of the accumulator, for derivatives of float16 and bfloat16

    def init(self, values: Values) -> Any:
        f, w = values[0], values[-1]
        dtype = _wide(_inexact(values))
        return jnp.full(f.shape, -jnp.inf, dtype), jnp.zeros(w.shape, dtype)

    def lift(self, values: Values, index: jax.Array) -> Any:
        dtype = _wide(_inexact(values))
        f = values[0].astype(dtype)
        s = jnp.exp(f - _finite_or_zero(f))
        return f, (s * values[1].astype(dtype) if len(values) == 2 else s)

    def merge(self, a: Any, b: Any) -> Any:
        m = jnp.maximum(a[0], b[0])
        shift = _finite_or_zero(m)
        return m, a[1] * jnp.exp(a[0] - shift) + b[1] * jnp.exp(b[0] - shift)

    def fold(self, acc: Any, values: Values, indices: jax.Array) -> Any:
        # One rescaling for the whole chunk, rather than one for each pair.
        dtype = acc[0].dtype
        f = values[0].astype(dtype)
        m = jnp.maximum(acc[0], f.max(0))
        shift = _finite_or_zero(m)
        terms = jnp.exp(f - shift[None])
        if len(values) == 2:
            terms = terms * values[1].astype(dtype)
        return m, acc[1] * jnp.exp(acc[0] - shift) + terms.sum(0)

    def block(self, values: Values, indices: jax.Array, valid: jax.Array) -> Any:
        neutral = self.init([jax.ShapeDtypeStruct(v.shape[1:], v.dtype) for v in values])
        f = values[0].astype(neutral[0].dtype)
        return self.fold(neutral, [_mask(f, valid, -jnp.inf), *(_mask(v, valid, 0) for v in values[1:])], indices)

    def finalize(self, acc: Any, values: Values) -> tuple[Any, ...]:
        m, s = acc
        total = _finite_or_zero(m) + jnp.log(s)
        return (total if self.wide else total.astype(_inexact(values)),)

    def terms(self, values: Values, maximum: jax.Array) -> Values:
        s = jnp.exp(self.score(values) - _finite_or_zero(maximum))
        return [s * values[1].astype(s.dtype) if len(values) == 2 else s]

    def assemble(self, maximum: jax.Array, sums: Sequence[jax.Array]) -> Any:
        return maximum, sums[0]

    def tangent(self, call: Call) -> tuple[Sequence[Any], Sequence[Any]]:
        (total,) = call.reduce(LogSumExp(wide=True))
        (dtotal,) = call.sum(Sum(), _tangent_of_logsumexp, total)
        dtype = total.dtype if self.wide else _inexact(call.desc.pair.out_avals)
        return (total.astype(dtype),), (dtotal.astype(dtype),)


def _inexact(values: Values) -> np.dtype:
    """The dtype of an exponential of the values: integers and booleans become floats, as in jnp.exp."""
    dtype = jnp.result_type(*(v.dtype for v in values))
    return np.dtype(dtype if jnp.issubdtype(dtype, jnp.inexact) else jnp.result_type(float))


def _mask(v: jax.Array, valid: jax.Array, neutral: Any) -> jax.Array:
    return jnp.where(valid.reshape(-1, *(1,) * (v.ndim - 1)), v, jnp.asarray(neutral, v.dtype))


def _softmax(f: jax.Array, total: jax.Array) -> jax.Array:
    """exp(f - total), never a division by a saved sum, which may have overflowed; 0 where f is -inf, whatever total is.

    The selection stands on both sides of the exponential, so that no derivative meets -inf - (-inf).
    """
    gone = f == -jnp.inf
    exponent = f.astype(jnp.promote_types(f.dtype, total.dtype)) - total
    p = jnp.exp(jnp.where(gone, jnp.zeros_like(exponent), exponent))
    return jnp.where(gone, jnp.zeros_like(p), p)


def _tangent_of_logsumexp(values: Values, dvalues: Values, total: jax.Array) -> Values:
    p = _softmax(values[0], total)
    if len(values) == 1:
        return [p * dvalues[0]]
    return [p * (values[1] * dvalues[0] + dvalues[1])]


@dataclasses.dataclass(frozen=True)
class SumSoftmaxWeight(_Exponentials):
    """sum_j softmax_j(f_ij) w_ij, and with `normalizer=True` also log sum_j exp(f_ij); values (f, w), f scalar (1,).

    A row with nothing to weigh (no pairs, or f = -inf everywhere) gives 0.
    """

    normalizer: bool = False  # both results are then in the dtype of the accumulator

    def init(self, values: Values) -> Any:
        f, w = values
        dtype = _wide(_inexact(values))
        return jnp.full(f.shape, -jnp.inf, dtype), jnp.zeros(f.shape, dtype), jnp.zeros(w.shape, dtype)

    def lift(self, values: Values, index: jax.Array) -> Any:
        dtype = _wide(_inexact(values))
        f, w = (v.astype(dtype) for v in values)
        s = jnp.exp(f - _finite_or_zero(f))
        return f, s, s * w

    def merge(self, a: Any, b: Any) -> Any:
        m = jnp.maximum(a[0], b[0])
        shift = _finite_or_zero(m)
        ea, eb = jnp.exp(a[0] - shift), jnp.exp(b[0] - shift)
        return m, a[1] * ea + b[1] * eb, a[2] * ea + b[2] * eb

    def fold(self, acc: Any, values: Values, indices: jax.Array) -> Any:
        f, w = (v.astype(acc[0].dtype) for v in values)
        m = jnp.maximum(acc[0], f.max(0))
        shift = _finite_or_zero(m)
        e, terms = jnp.exp(acc[0] - shift), jnp.exp(f - shift[None])
        return m, acc[1] * e + terms.sum(0), acc[2] * e + (terms * w).sum(0)

    def block(self, values: Values, indices: jax.Array, valid: jax.Array) -> Any:
        neutral = self.init([jax.ShapeDtypeStruct(v.shape[1:], v.dtype) for v in values])
        f = values[0].astype(neutral[0].dtype)
        return self.fold(neutral, [_mask(f, valid, -jnp.inf), _mask(values[1], valid, 0)], indices)

    def finalize(self, acc: Any, values: Values) -> tuple[Any, ...]:
        m, s, a = acc
        out = jnp.where(s == 0, jnp.zeros_like(a), a / jnp.where(s == 0, jnp.ones_like(s), s))
        if self.normalizer:
            return out, _finite_or_zero(m) + jnp.log(s)
        return (out.astype(_inexact(values)),)

    def terms(self, values: Values, maximum: jax.Array) -> Values:
        s = jnp.exp(self.score(values) - _finite_or_zero(maximum))
        return [s, s * values[1].astype(s.dtype)]

    def assemble(self, maximum: jax.Array, sums: Sequence[jax.Array]) -> Any:
        return maximum, *sums

    def tangent(self, call: Call) -> tuple[Sequence[Any], Sequence[Any]]:
        out, total = call.reduce(SumSoftmaxWeight(normalizer=True))
        dout, dtotal = call.sum(Sum(), _tangent_of_softmax, out, total)
        if self.normalizer:
            return (out, total), (dout.astype(out.dtype), dtotal.astype(total.dtype))
        dtype = _inexact(call.desc.pair.out_avals)
        return (out.astype(dtype),), (dout.astype(dtype),)


def _tangent_of_softmax(values: Values, dvalues: Values, out: jax.Array, total: jax.Array) -> Values:
    """With p = softmax(f): d sum p w = sum p ((w - out) df + dw), and d logsumexp = sum p df."""
    (f, w), (df, dw) = values, dvalues
    p = _softmax(f, total)
    return [p * ((w - out) * df + dw), p * df]


Wanted = Literal["value", "index", "both"]


def _nans(values: Values) -> Values | None:
    """What a selection skips, where its values have it."""
    (v,) = values
    floating = jnp.issubdtype(v.dtype, jnp.floating)
    return [np.full(v.shape, np.nan).astype(v.dtype)] if floating else None


def _select_results(wanted: Wanted, value: Any, index: Any) -> tuple[Any, ...]:
    return {"value": (value,), "index": (index,), "both": (value, index)}[wanted]


@dataclasses.dataclass(frozen=True)
class Extremum(Selection):
    """min_j f_ij (or max), the index where it is reached, or both, for every feature on its own.

    NaN is skipped; ties take the lowest index; with nothing to choose from, inf (-inf for max) and -1.
    """

    largest: bool = False
    wanted: Wanted = "value"

    rounds = False
    k = 1

    def group_reduction(self) -> Reduction | None:
        return None if self.wanted == "value" else Extremum(self.largest)

    def indices(self) -> Selection:
        return Extremum(self.largest, "index")

    def best_groups(self, values: jax.Array, k: int) -> jax.Array:
        return (jnp.argmax if self.largest else jnp.argmin)(values, axis=-1, keepdims=True)

    def _better(self, a: Any, b: Any) -> Any:
        return a > b if self.largest else a < b

    def _worst(self, dtype: Any) -> np.ndarray:
        return _infinity(dtype, -1 if self.largest else 1)

    def init(self, values: Values) -> Any:
        (v,) = values
        worst = jnp.full(v.shape, self._worst(v.dtype))
        return (worst,) if self.wanted == "value" else (worst, jnp.full(v.shape, -1, jnp.int32))

    def lift(self, values: Values, index: jax.Array) -> Any:
        (v,) = values
        nan = _is_nan(v)
        best = jnp.where(nan, self._worst(v.dtype), v)
        return (best,) if self.wanted == "value" else (best, jnp.where(nan, jnp.asarray(-1, index.dtype), index))

    def merge(self, a: Any, b: Any) -> Any:
        if self.wanted == "value":
            return (jnp.where(self._better(b[0], a[0]), b[0], a[0]),)
        wins = self._better(b[0], a[0]) | ((b[0] == a[0]) & (b[1] >= 0) & ((b[1] < a[1]) | (a[1] < 0)))
        return tuple(jnp.where(wins, y, x) for x, y in zip(a, b, strict=True))

    def fold(self, acc: Any, values: Values, indices: jax.Array) -> Any:
        # Indices come from the last to the first, so with "at least as good" the lowest index wins, an infinite
        # value wins over none, and NaN never does: one comparison.
        (v,) = values
        best = acc[0]
        for u in reversed(range(indices.shape[0])):
            if self.wanted != "value":
                as_good = v[u] >= best if self.largest else v[u] <= best
                acc = (acc[0], jnp.where(as_good, indices[u], acc[1]))
            best = jnp.where(self._better(v[u], best), v[u], best)  # strict: a single min or max instruction
        return (best, *acc[1:])

    def block(self, values: Values, indices: jax.Array, valid: jax.Array) -> Any:
        (v,) = values
        skipped = jnp.broadcast_to(~valid.reshape(-1, *(1,) * (v.ndim - 1)), v.shape) | _is_nan(v)
        v = jnp.where(skipped, self._worst(v.dtype), v)
        best = v.max(0) if self.largest else v.min(0)
        if self.wanted == "value":
            return (best,)
        none = jnp.asarray(jnp.iinfo(indices.dtype).max, indices.dtype)
        at = indices.reshape(-1, *(1,) * (v.ndim - 1))
        first = jnp.where(skipped | (v != best), none, at).min(0)
        return best, jnp.where(first == none, jnp.asarray(-1, indices.dtype), first)

    def ignored(self, values: Values) -> Values | None:
        return _nans(values)

    def finalize(self, acc: Any, values: Values) -> tuple[Any, ...]:
        return _select_results(self.wanted, acc[0], acc[-1])

    def narrow(self, used: Sequence[bool], count: int) -> tuple[Reduction, Sequence[bool]]:
        wanted = self.wanted if all(used) else "value" if used[0] else "index"
        return Extremum(self.largest, wanted), [True] * count

    def tangent(self, call: Call) -> tuple[Sequence[Any], Sequence[Any]]:
        if self.wanted == "index":
            return call.reduce(self), (None,)
        value, index = call.reduce(Extremum(self.largest, "both"))
        return _select_results(self.wanted, value, index), _select_results(self.wanted, call.at(Sum(), index), None)


@dataclasses.dataclass(frozen=True)
class KSmallest(Selection):
    """The k smallest of f_ij in ascending order, their indices, or both: results (k, *F).

    NaN is skipped; ties are ordered by index; where there are fewer than k, inf and -1 follow.  With `largest` it is
    the k largest in descending order: accumulators then hold values with their order reversed.
    """

    k: int = 1
    wanted: Wanted = "value"
    largest: bool = False

    rounds = False

    def _turned(self, v: Any) -> Any:
        return _negate(v) if self.largest else v

    def group_reduction(self) -> Reduction | None:
        return Extremum(self.largest)

    def indices(self) -> Selection:
        return KSmallest(self.k, "index", self.largest)

    def best_groups(self, values: jax.Array, k: int) -> jax.Array:
        values = self._turned(values.astype(jnp.int32) if values.dtype == bool else values)
        return lax.top_k(_descending(values), k)[1]

    def init(self, values: Values) -> Any:
        (v,) = values
        shape = (self.k, *v.shape)
        return jnp.full(shape, _infinity(v.dtype, 1)), jnp.full(shape, -1, jnp.int32)

    def lift(self, values: Values, index: jax.Array) -> Any:
        v = self._turned(values[0])
        best, where = self.init(values)
        nan = _is_nan(v)
        first = jnp.where(nan, best[0], v)
        at = jnp.broadcast_to(jnp.where(nan, jnp.asarray(-1, index.dtype), index), v.shape)
        rest = where[1:].astype(index.dtype)
        return jnp.concatenate([first[None], best[1:]]), jnp.concatenate([at[None], rest])

    def merge(self, a: Any, b: Any) -> Any:
        # Batcher's bitonic merge: the smaller of a[i] and b[k-1-i] are the k smallest of both, as a bitonic
        # sequence, which log2(k) rounds of exchanges sort (Knuth, TAOCP 3, 5.3.4).
        size = 1 << (self.k - 1).bit_length()
        a, b = ((_pad_last(x[0], size, self._worst(x[0])), _pad_last(x[1], size, -1)) for x in (a, b))
        best = _exchange(a, jax.tree.map(lambda x: jnp.flip(x, 0), b))[0]
        half = size // 2
        while half:
            pairs = jax.tree.map(lambda x, h=half: x.reshape(-1, 2, h, *x.shape[1:]), best)
            low, high = _exchange(*(jax.tree.map(lambda x, s=side: x[:, s], pairs) for side in (0, 1)))
            best = jax.tree.map(lambda x, y: jnp.stack([x, y], 1).reshape(size, *x.shape[2:]), low, high)
            half //= 2
        return tuple(x[: self.k] for x in best)

    @staticmethod
    def _worst(v: Any) -> np.ndarray:
        return _infinity(v.dtype, 1)

    def fold(self, acc: Any, values: Values, indices: jax.Array) -> Any:
        # Insertion: a newcomer has the lowest index so far, so it stands before its equals.
        best, where = list(acc[0]), list(acc[1])
        turned = self._turned(values[0])
        for u in reversed(range(indices.shape[0])):
            v, at = turned[u], jnp.broadcast_to(indices[u], values[0][u].shape)
            for k in range(self.k):
                wins = v <= best[k]
                best[k], v = jnp.where(wins, v, best[k]), jnp.where(wins, best[k], v)
                where[k], at = jnp.where(wins, at, where[k]), jnp.where(wins, where[k], at)
        return jnp.stack(best), jnp.stack(where)

    def block(self, values: Values, indices: jax.Array, valid: jax.Array) -> Any:
        v = jnp.moveaxis(self._turned(values[0]), 0, -1)
        nothing = jnp.broadcast_to(~valid, v.shape) | _is_nan(v)
        indices = jnp.broadcast_to(indices, v.shape)
        if v.shape[-1] < self.k:
            padding = [(0, 0)] * (v.ndim - 1) + [(0, self.k - v.shape[-1])]
            v, indices = jnp.pad(v, padding), jnp.pad(indices, padding)
            nothing = jnp.pad(nothing, padding, constant_values=True)
        position = lax.top_k(_descending(_ordered(v, nothing)), self.k)[1]
        taken = [jnp.take_along_axis(x, position, axis=-1) for x in (v, nothing, indices)]
        best = jnp.where(taken[1], self._worst(v), taken[0])
        where = jnp.where(taken[1], jnp.asarray(-1, indices.dtype), taken[2])
        if jnp.issubdtype(v.dtype, jnp.floating):
            # Infinity was ordered as the largest number: put it after it.
            best, _, where = lax.sort((best, taken[1], where), num_keys=2, is_stable=True)
        return jnp.moveaxis(best, -1, 0), jnp.moveaxis(where, -1, 0)

    def ignored(self, values: Values) -> Values | None:
        return _nans(values)

    def finalize(self, acc: Any, values: Values) -> tuple[Any, ...]:
        return _select_results(self.wanted, self._turned(acc[0]), acc[1])

    def narrow(self, used: Sequence[bool], count: int) -> tuple[Reduction, Sequence[bool]]:
        wanted = self.wanted if all(used) else "value" if used[0] else "index"
        return KSmallest(self.k, wanted, self.largest), [True] * count

    def tangent(self, call: Call) -> tuple[Sequence[Any], Sequence[Any]]:
        if self.wanted == "index":
            return call.reduce(self), (None,)
        value, index = call.reduce(KSmallest(self.k, "both", self.largest))
        return _select_results(self.wanted, value, index), _select_results(self.wanted, call.at(Sum(), index), None)


def _ordered(v: jax.Array, nothing: jax.Array) -> jax.Array:
    """A single key for top_k in which what is skipped comes last.

    Infinity counts as the largest finite number, to stand before what is skipped; integers are never
    skipped but at the end, where they lose every tie.
    """
    if v.dtype == bool:
        v = v.astype(jnp.int32)
    worst = _infinity(v.dtype, 1)
    if jnp.issubdtype(v.dtype, jnp.floating):
        v = jnp.minimum(v, jnp.finfo(v.dtype).max)
    return jnp.where(nothing, worst, v)


def _negate(v: jax.Array) -> jax.Array:
    """An order-reversing map: ~x has no overflow for integers."""
    return ~v if jnp.issubdtype(v.dtype, jnp.integer) or v.dtype == bool else -v


def _descending(v: jax.Array) -> jax.Array:
    """The keys by which top_k finds the smallest: it takes 0 before -0, which are equal here."""
    keys = _negate(v)
    return jnp.where(keys == 0, jnp.zeros_like(keys), keys) if jnp.issubdtype(v.dtype, jnp.floating) else keys


def _pad_last(x: jax.Array, size: int, value: Any) -> jax.Array:
    extra = size - x.shape[0]
    return jnp.concatenate([x, jnp.full((extra, *x.shape[1:]), value, x.dtype)]) if extra else x


def _exchange(a: Any, b: Any) -> tuple[Any, Any]:
    """(smaller, larger) of two (value, index) pairs, ordered by value, then by index, with no index (-1) last."""
    swap = (b[0] < a[0]) | ((b[0] == a[0]) & (b[1] >= 0) & ((b[1] < a[1]) | (a[1] < 0)))
    low = tuple(jnp.where(swap, y, x) for x, y in zip(a, b, strict=True))
    high = tuple(jnp.where(swap, x, y) for x, y in zip(a, b, strict=True))
    return low, high
