"""The reductions that every transformation is tested on: ours, and the same written with dense JAX.

Adding a reduction is adding one row.  Arguments: x (M, D), y (N, D), b (N, E), s a number; all float64.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lazyjax
from lazyjax import Pm, Vi, Vj

M, N, D, E, K = 5, 7, 2, 3, 4


def arguments(m: int = M, n: int = N, seed: int = 0) -> tuple[jax.Array, ...]:
    """x, y, b, s."""
    r = np.random.default_rng(seed)
    return tuple(jnp.asarray(a) for a in (r.normal(size=(m, D)), r.normal(size=(n, D)), r.normal(size=(n, E)), 0.8))


@dataclasses.dataclass(frozen=True)
class Case:
    """ours and dense: functions of (x, y, b, s) with equal results.

    smooth: results have derivatives; passes: how many reductions of the primitive the value takes; costly: compiling
    its higher derivatives takes so long that of them only Hessian-vector products are tested without `FULL`.
    """

    name: str
    ours: Callable[..., Any]
    dense: Callable[..., Any]
    smooth: bool = True
    passes: int = 1
    costly: bool = False

    def __str__(self) -> str:
        return self.name


def lazy_distance(x: Any, y: Any, s: Any) -> lazyjax.LazyTensor:
    return Pm(s) * Vi(x).sqdist(Vj(y))


def distance(x: Any, y: Any, s: Any) -> jax.Array:
    return s * ((x[:, None] - y[None]) ** 2).sum(-1)


def lazy_vector(x: Any, y: Any, s: Any) -> lazyjax.LazyTensor:
    """A formula with D features."""
    return (Vi(x) * Vj(y) + Pm(s)).sin()


def vector(x: Any, y: Any, s: Any) -> jax.Array:
    return jnp.sin(x[:, None] * y[None] + s)


def squares(x: Any, y: Any, s: Any) -> jax.Array:
    return s * (x[:, None] - y[None]) ** 2


@dataclasses.dataclass(frozen=True)
class LogAddExp(lazyjax.Reduction):
    """A user's own monoid: the soft minimum, -log sum exp(-f), merged pair by pair, with a derivative of its own."""

    def init(self, values: Any) -> Any:
        return jnp.full(values[0].shape, jnp.inf, values[0].dtype)

    def lift(self, values: Any, index: Any) -> Any:
        return values[0]

    def merge(self, a: Any, b: Any) -> Any:
        low, high = jnp.minimum(a, b), jnp.maximum(a, b)
        gap = jnp.where(jnp.isinf(high), 0.0, high - jnp.where(jnp.isinf(low), 0.0, low))
        return low - jnp.where(jnp.isinf(high), 0.0, jnp.log1p(jnp.exp(-gap)))

    def finalize(self, acc: Any, values: Any) -> Any:
        return (acc,)

    def tangent(self, call: Any) -> Any:
        (total,) = outs = call.reduce(self)
        return outs, call.sum(lazyjax.Sum(), _softmin_tangent, total)


def _softmin_tangent(values: Any, dvalues: Any, total: Any) -> Any:
    return [jnp.exp(total - values[0]) * dvalues[0]]


def lowest(values: jax.Array, axis: int) -> jax.Array:
    """Looked up: JAX's derivative of a minimum asks which values equal it, and XLA may compute them twice."""
    return jnp.take_along_axis(values, jnp.expand_dims(values.argmin(axis), axis), axis).squeeze(axis)


def _first_k(values: jax.Array) -> jax.Array:
    return jnp.sort(values, axis=1)[:, :K]


def _argsort_k(values: jax.Array) -> jax.Array:
    return jnp.argsort(values, axis=1)[:, :K].astype(jnp.int32)


CASES = [
    Case(
        "sum over j",
        lambda x, y, b, s: (-lazy_distance(x, y, s)).exp().sum(axis=1),
        lambda x, y, b, s: jnp.exp(-distance(x, y, s)).sum(1)[:, None],
    ),
    Case(
        "sum over i",
        lambda x, y, b, s: lazy_vector(x, y, s).sum(axis=0),
        lambda x, y, b, s: vector(x, y, s).sum(0),
    ),
    Case(
        "sum over both",
        lambda x, y, b, s: lazy_vector(x, y, s).sum(axis=(0, 1)),
        lambda x, y, b, s: vector(x, y, s).sum((0, 1)),
    ),
    Case(
        "K @ b",
        lambda x, y, b, s: (-lazy_distance(x, y, s)).exp() @ b,
        lambda x, y, b, s: jnp.exp(-distance(x, y, s)) @ b,
    ),
    Case(
        "K @ b, sqrt",
        lambda x, y, b, s: lazy_distance(x, y, s).sqrt().atan() @ b[:, 0],
        lambda x, y, b, s: jnp.arctan(jnp.sqrt(distance(x, y, s))) @ b[:, 0],
    ),
    Case(
        "min",
        lambda x, y, b, s: lazy_vector(x, y, s).min(axis=1),
        lambda x, y, b, s: lowest(vector(x, y, s), 1),
    ),
    Case(
        "max over i",
        lambda x, y, b, s: lazy_vector(x, y, s).max(axis=0),
        lambda x, y, b, s: -lowest(-vector(x, y, s), 0),
    ),
    Case(
        "min of min_argmin",
        lambda x, y, b, s: lazy_distance(x, y, s).min_argmin(axis=1)[0],
        lambda x, y, b, s: lowest(distance(x, y, s), 1)[:, None],
    ),
    Case(
        "max of max_argmax",
        lambda x, y, b, s: lazy_distance(x, y, s).max_argmax(axis=1)[0],
        lambda x, y, b, s: -lowest(-distance(x, y, s), 1)[:, None],
    ),
    Case(
        "argmin",
        lambda x, y, b, s: lazy_vector(x, y, s).argmin(axis=1),
        lambda x, y, b, s: vector(x, y, s).argmin(1).astype(jnp.int32),
        smooth=False,
    ),
    Case(
        "argmax over i",
        lambda x, y, b, s: lazy_distance(x, y, s).argmax(axis=0),
        lambda x, y, b, s: distance(x, y, s).argmax(0)[:, None].astype(jnp.int32),
        smooth=False,
    ),
    Case(
        "argmin of min_argmin",
        lambda x, y, b, s: lazy_distance(x, y, s).min_argmin(axis=1)[1],
        lambda x, y, b, s: distance(x, y, s).argmin(1)[:, None].astype(jnp.int32),
        smooth=False,
    ),
    Case(
        "Kmin",
        lambda x, y, b, s: lazy_distance(x, y, s).Kmin(K, axis=1),
        lambda x, y, b, s: _first_k(distance(x, y, s)),
    ),
    Case(
        "Kmin of vectors",
        lambda x, y, b, s: lazy_vector(x, y, s).Kmin(K, axis=1),
        lambda x, y, b, s: _first_k(vector(x, y, s)),
    ),
    Case(
        "argKmin",
        lambda x, y, b, s: lazy_distance(x, y, s).argKmin(K, axis=1),
        lambda x, y, b, s: _argsort_k(distance(x, y, s)),
        smooth=False,
    ),
    Case(
        "Kmin of Kmin_argKmin",
        lambda x, y, b, s: lazy_distance(x, y, s).Kmin_argKmin(K, axis=1)[0],
        lambda x, y, b, s: _first_k(distance(x, y, s)),
    ),
    Case(
        "logsumexp",
        lambda x, y, b, s: lazy_distance(x, y, s).logsumexp(axis=1),
        lambda x, y, b, s: jax.nn.logsumexp(distance(x, y, s), axis=1)[:, None],
    ),
    Case(
        "logsumexp with weight",
        lambda x, y, b, s: lazy_distance(x, y, s).logsumexp(axis=1, weight=Vj(b).exp()),
        lambda x, y, b, s: jax.nn.logsumexp(distance(x, y, s)[:, :, None], axis=1, b=jnp.exp(b)[None]),
        costly=True,
    ),
    Case(
        "sumsoftmaxweight",
        lambda x, y, b, s: lazy_distance(x, y, s).sumsoftmaxweight(Vj(b), axis=1),
        lambda x, y, b, s: jax.nn.softmax(distance(x, y, s), axis=1) @ b,
        costly=True,
    ),
    Case(
        "mean over i",
        lambda x, y, b, s: lazy_distance(x, y, s).mean(axis=0),
        lambda x, y, b, s: distance(x, y, s).mean(0)[:, None],
        costly=True,
    ),
    Case(
        "prod",  # of factors near 1: what is nonlinear in a product of 1e20 has no digit right
        lambda x, y, b, s: (1 + 0.1 * lazy_distance(x, y, s).sin()).prod(axis=1),
        lambda x, y, b, s: (1 + 0.1 * jnp.sin(distance(x, y, s))).prod(1)[:, None],
        costly=True,
    ),
    Case(
        "var",
        lambda x, y, b, s: lazy_distance(x, y, s).var(axis=1, ddof=1),
        lambda x, y, b, s: distance(x, y, s).var(1, ddof=1)[:, None],
    ),
    Case(
        "std over both",
        lambda x, y, b, s: lazy_distance(x, y, s).std(axis="ij"),
        lambda x, y, b, s: distance(x, y, s).std()[None],
        costly=True,
    ),
    Case(
        "min over both",  # of what has a slope there: where a sine is least of all, rounding is all that its slope is
        lambda x, y, b, s: (-Pm(s) * (Vi(x) - Vj(y)) ** 2).min(axis="ij"),
        lambda x, y, b, s: lowest(-squares(x, y, s).reshape(-1, D), 0),
        passes=2,
    ),
    Case(
        "Kmax",
        lambda x, y, b, s: lazy_distance(x, y, s).Kmax(2, axis=1),
        lambda x, y, b, s: -_first_k(-distance(x, y, s))[:, :2],
    ),
    Case(
        "argKmax",
        lambda x, y, b, s: lazy_distance(x, y, s).argKmax(2, axis=1),
        lambda x, y, b, s: _argsort_k(-distance(x, y, s))[:, :2],
        smooth=False,
    ),
    Case(
        "any",
        lambda x, y, b, s: (lazy_vector(x, y, s) > Pm(s)).any(axis=1).astype(jnp.int32),
        lambda x, y, b, s: (vector(x, y, s) > s).any(1).astype(jnp.int32),
        smooth=False,
    ),
    Case(
        "count_nonzero over both",
        lambda x, y, b, s: (lazy_vector(x, y, s) > 0).count_nonzero(axis="ij"),
        lambda x, y, b, s: jnp.count_nonzero(vector(x, y, s) > 0, axis=(0, 1)),
        smooth=False,
    ),
    Case(
        "compensated sum",
        lambda x, y, b, s: lazy_distance(x, y, s).sum(axis=1, sum_scheme="kahan_scheme"),
        lambda x, y, b, s: distance(x, y, s).sum(1)[:, None],
        costly=True,
    ),
    # Of these two the values; `test_accumulation.py` has their derivatives, which are sums of the row above.
    Case(
        "compensated logsumexp",
        lambda x, y, b, s: lazy_distance(x, y, s).logsumexp(
            axis=1, weight=Vj(b[:, :2]).exp(), sum_scheme="kahan_scheme"
        ),
        lambda x, y, b, s: jax.nn.logsumexp(distance(x, y, s)[:, :, None], axis=1, b=jnp.exp(b[:, :2])[None]),
        smooth=False,
    ),
    Case(
        "compensated sumsoftmaxweight",
        lambda x, y, b, s: lazy_distance(x, y, s).sumsoftmaxweight(Vj(b[:, :2]), axis=1, sum_scheme="kahan_scheme"),
        lambda x, y, b, s: jax.nn.softmax(distance(x, y, s), axis=1) @ b[:, :2],
        smooth=False,
    ),
    Case(
        "a user's monoid",
        lambda x, y, b, s: lazy_distance(x, y, s).reduction(LogAddExp(), axis=1)[0],
        lambda x, y, b, s: -jax.nn.logsumexp(-distance(x, y, s), axis=1)[:, None],
        costly=True,
    ),
]

SMOOTH = [c for c in CASES if c.smooth]

# One case of each way to write a tangent: the derivatives of the others are the same sums.
TANGENTS = [
    case
    for case in SMOOTH
    if case.name
    in ("K @ b, sqrt", "sum over both", "min", "Kmin of vectors", "logsumexp with weight", "sumsoftmaxweight", "prod",
        "std over both", "a user's monoid")
]  # fmt: skip


def marked(cases: Sequence[Case]) -> list[Any]:
    """The cases as parameters of a test, those that are not among `TANGENTS` marked `more`."""
    return [case if case in TANGENTS else pytest.param(case, marks=pytest.mark.more) for case in cases]
