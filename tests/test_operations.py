"""Every operation of the language against dense NumPy and SciPy, its derivatives against finite differences."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.interpolate
import scipy.special

from lazyjax import LazyTensor, Pm, Vi, Vj
from lazyjax._ops import OPS
from lazyjax._ops_algebra import ALGEBRA as ROWS_OF_ALGEBRA
from lazyjax._ops_complex import COMPLEX
from lazyjax._ops_tensors import TENSORS

from .dense import close, derivatives_agree

M, N, D = 6, 5, 3
SEED = 11  # of draws on which no operation comes close to a kink


@dataclasses.dataclass(frozen=True)
class Row:
    """One spelling of one operation.

    lazy and dense take one, two or three operands: t = (u_i + v_j) / 2; or u_i and v_j; or u_i, v_j and 1 - u_i.
    Each is drawn from (0, 1), then mapped to the `domain` of its operand, which stays away from singular points.
    """

    op: str
    lazy: Callable[..., Any]
    dense: Callable[..., Any]
    domain: tuple[tuple[float, float], ...] = ((-2.1, 1.9),)
    smooth: bool = True


REAL = (-2.1, 1.9)
POSITIVE = (0.3, 2.9)
TWO, THREE = (REAL, REAL), (REAL, REAL, REAL)


def _keep(fn):
    return lambda x: fn(x, -1)[..., None]


def _round(x, decimals=0):
    scale = 10.0**decimals
    return np.copysign(np.floor(np.abs(x) * scale + 0.5), x) / scale


def _normalize(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def _matrix(s):
    return s[..., :, None] * s[..., None, :] + np.arange(9.0).reshape(3, 3)


def _lazy_matrix(s):
    return LazyTensor.cat([s[..., a] * s[..., b] + float(3 * a + b) for a in range(3) for b in range(3)])


def _lazy_square(x, y):
    """A square matrix, the unit matrix plus x y^T."""
    return _outer(x, y) + Pm(np.eye(x.shape[-1]).astype(x.dtype), feature_ndim=2)


def _outer(x, y):
    return x.tensorprod(y).reshape_features(x.shape[-1], y.shape[-1])


def _square(x, y):
    return np.eye(x.shape[-1]) + x[..., :, None] * y[..., None, :]


def _rows(x):
    return x.reshape(M, N, -1)


def _lazy_rows(x):
    return x.reshape_features(-1)


def _polar(r, t):
    return r * np.exp(1j * t)


def _lazy_polar(r, t):
    return r * t.exp1j()


KNOTS = 0.6 * np.arange(8) - 2  # away from the values of y


def _lazy_bspline(x, y):
    return LazyTensor.cat([x[..., 0] * 0.02 + float(t) for t in KNOTS]).bspline(y[..., -1], 3)


def _bspline(x, y):
    knots = 0.02 * x[..., :1] + KNOTS
    pairs = zip(knots.reshape(M * N, 8), y[..., -1].ravel(), strict=True)
    elements = [[scipy.interpolate.BSpline.basis_element(t[k : k + 5], False)(z) for k in range(4)] for t, z in pairs]
    return np.nan_to_num(np.asarray(elements)).reshape(M, N, 4)


def _softdtw(x, y, gamma):
    """The recursion as it is written, cell by cell."""
    size = x.shape[-1]
    r = np.full((size + 1, size + 1, *x.shape[:-1]), np.inf)
    r[0, 0] = 0
    for a, b in np.ndindex(size, size):
        near = np.stack([r[a, b], r[a, b + 1], r[a + 1, b]])
        soft = -gamma[..., 0] * scipy.special.logsumexp(-near / gamma[..., 0], 0)
        r[a + 1, b + 1] = (x[..., a] - y[..., b]) ** 2 + soft
    return r[size, size][..., None]


TABLE = [
    # Arithmetic.
    Row("add", lambda x, y: x + y, np.add, TWO),
    Row("subtract", lambda x, y: x - y, np.subtract, TWO),
    Row("multiply", lambda x, y: x * y, np.multiply, TWO),
    Row("divide", lambda x, y: x / y, np.divide, (REAL, POSITIVE)),
    Row("divide", lambda x: x / 3, lambda x: x / 3),
    Row("divide", lambda x: 1 / x, lambda x: 1 / x, (POSITIVE,)),
    Row("floor_divide", lambda x, y: x // y, np.floor_divide, (REAL, POSITIVE)),
    Row("floor_divide", lambda x: 2.03 // x, lambda x: 2.03 // x, (POSITIVE,)),
    Row("remainder", lambda x, y: x % y, np.mod, (REAL, (-3.13, -2.17))),
    Row("remainder", lambda x: 2.03 % x, lambda x: 2.03 % x, (POSITIVE,)),
    Row("power_of", lambda x, y: x**y, np.power, (POSITIVE, REAL)),
    Row("power_of", lambda x: 2**x, lambda x: 2.0**x),
    Row("power_of", lambda x: x**1.5, lambda x: x**1.5, (POSITIVE,)),
    Row("power_of", lambda x: x ** (1 / 3), lambda x: np.exp(np.log(x) / 3), (POSITIVE,)),
    Row("integer_power", lambda x: x**3, lambda x: x * x * x),
    Row("integer_power", lambda x: x**-2, lambda x: 1 / (x * x), (POSITIVE,)),
    Row("integer_power", lambda x: x**0, np.ones_like),
    Row("square", lambda x: x**2, lambda x: x * x),
    Row("square", lambda x: x.square(), lambda x: x * x),
    Row("sqrt", lambda x: x**0.5, np.sqrt, (POSITIVE,)),
    Row("rsqrt", lambda x: x**-0.5, lambda x: 1 / np.sqrt(x), (POSITIVE,)),
    Row("negative", lambda x: -x, np.negative),
    Row("scalar_product", lambda x, y: x | y, lambda x, y: (x * y).sum(-1, keepdims=True), TWO),
    # Comparisons and logic.
    Row("equal", lambda x, y: x.floor() == y.floor(), lambda x, y: np.floor(x) == np.floor(y), TWO, False),
    Row("not_equal", lambda x, y: x.floor() != y.floor(), lambda x, y: np.floor(x) != np.floor(y), TWO, False),
    Row("less", lambda x, y: x < y, np.less, TWO, False),
    Row("less_equal", lambda x, y: x.floor() <= y.floor(), lambda x, y: np.floor(x) <= np.floor(y), TWO, False),
    Row("greater", lambda x, y: x > y, np.greater, TWO, False),
    Row("greater_equal", lambda x, y: x.floor() >= y.floor(), lambda x, y: np.floor(x) >= np.floor(y), TWO, False),
    Row("logical_and", lambda x, y: (x > 0) & (y > 0), lambda x, y: (x > 0) & (y > 0), TWO, False),
    Row("scalar_product", lambda x, y: (x > 0) | (y > 0), lambda x, y: (x > 0) | (y > 0), TWO, False),
    Row("logical_not", lambda x: ~(x > 0), lambda x: x <= 0, (REAL,), False),
    Row("isfinite", lambda x, y: (x / y.relu()).isfinite(), lambda x, y: y + 0 * x > 0, TWO, False),
    # Element-wise functions.
    Row("exp", lambda x: x.exp(), np.exp),
    Row("exp2", lambda x: x.exp2(), np.exp2),
    Row("expm1", lambda x: x.expm1(), np.expm1),
    Row("log", lambda x: x.log(), np.log, (POSITIVE,)),
    Row("log1p", lambda x: x.log1p(), np.log1p, ((-0.6, 1.9),)),
    Row("sin", lambda x: x.sin(), np.sin),
    Row("cos", lambda x: x.cos(), np.cos),
    Row("tan", lambda x: x.tan(), np.tan, ((-1.2, 1.1),)),
    Row("asin", lambda x: x.asin(), np.arcsin, ((-0.8, 0.7),)),
    Row("acos", lambda x: x.acos(), np.arccos, ((-0.8, 0.7),)),
    Row("atan", lambda x: x.atan(), np.arctan),
    Row("sinh", lambda x: x.sinh(), np.sinh),
    Row("cosh", lambda x: x.cosh(), np.cosh),
    Row("tanh", lambda x: x.tanh(), np.tanh),
    Row("asinh", lambda x: x.asinh(), np.arcsinh),
    Row("acosh", lambda x: x.acosh(), np.arccosh, ((1.5, 3.1),)),
    Row("atanh", lambda x: x.atanh(), np.arctanh, ((-0.8, 0.7),)),
    Row("sqrt", lambda x: x.sqrt(), np.sqrt, (POSITIVE,)),
    Row("rsqrt", lambda x: x.rsqrt(), lambda x: 1 / np.sqrt(x), (POSITIVE,)),
    Row("cbrt", lambda x: x.cbrt(), np.cbrt, (POSITIVE,)),
    Row("abs", lambda x: x.abs(), np.abs),
    Row("abs", abs, np.abs),
    Row("sign", lambda x: x.sign(), np.sign),
    Row("step", lambda x: x.step(), lambda x: np.heaviside(x, 1)),
    Row("relu", lambda x: x.relu(), lambda x: np.maximum(x, 0)),
    Row("floor", lambda x: x.floor(), np.floor),
    Row("ceil", lambda x: x.ceil(), np.ceil),
    Row("round", lambda x: x.round(), _round),
    Row("round", lambda x: x.round(1), lambda x: _round(x, 1), ((-2.12, 1.91),), False),
    Row("xlogx", lambda x: x.xlogx(), lambda x: scipy.special.xlogy(x, x), (POSITIVE,)),
    Row("sinxdivx", lambda x: x.sinxdivx(), lambda x: np.sin(x) / x),
    Row("sinc", lambda x: x.sinc(), np.sinc),
    Row("erf", lambda x: x.erf(), scipy.special.erf),
    Row("erfc", lambda x: x.erfc(), scipy.special.erfc),
    Row("lgamma", lambda x: x.lgamma(), scipy.special.gammaln, (POSITIVE,)),
    Row("digamma", lambda x: x.digamma(), scipy.special.digamma, (POSITIVE,)),
    Row("sigmoid", lambda x: x.sigmoid(), scipy.special.expit),
    Row("logistic", lambda x: x.logistic(), scipy.special.expit),
    Row("softplus", lambda x: x.softplus(), lambda x: np.log(1 + np.exp(x))),
    Row("atan2", lambda x, y: x.atan2(y), np.arctan2, (REAL, POSITIVE)),
    Row("minimum", lambda x, y: x.minimum(y), np.minimum, TWO),
    Row("maximum", lambda x, y: x.maximum(y), np.maximum, TWO),
    Row("clamp", lambda x, y: x.clamp(y, 1.03), lambda x, y: np.minimum(np.maximum(x, y), 1.03), (REAL, (-2.1, 0.9))),
    Row("clamp", lambda x: x.clamp(-1, 1), lambda x: np.clip(x, -1, 1)),
    Row("ifelse", lambda x, y, w: x.ifelse(y, w), lambda x, y, w: np.where(x >= 0, y, w), THREE),
    Row("where", lambda x, y, w: (x < y).where(w, x), lambda x, y, w: np.where(x < y, w, x), THREE),
    Row("mod", lambda x: x.mod(0.7, -0.31), lambda x: (x + 0.31) % 0.7 - 0.31, ((-2.12, 1.91),)),
    Row("mod", lambda x, y: x.mod(y), np.mod, (REAL, POSITIVE)),
    # Over the features.
    Row("sum_features", lambda x, y: (x * y).sum(-1), lambda x, y: np.einsum("mnd,mnd->mn", x, y)[..., None], TWO),
    Row("sum_features", lambda x: x.sum(), _keep(np.sum)),
    Row("prod_features", lambda x: x.prod(-1), _keep(np.prod)),
    Row("mean_features", lambda x: x.mean(-1), _keep(np.mean)),
    Row("min_features", lambda x, y: (x - y).min(-1), lambda x, y: (x - y).min(-1, keepdims=True), TWO),
    Row("max_features", lambda x, y: (x - y).max(-1), lambda x, y: (x - y).max(-1, keepdims=True), TWO),
    Row("argmin_features", lambda x: x.argmin(-1), _keep(np.argmin), (REAL,), False),
    Row("argmax_features", lambda x: x.argmax(-1), _keep(np.argmax), (REAL,), False),
    Row("logsumexp_features", lambda x: x.logsumexp(-1), _keep(scipy.special.logsumexp)),
    Row("softmax_features", lambda x: x.softmax(-1), lambda x: scipy.special.softmax(x, -1)),
    Row("sqnorm2", lambda x: x.sqnorm2(), lambda x: (x**2).sum(-1, keepdims=True)),
    Row("norm2", lambda x: x.norm2(), lambda x: np.linalg.norm(x, axis=-1, keepdims=True)),
    Row("norm2", lambda x: x.norm(-1), lambda x: np.linalg.norm(x, axis=-1, keepdims=True)),
    Row("normalize", lambda x: x.normalize(), _normalize),
    Row("sqdist", lambda x, y: x.sqdist(y), lambda x, y: ((x - y) ** 2).sum(-1, keepdims=True), TWO),
    Row("sqdist_product", lambda x, y: x._record("sqdist_product", y, 0.3),
        lambda x, y: ((x - y) ** 2).sum(-1, keepdims=True), TWO),
    Row("weightedsqnorm", lambda x, y: x.weightedsqnorm(y), lambda x, s: (s * x * x).sum(-1)[..., None], TWO),
    Row("weightedsqnorm", lambda x: x.weightedsqnorm(0.7), lambda x: (0.7 * x * x).sum(-1)[..., None]),
    Row("weightedsqnorm", lambda x, y: x.weightedsqdist(y, _lazy_matrix(x)),
        lambda x, y: np.einsum("mna,mnab,mnb->mn", x - y, _matrix(x), x - y)[..., None], TWO),
    Row("difference_matrix", lambda x, y: x.difference_matrix(y),
        lambda x, y: (x[..., :, None] - y[..., None, :]).reshape(*x.shape[:2], 9), TWO),
    # Index and build.
    Row("take", lambda x: x[..., 1], lambda x: x[..., 1:2]),
    Row("take", lambda x: x[:, :, -1], lambda x: x[..., 2:]),
    Row("take", lambda x: x[..., ::-2], lambda x: x[..., ::-2]),
    Row("take", lambda x: x[..., :2], lambda x: x[..., :2]),
    Row("take", lambda x: x.elem(0), lambda x: x[..., :1]),
    Row("take", lambda x: x.extract(1, 2), lambda x: x[..., 1:]),
    Row("concat", lambda x, y: x.concat(y), lambda x, y: np.concatenate([x, y], -1), TWO),
    Row("concat", lambda x, y: LazyTensor.concatenate([x, 1.5, y]),
        lambda x, y: np.concatenate([x, np.full((M, N, 1), 1.5), y], -1), TWO),
    Row("stack", lambda x, y: _lazy_rows(LazyTensor.stack([x, y])), lambda x, y: _rows(np.stack([x, y], -1)), TWO),
    Row("one_hot", lambda x: x.elem(0).one_hot(3), lambda x: 1.0 * (np.round(x[..., :1]) == np.arange(3.0)),
        ((-1.4, 4.3),), False),
    Row("bspline", _lazy_bspline, _bspline, TWO),
    Row("softdtw_sqdist", lambda x, y, w: x.softdtw_sqdist(y, w[..., 0]), _softdtw, (REAL, REAL, POSITIVE)),
    # Small tensors, flattened.
    Row("tensorprod", lambda x, y: x.tensorprod(y), lambda x, y: _rows(x[..., :, None] * y[..., None, :]), TWO),
    Row("matvecmult", lambda x, y: x.tensorprod(y).exp().matvecmult(x),
        lambda x, y: np.einsum("mnab,mnb->mna", np.exp(x[..., :, None] * y[..., None, :]), x), TWO),
    Row("vecmatmult", lambda x, y: x.vecmatmult(x.tensorprod(y).exp()),
        lambda x, y: np.einsum("mna,mnab->mnb", x, np.exp(x[..., :, None] * y[..., None, :])), TWO),
    Row("keops_tensordot", lambda x, y: x.keops_tensordot(y, x.shape[-1], y.shape[-1], (), (), (1, 0)),
        lambda x, y: _rows(y[..., :, None] * x[..., None, :]), TWO),
    Row("keops_kron", lambda x, y: x.keops_kron(y, (x.shape[-1], 1), (1, y.shape[-1])),
        lambda x, y: _rows(x[..., :, None] * y[..., None, :]), TWO),
    # Features with several axes.
    Row("take", lambda x, y: _outer(x, y)[..., 1, :], lambda x, y: x[..., 1:2] * y, TWO),
    Row("sum_features", lambda x, y: _outer(x, y).sum(-2), lambda x, y: x.sum(-1, keepdims=True) * y, TWO),
    Row("norm2", lambda x, y: _outer(x, y).norm(-1), lambda x, y: np.abs(x) * np.linalg.norm(y, axis=-1)[..., None],
        TWO),
    Row("reshape_features", lambda x, y: _lazy_rows(_outer(x, y)),
        lambda x, y: _rows(x[..., :, None] * y[..., None, :]), TWO),
    Row("transpose_features", lambda x, y: _lazy_rows(_outer(x, y).mT),
        lambda x, y: _rows(y[..., :, None] * x[..., None, :]), TWO),
    Row("matmul", lambda x, y: _lazy_square(x, y).matmul(y), lambda x, y: y + x * (y * y).sum(-1, keepdims=True), TWO),
    Row("einsum", lambda x, y: LazyTensor.einsum("ab,b,a->", _lazy_square(x, y), x, y),
        lambda x, y: ((x * y).sum(-1) + (x * y).sum(-1) ** 2)[..., None], TWO),
    Row("trace", lambda x, y: _outer(x, y).trace(), lambda x, y: (x * y).sum(-1, keepdims=True), TWO),
    Row("det", lambda x, y: _lazy_square(x, y).det(), lambda x, y: np.linalg.det(_square(x, y))[..., None], TWO),
    Row("inv", lambda x, y: _lazy_rows(_lazy_square(x, y).inv()), lambda x, y: _rows(np.linalg.inv(_square(x, y))),
        (POSITIVE, POSITIVE)),
    # Complex numbers and their parts.
    Row("real", lambda x, y: _lazy_polar(x, y).real, lambda x, y: x * np.cos(y), TWO),
    Row("imag", lambda x, y: _lazy_polar(x, y).imag, lambda x, y: x * np.sin(y), TWO),
    Row("conj", lambda x, y: (_lazy_polar(x, y).conj() ** 2).imag, lambda x, y: -x * x * np.sin(2 * y), TWO),
    Row("angle", lambda x, y: _lazy_polar(x, y).angle(), lambda x, y: y, (POSITIVE, REAL)),
    Row("real2complex", lambda x, y: (x.real2complex() * (y * 1j)).imag, lambda x, y: x * y, TWO),
    Row("imag2complex", lambda x, y: (x.imag2complex() * (y * 1j)).real, lambda x, y: -x * y, TWO),
    Row("exp1j", lambda x: x.exp1j().imag, np.sin),
]  # fmt: skip


def draws(dtype=np.float64, size=D):
    """u (M, size) and v (N, size) in (0, 1): about odd and about even multiples of one step, so that none
    of u comes close to one of v."""
    rng = np.random.default_rng(SEED)
    step = 1 / 40
    u = rng.choice(np.arange(1, 39, 2), (M, size), replace=False)
    v = rng.choice(np.arange(2, 40, 2), (N, size), replace=False)
    return tuple(((x + rng.uniform(-0.2, 0.2, x.shape)) * step).astype(dtype) for x in (u, v))


def lazy_values(row, u, v):
    """The operation as a formula."""
    parts = [(Vi(u) + Vj(v)) * 0.5] if len(row.domain) == 1 else [Vi(u), Vj(v), 1 - Vi(u)]
    return row.lazy(*(x * (high - low) + low for x, (low, high) in zip(parts, row.domain, strict=False)))


def dense_values(row, u, v):
    """The same for all pairs, (M, N, D)."""
    u, v = (np.broadcast_to(x.astype(np.float64), (M, N, D)) for x in (u[:, None], v))
    parts = [(u + v) * 0.5] if len(row.domain) == 1 else [u, v, 1 - u]
    return row.dense(*(x * (high - low) + low for x, (low, high) in zip(parts, row.domain, strict=False)))


def test_table_covers_every_operation():
    args = draws()
    assert {row.op for row in TABLE} == set(OPS)
    for row in TABLE:
        recorded = [instruction.op for instruction in lazy_values(row, *args)._tape.code]
        assert row.op in recorded, row.op


def grouped(rows, size):
    """Several operations in one kernel, which compiles faster than one each."""
    return [rows[k : k + size] for k in range(0, len(rows), size)]


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-10), (np.float32, 1e-5)])
def test_values(dtype, tolerance):
    args = draws(dtype)
    kinds = [[row for row in TABLE if np.asarray(dense_values(row, *args)).dtype == d] for d in (float, int, bool)]
    groups = [group for rows in kinds for group in grouped(rows, 6)]

    @jax.jit
    def sums(u, v):
        return [LazyTensor.cat([lazy_values(row, u, v) for row in rows]).sum(axis=1) for rows in groups]

    for rows, got in zip(groups, sums(*args), strict=True):
        start = 0
        for row in rows:
            dense = np.asarray(dense_values(row, *args))
            own, start = got[:, start : start + dense.shape[-1]], start + dense.shape[-1]
            name = f"row {TABLE.index(row)}, {row.op}"
            if dense.dtype == np.float64:
                assert own.dtype == dtype, name
                close(own / N, dense.mean(1), tolerance * max(1, np.abs(dense).max()), name)
            else:
                assert np.issubdtype(own.dtype, np.integer), name
                np.testing.assert_array_equal(own, dense.sum(1), err_msg=name)
        assert start == got.shape[1]


SMOOTH = list({row.op: row for row in reversed(TABLE) if row.smooth}.values())
OVER_FEATURES = ("scalar_product", "sqnorm2", "norm2", "normalize", "sqdist", "sqdist_product", "weightedsqnorm",
                 "difference_matrix", "take", "concat")  # fmt: skip
VECTOR = [row for row in SMOOTH if row.op in OVER_FEATURES or row.op.endswith("_features")]
ALGEBRA = [row for row in SMOOTH if row.op in {op.name for op in [*ROWS_OF_ALGEBRA, *TENSORS, *COMPLEX]} - {"take"}]
ELEMENTWISE = [row for row in SMOOTH if row not in VECTOR and row not in ALGEBRA]


@pytest.mark.parametrize(
    ("rows", "size"),
    [(VECTOR, 2), (ALGEBRA[::2], 2), (ALGEBRA[1::2], 2), *((ELEMENTWISE[k::3], 1) for k in range(3))],
    ids=["vector", "algebra 0", "algebra 1", "0", "1", "2"],
)
def test_derivatives_against_finite_differences(rows, size):
    derivatives_agree(
        lambda u, v: LazyTensor.cat([lazy_values(row, u, v) for row in rows]).sum(axis=1), draws(size=size)
    )


# Singular points: (formula, x, value, first derivative, second derivative); None where there is no convention.

SINGULAR = {
    "sqrt(0)": (lambda x: x.sqrt(), 0.0, 0, 0, 0),
    "x ** 0.5 at 0": (lambda x: x**0.5, 0.0, 0, 0, 0),
    "rsqrt(0)": (lambda x: x.rsqrt(), 0.0, 0, 0, 0),
    "x ** -0.5 at 0": (lambda x: x**-0.5, 0.0, 0, 0, 0),
    "norm2 at 0": (lambda x: x.norm2(), 0.0, 0, 0, 0),
    "norm2 of a zero difference": (lambda x: (x - 2).norm2(), 2.0, 0, 0, 0),
    "normalize at 0": (lambda x: x.normalize(), 0.0, 0, 0, 0),
    "abs(0)": (lambda x: x.abs(), 0.0, 0, 0, 0),
    "relu(0)": (lambda x: x.relu(), 0.0, 0, 1, 0),
    "step(0)": (lambda x: x.step(), 0.0, 1, 0, 0),
    "step(-0.1)": (lambda x: x.step(), -0.1, 0, 0, 0),
    "sign(0)": (lambda x: x.sign(), 0.0, 0, 0, 0),
    "clamp at its upper end": (lambda x: x.clamp(-1, 1), 1.0, 1, 1, 0),
    "clamp at its lower end": (lambda x: x.clamp(-1, 1), -1.0, -1, 1, 0),
    "clamp beyond its end": (lambda x: x.clamp(-1, 1), 1.5, 1, 0, 0),
    "clamp, the ends move too": (lambda x: x.clamp(x, 2 * x), 1.0, 1, 1, 0),
    "xlogx(0)": (lambda x: x.xlogx(), 0.0, 0, None, None),
    "sinxdivx(0)": (lambda x: x.sinxdivx(), 0.0, 1, 0, -1 / 3),
    "sinc(0)": (lambda x: x.sinc(), 0.0, 1, 0, -(np.pi**2) / 3),
    "round(0.5)": (lambda x: x.round(), 0.5, 1, 0, 0),
    "round(-0.5)": (lambda x: x.round(), -0.5, -1, 0, 0),
    "round(2.5)": (lambda x: x.round(), 2.5, 3, 0, 0),
    "round(-1.5)": (lambda x: x.round(), -1.5, -2, 0, 0),
    "round(0.125, 2)": (lambda x: x.round(2), 0.125, 0.13, 0, 0),
    "ifelse at 0": (lambda x: x.ifelse(x + 2, 3 * x), 0.0, 2, 1, 0),
    "ifelse at -0": (lambda x: x.ifelse(x + 2, 3 * x), -0.0, 2, 1, 0),
    "ifelse below 0": (lambda x: x.ifelse(x + 2, 3 * x), -0.5, -1.5, 3, 0),
    "mod at the open end": (lambda x: x.mod(3, -1), 2.0, -1, 1, 0),
    "mod at the closed end": (lambda x: x.mod(3, -1), -1.0, -1, 1, 0),
    "mod of a negative number": (lambda x: x.mod(1), -0.25, 0.75, 1, 0),
    "1 / 0": (lambda x: 1 / x, 0.0, np.inf, None, None),
    "log(0)": (lambda x: x.log(), 0.0, -np.inf, np.inf, None),
    "0 ** 0": (lambda x: x**0, 0.0, 1, 0, 0),
    "x ** 2 at 0": (lambda x: x**2, 0.0, 0, 0, 2),
    "x ** 2.0 at 0": (lambda x: x**2.0, 0.0, 0, 0, 2),
    "x ** 2.0 below 0": (lambda x: x**2.0, -1.5, 2.25, -3, 2),
    "x ** 3 at 0": (lambda x: x**3, 0.0, 0, 0, 0),
    "softplus(800)": (lambda x: x.softplus(), 800.0, 800, 1, 0),
    "sigmoid(-800)": (lambda x: x.sigmoid(), -800.0, 0, 0, 0),
    "log1p(1e-12)": (lambda x: x.log1p() * 1e12, 1e-12, 1, 1e12, -1e12),
    "expm1(1e-12)": (lambda x: x.expm1() * 1e12, 1e-12, 1, 1e12, 1e12),
    "erfc(10)": (lambda x: x.erfc() * 1e45, 10.0, 2.088487583762545, None, None),
    "logsumexp of a large number": (lambda x: LazyTensor.cat([x, x]).logsumexp(-1), 800.0, 800 + np.log(2), 1, 0),
    "prod with one zero": (lambda x: LazyTensor.cat([x, x + 2, x + 3]).prod(-1), 0.0, 0, 6, 10),
    "prod with two zeros": (lambda x: LazyTensor.cat([x, x + 2, x]).prod(-1), 0.0, 0, 0, 4),
}


def test_singular_points():
    def f(points):
        x = Vi(points[None])
        return LazyTensor.cat([row[0](x[..., k]) for k, row in enumerate(SINGULAR.values())]).sum(axis=1)[0]

    def forward(g):
        return lambda x: jax.jvp(g, (x,), (jnp.ones_like(x),))[1]

    def reverse(g):
        return jax.grad(lambda x: g(x).sum())

    @jax.jit
    def derivatives(x):
        return f(x), [d(f)(x) for d in (forward, reverse)], [d(forward(f))(x) for d in (forward, reverse)]

    value, first, second = derivatives(jnp.asarray([row[1] for row in SINGULAR.values()]))
    for k, (name, (_, _, *expected)) in enumerate(SINGULAR.items()):
        for order, found in enumerate([[value], first, second]):
            for got in found:
                if expected[order] is not None:
                    close(got[k], np.float64(expected[order]), message=f"{name}, derivative {order}")


def test_complex_arithmetic():
    rng = np.random.default_rng(0)
    u, v = (rng.standard_normal((n, 2)) + 1j * rng.standard_normal((n, 2)) for n in (M, N))
    z, w = Vi(u), Vj(v)
    a = u[:, None]
    lazy = [z * 2, z**2, 1 / z, z.exp(), z.cos(), z.log(), z.sqrt(), z**1.5, z - w, z / w, z == w, z | w, abs(z), -z]
    dense = [2 * a, a * a, 1 / a, np.exp(a), np.cos(a), np.log(a), np.sqrt(a), np.exp(1.5 * np.log(a)), a - v, a / v,
             a == v, (a * v).sum(-1, keepdims=True), np.abs(a), -a]  # fmt: skip
    for got, expected in zip(jax.jit(lambda t: [x.sum(axis=1) for x in t])(lazy), dense, strict=True):
        close(got, expected.sum(1))
