"""Arithmetic that writes Triton's IR as text: what `scalarize` runs on JAX values elsewhere, it runs on names here.

A tile is a `Value`: the name of an SSA value with its shape, a power of two along each axis, and dtype.  Every function
that the rules of `scalarize` apply is traced on scalars, and the primitives found there are written one by one.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import Literal

from ..scalarize import Arithmetic, inner_jaxpr

DTYPES = {"bool": "i1", "int32": "i32", "int64": "i64", "float32": "f32", "float64": "f64"}

# Functions of CUDA's libdevice, __nv_<name>, with an f after it for single precision.
LIBRARY = {
    name: name
    for name in """acos acosh asin asinh atan atan2 atanh cbrt cos cosh erf erfc exp exp2 expm1 lgamma log log1p pow
    rsqrt sin sinh sqrt tan tanh""".split()
} | {"erf_inv": "erfinv", "nextafter": "nextafter", "rem": "fmod"}

_BINARY = {  # (for floats, for integers)
    "add": ("addf", "addi"), "add_any": ("addf", "addi"), "sub": ("subf", "subi"), "mul": ("mulf", "muli"),
    "div": ("divf", "divsi"), "max": ("maximumf", "maxsi"), "min": ("minimumf", "minsi"), "and": (None, "andi"),
    "or": (None, "ori"), "xor": (None, "xori"),
}  # fmt: skip
_COMPARED = {"eq": ("oeq", "eq"), "ne": ("une", "ne"), "lt": ("olt", "slt"), "le": ("ole", "sle"), "gt": ("ogt", "sgt"),
             "ge": ("oge", "sge")}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Value:
    """An SSA value."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def type(self) -> str:
        return type_of(self.shape, DTYPES[self.dtype.name])


def type_of(shape: Sequence[int], element: str) -> str:
    """tensor<64x32xf32>, or f32 for a scalar."""
    return f"tensor<{'x'.join(map(str, shape))}x{element}>" if len(shape) else element


class Text(Arithmetic):
    """The lines of a function, and the arithmetic that adds to them."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.count = 0
        self._constants: dict[Any, Value] = {}

    def name(self) -> str:
        self.count += 1
        return f"%v{self.count}"

    def line(self, text: str) -> None:
        self.lines.append(text)

    def emit(self, operation: str, shape: Sequence[int], dtype: Any) -> Value:
        """One operation with one result; its type ends the text if it has a %t there."""
        value = Value(self.name(), tuple(shape), np.dtype(dtype))
        self.line(f"{value.name} = {operation.replace('%t', value.type)}")
        return value

    @contextlib.contextmanager
    def block(self, constants: bool = True) -> Iterator[None]:
        """Constants of an inner block are not seen outside it; with `constants` it sees those outside."""
        kept, self._constants = self._constants, dict(self._constants) if constants else {}
        yield
        self._constants = kept

    def constant(self, value: Any, shape: Sequence[int] = ()) -> Value:
        array = np.asarray(value)
        key = (array.tobytes(), array.dtype.name, tuple(shape))
        if key not in self._constants:
            if array.dtype == bool:
                text = "true" if array else "false"
            elif array.dtype.kind == "f":  # bit by bit
                text = f"0x{int(array.view(f'u{array.dtype.itemsize}')):0{2 * array.dtype.itemsize}X}"
            else:
                text = str(int(array))
            if shape:
                text = f"dense<{text}>"
            element = "" if array.dtype == bool and not shape else " : %t"  # true and false have a type
            self._constants[key] = self.emit(f"arith.constant {text}{element}", shape, array.dtype)
        return self._constants[key]

    def broadcast(self, tile: Any, shape: Sequence[int]) -> Value:
        """A tile, or a constant, as one of a shape."""
        shape = tuple(shape)
        if not isinstance(tile, Value):
            return self.constant(tile, shape)
        if tile.shape == shape:
            return tile
        if not tile.shape:
            return self.emit(f"tt.splat {tile.name} : {tile.type} -> %t", shape, tile.dtype)
        for axis in range(len(shape) - len(tile.shape)):
            wider = (1, *tile.shape)
            tile = self.emit(f"tt.expand_dims {tile.name} {{axis = 0 : i32}} : {tile.type} -> %t", wider, tile.dtype)
            del axis
        if tile.shape == shape:
            return tile
        return self.emit(f"tt.broadcast {tile.name} : {tile.type} -> %t", shape, tile.dtype)

    def apply(self, name: str, fn: Callable[..., Any], *operands: Any) -> Any:
        """The primitives of `fn` on tiles that broadcast."""
        shape = np.broadcast_shapes(*(np.shape(t) for t in operands))
        avals = [jax.ShapeDtypeStruct((), t.dtype) for t in operands]
        closed = jax.make_jaxpr(fn)(*avals)
        (out,) = self.run(closed, [self.broadcast(t, shape) for t in operands], shape)
        return out

    def run(self, closed: Any, values: Sequence[Value], shape: tuple[int, ...]) -> list[Value]:
        """A jaxpr of scalars, on tiles of one shape."""
        env: dict[Any, Value] = dict(zip(closed.jaxpr.invars, values, strict=True))
        env.update(
            {
                v: self.broadcast(np.asarray(c)[()], shape)
                for v, c in zip(closed.jaxpr.constvars, closed.consts, strict=True)
            }
        )

        def read(v: Any) -> Value:
            if isinstance(v, Literal):
                aval: Any = v.aval
                return self.broadcast(np.asarray(v.val, aval.dtype)[()], shape)
            return env[v]

        for eqn in closed.jaxpr.eqns:
            operands = [read(v) for v in eqn.invars]
            if (inner := inner_jaxpr(eqn)) is not None:
                outs = self.run(inner, operands, shape)
            else:
                outs = [self.primitive(eqn.primitive.name, eqn.params, operands, eqn.outvars[0].aval.dtype)]
            env.update(zip(eqn.outvars, outs, strict=True))
        return [read(v) for v in closed.jaxpr.outvars]

    # Primitives

    def primitive(self, name: str, params: Any, operands: Sequence[Value], dtype: Any) -> Value:
        x, shape = operands[0], operands[0].shape
        floating = x.dtype.kind == "f"
        same = lambda op: self.emit(f"{op} {', '.join(v.name for v in operands)} : %t", shape, dtype)  # noqa: E731
        one = lambda v: self.broadcast(x.dtype.type(v), shape)  # noqa: E731
        call = lambda n, *v: self.primitive(n, {}, v, x.dtype)  # noqa: E731
        if name in _BINARY and (operation := _BINARY[name][not floating]) is not None:
            return same(f"arith.{operation}")
        if name in _COMPARED:
            kind = "cmpf" if floating else "cmpi"
            relation = _COMPARED[name][not floating]
            if x.dtype == bool:
                relation = relation.replace("s", "u")  # True is 1, not -1
            return self.emit(f"arith.{kind} {relation}, {x.name}, {operands[1].name} : {x.type}", shape, np.bool_)
        if name in ("stop_gradient", "copy", "copy_p", "optimization_barrier", "broadcast_in_dim", "reshape"):
            return x
        if name in LIBRARY and floating:
            return self.library(LIBRARY[name], operands)
        if name == "convert_element_type":
            return self.converted(x, np.dtype(params["new_dtype"]))
        if name == "select_n":
            which, no, yes = operands
            return self.emit(f"arith.select {which.name}, {yes.name}, {no.name} : {which.type}, %t", shape, no.dtype)
        if name == "neg":
            return same("arith.negf") if floating else call("sub", one(0), x)
        if name == "not":
            return call("xor", x, one(True if x.dtype == bool else -1))
        if name == "abs":
            return same("math.absf" if floating else "math.absi")
        if name in ("floor", "ceil") and floating:
            return same(f"math.{name}")
        if name == "square":
            return call("mul", x, x)
        if name == "integer_pow":
            return self.power(x, int(params["y"]))
        if name == "sign":
            negative, positive = call("lt", x, one(0)), call("gt", x, one(0))
            zero = x if floating else one(0)  # of floats: NaN, 0 and -0 are their own
            return call("select_n", positive, call("select_n", negative, zero, one(-1)), one(1))
        if name == "is_finite":
            return call("lt", call("abs", x), one(np.inf))
        if name == "clamp":
            low, x, high = operands
            return self.primitive("min", {}, (self.primitive("max", {}, (x, low), x.dtype), high), x.dtype)
        if name == "logistic":
            return call("div", one(1), call("add", one(1), call("exp", call("neg", x))))
        raise NotImplementedError(name)

    def library(self, function: str, operands: Sequence[Value]) -> Value:
        x = operands[0]
        symbol = f"__nv_{function}{'f' if x.dtype == np.float32 else ''}"
        names, types = ", ".join(v.name for v in operands), ", ".join(v.type for v in operands)
        attributes = f'{{libname = "", libpath = "", pure = true, symbol = "{symbol}"}}'
        return self.emit(f"tt.extern_elementwise {names} {attributes} : ({types}) -> %t", x.shape, x.dtype)

    def converted(self, x: Value, dtype: np.dtype) -> Value:
        old, new = x.dtype, dtype
        if old == new:
            return x
        if new.kind == "b":
            return self.primitive("ne", {}, (x, self.broadcast(old.type(0), x.shape)), new)
        wider = new.itemsize > old.itemsize
        if old.kind == "f":
            operation = ("extf" if wider else "truncf") if new.kind == "f" else "fptosi"
        elif new.kind == "f":
            operation = "uitofp" if old.kind == "b" else "sitofp"
        else:
            operation = "extui" if old.kind == "b" else "extsi" if wider else "trunci"
        return self.emit(f"arith.{operation} {x.name} : {x.type} to %t", x.shape, new)

    def power(self, x: Value, exponent: int) -> Value:
        """By squaring."""
        multiply = lambda a, b: self.primitive("mul", {}, (a, b), a.dtype)  # noqa: E731
        result, square, rest = None, x, abs(exponent)
        while rest:
            if rest & 1:
                result = square if result is None else multiply(result, square)
            rest >>= 1
            square = multiply(square, square) if rest else square
        unit = self.broadcast(x.dtype.type(1), x.shape)
        result = unit if result is None else result
        return self.primitive("div", {}, (unit, result), x.dtype) if exponent < 0 else result


def refusal(closed: Any) -> str | None:
    """None, or what of a jaxpr cannot be written."""
    for v in [*closed.jaxpr.invars, *closed.jaxpr.outvars, *(o for e in closed.jaxpr.eqns for o in e.outvars)]:
        if str(v.aval.dtype) not in DTYPES:
            return f"{v.aval.dtype} values are not written in Triton's IR"
    return None
