"""Linear systems: K.solve and KernelSolve against dense solves, their derivatives, how they end, what they refuse."""

# ruff: noqa: E501  (a table: one misuse on one line)

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lazyjax
from lazyjax import KernelSolve, Vi, Vj
from lazyjax.cluster import from_matrix

from .dense import close, normal, sqdists, uniform

M = 9
x, b, v = normal(0, M, 2), normal(1, M, 2), normal(2, M)
ALPHA = 0.1
TIGHT = {"alpha": ALPHA, "eps": 1e-13}


def kernel(x, scale=1.0):
    return (-Vi(x).sqdist(Vj(x)) / scale).exp()


def matrix(x, scale=1.0):
    return jnp.exp(-((x[..., :, None, :] - x[..., None, :, :]) ** 2).sum(-1) / scale)


def dense(x, scale, alpha, b):
    return jnp.linalg.solve(matrix(x, scale) + alpha * jnp.eye(M), b)


G = np.asarray(matrix(x)) + ALPHA * np.eye(M)


def test_vectors_columns_and_batches():
    xs, scale = np.stack([x, 2 * x]), uniform(3, 2, 1, low=0.5, high=2.0)
    columns = normal(4, 3, 1, M, 2)
    alphas = np.array([0.1, 0.3])
    out = (-Vi(xs).sqdist(Vj(xs)) / lazyjax.Pm(scale)).exp().solve(columns, alpha=alphas, eps=1e-13)
    A = np.exp(-sqdists(xs, xs) / scale[..., None]) + alphas[:, None, None] * np.eye(M)
    close(out, np.linalg.solve(A, columns), 1e-10)
    one = (-Vi(xs).sqdist(Vj(xs))).exp().solve(v, **TIGHT)
    close(one, np.linalg.solve(np.exp(-sqdists(xs, xs)) + ALPHA * np.eye(M), v[:, None])[..., 0], 1e-10)


def test_variables_as_right_hand_sides_and_later_calls():
    K, expected = kernel(x), np.linalg.solve(G, b)
    symbolic = (-Vi(0, 2).sqdist(Vj(1, 2))).exp()
    unknown = Vj(2, 2)
    later = symbolic.solve(Vi(2, 2), **TIGHT)
    formula = (symbolic * unknown).solve(Vi(2, 2), unknown, **TIGHT)
    for got in (
        K.solve(b, **TIGHT),
        K.solve(other=Vi(b), **TIGHT),
        K.solve(Vj(b), **TIGHT),
        K.solve(b, call=False, alpha=ALPHA)(eps=1e-13),
        symbolic.solve(b, **TIGHT)(x, x),
        later(x, x, b),
        formula(x, x, b),
        (K * unknown).solve(b, unknown, **TIGHT),
    ):
        close(got, expected, 1e-11)
    assert repr(formula) == (
        "SymbolicReduction(solve exp(-sqdist(Vi(0, 2), Vj(1, 2))) * Vj(2, 2) for Vj(2, 2), "
        "a function of Vi(0, 2), Vj(1, 2), Vi(2, 2))"
    )
    assert "to be called without arrays" in repr(K.solve(b, call=False))


@functools.cache
def derivatives(solve):
    """Derivatives of a function of the solution along tangents, in one program: first and second."""
    args = (jnp.asarray(x), 0.8, 0.3, jnp.asarray(b))
    t = (jnp.asarray(normal(5, M, 2)), 0.7, 0.2, jnp.asarray(normal(6, M, 2)))

    def f(*args):
        return jnp.sum(jnp.sin(2 * solve(*args)))

    gradient = jax.grad(f, (0, 1, 2, 3))

    def dot(g):
        return sum(jnp.vdot(p, q) for p, q in zip(g, t, strict=True))

    @jax.jit
    def all_of_them():
        reverse, curvature = jax.jvp(gradient, args, t)
        return {
            "forward": jax.jvp(f, args, t)[1],
            "reverse": reverse,
            "forward over reverse": curvature,
            "reverse over reverse": jax.grad(lambda *a: dot(gradient(*a)), (0, 1, 2, 3))(*args),
        }

    return all_of_them()


def test_derivatives_with_respect_to_everything():
    got = derivatives(lambda x, scale, alpha, b: kernel(x, scale).solve(b, alpha=alpha, eps=1e-13))
    expected = derivatives(dense)
    for name, value in expected.items():
        for a, e in zip(jax.tree.leaves(got[name]), jax.tree.leaves(value), strict=True):
            close(a, e, 1e-8, name)


def test_under_vmap_and_gradients_there():
    scales, alphas = np.array([0.5, 1.0, 2.0]), np.array([0.1, 0.2, 0.4])

    def loss(solve, scale, alpha):
        return jnp.sum(solve(scale, alpha) ** 2)

    ours = lambda scale, alpha: kernel(x, scale).solve(b, alpha=alpha, eps=1e-13)  # noqa: E731
    theirs = lambda scale, alpha: dense(x, scale, alpha, b)  # noqa: E731
    got, expected = (
        jax.jit(jax.vmap(jax.value_and_grad(functools.partial(loss, f), (0, 1))))(scales, alphas)
        for f in (ours, theirs)
    )
    close(got[0], expected[0], 1e-9)
    for a, e in zip(got[1], expected[1], strict=True):
        close(a, e, 1e-9)


def test_hermitian_kernels():
    z = b + 1j * normal(7, M, 2)

    def ours(x, z):
        phase = (2j * (Vi(x) - Vj(x)).sum(-1)).exp()
        return (kernel(x) * phase).solve(z, **TIGHT, preconditioner="jacobi")

    def theirs(x, z):
        phase = jnp.exp(2j * (x[:, None] - x[None]).sum(-1))
        return jnp.linalg.solve(matrix(x) * phase + ALPHA * jnp.eye(M), z)

    def loss(f):
        return lambda x, z: jnp.sum(jnp.abs(f(x, z) - 1j) ** 4)

    got, expected = (
        jax.jit(lambda x, z, f=f: (f(x, z), jax.grad(loss(f), (0, 1))(x, z)))(x, z) for f in (ours, theirs)
    )
    close(got[0], expected[0], 1e-10)
    for a, e in zip(got[1], expected[1], strict=True):
        close(a, e, 1e-8)


ROOT = normal(8, 2, 2)
MIXING = ROOT @ ROOT.T + np.eye(2)


def test_matrix_valued_kernels():
    """K(x, y) = exp(-|x - y|^2) S, a matrix S for every pair: all features of all rows are one system."""
    u = Vj(0, 2)

    def ours(S, b):
        return (kernel(x) * lazyjax.Pm(S.reshape(4)).matvecmult(u)).solve(b, u, **TIGHT)

    def theirs(S, b):
        return jnp.linalg.solve(jnp.kron(matrix(x), S) + ALPHA * jnp.eye(2 * M), b.reshape(-1)).reshape(M, 2)

    got, expected = (
        jax.jit(lambda S, b, f=f: (f(S, b), jax.grad(lambda *a: (f(*a) ** 3).sum(), (0, 1))(S, b)))(MIXING, b)
        for f in (ours, theirs)
    )
    close(got[0], expected[0], 1e-10)
    slope = (got[1][0] + got[1][0].T) / 2, got[1][1]  # S is symmetric
    close(slope[0], (expected[1][0] + expected[1][0].T) / 2, 1e-8)
    close(slope[1], expected[1][1], 1e-8)


def test_vector_valued_kernels_multiply_element_by_element():
    widths = np.array([0.5, 2.0])
    out = (-Vi(x).sqdist(Vj(x)) / widths).exp().solve(b, **TIGHT)
    for k, width in enumerate(widths):
        close(out[:, k], dense(x, width, ALPHA, b[:, k]), 1e-10)


def test_every_column_is_as_precise_as_asked():
    """Columns of very different size, one of them 0, are systems of their own; nothing under- or overflows."""
    scales = np.array([1e-30, 1.0, 0.0, 1e30], np.float32)
    rhs = np.float32(normal(9, M, 4)) * scales
    K = kernel(np.float32(x))
    out = K.solve(rhs, alpha=ALPHA, full_output=True)
    assert out.value.dtype == np.float32 and out.iterations.shape == out.residual.shape == (4,)
    assert out.converged.all() and not out.status.any() and out.iterations[2] == 0
    rhs = np.float64(rhs)
    residual = np.linalg.norm(G @ np.float64(out.value) - rhs, axis=0) / np.maximum(np.linalg.norm(rhs, axis=0), 1e-99)
    assert residual.max() < 1e-5
    np.testing.assert_allclose(out.residual, residual, rtol=0, atol=1e-6)


def test_dtypes():
    mixed = jax.eval_shape(lambda: kernel(np.float32(x)).solve(np.float16(v), alpha=ALPHA))
    assert (mixed.shape, mixed.dtype) == ((M,), np.float32)
    half = kernel(np.float16(x)).solve(np.float16(v), alpha=ALPHA)
    close(half, np.float16(np.linalg.solve(G, v)), 2e-2)
    assert half.dtype == np.float16
    identity = lazyjax.i_index(Vi(x) - Vj(x)) == lazyjax.j_index(Vi(x) - Vj(x))
    whole = identity.where(2, 0).solve(np.arange(M), alpha=0)
    assert whole.dtype == np.float64
    close(whole, np.arange(M) / 2)


def test_how_it_ends_and_what_it_says():
    """One compiled program for all: alpha, eps, atol, maxiter and the data are arguments of it."""
    ends = functools.partial(kernel(x).solve, b, full_output=True)
    before = lazyjax._system.run._cache_size()
    good = ends(**TIGHT)
    assert lazyjax._system.run._cache_size() == before + 1
    assert isinstance(good, lazyjax.Solution)
    close(good.value, np.linalg.solve(G, b), 1e-11)
    close(good.residual, np.linalg.norm(G @ good.value - b, axis=0) / np.linalg.norm(b, axis=0), 1e-14)
    assert good.converged.all() and (good.iterations <= M + 3).all() and (good.residual <= 1e-13).all()
    short = ends(alpha=ALPHA, maxiter=2)
    assert not short.converged.any() and (short.status == 1).all() and (short.iterations == 2).all()
    precise = ends(alpha=ALPHA, eps=1e-18)
    assert (precise.status == 2).all() and (precise.residual < 1e-14).all()
    close(precise.value, np.linalg.solve(G, b), 1e-11)
    nan = kernel(x).solve(b * [1, np.nan], alpha=ALPHA, full_output=True)
    assert nan.status.tolist() == [0, 4]
    close(nan.value[:, 0], np.linalg.solve(G, b[:, 0]), 1e-5)
    loose = ends(alpha=ALPHA, eps=0.0, atol=0.1)
    residual = np.sqrt(np.mean((G @ loose.value - b) ** 2, 0))
    assert loose.converged.all() and (residual <= 0.1).all() and (residual > 1e-3).all()
    assert lazyjax._system.run._cache_size() == before + 1
    with pytest.raises(np.linalg.LinAlgError, match=(
        r"solve: 2 of 2 systems are not solved; the worst ended after 2 iterations with a residual of .* times the "
        r"right-hand side, asked for was eps=1e-06: maxiter was reached; allow more"
    )):  # fmt: skip
        kernel(x).solve(b, alpha=ALPHA, maxiter=2)


def test_what_is_not_solved_is_nan_where_nothing_can_be_raised():
    def run(K, maxiter):
        return jax.jit(lambda b: K.solve(b, alpha=ALPHA, maxiter=maxiter))(b)

    assert np.isnan(run(kernel(x), 2)).all()
    slopes = jax.jit(
        jax.grad(lambda b: kernel(x).solve(b, alpha=ALPHA, maxiter=2, full_output=True).value.sum())
    )(b)  # fmt: skip
    assert np.isnan(slopes).all()


def test_preconditioners_and_starting_points():
    size = np.exp(3 * normal(10, M, 1))
    K = kernel(x) * Vi(size) * Vj(size)  # a diagonal over many orders of magnitude
    A = np.asarray(matrix(x)) * size * size.T + ALPHA * np.eye(M)
    inverse = np.linalg.inv(A)
    plain, jacobi, exact = (
        K.solve(v, alpha=ALPHA, eps=1e-10, full_output=True, preconditioner=p)
        for p in (None, "jacobi", lambda r: jnp.asarray(inverse) @ r)
    )
    assert exact.converged and jacobi.converged
    assert exact.iterations <= 2 < jacobi.iterations < plain.iterations
    for out in (jacobi, exact):
        close(A @ out.value, v, 1e-8)
    again = K.solve(v, alpha=ALPHA, eps=1e-6, x0=jacobi.value, full_output=True)
    assert again.converged and again.iterations == 0
    close(again.value, jacobi.value)


def test_preconditioners_are_not_differentiated():
    def loss(scale):
        inverse = jnp.linalg.inv(matrix(x, scale) + 0.2 * jnp.eye(M))  # closes over what is differentiated
        return kernel(x, scale).solve(v, **TIGHT, preconditioner=lambda r: inverse @ r)[0]

    close(jax.jit(jax.grad(loss))(0.8), jax.grad(lambda s: dense(x, s, ALPHA, v)[0])(0.8), 1e-8)


KERNEL_ALIASES = ["x = Vi(2)", "y = Vj(2)", "a = Vj(2)", "s = Pm(1)"]
FORMULA = "Exp(-SqDist(x, y) * s) * a"


def test_kernel_solve():
    inverse = KernelSolve(FORMULA, KERNEL_ALIASES, "a", axis=1, alpha=ALPHA)
    s = np.array([0.7])

    def ours(x, b, s):
        return inverse(x, x, b, s, eps=1e-13)

    def theirs(x, b, s):
        return dense(x, 1 / s[0], ALPHA, b)

    got, expected = (
        jax.jit(lambda *a, f=f: (f(*a), jax.grad(lambda *a: (f(*a) ** 3).sum(), (0, 1, 2))(*a)))(x, b, s)
        for f in (ours, theirs)
    )
    for g, e in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        close(g, e, 1e-8)
    other = KernelSolve("Exp(-SqDist(x, y)) * Var(0, 2, 0)", ["a = Vi(2)", "x = Vi(2)", "y = Vj(2)"], "Var(0,2,0)")
    out = other(b, x, x, **TIGHT, full_output=True)
    close(out.value, np.linalg.solve(G, b), 1e-11)
    assert out.converged.shape == () and out.converged
    assert repr(other).startswith("KernelSolve('Exp(-SqDist(x, y)) * Var(0, 2, 0)', ['a = Vi(2)'")


K, unknown = kernel(x), Vj(0, 2)
f32 = kernel(np.float32(x))
REFUSED = {
    "not square": (lambda: (Vi(x) - Vj(x[:4])).sum(-1).solve(v), ValueError, r"solve: K of shape \(9, 4\) has 9 rows and 4 columns, expected as many of each"),
    "b too short": (lambda: K.solve(v[:4]), ValueError, r"solve: b is f64\[4\], expected \(9,\) or \(\*B, 9, E\) for a formula of shape \(9, 9, 1\)"),
    "b is transposed": (lambda: K.solve(b.T), ValueError, r"b is f64\[2,9\], expected \(9,\) or \(\*B, 9, E\)"),
    "b is a number": (lambda: K.solve(1.0), ValueError, r"b is float 1\.0, expected \(M,\) or \(\*B, M, E\)"),
    "b is a formula": (lambda: K.solve(Vi(b) * 2), TypeError, r"b is LazyTensor\(.*expected an array \(\*B, M, E\), or a variable: Vi\(b\) or Vj\(b\)"),
    "b is a word": (lambda: K.solve("b"), TypeError, r"solve: b: expected an array, got str 'b'"),
    "batch dims": (lambda: kernel(np.stack([x, x])).solve(np.ones((3, M, 1))), ValueError, r"batch dims \(2,\) of K and \(3,\) of b, f64\[3,9,1\], do not broadcast"),
    "features": (lambda: (Vi(x) * Vj(x)).solve(np.ones((M, 3))), ValueError, r"b is f64\[9,3\], expected \(\*B, 9, 2\) for a formula of shape \(9, 9, 2\)"),
    "matrices": (lambda: (Vi(np.ones((M, 2, 2)), feature_ndim=2) * Vj(np.ones((M, 2, 2)), feature_ndim=2)).solve(v), ValueError, r"the formula has feature shape \(2, 2\), expected one feature axis"),
    "alpha < 0": (lambda: K.solve(v, alpha=-1.0), ValueError, r"solve: alpha=-1\.0, expected a finite number of at least 0"),
    "alpha is NaN": (lambda: K.solve(v, alpha=np.nan), ValueError, r"alpha=nan, expected a finite number"),
    "alpha is complex": (lambda: K.solve(v, alpha=1j), TypeError, r"alpha is complex 1j, expected a finite number"),
    "alpha is a vector": (lambda: K.solve(v, alpha=v), ValueError, r"alpha is f64\[9\], expected a finite number of at least 0"),
    "alpha is a word": (lambda: K.solve(v, alpha="a"), TypeError, r"alpha is str 'a', expected a finite number"),
    "eps is infinite": (lambda: K.solve(v, eps=np.inf), ValueError, r"eps=inf, expected a finite number"),
    "eps is True": (lambda: K.solve(v, eps=True), TypeError, r"eps is bool True, expected a finite number"),
    "atol < 0": (lambda: K.solve(v, atol=-1), ValueError, r"atol=-1, expected a finite number"),
    "no tolerance": (lambda: K.solve(v, eps=0), ValueError, r"eps=0 and atol=0, expected one of them above 0"),
    "maxiter=0": (lambda: K.solve(v, maxiter=0), ValueError, r"maxiter=0, expected at least 1"),
    "maxiter=1.5": (lambda: K.solve(v, maxiter=1.5), TypeError, r"maxiter must be an int, got float 1\.5"),
    "full_output=1": (lambda: K.solve(v, full_output=1), TypeError, r"full_output=int 1, expected True or False"),
    "call=1": (lambda: K.solve(v, call=1), TypeError, r"call=int 1, expected True, or False"),
    "x0": (lambda: K.solve(v, x0=b), ValueError, r"x0 is f64\[9,2\], expected an array that broadcasts to \(9,\)"),
    "keepdims": (lambda: K.solve(v, keepdims=True), TypeError, r"keepdims has no meaning"),
    "an unknown option": (lambda: K.solve(v, rtol=1), TypeError, r"solve: unknown option 'rtol'"),
    "out": (lambda: K.solve(v, out=v), TypeError, r"solve: the option out=f64\[9\] is not available"),
    "a named preconditioner": (lambda: K.solve(v, preconditioner="ilu"), TypeError, r"preconditioner is str 'ilu', expected None, 'jacobi', or a function"),
    "jacobi with var": (lambda: (K * unknown).solve(b, unknown, preconditioner="jacobi"), ValueError, r"'jacobi' needs the diagonal of K"),
    "preconditioner of None": (lambda: K.solve(v, preconditioner=lambda r: None), TypeError, r"preconditioner returned NoneType None, expected an array \(9,\)"),
    "preconditioner of other shape": (lambda: K.solve(b, preconditioner=lambda r: r[:, 0]), ValueError, r"preconditioner returned f64\[9\] for f64\[9,2\], expected the like"),
    "complex preconditioner": (lambda: K.solve(b, preconditioner=lambda r: r * 1j), ValueError, r"preconditioner returned c128\[9,2\] for f64\[9,2\]"),
    "var is data": (lambda: K.solve(b, Vj(b)), TypeError, r"var is LazyTensor\(.*expected a symbolic variable Vj\(index, dim\)"),
    "var on the axis of b": (lambda: (K * Vi(0, 2)).solve(b, Vi(0, 2)), TypeError, r"expected a symbolic variable Vj\(index, dim\), for b on the other axis"),
    "var elsewhere": (lambda: (K * unknown).solve(b, Vj(1, 2)), ValueError, r"the formula does not contain var, Vj\(1, 2\)"),
    "var and b": (lambda: (K * unknown).solve(Vi(1, 2), unknown), ValueError, r"b is Vi\(1, 2\) and var is Vj\(0, 2\), expected the same index"),
    "var before others": (lambda: (Vi(1, 2).sqdist(Vj(2, 2)) * unknown).solve(b, unknown), ValueError, r"Give var the highest index, or make b symbolic too"),
    "b of other dim than var": (lambda: (K * unknown).solve(v[:, None], unknown), ValueError, r"b is f64\[9,1\], expected \(\*B, 9, 2\) for a formula of shape \(9, 9, 2\) in Vj\(0, 2\)"),
    "KernelSolve, no such alias": (lambda: KernelSolve(FORMULA, KERNEL_ALIASES, "c", axis=1), ValueError, r"varinvalias='c', expected the name of an alias: x, y, a, s"),
    "KernelSolve, an int": (lambda: KernelSolve(FORMULA, KERNEL_ALIASES, 2, axis=1), TypeError, r"varinvalias is int 2, expected the name of an alias"),
    "KernelSolve, the other axis": (lambda: KernelSolve(FORMULA, KERNEL_ALIASES, "a"), ValueError, r"the unknown is a = Vj\(2\), but axis=0 sums over i, expected Vi\(2\)"),
    "KernelSolve, no unknown": (lambda: KernelSolve("x * y", KERNEL_ALIASES, "a", axis=1), ValueError, r"the formula 'x \* y' does not contain the unknown, a = Vj\(2\)"),
    "KernelSolve, other features": (lambda: KernelSolve("Sum(a) * Exp(-SqDist(x, y))", KERNEL_ALIASES, "a", axis=1), ValueError, r"has 1 features and the unknown, a = Vj\(2\), has 2"),
    "KernelSolve, opt_arg": (lambda: KernelSolve(FORMULA, KERNEL_ALIASES, "a", axis=1, opt_arg=2), TypeError, r"opt_arg=2 has no meaning for a sum"),
    "KernelSolve, an option": (lambda: KernelSolve(FORMULA, KERNEL_ALIASES, "a", axis=1, rtol=2), TypeError, r"KernelSolve: unknown option 'rtol'"),
    "KernelSolve, a mistake": (lambda: KernelSolve("Exp(x", KERNEL_ALIASES, "a", axis=1), lazyjax.FormulaError, r"KernelSolve: "),
    "KernelSolve, an array short": (lambda: KernelSolve(FORMULA, KERNEL_ALIASES, "a", axis=1)(x, x, b), TypeError, r"KernelSolve: 3 arrays, expected 4: x = Vi\(2\)"),
    "KernelSolve, sizes": (lambda: KernelSolve(FORMULA, KERNEL_ALIASES, "a", axis=1)(x, x, b[:4], v[:1]), ValueError, r"KernelSolve: b is f64\[4,2\], expected \(\*B, 9, 2\)"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name):
    misuse, kind, message = REFUSED[name]
    with pytest.raises(kind, match=message):
        misuse()


def test_a_formula_that_is_not_linear_says_so():
    with pytest.raises(np.linalg.LinAlgError, match="the formula is not linear in var: it is not 0 where var is 0"):
        (K * unknown + 1.0).solve(b, unknown, alpha=ALPHA)


def test_block_sparse_systems():
    """Pairs of the same half of a line: the other blocks of the matrix are zero."""
    line, b = np.linspace(0, 1, 8)[:, None], normal(5, 8, 2)
    halves = np.array([[0, 3], [3, 8]])
    ranges = from_matrix(halves, halves, np.eye(2, dtype=bool))
    mask = np.repeat(np.repeat(np.eye(2), [3, 5], 0), [3, 5], 1)

    def dense(s):
        return jnp.linalg.solve(jnp.exp(-sqdists(line, line) / s) * mask + 0.1 * jnp.eye(8), b)

    def ours(s, how):
        K = (-Vi(line).sqdist(Vj(line)) / s).exp()
        if how == "option":
            return K.solve(b, alpha=0.1, eps=1e-12, ranges=ranges)
        K.ranges = ranges
        return K.solve(b, alpha=0.1, eps=1e-12)

    for how in ("option", "property"):
        close(ours(0.3, how), dense(0.3), 1e-9)
    close(jax.grad(lambda s: ours(s, "property").sum())(0.3), jax.grad(lambda s: dense(s).sum())(0.3), 1e-8)
    close(
        (-Vi(line).sqdist(Vj(line)) / 0.3).exp().solve(b, call=False, alpha=0.1, eps=1e-12)(ranges=ranges), dense(0.3)
    )
