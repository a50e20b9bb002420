"""Single instructions of the emulator against NumPy, exact fractions and Python's integers."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from .small import compute

R = np.random.default_rng(0)
I32 = np.concatenate([[0, 1, -1, 2**31 - 1, -(2**31), 7, -7], R.integers(-(2**31), 2**31, 25)]).astype(np.int32)
J32 = np.concatenate([[3, -1, -1, 2, -1, 2, 2], R.integers(-50, 50, 25) * 2 + 1]).astype(np.int32)
I64 = (I32.astype(np.int64) << 21) ^ I32
J64 = J32.astype(np.int64)
SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-41, -1e-41, 1.0, 3.4e38]
F32 = np.concatenate([SPECIAL, R.normal(size=23) * 10.0 ** R.integers(-6, 6, 23)]).astype(np.float32)
G32 = np.roll(F32, 5)
F64, G64 = F32.astype(np.float64) * 1.1, G32.astype(np.float64) / 3


def integers(function: Any, *arrays: Any, bits: int, signed: bool = True) -> Any:
    """A function of Python's integers, cut to a width."""
    out = [function(*(int(v) for v in each)) % (1 << bits) for each in zip(*arrays, strict=True)]
    return np.array(out, f"u{bits // 8}").view(f"{'i' if signed else 'u'}{bits // 8}")


def toward_zero(a: int, b: int) -> int:
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


@pytest.mark.parametrize(
    "name, function",
    [
        ("add", lambda a, b: a + b),
        ("sub", lambda a, b: a - b),
        ("mul.lo", lambda a, b: a * b),
        ("div", toward_zero),
        ("rem", lambda a, b: a - b * toward_zero(a, b)),
        ("min", min),
        ("max", max),
    ],
)
def test_integers(name: str, function: Any) -> None:
    for kind, a, b in (("s32", I32, J32), ("s64", I64, J64)):
        np.testing.assert_array_equal(
            compute(f"{name}.{kind} out, a, b;", [a, b], a.dtype), integers(function, a, b, bits=8 * a.itemsize)
        )
    for kind, a, b in (
        ("u32", I32.view(np.uint32), J32.view(np.uint32)),
        ("u64", I64.view(np.uint64), J64.view(np.uint64)),
    ):
        want = integers(function, a, b, bits=8 * a.itemsize, signed=False)
        np.testing.assert_array_equal(compute(f"{name}.{kind} out, a, b;", [a, b], a.dtype), want)


def test_wide_and_high_products() -> None:
    wide = compute("mul.wide.s32 out, a, b;", [I32, J32], np.int64)
    np.testing.assert_array_equal(wide, I32.astype(np.int64) * J32)
    np.testing.assert_array_equal(compute("mad.wide.s32 out, a, b, c;", [I32, J32, I64], np.int64), wide + I64)
    np.testing.assert_array_equal(compute("mul.hi.s32 out, a, b;", [I32, J32], np.int32), wide >> 32)
    for kind, a, b in (("s64", I64, J64), ("u64", I64.view(np.uint64), J64.view(np.uint64))):
        want = integers(lambda x, y: (x * y) >> 64, a, b, bits=64, signed=kind[0] == "s")
        np.testing.assert_array_equal(compute(f"mul.hi.{kind} out, a, b;", [a, b], a.dtype), want)


def test_carries() -> None:
    """The product of a 64-bit and a 32-bit number in three words, as trigonometric functions reduce their angles."""
    a, b = I64.view(np.uint64), J32.view(np.uint32)
    body = (
        "mov.b64 {%r21,%r22}, a; mul.lo.u32 %r23, %r21, b; mul.hi.u32 %r24, %r21, b; "
        "mad.lo.cc.u32 %r25, %r22, b, %r24; madc.hi.u32 %r26, %r22, b, 0; "
    )
    for word, register in enumerate(("%r23", "%r25", "%r26")):
        want = integers(lambda x, y, w=word: x * y >> (32 * w), a, b, bits=32, signed=False)
        np.testing.assert_array_equal(compute(body + f"mov.b32 out, {register};", [a, b], np.uint32), want)


def test_shifts_and_fields() -> None:
    by = np.arange(32, dtype=np.uint32) * 2
    u32, low = I32.view(np.uint32), np.minimum(by, 31)
    np.testing.assert_array_equal(compute("shl.b32 out, a, b;", [u32, by], np.uint32), np.where(by > 31, 0, u32 << low))
    np.testing.assert_array_equal(compute("shr.u32 out, a, b;", [u32, by], np.uint32), np.where(by > 31, 0, u32 >> low))
    np.testing.assert_array_equal(compute("shr.s32 out, a, b;", [I32, by], np.int32), I32 >> low.astype(np.int32))
    both = [(int(h) << 32) | int(g) for g, h in zip(u32, J32.view(np.uint32), strict=True)]
    for mode, side in (("wrap", "l"), ("wrap", "r"), ("clamp", "r")):
        n = [int(k) & 31 if mode == "wrap" else min(int(k), 32) for k in by]
        want = [((x << k) >> 32) % 2**32 if side == "l" else (x >> k) % 2**32 for x, k in zip(both, n, strict=True)]
        got = compute(f"shf.{side}.{mode}.b32 out, a, b, c;", [u32, J32.view(np.uint32), by], np.uint32)
        np.testing.assert_array_equal(got, np.array(want, np.uint32))
    field = [(x >> 5) & ((1 << 9) - 1) for x in u32.tolist()]
    np.testing.assert_array_equal(compute("bfe.u32 out, a, 5, 9;", [u32], np.uint32), field)
    signed = [f - (1 << 9) if f >> 8 else f for f in field]
    np.testing.assert_array_equal(compute("bfe.s32 out, a, 5, 9;", [I32], np.int32), signed)
    inserted = [
        (y & ~(0x1FF << 5)) | ((x & 0x1FF) << 5)
        for x, y in zip(u32.tolist(), J32.view(np.uint32).tolist(), strict=True)
    ]
    np.testing.assert_array_equal(compute("bfi.b32 out, a, b, 5, 9;", [u32, J32.view(np.uint32)], np.uint32), inserted)


def test_bits() -> None:
    a, b, c = I32.view(np.uint32), J32.view(np.uint32), np.roll(I32, 3).view(np.uint32)
    np.testing.assert_array_equal(compute("popc.b32 out, a;", [a], np.uint32), [x.bit_count() for x in a.tolist()])
    np.testing.assert_array_equal(compute("clz.b32 out, a;", [a], np.uint32), [32 - x.bit_length() for x in a.tolist()])
    np.testing.assert_array_equal(
        compute("brev.b32 out, a;", [a], np.uint32), [int(f"{x:032b}"[::-1], 2) for x in a.tolist()]
    )
    # The tables of a & b | c and of a ^ b ^ c, made as the ISA says from 0xF0, 0xCC, 0xAA.
    for table, want in ((0xF0 & 0xCC | 0xAA, a & b | c), (0xF0 ^ 0xCC ^ 0xAA, a ^ b ^ c)):
        np.testing.assert_array_equal(compute(f"lop3.b32 out, a, b, c, {table};", [a, b, c], np.uint32), want)
    bytes_of = lambda x, y: [*x.to_bytes(4, "little"), *y.to_bytes(4, "little")]  # noqa: E731
    want = [
        int.from_bytes([bytes_of(x, y)[k] for k in (6, 0, 3, 5)], "little")
        for x, y in zip(a.tolist(), b.tolist(), strict=True)
    ]
    np.testing.assert_array_equal(compute("prmt.b32 out, a, b, 0x5306;", [a, b], np.uint32), want)
    np.testing.assert_array_equal(compute("mov.b64 out, {b, a};", [a, b], np.uint64), (a.astype(np.uint64) << 32) | b)


def rounded(x: Fraction, mode: str, dtype: Any = np.float32) -> Any:
    """An exact number in a rounding mode."""
    near = dtype(float(x)) if dtype is np.float64 else None
    if near is None:  # twice rounded: correct it among the neighbours
        guess = np.float32(float(x))
        options = [np.nextafter(guess, np.float32(-np.inf)), guess, np.nextafter(guess, np.float32(np.inf))]
        near = min(options, key=lambda v: (abs(Fraction(float(v)) - x), int(v.view(np.uint32)) & 1))
    exact = Fraction(float(near))
    step = {"rm": -1, "rp": 1, "rz": -1 if x > 0 else 1, "rn": 0}[mode]
    if step and (exact - x) * step < 0:
        return np.nextafter(near, dtype(step * np.inf))
    return near


@pytest.mark.parametrize("mode", ["rn", "rm", "rp", "rz"])
def test_rounding_is_exact(mode: str) -> None:
    r = np.random.default_rng(1)
    a, b = (r.normal(size=64).astype(np.float32) for _ in range(2))
    c = (-a.astype(np.float64) * b * (1 + r.choice([0, 1e-7, 1e-3, 1e3], 64))).astype(np.float32)  # it cancels
    exact = [tuple(Fraction(float(v)) for v in each) for each in zip(a, b, c, strict=True)]
    np.testing.assert_array_equal(
        compute(f"fma.{mode}.f32 out, a, b, c;", [a, b, c], np.float32), [rounded(x * y + z, mode) for x, y, z in exact]
    )
    np.testing.assert_array_equal(
        compute(f"add.{mode}.f32 out, a, c;", [a, b, c], np.float32), [rounded(x + z, mode) for x, _, z in exact]
    )
    np.testing.assert_array_equal(
        compute(f"mul.{mode}.f32 out, a, b;", [a, b], np.float32), [rounded(x * y, mode) for x, y, _ in exact]
    )
    a64, b64, c64 = (v.astype(np.float64) * math.pi for v in (a, b, c))
    exact = [tuple(Fraction(float(v)) for v in each) for each in zip(a64, b64, c64, strict=True)]
    want = [rounded(x * y + z, mode, np.float64) for x, y, z in exact]
    np.testing.assert_array_equal(compute(f"fma.{mode}.f64 out, a, b, c;", [a64, b64, c64], np.float64), want)


def test_floats() -> None:
    with np.errstate(all="ignore"):
        for kind, a, b in (("f32", F32, G32), ("f64", F64, G64)):
            for name, want in (
                ("add", a + b),
                ("sub", a - b),
                ("mul", a * b),
                ("div.rn", a / b),
                ("sqrt.rn", np.sqrt(a)),
                ("neg", -a),
                ("abs", abs(a)),
            ):
                operands = "out, a;" if name in ("sqrt.rn", "neg", "abs") else "out, a, b;"
                np.testing.assert_array_equal(compute(f"{name}.{kind} {operands}", [a, b], a.dtype), want)
            np.testing.assert_array_equal(compute(f"copysign.{kind} out, a, b;", [a, b], a.dtype), np.copysign(b, a))
        flushed = compute("add.ftz.f32 out, a, 0f00000000;", [F32], np.float32)
        np.testing.assert_array_equal(flushed, np.where(abs(F32) < 1.2e-38, 0, F32))
        saturated = compute("cvt.sat.f32.f32 out, a;", [F32], np.float32)
        np.testing.assert_array_equal(saturated, np.where(np.isnan(F32), 0, np.clip(F32, 0, 1)))


def test_extremes_of_floats() -> None:
    """-0 is less than 0; NaN gives way, unless it is asked for."""
    a = np.array([0.0, -0.0, np.nan, 1.0, np.nan, 2.0], np.float32)
    b = np.array([-0.0, 0.0, 3.0, np.nan, np.nan, 1.0], np.float32)
    low, high = (compute(f"{name}.f32 out, a, b;", [a, b], np.float32) for name in ("min", "max"))
    np.testing.assert_array_equal(low, [-0.0, -0.0, 3, 1, np.nan, 1])
    np.testing.assert_array_equal(np.signbit(low[:2]), [True, True])
    np.testing.assert_array_equal(np.signbit(high[:2]), [False, False])
    kept = compute("min.NaN.f32 out, a, b;", [a, b], np.float32)
    np.testing.assert_array_equal(np.isnan(kept), [False, False, True, True, True, False])


def test_comparisons() -> None:
    nan = np.isnan(F32) | np.isnan(G32)
    with np.errstate(all="ignore"):
        relations = {"lt": F32 < G32, "ge": F32 >= G32, "eq": F32 == G32, "ne": (F32 != G32) & ~nan,
                     "ltu": (F32 < G32) | nan, "neu": F32 != G32, "num": ~nan, "nan": nan}  # fmt: skip
    for relation, want in relations.items():
        body = f"setp.{relation}.f32 %p1, a, b; selp.b32 out, 1, 0, %p1;"
        np.testing.assert_array_equal(compute(body, [F32, G32], np.int32), want)
    positive = "setp.gt.s32 %p2, c, 0;"
    for combined, want in (
        ("and", (I32 < J32) & (I64 > 0)),
        ("or", (I32 < J32) | (I64 > 0)),
        ("xor", (I32 < J32) ^ (I64 > 0)),
    ):
        body = f"setp.gt.s64 %p2, c, 0; setp.lt.{combined}.s32 %p1, a, b, %p2; selp.b32 out, 1, 0, %p1;"
        np.testing.assert_array_equal(compute(body, [I32, J32, I64], np.int32), want)
    negated = f"{positive} setp.lt.and.s32 %p1, a, b, !%p2; selp.b32 out, 1, 0, %p1;"
    np.testing.assert_array_equal(compute(negated, [I32, J32, J32], np.int32), (I32 < J32) & ~(J32 > 0))
    below = compute("setp.lo.u32 %p1, a, b; selp.b32 out, 1, 0, %p1;", [I32, J32], np.int32)
    np.testing.assert_array_equal(below, I32.view(np.uint32) < J32.view(np.uint32))


def test_conversions_to_integers() -> None:
    """Clamped to the range; NaN gives 0, or the sign bit where 64 bits take part."""
    x = np.array([2.5, -2.5, 3.5, 1e20, -1e20, np.inf, np.nan, 0.9], np.float32)
    top, bottom = 2**31 - 1, -(2**31)
    np.testing.assert_array_equal(compute("cvt.rzi.s32.f32 out, a;", [x], np.int32), [2, -2, 3, top, bottom, top, 0, 0])
    np.testing.assert_array_equal(compute("cvt.rni.s32.f32 out, a;", [x], np.int32), [2, -2, 4, top, bottom, top, 0, 1])
    np.testing.assert_array_equal(compute("cvt.rmi.s32.f32 out, a;", [x], np.int32)[:3], [2, -3, 3])
    np.testing.assert_array_equal(compute("cvt.rpi.s32.f32 out, a;", [x], np.int32)[:3], [3, -2, 4])
    wide = [2, -2, 3, 2**63 - 1, -(2**63), 2**63 - 1, -(2**63), 0]
    np.testing.assert_array_equal(compute("cvt.rzi.s64.f32 out, a;", [x], np.int64), wide)
    np.testing.assert_array_equal(
        compute("cvt.rzi.u32.f32 out, a;", [x], np.uint32), [2, 0, 3, 2**32 - 1, 0, 2**32 - 1, 0, 0]
    )
    np.testing.assert_array_equal(compute("cvt.s64.s32 out, a;", [I32], np.int64), I32)
    np.testing.assert_array_equal(compute("cvt.u64.u32 out, a;", [I32], np.uint64), I32.view(np.uint32))
    np.testing.assert_array_equal(
        compute("cvt.u32.u64 out, a;", [I64], np.uint32), (I64 & 0xFFFFFFFF).astype(np.uint32)
    )


def test_conversions_of_floats() -> None:
    x = (R.normal(size=64) * 10.0 ** R.integers(-5, 5, 64)).astype(np.float32)
    np.testing.assert_array_equal(compute("cvt.rn.f16.f32 out, a;", [x], np.float16), x.astype(np.float16))
    bf16 = x.astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(compute("cvt.rn.bf16.f32 out, a;", [x], np.uint16), bf16.view(np.uint16))
    np.testing.assert_array_equal(
        compute("cvt.f32.bf16 out, a;", [bf16.view(np.uint16)], np.float32), bf16.astype(np.float32)
    )
    np.testing.assert_array_equal(compute("cvt.f64.f32 out, a;", [x], np.float64), x)
    y = x.astype(np.float64) * (1 + 1e-9)
    for mode in ("rn", "rz", "rp"):
        want = [rounded(Fraction(float(v)), mode) for v in y]
        np.testing.assert_array_equal(compute(f"cvt.{mode}.f32.f64 out, a;", [y], np.float32), want)
    packed = compute("cvt.rn.bf16x2.f32 out, a, b;", [x, -x], np.uint32)
    np.testing.assert_array_equal(
        packed.view(np.uint16).reshape(-1, 2), np.stack([(-bf16).view(np.uint16), bf16.view(np.uint16)], 1)
    )


@pytest.mark.parametrize(
    "name, function, relative, absolute",
    [
        ("ex2.approx.ftz.f32", np.exp2, 2**-22, 0),
        ("lg2.approx.f32", np.log2, 0, 2**-22),
        ("rcp.approx.ftz.f32", np.reciprocal, 2**-23, 0),
        ("rsqrt.approx.f32", lambda x: x**-0.5, 2**-22.9, 0),
        ("sin.approx.f32", np.sin, 0, 2**-20.5),
    ],
)
def test_approximate_functions_err_as_much_as_they_are_told(
    name: str, function: Any, relative: float, absolute: float
) -> None:
    x = np.linspace(0.1, 3, 32).astype(np.float32)
    want = function(x.astype(np.float64))
    np.testing.assert_allclose(compute(f"{name} out, a;", [x], np.float32), want, rtol=6e-8, atol=1e-10)
    off = compute(f"{name} out, a;", [x], np.float32, error=1.0) - want
    np.testing.assert_allclose(off, want * relative + absolute, rtol=0.3, atol=6e-8)
