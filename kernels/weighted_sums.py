"""Results with long features that are numbers of a pair times features of i or j: `sum_j w_ij v_j`, with v_j long.

K @ b with many columns, attention, sums of w (x - y), and their derivatives.  `weighted_sums` tells such a pair
function apart: the short part, which gives the short results and the weights w_ij, and the terms, each a weight and the
long rows that it multiplies.  A kernel computes a tile of weights, and leaves the rest to a matrix product, or, where
the rows are those of i alone, to the sum of the weights.  It is for kernels that compute float16 and bfloat16 in
float32: what is rounded to these in between, is not.

A difference x_i - y_j becomes two terms, (x_i - c) and -(y_j - c), about a centre c that the kernel chooses for some
rows i at once.  Whatever c is, what is rounded is x - c and y - c, so a centre among the rows keeps errors as small as
the points spread there and as far as the weights reach; without one they would grow with the distance of all points
from 0.  Other sums need no centre: their terms are rounded before they are added.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any
from typing import Literal as OneOf

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
class Inverse:
    """One over a variable."""

    of: Any


@dataclasses.dataclass(frozen=True)
class Difference:
    """A row of i and a row of j, one taken from the other; or both added."""

    of_i: Any
    of_j: Any
    adds: bool


@dataclasses.dataclass(frozen=True)
class Term:
    """A part of a long result: a weight times the product of long rows of j, of i and of parameters, and of one side of
    a difference, which is less its centre."""

    result: int  # place among the results of the pair function
    weight: int  # place among the weights
    of_j: tuple[Any, ...]
    of_i: tuple[Any, ...]
    of_p: tuple[Any, ...]
    minus: bool
    difference: Difference | None = None
    side: OneOf["", "i", "j"] = ""

    @property
    def is_product(self) -> bool:
        """Whether it is a matrix product of weights and rows of j, not the sum of weights alone."""
        return bool(self.of_j) or self.side == "j"


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
        results = [_inverted(v) for v in wanted]
        eqns, read = needed(jaxpr.eqns, results, given={})
        places = [k for k, v in enumerate(jaxpr.invars) if v in read]
        fn = evaluated(eqns, constants, [jaxpr.invars[k] for k in places], results, dtype)
        if role != "p":
            fn = jax.vmap(fn, [0 if self.roles[k] == role else None for k in places])
        found = fn(*(args[k] for k in places))
        found = [x.reshape(*x.shape[: role != "p"], size(v)) for x, v in zip(found, results, strict=True)]
        inverse = [isinstance(v, Inverse) for v in wanted]
        return [1 / x.astype(dtype(x.dtype)) if turned else x for x, turned in zip(found, inverse, strict=True)]


def weighted_sums(desc: Description, least: int = LONG) -> WeightedSums | str:
    """The pair function of `computed` told apart, or why it is not of this kind; results of more than `least` numbers
    are long."""
    parts = parts_of(desc, least)
    if isinstance(parts, str):
        return parts
    if not any(parts.long_results):
        return "its results are short"
    shifted = isinstance(desc.reduction, ShiftedSum)
    if shifted and (parts.long_results[0] or size(parts.jaxpr.jaxpr.outvars[0]) > 1):
        return "several scores are exponentiated"
    return _told_apart(parts, computed(desc).roles, config_key())


def sums_of_products(desc: Description) -> bool:
    """Whether all long results, of which there are some, are sums and differences of products as they are written."""
    parts = parts_of(desc)
    if isinstance(parts, str) or not any(parts.long_results):
        return False
    results = list(zip(parts.jaxpr.jaxpr.outvars, parts.long_results, strict=True))
    if isinstance(desc.reduction, ShiftedSum) and (parts.long_results[0] or size(results[0][0]) > 1):
        return False
    chains = _Chains(parts, converts=False)
    nodes = [chains.node(v) for v, long in results if long]
    inexact = all(jnp.issubdtype(v.aval.dtype, jnp.inexact) for v, long in results if long)
    return inexact and all(node.factors() is not None or node.is_sum for node in nodes)


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
    weights: dict[Any, int] = {}  # what is added, each the product of some numbers, and its dtype
    terms = []
    for place, (v, long) in enumerate(results):
        if not long:
            continue
        dtype = v.aval.dtype
        if not jnp.issubdtype(dtype, jnp.floating):
            return f"products of {dtype} are not available"
        if (products := _products(chains.node(v), {})) is None:
            return "a result with long features is no sum of numbers of the pair times features of i or j"
        added: dict[Any, list[tuple[bool, Any]]] = {}  # what the same rows are multiplied by
        for product in products:
            numbers, rows = _sorted(product.leaves)
            if not (any(rows.values()) or product.difference):
                return "a result with long features has a part that is the same for all features"
            difference, sides = product.difference, [("", product.minus)]
            if difference is not None:
                sides = [("i", product.minus), ("j", product.minus if difference.adds else not product.minus)]
            for side, minus in sides:
                own = rows["j"], rows["i"], rows["p"], difference, side
                added.setdefault(own, []).append((minus, numbers))
        for (of_j, of_i, of_p, difference, side), own in added.items():
            minus = own[0][0]
            weight = tuple((m != minus, numbers) for m, numbers in own), dtype
            which = weights.setdefault(weight, len(weights))
            terms.append(Term(place, which, of_j, of_i, of_p, minus, difference, side))
    if terms and not any(t.is_product for t in terms):
        return "no result with long features reads those of j"
    shorts = tuple(k for k, (_, long) in enumerate(results) if not long)
    found = {}
    for eqn in parts.first:
        if eqn.primitive.name == "reduce_sum" and (inner := _inner_product(chains, eqn)) is not None:
            found[eqn.outvars[0]] = inner
    pair, used, read = _short_part(parts, [jaxpr.outvars[k] for k in shorts], list(weights), found)
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
    parts: Split, shorts: Sequence[Any], weights: Sequence[tuple[Any, Any]], inner: Any
) -> tuple[PairFunction, tuple[int, ...], tuple[Any, ...]]:
    """The function of a pair that gives short results and weights; which arguments and inner products it reads."""
    jaxpr = parts.jaxpr.jaxpr
    constants = dict(zip(jaxpr.constvars, parts.jaxpr.consts, strict=True))
    factors = [_inverted(v) for products, _ in weights for _, numbers in products for v in numbers]
    targets = [*shorts, *(v for v in factors if not isinstance(v, np.generic))]
    eqns, read = needed(jaxpr.eqns, targets, given=inner)
    used = tuple(k for k, v in enumerate(jaxpr.invars) if v in read)
    known = tuple(v for v in inner if v in read)
    inputs = [*(jaxpr.invars[k] for k in used), *known]

    def run(*args: Any) -> list[Any]:
        env = constants | dict(zip(inputs, args, strict=True))
        value = lambda v: v if isinstance(v, np.generic) else v.val if isinstance(v, Literal) else env[v]  # noqa: E731
        for eqn in eqns:
            env.update(zip(eqn.outvars, apply(eqn, *map(value, eqn.invars)), strict=True))

        def factor(v: Any, dtype: Any) -> Any:
            own = lax.reshape(jnp.asarray(value(_inverted(v)), dtype), ())
            return 1 / own if isinstance(v, Inverse) else own

        def weight(products: Any, dtype: Any) -> Any:
            total: Any = None
            for minus, numbers in products:
                own = functools.reduce(lax.mul, [factor(v, dtype) for v in numbers] or [jnp.ones((), dtype)])
                total = own if total is None else total - own if minus else total + own
            return total

        return [*map(value, shorts), *(weight(*w) for w in weights)]

    return PairFunction(jax.make_jaxpr(run)(*(v.aval for v in inputs))), used, known


def _inverted(v: Any) -> Any:
    """The variable that it is, or is one over."""
    return v.of if isinstance(v, Inverse) else v


class _Chains:
    """Long variables as nodes, whose leaves have variables for values; `converts`: conversions between floats that are
    both computed in float32 are none."""

    def __init__(self, parts: Split, converts: bool = True):
        self.parts, self.converts = parts, converts
        self.makes = {v: eqn for eqn in parts.first for v in eqn.outvars}
        self._nodes: dict[Any, Node] = {}

    def node(self, v: Any) -> Node:
        """Of a variable, the same one each time: what is used twice is looked at once."""
        if isinstance(v, Literal):
            literal: Any = v.aval
            return Node(value=np.asarray(v.val, literal.dtype).reshape(())[()], reads="number")
        if v not in self._nodes:
            self._nodes[v] = self._made(v)
        return self._nodes[v]

    def _made(self, v: Any) -> Node:
        if size(v) == 1:
            return Node(value=v, reads="number")
        reads = "".join(sorted(self.parts.reads[v]))
        if reads != "ij":
            return Node(value=v, reads=reads or "p")
        eqn = self.makes[v]
        if passes_on(eqn) or (self.converts and _converts(eqn)):
            own = eqn.invars[eqn.outvars.index(v)]
            if size(own) in (1, size(v)):  # a vector that is not long may be repeated
                return self.node(own)
        return Node(eqn, [self.node(o) for o in eqn.invars])


def _converts(eqn: Any) -> bool:
    """Whether an equation converts between floats that are both computed in float32."""
    if eqn.primitive.name != "convert_element_type":
        return False
    kinds = [v.aval.dtype for v in (*eqn.invars, *eqn.outvars)]
    return all(jnp.issubdtype(kind, jnp.floating) and kind.itemsize <= 4 for kind in kinds)


@dataclasses.dataclass(frozen=True)
class _Product:
    """Leaves that are multiplied with one another, and with a difference."""

    minus: bool
    leaves: tuple[Node, ...]
    difference: Difference | None = None


# Products that one result may be the sum of, at most.
PRODUCTS = 16


def _products(node: Node, known: dict[int, list[_Product] | None]) -> list[_Product] | None:
    """The products whose sum a long result is, if it is one; what multiplies a sum multiplies its parts.

    `known`: of the nodes that were looked at, by their ids.
    """
    if id(node) not in known:
        known[id(node)] = _told_products(node, known)
    return known[id(node)]


def _told_products(node: Node, known: dict[int, list[_Product] | None]) -> list[_Product] | None:
    if node.eqn is None:
        return [_Product(False, (node,))]
    name, adds = node.eqn.primitive.name, not node.is_difference
    if name in ("add", "add_any", "sub"):
        first, second = node.operands
        if first.is_row and second.is_row:  # of i and j: what reads one of them alone is a leaf
            if first.reads == "i":
                return [_Product(False, (), Difference(first.value, second.value, adds))]
            return [_Product(not adds, (), Difference(second.value, first.value, adds))]
        a, b = _products(first, known), _products(second, known)
        if a is None or b is None or len(a) + len(b) > PRODUCTS:
            return None
        return [*a, *(b if adds else map(_negated, b))]
    if name == "neg":
        inner = _products(node.operands[0], known)
        return None if inner is None else [_negated(p) for p in inner]
    if name not in ("mul", "div"):
        return None
    first, second = node.operands
    if name == "div":
        if second.eqn is not None:
            return None
        second = Node(value=Inverse(second.value), reads=second.reads)
    a, b = _products(first, known), _products(second, known)
    if a is None or b is None or len(a) * len(b) > PRODUCTS or any(p.difference and q.difference for p in a for q in b):
        return None
    return [_Product(p.minus != q.minus, (*p.leaves, *q.leaves), p.difference or q.difference) for p in a for q in b]


def _negated(product: _Product) -> _Product:
    return dataclasses.replace(product, minus=not product.minus)
