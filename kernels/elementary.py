"""exp, sin, cos and tan of float32, and exp of complex64, in plain arithmetic, for the CPU, whose loops then vectorise.

XLA on the CPU calls the C library for sin, cos and tan, one number at a time, which is some ten times slower; its exp
vectorises, but takes a third more instructions than needed.  Errors are within 2 units in the last place of the result,
or of 1 for the trigonometric functions.  What they do differently: exp is 0 below -87 (where it is below 1.7e-38).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from jax import lax

_f = np.float32


def _polynomial(r: Any, coefficients: list[float]) -> Any:
    """Horner's scheme, from the highest power to the lowest."""
    first, second, *rest = coefficients
    out = r * _f(first) + _f(second)
    for c in rest:
        out = out * r + _f(c)
    return out


def _where(condition: Any, yes: Any, no: Any) -> Any:
    shape = np.shape(condition)
    return lax.select(condition, *(lax.broadcast(x, shape) if np.shape(x) != shape else x for x in (yes, no)))


def _bits(x: Any, dtype: Any = np.int32) -> Any:
    return lax.bitcast_convert_type(x, dtype)


# 1.5 * 2^23: a float32 of this size has no fraction, and its last bits are those of the integer added to it.
_SHIFT = 12582912.0

# 2 exp(r) for |r| <= log(2) / 2 + 1%: interpolation in Chebyshev nodes, relative error 4e-9.
_EXP = [0.00280135776, 0.0167362286, 0.0833308299, 0.333327824, 1.0000001, 2.00000014, 2.0]


def exp(x: Any) -> Any:
    """exp(x) = 2^k exp(r) with k = round(x / log 2) and r = x - k log 2 (Cody & Waite, 1980, chapter 6)."""
    x = _where(x > _f(89), _f(89), x)
    x = _where(x < _f(-87.3), _f(-87.3), x)  # NaN stays
    # The bias of the exponent, less 1 for the factor 2 of the polynomial, is added with the shift.  k comes from the
    # bits, because XLA would simplify (t - shift) to what stood before the addition.
    biased = _f(_SHIFT + 126)
    t = _bits(x * _f(1.4426950408889634) + biased)
    k = lax.convert_element_type(t - _bits_of(biased), np.float32)
    r = (x - k * _f(0.693359375)) - k * _f(-2.12194440e-4)
    return _polynomial(r, _EXP) * _bits(lax.shift_left(t, np.int32(23)), np.float32)


def _bits_of(value: np.float32) -> np.int32:
    return value.view(np.int32)


# 2 / pi = 0.b0 b1 b2 ... in words of 32 bits, the first word standing 32 places before the point.
_TWO_OVER_PI = [0x00000000, 0xA2F9836E, 0x4E441529, 0xFC2757D1, 0xF534DDC0, 0xDB629599, 0x3C439041]
# pi / 2 in three parts of at most 9 bits, whose products with k up to 2^15 are exact, and the rest.
_HALF_PI = [1.5703125, 0.0004825592041015625, 1.2665987014770508e-06, 9.920935796805404e-10]


# Where the first words of pi / 2 stop being enough.
FAR = float(1 << 15)


def _near_quadrants(x: Any) -> tuple[Any, Any]:
    """k and r with x = k pi / 2 + r, |r| <= pi / 4, for |x| < FAR."""
    k = _bits(x * _f(2 / np.pi) + _f(_SHIFT)) - _bits_of(_f(_SHIFT))  # rounded; XLA's own conversion checks bounds
    number = lax.convert_element_type(k, np.float32)
    r = x
    for part in _HALF_PI:
        r = r - number * _f(part)
    return k, r


def _quadrants(x: Any) -> tuple[Any, Any]:
    """k and r with x = k pi / 2 + r modulo 2 pi, |r| <= pi / 4."""
    near_k, near_r = _near_quadrants(x)
    far_k, far_r = _far_quadrants(x)
    near = lax.abs(x) < _f(FAR)
    return _where(near, near_k, far_k), _where(near, near_r, far_r)


def _far_quadrants(x: Any) -> tuple[Any, Any]:
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
    product = mantissa * high + lax.convert_element_type(carried, np.int32)
    k = lax.shift_right_arithmetic(product + np.int32(1 << 29), np.int32(30))
    rest = lax.convert_element_type(product - lax.shift_left(k, np.int32(30)), np.float32)
    r = rest * _f(np.pi / 2 / 2**30)
    negative = x < _f(0)
    nan = x - x  # infinity has no sine
    return _where(negative, -k, k), _where(negative, -r, r) + nan


def _broadcast(x: Any, shape: tuple[int, ...]) -> Any:
    return x if np.shape(x) == shape else lax.broadcast(x, shape)


def _sin_cos_of(r: Any) -> tuple[Any, Any]:
    """sin and cos for |r| <= pi / 4: the polynomials of Cephes' sinf and cosf (S. Moshier, 1992)."""
    z = r * r
    sin = r + r * z * _polynomial(z, [-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1])
    cos = _polynomial(z, [2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2])
    return sin, (cos * z - _f(0.5)) * z + _f(1)


def _turned(k: Any, even: Any, odd: Any) -> Any:
    """`even` or `odd` by the last bit of k, with the sign of its second last."""
    value = _where(lax.bitwise_and(k, np.int32(1)) == np.int32(0), even, odd)
    sign = lax.shift_left(lax.bitwise_and(k, np.int32(2)), np.int32(30))
    return _bits(lax.bitwise_xor(_bits(value), sign), np.float32)


Quadrants = Callable[[Any], tuple[Any, Any]]


def sin(x: Any, quadrants: Quadrants = _quadrants) -> Any:
    k, r = quadrants(x)
    s, c = _sin_cos_of(r)
    return _turned(k, s, c)


def cos(x: Any, quadrants: Quadrants = _quadrants) -> Any:
    k, r = quadrants(x)
    s, c = _sin_cos_of(r)
    return _turned(k + np.int32(1), s, c)


def tan(x: Any, quadrants: Quadrants = _quadrants) -> Any:
    k, r = quadrants(x)
    s, c = _sin_cos_of(r)
    return _turned(k, s, c) / _turned(k + np.int32(1), s, c)


def complex_exp(z: Any, quadrants: Quadrants = _quadrants) -> Any:
    """exp(a + ib) = exp(a) (cos b + i sin b)."""
    k, r = quadrants(lax.imag(z))
    s, c = _sin_cos_of(r)
    scale = exp(lax.real(z))
    return lax.complex(scale * _turned(k + np.int32(1), s, c), scale * _turned(k, s, c))


Functions = dict[tuple[str, np.dtype], Callable[..., Any]]  # by primitive and dtype of the result

_TURNING: Functions = {
    ("sin", np.dtype(np.float32)): sin,
    ("cos", np.dtype(np.float32)): cos,
    ("tan", np.dtype(np.float32)): tan,
    ("exp", np.dtype(np.complex64)): complex_exp,
}
FUNCTIONS: Functions = {("exp", np.dtype(np.float32)): exp, **_TURNING}


def near_functions(angles: list[Any]) -> Functions:
    """FUNCTIONS for angles below FAR, at less than half the cost; what is called appends |angle| to `angles`."""

    def near(fn: Callable[..., Any]) -> Callable[..., Any]:
        def call(x: Any) -> Any:
            angles.append(lax.abs(lax.imag(x) if np.issubdtype(x.dtype, np.complexfloating) else x))
            return fn(x, _near_quadrants)

        return call

    return {**FUNCTIONS, **{key: near(fn) for key, fn in _TURNING.items()}}


def turns(names: Iterable[tuple[str, np.dtype]]) -> bool:
    """Whether any of these primitives takes an angle."""
    return any(name in _TURNING for name in names)
