"""Functions of complex numbers z = x + y j in real arithmetic, on pairs (x, y) of arrays of one shape.

A part that is None is known to be 0: a real number times a complex one takes two products, not four.  Moduli,
quotients, roots, logarithms and inverse functions are scaled by powers of two where that is needed, so that nothing
overflows unless the result does, and no reciprocal leaves the range of the machine's approximate ones.  Signs of zeros
and infinities are those of JAX, which takes y = -0 for y = 0 on the branch cuts of sqrt, asin and acos, and tells them
apart on those of log and atanh.  Errors are some units in the last place of |f(z)|, not of each part by itself.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

Pair = tuple[Any, Any]  # of which at most one is None


def filled(z: Pair) -> Pair:
    """Both parts as arrays."""
    x, y = z
    if y is None:
        return x, jnp.zeros_like(x)
    return (jnp.zeros_like(y) if x is None else x), y


def _number(x: Any, value: float) -> Any:
    return np.asarray(value, x.dtype)[()]


def _choice(like: Any, *cases: tuple[Any, float], otherwise: float) -> Any:
    """A number: that of the first condition that holds."""
    out: Any = _number(like, otherwise)
    for condition, value in reversed(cases):
        out = jnp.where(condition, _number(like, value), out)
    return out


# Arithmetic.


def _plus(a: Any, b: Any) -> Any:
    return b if a is None else a if b is None else a + b


def _minus(a: Any, b: Any) -> Any:
    return a if b is None else -b if a is None else a - b


def negative(z: Pair) -> Pair:
    return _minus(None, z[0]), _minus(None, z[1])


def conjugate(z: Pair) -> Pair:
    return z[0], _minus(None, z[1])


def product(z: Pair, w: Pair, times: Callable[[Any, Any], Any] = operator.mul) -> Pair:
    """z w; `times` multiplies parts, where that is no product of elements."""
    known = lambda a, b: None if a is None or b is None else times(a, b)  # noqa: E731
    (a, b), (c, d) = z, w
    return _minus(known(a, c), known(b, d)), _plus(known(a, d), known(b, c))


def quotient(z: Pair, w: Pair) -> Pair:
    """By R. L. Smith, "Algorithm 116: Complex division" (CACM 5, 1962), scaled before."""
    c, d = w
    if c is None or d is None:
        by = c if d is None else d
        over = lambda a: None if a is None else a / by  # noqa: E731
        return (over(z[0]), over(z[1])) if d is None else (over(z[1]), _minus(None, over(z[0])))
    a, b = filled(z)
    # The same factor for both, which keeps reciprocals in range: an overflow or underflow is one of the quotient.
    large, small, by = (2.0**120, 2.0**-90, 30) if c.dtype == np.float32 else (2.0**1000, 2.0**-960, 60)
    size = lax.max(lax.abs(c), lax.abs(d))
    scale = _choice(c, (size > large, 2.0**-by), (size < small, 2.0**by), otherwise=1.0)
    a, b, c, d = a * scale, b * scale, c * scale, d * scale
    turned = lax.abs(c) < lax.abs(d)
    first, second = jnp.where(turned, d, c), jnp.where(turned, c, d)
    u, v = jnp.where(turned, b, a), jnp.where(turned, a, b)
    # Of two infinities the ratio is 1 or -1, of two zeros 0.
    equal = lax.abs(first) == lax.abs(second)
    one = _choice(c, (first == 0, 0.0), ((first < 0) != (second < 0), -1.0), otherwise=1.0)
    ratio = jnp.where(equal, one, second / first)
    below = first + second * ratio
    return (u + v * ratio) / below, jnp.where(turned, u * ratio - v, v - u * ratio) / below


def integer_power(z: Pair, exponent: int) -> Pair:
    """By squaring."""
    out: Pair | None = None
    square, left = z, abs(exponent)
    while left:
        if left & 1:
            out = square if out is None else product(out, square)
        left >>= 1
        square = product(square, square) if left else square
    one = jnp.ones_like(z[1] if z[0] is None else z[0])
    if out is None:
        return one, None
    return out if exponent > 0 else quotient((one, None), out)


# Order: by real parts, those of equals by imaginary parts, as JAX has it.


def _after(z: Pair, w: Pair) -> Any:
    return (z[0] > w[0]) | ((z[0] == w[0]) & (z[1] > w[1]))


def larger(z: Pair, w: Pair) -> Pair:
    first = _after(z, w)
    return jnp.where(first, z[0], w[0]), jnp.where(first, z[1], w[1])


def smaller(z: Pair, w: Pair) -> Pair:
    first = _after(w, z)
    return jnp.where(first, z[0], w[0]), jnp.where(first, z[1], w[1])


# The modulus, and what is made from it.


def _scaled(z: Pair) -> tuple[Any, Any, Any, Callable[[int], Any]]:
    """(|x| s, |y| s, |z| s, power), power(k) being s^(-k/2): s is 2^k such that no square overflows or vanishes."""
    x, y = lax.abs(z[0]), lax.abs(z[1])
    size = lax.max(x, y)
    large, down, small, up = (60, 68, -40, 100) if x.dtype == np.float32 else (500, 600, -300, 700)
    high, low = size > _number(x, 2.0**large), size < _number(x, 2.0**small)

    def power(k: int) -> Any:
        return _choice(x, (high, 2.0 ** (down * k // 2)), (low, 2.0 ** (-up * k // 2)), otherwise=1.0)

    x, y = x * power(-2), y * power(-2)
    return x, y, lax.sqrt(x * x + y * y), power


def modulus(z: Pair) -> Any:
    x, y = z
    if y is None:
        return lax.abs(x)
    if x is None:
        return lax.abs(y)
    *_, r, power = _scaled(z)
    return r * power(2)


def sign(z: Pair) -> Pair:
    """z / |z|, and 0 at 0."""
    *_, r, power = _scaled(z)
    over = lambda a: jnp.where(r == 0, a, a * power(-2) / r)  # noqa: E731
    return over(z[0]), over(z[1])


def _half_plane(z: Pair, larger: Any, smaller: Any) -> Pair:
    """A root from its larger and its smaller part: it lies on the right, above the axis where y >= 0."""
    right = z[0] >= 0
    imaginary = jnp.where(right, smaller, larger)
    return jnp.where(right, larger, smaller), jnp.where(z[1] < 0, -imaginary, imaginary)


def _root(z: Pair) -> tuple[Pair, Any, Callable[[int], Any]]:
    """The square root of s z, |s z| and the powers of s."""
    x, y, r, power = _scaled(z)
    larger = lax.sqrt((r + x) * 0.5)
    smaller = jnp.where((larger == 0) | (y == np.inf), y, y * 0.5 / larger)
    return _half_plane(z, larger, smaller), r, power


def square_root(z: Pair) -> Pair:
    (x, y), _, power = _root(z)
    return x * power(1), y * power(1)


def reciprocal_root(z: Pair) -> Pair:
    """conj(sqrt(z)) / |z|, on the branch cut too (where JAX's own takes the other root for y = -0)."""
    (x, y), r, power = _root(z)
    over = lambda a: jnp.where(r == np.inf, _number(r, 0), a / r * power(-1))  # noqa: E731
    return over(x), over(-y)


# Exponentials and logarithms.


def _exponential(half: Any, y: Any) -> Pair:
    """half^2 exp(y j): half is squared last, where the product may be finite though half^2 is not."""
    return half * lax.cos(y) * half, jnp.where(y == 0, _number(y, 0), half * lax.sin(y) * half)


def exponential(z: Pair) -> Pair:
    x, y = z
    if x is None:
        return lax.cos(y), lax.sin(y)
    if y is None:
        return lax.exp(x), None
    return _exponential(lax.exp(x * 0.5), y)


def exponential_2(z: Pair) -> Pair:
    return _exponential(lax.exp2(z[0] * 0.5), z[1] * _number(z[1], math.log(2)))


def exponential_minus_1(z: Pair) -> Pair:
    """expm1(x) cos(y) - 2 sin(y / 2)^2, exp(x) sin(y)."""
    x, y = z
    s = lax.sin(y * 0.5)
    return lax.expm1(x) * lax.cos(y) - 2 * s * s, _exponential(lax.exp(x * 0.5), y)[1]


def _log_modulus(z: Pair) -> Any:
    """log of the larger part, and log1p((smaller / larger)^2) / 2: accurate where |z| is near 1, too."""
    x, y = lax.abs(z[0]), lax.abs(z[1])
    larger, smaller = lax.max(x, y), lax.min(x, y)
    half = 64 if x.dtype == np.float32 else 512
    scale = _choice(x, (larger > 1, 2.0**-half), otherwise=2.0**half)  # keeps reciprocals in range
    ratio = jnp.where(larger == smaller, _number(x, 1), (smaller * scale) / (larger * scale))
    return lax.log(larger) + 0.5 * lax.log1p(ratio * ratio)


def logarithm(z: Pair) -> Pair:
    return _log_modulus(z), lax.atan2(z[1], z[0])


def logarithm_of_1_plus(z: Pair) -> Pair:
    """Near 0, log1p(x (2 + x) + y^2) / 2 for the real part."""
    x, y = z
    near = lax.max(lax.abs(x), lax.abs(y)) < 0.5
    small = 0.5 * lax.log1p(x * (2 + x) + y * y)
    return jnp.where(near, small, _log_modulus((1 + x, y))), lax.atan2(y, 1 + x)


def power(z: Pair, w: Pair) -> Pair:
    """exp(w log(z)); 1 where w = 0, and 0^w = 0 for real w > 0."""
    x, y = exponential(product(w, logarithm(z)))
    one = (w[0] == 0) & (w[1] == 0)
    none = ((z[0] == 0) & (z[1] == 0) & (w[0] > 0) & (w[1] == 0)) | one
    return jnp.where(one, _number(x, 1), jnp.where(none, _number(x, 0), x)), jnp.where(none, _number(y, 0), y)


def logistic(z: Pair) -> Pair:
    x, y = exponential(negative(z))
    return quotient((jnp.ones_like(x), None), (1 + x, y))


# Circular and hyperbolic functions: f(z) and f(z j) differ by an exchange of parts.


def hyperbolic_sine(z: Pair) -> Pair:
    x, y = z
    return lax.sinh(x) * lax.cos(y), jnp.where(y == 0, _number(y, 0), lax.cosh(x) * lax.sin(y))


def hyperbolic_cosine(z: Pair) -> Pair:
    x, y = z
    return lax.cosh(x) * lax.cos(y), jnp.where(y == 0, _number(y, 0), lax.sinh(x) * lax.sin(y))


def hyperbolic_tangent(z: Pair) -> Pair:
    """(sinh(x) cosh(x) + sin(y) cos(y) j) / (sinh(x)^2 + cos(y)^2), which changes no more where |x| is large."""
    x, y = z
    most = 40.0 if x.dtype == np.float32 else 300.0
    x = jnp.where(x > most, _number(x, most), jnp.where(x < -most, _number(x, -most), x))
    s, c = lax.sinh(x), lax.cos(y)
    below = s * s + c * c
    return s * lax.cosh(x) / below, lax.sin(y) * c / below


def _turned(fn: Callable[[Pair], Pair]) -> Callable[[Pair], Pair]:
    """z -> -f(z j) j of an odd function f that is real on the real axis: sin of sinh, and so on."""

    def turned(z: Pair) -> Pair:
        y, x = fn((z[1], z[0]))
        return x, y

    return turned


def cosine(z: Pair) -> Pair:
    x, y = z
    return lax.cosh(y) * lax.cos(x), jnp.where(x == 0, _number(x, 0), -(lax.sinh(y) * lax.sin(x)))


def _inverse(z: Pair) -> tuple[Any, Any]:
    """(d, m): asin(z) = atan2(x, d) + m j and acos(z) = atan2(d, x) - m j in the first quadrant.

    T. E. Hull, T. F. Fairgrieve, P. T. P. Tang, "Implementing the complex arcsine and arccosine functions using
    exception handling" (ACM TOMS 23, 1997): r and s are the distances from -1 and 1, a is half their sum.
    """
    x, y = lax.abs(z[0]), lax.abs(z[1])
    single = x.dtype == np.float32
    far, tiny = (2.0**50, 2.0**-50) if single else (2.0**400, 2.0**-400)
    large = lax.max(x, y) > far
    above, beyond = x + 1, x - 1
    r, s = modulus((above, y)), modulus((beyond, y))
    a = 0.5 * r + 0.5 * s
    square, gap = y * y, lax.abs(beyond)
    half = 0.5 * (a + x)
    inside = lax.sqrt(half * (square / (r + above) + (s + gap)))
    outside = y * lax.sqrt(half / (r + above) + half / (s + gap))
    d = jnp.where(large, y, jnp.where(x <= 1, inside, outside))
    # a - 1, without cancellation.
    more = 0.5 * (square / (r + above) + jnp.where(x < 1, square / (s + gap), s + gap))
    near = lax.log1p(more + lax.sqrt(more * (a + 1)))
    apart = lax.log(jnp.where(large, a, a + lax.sqrt(a * a - 1))) + _choice(x, (large, math.log(2)), otherwise=0.0)
    m = jnp.where(a <= 1.5, near, apart)
    return d, jnp.where((y < tiny) & (x < 1), y / lax.sqrt((1 - x) * above), m)


def _signed(m: Any, y: Any) -> Any:
    return jnp.where(y < 0, -m, m)


def inverse_sine(z: Pair) -> Pair:
    d, m = _inverse(z)
    return lax.atan2(z[0], d), _signed(m, z[1])


def inverse_cosine(z: Pair) -> Pair:
    d, m = _inverse(z)
    return lax.atan2(d, z[0]), -_signed(m, z[1])


def inverse_hyperbolic_cosine(z: Pair) -> Pair:
    d, m = _inverse(z)
    return m, _signed(lax.atan2(d, z[0]), z[1])


def inverse_hyperbolic_tangent(z: Pair) -> Pair:
    """log1p(4 |x| / ((1 - |x|)^2 + y^2)) / 4, and half the angle of (1 - x) (1 + x) - y^2 + 2 y j (W. Kahan, "Branch
    cuts for complex elementary functions", 1987); at x = 1 the square of a small y may vanish."""
    x, y = lax.abs(z[0]), lax.abs(z[1])
    single = x.dtype == np.float32
    far, near = (2.0**50, 2.0**-13) if single else (2.0**400, 2.0**-27)
    large = lax.max(x, y) > far
    gap = 1 - x
    real = 0.25 * lax.log1p(4 * x / (gap * gap + y * y))
    real = jnp.where((gap == 0) & (y < near), 0.5 * (math.log(2) - lax.log(y)), real)
    real = jnp.where(large, _number(x, 0), real)
    angle = 0.5 * lax.atan2(2 * z[1], gap * (1 + x) - y * y)
    return _signed(real, z[0]), jnp.where(large, _signed(_number(y, math.pi / 2), z[1]), angle)


# By primitive; both parts are arrays.
FUNCTIONS: dict[str, Callable[[Pair], Pair]] = {
    "sign": sign,
    "sqrt": square_root,
    "rsqrt": reciprocal_root,
    "exp2": exponential_2,
    "expm1": exponential_minus_1,
    "log": logarithm,
    "log1p": logarithm_of_1_plus,
    "logistic": logistic,
    "sinh": hyperbolic_sine,
    "cosh": hyperbolic_cosine,
    "tanh": hyperbolic_tangent,
    "sin": _turned(hyperbolic_sine),
    "cos": cosine,
    "tan": _turned(hyperbolic_tangent),
    "asin": inverse_sine,
    "acos": inverse_cosine,
    "atanh": inverse_hyperbolic_tangent,
    "asinh": _turned(inverse_sine),
    "acosh": inverse_hyperbolic_cosine,
    "atan": _turned(inverse_hyperbolic_tangent),
}
