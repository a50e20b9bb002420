"""What the results of a formula share: XLA on the CPU writes one loop for each result, and computes it anew in each.

A pair function is recorded scalar by scalar.  A scalar that several results need and that costs more than a load and a
store is worth computing first, for a whole chunk of pairs, and keeping: `shared_scalars` names it by its place among
everything that `scalarize.evaluate` computes, `Replay` evaluates the rest.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..description import Description
from ..scalarize import Arithmetic, Tiles, evaluate, tiles

# Instructions that one result takes on a CPU, where it is more than one.
WEIGHTS = {
    "exp": 16, "exp2": 18, "expm1": 30, "log": 20, "log1p": 40, "sin": 60, "cos": 60, "tan": 70, "tanh": 20,
    "logistic": 25, "pow": 100, "div": 4, "sqrt": 4, "rsqrt": 5, "cbrt": 100, "atan2": 100, "erf": 20, "erfc": 60,
    "sinh": 60, "cosh": 40, "asin": 100, "acos": 100, "atan": 100, "asinh": 60, "acosh": 60, "atanh": 60,
    "lgamma": 100, "digamma": 100, "rem": 100,
}  # fmt: skip
# A scalar cheaper than this is computed again.
CHEAP = 6


@dataclasses.dataclass(eq=False)
class Scalar:
    """One number of the computation: where it stands, what it takes, what it reads."""

    place: int  # among everything computed; the k-th argument has -1 - k
    name: str
    reads: frozenset[str]  # roles
    operands: tuple[Scalar, ...] = ()


class Recorder(Arithmetic):
    """Computes nothing and writes down what would be."""

    def __init__(self) -> None:
        super().__init__()
        self.computed: list[Scalar] = []

    def apply(self, name: str, fn: Callable[..., Any], *operands: Any) -> Any:
        known = tuple(x for x in operands if isinstance(x, Scalar))
        scalar = Scalar(len(self.computed), name, frozenset().union(*(x.reads for x in known)), known)
        self.computed.append(scalar)
        return scalar


class Replay(Arithmetic):
    """Computes like `base`, but for the scalars at some places, which are given or asked for."""

    def __init__(self, base: Arithmetic, given: Mapping[int, Any] | None = None):
        super().__init__(base.dtype, base.functions)
        self.base, self.given = base, given or {}
        self.computed: list[Any] = []

    def apply(self, name: str, fn: Callable[..., Any], *operands: Any) -> Any:
        place = len(self.computed)
        out = self.given[place] if place in self.given else self.base.apply(name, fn, *operands)
        self.computed.append(out)
        return out


def record(desc: Description) -> tuple[list[Scalar], list[Any]]:
    """Everything that one pair computes, and its results."""
    recorder = Recorder()
    args: list[Tiles] = []
    position = itertools.count(1)
    for role, aval in zip(desc.roles, desc.pair.in_avals, strict=True):
        own = [Scalar(-next(position), "argument", frozenset(role)) for _ in range(math.prod(aval.shape))]
        args.append(tiles(aval.shape, own))
    outs = evaluate(desc.pair.jaxpr, args, recorder)
    return recorder.computed, [x for out in outs for x in out.ravel()]


@dataclasses.dataclass(frozen=True)
class Kept:
    """Places of the scalars that are computed first."""

    pairs: tuple[int, ...] = ()  # for a chunk of pairs: several results need them
    rows: tuple[int, ...] = ()  # before the loop, for every i: they do not read j
    columns: tuple[int, ...] = ()  # before the loop, for every j: they do not read i


@dataclasses.dataclass(frozen=True)
class Shared:
    """What is worth keeping, and what is left."""

    kept: Kept
    linear: bool  # every result is the only one kept for pairs, or its product with something that does not read i
    largest: int  # instructions of the most expensive result, beside what is kept
    total: int  # instructions of all results, each by itself
    once: int  # instructions of all results, what they share once


def shared_scalars(desc: Description, pairs: bool) -> Shared:
    """The scalars of a pair that are not cheap and needed more than once; for pairs only where `pairs` says so."""
    computed, results = record(desc)
    users = [0] * len(computed)  # a bit for every result that needs it
    readers: list[list[tuple[int, frozenset[str]]]] = [[] for _ in computed]  # (users, reads) of what reads it
    for k, out in enumerate(results):
        if isinstance(out, Scalar) and out.place >= 0:
            users[out.place] |= 1 << k
            readers[out.place].append((1 << k, frozenset("ij")))
    for scalar in reversed(computed):
        for x in scalar.operands:
            if x.place >= 0:
                users[x.place] |= users[scalar.place]
                readers[x.place].append((users[scalar.place], scalar.reads))
    kept: dict[str, list[Scalar]] = {"ij": [], "i": [], "j": []}
    for scalar in computed:
        own, reads = users[scalar.place], "".join(sorted(scalar.reads - {"p"}))
        if not own or cost([scalar]) < CHEAP:
            continue
        if reads == "ij":
            several = own & (own - 1)  # more than one bit
            leaves = any(u != own for u, _ in readers[scalar.place])  # something reads it that fewer results need
            if pairs and several and leaves:
                kept["ij"].append(scalar)
        elif any(r - {"p"} != scalar.reads - {"p"} for _, r in readers[scalar.place]):
            kept[reads or "i"].append(scalar)
    places = Kept(*(tuple(s.place for s in kept[reads]) for reads in ("ij", "i", "j")))
    given = (*places.pairs, *places.rows, *places.columns)
    known = [out for out in results if isinstance(out, Scalar)]
    costs = [cost([out], given) for out in known]
    once = cost(known, (*places.rows, *places.columns))
    return Shared(places, _linear(results, kept["ij"]), max(costs, default=0), sum(costs), once)


def cost(scalars: Sequence[Scalar], given: Sequence[int] = ()) -> int:
    """Instructions to compute them, each scalar that they need once, and those at the given places not at all."""
    seen = set(given)
    stack, total = [*scalars], 0
    while stack:
        s = stack.pop()
        if s.place >= 0 and s.place not in seen:
            seen.add(s.place)
            total += WEIGHTS.get(s.name, 1)
            stack.extend(s.operands)
    return total


def _linear(results: Sequence[Any], kept: Sequence[Scalar]) -> bool:
    """Whether every result is the only kept scalar, or its product with something that does not read i."""
    if len(kept) != 1:
        return False
    return all(_coefficient(out, kept[0]) is not None for out in results)


def _coefficient(out: Any, weight: Scalar) -> Any:
    if out is weight:
        return 1
    if not isinstance(out, Scalar) or out.name != "mul" or len(out.operands) != 2 or weight not in out.operands:
        return None
    (other,) = [x for x in out.operands if x is not weight] or [weight]
    return None if "i" in other.reads else other


def without(desc: Description, role: str) -> dict[int, None]:
    """The places of all scalars that read arguments of a role, as given to `Replay` where they are not wanted."""
    return {s.place: None for s in record(desc)[0] if role in s.reads}


def coefficients(
    desc: Description, place: int, args: Sequence[Tiles], given: Mapping[int, Any], arithmetic: Arithmetic
) -> list[Any]:
    """What multiplies the kept scalar in every result, from the arguments of roles j and p (others may be None)."""
    computed, results = record(desc)
    replay = Replay(arithmetic, {**without(desc, "i"), **given})
    evaluate(desc.pair.jaxpr, args, replay)
    flat = [x for a in args for x in a.ravel()]
    found = [_coefficient(out, computed[place]) for out in results]
    return [1 if c == 1 else replay.computed[c.place] if c.place >= 0 else flat[-1 - c.place] for c in found]
