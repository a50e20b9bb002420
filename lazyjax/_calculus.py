"""Derivatives of reductions, from JAX's own jvp and transpose of the pair function.

A sum over pairs is linear in its values, so for F_i = sum_j f(x_i, y_j, p):

    tangent      dF_i = sum_j df(x_i, y_j, p; dx_i, dy_j, dp)           again a sum, linear in the tangents
    transpose    with respect to an i-argument   sum_j f'(.)^T c_i       a sum over j
                 with respect to a j-argument    sum_i f'(.)^T c_i       a sum over i
                 with respect to a parameter     sum_ij f'(.)^T c_i      a sum over both

(the rules of linear maps in Radul et al., "You Only Linearize Once", POPL 2023, applied to one pair).  Other reductions
write their tangent with sums and gathers, in `tangent(call)`: `Call` is what they may ask for.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ._compat import ad, dce, trace_context
from .kernels import Description, PairFunction, Reduction, trace_pair
from .kernels.description import Role
from .kernels.pairs import batched


def prune(pair: PairFunction, used_outputs: Sequence[bool] | None = None) -> tuple[PairFunction, tuple[bool, ...]]:
    """Drop dead code, unused outputs and unused arguments; also says which arguments are left."""
    used_outputs = [True] * len(pair.out_avals) if used_outputs is None else used_outputs
    closed, used = dce(pair.jaxpr, used_outputs)
    return PairFunction(closed), tuple(used)


@functools.lru_cache(maxsize=1024)
def pruned(pair: PairFunction, used_outputs: tuple[bool, ...], context: Any) -> tuple[PairFunction, tuple[bool, ...]]:
    """`prune`, remembered: the same description must come back as the same object."""
    del context
    return prune(pair, used_outputs)


def keep(items: Sequence[Any], mask: Sequence[bool]) -> list[Any]:
    """The items whose mark is set."""
    return [x for x, kept in zip(items, mask, strict=True) if kept]


def _merge(mask: Sequence[bool], if_true: Sequence[Any], if_false: Sequence[Any]) -> list[Any]:
    yes, no = iter(if_true), iter(if_false)
    return [next(yes) if m else next(no) for m in mask]


Combine = Callable[..., Sequence[Any]]  # (values, tangents of values, *extras) -> what is summed


@functools.lru_cache(maxsize=1024)
def _tangent_pair(
    pair: PairFunction, active: tuple[bool, ...], combine: Combine, extras: tuple[Any, ...], context: Any
) -> tuple[PairFunction, tuple[bool, ...]]:
    """combine(f, df, *extras) as a function of (arguments, tangents of the active ones, extras)."""
    del context
    avals = pair.in_avals

    def fn(*args: Any) -> Sequence[Any]:
        primals, rest = args[: len(avals)], args[len(avals) :]
        tangents, more = rest[: sum(active)], rest[sum(active) :]
        values, dvalues = _pushforward(pair, active, primals, tangents)
        return combine(values, dvalues, *more)

    return prune(trace_pair(fn, [*avals, *keep(avals, active), *(jax.ShapeDtypeStruct(*e) for e in extras)]))


def _pushforward(pair: PairFunction, active: Sequence[bool], primals: Sequence[Any], tangents: Sequence[Any]) -> Any:
    """Values of a pair and their tangents; the tangent of an integer value is zero."""
    passive = keep(primals, [not a for a in active])

    def values_of(*moving: Any) -> list[Any]:
        return pair(*_merge(active, moving, passive))

    moving = keep(primals, active)
    values, dvalues = jax.jvp(values_of, tuple(moving), tuple(tangents))
    zero = [jnp.zeros_like(v) if d.dtype == jax.dtypes.float0 else d for v, d in zip(values, dvalues, strict=True)]
    return values, zero


@functools.lru_cache(maxsize=1024)
def transposed_pair(
    pair: PairFunction, linear: tuple[bool, ...], wanted: tuple[bool, ...], context: Any
) -> tuple[PairFunction, tuple[bool, ...]]:
    """Cotangents of the wanted linear arguments as a function of (the other arguments, cotangents of the values)."""
    del context
    avals = pair.in_avals
    others = keep(avals, [not k for k in linear])

    def fn(*args: Any) -> Sequence[Any]:
        residuals, cotangents = args[: len(others)], args[len(others) :]
        back = jax.linear_transpose(
            lambda *moving: tuple(pair(*_merge(linear, moving, residuals))), *keep(avals, linear)
        )
        return keep(back(tuple(cotangents)), keep(wanted, linear))

    return prune(trace_pair(fn, [*others, *pair.out_avals]))


class Call:
    """One differentiated reduction: what `Reduction.tangent(call)` may compute with."""

    def __init__(self, desc: Description, primals: Sequence[Any], tangents: Sequence[Any], bind: Callable[..., Any]):
        self.desc = desc
        self._primals = primals
        self._bind = bind
        self._active = tuple(not isinstance(t, ad.Zero) for t in tangents)
        self._tangents = keep(tangents, self._active)

    def reduce(self, reduction: Reduction) -> Sequence[jax.Array]:
        """The same pairs under another reduction (usually one that also returns what is worth saving)."""
        return self._bind(self.desc.replace(reduction=reduction), self._primals)

    def sum(self, reduction: Reduction, combine: Combine, *rows: jax.Array) -> Sequence[jax.Array]:
        """sum over j of combine(f_ij, df_ij, *rows_i), by `reduction`, which must be a sum.

        `combine` is a module-level function (it is part of a cache key), linear in df.  `rows` are arrays
        (*batch, m, ...), such as saved results; over "ij" they are (*batch, ...).
        """
        desc = self.desc
        lead = desc.lead("i" if desc.over == "j" else "p")
        extras = tuple((r.shape[lead:], r.dtype) for r in rows)
        pair, used = _tangent_pair(desc.pair, self._active, combine, extras, trace_context())
        role: Role = "i" if desc.over == "j" else "p"
        roles = (*desc.roles, *keep(desc.roles, self._active), *[role] * len(rows))
        args = [*self._primals, *self._tangents, *rows]
        new = desc.replace(pair=pair, roles=tuple(keep(roles, used)), reduction=reduction)
        return self._bind(new, keep(args, used))

    def at(self, indices: jax.Array) -> jax.Array:
        """The tangent of the (only) value at the pairs (i, indices[i]), zero where an index is negative.

        indices: (*batch, m, ..., *F) for values of feature shape F: each feature has its own winner.
        """
        desc = self.desc
        (value,) = desc.pair.out_avals
        if desc.n == 0 or indices.size == 0:
            return jnp.zeros(indices.shape, value.dtype)
        roles = (*desc.roles, *keep(desc.roles, self._active))
        lead = desc.lead("i")
        component = jnp.arange(value.size, dtype=jnp.int32).reshape(value.shape)
        component = jnp.broadcast_to(component, indices.shape[lead:]).ravel()

        def row(args: Sequence[Any], winners: Any) -> Any:
            def one(winner: Any, k: Any) -> Any:
                own = [x[jnp.maximum(winner, 0)] if r == "j" else x for x, r in zip(args, roles, strict=True)]
                own_primals, own_tangents = own[: len(desc.roles)], own[len(desc.roles) :]
                _, (tangent,) = _pushforward(desc.pair, self._active, own_primals, own_tangents)
                return jnp.where(winner >= 0, tangent.ravel()[k], jnp.zeros((), tangent.dtype))

            return jax.vmap(one)(winners, component)

        def problem(args: Sequence[Any]) -> Sequence[Any]:
            *arrays, winners = args
            flat = winners.reshape(winners.shape[0], -1)
            in_axes = [0 if r == "i" else None for r in roles]
            out = jax.vmap(row, in_axes=(in_axes, 0))(arrays, flat)
            return [out.reshape(winners.shape)]

        (out,) = batched(problem, desc, [*self._primals, *self._tangents, indices])
        return lax.convert_element_type(out, value.dtype)
