"""Long features: what a pair function computes from them is told apart from the short rest.

A pair function reads features in three ways.  What reads i alone or j alone is an ordinary computation on rows.  What
reads both and is long (x_i - y_j, and chains of such) is never stored: it is either contracted to a number
(|x_i - y_j|^2), which is *kept* for every pair of a tile, or a result of its own (w_ij (x_i - y_j)).  The rest reads
short features and kept numbers alone, and runs as any short formula does.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr, Literal

from .description import Description, PairFunction, trace_pair, traced_of
from .reduction import ShiftedSum, config_key
from .scalarize import ELEMENTWISE, IDENTITY, Unsupported, count, extreme, inner_jaxpr

# Features beyond which they are walked through by a loop instead of being written out.
LONG = 32

# Contractions of a long chain to a number: what takes in one more feature, and the neutral element.
CONTRACTIONS: dict[str, tuple[Callable[[Any, Any], Any], Callable[[np.dtype], Any]]] = {
    "reduce_sum": (lax.add, lambda dtype: 0),
    "reduce_prod": (lax.mul, lambda dtype: 1),
    "reduce_max": (lax.max, extreme(-1)),
    "reduce_min": (lax.min, extreme(1)),
}

# Primitives that keep all elements in their order.
SAME_ORDER = frozenset(["reshape", "squeeze", "expand_dims"])


def passes_on(eqn: Any) -> bool:
    """Whether a long equation only passes its operand on, feature by feature."""
    name = eqn.primitive.name
    return name in SAME_ORDER or name in IDENTITY or name == "broadcast_in_dim"


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """A pair function as a first part, which sees long features, and the short rest."""

    jaxpr: ClosedJaxpr  # the pair function, nested calls written out
    reads: dict[Any, frozenset[str]]  # which of the axes i and j a variable depends on
    first: tuple[Any, ...]  # the equations that kept numbers and long results need
    kept: tuple[Any, ...]  # short variables that long features lead to
    short: tuple[int, ...]  # arguments that the rest may read
    rest: ClosedJaxpr  # (short arguments, kept) -> short results
    long_results: tuple[bool, ...]

    def of_i(self, without: int | None) -> tuple[Any, ...]:
        """What the first part computes from i alone, and not from the argument of a given number."""
        unknown = {self.jaxpr.jaxpr.invars[without]} if without is not None else set()
        found = []
        for eqn in self.first:
            if unknown & set(variables(eqn.invars)):
                unknown |= set(eqn.outvars)
            elif self.reads[eqn.outvars[0]] == {"i"}:
                found.extend(eqn.outvars)
        return tuple(found)


def size(v: Any) -> int:
    """How many numbers a variable of one pair holds."""
    return math.prod(v.aval.shape)


def is_long(v: Any) -> bool:
    return size(v) > LONG


def _inlined(closed: ClosedJaxpr) -> ClosedJaxpr:
    """The same function without nested calls."""

    def run(closed: ClosedJaxpr, args: Sequence[Any]) -> list[Any]:
        env = dict(zip(closed.jaxpr.invars, args, strict=True)) | dict(
            zip(closed.jaxpr.constvars, closed.consts, strict=True)
        )
        read = lambda v: v.val if isinstance(v, Literal) else env[v]  # noqa: E731
        for eqn in closed.jaxpr.eqns:
            operands = [read(v) for v in eqn.invars]
            if (inner := inner_jaxpr(eqn)) is not None:
                out = run(inner, operands)
            elif (other := _rewritten(eqn, *operands)) is not None:
                out = [other]
            else:
                out = apply(eqn, *operands)
            env.update(zip(eqn.outvars, out, strict=True))
        return [read(v) for v in closed.jaxpr.outvars]

    return jax.make_jaxpr(lambda *args: run(closed, args))(*closed.in_avals)


def _rewritten(eqn: Any, *operands: Any) -> Any:
    """An equation in other words that can be done feature by feature; None where it is fine, or cannot be helped.

    A dot_general of two vectors, or of a number and a vector, is products and a sum; one number that is padded to a
    vector is a selection.
    """
    out = eqn.outvars[0].aval
    if eqn.primitive.name == "pad":
        x, fill = operands
        if x.size != 1 or out.size == 1:
            return None
        at = _place(eqn.params["padding_config"])
        everywhere = lambda v: lax.broadcast_in_dim(lax.reshape(v, ()), out.shape, ())  # noqa: E731
        return lax.select(at, everywhere(x), everywhere(fill))
    if eqn.primitive.name != "dot_general":
        return None
    a, b = (lax.convert_element_type(x, out.dtype) for x in operands)
    contracted = math.prod(a.shape[k] for k in eqn.params["dimension_numbers"][0][0])
    if contracted == a.size == b.size:
        return lax.reshape(lax.reduce_sum(lax.reshape(a, (a.size,)) * lax.reshape(b, (b.size,)), [0]), out.shape)
    if contracted == 1 and (a.size == 1 or b.size == 1) and out.size > 1:
        a, b = (b, a) if a.size == 1 else (a, b)
        return lax.reshape(a, out.shape) * lax.broadcast_in_dim(lax.reshape(b, ()), out.shape, ())
    return None


def _place(config: Sequence[tuple[int, int, int]]) -> np.ndarray:
    """Where the only element of an array stands after padding."""
    mask = np.zeros([low + 1 + high for low, high, _ in config], bool)
    low = tuple(low for low, _, _ in config)
    if all(0 <= k < size for k, size in zip(low, mask.shape, strict=True)):
        mask[low] = True
    return mask


# Parameters of equations that name a dtype of their operands or results.
DTYPE_PARAMETERS = ("new_dtype", "preferred_element_type", "input_dtype", "dtype")


def apply(eqn: Any, *operands: Any, dtype: Callable[[Any], Any] | None = None) -> list[Any]:
    """The results of an equation; `dtype`: what the dtypes that it names have become in its operands."""
    params = eqn.params
    if dtype is not None:
        params = params | {k: dtype(params[k]) for k in DTYPE_PARAMETERS if params.get(k) is not None}
    out = eqn.primitive.bind(*operands, **eqn.primitive.get_bind_params(params))
    return list(out) if eqn.primitive.multiple_results else [out]


def evaluated(
    eqns: Sequence[Any], constants: dict[Any, Any], inputs: Sequence[Any], results: Sequence[Any],
    dtype: Callable[[Any], Any],
) -> Callable[..., list[jax.Array]]:  # fmt: skip
    """Some equations as a function of `inputs`, computed in `dtype` of each dtype; an input that is itself a result
    stays as it is."""

    def wide(x: Any) -> jax.Array:
        x = jnp.asarray(x)
        return x.astype(dtype(x.dtype))

    def run(*args: jax.Array) -> list[jax.Array]:
        env = {v: wide(x) for v, x in [*constants.items(), *zip(inputs, args, strict=True)]}

        def read(v: Any) -> jax.Array:
            aval: Any = v.aval
            return wide(np.asarray(v.val, aval.dtype)) if isinstance(v, Literal) else env[v]

        for eqn in eqns:
            env.update(zip(eqn.outvars, apply(eqn, *map(read, eqn.invars), dtype=dtype), strict=True))
        given = dict(zip(inputs, args, strict=True))
        return [given[v] if v in given else env[v] for v in results]

    return run


def variables(items: Sequence[Any]) -> Iterator[Any]:
    return (v for v in items if not isinstance(v, Literal))


@functools.lru_cache(maxsize=512)
def split(pair: PairFunction, roles: tuple[str, ...], context: Any, least: int = LONG) -> Split | str:
    """The two parts of a pair function, or why there is no use in telling them apart; remembered for a `config_key`.

    Results of more than `least` numbers are long results.
    """
    del context
    try:
        return _analyse(pair.jaxpr, roles, least)
    except Unsupported as error:
        return str(error)


def _analyse(closed: ClosedJaxpr, roles: Sequence[str], least: int) -> Split:
    if not any(math.prod(a.shape) > least for a in closed.in_avals):
        raise Unsupported("all features are short")
    parts = _parts(_inlined(closed), roles, least)
    meeting = [v for eqn in parts.first for v in eqn.outvars if len(parts.reads[v]) == 2]
    long = [v for v, is_one in zip(parts.jaxpr.jaxpr.outvars, parts.long_results, strict=True) if is_one]
    if not any(v in meeting for v in (*parts.kept, *long)):
        raise Unsupported("no pair meets in its long features")
    return parts


def split_off(closed: ClosedJaxpr, roles: Sequence[str]) -> Split | str:
    """The two parts of a function without nested calls, whether or not any features are long."""
    try:
        return _parts(closed, roles)
    except Unsupported as error:
        return str(error)


def _parts(closed: ClosedJaxpr, roles: Sequence[str], least: int = LONG) -> Split:
    jaxpr = closed.jaxpr
    reads: dict[Any, frozenset[str]] = {v: frozenset() for v in jaxpr.constvars}
    reads |= {v: frozenset(r) - {"p"} for v, r in zip(jaxpr.invars, roles, strict=True)}
    for eqn in jaxpr.eqns:
        own = frozenset().union(*(reads[v] for v in variables(eqn.invars)))
        reads.update(dict.fromkeys(eqn.outvars, own))
        if len(own) == 2:
            _check(eqn)
    # A short variable that is computed from something long is kept.
    kept = {v: None for eqn in jaxpr.eqns if any(map(is_long, variables(eqn.invars)))
            for v in eqn.outvars if not is_long(v)}  # fmt: skip
    long_results = tuple(size(v) > least for v in jaxpr.outvars)
    results = [v for v, long in zip(jaxpr.outvars, long_results, strict=True) if not long]
    short = tuple(k for k, v in enumerate(jaxpr.invars) if not is_long(v))
    rest, read = needed(jaxpr.eqns, results, given=kept)
    kept_vars = tuple(v for v in kept if v in read)
    inputs = [*(jaxpr.invars[k] for k in short), *kept_vars]
    constants = {v: c for v, c in zip(jaxpr.constvars, closed.consts, strict=True) if v in read}
    targets = [*kept_vars, *(v for v, long in zip(jaxpr.outvars, long_results, strict=True) if long)]
    first, _ = needed(jaxpr.eqns, targets, given={})
    return Split(closed, reads, first, kept_vars, short, as_jaxpr(rest, constants, inputs, results), long_results)


def as_jaxpr(
    eqns: Sequence[Any], constants: dict[Any, Any], inputs: Sequence[Any], results: Sequence[Any]
) -> ClosedJaxpr:
    """Some equations as a function of `inputs`."""

    def run(*args: Any) -> list[Any]:
        env = constants | dict(zip(inputs, args, strict=True))
        read = lambda v: v.val if isinstance(v, Literal) else env[v]  # noqa: E731
        for eqn in eqns:
            env.update(zip(eqn.outvars, apply(eqn, *map(read, eqn.invars)), strict=True))
        return [read(v) for v in results]

    return jax.make_jaxpr(run)(*(v.aval for v in inputs))


def needed(eqns: Sequence[Any], targets: Sequence[Any], given: Any) -> tuple[tuple[Any, ...], set[Any]]:
    """The equations that some variables need, those given aside, and everything that is read on the way."""
    wanted = set(variables(targets))
    chosen = []
    for eqn in reversed(eqns):
        if any(v in wanted and v not in given for v in eqn.outvars):
            chosen.append(eqn)
            wanted |= set(variables(eqn.invars))
    return tuple(reversed(chosen)), wanted


def _check(eqn: Any) -> None:
    """Refuse what cannot be done feature by feature."""
    name = eqn.primitive.name
    inside, out = [v for v in eqn.invars if is_long(v)], eqn.outvars[0]
    if not inside and not is_long(out):
        return
    if name in ELEMENTWISE or name in IDENTITY:
        return
    same = len(inside) == 1 and size(inside[0]) == size(out)
    if name in SAME_ORDER and same:
        return
    if name == "broadcast_in_dim" and (size(eqn.invars[0]) == 1 or same):
        return
    if name in CONTRACTIONS and size(out) == 1:
        return
    raise Unsupported(f"{name} of long features of i and j together")


@functools.lru_cache(maxsize=512)
def _shifted(pair: PairFunction, reduction: ShiftedSum, context: Any) -> PairFunction:
    """(arguments, maximum) -> the score, then the terms: one function, so that they share what is kept."""
    del context
    (kind,) = trace_pair(lambda *args: [reduction.score(pair(*args))], pair.in_avals).out_avals

    def both(*args: Any) -> list[Any]:
        values = pair(*args[:-1])
        return [reduction.score(values), *reduction.terms(values, args[-1])]

    return trace_pair(both, [*pair.in_avals, kind])


def computed(desc: Description) -> Description:
    """The description whose pair function sums of features run: of a `ShiftedSum`, with the maximum as an argument."""
    if not isinstance(desc.reduction, ShiftedSum):
        return desc
    return desc.replace(pair=_shifted(desc.pair, desc.reduction, config_key()), roles=(*desc.roles, "i"))


def parts_of(desc: Description, least: int = LONG) -> Split | str:
    """The pair function of `computed` told apart, or why it cannot be run so."""
    own = computed(desc)
    parts = split(own.pair, own.roles, config_key(), least)
    if isinstance(parts, str):
        return parts
    if isinstance(desc.reduction, ShiftedSum):
        if parts.long_results[0]:
            return "exponentiated scores have long features"
        if not desc.reduction.sums().adds:
            return "sums of exponentials are compensated"
    elif any(parts.long_results) and not sums(desc):
        return "results with long features are not plain sums"
    return parts


def sums(desc: Description) -> bool:
    """Whether an accumulator is the sum of values of the same shapes."""
    traced = traced_of(desc)
    return desc.reduction.adds and [a.shape for a in traced.acc_avals] == [v.shape for v in desc.pair.out_avals]


def cost_of_rest(parts: Split) -> int:
    """Scalar operations of the rest, for one pair."""
    return count(parts.rest)


class Node:
    """Something long that reads i and j, one feature at a time: never stored."""

    __slots__ = ("eqn", "operands", "reads", "value")

    def __init__(self, eqn: Any = None, operands: Sequence[Any] = (), value: Any = None, reads: str = ""):
        self.eqn, self.operands, self.value, self.reads = eqn, tuple(operands), value, reads

    @property
    def is_row(self) -> bool:
        """Long features of i alone, of j alone, or of neither: `value` is an array (L, rows), or (L,)."""
        return self.eqn is None and self.reads != "number"

    @property
    def is_number(self) -> bool:
        """One number of a pair for all features: `value` is a tile."""
        return self.eqn is None and self.reads == "number"

    @property
    def is_sum(self) -> bool:
        """A sum or difference of products."""
        if self.eqn is None or self.eqn.primitive.name not in ("add", "add_any", "sub"):
            return False
        return all(term.factors() is not None or term.is_sum for term in self.operands)

    @property
    def is_difference(self) -> bool:
        return self.eqn is not None and self.eqn.primitive.name == "sub"

    def leaves(self) -> list[Node]:
        """The rows and numbers that it is computed from, each once."""
        found: dict[int, Node] = {}
        stack, seen = [self], set()
        while stack:
            node = stack.pop()
            if id(node) in seen:
                continue
            seen.add(id(node))
            if node.eqn is None:
                found[id(node)] = node
            stack.extend(reversed(node.operands))
        return list(found.values())

    def factors(self) -> list[Node] | None:
        """The leaves whose product it is, up to sign, with the sign as a number; None where it is no product."""
        if self.eqn is None:
            return [self]
        name = self.eqn.primitive.name
        if name == "mul":
            parts = [node.factors() for node in self.operands]
            return None if None in parts else list(itertools.chain(*(p for p in parts if p is not None)))
        if name == "neg":
            inner = self.operands[0].factors()
            return (
                None if inner is None else [Node(value=self.eqn.outvars[0].aval.dtype.type(-1), reads="number"), *inner]
            )
        return None
