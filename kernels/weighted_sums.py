"""Results with long features that are numbers of a pair times features of j: `sum_j w_ij v_j`, with v_j long.

K @ b with many columns, attention, and their derivatives.  `weighted_sums` tells such a pair function apart: the short
part, which gives the short results and the weights w_ij, and the terms, each a weight and the long rows that it
multiplies.  A kernel computes a tile of weights, and leaves the rest to a matrix product.  It is for kernels that
compute float16 and bfloat16 in float32: what is rounded to these in between, is not.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import Literal

from .description import Description, PairFunction, trace_pair
from .long_features import (
    LONG,
    Node,
    Split,
    apply,
    computed,
    evaluated,
    is_long,
    needed,
    parts_of,
    passes_on,
    size,
    split,
    split_off,
)
from .reduction import ShiftedSum, config_key


@dataclasses.dataclass(frozen=True)
class Term:
    """A part of a long result: a weight times the product of long rows of j, of i and of parameters."""

    result: int  # place among the results of the pair function
    weight: int  # place among the weights
    of_j: tuple[Any, ...]
    of_i: tuple[Any, ...]
    of_p: tuple[Any, ...]
    minus: bool


@dataclasses.dataclass(frozen=True)
class InnerProduct:
    """A number of the pair that the short part reads: the sum over features of a product of long rows."""

    dtype: Any
    of_j: tuple[Any, ...]
    of_i: tuple[Any, ...]
    of_p: tuple[Any, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class WeightedSums:
    """A pair function told apart.

    The short part reads the arguments `used` and then the inner products, and gives the short results and then the
    weights.
    """

    whole: Split
    roles: tuple[str, ...]
    short: Split
    used: tuple[int, ...]
    inner: tuple[InnerProduct, ...]
    shorts: tuple[int, ...]  # places of the short results among the results of the pair function
    terms: tuple[Term, ...]

    @property
    def short_roles(self) -> tuple[str, ...]:
        return (*(self.roles[k] for k in self.used), *["ij"] * len(self.inner))

    def rows(
        self, args: Sequence[jax.Array], role: str, wanted: Sequence[Any], dtype: Callable[[Any], Any]
    ) -> list[jax.Array]:
        """Variables that read arguments of one role, and parameters: (rows, features), or (features,) of "p".

        What is computed is so in `dtype` of each dtype: float16 in float32.
        """
        if not wanted:
            return []
        jaxpr = self.whole.jaxpr.jaxpr
        constants = dict(zip(jaxpr.constvars, self.whole.jaxpr.consts, strict=True))
        eqns, read = needed(jaxpr.eqns, wanted, given={})
        places = [k for k, v in enumerate(jaxpr.invars) if v in read]
        fn = evaluated(eqns, constants, [jaxpr.invars[k] for k in places], wanted, dtype)
        if role != "p":
            fn = jax.vmap(fn, [0 if self.roles[k] == role else None for k in places])
        found = fn(*(args[k] for k in places))
        return [x.reshape(*x.shape[: role != "p"], size(v)) for x, v in zip(found, wanted, strict=True)]


def weighted_sums(desc: Description) -> WeightedSums | str:
    """The pair function of `computed` told apart, or why it is not of this kind."""
    parts = parts_of(desc)
    if isinstance(parts, str):
        return parts
    if not any(parts.long_results):
        return "its results are short"
    shifted = isinstance(desc.reduction, ShiftedSum)
    if shifted and (parts.long_results[0] or size(parts.jaxpr.jaxpr.outvars[0]) > 1):
        return "several scores are exponentiated"
    return _told_apart(parts, computed(desc).roles, config_key())


def inner_products(desc: Description) -> WeightedSums | str:
    """A pair function of short results, its inner products told apart: sums without terms; or why there are none."""
    parts = split(desc.pair, desc.roles, config_key())
    if isinstance(parts, str):
        return parts
    if any(parts.long_results):
        return "its results have long features"
    sums = _told_apart(parts, desc.roles, config_key())
    if isinstance(sums, str) or sums.inner:
        return sums
    return "no features of i are multiplied by features of j and summed"


def by_length(desc: Description) -> list[tuple[Description, list[int]]]:
    """The description of the short results alone and that of the long ones, each with the places of its results.

    Empty where there are none of either, or where the reduction does not say that it takes them one by one.
    """
    long = [math.prod(v.shape) > LONG for v in desc.pair.out_avals]
    found = []
    for wanted in (False, True):
        used = [x == wanted for x in long]
        reduction, read = desc.reduction.narrow(used, len(used))
        if not any(used) or list(read) != used or len(desc.outputs) != len(used):
            return []
        places = tuple(k for k, x in enumerate(used) if x)
        found.append((desc.replace(pair=_some(desc.pair, places, config_key()), reduction=reduction), list(places)))
    return found


@functools.lru_cache(maxsize=512)
def _some(pair: PairFunction, places: tuple[int, ...], context: Any) -> PairFunction:
    """Some of the results of a pair function."""
    del context

    def run(*args: Any) -> list[Any]:
        values = pair(*args)
        return [values[k] for k in places]

    return trace_pair(run, pair.in_avals)


@functools.lru_cache(maxsize=512)
def _told_apart(parts: Split, roles: tuple[str, ...], context: Any) -> WeightedSums | str:
    del context
    jaxpr = parts.jaxpr.jaxpr
    results = list(zip(jaxpr.outvars, parts.long_results, strict=True))
    chains = _Chains(parts)
    weights: list[tuple[Any, ...]] = []  # the numbers whose product it is
    kinds: list[Any] = []
    terms = []
    for place, (v, long) in enumerate(results):
        if not long:
            continue
        dtype = v.aval.dtype
        if not jnp.issubdtype(dtype, jnp.floating):
            return f"products of {dtype} are not available"
        for minus, factors in _terms(chains.node(v)):
            if factors is None:
                return "a result with long features is no sum of numbers of the pair times features of j"
            numbers, rows = _sorted(factors)
            if not rows["j"]:
                return "a result with long features does not read those of j"
            if numbers not in weights:
                weights.append(numbers)
                kinds.append(dtype)
            terms.append(Term(place, weights.index(numbers), rows["j"], rows["i"], rows["p"], minus))
    shorts = tuple(k for k, (_, long) in enumerate(results) if not long)
    found = {}
    for eqn in parts.first:
        if eqn.primitive.name == "reduce_sum" and (inner := _inner_product(chains, eqn)) is not None:
            found[eqn.outvars[0]] = inner
    pair, used, read = _short_part(parts, [jaxpr.outvars[k] for k in shorts], weights, kinds, found)
    inner = tuple(found[v] for v in read)
    short = split_off(pair.jaxpr, (*(roles[k] for k in used), *["ij"] * len(inner)))
    return short if isinstance(short, str) else WeightedSums(parts, roles, short, used, inner, shorts, tuple(terms))


def _sorted(factors: Sequence[Node]) -> tuple[tuple[Any, ...], dict[str, tuple[Any, ...]]]:
    """The numbers among the factors of a product, and its long rows by what they read."""
    rows = {r: tuple(f.value for f in factors if f.is_row and f.reads == r) for r in "ijp"}
    return tuple(f.value for f in factors if f.is_number), rows


def _inner_product(chains: _Chains, eqn: Any) -> InnerProduct | None:
    """sum_k a_k(i) b_k(j), where an equation is of this kind."""
    v, dtype = eqn.invars[0], eqn.outvars[0].aval.dtype
    if not is_long(v) or size(eqn.outvars[0]) > 1 or not jnp.issubdtype(dtype, jnp.floating):
        return None
    numbers, rows = _sorted(chains.node(v).factors() or [])
    if numbers or not (rows["i"] and rows["j"]):
        return None
    return InnerProduct(dtype, rows["j"], rows["i"], rows["p"])


def _short_part(
    parts: Split, shorts: Sequence[Any], weights: Sequence[Sequence[Any]], kinds: Sequence[Any], inner: Any
) -> tuple[PairFunction, tuple[int, ...], tuple[Any, ...]]:
    """The function of a pair that gives short results and weights; which arguments and inner products it reads."""
    jaxpr = parts.jaxpr.jaxpr
    constants = dict(zip(jaxpr.constvars, parts.jaxpr.consts, strict=True))
    targets = [*shorts, *(v for numbers in weights for v in numbers if not _is_known(v))]
    eqns, read = needed(jaxpr.eqns, targets, given=inner)
    used = tuple(k for k, v in enumerate(jaxpr.invars) if v in read)
    known = tuple(v for v in inner if v in read)
    inputs = [*(jaxpr.invars[k] for k in used), *known]

    def run(*args: Any) -> list[Any]:
        env = constants | dict(zip(inputs, args, strict=True))
        value = lambda v: v if isinstance(v, np.generic) else v.val if isinstance(v, Literal) else env[v]  # noqa: E731
        for eqn in eqns:
            env.update(zip(eqn.outvars, apply(eqn, *map(value, eqn.invars)), strict=True))
        products = []
        for numbers, dtype in zip(weights, kinds, strict=True):
            own = [lax.reshape(jnp.asarray(value(v), dtype), ()) for v in numbers]
            products.append(functools.reduce(lax.mul, own) if own else jnp.ones((), dtype))
        return [*map(value, shorts), *products]

    return PairFunction(jax.make_jaxpr(run)(*(v.aval for v in inputs))), used, known


def _is_known(v: Any) -> bool:
    return isinstance(v, Literal | np.generic)


class _Chains:
    """Long variables as nodes, whose leaves have variables for values."""

    def __init__(self, parts: Split):
        self.parts = parts
        self.makes = {v: eqn for eqn in parts.first for v in eqn.outvars}

    def node(self, v: Any) -> Node:
        if isinstance(v, Literal) or size(v) == 1:
            return Node(value=v, reads="number")
        reads = "".join(sorted(self.parts.reads[v]))
        if reads != "ij":
            return Node(value=v, reads=reads or "p")
        eqn = self.makes[v]
        if passes_on(eqn) or _widens(eqn):
            return self.node(eqn.invars[eqn.outvars.index(v)])
        return Node(eqn, [self.node(o) for o in eqn.invars])


def _widens(eqn: Any) -> bool:
    """Whether an equation converts between floats that are both computed in float32."""
    if eqn.primitive.name != "convert_element_type":
        return False
    kinds = [v.aval.dtype for v in (*eqn.invars, *eqn.outvars)]
    return all(jnp.issubdtype(kind, jnp.floating) and kind.itemsize <= 4 for kind in kinds)


def _terms(node: Node, minus: bool = False) -> Iterator[tuple[bool, list[Node] | None]]:
    """The products whose sum a long result is, each with its sign."""
    factors = node.factors()
    if factors is None and node.is_sum:
        first, second = node.operands
        yield from _terms(first, minus)
        yield from _terms(second, minus != node.is_difference)
    else:
        yield minus, factors
