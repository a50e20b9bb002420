"""The one small description that stands between the language and the machine.

A reduction over pairs, `out_i = reduce_j f(x_i, y_j, p)`, is fully described by the pair function f
(a jaxpr on the features of one pair), the role of each of its arguments, the reduction, the sizes and
the options.  The language writes descriptions, the calculus rewrites them, the kernels run them.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

from .ranges import RangeSizes, swapped
from .reduction import Reduction, TracedReduction, trace

Role = Literal["i", "j", "p"]


class PairFunction:
    """A traced function of one pair: arrays of features in, a tuple of arrays of features out.

    Two pair functions are equal when they are the same object, because separately traced jaxprs
    never compare equal; whoever makes one remembers it (see `lazyjax._calculus`).
    """

    __slots__ = ("__weakref__", "jaxpr")

    def __init__(self, jaxpr: ClosedJaxpr):
        self.jaxpr = jaxpr

    @property
    def in_avals(self) -> list[Any]:
        """Shape and dtype of the features of each argument."""
        return list(self.jaxpr.in_avals)

    @property
    def out_avals(self) -> list[jax.ShapeDtypeStruct]:
        """Shape and dtype of each value."""
        return [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in self.jaxpr.out_avals]

    def __call__(self, *args: jax.Array) -> list[jax.Array]:
        return jaxpr_as_fun(self.jaxpr)(*args)

    def __repr__(self) -> str:
        return f"PairFunction({self.jaxpr})"


def trace_pair(fn: Callable[..., Sequence[Any]], in_avals: Sequence[Any]) -> PairFunction:
    """Trace `fn`, written for the features of one pair, once."""

    def strong(*args: Any) -> tuple[Any, ...]:
        # A weakly typed output would change type as soon as a kernel accumulates it.
        return tuple(jnp.asarray(v, jnp.result_type(v)) for v in fn(*args))

    return PairFunction(jax.make_jaxpr(strong)(*in_avals))


@dataclasses.dataclass(frozen=True)
class Description:
    """One reduction over pairs, ready to be planned and run.

    The reduction always runs over j; a reduction over i is written with the roles exchanged.
    `over="ij"` merges over both axes (the transpose of a parameter needs it).

    An argument of role i has the shape (*B, m, *F), of role j (*B, n, *F), of role p (*B, *F), where
    every batch size B is either that of `batch` or 1, which broadcasts, and F is the shape of the
    features that the pair function reads.  Outputs are (*batch, m, *G), or (*batch, *G) over "ij".

    With `ranges`, only some pairs are reduced: six integer arrays, (*B, C, 2) and so on, follow the arguments
    of the pair function (see `ranges.within`, which made them).
    """

    pair: PairFunction
    roles: tuple[Role, ...]
    reduction: Reduction
    m: int
    n: int
    batch: tuple[int, ...] = ()
    over: Literal["j", "ij"] = "j"
    backend: str | None = None
    ranges: RangeSizes | None = None
    precision: Literal["fast", "exact"] = "fast"  # whether GPU kernels may use approximate instructions of float32

    def replace(self, **changes: Any) -> Description:
        """The same description but for some fields."""
        return dataclasses.replace(self, **changes)

    def split(self, args: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """The arguments of the pair function, and the arrays of the ranges."""
        count = len(self.roles)
        return list(args[:count]), list(args[count:])

    def exchanged(self, args: Sequence[Any]) -> tuple[Description, list[Any]]:
        """i and j exchanged, in the description and in its arguments."""
        swap: dict[Role, Role] = {"i": "j", "j": "i", "p": "p"}
        own, ranges = self.split(args)
        new = self.replace(
            roles=tuple(swap[r] for r in self.roles), m=self.n, n=self.m,
            ranges=None if self.ranges is None else self.ranges.swapped(),
        )  # fmt: skip
        return new, [*own, *swapped(ranges)]

    def lead(self, role: Role) -> int:
        """How many axes stand before the features of an argument of this role."""
        return len(self.batch) + (role != "p")

    @property
    def index_dtype(self) -> np.dtype:
        """int32, int64 where the axis needs it."""
        large = isinstance(self.n, int) and self.n > np.iinfo(np.int32).max
        return np.dtype(np.int64 if large else np.int32)

    @functools.cached_property
    def outputs(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Shape and dtype of every result."""
        values = self.pair.out_avals
        lead = (*self.batch, self.m) if self.over == "j" else self.batch
        return tuple(
            jax.ShapeDtypeStruct((*lead, *a.shape), a.dtype) for a in self.reduction.out_avals(values, self.index_dtype)
        )


def traced_of(desc: Description) -> TracedReduction:
    """The reduction of a description, traced for the values of its pairs."""
    return trace(desc.reduction, tuple((v.shape, v.dtype) for v in desc.pair.out_avals), desc.index_dtype)
