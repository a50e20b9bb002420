"""Formula strings: every operation of KeOps against dense NumPy, the parser, the reductions, every mistake."""

# ruff: noqa: E501  (tables: one row on one line)

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

import lazyjax
from lazyjax import FormulaError, Genred, generic_argkmin, generic_argmin, generic_logsumexp, generic_sum
from lazyjax._formula_functions import FUNCTIONS

from .dense import close, sqdists, uniform

M, N, D = 4, 5, 2
x, y = uniform(0, M, D, low=0.3, high=2.0), uniform(1, N, D, low=0.3, high=2.0)
s, q = uniform(2, N, 1, low=0.3, high=0.9), uniform(3, D * D)
ALIASES = ["x = Vi(2)", "y = Vj(2)", "s = Vj(1)", "q = Pm(4)"]
DATA = (x, y, s, q)
# The same for all pairs.
X, Y, S = np.broadcast_to(x[:, None], (M, N, D)), np.broadcast_to(y, (M, N, D)), np.broadcast_to(s, (M, N, 1))
Q = np.broadcast_to(q, (M, N, 4))
MATRIX = q.reshape(2, 2)


def _sum(v):
    return v.sum(-1, keepdims=True)


def _complex(v):
    return v[..., ::2] + 1j * v[..., 1::2]


def _real(z):
    return np.stack([z.real, z.imag], -1).reshape(*z.shape[:-1], -1)


GAUSS = np.exp(-_sum((X - Y) ** 2))
TABLE = {
    "Zero(2) + x": X,
    "IntCst(3) * x": 3 * X,
    "RatCst(1, 3) * x": X / 3,
    "IntInv(7) * x": X / 7,
    "Var(1, 2, 1) + Vi(0, 2)": Y + X,
    "Add(x, y)": X + Y,
    "Subtract(x, s)": X - S,
    "Mult(x, y)": X * Y,
    "Divide(x, s)": X / S,
    "Minus(x)": -X,
    "Inv(x)": 1 / X,
    "Square(x)": X * X,
    "Pow(x, 3)": X * X * X,
    "Pow(x, -1)": 1 / X,
    "Powf(x, y)": X**Y,
    "Scalprod(x, y)": _sum(X * Y),
    "Equal(Floor(x), Floor(y))": np.floor(X) == np.floor(Y),
    "NotEqual(Floor(x), Floor(y))": np.floor(X) != np.floor(Y),
    "LessThan(x, y)": X < Y,
    "LessOrEqual(x, y)": X <= Y,
    "Abs(x - y)": np.abs(X - Y),
    "Acos(s)": np.arccos(S),
    "Asin(s)": np.arcsin(S),
    "Atan(x)": np.arctan(X),
    "Atan2(x, s)": np.arctan2(X, S),
    "Clamp(x, s, y)": np.where(X < S, S, np.where(X > Y, Y, X)),
    "ClampInt(x, 0, 1)": np.clip(X, 0, 1),
    "DiffClampInt(x, 0, 1)": (X <= 1),
    "Cos(x)": np.cos(X),
    "Exp(x)": np.exp(X),
    "Floor(x)": np.floor(X),
    "IfElse(x - y, x, s)": np.where(X >= Y, X, S),
    "Log(x)": np.log(X),
    "Mod(x, s, y)": (X - Y) % S + Y,
    "ReLU(x - y)": np.maximum(X - Y, 0),
    "Round(x, 1)": np.floor(X * 10 + 0.5) / 10,
    "Rsqrt(x)": 1 / np.sqrt(X),
    "Sign(x - y)": np.sign(X - Y),
    "Sin(x)": np.sin(X),
    "SinXDivX(x)": np.sin(X) / X,
    "Sqrt(x)": np.sqrt(X),
    "Step(x - y)": np.heaviside(X - Y, 1),
    "XLogX(x)": scipy.special.xlogy(X, X),
    "ArgMax(x - y)": np.argmax(X - Y, -1)[..., None],
    "ArgMin(x - y)": np.argmin(X - Y, -1)[..., None],
    "Max(x - y)": np.max(X - Y, -1, keepdims=True),
    "Min(x - y)": np.min(X - Y, -1, keepdims=True),
    "Norm2(x)": np.sqrt(_sum(X * X)),
    "Normalize(x)": X / np.sqrt(_sum(X * X)),
    "SqDist(x, y)": _sum((X - Y) ** 2),
    "SqNorm2(x)": _sum(X * X),
    "SqNormDiag(y, x)": _sum(Y * X * X),
    "SqNormIso(s, x)": S * _sum(X * X),
    "Sum(x)": _sum(X),
    "SumT(s, 3)": np.repeat(S, 3, -1),
    "SymSqNorm(q, x)": np.einsum("mna,ab,mnb->mn", X, MATRIX, X)[..., None],
    "WeightedSqDist(q, x, y)": np.einsum("mna,ab,mnb->mn", X - Y, MATRIX, X - Y)[..., None],
    "WeightedSqNorm(s, x)": S * _sum(X * X),
    "WeightedSqNorm(y, x)": _sum(Y * X * X),
    "Concat(x, s)": np.concatenate([X, S], -1),
    "DifferenceMatrix(x, y)": (X[..., :, None] - Y[..., None, :]).reshape(M, N, 4),
    "Elem(x, 1)": X[..., 1:],
    "ElemT(s, 3, 1)": np.concatenate([0 * S, S, 0 * S], -1),
    "Extract(q, 1, 2)": Q[..., 1:3],
    "ExtractT(x, 1, 4)": np.concatenate([0 * S, X, 0 * S], -1),
    "Kron(x, y, [2], [2])": (X[..., :, None] * Y[..., None, :]).reshape(M, N, 4),
    "MatVecMult(q, x)": np.einsum("ab,mnb->mna", MATRIX, X),
    "VecMatMult(x, q)": np.einsum("mna,ab->mnb", X, MATRIX),
    "TensorProd(x, y)": (X[..., :, None] * Y[..., None, :]).reshape(M, N, 4),
    "TensorDot(q, x, [2, 2], [2], [0], [0])": np.einsum("ab,mna->mnb", MATRIX, X),
    "TensorDot(x, q, [2], [2, 2], [], [], [2, 0, 1])": np.einsum("mna,bc->mnbca", X, MATRIX).reshape(M, N, 8),
    "OneHot(Floor(s * 4), 5)": (np.floor(S * 4) == np.arange(5)),
    "BSpline(Concat(Concat(IntCst(0), IntCst(1)), IntCst(3)), s, 1)": S,
    "SoftDTW_SqDist(s, s, IntCst(1))": 0 * S,
    "Grad(Exp(-SqDist(x, y)), x, s)": -2 * GAUSS * S * (X - Y),
    "Diff(Exp(-SqDist(x, y)), x, y)": -2 * GAUSS * _sum((X - Y) * Y),
    "GradMatrix(x * y, x)": np.stack([Y[..., 0], 0 * Y[..., 0], 0 * Y[..., 0], Y[..., 1]], -1),
    "Divergence(x * x * y, x)": _sum(2 * X * Y),
    "Laplacian(Exp(-SqDist(x, y)), x)": GAUSS * (4 * _sum((X - Y) ** 2) - 2 * D),
    "TraceOperator(Var(-1, 2, 0) * y, Var(-1, 2, 0))": _sum(Y),
    "Factorize((x - y) * (x - y), x - y)": (X - Y) ** 2,
    "AutoFactorize((x - y) * (x - y))": (X - Y) ** 2,
    "ComplexAbs(x)": np.abs(_complex(X)),
    "ComplexAdd(x, y)": X + Y,
    "ComplexAngle(x)": np.angle(_complex(X)),
    "ComplexDivide(x, y)": _real(_complex(X) / _complex(Y)),
    "ComplexExp(x)": _real(np.exp(_complex(X))),
    "ComplexExp1j(x)": _real(np.exp(1j * X)),
    "ComplexImag(x)": X[..., 1:],
    "ComplexMult(x, y)": _real(_complex(X) * _complex(Y)),
    "ComplexReal(x)": X[..., :1],
    "ComplexRealScal(s, q)": S * Q,
    "ComplexSquareAbs(q)": np.abs(_complex(Q)) ** 2,
    "ComplexSubtract(x, y)": X - Y,
    "ComplexSum(q)": _real(_complex(Q).sum(-1, keepdims=True)),
    "ComplexSumT(x, 4)": np.concatenate([X, X], -1),
    "Conj(q)": _real(np.conj(_complex(Q))),
    "Imag2Complex(x)": _real(1j * X),
    "Real2Complex(x)": _real(X + 0j),
}  # fmt: skip

# Syntax, with Python's own reading of the same text on dense arrays.
EXPRESSIONS = [
    "x + y * s - x / s", "-x ** 2", "(-x) ** 2", "2 ** -x", "x ** 2 ** 0.5", "x - y - s", "x / y / s", "x / (y / s)",
    "2 * 3 * x", "1 / 3 * x", "x * 1.5e-1", "--x", "- + - x", "+x", "x * -s", "(x + (y))", ".5*x+2.*y", "x**3*x", "x ** -1 * 2",
    "((((x))))", "x\n + \ty", "x*2-7/2",
]  # fmt: skip
PRECEDENCE = {
    "x + y | x": _sum((X + Y) * X),
    "(x | y) + s": _sum(X * Y) + S,
    "x | y | s": _sum(X * Y) * S,
    "x + s < y": X + S < Y,
    "x <= y * s": X <= Y * S,
    "(x > y) + (x >= s)": (X > Y) * 1 + (X >= S),
    "-(Floor(x) == Floor(y))": -1 * (np.floor(X) == np.floor(Y)),
    "(Floor(x) != Floor(y)) | x": _sum((np.floor(X) != np.floor(Y)) * X),
}


def test_the_table_has_every_operation():
    written = " ".join(TABLE)
    assert [name for name in FUNCTIONS if f"{name}(" not in written] == []
    keops = """Abs Acos Add ArgMax ArgMin Asin Atan Atan2 BSpline Clamp ClampInt Concat Cos DiffClampInt Divide Elem ElemT
        Equal Exp Extract ExtractT Floor GradMatrix IfElse IntInv Inv Kron LessOrEqual LessThan Log MatVecMult Max Min
        Minus Mod Mult Norm2 Normalize NotEqual OneHot Pow Powf ReLU Round Rsqrt Scalprod Sign Sin SinXDivX
        SoftDTW_SqDist SqDist SqNorm2 SqNormDiag SqNormIso Sqrt Square Step Subtract Sum SumT SymSqNorm TensorDot
        TensorProd VecMatMult WeightedSqDist WeightedSqNorm XLogX IntCst RatCst Zero Grad Diff Divergence Laplacian
        TraceOperator Factorize AutoFactorize ComplexAbs ComplexAdd ComplexAngle ComplexDivide ComplexExp ComplexExp1j
        ComplexImag ComplexMult ComplexReal ComplexRealScal ComplexSquareAbs ComplexSubtract ComplexSum ComplexSumT Conj
        Imag2Complex Real2Complex""".split()  # keopscore.formulas 2.3
    assert set(keops) <= set(FUNCTIONS)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_every_operation(dtype):
    rows = (
        TABLE
        | PRECEDENCE
        | {e: eval(e.replace("\n", "").replace("\t", ""), {"x": X, "y": Y, "s": S}) for e in EXPRESSIONS}
    )
    rows = dict(list(rows.items())[:: 1 if dtype is np.float64 else 5])
    data = [jnp.asarray(a, dtype) for a in DATA]
    kernels = {text: Genred(text, ALIASES, axis=1) for text in rows}
    sums = jax.jit(lambda *data: {text: f(*data) for text, f in kernels.items()})(*data)
    for text, dense in rows.items():
        got = sums[text]
        if not text.startswith("Arg"):
            assert got.dtype == dtype, text
        assert kernels[text].features == dense.shape[-1], text
        scale = max(1.0, np.abs(dense).max())
        close(got / scale, dense.sum(1) / scale, 1e-12 if dtype is np.float64 else 1e-5, text)


# Reductions.


F = sqdists(x, y)
REDUCED = {
    "Sum": F.sum(1)[:, None], "LogSumExp": scipy.special.logsumexp(F, 1)[:, None], "Min": F.min(1)[:, None],
    "Max": F.max(1)[:, None], "ArgMin": F.argmin(1)[:, None], "ArgMax": F.argmax(1)[:, None],
    "Min_ArgMin": (F.min(1)[:, None], F.argmin(1)[:, None]), "MaxArgMax": (F.max(1)[:, None], F.argmax(1)[:, None]),
    "KMin": np.sort(F, 1)[:, :3], "ArgKMin": np.argsort(F, 1)[:, :3],
    "KMin_ArgKMin": (np.sort(F, 1)[:, :3], np.argsort(F, 1)[:, :3]),
}  # fmt: skip


@pytest.mark.parametrize("reduction", REDUCED)
def test_reductions(reduction):
    k = 3 if "K" in reduction else None
    got = Genred("SqDist(x, y)", ALIASES[:2], reduction, axis=1, opt_arg=k)(x, y)
    jax.tree.map(close, got, REDUCED[reduction])
    swapped = Genred("SqDist(x, y)", ["x = Vj(2)", "y = Vi(2)"], reduction, opt_arg=k)(x, y)  # axis 0 reduces over i
    jax.tree.map(np.testing.assert_array_equal, swapped, got)


def test_weights():
    a = np.exp(F)
    close(Genred("SqDist(x,y)", ALIASES[:3], "LogSumExp", 1, formula2="s * y")(x, y, s), np.log(a @ (s * y)))
    close(
        Genred("SqDist(x,y)", ALIASES[:2], "SumSoftMaxWeight", 1, formula2="y")(x, y), a @ y / a.sum(1, keepdims=True)
    )


def test_vectors_keep_their_features():
    close(Genred("x * y", ALIASES[:2], "Max", axis=1)(x, y), (x[:, None] * y).max(1))
    got = Genred("x * y", ALIASES[:2], "KMin", axis=1, opt_arg=2)(x, y)
    close(got, np.sort(x[:, None] * y, 1)[:, :2])


def test_batch_dims_and_transformations():
    f = Genred("Exp(-SqDist(x, y) * g)", [*ALIASES[:2], "g = Pm(1)"], axis=1)
    xs, g = np.stack([x, 2 * x, 3 * x]), np.array([[0.5], [1.0], [2.0]])
    expected = np.exp(-sqdists(xs, y) * g[..., None]).sum(-1)[..., None]
    close(f(xs, y, g), expected)
    close(jax.vmap(f, (0, None, 0))(xs, y, g), expected)
    close(jax.jit(f)(xs, y, g), expected)
    slope = jax.grad(lambda x: f(x, y, g[0]).sum())(x)
    close(slope, (-2 * 0.5 * (x[:, None] - y) * np.exp(-0.5 * sqdists(x, y))[..., None]).sum(1))


def test_aliases():
    expected = (x[:, None] * y).sum(1)
    for aliases in (["x = Vi(2)", "y = Vj(2)"], ["x=Vi(0,2)", " y = Vj( 1 , 2 ) "], ["y = Vj(1, 2)", "x = Vi(0, 2)"],
                    ["x = Vx(2)", "y = Vy(2)"], ["x = Var(0,2,0)", "y = Var(1,2,1)"]):  # fmt: skip
        close(Genred("x * y", aliases, axis=1)(x, y), expected)
    close(Genred("Var(0, 2, 0) * Var(1, 2, 1)", [], axis=1)(x, y), expected)
    close(Genred("x * Var(1, 2, 1)", ["x = Vi(2)"], axis=1)(x, y), expected)
    close(Genred("Var(0,2,0) * y", ["Vi(2)", "y = Vj(2)"], axis=1)(x, y), expected)


def test_variables_that_are_not_read_count_their_rows():
    close(Genred("q", ["x = Vi(2)", "q = Pm(4)"])(x, q), M * q[None])
    close(Genred("x", ALIASES[:2], axis=1)(x, y), N * x)
    close(Genred("1", ALIASES[:2], axis=1)(x, y), np.full((M, 1), float(N)))


def test_options_and_numbers():
    f = Genred(
        "x * g",
        ["x = Vi(2)", "g = Pm(1)"],
        dtype="float64",
        cuda_type=None,
        enable_chunks=True,
        rec_multVar_highdim=False,
    )
    close(f(x, 2.0, backend="auto", device_id=-1, ranges=None, out=None), 2 * x.sum(0)[None])
    close(f(x, [2.0], backend="dense"), 2 * x.sum(0)[None])
    assert f(x.astype(np.float32), 2.0).dtype == np.float32
    with pytest.raises(TypeError, match=r"sum: the option device_id=.* is not available"):
        f(x, 2.0, device_id=0)


def test_repr():
    f = Genred("x * y", ALIASES[:2], "KMin", axis=1, opt_arg=2)
    assert repr(f) == "Genred('x * y', ['x = Vi(2)', 'y = Vj(2)'], reduction_op='KMin', axis=1, opt_arg=2)"


def test_short_forms():
    close(generic_sum("Exp(x | y) * s", "a = Vi(1)", *ALIASES[:3])(x, y, s), np.exp(x @ y.T) @ s)
    close(generic_sum("x * y", "a = Vj(2)", *ALIASES[:2])(x, y), y * x.sum(0))
    close(generic_logsumexp("(x | y)", "a = Vi(1)", *ALIASES[:2])(x, y), scipy.special.logsumexp(x @ y.T, 1)[:, None])
    np.testing.assert_array_equal(generic_argmin("SqDist(x,y)", "a = Vj(1)", *ALIASES[:2])(x, y), F.argmin(0)[:, None])
    np.testing.assert_array_equal(
        generic_argkmin("SqDist(x,y)", "a = Vi(3)", *ALIASES[:2])(x, y), np.argsort(F, 1)[:, :3]
    )


def test_long_and_deep_formulas():
    close(Genred("+".join(["x"] * 1100), ["x = Vi(2)"])(x), 1100 * x.sum(0)[None])
    close(Genred("(" * 90 + "x" + ")" * 90, ["x = Vi(2)"])(x), x.sum(0)[None])
    close(Genred("Sin(" * 90 + "x" + ")" * 90, ["x = Vi(2)"])(0 * x), 0 * x[:1])


# Mistakes: what is wrong, and where.


def position(text, mark):
    """The column of a mark in the line shown below the message."""
    return text.splitlines()[-1].index("^") - 4 == mark


SYNTAX = {
    "Exp(-SqDst(x, y))": (5, r"unknown operation 'SqDst' \(did you mean SqDist\?\); known are Abs, Acos, .*XLogX, Zero"),
    "x + z": (4, r"unknown variable 'z'; the aliases are x, y, s, q"),
    "Exp + x": (0, r"unknown variable 'Exp'.*Exp is an operation"),
    "x(3)": (0, r"'x' is a variable, not an operation"),
    "Exp(x": (5, r"expected ',' or '\)', found the end of the formula"),
    "((x)": (4, r"expected '\)', found the end of the formula"),
    "x)": (1, r"expected an operator, or the end of the formula, found '\)'"),
    "x y": (2, r"expected an operator, or the end of the formula, found 'y'"),
    "x +": (3, r"expected a number, a variable, an operation or '\(', found the end"),
    "* x": (0, r"expected a number, a variable, an operation or '\(', found '\*'"),
    "x // y": (3, r"found '/'; the quotient rounded down is written Floor\(x / y\)"),
    "x ^ 2": (2, r"unexpected character '\^'; a power is written x \*\* n"),
    "x % 2": (2, r"unexpected character '%'; the modulo is written Mod"),
    "x[0]": (1, r"found '\['; a feature is written Elem\(x, k\)"),
    "x.exp()": (1, r"unexpected character '\.'"),
    "__import__('os')": (11, r"unexpected character"),
    "x = y": (2, r"unexpected character '='; a comparison is written =="),
    "x < y < s": (6, r"comparisons cannot be chained"),
    "Exp(x, y)": (0, r"Exp\(f\) was given 2 arguments"),
    "Exp()": (0, r"Exp\(f\) was given 0 arguments"),
    "TensorDot(x, y)": (0, r"TensorDot\(f, g, dimsf, dimsg, contf, contg\[, permute\]\) was given 2"),
    "TensorDot(x, y, 2, 2, 0, 0)": (16, r"dimsf is a list of integers"),
    "Exp([1, 2])": (4, r"expected a formula, found a list"),
    "x - q": (2, r"-: operands have 2 and 4 features"),
    "Exp(x * (y + q))": (11, r"\+: operands have 2 and 4 features"),
    "Elem(x, 7)": (0, r"elem\(7\): index 7 is out of range for 2 features"),
    "Elem(x, s)": (8, r"expected an integer, found"),
    "Elem(x, 1.5)": (8, r"expected an integer, found float 1.5"),
    "ElemT(x, 3, 1)": (0, r"ElemT: f has 2 features, expected 1"),
    "ExtractT(x, 1, 2)": (0, r"ExtractT: features 1 to 3 are out of range for 2"),
    "RatCst(1, 0)": (0, r"RatCst: division by zero"),
    "x + 1 / 0": (6, r"/: division by zero"),
    "x * 9 ** 999": (6, r"\*\*: .*out of range"),
    "(-8) ** 0.5 * x": (5, r"is not a real number"),
    "9" * 500: (0, r"a number of 500 digits"),
    "ComplexReal(s)": (0, r"ComplexReal: 1 features, expected an even number"),
    "Laplacian(x, x)": (0, r"laplacian: the formula has 2 features"),
    "TraceOperator(x * x, x)": (0, r"trace_operator: the formula .* is not linear"),
    "Var(0, 3, 0)": (0, r"the variable at position 0 is x = Vi\(2\), and Vi\(3\) here"),
    "Var(0, 2, 7)": (0, r"expected Var\(position, dim, category\)"),
    "Var(9, 0, 1)": (0, r"dim is 0, expected at least 1"),
    "Vi(2)": (0, r"expected Vi\(position, dim\)"),
    "Sum_Reduction(x, 0)": (0, r"unknown operation 'Sum_Reduction'; give the reduction as reduction_op"),
}  # fmt: skip


@pytest.mark.parametrize("text", SYNTAX, ids=lambda t: t[:30])
def test_mistakes_in_a_formula_are_shown(text):
    column, message = SYNTAX[text]
    with pytest.raises(FormulaError, match=message) as caught:
        Genred(text, ALIASES)
    assert position(str(caught.value), column)


def test_where_a_long_formula_is_wrong():
    with pytest.raises(FormulaError, match="unknown variable 'oops'") as caught:
        Genred("+".join(["x"] * 100) + "+ oops +" + "+".join(["y"] * 100), ALIASES)
    *_, line, mark = str(caught.value).splitlines()
    assert line[mark.index("^") :].startswith("oops +") and "position 201" in mark
    with pytest.raises(FormulaError, match="more than 100 brackets within brackets"):
        Genred("(" * 101 + "x" + ")" * 101, ALIASES)


G = Genred("x * y", ALIASES[:2], axis=1)
OTHER = {
    "empty": (ValueError, lambda: Genred(" ", ALIASES), r"Genred: the formula is empty"),
    "not a string": (TypeError, lambda: Genred(3, ALIASES), r"Genred: a formula is int 3, expected a string"),
    "v a formula": (TypeError, lambda: Genred("Grad(x, x * 2, y)", ALIASES), r"Genred: grad: v is .* a formula"),
    "numbers compared": (TypeError, lambda: Genred("1 < 2", ALIASES), r"both sides are numbers"),
    "aliases a string": (TypeError, lambda: Genred("x", "x = Vi(2)"), r"aliases is str .*expected a list of strings"),
    "alias a number": (TypeError, lambda: Genred("x", [3]), r"an alias is int 3, expected"),
    "alias kind": (ValueError, lambda: Genred("x", ["x = Vk(2)"]), r"the alias 'x = Vk\(2\)' is not understood; expected \"name = Vi\(dim\)\""),
    "alias category": (ValueError, lambda: Genred("x", ["x = Var(0, 2, 3)"]), r"is not understood"),
    "alias dim": (ValueError, lambda: Genred("x", ["x = Vi(0)"]), r"has dim 0, expected at least 1"),
    "same name": (ValueError, lambda: Genred("x", ["x = Vi(2)", "x = Vj(2)"]), r"two aliases have the name 'x'"),
    "same position": (ValueError, lambda: Genred("x", ["x = Vi(1, 2)", "y = Vj(2)"]), r"have the same position"),
    "a gap": (ValueError, lambda: Genred("x * Var(2, 2, 1)", ["x = Vi(2)"]), r"no variable has the position 1, but one has 2"),
    "negative index left": (ValueError, lambda: Genred("x * Var(-1, 2, 0)", ["x = Vi(2)"]), r"Vi\(-1, 2\) has a negative index"),
    "reduction": (ValueError, lambda: Genred("x", ALIASES, "Foo"), r"reduction_op='Foo', expected one of Sum, LogSumExp"),
    "axis": (ValueError, lambda: Genred("x", ALIASES, axis=2), r"axis=2, expected 0 to reduce over i, or 1"),
    "no K": (TypeError, lambda: Genred("x", ALIASES, "KMin"), r"opt_arg is missing"),
    "K without use": (TypeError, lambda: Genred("x", ALIASES, opt_arg=3), r"opt_arg=3 has no meaning for Sum"),
    "no weight": (TypeError, lambda: Genred("s", ALIASES, "SumSoftMaxWeight"), r"the weight is missing for SumSoftMaxWeight"),
    "weight without use": (TypeError, lambda: Genred("x", ALIASES, formula2="x"), r"the weight has no meaning for Sum"),
    "weight of a vector": (ValueError, lambda: Genred("x", ALIASES, "LogSumExp", formula2="s"), r"with a weight the formula must be scalar"),
    "option": (TypeError, lambda: Genred("x", ALIASES, foo=1), r"unknown option 'foo'"),
    "too few": (TypeError, lambda: G(x), r"Genred: 1 arrays, expected 2: x = Vi\(2\), y = Vj\(2\)"),
    "too many": (TypeError, lambda: G(x, y, s), r"Genred: 3 arrays, expected 2"),
    "features": (ValueError, lambda: G(x, s), r"Genred: y = Vj\(2\): f64\[5,1\] has 1 features, expected 2"),
    "axes": (ValueError, lambda: G(x[0], y), r"Genred: x = Vi\(2\): f64\[2\] is not an i-variable"),
    "rows": (ValueError, lambda: Genred("x", ALIASES[:3], axis=1)(x, y, s[:3]), r"j-variables of the operands have N = 5 and N = 3"),
    "batch": (ValueError, lambda: G(np.stack([x, x]), np.stack([y, y, y])), r"batch dims .* do not broadcast"),
    "no array": (TypeError, lambda: G(x, "y"), r"Genred: y = Vj\(2\): expected an array, got str 'y'"),
    "output dim": (ValueError, lambda: generic_sum("x * y", "a = Vi(1)", *ALIASES[:2]), r"generic_sum: the formula 'x \* y' has 2 features, but the output 'a = Vi\(1\)' has 1"),
    "output role": (ValueError, lambda: generic_argmin("x | y", "a = Pm(1)", *ALIASES[:2]), r"generic_argmin: the output is 'a = Pm\(1\)', expected Vi"),
    "vector neighbours": (ValueError, lambda: generic_argkmin("x * y", "a = Vi(3)", *ALIASES[:2]), r"generic_argkmin: .* has 2 features, .* formula with 1"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", OTHER)
def test_other_mistakes(mistake):
    kind, call, message = OTHER[mistake]
    with pytest.raises(kind, match=message):
        call()


def test_formula_error_is_public():
    assert issubclass(lazyjax.FormulaError, ValueError)
