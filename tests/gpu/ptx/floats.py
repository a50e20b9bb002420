"""Arithmetic of floats: exact, approximate, and between types.

Approximate functions have the error that PTX states (ISA 8.8, 9.7.3); here they are exact, or off by a given fraction
of that error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from . import rounding
from .arithmetic import Operation, define
from .parser import WIDTH
from .values import Array, is_float, write


def _floats(op: Operation, compute: Callable[..., Any], *values: Array) -> Array:
    """With the modifiers .ftz and .sat of floats."""
    ftz = op.pick("ftz")
    out = compute(*(rounding.flushed(v) for v in values) if ftz else values)
    out = rounding.flushed(out) if ftz else out
    return rounding.saturated(out) if op.pick("sat") else out


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
    return _floats(
        op, lambda x, y: (function(x.astype(np.float64), y) * (1 + error * relative)).astype(np.float32), a, b
    )


@define("t = t", "{rcp,rsqrt}.approx.ftz.f64")
def _gross(op: Operation, a: Array) -> Array:
    """Only the upper 32 bits of the operand are read and of the result given (9.7.3, rcp.approx.ftz.f64)."""
    upper = np.uint64(0xFFFFFFFF00000000)
    cut = lambda x: (np.ascontiguousarray(x).view(np.uint64) & upper).view(np.float64)  # noqa: E731
    flush = lambda x: np.where(np.abs(x) < np.finfo(np.float64).tiny, np.copysign(0.0, x), x)  # noqa: E731
    return flush(cut(APPROXIMATIONS[op.words[0]][0](flush(cut(a)))))


@define("t = t", "rsqrt.approx.f64")
def _inverse_root(op: Operation, a: Array, error: float = 0.0) -> Array:
    """In software; the ISA states no bound: a unit in the last place."""
    return (1.0 / np.sqrt(a)) * (1 + error * 2.0**-52)


APPROXIMATE = {_inverse_root, _approximate, _approximate_quotient}


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


@define("b32 = f32", "cvt.rna.tf32.f32")
def _tf32(op: Operation, a: Array) -> Array:
    """To ten bits after the point, ties away from zero."""
    bits = np.ascontiguousarray(a).view(np.uint32)
    rounded = (bits + np.uint32(1 << 12)) & np.uint32(0xFFFFE000)
    return np.where(np.isfinite(a), rounded, bits & np.uint32(0xFFFFE000) | np.isnan(a) * np.uint32(1 << 22))


@define("b32 = f32 f32", "cvt.rn.{f16x2,bf16x2}.f32")
def _packed(op: Operation, high: Array, low: Array) -> Array:
    kind = "f16" if op.pick("f16x2") else "bf16"
    halves = [write(v.astype(np.float16) if kind == "f16" else v, kind).astype(np.uint32) for v in (high, low)]
    return (halves[0] << np.uint32(16)) | halves[1]
