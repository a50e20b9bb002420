"""exp, sin, cos and tan of float32, and exp of float64 and complex64, in plain arithmetic, for loops on the CPU.

XLA on the CPU calls the C library for sin, cos and tan, one number at a time, which is some ten times slower; its exp
vectorises, but takes a third more instructions than needed, twice as many in float64.  Errors are within 2 units in the
last place of the result, or of 1 for the trigonometric functions.  What they do differently: exp is 0 below -87 in
float32 (where it is below 1.7e-38), below -708 in float64 (below 3.4e-308).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
from jax import lax

_f = np.float32


def _polynomial(r: Any, coefficients: list[float]) -> Any:
    """Horner's scheme, from the highest power to the lowest."""
    number = np.dtype(r.dtype).type
    first, second, *rest = coefficients
    out = r * number(first) + number(second)
    for c in rest:
        out = out * r + number(c)
    return out


def _where(condition: Any, yes: Any, no: Any) -> Any:
    shape = np.shape(condition)
    return lax.select(condition, *(lax.broadcast(x, shape) if np.shape(x) != shape else x for x in (yes, no)))


def _bits(x: Any, dtype: Any = np.int32) -> Any:
    return lax.bitcast_convert_type(x, dtype)


# 1.5 * 2^23: a float32 of this size has no fraction, and its last bits are those of the integer added to it.
_SHIFT = 12582912.0


@dataclasses.dataclass(frozen=True)
class _Exp:
    """The numbers of exp in one dtype."""

    dtype: Any
    integer: Any  # of the same size
    mantissa: int  # bits
    bias: int  # of the exponent
    least: float  # exp(least) is flushed to zero, and is not far above the smallest normal number
    most: float  # exp(most) is infinite
    log2: tuple[float, float]  # log(2) in two parts: multiples of the first are exact
    polynomial: list[float]  # 2 exp(r) for |r| <= log(2) / 2 + 1%


_EXP = {
    # Interpolation in Chebyshev nodes, relative error 4e-9, and of (exp(r) - 1 - r) / r^2, relative error 6e-17.
    np.dtype(np.float32): _Exp(
        np.float32, np.int32, 23, 127, -87.3, 89.0, (0.693359375, -2.12194440e-4),
        [0.00280135776, 0.0167362286, 0.0833308299, 0.333327824, 1.0000001, 2.00000014, 2.0],
    ),
    np.dtype(np.float64): _Exp(
        np.float64, np.int64, 52, 1023, -708.3, 710.0, (0.693145751953125, 1.42860682030941723212e-6),
        [
            5.020269385670068e-08, 5.524267733828585e-07, 5.51145328372246e-06, 4.9603037282791986e-05,
            0.00039682539728761026, 0.0027777777837878336, 0.016666666666659585, 0.08333333333324128,
            0.33333333333333337, 1.0000000000000002, 2.0, 2.0,
        ],
    ),
}  # fmt: skip


def exp(x: Any) -> Any:
    """exp(x) = 2^k exp(r) with k = round(x / log 2) and r = x - k log 2 (Cody & Waite, 1980, chapter 6)."""
    of = _EXP[np.dtype(x.dtype)]
    number, integer = of.dtype, of.integer
    x = _where(x > number(of.most), number(of.most), x)
    x = _where(x < number(of.least), number(of.least), x)  # NaN stays
    # A number of size 1.5 * 2^mantissa has no fraction, and its last bits are those of the integer added to it.  The
    # bias of the exponent, less 1 for the factor 2 of the polynomial, is added with it.  k comes from the bits, with
    # 1 added to them and taken away again, because XLA would simplify (t - shift) to what stood before the addition.
    shift = number(1.5 * 2.0**of.mantissa + of.bias - 1)
    t = _bits(x * number(1.4426950408889634) + shift, integer)
    k = _bits(t + integer(1), number) - (shift + number(1))
    r = (x - k * number(of.log2[0])) - k * number(of.log2[1])
    return _polynomial(r, of.polynomial) * _bits(lax.shift_left(t, integer(of.mantissa)), number)


def _bits_of(value: np.float32) -> np.int32:
    return value.view(np.int32)


# 2 / pi = 0.b0 b1 b2 ... in words of 32 bits, the first word standing 32 places before the point.
_TWO_OVER_PI = [0x00000000, 0xA2F9836E, 0x4E441529, 0xFC2757D1, 0xF534DDC0, 0xDB629599, 0x3C439041]
# pi / 2 in three parts of at most 9 bits, whose products with k up to 2^15 are exact, and the rest.
_HALF_PI = [1.5703125, 0.0004825592041015625, 1.2665987014770508e-06, 9.920935796805404e-10]


# Where the first words of pi / 2 stop being enough.
FAR = float(1 << 15)
# The number of quarter turns that are added to the angle: cos(x) = sin(x + pi / 2).
_SIN, _COS = 0, 1


def _near_turns(x: Any, quarter: int) -> tuple[Any, Any]:
    """k and r with x + quarter pi / 2 = k pi + r, |r| <= pi / 2, for |x| < FAR."""
    half_turns = (x + _f(quarter * np.pi / 2) if quarter else x) * _f(1 / np.pi)
    k = _bits(half_turns + _f(_SHIFT)) - _bits_of(_f(_SHIFT))  # rounded; XLA's own conversion checks bounds
    number = lax.convert_element_type(lax.shift_left(k, np.int32(1)) - np.int32(quarter), np.float32)
    r = x
    for part in _HALF_PI:
        r = r - number * _f(part)
    return k, r


def _turns(x: Any, quarter: int) -> tuple[Any, Any]:
    """k and r with x + quarter pi / 2 = k pi + r modulo 2 pi, |r| <= pi / 2."""
    near_k, near_r = _near_turns(x, quarter)
    far_k, far_r = _far_turns(x, quarter)
    near = lax.abs(x) < _f(FAR)
    return _where(near, near_k, far_k), _where(near, near_r, far_r)


def _far_turns(x: Any, quarter: int) -> tuple[Any, Any]:
    """The same for large |x|: the bits of x / (pi / 2) around the point alone (Payne & Hanek, SIGNUM 18, 1983).

    x = mantissa * 2^shift; only two words of 2 / pi matter, those around 2^-shift: higher ones give multiples of 4.
    """
    bits = _bits(lax.abs(x))
    mantissa = lax.bitwise_or(lax.bitwise_and(bits, np.int32(0x7FFFFF)), np.int32(0x800000))
    # The product keeps 30 bits after the point.
    shift = lax.shift_right_logical(bits, np.int32(23)) - np.int32(150 - 30)
    word, within = lax.shift_right_arithmetic(shift, np.int32(5)), lax.bitwise_and(shift, np.int32(31))

    def pick(offset: int) -> Any:
        words = [np.uint32(w).view(np.int32) for w in _TWO_OVER_PI[offset : offset + 5]]
        out = words[0]
        for k, w in enumerate(words[1:], 1):
            out = _where(word >= np.int32(k), w, _broadcast(out, np.shape(x)))
        return out

    a, b, c = pick(0), pick(1), pick(2)

    def shifted(high: Any, low: Any) -> Any:
        rest = lax.shift_right_logical(lax.shift_right_logical(low, np.int32(1)), np.int32(31) - within)
        return lax.bitwise_or(lax.shift_left(high, within), rest)

    high, low = shifted(a, b), shifted(b, c)
    # mantissa * (high + low / 2^32) modulo 2^32, the second product rounded: an error of 2 in 2^30.
    fraction = lax.convert_element_type(lax.shift_right_logical(low, np.int32(8)), np.float32)
    carried = lax.convert_element_type(mantissa, np.float32) * (fraction * _f(2.0**-24))
    product = mantissa * high + lax.convert_element_type(carried, np.int32)  # a whole turn is 2^32
    product = product + np.int32(quarter << 30)
    k = lax.shift_right_logical(product + np.int32(1 << 30), np.int32(31))
    rest = lax.convert_element_type(product - lax.shift_left(k, np.int32(31)), np.float32)
    r = rest * _f(np.pi / 2**31)
    r = r if quarter else _where(x < _f(0), -r, r)
    return k, r + (x - x)  # infinity has no sine


def _broadcast(x: Any, shape: tuple[int, ...]) -> Any:
    return x if np.shape(x) == shape else lax.broadcast(x, shape)


# (sin(r) / r - 1) / r^2 in r^2, for |r| <= pi / 2: interpolation in Chebyshev nodes, error 2e-8.
_SINE = [2.6345197e-06, -0.00019822667, 0.008333242, -0.16666666]

Turns = Callable[[Any, int], tuple[Any, Any]]


def _sine(x: Any, quarter: int, turns: Turns) -> Any:
    k, r = turns(x, quarter)
    z = r * r
    value = r + r * z * _polynomial(z, _SINE)
    return _bits(lax.bitwise_xor(_bits(value), lax.shift_left(k, np.int32(31))), np.float32)


def sin(x: Any, turns: Turns = _turns) -> Any:
    return _sine(x, _SIN, turns)


def cos(x: Any, turns: Turns = _turns) -> Any:
    return _sine(x, _COS, turns)


def tan(x: Any, turns: Turns = _turns) -> Any:
    return _sine(x, _SIN, turns) / _sine(x, _COS, turns)


def complex_exp(z: Any, turns: Turns = _turns) -> Any:
    """exp(a + ib) = exp(a) (cos b + i sin b)."""
    angle, scale = lax.imag(z), exp(lax.real(z))
    return lax.complex(scale * _sine(angle, _COS, turns), scale * _sine(angle, _SIN, turns))


Functions = dict[tuple[str, np.dtype], Callable[..., Any]]  # by primitive and dtype of the result

_TURNING: Functions = {
    ("sin", np.dtype(np.float32)): sin,
    ("cos", np.dtype(np.float32)): cos,
    ("tan", np.dtype(np.float32)): tan,
    ("exp", np.dtype(np.complex64)): complex_exp,
}
# An unrolled loop calls them many times: each is traced and lowered once, and XLA inlines the calls.
_EXPONENTIALS: Functions = {("exp", dtype): exp for dtype in _EXP}
FUNCTIONS: Functions = {key: jax.jit(fn) for key, fn in {**_EXPONENTIALS, **_TURNING}.items()}
_NEAR: Functions = {key: jax.jit(functools.partial(fn, turns=_near_turns)) for key, fn in _TURNING.items()}


def near_functions(angles: list[Any]) -> Functions:
    """FUNCTIONS for angles below FAR, at less than half the cost; what is called appends |angle| to `angles`."""

    def near(fn: Callable[..., Any]) -> Callable[..., Any]:
        def call(x: Any) -> Any:
            angles.append(lax.abs(lax.imag(x) if np.issubdtype(x.dtype, np.complexfloating) else x))
            return fn(x)

        return call

    return {**FUNCTIONS, **{key: near(fn) for key, fn in _NEAR.items()}}


def takes_angles(names: Iterable[tuple[str, np.dtype]]) -> bool:
    """Whether any of these primitives, each with the dtype of its result, takes an angle."""
    return any(name in _TURNING for name in names)
