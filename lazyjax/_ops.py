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
    x = vector(x)
    real = jnp.issubdtype(x.dtype, jnp.floating)
    return _sum_of_squares(x, axes) if real else jnp.sum(_square_of_modulus(x), axes)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _sum_of_squares(x: Any, axes: Any) -> Any:
    return jnp.sum(x * x, axes)


@_sum_of_squares.defjvp
def _sum_of_squares_jvp(axes: Any, primals: Any, tangents: Any) -> Any:
    """2 <x, t>: the factor is then one of the sum. JAX's own rule, <x, t> + <t, x>, takes it for each feature."""
    (x,), (t,) = primals, tangents
    return _sum_of_squares(x, axes), 2 * jnp.sum(x * t, axes)


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

# fmt: off
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
    binary("equal", jnp.equal, "({0} == {1})", "Whether x == y", dtype="bool",
           note="As `numpy.equal`, and the same as `x == y`. KeOps has 1.0 and 0.0.",
           example="Vj([[1.0], [2.0]]).equal(2) -> False, True"),
    binary("not_equal", jnp.not_equal, "({0} != {1})", "Whether x != y", dtype="bool",
           note="As `numpy.not_equal`, and the same as `x != y`. NaN differs from everything. KeOps has 1.0 and 0.0.",
           example="Vj([[1.0], [2.0]]).not_equal(2) -> True, False"),
    binary("less", jnp.less, "({0} < {1})", "Whether x < y", dtype="bool", refuses="complex numbers",
           note="As `numpy.less`, and the same as `x < y`. KeOps has 1.0 and 0.0.",
           example="Vj([[1.0], [2.0]]).less(2) -> True, False"),
    binary("less_equal", jnp.less_equal, "({0} <= {1})", "Whether x <= y", dtype="bool", refuses="complex numbers",
           note="As `numpy.less_equal`, and the same as `x <= y`. KeOps has 1.0 and 0.0.",
           example="Vj([[2.0], [3.0]]).less_equal(2) -> True, False"),
    binary("greater", jnp.greater, "({0} > {1})", "Whether x > y", dtype="bool", refuses="complex numbers",
           note="As `numpy.greater`, and the same as `x > y`. KeOps has 1.0 and 0.0.",
           example="Vj([[2.0], [3.0]]).greater(2) -> False, True"),
    binary("greater_equal", jnp.greater_equal, "({0} >= {1})", "Whether x >= y", dtype="bool",
           refuses="complex numbers",
           note="As `numpy.greater_equal`, and the same as `x >= y`. KeOps has 1.0 and 0.0.",
           example="Vj([[1.0], [2.0]]).greater_equal(2) -> False, True"),
    binary("logical_and", jnp.logical_and, "({0} & {1})", "Whether neither x nor y is 0", dtype="bool",
           note="As `numpy.logical_and`. `x & y` is the same and takes booleans only.",
           example="Vj([[1.0], [2.0]]).logical_and(Vj([[0.0], [3.0]])) -> False, True"),
    Op("logical_not", jnp.logical_not, 1, "~{0}", "Whether x is 0", dtype="bool",
       note="As `numpy.logical_not`. `~x` is the same and takes booleans only.", example="0.0, 2.0 -> True, False"),
    unary("isfinite", jnp.isfinite, "Whether x is neither infinite nor NaN", dtype="bool", note="As `numpy.isfinite`.",
          example="0.0, float('inf') -> True, False"),
    # Element-wise functions.
    unary("exp", jnp.exp, "The exponential, e to the power x", note="As `numpy.exp`.", example="1.0 ~> 2.7183"),
    unary("exp2", jnp.exp2, "2 to the power x", note="As `numpy.exp2`.", example="3.0 ~> 8.0"),
    unary("expm1", jnp.expm1, "exp(x) - 1, accurate near 0", note="As `numpy.expm1`.",
          example="1.0 ~> 1.7183"),
    unary("log", jnp.log, "The natural logarithm", note="As `numpy.log`: -inf at 0, NaN below.",
          example="2.0 ~> 0.6931"),
    unary("log1p", jnp.log1p, "log(1 + x), accurate near 0", note="As `numpy.log1p`: -inf at -1, NaN below.",
          example="1.0 ~> 0.6931"),
    unary("sin", jnp.sin, "The sine", note="As `numpy.sin`.", example="1.0 ~> 0.8415"),
    unary("cos", jnp.cos, "The cosine", note="As `numpy.cos`.", example="1.0 ~> 0.5403"),
    unary("tan", jnp.tan, "The tangent", note="As `numpy.tan`.", example="1.0 ~> 1.5574"),
    unary("asin", jnp.arcsin, "The inverse sine", example="1.0 ~> 1.5708",
          note="As `numpy.arcsin`: in [-pi/2, pi/2], NaN outside of [-1, 1]."),
    unary("acos", jnp.arccos, "The inverse cosine", example="0.0 ~> 1.5708",
          note="As `numpy.arccos`: in [0, pi], NaN outside of [-1, 1]."),
    unary("atan", jnp.arctan, "The inverse tangent", example="1.0 ~> 0.7854",
          note="As `numpy.arctan`: in [-pi/2, pi/2]; `atan2` knows the quadrant."),
    unary("sinh", jnp.sinh, "The hyperbolic sine", note="As `numpy.sinh`.", example="1.0 ~> 1.1752"),
    unary("cosh", jnp.cosh, "The hyperbolic cosine", note="As `numpy.cosh`.", example="1.0 ~> 1.5431"),
    unary("tanh", jnp.tanh, "The hyperbolic tangent", note="As `numpy.tanh`.", example="1.0 ~> 0.7616"),
    unary("asinh", jnp.arcsinh, "The inverse hyperbolic sine", note="As `numpy.arcsinh`.",
          example="1.0 ~> 0.8814"),
    unary("acosh", jnp.arccosh, "The inverse hyperbolic cosine", note="As `numpy.arccosh`: NaN below 1.",
          example="2.0 ~> 1.317"),
    unary("atanh", jnp.arctanh, "The inverse hyperbolic tangent", example="0.5 ~> 0.5493",
          note="As `numpy.arctanh`: infinite at -1 and 1, NaN beyond."),
    unary("sqrt", _float(_sqrt), "The square root", example="0.0, 4.0 -> 0.0, 2.0",
          note="As `numpy.sqrt`: NaN below 0. Derivatives at 0 are 0, as in KeOps; those of `jnp.sqrt` are infinite."),
    unary("rsqrt", _float(_rsqrt), "1 / sqrt(x), and 0 at 0", example="0.0, 4.0 -> 0.0, 0.5",
          note="NaN below 0. Value and derivatives at 0 are 0, as in KeOps; `jax.lax.rsqrt(0)` is infinite."),
    unary("square", jnp.square, "The square, x * x", dtype="same", note="As `numpy.square`, and the same as `x ** 2`.",
          example="-2.0, 3.0 -> 4.0, 9.0"),
    unary("cbrt", jnp.cbrt, "The cube root", refuses="complex numbers", example="27.0 ~> 3.0",
          note="As `numpy.cbrt`. The derivative at 0 is infinite."),
    unary("abs", _abs, "The absolute value, or the modulus of complex numbers", dtype="real",
          note="As `numpy.abs`, and the same as `abs(x)`. The derivative at 0 is 0, where that of `jnp.abs` is 1.",
          example="-2.0, 3.0 -> 2.0, 3.0"),
    unary("sign", jnp.sign, "The sign: -1, 0 or 1", dtype="same", refuses="booleans", example="-2.0, 0.0 -> -1.0, 0.0",
          note="As `numpy.sign`: x / |x| of complex numbers. The derivative is 0."),
    unary("step", _step, "0 where x < 0, 1 elsewhere", dtype="same", refuses="complex numbers",
          note="As `numpy.heaviside(x, 1)`, but 1 at NaN. The derivative is 0.", example="-2.0, 0.0 -> 0.0, 1.0"),
    unary("relu", _relu, "The larger of x and 0", dtype="same", refuses="complex numbers",
          note="The derivative at 0 is 1, as in KeOps; that of `jax.nn.relu` is 0.",
          example="-2.0, 3.0 -> 0.0, 3.0"),
    unary("floor", jnp.floor, "The largest integer that is not above x", dtype="same", refuses="complex numbers",
          note="As `numpy.floor`. The derivative is 0.", example="-0.5, 1.5 -> -1.0, 1.0"),
    unary("ceil", jnp.ceil, "The smallest integer that is not below x", dtype="same", refuses="complex numbers",
          note="As `numpy.ceil`. The derivative is 0.", example="0.5, 1.5 -> 1.0, 2.0"),
    unary("xlogx", _float(_xlogx), "x log(x), and 0 at 0", example="2.0 ~> 1.3863",
          note="As `scipy.special.xlogy(x, x)`: NaN below 0. The derivative is log(x) + 1, so -inf at 0."),
    unary("sinxdivx", _sinxdivx, "sin(x) / x, and 1 at 0", example="1.0 ~> 0.8415",
          note="The derivative at 0 is 0, where KeOps has NaN. `sinc` is the same at pi x."),
    unary("sinc", jnp.sinc, "sin(pi x) / (pi x), and 1 at 0", note="As `numpy.sinc`. The derivative at 0 is 0.",
          example="0.5 ~> 0.6366"),
    unary("erf", _float(special.erf), "The error function", refuses="complex numbers", note="As `scipy.special.erf`.",
          example="1.0 ~> 0.8427"),
    unary("erfc", _float(special.erfc), "1 - erf(x), accurate for large x", refuses="complex numbers",
          note="As `scipy.special.erfc`.", example="1.0 ~> 0.1573"),
    unary("lgamma", _float(special.gammaln), "The logarithm of |gamma(x)|", refuses="complex numbers",
          note="As `scipy.special.gammaln`: infinite at 0, -1, -2, ...", example="5.0 ~> 3.1781"),
    unary("digamma", _float(special.digamma), "The derivative of lgamma", refuses="complex numbers",
          note="As `scipy.special.digamma`, but NaN at 0, -1, -2, ...", example="2.0 ~> 0.4228"),
    unary("sigmoid", _logistic, "1 / (1 + exp(-x)), which never overflows", note="As `scipy.special.expit`.",
          example="1.0 ~> 0.7311"),
    unary("logistic", _logistic, "1 / (1 + exp(-x)), which never overflows",
          note="As `scipy.special.expit`; another name of `sigmoid`.", example="1.0 ~> 0.7311"),
    unary("softplus", jax.nn.softplus, "log(1 + exp(x)), which never overflows", note="As `jax.nn.softplus`.",
          example="1.0 ~> 1.3133"),
    Op("round", _round, 1, None, "round to `decimals`, half away from zero"),
    binary("atan2", jnp.arctan2, None, "The angle of the points (x, self), in [-pi, pi]", refuses="complex numbers",
           note="As `numpy.arctan2(self, x)`.", operands=("x",),
           example="Vj([[1.0]]).atan2(1.0) ~> 0.7854"),
    binary("minimum", jnp.minimum, None, "The smaller of x and y", dtype="promoted", refuses="complex numbers",
           note="As `numpy.minimum`: NaN where either is NaN. Where they are equal each has half of the derivative. "
                "`min` is the reduction.",
           example="Vj([[1.0], [3.0]]).minimum(2) -> 1.0, 2.0"),
    binary("maximum", jnp.maximum, None, "The larger of x and y", dtype="promoted", refuses="complex numbers",
           note="As `numpy.maximum`: NaN where either is NaN. Where they are equal each has half of the derivative. "
                "`max` is the reduction.",
           example="Vj([[1.0], [3.0]]).maximum(2) -> 2.0, 3.0"),
    Op("clamp", _clamp, 3, None, "The number in [low, high] that is nearest to x", dtype="promoted",
       refuses="complex numbers",
       note="As `numpy.clip` where low <= high. The derivative is 1 on the closed interval, 0 beyond; NaN stays.",
       operands=("low", "high"), example="Vj([[-2.0], [0.5]]).clamp(-1, 1) -> -1.0, 0.5"),
    Op("ifelse", lambda x, a, b: jnp.where(x >= 0, a, b), 3, None,
       "The values of a where x >= 0, and of b elsewhere", dtype="promoted",
       refuses="complex numbers", operands=("a", "b"), example="Vj([[-2.0], [0.0]]).ifelse(10.0, 20.0) -> 20.0, 10.0",
       note="`(x >= 0).where(a, b)` is the same: b where x is NaN. The derivative with respect to x is 0. "
            "Both branches are computed: where the derivative of the other one is infinite, reverse derivatives are "
            "NaN, as in JAX."),
    Op("where", _where, 3, None, "The values of a where self, the condition, is not 0, and of b elsewhere",
       dtype="branches", operands=("a", "b"), example="(Vj([[1.0], [3.0]]) > 2).where(10.0, 20.0) -> 20.0, 10.0",
       note="As `numpy.where`. Both branches are computed: where the derivative of the other one is infinite, reverse "
            "derivatives are NaN, as in JAX."),
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
    unary("sqnorm2", lambda x: vector(_sqnorm(x)), "The squared Euclidean norm, sum_k |x_k|^2, over all features",
          one=True, dtype="sum", note="As `numpy.linalg.norm(x) ** 2`.", example="Vi([[3.0, 4.0]]).sqnorm2() -> 25.0"),
    unary("norm2", _norm2, "The Euclidean norm, the square root of sum_k |x_k|^2, over all features", one=True,
          dtype="norm", note="As `numpy.linalg.norm`. Its derivatives at 0 are 0, as in KeOps; those of JAX are NaN. "
               "`norm` is over the feature axes that are named.",
          example="Vi([[3.0, 4.0]]).norm2() -> 5.0"),
    unary("normalize", _normalize, "The direction x / |x|, for the norm over all features; 0 at 0",
          note="Its derivatives at 0 are 0, as in KeOps.", example="Vi([[0.0, 4.0]]).normalize()[..., 1] -> 1.0"),
    binary("sqdist", lambda x, y: vector(_sqnorm(x - y)), None, "the squared Euclidean distance over D"),
    Op("sqdist_product", _sqdist_product, 3, None, "sqdist as |x|^2 + |y|^2 - 2 x.y, both less a center"),
    binary("weightedsqnorm", _weightedsqnorm, None, "sum s x^2, or x^T S x", broadcast=False),
    binary("difference_matrix", _difference_matrix, None,
           "The differences x_a - y_b, for every feature a of x and b of y",
           broadcast=False, dtype="promoted", refuses="booleans",
           note="Of A and B features these are A * B, row by row: x_a - y_b is feature a * B + b.",
           example="Vi([[5.0, 7.0]]).difference_matrix([1.0, 2.0, 3.0]).sum(axis=1) -> 4.0, 3.0, 2.0, 6.0, 5.0, 4.0"),
    Op("concat", _concat, -1, None, "features one after the other", broadcast=False),
]
# fmt: on

OPS: dict[str, Op] = {op.name: aligned(op) for op in [*_ROWS, *ALGEBRA, *TENSORS, *COMPLEX]}

# How a feature-wise reduction is called by a user: `K.sum(-1)`.
FEATURE_OPS = {
    name: f"{name}_features" for name in ("sum", "prod", "mean", "min", "max", "argmin", "argmax", "logsumexp")
} | {"softmax": "softmax_features"}
