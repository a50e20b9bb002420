"""Complex formulas as real ones: a description whose complex arrays are pairs of real arrays, which Triton has.

The jaxprs of the pair function and of the reduction are traced again with every complex value held as its real and its
imaginary part (`Parts`), and arithmetic on them written out (`complex_functions`).  All that stands behind, from the
model of registers to the emitters, sees real numbers alone.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr, Literal

from ..description import Description, PairFunction, trace_pair, traced_of
from ..long_features import apply
from ..reduction import Reduction, TracedReduction, config_key, trace, tree_merge
from ..scalarize import IDENTITY, STRUCTURAL, Unsupported, inner_jaxpr
from .arithmetic import complex_functions as functions

# Functions that tell 0 from -0: with one of them in a formula, a real number keeps its imaginary part 0 in arithmetic.
CUTS = frozenset(["atan", "atan2", "atanh", "log", "log1p", "pow"])
# Done part by part.
LINEAR = frozenset(["reduce_sum", "cumsum", "select_n", *STRUCTURAL]) - {"iota"}


@dataclasses.dataclass(frozen=True, eq=False)
class Parts:
    """A complex value as its real and imaginary part; a part that is known to be 0 may be None."""

    real: Any
    imag: Any

    @property
    def pair(self) -> functions.Pair:
        return self.real, self.imag

    def filled(self) -> Parts:
        return Parts(*functions.filled(self.pair))


def is_complex(x: Any) -> bool:
    """Whether something with a dtype is complex."""
    return np.dtype(x.dtype).kind == "c"


def real_dtype(dtype: Any) -> np.dtype:
    """float32 of complex64, float64 of complex128; others are their own."""
    dtype = np.dtype(dtype)
    return np.finfo(dtype).dtype if dtype.kind == "c" else dtype


def has_complex(closed: ClosedJaxpr) -> bool:
    jaxpr = closed.jaxpr
    inner = [i for eqn in jaxpr.eqns if (i := inner_jaxpr(eqn)) is not None]
    own = [*jaxpr.invars, *jaxpr.outvars, *jaxpr.constvars, *(v for eqn in jaxpr.eqns for v in eqn.outvars)]
    return any(is_complex(v.aval) for v in own) or any(map(has_complex, inner))


def has_cuts(closed: ClosedJaxpr) -> bool:
    inner = [i for eqn in closed.jaxpr.eqns if (i := inner_jaxpr(eqn)) is not None]
    return any(eqn.primitive.name in CUTS for eqn in closed.jaxpr.eqns) or any(map(has_cuts, inner))


# Complex values and their parts, in order: what reads or gives flat lists of arrays.


def avals_in_parts(avals: Sequence[Any]) -> list[jax.ShapeDtypeStruct]:
    out = []
    for a in avals:
        out += [jax.ShapeDtypeStruct(a.shape, real_dtype(a.dtype))] * (1 + is_complex(a))
    return out


def apart(values: Sequence[Any]) -> list[Any]:
    """Arrays, or values of an evaluation, with every complex one as its parts."""
    out: list[Any] = []
    for x in values:
        if isinstance(x, Parts):
            out += x.filled().pair
        else:
            out += [lax.real(x), lax.imag(x)] if is_complex(x) else [x]
    return out


def together(avals: Sequence[Any], parts: Sequence[Any], join: Callable[[Any, Any], Any]) -> list[Any]:
    """The values of some kinds, from all parts."""
    left = iter(parts)
    return [join(next(left), next(left)) if is_complex(a) else next(left) for a in avals]


def evaluate(closed: ClosedJaxpr, parts: Sequence[Any]) -> list[Any]:
    """A jaxpr on the parts of its arguments, which gives the parts of its results."""
    return apart(_Evaluation(has_cuts(closed)).run(closed, together(closed.in_avals, parts, Parts)))


class _Evaluation:
    """Runs jaxprs on real arrays and `Parts`.  `careful`: real numbers are x + 0j in arithmetic, as in JAX."""

    def __init__(self, careful: bool):
        self.careful = careful

    def run(self, closed: ClosedJaxpr, args: Sequence[Any]) -> list[Any]:
        jaxpr = closed.jaxpr
        env: dict[Any, Any] = dict(zip(jaxpr.invars, args, strict=True))
        env.update(zip(jaxpr.constvars, map(self.constant, closed.consts), strict=True))
        zeros: set[Any] = set()  # real variables that are known to be 0

        def read(v: Any) -> Any:
            if isinstance(v, Literal):
                aval: Any = v.aval
                return self.constant(np.asarray(v.val, aval.dtype))
            return env[v]

        for eqn in jaxpr.eqns:
            operands = [read(v) for v in eqn.invars]
            if (inner := inner_jaxpr(eqn)) is not None:
                out = self.run(inner, operands)
            elif any(is_complex(v.aval) for v in [*eqn.invars, *eqn.outvars]):
                out = self.equation(eqn, operands, [_is_zero(v, zeros) for v in eqn.invars])
            else:
                out = apply(eqn, *operands)
                if eqn.primitive.name == "broadcast_in_dim" and _is_zero(eqn.invars[0], zeros):
                    zeros |= set(eqn.outvars)
            env.update(zip(eqn.outvars, out, strict=True))
        return [read(v) for v in jaxpr.outvars]

    def constant(self, value: Any) -> Any:
        if not is_complex(value):
            return value
        x, y = np.real(value), np.imag(value)
        if self.careful or x.size == 0:
            return Parts(x, y)
        nothing = [not part.any() and not np.signbit(part).any() for part in (x, y)]
        return Parts(None if nothing[0] and not nothing[1] else x, None if nothing[1] else y)

    def real(self, x: Any) -> Parts:
        """A real array as a complex value."""
        return Parts(x, jnp.zeros_like(x) if self.careful else None)

    def equation(self, eqn: Any, operands: list[Any], zeros: list[bool]) -> list[Any]:
        """An equation with complex operands or results."""
        name = eqn.primitive.name
        if name in IDENTITY:
            return operands
        if name in LINEAR:
            return _by_parts(eqn, operands)
        if (rule := _RULES.get(name)) is not None:
            return [rule(self, eqn, *operands)]
        if name == "complex":
            x, y = operands
            return [self.real(x) if zeros[1] else Parts(None if zeros[0] and not self.careful else x, y)]
        if (fn := functions.FUNCTIONS.get(name)) is not None:
            return [Parts(*fn(operands[0].filled().pair))]
        raise Unsupported(f"{name} of complex numbers is not written in real arithmetic")


def _is_zero(v: Any, zeros: set[Any]) -> bool:
    """Whether a real variable is known to be 0, and not -0."""
    if not isinstance(v, Literal):
        return v in zeros
    value = np.asarray(v.val)
    return value.dtype.kind == "f" and value.size == 1 and not value.any() and not np.signbit(value).any()


def _by_parts(eqn: Any, operands: Sequence[Any]) -> list[Parts]:
    """What moves or adds numbers, on the real and on the imaginary parts; real operands choose or index."""
    values = [x for x in operands if isinstance(x, Parts)]
    out: list[list[Any]] = []
    for part in ("real", "imag"):
        if all(getattr(x, part) is None for x in values):
            out.append([None] * len(eqn.outvars))
            continue
        own = [getattr(x if getattr(x, part) is not None else x.filled(), part) if isinstance(x, Parts) else x
               for x in operands]  # fmt: skip
        out.append(apply(eqn, *own, dtype=real_dtype))
    return [Parts(*pair) for pair in zip(*out, strict=True)]


def _convert(self: _Evaluation, eqn: Any, x: Any) -> Any:
    if not isinstance(x, Parts):
        return self.real(apply(eqn, x, dtype=real_dtype)[0])
    if is_complex(eqn.outvars[0].aval):
        return _by_parts(eqn, [x])[0]
    x = x.filled()
    if np.dtype(eqn.params["new_dtype"]).kind == "b":
        return (x.real != 0) | (x.imag != 0)
    return apply(eqn, x.real, dtype=real_dtype)[0]


def _pairwise(fn: Callable[..., functions.Pair]) -> Callable[..., Parts]:
    return lambda self, eqn, *zs: Parts(*fn(*(z.pair for z in zs)))


def _sum(sign: int) -> Callable[..., Parts]:
    """0 is added where it is: it makes 0 of -0, as in JAX."""

    def rule(self: _Evaluation, eqn: Any, z: Parts, w: Parts) -> Parts:
        parts = []
        for a, b in zip(z.pair, w.pair, strict=True):
            if a is None and b is None:
                parts.append(None)
                continue
            a, b = functions.filled((a, b))
            parts.append(a + b if sign > 0 else a - b)
        return Parts(*parts)

    return rule


def _power(self: _Evaluation, eqn: Any, z: Parts, w: Any) -> Parts:
    """The exponent may be an integer array."""
    z = z.filled()
    w = w.filled() if isinstance(w, Parts) else self.real(w.astype(z.real.dtype)).filled()
    return Parts(*functions.power(z.pair, w.pair))


def _along(fn: Callable[..., functions.Pair], neutral: float | None) -> Callable[..., Parts]:
    """All elements along some axes, pairwise."""

    def rule(self: _Evaluation, eqn: Any, z: Parts) -> Parts:
        axes = eqn.params["axes"]
        x, y = (jnp.moveaxis(p, axes, range(len(axes))) for p in z.filled().pair)
        kept = x.shape[len(axes) :]
        x, y = x.reshape(-1, *kept), y.reshape(-1, *kept)
        if x.shape[0]:
            return Parts(*tree_merge(fn, (x, y)))
        if neutral is None:
            raise Unsupported(f"{eqn.primitive.name} of no complex numbers has no result")
        return self.real(jnp.full(kept, neutral, x.dtype))

    return rule


def _chosen(fn: Callable[[functions.Pair, functions.Pair], functions.Pair]) -> Callable[..., Parts]:
    return lambda self, eqn, z, w: Parts(*fn(z.filled().pair, w.filled().pair))


def _dot(self: _Evaluation, eqn: Any, z: Parts, w: Parts) -> Parts:
    """An inner product is linear in each part of each operand."""
    return Parts(*functions.product(z.pair, w.pair, lambda a, b: apply(eqn, a, b, dtype=real_dtype)[0]))


def _polynomial(self: _Evaluation, eqn: Any, z: Parts, *coefficients: Parts) -> Parts:
    """By Horner's rule, from the lowest power on."""
    out = coefficients[-1]
    for c in reversed(coefficients[:-1]):
        out = _sum(1)(self, eqn, Parts(*functions.product(out.pair, z.pair)), c)
    return out


def _equal(same: bool) -> Callable[..., Any]:
    def rule(self: _Evaluation, eqn: Any, z: Parts, w: Parts) -> Any:
        (a, b), (c, d) = z.filled().pair, w.filled().pair
        return (a == c) & (b == d) if same else (a != c) | (b != d)

    return rule


_RULES: dict[str, Callable[..., Any]] = {
    "convert_element_type": _convert,
    "real": lambda self, eqn, z: z.filled().real,
    "imag": lambda self, eqn, z: z.filled().imag,
    "conj": lambda self, eqn, z: Parts(*functions.conjugate(z.pair)) if isinstance(z, Parts) else self.real(z),
    "abs": lambda self, eqn, z: functions.modulus(z.pair),
    "add": _sum(1),
    "add_any": _sum(1),
    "sub": _sum(-1),
    "neg": _pairwise(functions.negative),
    "mul": _pairwise(functions.product),
    "div": _pairwise(functions.quotient),
    "square": lambda self, eqn, z: Parts(*functions.product(z.pair, z.pair)),
    "integer_pow": lambda self, eqn, z: Parts(*functions.integer_power(z.pair, eqn.params["y"])),
    "exp": _pairwise(functions.exponential),
    "pow": _power,
    "eq": _equal(True),
    "ne": _equal(False),
    "max": _chosen(functions.larger),
    "min": _chosen(functions.smaller),
    "reduce_prod": _along(functions.product, 1.0),
    "reduce_max": _along(functions.larger, None),
    "reduce_min": _along(functions.smaller, None),
    "dot_general": _dot,
    "polynomial": _polynomial,
}


# Descriptions.

Kinds = tuple[tuple[tuple[int, ...], Any], ...]


@dataclasses.dataclass(frozen=True)
class InParts(Reduction):
    """`inner` of complex values of some kinds, on their parts; accumulators are flat lists of parts."""

    inner: Reduction
    kinds: Kinds
    index_dtype: np.dtype

    @property
    def rounds(self) -> bool:  # type: ignore[override]
        return self.inner.rounds

    @property
    def adds(self) -> bool:  # type: ignore[override]
        return self.inner.adds

    @property
    def _traced(self) -> TracedReduction:
        return trace(self.inner, self.kinds, self.index_dtype)

    def init(self, values: Any) -> Any:
        return evaluate(self._traced.init, [])

    def lift(self, values: Any, index: Any) -> Any:
        flat = lambda *args: jax.tree.leaves(self.inner.lift(args[:-1], args[-1]))  # noqa: E731
        avals = [jax.ShapeDtypeStruct(s, d) for s, d in self.kinds]
        closed = jax.make_jaxpr(flat)(*avals, jax.ShapeDtypeStruct((), index.dtype))
        return evaluate(closed, [*values, index])

    def merge(self, a: Any, b: Any) -> Any:
        return evaluate(self._traced.merge, [*a, *b])

    def fold(self, acc: Any, values: Any, indices: Any) -> Any:
        return evaluate(self._traced.fold(indices.shape[0]), [*acc, *values, indices])

    def finalize(self, acc: Any, values: Any) -> tuple[Any, ...]:
        return tuple(evaluate(self._traced.finalize, acc))


@functools.lru_cache(maxsize=512)
def _pair_in_parts(pair: PairFunction, context: Any) -> PairFunction:
    del context
    return trace_pair(lambda *parts: evaluate(pair.jaxpr, parts), avals_in_parts(pair.in_avals))


@functools.lru_cache(maxsize=512)
def _in_parts(desc: Description, context: Any) -> Description:
    kinds = tuple((v.shape, v.dtype) for v in desc.pair.out_avals)
    traced = trace(desc.reduction, kinds, desc.index_dtype)
    reduction = desc.reduction
    if any(map(has_complex, (traced.init, traced.merge, traced.fold(1), traced.finalize))):
        reduction = InParts(reduction, kinds, desc.index_dtype)
    elif not has_complex(desc.pair.jaxpr):
        return desc
    roles = [r for r, a in zip(desc.roles, desc.pair.in_avals, strict=True) for _ in range(1 + is_complex(a))]
    return desc.replace(pair=_pair_in_parts(desc.pair, context), roles=tuple(roles), reduction=reduction)


def in_parts(desc: Description) -> Description:
    """A description without complex numbers, itself where it has none; raises `Unsupported` where that cannot be."""
    return _in_parts(desc, config_key())


def real_of(desc: Description) -> Description | str:
    """A description as Triton sees it, whose reduction can be folded pair by pair; or why there is none."""
    try:
        own = in_parts(desc)
        traced_of(own).fold(1)
    except Unsupported as error:
        return str(error)
    return own


def run_in_parts(
    desc: Description, run: Callable[[Sequence[jax.Array]], Sequence[jax.Array]]
) -> Callable[..., Sequence[jax.Array]]:
    """A function of the arrays of `desc`, from one of the arrays of `in_parts(desc)`."""

    def on_arrays(*args: jax.Array) -> Sequence[jax.Array]:
        return together(desc.outputs, run(apart(args)), lax.complex)

    return on_arrays
