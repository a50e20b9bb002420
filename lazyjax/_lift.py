"""lift: any JAX function of one pair as an operation on LazyTensors."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

import jax
from jax.core import Tracer
from jax.extend.core import ClosedJaxpr, Literal, jaxpr_as_fun

from ._compat import inner_jaxprs, trace_context
from ._errors import show
from ._lazytensor import LazyTensor, extend
from ._tape import Leaf
from .kernels import PairFunction, trace_pair

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
        pytree of them. It traces `fn` once for given shapes, dtypes, closure and globals; a method or another callable
        object, which may have changed, is traced at every call.

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


Traced = tuple[PairFunction, list[Any], Any]  # the pair function, the constants that it takes first, its result's tree


class _Same:
    """An object that equals only itself, and is kept alive."""

    __slots__ = ("held",)

    def __init__(self, held: Any):
        self.held = held

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.held is self.held

    def __hash__(self) -> int:
        return id(self.held)


def _reads(fn: Callable[..., Any]) -> tuple[_Same, ...] | None:
    """What a plain function reads from outside: its closure and globals.  None where that cannot be told."""
    if not isinstance(fn, types.FunctionType):
        return None  # a method or an object may change between calls, and still equal itself
    try:
        closure = [cell.cell_contents for cell in fn.__closure__ or ()]
    except ValueError:  # a cell that is not filled yet
        return None
    return tuple(_Same(x) for x in [*closure, *(fn.__globals__.get(n) for n in fn.__code__.co_names)])


def _traced(fn: Callable[..., Any], avals: tuple[Any, ...], name: str) -> Traced:
    reads = _reads(fn)
    if reads is None:
        return _trace(fn, avals, name)
    key = (fn, reads, avals, trace_context())
    if key not in _memory:
        made = _trace(fn, avals, name)
        if any(isinstance(c, Tracer) for c in made[1]):
            return made  # closed-over tracers belong to one trace and must not outlive it
        _remember(_memory, key, made)
    return _memory[key]


_memory: dict[Any, Traced] = {}
_interned: dict[Any, PairFunction] = {}


def _remember(table: dict[Any, Any], key: Any, value: Any) -> Any:
    if len(table) >= 512:
        table.pop(next(iter(table)))
    table[key] = value
    return value


def _trace(fn: Callable[..., Any], avals: tuple[Any, ...], name: str) -> Traced:
    # A function of its own for each trace: JAX remembers what it traced by the function, not by what that reads.
    closed, out = jax.make_jaxpr(lambda *args: fn(*args), return_shape=True)(*avals)  # noqa: PLW0108
    _check(closed, name)
    consts = list(closed.consts)
    kinds = tuple(jax.typeof(c) for c in consts)
    for c, kind in zip(consts, kinds, strict=True):
        if jax.numpy.issubdtype(kind.dtype, jax.dtypes.extended):
            raise TypeError(
                f"lift({name}): the function closes over {show(c)}, which is not data that a formula can hold. "
                "Draw random numbers before, and pass them as a variable."
            )
    count = len(consts)

    def flat(*args: Any) -> Any:
        return jaxpr_as_fun(ClosedJaxpr(closed.jaxpr, args[:count]))(*args[count:])

    tree = jax.tree.structure(out)
    # The same code traced anew is the same pair function, so that nothing is compiled again: jaxprs are compared as
    # text, which says everything but the values of array literals.
    text = None if _array_literals(closed.jaxpr) else (str(closed.jaxpr), kinds, avals, trace_context())
    pair = _interned.get(text)
    if pair is None:
        pair = trace_pair(flat, [*kinds, *avals])
        if text is not None:
            _remember(_interned, text, pair)
    return pair, consts, tree


def _array_literals(jaxpr: Any) -> bool:
    own: list[Any] = [v for eqn in jaxpr.eqns for v in eqn.invars if isinstance(v, Literal)]
    return any(v.aval.shape for v in own) or any(_array_literals(j) for e in jaxpr.eqns for j in inner_jaxprs(e))


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
