"""From formulas and an axis to one call of the primitive."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from ._accumulation import Composite
from ._primitive import map_reduce
from ._ranges import Ranges, canonical_ranges, range_sizes
from ._tape import Tape, join, pair_function
from ._variables import canonical, common_sizes, leaf_aval, leaf_sizes
from .kernels import Description
from .kernels.description import Role
from .kernels.ranges import swapped

if TYPE_CHECKING:
    from ._lazytensor import LazyTensor


class Request(NamedTuple):
    """Everything about a reduction that is static: the key of the one jit cache."""

    tape: Tape
    nodes: tuple[int, ...]  # the values of a pair
    reduction: Any  # a Reduction, or a Composite
    axis: str  # "i", "j" or "ij": what is reduced
    backend: str | None
    drop: bool  # a feature axis of size 1 is dropped from the results
    pick: Callable[[Sequence[Any]], Any]  # what is returned of the results
    ranges: bool = False  # six arrays follow the data
    precision: Literal["fast", "exact"] = "fast"


@functools.partial(jax.jit, static_argnums=0, inline=True)
def _run(request: Request, *data: Any) -> Any:
    """All of a reduction in one jit, so that an eager call is one dispatch and is traced once."""
    desc, args = describe(request, data)
    if isinstance(request.reduction, Composite):
        outs = request.reduction.run(desc, args, map_reduce)
    else:
        outs = map_reduce(desc, args)
    drop = request.drop and all(len(v.shape) == 1 for v in desc.pair.out_avals)
    return request.pick([o[..., 0] if drop and o.shape[-1] == 1 else o for o in outs])


def describe(request: Request, data: Sequence[Any]) -> tuple[Description, list[jax.Array]]:
    """The description of a request on given arrays, and the arrays as it wants them."""
    leaves = request.tape.leaves
    data, ranges = data[: len(leaves)], data[len(leaves) :]
    batch, m, n = (), None, None
    for leaf, x in zip(leaves, data, strict=True):
        own, rows = leaf_sizes(leaf, x)
        batch = jnp.broadcast_shapes(batch, own)
        m, n = (rows if leaf.role == "i" and m is None else m), (rows if leaf.role == "j" and n is None else n)
    args = [canonical(leaf, x, len(batch)) for leaf, x in zip(leaves, data, strict=True)]
    pair = pair_function(
        request.tape, request.nodes, [leaf_aval(leaf, x) for leaf, x in zip(leaves, data, strict=True)]
    )
    roles: list[Role] = [leaf.role for leaf in leaves]
    m, n = 1 if m is None else m, 1 if n is None else n
    if request.ranges:
        ranges = canonical_ranges(ranges, len(batch), m, n)
    if request.axis == "i":  # a reduction over i is one over j with the roles exchanged
        roles = [leaf.swapped().role for leaf in leaves]
        m, n, ranges = n, m, swapped(ranges)
    sizes = range_sizes(ranges) if request.ranges else None
    over = "ij" if request.axis == "ij" else "j"
    desc = Description(
        pair, tuple(roles), request.reduction, m, n, tuple(batch), over, request.backend, sizes, request.precision
    )
    return desc, [*args, *ranges]


def reduce_tensors(
    tensors: Sequence[LazyTensor],
    reduction: Any,
    axis: str,
    backend: str | None,
    pick: Callable[[Sequence[Any]], Any],
    drop: bool = False,
    ranges: Ranges | None = None,
    precision: Literal["fast", "exact"] = "fast",
) -> Any:
    """One reduction of the values of one pair, given as LazyTensors that share their axes.

    `pick`, a function at the top of a module (it is part of a cache's key), takes what is wanted of the results; with
    `drop` they lose a feature axis of size 1.
    """
    head = tensors[0]
    if len(tensors) == 1:
        tape, data, nodes = head._tape, head._data, (head._node,)
        _ = head._sizes  # mismatched axes raise here, before anything is traced
    else:
        sizes = head._sizes
        for t in tensors[1:]:
            sizes = common_sizes(sizes, t._sizes, type(reduction).__name__)
        tape, data, nodes = join([t._operand() for t in tensors])
    request = Request(tape, nodes, reduction, axis, backend, drop, pick, ranges is not None, precision)
    return _run(request, *data, *(ranges or ()))


def first(outs: Sequence[Any]) -> Any:
    return outs[0]


def every(outs: Sequence[Any]) -> Any:
    return tuple(outs)
