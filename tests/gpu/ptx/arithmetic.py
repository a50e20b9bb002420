"""The table of instructions that compute: an exact opcode, its operand types, a NumPy function.

Every opcode stands in the table with all its modifiers, or is refused.  A pattern such as `add{,.ftz}.{f32,f64}` is
expanded as a shell would; a signature such as `t = t t u32` says how each operand is read: `t` is the last type in the
opcode, `d` the one before it or the same, `w` the type of twice its width.

Approximate functions have the error that PTX states (ISA 8.8, 9.7.3); here they are exact, or off by a given fraction
of that error.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from . import rounding
from .parser import WIDTH
from .values import Array, doubled, is_float, is_type


@dataclasses.dataclass(frozen=True)
class Operation:
    """One opcode: how its operands are read, and what it computes."""

    opcode: str
    destination: str
    sources: tuple[str, ...]
    function: Callable[..., Any]
    wider: bool = False  # registers may be wider than the types

    @functools.cached_property
    def words(self) -> list[str]:
        return self.opcode.split(".")

    @property
    def type(self) -> str:
        return [w for w in self.words if is_type(w)][-1]

    def pick(self, *choices: str, default: str = "") -> str:
        """Which of these modifiers the opcode has."""
        for word in self.words[1:]:
            if word in choices:
                return word
        return default


OPERATIONS: dict[str, Operation] = {}


def expand(pattern: str) -> Iterator[str]:
    """All opcodes of a pattern."""
    parts = re.split(r"\{([^}]*)\}", pattern)
    for chosen in itertools.product(*(p.split(",") if k % 2 else [p] for k, p in enumerate(parts))):
        yield "".join(chosen)


def define(signature: str, *patterns: str, wider: bool = False) -> Callable[[Any], Any]:
    """Put a function into the table.  It is called with the operation and the values of its sources."""
    destination, sources = (side.split() for side in signature.split("="))

    def register(function: Any) -> Any:
        for opcode in itertools.chain.from_iterable(map(expand, patterns)):
            assert opcode not in OPERATIONS, opcode
            types = [w for w in opcode.split(".") if is_type(w)]
            names = {"t": types[-1], "d": types[-2] if len(types) > 1 else types[-1]}
            if "w" in [*destination, *sources]:
                names["w"] = doubled(types[-1])
            read = tuple(names.get(s, s) for s in sources)
            OPERATIONS[opcode] = Operation(opcode, names.get(destination[0], destination[0]), read, function, wider)
        return function

    return register


INTEGERS = "{u16,s16,u32,s32,u64,s64}"


def _floats(op: Operation, compute: Callable[..., Any], *values: Array) -> Array:
    """With the modifiers .ftz and .sat of floats."""
    ftz = op.pick("ftz")
    out = compute(*(rounding.flushed(v) for v in values) if ftz else values)
    out = rounding.flushed(out) if ftz else out
    return rounding.saturated(out) if op.pick("sat") else out


# Integers


@define("t = t t", f"add.{INTEGERS}")
def _add(op: Operation, a: Array, b: Array) -> Array:
    return a + b


@define("t = t t", f"sub.{INTEGERS}")
def _sub(op: Operation, a: Array, b: Array) -> Array:
    return a - b


@define("t = t t", f"mul.lo.{INTEGERS}")
def _mul_lo(op: Operation, a: Array, b: Array) -> Array:
    return a * b


@define("w = t t", "mul.wide.{u16,s16,u32,s32}")
def _mul_wide(op: Operation, a: Array, b: Array) -> Array:
    dtype = f"{np.dtype(a.dtype).kind}{2 * a.dtype.itemsize}"
    return a.astype(dtype) * b.astype(dtype)


def high_product(a: Array, b: Array) -> Array:
    """The upper half of a product."""
    bits = 8 * a.dtype.itemsize
    if bits < 64:
        wide = f"{a.dtype.kind}{2 * a.dtype.itemsize}"
        return ((a.astype(wide) * b.astype(wide)) >> np.array(bits, wide)).astype(a.dtype)
    exact = np.broadcast_arrays(a.astype(object) * b.astype(object))[0]
    return np.array([(int(x) >> 64) % (1 << 64) for x in exact.ravel()], np.uint64).reshape(exact.shape).view(a.dtype)


@define("t = t t", f"mul.hi.{INTEGERS}")
def _mul_hi(op: Operation, a: Array, b: Array) -> Array:
    return high_product(a, b)


@define("t = t t t", f"mad.lo.{INTEGERS}")
def _mad_lo(op: Operation, a: Array, b: Array, c: Array) -> Array:
    return a * b + c


@define("t = t t t", f"mad.hi.{INTEGERS}")
def _mad_hi(op: Operation, a: Array, b: Array, c: Array) -> Array:
    return high_product(a, b) + c


@define("w = t t w", "mad.wide.{u16,s16,u32,s32}")
def _mad_wide(op: Operation, a: Array, b: Array, c: Array) -> Array:
    return _mul_wide(op, a, b) + c


def _divided(a: Array, b: Array) -> Array:
    """Toward zero; by zero it is unspecified: all ones."""
    safe = np.where(b == 0, b.dtype.type(1), b)
    if a.dtype.kind == "u":
        return np.where(b == 0, ~a.dtype.type(0), a // safe)
    quotient = np.where(safe == -1, -a, a // np.where(safe == -1, b.dtype.type(1), safe))
    exact = quotient * safe == a
    return np.where(b == 0, a.dtype.type(-1), np.where(~exact & ((a < 0) != (safe < 0)), quotient + 1, quotient))


@define("t = t t", f"div.{INTEGERS}")
def _div(op: Operation, a: Array, b: Array) -> Array:
    return _divided(a, b).astype(a.dtype)


@define("t = t t", f"rem.{INTEGERS}")
def _rem(op: Operation, a: Array, b: Array) -> Array:
    return np.where(b == 0, a, a - _divided(a, b).astype(a.dtype) * b)


@define("t = t", "abs.{s16,s32,s64}", "neg.{s16,s32,s64}")
def _sign(op: Operation, a: Array) -> Array:
    return -a if op.pick() == "" and op.words[0] == "neg" else np.abs(a)


@define("t = t t", f"min.{INTEGERS}", f"max.{INTEGERS}")
def _extreme(op: Operation, a: Array, b: Array) -> Array:
    return (np.minimum if op.words[0] == "min" else np.maximum)(a, b)


@define("u32 = t", "popc.{b32,b64}", "clz.{b32,b64}")
def _count_bits(op: Operation, a: Array) -> Array:
    width = 8 * a.dtype.itemsize
    one, bits = a.dtype.type(1), [(a >> a.dtype.type(k)) & a.dtype.type(1) for k in range(width)]
    if op.words[0] == "popc":
        return sum(bits).astype(np.uint32)  # type: ignore[union-attr]
    out = np.zeros(a.shape, np.uint32)
    running = np.ones(a.shape, bool)
    for bit in reversed(bits):
        running = running & (bit != one)
        out = out + running.astype(np.uint32)
    return out


@define("t = t", "brev.{b32,b64}")
def _reversed_bits(op: Operation, a: Array) -> Array:
    width, one = 8 * a.dtype.itemsize, a.dtype.type(1)
    out = np.zeros_like(a)
    for k in range(width):
        out = out | (((a >> a.dtype.type(k)) & one) << a.dtype.type(width - 1 - k))
    return out


# Bits


@define("t = t t", "and.{pred,b16,b32,b64}", "or.{pred,b16,b32,b64}", "xor.{pred,b16,b32,b64}")
def _logic(op: Operation, a: Array, b: Array) -> Array:
    return {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}[op.words[0]](a, b)


@define("t = t", "not.{pred,b16,b32,b64}")
def _not(op: Operation, a: Array) -> Array:
    return ~a


@define("t = t u32", "shl.{b16,b32,b64}", "shr.{b16,b32,b64,u16,u32,u64,s16,s32,s64}")
def _shift(op: Operation, a: Array, by: Array) -> Array:
    """By more than the width, everything is shifted out."""
    bits = 8 * a.dtype.itemsize
    inside = np.minimum(by, np.uint32(bits - 1)).astype(a.dtype)
    if op.words[0] == "shl":
        return np.where(by >= bits, a.dtype.type(0), a << inside)
    gone = a >> a.dtype.type(bits - 1) if a.dtype.kind == "i" else a.dtype.type(0)
    return np.where(by >= bits, gone, a >> inside)


@define("b32 = b32 b32 u32", "shf.{l,r}.{wrap,clamp}.b32")
def _funnel(op: Operation, low: Array, high: Array, by: Array) -> Array:
    both = (high.astype(np.uint64) << np.uint64(32)) | low.astype(np.uint64)
    by = (by & np.uint32(31)) if op.pick("wrap") else np.minimum(by, np.uint32(32))
    if op.pick("l"):
        return ((both << by.astype(np.uint64)) >> np.uint64(32)).astype(np.uint32)
    return (both >> by.astype(np.uint64)).astype(np.uint32)


@define("t = t u32 u32", "bfe.{u32,s32,u64,s64}")
def _field(op: Operation, a: Array, start: Array, length: Array) -> Array:
    """A field of bits as a number; beyond the top it is the sign, or zero."""
    top = 8 * a.dtype.itemsize - 1
    start, length = start & np.uint32(255), length & np.uint32(255)
    last = np.minimum(np.minimum(start + length - np.uint32(1), np.uint32(top)), np.uint32(top)).astype(a.dtype)
    sign = (a >> last) & a.dtype.type(1) if a.dtype.kind == "i" else a.dtype.type(0)
    out = np.zeros(np.broadcast_shapes(a.shape, start.shape), a.dtype)
    for k in range(top + 1):
        inside = (k < length) & (start + np.uint32(k) <= top)
        bit = (a >> np.minimum(start + np.uint32(k), np.uint32(top)).astype(a.dtype)) & a.dtype.type(1)
        out = out | (np.where(inside, bit, sign) << a.dtype.type(k))
    return np.where(length == 0, a.dtype.type(0), out)


@define("t = t t u32 u32", "bfi.{b32,b64}")
def _inserted(op: Operation, field: Array, into: Array, start: Array, length: Array) -> Array:
    top = 8 * into.dtype.itemsize - 1
    start, length = start & np.uint32(255), length & np.uint32(255)
    out = np.broadcast_to(into, np.broadcast_shapes(field.shape, into.shape)).copy()
    for k in range(top + 1):
        inside = (k < length) & (start + np.uint32(k) <= top)
        at = np.minimum(start + np.uint32(k), np.uint32(top)).astype(into.dtype)
        bit = ((field >> into.dtype.type(k)) & into.dtype.type(1)) << at
        out = np.where(inside, (out & ~(into.dtype.type(1) << at)) | bit, out)
    return out


@define("b32 = b32 b32 b32 u32", "lop3.b32")
def _lookup(op: Operation, a: Array, b: Array, c: Array, table: Array) -> Array:
    out = np.zeros(np.broadcast_shapes(a.shape, b.shape, c.shape), np.uint32)
    for k in range(8):
        chosen = (a if k & 4 else ~a) & (b if k & 2 else ~b) & (c if k & 1 else ~c)
        out = np.where((table >> np.uint32(k)) & np.uint32(1) == 1, out | chosen, out)
    return out


@define("b32 = b32 b32 b32", "prmt.b32")
def _permuted(op: Operation, a: Array, b: Array, selector: Array) -> Array:
    both = (b.astype(np.uint64) << np.uint64(32)) | a.astype(np.uint64)
    out = np.zeros(both.shape, np.uint32)
    for k in range(4):
        choice = (selector >> np.uint32(4 * k)) & np.uint32(15)
        byte = ((both >> (np.uint64(8) * (choice & np.uint32(7)).astype(np.uint64))) & np.uint64(255)).astype(np.uint32)
        sign = np.where(byte & np.uint32(128), np.uint32(255), np.uint32(0))
        out = out | (np.where(choice & np.uint32(8), sign, byte) << np.uint32(8 * k))
    return out


# Comparison and choice

_ORDERED = {"eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater,
            "ge": np.greater_equal, "lo": np.less, "ls": np.less_equal, "hi": np.greater,
            "hs": np.greater_equal}  # fmt: skip
_COMPARE = "{eq,ne,lt,le,gt,ge}"


def _compared(op: Operation, a: Array, b: Array) -> Array:
    relation = op.words[1]
    if not is_float(op.type):
        return _ORDERED[relation](a, b)
    if op.pick("ftz"):
        a, b = rounding.flushed(a), rounding.flushed(b)
    unordered = np.isnan(a) | np.isnan(b)
    if relation in ("num", "nan"):
        return unordered if relation == "nan" else ~unordered
    if relation in _ORDERED:
        return _ORDERED[relation](a, b) & ~unordered
    return _ORDERED[relation[:-1]](a, b) | unordered


_SETP = [
    f"setp.{_COMPARE}%.{{u16,s16,u32,s32,u64,s64}}",
    "setp.{eq,ne}%.{b16,b32,b64}",
    "setp.{lo,ls,hi,hs}%.{u16,u32,u64}",
    "setp.{eq,ne,lt,le,gt,ge,equ,neu,ltu,leu,gtu,geu,num,nan}%.{f16,f64}",
    "setp.{eq,ne,lt,le,gt,ge,equ,neu,ltu,leu,gtu,geu,num,nan}%{,.ftz}.f32",
]


@define("pred = t t", *(p.replace("%", "") for p in _SETP))
def _setp(op: Operation, a: Array, b: Array) -> Array:
    return _compared(op, a, b)


@define("pred = t t pred", *(p.replace("%", ".{and,or,xor}") for p in _SETP))
def _setp_with(op: Operation, a: Array, b: Array, c: Array) -> Array:
    combine = {"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor}[op.pick("and", "or", "xor")]
    return combine(_compared(op, a, b), c)


@define("t = t t pred", "selp.{b16,b32,b64,u16,u32,u64,s16,s32,s64,f32,f64}")
def _selp(op: Operation, a: Array, b: Array, which: Array) -> Array:
    return np.where(which, a, b)


@define("pred = t", "testp.{finite,infinite,number,notanumber,normal,subnormal}.{f32,f64}")
def _testp(op: Operation, a: Array) -> Array:
    tiny = np.finfo(a.dtype).tiny
    subnormal = (np.abs(a) < tiny) & (a != 0)
    tests = {"finite": np.isfinite, "infinite": np.isinf, "number": lambda x: ~np.isnan(x), "notanumber": np.isnan,
             "normal": lambda x: np.isfinite(x) & (np.abs(x) >= tiny), "subnormal": lambda x: subnormal}  # fmt: skip
    return tests[op.words[1]](a)


# Floats


@define("t = t t", "add{,.rn,.rz,.rm,.rp}{,.ftz}{,.sat}.f32", "add{,.rn,.rz,.rm,.rp}.f64")
def _fadd(op: Operation, a: Array, b: Array) -> Array:
    return _floats(op, lambda x, y: rounding.add(x, y, op.pick("rz", "rm", "rp", default="rn")), a, b)


@define("t = t t", "sub{,.rn,.rz,.rm,.rp}{,.ftz}{,.sat}.f32", "sub{,.rn,.rz,.rm,.rp}.f64")
def _fsub(op: Operation, a: Array, b: Array) -> Array:
    return _floats(op, lambda x, y: rounding.add(x, -y, op.pick("rz", "rm", "rp", default="rn")), a, b)


@define("t = t t", "mul{,.rn,.rz,.rm,.rp}{,.ftz}{,.sat}.f32", "mul{,.rn,.rz,.rm,.rp}.f64")
def _fmul(op: Operation, a: Array, b: Array) -> Array:
    return _floats(op, lambda x, y: rounding.mul(x, y, op.pick("rz", "rm", "rp", default="rn")), a, b)


@define("t = t t t", "fma.{rn,rz,rm,rp}{,.ftz}{,.sat}.f32", "fma.{rn,rz,rm,rp}.f64")
def _fma(op: Operation, a: Array, b: Array, c: Array) -> Array:
    return _floats(op, lambda x, y, z: rounding.fma(x, y, z, op.pick("rz", "rm", "rp", default="rn")), a, b, c)


@define("t = t t", "add{,.rn}.f16", "sub{,.rn}.f16", "mul{,.rn}.f16")
def _half(op: Operation, a: Array, b: Array) -> Array:
    return {"add": np.add, "sub": np.subtract, "mul": np.multiply}[op.words[0]](a, b)


@define("t = t t", "div.rn{,.ftz}.f32", "div.rn.f64")
def _fdiv(op: Operation, a: Array, b: Array) -> Array:
    return _floats(op, np.divide, a, b)


@define("t = t", "sqrt.rn{,.ftz}.f32", "sqrt.rn.f64", "rcp.rn{,.ftz}.f32", "rcp.rn.f64")
def _exact_function(op: Operation, a: Array) -> Array:
    return _floats(op, np.sqrt if op.words[0] == "sqrt" else lambda x: x.dtype.type(1) / x, a)


@define("t = t", "neg{,.ftz}.f32", "neg.{f16,f64,bf16}", "abs{,.ftz}.f32", "abs.{f16,f64,bf16}")
def _fsign(op: Operation, a: Array) -> Array:
    return _floats(op, np.negative if op.words[0] == "neg" else np.abs, a)


@define("t = t t", "copysign.{f32,f64}")
def _copysign(op: Operation, sign: Array, a: Array) -> Array:
    return np.copysign(a, sign)


@define("t = t t", "min{,.ftz}{,.NaN}.f32", "max{,.ftz}{,.NaN}.f32", "min.f64", "max.f64", "min{,.NaN}.{f16,bf16}",
        "max{,.NaN}.{f16,bf16}")  # fmt: skip
def _fextreme(op: Operation, a: Array, b: Array) -> Array:
    """-0 is below +0; NaN loses, or wins with .NaN."""
    low = op.words[0] == "min"

    def compute(a: Array, b: Array) -> Array:
        out = (np.fmin if low else np.fmax)(a, b)
        zero = (a == 0) & (b == 0)
        negative = (np.signbit(a) | np.signbit(b)) if low else (np.signbit(a) & np.signbit(b))
        out = np.where(zero, np.where(negative, -np.zeros_like(a), np.zeros_like(a)), out)
        unordered = np.isnan(a) | np.isnan(b) if op.pick("NaN") else np.isnan(a) & np.isnan(b)
        return np.where(unordered, a.dtype.type(np.nan), out)

    return _floats(op, compute, a, b)


# Approximations: the function, and the bound of its error as (relative, absolute).

APPROXIMATIONS: dict[str, tuple[Callable[..., Any], float, float]] = {
    "ex2": (np.exp2, 2.0**-22, 0.0),
    "lg2": (np.log2, 0.0, 2.0**-22),
    "sin": (np.sin, 0.0, 2.0**-20.5),
    "cos": (np.cos, 0.0, 2.0**-20.5),
    "tanh": (np.tanh, 2.0**-11, 0.0),
    "rcp": (lambda x: 1.0 / x, 2.0**-23, 0.0),
    "rsqrt": (lambda x: 1.0 / np.sqrt(x), 2.0**-22.9, 0.0),
    "sqrt": (np.sqrt, 2.0**-23, 0.0),
    "div": (np.divide, 2.0**-22, 0.0),
}


@define("t = t", "{ex2,lg2,sin,cos,rcp,rsqrt,sqrt}.approx{,.ftz}.f32", "tanh.approx.f32")
def _approximate(op: Operation, a: Array, error: float = 0.0) -> Array:
    function, relative, absolute = APPROXIMATIONS[op.words[0]]
    wide = lambda x: function(x.astype(np.float64))  # noqa: E731
    shifted = lambda x: (wide(x) * (1 + error * relative) + error * absolute).astype(np.float32)  # noqa: E731
    return _floats(op, shifted, a)


@define("t = t t", "div.{approx,full}{,.ftz}.f32")
def _approximate_quotient(op: Operation, a: Array, b: Array, error: float = 0.0) -> Array:
    function, relative, _ = APPROXIMATIONS["div"]
    return _floats(op, lambda x, y: (function(x.astype(np.float64), y) * (1 + error * relative)).astype(np.float32), a, b)


@define("t = t", "{rcp,rsqrt}.approx.ftz.f64")
def _gross(op: Operation, a: Array) -> Array:
    """Only the upper 32 bits of the operand are read and of the result given (9.7.3, rcp.approx.ftz.f64)."""
    upper = np.uint64(0xFFFFFFFF00000000)
    cut = lambda x: (np.ascontiguousarray(x).view(np.uint64) & upper).view(np.float64)  # noqa: E731
    flush = lambda x: np.where(np.abs(x) < np.finfo(np.float64).tiny, np.copysign(0.0, x), x)  # noqa: E731
    return flush(cut(APPROXIMATIONS[op.words[0]][0](flush(cut(a)))))


APPROXIMATE = {_approximate, _approximate_quotient}


# Conversion


def _cvt_patterns() -> Iterator[str]:
    whole = "{u8,s8,u16,s16,u32,s32,u64,s64}"
    yield f"cvt.{whole}.{whole}"
    yield f"cvt.sat.{whole}.{whole}"
    yield f"cvt.{{rni,rzi,rmi,rpi}}.{whole}.{{f16,bf16,f64}}"
    yield f"cvt.{{rni,rzi,rmi,rpi}}{{,.ftz}}.{whole}.f32"
    yield f"cvt.rn.{{f16,bf16,f32,f64}}.{whole}"
    yield "cvt{,.ftz}.{f64}.f32"
    yield "cvt.{rn,rz,rm,rp}{,.ftz}{,.sat}.f32.f64"
    yield "cvt{,.ftz}{,.sat}.f32.{f16,bf16}"
    yield "cvt.f64.{f16,bf16}"
    yield "cvt.rn.{f16,bf16}.{f32,f64}"
    yield "cvt{,.rni,.rzi,.rmi,.rpi}{,.ftz}{,.sat}.f32.f32"
    yield "cvt{,.rni,.rzi,.rmi,.rpi}.f64.f64"


@define("d = t", *_cvt_patterns(), wider=True)
def _cvt(op: Operation, a: Array) -> Array:
    target = op.destination
    if op.pick("ftz") and a.dtype == np.float32:
        a = rounding.flushed(a)
    to_whole = op.pick("rni", "rzi", "rmi", "rpi")
    if not is_float(target):
        dtype = np.dtype({"u": "u", "s": "i"}[target[0]] + str(WIDTH[target]))
        if is_float(op.type):
            return rounding.to_integer(a, dtype, to_whole)
        if op.pick("sat"):
            info = np.iinfo(dtype)
            wide = a.astype(object)
            return np.array([min(max(int(x), info.min), info.max) for x in wide.ravel()], dtype).reshape(a.shape)
        return a.astype(dtype)
    if to_whole:
        a = rounding.integral(a, to_whole)
    if target in ("f16", "bf16"):
        # To bfloat16 through single precision, rounded to odd so that rounding twice is right.
        if target == "f16":
            return a.astype(np.float16)
        if a.dtype == np.float32:
            return a
        exact = a.astype(np.float64)
        single = rounding.single(exact, np.zeros_like(exact), "rz")
        inexact = (single != exact) & np.isfinite(exact)
        return np.where(inexact, (single.view(np.uint32) | np.uint32(1)).view(np.float32), single)
    if target == "f32" and a.dtype == np.float64:
        out = rounding.single(a, np.zeros_like(a), op.pick("rz", "rm", "rp", default="rn"))
    else:
        out = a.astype({"f32": np.float32, "f64": np.float64}[target])
    if op.pick("ftz") and target == "f32":
        out = rounding.flushed(out)
    return rounding.saturated(out) if op.pick("sat") else out


@define("b32 = f32 f32", "cvt.rn.{f16x2,bf16x2}.f32")
def _packed(op: Operation, high: Array, low: Array) -> Array:
    from .values import write

    kind = "f16" if op.pick("f16x2") else "bf16"
    halves = [write(v.astype(np.float16) if kind == "f16" else v, kind).astype(np.uint32) for v in (high, low)]
    return (halves[0] << np.uint32(16)) | halves[1]
