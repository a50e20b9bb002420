"""Means, variances and products over pairs, as monoids, with their derivatives."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ._accumulation import Accumulation, Composite, Run, Wider, widened
from ._calculus import Call, pairs_reduced
from ._compat import trace_context
from ._reductions import Sum, _inexact, _wide
from .kernels import Description, Reduction

Values = Sequence[Any]


def _as_rows(count: jax.Array, results: jax.Array) -> jax.Array:
    """A number for every row, (*batch, m), or a single one, as it meets results (*batch, m, *F)."""
    return lax.expand_dims(count, range(count.ndim, results.ndim)) if count.ndim else count


@dataclasses.dataclass(frozen=True)
class Mean(Composite):
    """sum_j f_ij / N, the sum (`inner`) and the division in the dtype of the accumulator; NaN of no pairs."""

    inner: Reduction = Sum()  # noqa: RUF009  (frozen, without fields)
    dtype: str | None = None

    def run(self, desc: Description, args: Sequence[Any], reduce: Run) -> Sequence[jax.Array]:
        (value,) = desc.pair.out_avals
        own = _inexact([value])
        dtype = _wide(own) if self.dtype is None else jnp.promote_types(own, self.dtype)
        pair = desc.pair if value.dtype == dtype else widened(desc.pair, (dtype,), trace_context())
        (total,) = reduce(desc.replace(pair=pair, reduction=self.inner), args)
        count = pairs_reduced(desc, desc.split(args)[1], _real(dtype))
        return [(total / _as_rows(count, total)).astype(own)]

    def accumulate(self, accumulation: Accumulation) -> Composite:
        inner = accumulation.apply(self.inner)
        return Mean(inner.inner if isinstance(inner, Wider) else inner, accumulation.dtype)


def _real(dtype: Any) -> np.dtype:
    return np.dtype(jnp.finfo(dtype).dtype)


@dataclasses.dataclass(frozen=True)
class Variance(Reduction):
    """sum_j |f_ij - mean_i|^2 / (N - ddof), its square root, or ("moments") mean and variance.

    Means and squared deviations of two sets merge without cancellation: with delta = mean_b - mean_a,
    M2 = M2_a + M2_b + |delta|^2 n_a n_b / n  (Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for
    computing sample variances", COMPSTAT 1982).  NaN where there are no more than ddof pairs, as in NumPy.
    """

    ddof: float = 0.0
    wanted: Literal["var", "std", "moments"] = "var"  # moments: in the dtype of the accumulator, for derivatives

    def init(self, values: Values) -> Any:
        (v,) = values
        dtype = _wide(_inexact(values))
        real = _real(dtype)
        return jnp.zeros((), real), jnp.zeros(v.shape, dtype), jnp.zeros(v.shape, real)

    def lift(self, values: Values, index: jax.Array) -> Any:
        v = values[0].astype(_wide(_inexact(values)))
        return jnp.ones((), v.real.dtype), v, jnp.zeros_like(v.real)

    def merge(self, a: Any, b: Any) -> Any:
        n = a[0] + b[0]
        share = b[0] / jnp.where(n == 0, jnp.ones_like(n), n)
        delta = b[1] - a[1]
        return n, a[1] + delta * share, a[2] + b[2] + _square(delta) * (a[0] * share)

    def fold(self, acc: Any, values: Values, indices: jax.Array) -> Any:
        # The chunk by the definition, then one merge, rather than one for each pair.
        v = values[0].astype(acc[1].dtype)
        size = v.shape[0]
        mean = v.sum(0) * np.asarray(1 / size, acc[0].dtype)
        return self.merge((np.asarray(size, acc[0].dtype), mean, _square(v - mean[None]).sum(0)), acc)

    def block(self, values: Values, indices: jax.Array, valid: jax.Array) -> Any:
        v = values[0].astype(_wide(_inexact(values)))
        here = valid.reshape(-1, *(1,) * (v.ndim - 1))
        n = valid.sum().astype(v.real.dtype)
        mean = jnp.where(here, v, 0).sum(0) / jnp.where(n == 0, jnp.ones_like(n), n)
        return n, mean, jnp.where(here, _square(v - mean[None]), 0).sum(0)

    def finalize(self, acc: Any, values: Values) -> tuple[Any, ...]:
        n, mean, m2 = acc
        var = m2 / jnp.maximum(n - np.asarray(self.ddof, n.dtype), 0)
        if self.wanted == "moments":
            return mean, var
        out = jnp.sqrt(var) if self.wanted == "std" else var
        return (out.astype(_real(_inexact(values))),)

    def tangent(self, call: Call) -> tuple[Sequence[Any], Sequence[Any]]:
        """d var = 2 sum Re conj(f - mean) df / (N - ddof): d mean drops out, because deviations sum to zero."""
        mean, var = call.reduce(Variance(self.ddof, "moments"))
        n = _as_rows(call.pairs(var.dtype), var)
        if self.wanted == "moments":
            moved, total = call.sum(Sum(), _tangent_of_moments, mean)
            return (mean, var), (moved / n, total / jnp.maximum(n - self.ddof, 0))
        (total,) = call.sum(Sum(), _tangent_of_variance, mean)
        dvar = total / jnp.maximum(n - self.ddof, 0)
        dtype = _real(_inexact(call.desc.pair.out_avals))
        if self.wanted == "std":
            zero = var == 0  # there the derivative is 0, to every order
            inverse = jnp.where(zero, 0, 1 / jnp.sqrt(jnp.where(zero, 1, var)))
            var, dvar = jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, var))), 0.5 * inverse * dvar
        return (var.astype(dtype),), (dvar.astype(dtype),)


def _square(x: jax.Array) -> jax.Array:
    return (x * jnp.conj(x)).real if jnp.iscomplexobj(x) else x * x


def _tangent_of_variance(values: Values, dvalues: Values, mean: jax.Array) -> Values:
    return _tangent_of_moments(values, dvalues, mean)[1:]


def _tangent_of_moments(values: Values, dvalues: Values, mean: jax.Array) -> Values:
    v, dv = (x.astype(mean.dtype) for x in (values[0], dvalues[0]))
    deviation = v - mean
    along = (jnp.conj(deviation) * dv).real if jnp.iscomplexobj(v) else deviation * dv
    return [dv, 2 * along]


# The highest derivative of a product that is right at rows with zeros; beyond it, such rows give NaN.
ORDERS = 4


@dataclasses.dataclass(frozen=True)
class Product(Reduction):
    """prod_j f_ij; and, with `orders`, the coefficients c_0 to c_orders of the polynomial Q(t) = prod_j (f_ij + t).

    The derivative of a product with respect to f_j is the product of all others, which is Q(t) / (f_j + t) at t = 0: by
    division of power series c_0 / f_j, and c_1 where f_j = 0.  Derivatives of order k need c_k there.  So a product is
    differentiable to every order where no factor is zero, and to order `ORDERS` where some are.
    """

    orders: int = 0

    def _dtype(self, value: Any) -> Any:
        return jax.eval_shape(jnp.prod, jax.ShapeDtypeStruct((1,), value.dtype)).dtype

    def init(self, values: Values) -> Any:
        (v,) = values
        dtype = _wide(self._dtype(v))
        return [jnp.full(v.shape, k == 0, dtype) for k in range(self.orders + 1)]

    def lift(self, values: Values, index: jax.Array) -> Any:
        v = values[0].astype(_wide(self._dtype(values[0])))
        return [v, jnp.ones_like(v), *[jnp.zeros_like(v)] * (self.orders - 1)][: self.orders + 1]

    def merge(self, a: Any, b: Any) -> Any:
        return [sum((a[p] * b[k - p] for p in range(1, k + 1)), a[0] * b[k]) for k in range(self.orders + 1)]

    def fold(self, acc: Any, values: Values, indices: jax.Array) -> Any:
        v = values[0].astype(acc[0].dtype)
        if self.orders == 0:
            return [acc[0] * v.prod(0)]
        for u in reversed(range(v.shape[0])):
            acc = [acc[0] * v[u], *(acc[k] * v[u] + acc[k - 1] for k in range(1, self.orders + 1))]
        return acc

    def block(self, values: Values, indices: jax.Array, valid: jax.Array) -> Any:
        if self.orders:
            return super().block(values, indices, valid)
        v = values[0].astype(_wide(self._dtype(values[0])))
        return [jnp.where(valid.reshape(-1, *(1,) * (v.ndim - 1)), v, 1).prod(0)]

    def ignored(self, values: Values) -> Values | None:
        return None if self.orders else [np.ones(v.shape, v.dtype) for v in values]

    def finalize(self, acc: Any, values: Values) -> tuple[Any, ...]:
        return tuple(acc) if self.orders else (acc[0].astype(self._dtype(values[0])),)

    def narrow(self, used: Sequence[bool], count: int) -> tuple[Reduction, Sequence[bool]]:
        last = max(k for k, u in enumerate(used) if u)
        return (Product(last) if last and all(used[:last]) else self), [True] * count

    def tangent(self, call: Call) -> tuple[Sequence[Any], Sequence[Any]]:
        (value,) = call.desc.pair.out_avals
        if not jnp.issubdtype(value.dtype, jnp.inexact):
            return call.reduce(self), (None,) * (self.orders + 1)
        c = call.reduce(Product(ORDERS))
        if self.orders:
            return c, call.sum(Sum(), _tangent_of_coefficients, *c)
        (slope,) = call.sum(Sum(), _tangent_of_product, *c)
        return (c[0].astype(value.dtype),), (slope.astype(value.dtype),)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _unknown(v: jax.Array, order: int) -> jax.Array:
    """Zero, with zero derivatives below `order`; from there on NaN where v = 0."""
    return jnp.zeros_like(v) if order else jnp.where(v == 0, jnp.full_like(v, math.nan), jnp.zeros_like(v))


@_unknown.defjvp
def _unknown_jvp(order: int, primals: Any, tangents: Any) -> Any:
    (v,), (dv,) = primals, tangents
    return _unknown(v, order), _unknown(v, max(order - 1, 0)) * dv


def _quotient(v: jax.Array, c: Sequence[jax.Array], k: int) -> jax.Array:
    """Coefficient k of Q(t) / (v + t), where Q has the coefficients c and is divisible by v + t.

    Where v = 0 it is c_{k+1} - v c_{k+2} + v^2 c_{k+3} - ..., the terms with v being there for their derivatives.
    """
    zero = v == 0
    safe = jnp.where(zero, jnp.ones_like(v), v)
    divided = c[0] / safe
    for x in c[1 : k + 1]:
        divided = (x - divided) / safe
    power, series = jnp.ones_like(v), _unknown(v, len(c) - 1) if k == 0 else jnp.zeros_like(v)
    for x in c[k + 1 :]:
        series = series + power * jnp.where(zero, x, jnp.zeros_like(x))
        power = power * -v
    return jnp.where(zero, series, divided)


def _tangent_of_product(values: Values, dvalues: Values, *c: jax.Array) -> Values:
    return [_quotient(values[0].astype(c[0].dtype), c, 0) * dvalues[0].astype(c[0].dtype)]


def _tangent_of_coefficients(values: Values, dvalues: Values, *c: jax.Array) -> Values:
    v, dv = (x.astype(c[0].dtype) for x in (values[0], dvalues[0]))
    return [_quotient(v, c, k) * dv for k in range(len(c))]


@dataclasses.dataclass(frozen=True)
class OverBoth(Composite):
    """Both axes reduced by what knows the index of its winner along one axis only: first over j, then over i."""

    def run(self, desc: Description, args: Sequence[Any], reduce: Run) -> Sequence[jax.Array]:
        from ._tape import Leaf, Tape, pair_function

        (rows,) = reduce(desc.replace(reduction=self.inner, over="j"), args)
        (value,) = desc.pair.out_avals
        tape = Tape((Leaf("j", len(value.shape), "rows"),), ())
        same = pair_function(tape, (-1,), (jax.ShapeDtypeStruct(value.shape, rows.dtype),))
        new = Description(same, ("j",), self.inner, 1, desc.m, desc.batch, "j", desc.backend, precision=desc.precision)
        (out,) = reduce(new, [rows])
        return [out.reshape(*desc.batch, *value.shape)]
