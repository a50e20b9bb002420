"""The table of instructions that compute: an exact opcode, its operand types, a NumPy function.

Every opcode stands in the table with all its modifiers, or is refused.  A pattern such as `add{,.ftz}.{f32,f64}` is
expanded as a shell would; a signature such as `t = t t u32` says how each operand is read: `t` is the last type in the
opcode, `d` the one before it or the same, `w` the type of twice its width.
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


# With a carry, from which wider additions are made (ISA 8.8, 9.7.2)

_WORDS = "{u32,s32,u64,s64}"


def _sum(op: Operation, a: Array, b: Array, carry: Array | None) -> tuple[Array, Array] | Array:
    kind, unsigned = a.dtype, f"u{a.dtype.itemsize}"
    x, y = (np.ascontiguousarray(v).view(unsigned) for v in (a, b))
    total = x + y
    out = total < x
    if carry is not None:
        more = total + carry.astype(unsigned)
        total, out = more, out | (more < total)
    total = total.view(kind)
    return (total, out) if "cc" in op.words else total


@define("t = t t", f"add.cc.{_WORDS}")
def _add_cc(op: Operation, a: Array, b: Array) -> tuple[Array, Array] | Array:
    return _sum(op, a, b, None)


@define("t = t t carry", f"addc{{,.cc}}.{_WORDS}")
def _addc(op: Operation, a: Array, b: Array, carry: Array) -> tuple[Array, Array] | Array:
    return _sum(op, a, b, carry)


def _half_product(op: Operation, a: Array, b: Array) -> Array:
    return a * b if "lo" in op.words else high_product(a, b)


@define("t = t t t", f"mad.{{lo,hi}}.cc.{_WORDS}")
def _mad_cc(op: Operation, a: Array, b: Array, c: Array) -> tuple[Array, Array] | Array:
    return _sum(op, _half_product(op, a, b), c, None)


@define("t = t t t carry", f"madc.{{lo,hi}}{{,.cc}}.{_WORDS}")
def _madc(op: Operation, a: Array, b: Array, c: Array, carry: Array) -> tuple[Array, Array] | Array:
    return _sum(op, _half_product(op, a, b), c, carry)


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
