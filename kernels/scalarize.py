"""Structure is free, arithmetic is tiled: a jaxpr on features is run on NumPy arrays of tiles.

An array of features (D,) becomes a NumPy object array (D,) whose elements are *tiles*: one JAX value for
each feature, holding that feature for many pairs at once.  Slices, reshapes, transposes and concatenations
then move Python objects while the kernel is traced and cost nothing when it runs; only arithmetic becomes
instructions.  Tiles of different shapes broadcast: a row of i's meets a scalar or a column of j's.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr, Literal

Tiles = np.ndarray  # of dtype object


class Unsupported(Exception):
    """A jaxpr holds something that cannot be run tile by tile; the text names it."""


# Primitives that act on each element alone, so on each tile alone.
ELEMENTWISE = frozenset(
    """abs acos acosh add add_any and asin asinh atan atan2 atanh bessel_i0e bessel_i1e cbrt
    ceil clamp clz complex conj convert_element_type cos cosh digamma div eq erf erf_inv erfc exp
    exp2 expm1 floor ge gt igamma igamma_grad_a igammac imag integer_pow is_finite le lgamma log log1p
    logistic lt max min mul ne neg nextafter not one_minus_square or polygamma
    population_count pow real real_part reduce_precision regularized_incomplete_beta rem round rsqrt select_n shift_left
    shift_right_arithmetic shift_right_logical sign sin sinh sqrt square sub tan tanh
    xor zeta""".split()
)

# Primitives that only pass their operands on.
IDENTITY = frozenset(["copy", "copy_p", "optimization_barrier", "stop_gradient"])

# Primitives that hold a jaxpr to be inlined, and the parameter that holds it.
INLINED = {
    "jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr", "core_call": "call_jaxpr", "checkpoint": "jaxpr",
    "remat": "jaxpr", "remat2": "jaxpr", "custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr",
    "custom_vjp_call_jaxpr": "call_jaxpr",
}  # fmt: skip


def tiles(shape: Sequence[int], items: Sequence[Any]) -> Tiles:
    """An array of tiles from a flat list (NumPy must not look inside the items)."""
    out = np.empty(len(items), object)
    for k, item in enumerate(items):
        out[k] = item
    return out.reshape(tuple(shape))


def broadcast_tile(tile: Any, shape: tuple[int, ...]) -> Any:
    """A tile as one of the given shape."""
    own = np.shape(tile)
    if own == shape:
        return tile
    return lax.broadcast_in_dim(tile, shape, tuple(range(len(shape) - len(own), len(shape))))


class Arithmetic:
    """How a kernel computes: in which dtype, for each dtype of a formula, and with which functions of tiles.

    `functions` maps (name of a primitive, dtype of its result) to a function that replaces the primitive.
    """

    def __init__(
        self,
        dtype: Callable[[Any], np.dtype] = np.dtype,
        functions: Mapping[tuple[str, np.dtype], Callable[..., Any]] | None = None,
    ):
        self.dtype = dtype
        self.functions = functions or {}

    def apply(self, name: str, fn: Callable[..., Any], *operands: Any) -> Any:
        """An element-wise function on tiles of shapes that broadcast; everything that is computed passes here."""
        shape = np.broadcast_shapes(*(np.shape(t) for t in operands))
        return fn(*(broadcast_tile(t, shape) for t in operands))

    def total(self, name: str, fn: Callable[[Any, Any], Any], items: Sequence[Any]) -> Any:
        """All items merged by an associative function of two, pairwise: shorter chains, smaller rounding errors."""
        items = list(items)
        while len(items) > 1:
            pairs = [self.apply(name, fn, a, b) for a, b in zip(items[::2], items[1::2], strict=False)]
            items = pairs + items[len(items) - len(items) % 2 :]
        return items[0]


EXACT = Arithmetic()


@dataclasses.dataclass(frozen=True)
class Step:
    """One equation as the rules see it: its dtype is the one that the kernel computes in."""

    primitive: Any
    params: dict[str, Any]
    shape: tuple[int, ...]
    dtype: np.dtype
    operand_dtypes: tuple[np.dtype, ...]
    arithmetic: Arithmetic

    @property
    def name(self) -> str:
        return self.primitive.name

    def apply(self, name: str, fn: Callable[..., Any], *operands: Any) -> Any:
        return self.arithmetic.apply(name, fn, *operands)


def _is_constant(tile: Any) -> bool:
    return isinstance(tile, np.generic | np.ndarray)


def _total(eqn: Step, fn: Callable[[Any, Any], Any], items: Sequence[Any]) -> Any:
    return eqn.arithmetic.total(fn.__name__, fn, items)


def _reduce(fn: Callable[[Any, Any], Any], neutral: Callable[[np.dtype], Any]) -> Callable[..., Tiles]:
    def rule(eqn: Step, x: Tiles) -> Tiles:
        axes = eqn.params["axes"]
        kept = [a for a in range(x.ndim) if a not in axes]
        rows = np.transpose(x, (*kept, *axes)).reshape(math.prod(x.shape[a] for a in kept), -1)
        out = [_total(eqn, fn, list(r)) if len(r) else neutral(eqn.dtype) for r in rows]
        return tiles([x.shape[a] for a in kept], out)

    return rule


def _arg_reduce(better: Callable[[Any, Any], Any]) -> Callable[..., Tiles]:
    def rule(eqn: Step, x: Tiles) -> Tiles:
        (axis,) = eqn.params["axes"]
        dtype = np.dtype(eqn.params["index_dtype"])
        moved = np.moveaxis(x, axis, -1)
        out = []
        for row in moved.reshape(-1, moved.shape[-1]):
            best, where = row[0], dtype.type(0)
            for k, value in enumerate(row[1:], 1):
                beats = lambda v, b: better(v, b) | ((v != v) & (b == b))  # noqa: E731 (NaN first, as jnp)
                wins = eqn.apply("beats", beats, value, best)
                best = eqn.apply("select_n", lax.select_n, wins, best, value)
                where = eqn.apply("select_n", lax.select_n, wins, where, dtype.type(k))
            out.append(where)
        return tiles(moved.shape[:-1], out)

    return rule


def _cumulative(fn: Callable[[Any, Any], Any]) -> Callable[..., Tiles]:
    def rule(eqn: Step, x: Tiles) -> Tiles:
        axis, reverse = eqn.params["axis"], eqn.params["reverse"]
        moved = np.moveaxis(np.flip(x, axis) if reverse else x, axis, 0)
        rows = moved.reshape(moved.shape[0], -1).copy()
        for k in range(1, rows.shape[0]):
            pairs = zip(rows[k - 1], rows[k], strict=True)
            rows[k] = tiles(rows[k].shape, [eqn.apply(fn.__name__, fn, *each) for each in pairs])
        out = np.moveaxis(rows.reshape(moved.shape), 0, axis)
        return np.flip(out, axis) if reverse else out

    return rule


def _dot_general(eqn: Step, a: Tiles, b: Tiles) -> Tiles:
    (ca, cb), (ba, bb) = eqn.params["dimension_numbers"]
    dtype = eqn.dtype

    def split(x: Tiles, contract: Sequence[int], batch: Sequence[int]) -> tuple[Tiles, list[int], list[int]]:
        free = [k for k in range(x.ndim) if k not in contract and k not in batch]
        sizes = lambda axes: [x.shape[k] for k in axes]  # noqa: E731
        y = np.transpose(x, (*batch, *free, *contract))
        shape = (math.prod(sizes(batch)), math.prod(sizes(free)), math.prod(sizes(contract)))
        return y.reshape(shape), sizes(batch), sizes(free)

    a3, batch, free_a = split(a, ca, ba)
    b3, _, free_b = split(b, cb, bb)
    convert = functools.partial(lax.convert_element_type, new_dtype=dtype)

    def cast(k: int, t: Any) -> Any:
        return eqn.apply("convert_element_type", convert, t) if eqn.operand_dtypes[k] != dtype else t

    out = []
    for k in range(a3.shape[0]):
        for row in a3[k]:
            for column in b3[k]:
                terms = [eqn.apply("mul", lax.mul, cast(0, p), cast(1, q)) for p, q in zip(row, column, strict=True)]
                out.append(_total(eqn, lax.add, terms) if terms else np.zeros((), dtype)[()])
    return tiles([*batch, *free_a, *free_b], out)


def _polynomial(eqn: Step, x: Tiles, *coefficients: Tiles) -> Tiles:
    """The sum of its terms, from the lowest power on, by Horner's rule (jax 0.12)."""
    xs, *rows = (a.ravel() for a in np.broadcast_arrays(x, *coefficients))
    out = list(rows[-1])
    for row in reversed(rows[:-1]):
        products = [eqn.apply("mul", lax.mul, o, at) for o, at in zip(out, xs, strict=True)]
        out = [eqn.apply("add", lax.add, product, c) for product, c in zip(products, row, strict=True)]
    return tiles(eqn.shape, out)


def _broadcast_in_dim(eqn: Step, x: Tiles, *_: Any) -> Tiles:
    shape, dims = eqn.params["shape"], eqn.params["broadcast_dimensions"]
    expanded = [1] * len(shape)
    for axis, d in enumerate(dims):
        expanded[d] = x.shape[axis]
    return np.broadcast_to(x.reshape(expanded), shape)


def _iota(eqn: Step) -> Tiles:
    shape, dimension = eqn.params["shape"], eqn.params["dimension"]
    dtype = eqn.dtype
    along = [1] * len(shape)
    along[dimension] = shape[dimension]
    ramp = tiles(along, [dtype.type(k) for k in range(shape[dimension])])
    return np.broadcast_to(ramp, shape)


def _slice(eqn: Step, x: Tiles) -> Tiles:
    p = eqn.params
    strides = p["strides"] or (1,) * x.ndim
    return x[tuple(slice(*s) for s in zip(p["start_indices"], p["limit_indices"], strides, strict=True))]


def _split(eqn: Step, x: Tiles) -> list[Tiles]:
    return np.split(x, np.cumsum(eqn.params["sizes"])[:-1].tolist(), eqn.params["axis"])


def _pad(eqn: Step, x: Tiles, fill: Tiles) -> Tiles:
    config = eqn.params["padding_config"]
    out = np.empty(eqn.shape, object)
    out.fill(fill.item())
    source, target = [], []
    for size, (low, _, inner), total in zip(x.shape, config, out.shape, strict=True):
        at = low + np.arange(size) * (inner + 1)
        inside = (at >= 0) & (at < total)
        source.append(np.nonzero(inside)[0])
        target.append(at[inside])
    out[np.ix_(*target)] = x[np.ix_(*source)]
    return out


def _moved_by_index(eqn: Step, *operands: Tiles) -> Tiles:
    """gather, scatter, dynamic slices: run the primitive on the *positions*, then move the tiles.

    Only where the indices are known while tracing; they are integers that came from the formula itself.
    """
    name = eqn.name
    moved = 2 if name in ("dynamic_update_slice", "scatter") else 1
    data = [operands[0]] if moved == 1 else [operands[0], operands[2 if name == "scatter" else 1]]
    indices = operands[moved:] if name != "scatter" else (operands[1],)
    if not all(_is_constant(t) for ix in indices for t in ix.ravel()):
        raise Unsupported(f"{name} with indices that depend on the data")
    positions, pool = [], []
    for d in data:
        positions.append(np.arange(len(pool), len(pool) + d.size, dtype=np.int32).reshape(d.shape))
        pool.extend(d.ravel())
    known = [np.array([int(t) for t in ix.ravel()], np.int32).reshape(ix.shape) for ix in indices]
    args = [positions[0], *known] if moved == 1 else [positions[0], known[0], positions[1]]
    if name == "dynamic_update_slice":
        args = [positions[0], positions[1], *known]
    params = dict(eqn.params)
    if "fill_value" in params:
        params["fill_value"] = -1
    import jax  # the positions are concrete, so this runs now and not in the kernel

    with jax.ensure_compile_time_eval():
        source = np.asarray(eqn.primitive.bind(*(jax.numpy.asarray(a) for a in args), **params))
    nothing = np.zeros((), eqn.dtype)[()]
    return tiles(source.shape, [pool[k] if k >= 0 else nothing for k in source.ravel()])


STRUCTURAL: dict[str, Callable[..., Any]] = {
    "broadcast_in_dim": _broadcast_in_dim,
    "reshape": lambda e, x, *_: x.reshape(e.params["new_sizes"]),
    "transpose": lambda e, x: np.transpose(x, e.params["permutation"]),
    "squeeze": lambda e, x: np.squeeze(x, tuple(e.params["dimensions"])),
    "expand_dims": lambda e, x: np.expand_dims(x, tuple(e.params["dimensions"])),
    "concatenate": lambda e, *xs: np.concatenate(xs, e.params["dimension"]),
    "stack": lambda e, *xs: np.stack(xs, e.params["axis"]),
    "unstack": lambda e, x: list(np.moveaxis(x, e.params["axis"], 0)),
    "tile": lambda e, x: np.tile(x, e.params["reps"]),
    "rev": lambda e, x: np.flip(x, tuple(e.params["dimensions"])),
    "slice": _slice,
    "split": _split,
    "pad": _pad,
    "iota": _iota,
    "gather": _moved_by_index,
    "scatter": _moved_by_index,
    "dynamic_slice": _moved_by_index,
    "dynamic_update_slice": _moved_by_index,
}


def extreme(sign: int) -> Callable[[np.dtype], Any]:
    def value(dtype: np.dtype) -> Any:
        if np.issubdtype(dtype, np.integer):
            info = np.iinfo(dtype)
            return dtype.type(info.max if sign > 0 else info.min)
        return np.asarray(sign * np.inf).astype(dtype)[()]

    return value


REDUCING: dict[str, Callable[..., Tiles]] = {
    "reduce_sum": _reduce(lax.add, lambda d: np.zeros((), d)[()]),
    "reduce_prod": _reduce(lax.mul, lambda d: np.ones((), d)[()]),
    "reduce_max": _reduce(lax.max, extreme(-1)),
    "reduce_min": _reduce(lax.min, extreme(1)),
    "reduce_and": _reduce(lax.bitwise_and, lambda d: np.ones((), d)[()]),
    "reduce_or": _reduce(lax.bitwise_or, lambda d: np.zeros((), d)[()]),
    "reduce_xor": _reduce(lax.bitwise_xor, lambda d: np.zeros((), d)[()]),
    "argmax": _arg_reduce(lax.gt),
    "argmin": _arg_reduce(lax.lt),
    "cumsum": _cumulative(lax.add),
    "cumprod": _cumulative(lax.mul),
    "cummax": _cumulative(lax.max),
    "cummin": _cumulative(lax.min),
    "dot_general": _dot_general,
    "polynomial": _polynomial,
}

# Integer arithmetic on indices is folded at once, so that indices stay known.
_FOLDED: dict[str, Callable[..., Any]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "max": np.maximum, "min": np.minimum, "lt": np.less,
    "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal, "eq": np.equal, "ne": np.not_equal,
    "and": np.bitwise_and, "or": np.bitwise_or, "not": np.bitwise_not, "neg": np.negative,
    "select_n": lambda which, *cases: cases[int(which)],
    "clamp": lambda low, x, high: np.minimum(np.maximum(x, low), high),
}  # fmt: skip


def _bind(eqn: Step, *operands: Any) -> Any:
    name = eqn.name
    if all(_is_constant(t) and np.asarray(t).dtype.kind in "biu" for t in operands):
        dtype = eqn.dtype
        if name == "convert_element_type":
            return np.asarray(operands[0]).astype(dtype)[()]
        if name in _FOLDED:
            return np.asarray(_FOLDED[name](*operands)).astype(dtype)[()]
    own = eqn.arithmetic.functions.get((name, eqn.dtype))
    return eqn.apply(name, own or functools.partial(eqn.primitive.bind, **eqn.params), *operands)


def inner_jaxpr(eqn: Any) -> ClosedJaxpr | None:
    """The jaxpr that this equation only wraps, if it is one to be inlined."""
    if (key := INLINED.get(eqn.primitive.name)) is None:
        return None
    inner = eqn.params[key]
    return inner if isinstance(inner, ClosedJaxpr) else ClosedJaxpr(inner, ())


def evaluate(closed: ClosedJaxpr, args: Sequence[Tiles], arithmetic: Arithmetic = EXACT) -> list[Tiles]:
    """Run a jaxpr on arrays of tiles."""
    env: dict[Any, Tiles] = {}

    def constant(value: Any, dtype: Any) -> Tiles:
        host = np.asarray(value, arithmetic.dtype(dtype))  # a concrete array of the formula itself
        return tiles(host.shape, list(host.ravel()))

    def read(v: Any) -> Tiles:
        if isinstance(v, Literal):
            literal: Any = v.aval
            return constant(v.val, literal.dtype)
        return env[v]

    for var, const in zip(closed.jaxpr.constvars, closed.consts, strict=True):
        aval: Any = var.aval
        env[var] = constant(const, aval.dtype)
    env.update(zip(closed.jaxpr.invars, args, strict=True))
    for eqn in closed.jaxpr.eqns:
        operands = [read(v) for v in eqn.invars]
        if (inner := inner_jaxpr(eqn)) is not None:
            out = evaluate(inner, operands, arithmetic)
        else:
            out = _run(_step(eqn, arithmetic), operands)
        env.update(zip(eqn.outvars, out if isinstance(out, list) else [out], strict=True))
    return [read(v) for v in closed.jaxpr.outvars]


def run_equation(eqn: Any, operands: list[Tiles], arithmetic: Arithmetic = EXACT) -> list[Tiles]:
    """One equation, which wraps no other jaxpr, on arrays of tiles."""
    out = _run(_step(eqn, arithmetic), operands)
    return out if isinstance(out, list) else [out]


def _step(eqn: Any, arithmetic: Arithmetic) -> Step:
    aval: Any = eqn.outvars[0].aval
    params = dict(eqn.params)
    if "new_dtype" in params:
        params["new_dtype"] = arithmetic.dtype(params["new_dtype"])
    read = tuple(arithmetic.dtype(v.aval.dtype) for v in eqn.invars)
    return Step(eqn.primitive, params, tuple(aval.shape), arithmetic.dtype(aval.dtype), read, arithmetic)


def _run(step: Step, operands: list[Tiles]) -> Tiles | list[Tiles]:
    if step.name in IDENTITY:
        return operands
    if step.name in ELEMENTWISE:
        arrays = np.broadcast_arrays(*operands)
        items = zip(*(a.ravel() for a in arrays), strict=True)
        return tiles(arrays[0].shape, [_bind(step, *each) for each in items])
    if step.name in STRUCTURAL:
        return STRUCTURAL[step.name](step, *operands)
    if step.name in REDUCING:
        return REDUCING[step.name](step, *operands)
    raise Unsupported(f"{step.name} acts on whole feature arrays")


def primitives(closed: ClosedJaxpr) -> set[tuple[str, np.dtype]]:
    """The names of what is computed, each with the dtype of its result."""
    found: set[tuple[str, np.dtype]] = set()
    for eqn in closed.jaxpr.eqns:
        if (inner := inner_jaxpr(eqn)) is not None:
            found |= primitives(inner)
        elif eqn.primitive.name in ELEMENTWISE:
            aval: Any = eqn.outvars[0].aval
            found.add((eqn.primitive.name, np.dtype(aval.dtype)))
    return found


def count(closed: ClosedJaxpr) -> int:
    """How many scalar operations one evaluation costs; raises `Unsupported` where there is no such number."""
    total = 0
    for eqn in closed.jaxpr.eqns:
        name = eqn.primitive.name
        if (inner := inner_jaxpr(eqn)) is not None:
            total += count(inner)
        elif name in ELEMENTWISE:
            total += sum(v.aval.size for v in eqn.outvars)
        elif name == "dot_general":
            contracted = math.prod(eqn.invars[0].aval.shape[k] for k in eqn.params["dimension_numbers"][0][0])
            total += 2 * contracted * eqn.outvars[0].aval.size
        elif name == "polynomial":
            total += 2 * (len(eqn.invars) - 2) * eqn.outvars[0].aval.size
        elif name in REDUCING:
            total += max(v.aval.size for v in eqn.invars)
        elif name not in STRUCTURAL and name not in IDENTITY:
            raise Unsupported(f"{name} acts on whole feature arrays")
    return total


def moves_by_index(closed: ClosedJaxpr) -> bool:
    """Whether something is moved by indices, which `evaluate` can only do where they are known."""
    inner = [i for eqn in closed.jaxpr.eqns if (i := inner_jaxpr(eqn)) is not None]
    own = any(STRUCTURAL.get(eqn.primitive.name) is _moved_by_index for eqn in closed.jaxpr.eqns)
    return own or any(map(moves_by_index, inner))
