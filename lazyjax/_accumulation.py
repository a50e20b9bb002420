"""How sums accumulate: in a wider dtype, with compensation, or one after the other.

Block sums are what every sum does (see `kernels.xla.lanes`).  Compensated sums keep the rounding error of every
addition beside the sum, by Knuth's branch-free two-sum (TAOCP 2, 4.2.2, theorem B), and add all of them at the end:
Neumaier's variant of Kahan's sum ("Rundungsfehleranalyse einiger Verfahren zur Summation endlicher Summen", ZAMM 54,
1974), whose error is one rounding of the result and a term of second order in n eps.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ._calculus import Call, Combine
from ._compat import trace_context
from ._reductions import LogSumExp, Sum, SumSoftmaxWeight, _finite_or_zero, _inexact, _wide
from .kernels import Description, PairFunction, Reduction, trace_pair
from .kernels.reduction import trace

Values = Sequence[Any]


def _two_sum(a: Any, b: Any) -> tuple[Any, Any]:
    """a + b rounded, and the rounding error, exactly."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _corrected(total: Any, error: Any) -> Any:
    """The sum with its error; an infinite sum has no error (the two-sum makes NaN of it)."""
    return total + jnp.where(jnp.isfinite(error), error, jnp.zeros_like(error))


class _Through:
    """A `Call` whose reductions all accumulate in the same way as the reduction that is differentiated."""

    def __init__(self, call: Call, wrap: Callable[[Any], Reduction]):
        self.desc, self._call, self._wrap = call.desc, call, wrap

    def reduce(self, reduction: Reduction) -> Sequence[jax.Array]:
        return self._call.reduce(self._wrap(reduction))

    def pairs(self, dtype: Any) -> jax.Array:
        return self._call.pairs(dtype)

    def sum(self, reduction: Reduction, combine: Combine, *rows: jax.Array) -> Sequence[jax.Array]:
        return self._call.sum(self._wrap(reduction), combine, *rows)

    def at(self, reduction: Reduction, indices: jax.Array) -> jax.Array:
        return self._call.at(reduction, indices)  # a sum over one pair accumulates nothing


@dataclasses.dataclass(frozen=True)
class CompensatedSum(Sum):
    """sum_j f_ij, compensated: for every value the sum and its error."""

    adds = False  # a matrix product would not compensate

    def init(self, values: Values) -> Any:
        return [(z, z) for z in super().init(values)]

    def lift(self, values: Values, index: jax.Array) -> Any:
        return [(v, jnp.zeros_like(v)) for v in super().lift(values, index)]

    def merge(self, a: Any, b: Any) -> Any:
        out = []
        for (s, c), (t, d) in zip(a, b, strict=True):
            total, error = _two_sum(s, t)
            out.append((total, (c + d) + error))
        return out

    def fold(self, acc: Any, values: Values, indices: jax.Array) -> Any:
        for u in reversed(range(indices.shape[0])):
            new = []
            for (s, c), v in zip(acc, Sum.lift(self, [v[u] for v in values], indices[u]), strict=True):
                total, error = _two_sum(s, v)
                new.append((total, c + error))
            acc = new
        return acc

    def block(self, values: Values, indices: jax.Array, valid: jax.Array) -> Any:
        return Reduction.block(self, values, indices, valid)

    def finalize(self, acc: Any, values: Values) -> tuple[Any, ...]:
        return super().finalize([_corrected(*a) for a in acc], values)


@dataclasses.dataclass(frozen=True)
class CompensatedLogSumExp(LogSumExp):
    """log sum_j w_ij exp(f_ij), the sum of exponentials being compensated."""

    def init(self, values: Values) -> Any:
        dtype = _wide(_inexact(values))
        zero = jnp.zeros(values[-1].shape, dtype)
        return jnp.full(values[0].shape, -jnp.inf, dtype), zero, zero

    def lift(self, values: Values, index: jax.Array) -> Any:
        f, *w = (v.astype(_wide(_inexact(values))) for v in values)
        s = jnp.exp(f - _finite_or_zero(f))
        s = s * w[0] if w else s
        return f, s, jnp.zeros_like(s)

    def merge(self, a: Any, b: Any) -> Any:
        m = jnp.maximum(a[0], b[0])
        ea, eb = (jnp.exp(x[0] - _finite_or_zero(m)) for x in (a, b))
        total, error = _two_sum(a[1] * ea, b[1] * eb)
        return m, total, a[2] * ea + b[2] * eb + error

    def fold(self, acc: Any, values: Values, indices: jax.Array) -> Any:
        # One rescaling for the whole chunk, rather than one for each pair.
        f, *w = (v.astype(acc[0].dtype) for v in values)
        m = jnp.maximum(acc[0], f.max(0))
        shift = _finite_or_zero(m)
        scale, terms = jnp.exp(acc[0] - shift), jnp.exp(f - shift[None])
        terms = terms * w[0] if w else terms
        total, error = _absorb(acc[1] * scale, acc[2] * scale, terms)
        return m, total, error

    def block(self, values: Values, indices: jax.Array, valid: jax.Array) -> Any:
        return Reduction.block(self, values, indices, valid)

    def sums(self) -> Reduction:
        return CompensatedSum()

    def assemble(self, maximum: jax.Array, sums: Sequence[jax.Array]) -> Any:
        return maximum, sums[0], jnp.zeros_like(sums[0])

    def finalize(self, acc: Any, values: Values) -> tuple[Any, ...]:
        total = _finite_or_zero(acc[0]) + jnp.log(_corrected(*acc[1:]))
        return (total if self.wide else total.astype(_inexact(values)),)

    def tangent(self, call: Call) -> tuple[Sequence[Any], Sequence[Any]]:
        return super().tangent(_Through(call, compensated))  # type: ignore[arg-type]


@dataclasses.dataclass(frozen=True)
class CompensatedSumSoftmaxWeight(SumSoftmaxWeight):
    """sum_j softmax_j(f_ij) w_ij, both sums being compensated."""

    def init(self, values: Values) -> Any:
        f, w = (jnp.zeros(v.shape, _wide(_inexact(values))) for v in values)
        return jnp.full_like(f, -jnp.inf), f, f, w, w

    def lift(self, values: Values, index: jax.Array) -> Any:
        f, w = (v.astype(_wide(_inexact(values))) for v in values)
        s = jnp.exp(f - _finite_or_zero(f))
        return f, s, jnp.zeros_like(s), s * w, jnp.zeros_like(s * w)

    def merge(self, a: Any, b: Any) -> Any:
        m = jnp.maximum(a[0], b[0])
        ea, eb = (jnp.exp(x[0] - _finite_or_zero(m)) for x in (a, b))
        s, ds = _two_sum(a[1] * ea, b[1] * eb)
        w, dw = _two_sum(a[3] * ea, b[3] * eb)
        return m, s, a[2] * ea + b[2] * eb + ds, w, a[4] * ea + b[4] * eb + dw

    def fold(self, acc: Any, values: Values, indices: jax.Array) -> Any:
        f, w = (v.astype(acc[0].dtype) for v in values)
        m = jnp.maximum(acc[0], f.max(0))
        shift = _finite_or_zero(m)
        scale, terms = jnp.exp(acc[0] - shift), jnp.exp(f - shift[None])
        return (
            m,
            *_absorb(acc[1] * scale, acc[2] * scale, terms),
            *_absorb(acc[3] * scale, acc[4] * scale, terms * w),
        )

    def block(self, values: Values, indices: jax.Array, valid: jax.Array) -> Any:
        return Reduction.block(self, values, indices, valid)

    def sums(self) -> Reduction:
        return CompensatedSum()

    def assemble(self, maximum: jax.Array, sums: Sequence[jax.Array]) -> Any:
        s, w = sums
        return maximum, s, jnp.zeros_like(s), w, jnp.zeros_like(w)

    def finalize(self, acc: Any, values: Values) -> tuple[Any, ...]:
        m, s, ds, w, dw = acc
        return super().finalize((m, _corrected(s, ds), _corrected(w, dw)), values)

    def tangent(self, call: Call) -> tuple[Sequence[Any], Sequence[Any]]:
        return super().tangent(_Through(call, compensated))  # type: ignore[arg-type]


def _absorb(total: Any, error: Any, terms: Any) -> tuple[Any, Any]:
    for u in reversed(range(terms.shape[0])):
        total, rounded = _two_sum(total, terms[u])
        error = error + rounded
    return total, error


def compensated(reduction: Reduction) -> Reduction:
    """The same reduction with compensated sums."""
    if type(reduction) is LogSumExp:
        return CompensatedLogSumExp(reduction.wide)
    if type(reduction) is SumSoftmaxWeight:
        return CompensatedSumSoftmaxWeight(reduction.normalizer)
    return CompensatedSum() if type(reduction) is Sum else reduction


@dataclasses.dataclass(frozen=True)
class Accumulated(Reduction):
    """`inner`, and its derivatives, with accumulators of a dtype (None: its own); results in the dtypes of `inner`.

    With `direct`, terms are added one after the other, without the groups that keep errors of long sums small.
    """

    inner: Reduction
    dtype: str | None = None
    direct: bool = False

    @property
    def rounds(self) -> bool:  # type: ignore[override]
        return not self.direct and self.inner.rounds

    @property
    def adds(self) -> bool:  # type: ignore[override]
        return not self.direct and self.inner.adds

    def _avals(self, values: Values) -> list[Any]:
        return [jax.ShapeDtypeStruct(v.shape, _at_least(v.dtype, self.dtype)) for v in values]

    def _cast(self, values: Values) -> list[Any]:
        return [v.astype(_at_least(v.dtype, self.dtype)) for v in values]

    def init(self, values: Values) -> Any:
        return self.inner.init(self._avals(values))

    def lift(self, values: Values, index: jax.Array) -> Any:
        return self.inner.lift(self._cast(values), index)

    def merge(self, a: Any, b: Any) -> Any:
        return self.inner.merge(a, b)

    def fold(self, acc: Any, values: Values, indices: jax.Array) -> Any:
        return self.inner.fold(acc, self._cast(values), indices)

    def block(self, values: Values, indices: jax.Array, valid: jax.Array) -> Any:
        return self.inner.block(self._cast(values), indices, valid)

    def ignored(self, values: Values) -> Sequence[Any] | None:
        return self.inner.ignored(values)

    def finalize(self, acc: Any, values: Values) -> tuple[Any, ...]:
        dtypes = result_dtypes(self.inner, values)
        return tuple(x.astype(d) for x, d in zip(self.inner.finalize(acc, self._avals(values)), dtypes, strict=True))

    def narrow(self, used: Sequence[bool], count: int) -> tuple[Reduction, Sequence[bool]]:
        inner, values = self.inner.narrow(used, count)
        return dataclasses.replace(self, inner=inner), values

    def tangent(self, call: Call) -> tuple[Sequence[Any], Sequence[Any]]:
        wrap = functools.partial(Accumulated, dtype=self.dtype, direct=self.direct)
        return self.inner.tangent(_Through(call, wrap))  # type: ignore[arg-type]


def _at_least(dtype: Any, wanted: str | None) -> Any:
    """An inexact dtype widened to the one that is wanted; integers are summed exactly in their own."""
    if wanted is None or not jnp.issubdtype(dtype, jnp.inexact):
        return dtype
    return jnp.promote_types(dtype, wanted)


def result_dtypes(reduction: Reduction, values: Values) -> list[Any]:
    """The dtypes of the results of a reduction of these values."""
    return [a.dtype for a in trace(reduction, tuple((v.shape, v.dtype) for v in values), np.int32).out_avals]


@functools.lru_cache(maxsize=1024)
def widened(pair: PairFunction, dtypes: tuple[Any, ...], context: Any) -> PairFunction:
    """The pair function with its values converted; remembered, so that equal requests give the same object."""
    del context

    def fn(*args: Any) -> list[Any]:
        return [v.astype(d) for v, d in zip(pair(*args), dtypes, strict=True)]

    return trace_pair(fn, pair.in_avals)


Run = Callable[[Description, Sequence[Any]], Sequence[jax.Array]]  # how a description is run


@dataclasses.dataclass(frozen=True)
class Composite:
    """What the language calls a reduction and writes with others: no kernel ever sees it."""

    inner: Reduction

    def run(self, desc: Description, args: Sequence[Any], reduce: Run) -> Sequence[jax.Array]:
        """The results on the arrays of a description; `reduce` runs one whose reduction is a kernel's."""
        raise NotImplementedError

    def accumulate(self, accumulation: Accumulation) -> Composite:
        """The same with the options of a sum."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Wider(Composite):
    """`inner` of values that are converted to a wider dtype first; results in the dtypes that they would have had."""

    dtype: str = "float32"

    def run(self, desc: Description, args: Sequence[Any], reduce: Run) -> Sequence[jax.Array]:
        values = desc.pair.out_avals
        pair = widened(desc.pair, tuple(_at_least(v.dtype, self.dtype) for v in values), trace_context())
        outs = reduce(desc.replace(pair=pair, reduction=self.inner), args)
        return [o.astype(d) for o, d in zip(outs, result_dtypes(self.inner, values), strict=True)]


class Accumulation(NamedTuple):
    """The options of a sum: the dtype that it accumulates in (None: its own) and the order of additions."""

    dtype: str | None = None
    scheme: str = "auto"

    def apply(self, reduction: Any) -> Any:
        """The reduction that accumulates so."""
        if self == Accumulation():
            return reduction
        if isinstance(reduction, Composite):
            return reduction.accumulate(self)
        inner = compensated(reduction) if self.scheme == "kahan_scheme" else reduction
        direct = self.scheme == "direct_sum"
        inner = Accumulated(inner, self.dtype, direct) if direct or self.dtype else inner
        return Wider(inner, self.dtype) if self.dtype else inner
