"""lift: any JAX function of one pair as an operation on LazyTensors."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.core import Tracer
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

from ._compat import inner_jaxprs, trace_context
from ._errors import show
from ._lazytensor import LazyTensor, extend
from ._tape import Leaf
from .kernels import trace_pair

# What depends on more than one pair, or on when it runs.
_COLLECTIVES = (
    "psum",
    "pmax",
    "pmin",
    "all_gather",
    "all_to_all",
    "ppermute",
    "axis_index",
    "reduce_scatter",
    "pbroadcast",
)


def lift(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Make a JAX function of one pair a function of LazyTensors.

    Args:
        fn: takes the features of one pair, arrays of shape (D,), and returns an array, a number, or a pytree of them.
            It may use anything in JAX that has no side effects. Arrays that it closes over become parameters.

    Returns:
        A function of LazyTensors (arrays and numbers are accepted as in every operator) that returns a LazyTensor, or a
        pytree of them. It traces `fn` once for given shapes and dtypes.

    Raises:
        TypeError: if fn has side effects, calls back to Python or communicates between devices.

    Example:
        >>> import jax.numpy as jnp
        >>> from lazyjax import Vi, Vj, lift
        >>> x, y = jnp.zeros((4, 3)), jnp.ones((5, 3))
        >>> K = lift(lambda x, y: jnp.exp(-jnp.linalg.norm(x - y)))(Vi(x), Vj(y))
        >>> K.sum(axis=1).shape
        (4, 1)
    """
    if not callable(fn):
        raise TypeError(f"lift: expected a function of the features of one pair, got {show(fn)}.")
    name = getattr(fn, "__name__", type(fn).__name__)

    @functools.wraps(fn)
    def lifted(*args: Any) -> Any:
        if not args:
            raise TypeError(f"lift({name}): no arguments; expected the variables of the pair.")
        head = next((a for a in args if isinstance(a, LazyTensor)), None)
        if head is None:
            raise TypeError(f"lift({name}): none of the {len(args)} arguments is a LazyTensor; wrap one with Vi or Vj.")
        tensors = [head._lift(a, f"lift({name})", f"argument {k}") for k, a in enumerate(args)]
        avals = tuple(t._aval for t in tensors)
        pair, consts, tree = _traced(fn, avals, name)
        operands = [*(LazyTensor._of_leaf(Leaf("p", c.ndim, ""), c) for c in consts), *tensors]
        outs = []
        for k in range(tree.num_leaves):
            params = (("function", pair), ("name", name), ("output", k))
            outs.append(extend(("lift", params), operands, [o._aval for o in operands], f"lift({name})"))
        return tree.unflatten(outs)

    return lifted


def _traced(fn: Callable[..., Any], avals: tuple[Any, ...], name: str) -> tuple[Any, list[Any], Any]:
    try:
        hash(fn)
    except TypeError:
        return _trace(fn, avals, name)
    key = (fn, avals, trace_context())
    if key not in _memory:
        made = _trace(fn, avals, name)
        if any(isinstance(c, Tracer) for c in made[1]):
            return made  # closed-over tracers belong to one trace and must not outlive it
        if len(_memory) >= 512:
            _memory.pop(next(iter(_memory)))
        _memory[key] = made
    return _memory[key]


_memory: dict[Any, tuple[Any, list[Any], Any]] = {}


def _trace(fn: Callable[..., Any], avals: tuple[Any, ...], name: str) -> tuple[Any, list[Any], Any]:
    closed, out = jax.make_jaxpr(fn, return_shape=True)(*avals)
    _check(closed, name)
    consts = list(closed.consts)
    count = len(consts)

    def flat(*args: Any) -> Any:
        return jaxpr_as_fun(ClosedJaxpr(closed.jaxpr, args[:count]))(*args[count:])

    pair = trace_pair(flat, [*(jax.typeof(c) for c in consts), *avals])
    return pair, consts, jax.tree.structure(out)


def _check(closed: Any, name: str) -> None:
    remedy = "A formula is computed for many pairs at once, in any order: keep to functions without side effects."
    for op in _primitives(closed.jaxpr):
        if "callback" in op:
            raise TypeError(f"lift({name}): the function calls back to Python ({op}). {remedy}")
        if op.startswith(_COLLECTIVES):
            raise TypeError(f"lift({name}): the function communicates between devices ({op}). {remedy}")
    if closed.effects:
        raise TypeError(
            f"lift({name}): the function has side effects ({', '.join(map(str, closed.effects))}). {remedy}"
        )


def _primitives(jaxpr: Any) -> set[str]:
    names = set()
    for eqn in jaxpr.eqns:
        names.add(eqn.primitive.name)
        for inner in inner_jaxprs(eqn):
            names |= _primitives(inner)
    return names
