"""The table of operations: one row each, a JAX function on the features of one pair.

A feature array has the shape (D,), or () for a number.  Shapes, dtypes and derivatives come from JAX; a row only says
what JAX does not know: the conventions at singular points, which are those of KeOps where it has one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy import special

from ._op import Op, aligned, binary, flat, floating, unary, vector
from ._ops_algebra import ALGEBRA
from ._ops_complex import COMPLEX
from ._ops_tensors import TENSORS

# sqrt and rsqrt with rsqrt(0) = 0, so that the derivative of a norm is 0 at 0, to every order.


@jax.custom_jvp
def _sqrt(x: Any) -> Any:
    return jnp.sqrt(x)


@_sqrt.defjvp
def _sqrt_jvp(primals: Any, tangents: Any) -> Any:
    (x,), (t,) = primals, tangents
    return _sqrt(x), 0.5 * _rsqrt(x) * t


@jax.custom_jvp
def _rsqrt(x: Any) -> Any:
    return jnp.where(x == 0, jnp.zeros_like(x), lax.rsqrt(x))


@_rsqrt.defjvp
def _rsqrt_jvp(primals: Any, tangents: Any) -> Any:
    (x,), (t,) = primals, tangents
    r = _rsqrt(x)
    return r, -0.5 * r * r * r * t


@jax.custom_jvp
def _xlogx(x: Any) -> Any:
    zero = x == 0
    return jnp.where(zero, jnp.zeros_like(x), x * jnp.log(jnp.where(zero, jnp.ones_like(x), x)))


@_xlogx.defjvp
def _xlogx_jvp(primals: Any, tangents: Any) -> Any:
    (x,), (t,) = primals, tangents
    return _xlogx(x), (jnp.log(x) + 1) * t


def _round(x: Any, *, decimals: int = 0) -> Any:
    """Half away from zero, to a number of decimals."""
    x = jnp.asarray(x)
    if jnp.issubdtype(x.dtype, jnp.integer) or x.dtype == bool:
        return x
    scale = 10.0**decimals
    return (
        lax.round(x * scale, lax.RoundingMethod.AWAY_FROM_ZERO) / scale
        if decimals
        else lax.round(x, lax.RoundingMethod.AWAY_FROM_ZERO)
    )


def _clamp(x: Any, low: Any, high: Any) -> Any:
    return jnp.where(x < low, low, jnp.where(x > high, high, x))


def _step(x: Any) -> Any:
    x = jnp.asarray(x)
    return jnp.where(x < 0, jnp.zeros_like(x), jnp.ones_like(x))


def _relu(x: Any) -> Any:
    x = jnp.asarray(x)
    return jnp.where(x < 0, jnp.zeros_like(x), x)


@jax.custom_jvp
def _modulus(x: Any) -> Any:
    return jnp.abs(x)


@_modulus.defjvp
def _modulus_jvp(primals: Any, tangents: Any) -> Any:
    (x,), (t,) = primals, tangents
    r = _modulus(x)
    if not jnp.iscomplexobj(x):
        return r, jnp.sign(x) * t  # JAX itself takes the derivative 1 at 0
    zero = r == 0
    along = x.real * t.real + x.imag * t.imag
    return r, jnp.where(zero, jnp.zeros_like(r), along / jnp.where(zero, jnp.ones_like(r), r))


def _abs(x: Any) -> Any:
    return _modulus(x) if jnp.issubdtype(jnp.result_type(x), jnp.inexact) else jnp.abs(x)


def _or(x: Any, y: Any) -> Any:
    """The scalar product over all features, or the logical "or" of booleans."""
    x, y = jnp.asarray(x), jnp.asarray(y)
    if x.dtype == bool and y.dtype == bool:
        return jnp.logical_or(x, y)
    return vector(jnp.sum(x * y))


def _over_features(fn: Callable[..., Any]) -> Callable[..., Any]:
    """A function over some of the feature axes, which go; a single number stays a vector of length 1."""
    return lambda x, *, axes=(-1,): vector(fn(vector(x), axes))


def _argument(fn: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, *, axes=(-1,): vector(fn(vector(x), axes[0]).astype(jnp.int32))


def _square_of_modulus(x: jax.Array) -> jax.Array:
    return x * x if not jnp.issubdtype(x.dtype, jnp.complexfloating) else (x * jnp.conj(x)).real


def _sqnorm(x: Any, axes: Any = None) -> jax.Array:
    """The sum of |x|^2 over some feature axes, which go, or over all of them."""
    return jnp.sum(_square_of_modulus(vector(x)), axes)


def _norm2(x: Any, *, axes: Any = None) -> Any:
    return vector(_sqrt(floating(_sqnorm(x, axes))))


def _normalize(x: Any) -> Any:
    return vector(x) * _rsqrt(floating(_sqnorm(x)))


@jax.custom_jvp
def _clipped(d: Any) -> Any:
    """0 where rounding made a square negative; the derivative is that of the square itself, to every order."""
    return jnp.where(d < 0, jnp.zeros_like(d), d)


@_clipped.defjvp
def _clipped_jvp(primals: Any, tangents: Any) -> Any:
    return _clipped(primals[0]), tangents[0]


def _sqdist_product(x: Any, y: Any, center: Any) -> jax.Array:
    """|x - y|^2 as |a|^2 + |b|^2 - 2 a.b with a = x - center, b = y - center."""
    a, b = jnp.broadcast_arrays(floating(x) - center, floating(y) - center)
    return vector(_clipped(_sqnorm(a) + _sqnorm(b) - 2 * jnp.sum(a * b)))


def _weightedsqnorm(x: Any, s: Any) -> Any:
    """s |x|^2 for a scalar s, sum_k s_k |x_k|^2 for a vector, x^* S x for S of D*D entries, row by row."""
    x, s = flat(x), flat(s)
    size = x.shape[0]
    if s.shape[0] == size * size and size > 1:
        return jnp.sum(jnp.conj(x) * (s.reshape(size, size) @ x), -1, keepdims=True)
    return jnp.sum(s * _square_of_modulus(x), -1, keepdims=True)


def _difference_matrix(x: Any, y: Any) -> Any:
    """x_a - y_b for every a and b, flattened row by row."""
    return flat(flat(x)[:, None] - flat(y)[None, :])


def _concat(*xs: Any, axis: int = -1) -> Any:
    xs = tuple(vector(x) for x in xs)
    return jnp.concatenate([x.astype(jnp.result_type(*xs)) for x in xs], axis)


def _where(condition: Any, a: Any, b: Any) -> Any:
    return jnp.where(condition, a, b)


def _power(x: Any, y: Any) -> Any:
    return jnp.power(x, y)


def _integer_power(x: Any, *, exponent: int) -> Any:
    x = jnp.asarray(x)
    if exponent < 0:
        x = floating(x)
    return lax.integer_pow(x, exponent) if x.dtype != bool else x**exponent


def _mod(x: Any, modulus: Any, offset: Any) -> Any:
    """x - modulus * k, in [offset, offset + modulus)."""
    return jnp.mod(x - offset, modulus) + offset


def _sinxdivx(x: Any) -> Any:
    return jnp.sinc(x / np.pi)


def _logistic(x: Any) -> Any:
    return jax.nn.sigmoid(floating(x))


_float = lambda fn: functools.wraps(fn)(lambda x: fn(floating(x)))  # noqa: E731

_ROWS = [
    # Arithmetic.
    binary("add", jnp.add, "{0} + {1}", "x + y"),
    binary("subtract", jnp.subtract, "{0} - {1}", "x - y"),
    binary("multiply", jnp.multiply, "{0} * {1}", "x * y"),
    binary("divide", jnp.true_divide, "{0} / {1}", "x / y; 1 / 0 is inf"),
    binary("floor_divide", jnp.floor_divide, "{0} // {1}", "the largest integer below x / y"),
    binary("remainder", jnp.mod, "{0} % {1}", "x modulo y, with the sign of y"),
    binary("power_of", _power, "{0} ** {1}", "x to the power y"),
    Op("integer_power", _integer_power, 1, "{0} ** {exponent}", "x to a fixed integer power"),
    Op("negative", jnp.negative, 1, "-{0}", "-x"),
    binary("scalar_product", _or, "({0} | {1})", "the scalar product over D; of booleans, the logical or"),
    # Comparisons and logic: booleans.
    binary("equal", jnp.equal, "({0} == {1})", "x == y"),
    binary("not_equal", jnp.not_equal, "({0} != {1})", "x != y"),
    binary("less", jnp.less, "({0} < {1})", "x < y"),
    binary("less_equal", jnp.less_equal, "({0} <= {1})", "x <= y"),
    binary("greater", jnp.greater, "({0} > {1})", "x > y"),
    binary("greater_equal", jnp.greater_equal, "({0} >= {1})", "x >= y"),
    binary("logical_and", jnp.logical_and, "({0} & {1})", "logical and"),
    Op("logical_not", jnp.logical_not, 1, "~{0}", "logical not"),
    unary("isfinite", jnp.isfinite, "neither infinite nor NaN"),
    # Element-wise functions.
    unary("exp", jnp.exp, "e to the power x"),
    unary("exp2", jnp.exp2, "2 to the power x"),
    unary("expm1", jnp.expm1, "exp(x) - 1, accurate near 0"),
    unary("log", jnp.log, "the natural logarithm; log(0) is -inf"),
    unary("log1p", jnp.log1p, "log(1 + x), accurate near 0"),
    unary("sin", jnp.sin, "the sine"),
    unary("cos", jnp.cos, "the cosine"),
    unary("tan", jnp.tan, "the tangent"),
    unary("asin", jnp.arcsin, "the inverse sine"),
    unary("acos", jnp.arccos, "the inverse cosine"),
    unary("atan", jnp.arctan, "the inverse tangent"),
    unary("sinh", jnp.sinh, "the hyperbolic sine"),
    unary("cosh", jnp.cosh, "the hyperbolic cosine"),
    unary("tanh", jnp.tanh, "the hyperbolic tangent"),
    unary("asinh", jnp.arcsinh, "the inverse hyperbolic sine"),
    unary("acosh", jnp.arccosh, "the inverse hyperbolic cosine"),
    unary("atanh", jnp.arctanh, "the inverse hyperbolic tangent"),
    unary("sqrt", _float(_sqrt), "the square root, with derivative 0 at 0"),
    unary("rsqrt", _float(_rsqrt), "1 / sqrt(x), with value and derivative 0 at 0"),
    unary("square", jnp.square, "x * x"),
    unary("cbrt", jnp.cbrt, "the cube root"),
    unary("abs", _abs, "the absolute value, with derivative 0 at 0"),
    unary("sign", jnp.sign, "-1, 0 or 1"),
    unary("step", _step, "0 where x < 0, else 1"),
    unary("relu", _relu, "max(x, 0), with derivative 1 at 0"),
    unary("floor", jnp.floor, "the largest integer below"),
    unary("ceil", jnp.ceil, "the smallest integer above"),
    unary("xlogx", _float(_xlogx), "x log(x), 0 at 0"),
    unary("sinxdivx", _sinxdivx, "sin(x) / x, 1 at 0"),
    unary("sinc", jnp.sinc, "sin(pi x) / (pi x), 1 at 0"),
    unary("erf", _float(special.erf), "the error function"),
    unary("erfc", _float(special.erfc), "1 - erf(x), accurate for large x"),
    unary("lgamma", _float(special.gammaln), "the logarithm of |gamma(x)|"),
    unary("digamma", _float(special.digamma), "the derivative of lgamma"),
    unary("sigmoid", _logistic, "1 / (1 + exp(-x))"),
    unary("logistic", _logistic, "1 / (1 + exp(-x)), as sigmoid"),
    unary("softplus", jax.nn.softplus, "log(1 + exp(x))"),
    Op("round", _round, 1, None, "round to `decimals`, half away from zero"),
    binary("atan2", jnp.arctan2, None, "the angle of the point (y, x)"),
    binary("minimum", jnp.minimum, None, "the smaller of two"),
    binary("maximum", jnp.maximum, None, "the larger of two"),
    Op("clamp", _clamp, 3, None, "x held within [a, b], with derivative 1 on the closed interval"),
    Op("ifelse", lambda x, a, b: jnp.where(x >= 0, a, b), 3, None, "a where x >= 0, b elsewhere"),
    Op("where", _where, 3, None, "a where the condition holds, b elsewhere"),
    Op("mod", _mod, 3, None, "x modulo n, in [offset, offset + n)"),
    # Over the features, kept as an axis of size 1.
    unary("sum_features", _over_features(jnp.sum), "the sum over D"),
    unary("prod_features", _over_features(jnp.prod), "the product over D"),
    unary("mean_features", _over_features(jnp.mean), "the mean over D"),
    unary("min_features", _over_features(jnp.min), "the smallest over D"),
    unary("max_features", _over_features(jnp.max), "the largest over D"),
    unary("argmin_features", _argument(jnp.argmin), "where the smallest over D stands"),
    unary("argmax_features", _argument(jnp.argmax), "where the largest over D stands"),
    unary("logsumexp_features", _over_features(lambda x, axes: special.logsumexp(floating(x), axes)), "log sum exp"),
    unary(
        "softmax_features",
        _over_features(lambda x, axes: jax.nn.softmax(floating(x), axes)),
        "exp(x) / sum over D of exp(x)",
    ),
    unary("sqnorm2", lambda x: vector(_sqnorm(x)), "the squared Euclidean norm over D"),
    unary("norm2", _norm2, "the Euclidean norm over D, with derivative 0 at 0"),
    unary("normalize", _normalize, "x / |x|, 0 at 0"),
    binary("sqdist", lambda x, y: vector(_sqnorm(x - y)), None, "the squared Euclidean distance over D"),
    Op("sqdist_product", _sqdist_product, 3, None, "sqdist as |x|^2 + |y|^2 - 2 x.y, both less a center"),
    binary("weightedsqnorm", _weightedsqnorm, None, "sum s x^2, or x^T S x", broadcast=False),
    binary("difference_matrix", _difference_matrix, None, "x_a - y_b for every a, b, flattened", broadcast=False),
    Op("concat", _concat, -1, None, "features one after the other", broadcast=False),
]

OPS: dict[str, Op] = {op.name: aligned(op) for op in [*_ROWS, *ALGEBRA, *TENSORS, *COMPLEX]}

# How a feature-wise reduction is called by a user: `K.sum(-1)`.
FEATURE_OPS = {
    name: f"{name}_features" for name in ("sum", "prod", "mean", "min", "max", "argmin", "argmax", "logsumexp")
} | {"softmax": "softmax_features"}
