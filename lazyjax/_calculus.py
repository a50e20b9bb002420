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
from .kernels.ranges import pairs_in_all, pairs_of_rows


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


def pairs_reduced(desc: Description, ranges: Sequence[jax.Array], dtype: Any) -> jax.Array:
    """How many pairs each result is made of, as a float: a number, or (*batch, m) where ranges choose them, (*batch,)
    over "ij"."""
    if desc.ranges is None:
        return jnp.asarray(desc.n if desc.over == "j" else desc.n * desc.m, dtype)

    def count(half: Sequence[jax.Array]) -> Sequence[jax.Array]:
        return [pairs_in_all(half, dtype) if desc.over == "ij" else pairs_of_rows(half, desc.m).astype(dtype)]

    return batched(count, desc, ranges[:3])[0]


class Call:
    """One differentiated reduction: what `Reduction.tangent(call)` may compute with."""

    def __init__(
        self,
        desc: Description,
        primals: Sequence[Any],
        tangents: Sequence[Any],
        ranges: Sequence[Any],
        bind: Callable[..., Any],
    ):
        self.desc = desc
        self._primals = primals
        self._ranges = ranges
        self._bind = bind
        self._active = tuple(not isinstance(t, ad.Zero) for t in tangents)
        self._tangents = keep(tangents, self._active)

    def reduce(self, reduction: Reduction) -> Sequence[jax.Array]:
        """The same pairs under another reduction (usually one that also returns what is worth saving)."""
        return self._bind(self.desc.replace(reduction=reduction), [*self._primals, *self._ranges])

    def pairs(self, dtype: Any) -> jax.Array:
        """How many pairs each result is made of, as a float: see `pairs_reduced`."""
        return pairs_reduced(self.desc, self._ranges, dtype)

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
        return self._bind(new, [*keep(args, used), *self._ranges])

    def at(self, reduction: Reduction, indices: jax.Array) -> jax.Array:
        """The tangent of the (only) value at the pairs (i, indices[i]), zero where an index is negative.

        indices: (*batch, m, ..., *F) for values of feature shape F: each feature has its own winner.
        It is `reduction`, a sum, over one pair for each winner, whose j-arguments are gathered: O(m) work.
        """
        desc = self.desc
        (value,) = desc.pair.out_avals
        if desc.n == 0 or indices.size == 0:
            return jnp.zeros(indices.shape, value.dtype)
        roles = (*desc.roles, *keep(desc.roles, self._active))
        arrays = [*self._primals, *self._tangents]
        lead = desc.lead("i")
        winners = indices.reshape(*indices.shape[:lead], -1)
        count = winners.shape[-1]
        rows = [k for k, r in enumerate(roles) if r != "p"]

        def gather(args: Sequence[Any]) -> Sequence[Any]:
            *own, chosen = args
            flat = chosen.ravel()
            outs = []
            for x, k in zip(own, rows, strict=True):
                x = x[jnp.maximum(flat, 0)] if roles[k] == "j" else jnp.repeat(x, count, axis=0)
                # Where there is no winner, the pair is replaced before f sees it, by ones: NaN or an infinite
                # derivative there would reach the cotangents of the data as 0 * NaN.
                there = (flat >= 0).reshape(-1, *(1,) * (x.ndim - 1))
                outs.append(jnp.where(there, x, jnp.ones_like(x)))
            return outs

        gathered = batched(gather, desc, [*(arrays[k] for k in rows), winners])
        args = list(arrays)
        for k, x in zip(rows, gathered, strict=True):
            args[k] = x
        component = jnp.broadcast_to(jnp.arange(value.size, dtype=jnp.int32).reshape(value.shape), indices.shape[lead:])
        components = jnp.broadcast_to(component.ravel(), (desc.m, count)).reshape(desc.m * count)
        components = lax.expand_dims(components, range(len(desc.batch)))
        extras = (((), components.dtype),)
        pair, used = _tangent_pair(desc.pair, self._active, _component, extras, trace_context())
        all_roles: tuple[Role, ...] = (*("p" if r == "p" else "i" for r in roles), "i")
        new = desc.replace(
            pair=pair, roles=tuple(keep(all_roles, used)), reduction=reduction, m=desc.m * count, n=1, over="j",
            ranges=None,
        )  # fmt: skip
        (out,) = self._bind(new, keep([*args, components], used))
        return jnp.where(indices >= 0, out.reshape(indices.shape), 0).astype(value.dtype)


def _component(values: Sequence[Any], dvalues: Sequence[Any], k: jax.Array) -> Sequence[Any]:
    """The k-th feature of the tangent, by a selection, which every kernel can do."""
    flat = dvalues[0].ravel()
    return [jnp.sum(jnp.where(jnp.arange(flat.size, dtype=k.dtype) == k, flat, jnp.zeros_like(flat)), keepdims=True)]
