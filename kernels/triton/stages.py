"""The long features of a pair on a tile of the GPU: rows that are computed before, and rolled loops over features.

Of what `long_features` tells apart, everything that reads i alone or j alone is an array of rows, which XLA computes
before the kernel.  What reads both and is long is contracted to a number of the pair by a loop that takes a few
features at a time; contractions that wait for the same numbers share a loop.  Between the loops stand short numbers.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from ..description import Description, PairFunction
from ..long_features import CONTRACTIONS, Split, evaluated, is_long, needed, passes_on, size, split, variables
from ..reduction import config_key
from ..scalarize import Tiles, run_equation, tiles
from .arithmetic.expression import PAIR, READS, Node, Program, Recorder
from .body import ARITHMETIC, computing


def parts_of(desc: Description) -> Split | str:
    """The pair function told apart, or why this kernel cannot run it."""
    if desc.ranges is not None:
        return "ranges are walked through with all features at hand"
    parts = split(desc.pair, desc.roles, config_key())
    if isinstance(parts, str):
        return parts
    if any(parts.long_results):
        return "its results have long features"
    return parts


def rest_of(desc: Description, stages: Stages) -> Description:
    """The short rest as a pair function of its own; what loops found has the role "ij"."""
    roles: Any = tuple(stages.axis(v) for v in stages.inputs)
    return desc.replace(pair=PairFunction(stages.parts.rest), roles=roles)


def steps_of(length: int, most: int) -> int:
    """How many features a step of a loop takes: a power of two that divides them."""
    return math.gcd(length, most)


class Stages:
    """What the first part of a pair function takes, in order.

    leaves: the role of every variable that the kernel reads from memory; loops: contractions that one loop over
    features computes, the loops in an order in which they can run.
    """

    def __init__(self, parts: Split, roles: Sequence[str]):
        self.parts, self.roles = parts, roles
        jaxpr = parts.jaxpr.jaxpr
        self.makes = {v: eqn for eqn in parts.first for v in eqn.outvars}
        self.leaves: dict[Any, str] = {}
        depth: dict[Any, int] = {}
        found: dict[tuple[int, int], list[Any]] = {}
        for eqn in parts.first:
            if self.axis(eqn.outvars[0]) != "ij":
                continue
            for v in map(self.source, variables(eqn.invars)):
                self._leaf(v)
            own = max((depth.get(v, 0) for v in variables(eqn.invars)), default=0)
            if is_contraction(eqn):
                found.setdefault((own, size(eqn.invars[0])), []).append(eqn)
                own += 1
            depth.update(dict.fromkeys(eqn.outvars, own))
        self.loops = [found[k] for k in sorted(found)]
        self.inputs = [*(jaxpr.invars[k] for k in parts.short), *parts.kept]
        for v in self.inputs:
            self._leaf(v)

    def axis(self, v: Any) -> str:
        """What a variable reads, as a role: "p" where it is neither i nor j."""
        return "".join(sorted(self.parts.reads[v])) or "p"

    def source(self, v: Any) -> Any:
        """A variable, or the number that it repeats."""
        while not isinstance(v, Literal) and v in self.makes:
            eqn = self.makes[v]
            if eqn.primitive.name != "broadcast_in_dim" or size(eqn.invars[0]) != 1:
                break
            v = eqn.invars[0]
        return v

    def emitted(self) -> tuple[list[Any], list[Any]]:
        """The equations that the kernel emits beside those of the reduction, and the variables that it reads."""
        own = [e for e in self.parts.first if self.axis(e.outvars[0]) == "ij"]
        return [*own, *self.parts.rest.jaxpr.eqns], list(self.leaves)

    def _leaf(self, v: Any) -> None:
        if not isinstance(v, Literal) and self.axis(v) != "ij":
            self.leaves[v] = self.axis(v)

    def rows(self, args: Sequence[jax.Array]) -> dict[Any, jax.Array]:
        """The leaves, from the arguments of one problem: (rows, features), or (features,).

        What is computed is so in the dtype of the kernel: float16 in float32.
        """
        jaxpr, found = self.parts.jaxpr.jaxpr, {}
        constants = dict(zip(jaxpr.constvars, self.parts.jaxpr.consts, strict=True))
        for role in "pij":
            results = [v for v, r in self.leaves.items() if r == role]
            eqns, read = needed(jaxpr.eqns, results, given={})
            places = [k for k, v in enumerate(jaxpr.invars) if v in read]
            fn = evaluated(eqns, constants, [jaxpr.invars[k] for k in places], results, computing)
            if role != "p" and results:
                fn = jax.vmap(fn, [0 if self.roles[k] == role else None for k in places])
            for v, x in zip(results, fn(*(args[k] for k in places)), strict=True):
                found[v] = x.reshape(*x.shape[: role != "p"], size(v))
        return found


def is_contraction(eqn: Any) -> bool:
    """Whether an equation, which reads i and j, contracts long features to a number."""
    return eqn.primitive.name in CONTRACTIONS and is_long(eqn.invars[0])


class FeatureLoop:
    """One step of a loop: `step` features taken in by every contraction, for each of some blocks of j."""

    def __init__(self, desc: Description, stages: Stages, which: int, step: int, blocks: int, assembly: bool):
        self.stages, self.contractions = stages, stages.loops[which]
        self.length, self.step, self.blocks = size(self.contractions[0].invars[0]), step, blocks
        self.recorder = Recorder(computing, approximate=desc.precision == "fast")
        self.rows: dict[tuple[Any, int, int], Node] = {}  # (leaf, feature of the step, block)
        self.numbers: dict[tuple[Any, int], Node] = {}  # (short variable, block)
        self.acc: list[Node] = []  # of each contraction, for every block
        outs = []
        for eqn in self.contractions:
            combine, _ = CONTRACTIONS[eqn.primitive.name]
            dtype = computing(eqn.outvars[0].aval.dtype)
            for block in range(blocks):
                total: Any = self.recorder.argument(dtype, PAIR)
                self.acc.append(total)
                for q in range(step):
                    value = self._feature(eqn.invars[0], q, block)
                    total = self.recorder.apply(combine.__name__, combine, total, value)
                outs.append(self.recorder.plain(total))
        self.program = Program(outs, assembly)

    def _feature(self, v: Any, q: int, block: int) -> Any:
        """One feature of a chain."""
        v = self.stages.source(v)
        if isinstance(v, Literal):
            literal: Any = v.aval
            return np.asarray(v.val, computing(literal.dtype))[()]
        axis = self.stages.axis(v)
        here = block if "j" in axis else 0
        if size(v) == 1:
            return self._argument(self.numbers, (v, here), v)
        if axis != "ij":
            return self._argument(self.rows, (v, q, here), v)
        eqn = self.stages.makes[v]
        if passes_on(eqn):
            return self._feature(eqn.invars[eqn.outvars.index(v)], q, block)
        operands = [tiles((), [self._feature(o, q, block)]) for o in eqn.invars]
        return run_equation(eqn, operands, self.recorder)[0].item()

    def _argument(self, known: dict[Any, Node], key: Any, v: Any) -> Node:
        if key not in known:
            known[key] = self.recorder.argument(computing(v.aval.dtype), READS[self.stages.axis(v)])
        return known[key]

    def neutral(self, shape: tuple[int, ...]) -> list[jax.Array]:
        kinds = [(e.primitive.name, computing(e.outvars[0].aval.dtype)) for e in self.contractions]
        return [jnp.full(shape, CONTRACTIONS[n][1](d), d) for n, d in kinds for _ in range(self.blocks)]

    def __call__(self, numbers: dict[int, Any], acc: Sequence[Any], load: Callable[[Any, int, int], Any]) -> list[Any]:
        """One step; load(leaf, feature of the step, block) reads a tile."""
        values = dict(numbers)
        values |= {node.place: load(*key) for key, node in self.rows.items()}
        values |= {node.place: x for node, x in zip(self.acc, acc, strict=True)}
        return self.program.results(values)


class Numbers:
    """The short numbers of a step of j: what is read, what loops found, and what is computed from these."""

    def __init__(self, stages: Stages, fixed: dict[Any, Tiles], load: Callable[[Any, int], Tiles]):
        self.stages, self.load = stages, load
        self.known: dict[tuple[Any, int], Tiles] = {(v, 0): x for v, x in fixed.items()}

    def value(self, v: Any, block: int) -> Tiles:
        """A short variable as tiles; what does not read j is the same for every block."""
        if isinstance(v, Literal):
            literal: Any = v.aval
            return tiles((), [np.asarray(v.val, computing(literal.dtype))[()]])
        source = self.stages.source(v)
        if source is not v:  # one number, repeated
            return np.broadcast_to(self.value(source, block).reshape(()), v.aval.shape)
        axis = self.stages.axis(v)
        key = (v, block if "j" in axis else 0)
        if key not in self.known:
            if axis == "j":
                self.known[key] = self.load(v, block)
            else:
                eqn = self.stages.makes[v]
                results = run_equation(eqn, [self.value(o, block) for o in eqn.invars], ARITHMETIC)
                self.known |= {(o, block): x for o, x in zip(eqn.outvars, results, strict=True)}
        return self.known[key]


@functools.lru_cache(maxsize=256)
def stages_of(parts: Split, roles: tuple[str, ...]) -> Stages:
    return Stages(parts, roles)


def words_of(v: Any) -> int:
    return math.prod(v.aval.shape) * max(1, computing(v.aval.dtype).itemsize // 4)
