"""Symbolic calculus against dense JAX on all pairs; symbolic variables and reductions that wait for their arrays."""

# ruff: noqa: E501  (tables: one row on one line)

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lazyjax import LazyTensor, Pm, Vi, Vj, explain, lift
from lazyjax.kernels.xla.plan import SCALARS

from .dense import close, derivatives_agree, gaussian, normal, sqdists

M, N, D = 4, 5, 3
x, y, w = normal(0, M, D), normal(1, N, D), normal(2, N, D)
X, Y, W = Vi(x), Vj(y), Vj(w)
p = 0.7
P = Pm(np.float64(p))


def on_pairs(f, *args):
    """f(x_i, y_j, w_j, p) for all pairs, summed over j."""
    over_j = jax.vmap(f, (None, 0, 0, None))
    return jax.vmap(over_j, (0, None, None, None))(*(args or (x, y, w, p))).sum(1)


# Three formulas, lazily and on one pair: scalar, of D features, and with operations of singular derivatives.


def lazy_kernel(X=X, Y=Y, P=P):
    return (-(X - Y).sqnorm2() * P).exp()


def kernel(x, y, p):
    return jnp.exp(-jnp.sum((x - y) ** 2) * p)


def lazy_field(X=X, Y=Y, P=P):
    return (X * Y).sin() * P + X[..., ::-1] * X.sum(-1)


def field(x, y, p):
    return jnp.sin(x * y) * p + x[::-1] * x.sum()


def _flat(jacobian):
    return jnp.reshape(jacobian, -1)


CASES = {
    "grad, i": (lambda: lazy_kernel().grad(X, 1), lambda x, y, w, p: jax.grad(kernel)(x, y, p)),
    "grad, j": (lambda: lazy_kernel().grad(Y, 2.5), lambda x, y, w, p: 2.5 * jax.grad(kernel, 1)(x, y, p)),
    "grad, parameter": (lambda: lazy_kernel().grad(P, W.sum(-1)),
                        lambda x, y, w, p: w.sum() * jax.grad(kernel, 2)(x, y, p).reshape(1)),
    "grad of a vector": (lambda: lazy_field().grad(X, W), lambda x, y, w, p: jax.vjp(lambda x: field(x, y, p), x)[1](w)[0]),
    "grad, e broadcasts": (lambda: lazy_field().grad(X, 1), lambda x, y, w, p: jax.grad(lambda x: field(x, y, p).sum())(x)),
    "grad of v itself": (lambda: (X + 0 * Y).grad(X, W), lambda x, y, w, p: w),
    "diff, i": (lambda: lazy_field().diff(X, W), lambda x, y, w, p: jax.jvp(lambda x: field(x, y, p), (x,), (w,))[1]),
    "diff, parameter": (lambda: lazy_field().diff(P, 1), lambda x, y, w, p: jax.jacfwd(field, 2)(x, y, p)),
    "diff, e depends on v": (lambda: lazy_kernel().diff(X, X), lambda x, y, w, p: (jax.grad(kernel)(x, y, p) @ x).reshape(1)),
    "grad_matrix": (lambda: lazy_field().grad_matrix(X), lambda x, y, w, p: _flat(jax.jacobian(field)(x, y, p))),
    "grad_matrix, parameter": (lambda: lazy_field().grad_matrix(P), lambda x, y, w, p: _flat(jax.jacobian(field, 2)(x, y, p))),
    "divergence": (lambda: lazy_field().divergence(X), lambda x, y, w, p: jnp.trace(jax.jacobian(field)(x, y, p)).reshape(1)),
    "laplacian": (lambda: lazy_kernel().laplacian(X), lambda x, y, w, p: jnp.trace(jax.hessian(kernel)(x, y, p)).reshape(1)),
    "trace_operator": (lambda: (X * Y + X.sum(-1) * W).trace_operator(X), lambda x, y, w, p: (y + w).sum().reshape(1)),
    "grad of grad": (lambda: lazy_kernel().grad(X, 1).grad(Y, W),
                     lambda x, y, w, p: jax.grad(lambda y: jax.grad(kernel)(x, y, p) @ w)(y)),
    "divergence of a gradient": (lambda: lazy_kernel().grad(X, 1).divergence(Y),
                                 lambda x, y, w, p: jnp.trace(jax.jacobian(jax.grad(kernel), 1)(x, y, p)).reshape(1)),
    "grad of a laplacian": (lambda: lazy_kernel().laplacian(X).grad(X, 1),
                            lambda x, y, w, p: jax.grad(lambda x: jnp.trace(jax.hessian(kernel)(x, y, p)))(x)),
    "laplacian of a divergence": (lambda: lazy_field().divergence(X).laplacian(X), lambda x, y, w, p: jnp.trace(
        jax.hessian(lambda x: jnp.trace(jax.jacobian(field)(x, y, p)))(x)).reshape(1)),
    "a formula of a derivative": (lambda: (lazy_kernel().grad(X, 1) | W).square() * lazy_kernel(),
                                  lambda x, y, w, p: ((jax.grad(kernel)(x, y, p) @ w) ** 2 * kernel(x, y, p)).reshape(1)),
    "of a lifted function": (lambda: lift(lambda a, b: jnp.exp(-jnp.sum((a - b) ** 2) * p))(X, Y).grad(X, 1),
                             lambda x, y, w, p: jax.grad(kernel)(x, y, p)),
}  # fmt: skip


def test_derivatives_against_jax_on_every_pair():
    @jax.jit
    def both():
        return {name: (lazy().sum(axis=1), on_pairs(f)) for name, (lazy, f) in CASES.items()}

    for name, (got, expected) in both().items():
        close(got, expected, 1e-12, name)


def test_every_derivative_can_be_unrolled():
    plans = {name: explain(lambda f=f: f().sum(axis=1), platform="cpu")[0].plan for name, (f, _) in CASES.items()}
    assert all(p.operations is not None for p in plans.values())  # nothing acts on whole feature arrays
    long = {name for name, p in plans.items() if p.operations > SCALARS}
    assert long == {"laplacian of a divergence"}  # of fourth order


def test_derivatives_of_reductions_of_derivatives():
    def f(x, y):
        X, Y = Vi(x), Vj(y)
        K = (-X.sqdist(Y)).exp()
        return LazyTensor.cat([(X * Y).sin().grad(X, Y), K.laplacian(X), K.grad(Y, 1).divergence(X)]).sum(axis=1)

    derivatives_agree(f, (x, y))


def test_other_reductions_and_both_axes():
    slope = np.asarray(jax.vmap(lambda a: jax.vmap(lambda b: jax.grad(kernel)(a, b, p))(y))(x))
    gradient = lazy_kernel().grad(X, 1)
    close(gradient.sum(axis=0), slope.sum(0))
    close(gradient.max(axis=1), slope.max(1))
    np.testing.assert_array_equal(gradient.argmin(axis=0), slope.argmin(0))
    close(gradient.T.sum(axis=1), slope.sum(0))
    close(lazy_kernel().laplacian(X) @ w, on_pairs(lambda x, y, w, p: jnp.trace(jax.hessian(kernel)(x, y, p)) * w))


def test_transformations_and_batch_dims():
    def total(x, y):
        X, Y = Vi(x), Vj(y)
        return (-X.sqdist(Y)).exp().grad(X, 1).sum(axis=x.ndim - 1)

    def dense(x, y):
        d = x[..., :, None, :] - y[..., None, :, :]
        return (-2 * d * jnp.exp(-(d**2).sum(-1))[..., None]).sum(-2)

    xs = np.stack([x, 2 * x])
    close(total(xs, y), dense(xs, y))
    close(jax.vmap(total, (0, None))(xs, y), dense(xs, y))
    close(jax.jit(jax.vmap(jax.grad(lambda x, y: total(x, y).sum()), (0, None)))(xs, y),
          jax.vmap(jax.grad(lambda x, y: dense(x, y).sum()), (0, None))(xs, y))  # fmt: skip
    K = (-X.sqdist(Y)).exp().grad(X, 1)
    close(jax.jit(lambda K: K.sum(axis=1))(K), dense(x, y))
    close(jax.jvp(total, (x, y), (x, y))[1], jax.jvp(dense, (x, y), (x, y))[1])


def test_feature_axes():
    a, b = normal(0, M, 2, 3), normal(1, N, 2, 3)
    A, B = Vi(a, feature_ndim=2), Vj(b, feature_ndim=2)
    energy = (A * B).sin()
    close(energy.grad(A, B).sum(axis=1), (b * b * np.cos(a[:, None] * b)).sum(1))
    close(energy.divergence(A).sum(axis=1)[:, 0], (b * np.cos(a[:, None] * b)).sum((1, 2, 3)))


def test_complex_gradients_are_adjoints():
    u, v = (normal(k, n, D) + 1j * normal(k + 9, n, D) for k, n in ((0, M), (1, N)))
    Z, C = Vi(u), Vj(v)
    close((Z * Z * C).grad(Z, C).sum(axis=1), (np.conj(2 * u[:, None] * v) * v).sum(1))
    close((Z * Z * C).diff(Z, C).sum(axis=1), (2 * u[:, None] * v * v).sum(1))
    # Steepest ascent of a real function: 2 z for |z|^2.
    close(Z.sqnorm2().grad(Z, 1).sum(axis=1), 2 * u)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_dtypes_of_derivatives(dtype):
    a, b = Vi(jnp.asarray(x, dtype)), Vj(jnp.asarray(y, dtype))
    K = (-a.sqdist(b)).exp()
    for derivative in (K.grad(a, 1), K.laplacian(a), K.grad(a, 1.0).divergence(b), K.diff(a, b)):
        assert derivative.dtype == dtype
        assert derivative.sum(axis=1).dtype == dtype
    assert K.grad(a, np.ones(1)).dtype == np.float64
    expected = -2 * (gaussian(x, y)[..., None] * (x[:, None] - y)).sum(1)
    close(np.asarray(K.grad(a, 1).sum(axis=1), float) / 8, expected / 8, 1e-6 if dtype == "float32" else 2e-2)


def test_integers_have_derivatives_as_floats():
    a = Vi(np.arange(12).reshape(4, 3))
    close((a * a).grad(a, 1).sum(axis=1), 2.0 * np.arange(12).reshape(4, 3))
    close((a.sum(-1) // 5).grad(a, 1).sum(axis=1), np.zeros((4, 3)))


def test_formulas_without_v():
    v = Vi(0, D)
    close((Y * Y).grad(v, 1).sum(axis=1)(x), np.zeros((M, D)))
    close(Y.sqnorm2().laplacian(v).sum(axis=1)(x), np.zeros((M, 1)))


def test_trace_takes_a_symbolic_variable_away():
    v = Vi(0, D)
    trace = (v * Y + v.sum(-1) * W).trace_operator(v)
    close(trace.sum(axis=1), [[(y + w).sum()]])
    assert (v * Vj(np.float32(y))).trace_operator(v).dtype == np.float32
    close(v.trace_operator(v).sum(axis=1), [[3.0]])


def test_written_again_pickled_and_printed():
    first, second = lazy_kernel().grad(X, 1), lazy_kernel().grad(X, 1)
    assert first._tape is second._tape
    assert first.grad(Y, X)._tape is second.grad(Y, X)._tape
    copy = pickle.loads(pickle.dumps(lazy_kernel().laplacian(X)))
    close(copy.sum(axis=1), lazy_kernel().laplacian(X).sum(axis=1))
    assert "grad(exp(" in repr(first) and ", x0, 1)" in repr(first)
    assert "trace_operator(v * y0, v)" in repr((Vi(0, D) * Y).trace_operator(Vi(0, D)))


def test_factorize():
    K = (X - Y).square() + (X - Y)
    close(K.factorize(X - Y).sum(axis=1), K.sum(axis=1))
    close(K.auto_factorize().sum(axis=1), K.sum(axis=1))


Z = Vi(x + 1j)
K = lazy_kernel()
MISUSES = {
    "v an array": (TypeError, lambda: K.grad(x, 1), r"grad: v is f64\[4,3\], expected a variable of the formula"),
    "v a formula": (TypeError, lambda: K.diff(X + 1, 1), r"diff: v is LazyTensor\(x0 \+ 1.*, a formula, expected a variable"),
    "v of another formula": (ValueError, lambda: K.grad(Vi(x.copy()), 1),
                             r"grad: v, of shape \(4, 1, 3\), does not occur in the formula LazyTensor\(exp.*inside a transformed"),
    "v with another role": (ValueError, lambda: K.laplacian(Vj(x)), r"laplacian: v, of shape \(1, 4, 3\), does not occur"),
    "e of another size": (ValueError, lambda: lazy_field().grad(X, W[..., :2]), r"grad: e has 2 features, expected 3 as the formula, or 1"),
    "diff, e of another size": (ValueError, lambda: K.diff(X, W[..., :2]), r"diff: e has 2 features, expected 3 as v, or 1"),
    "e None": (TypeError, lambda: K.grad(X, None), r"grad: e is NoneType None, expected a LazyTensor, an array or a number"),
    "e complex": (TypeError, lambda: K.grad(X, 1j), r"grad: e is complex128, but the formula is real"),
    "diff, e complex": (TypeError, lambda: K.diff(X, 1j), r"diff: e is complex128, but v is real"),
    "divergence of a scalar": (ValueError, lambda: K.divergence(X), r"divergence: the formula has 1 features and v has 3"),
    "laplacian of a vector": (ValueError, lambda: lazy_field().laplacian(X), r"laplacian: the formula has 3 features, expected a scalar"),
    "laplacian, complex v": (TypeError, lambda: (Z | Z).laplacian(Z), r"laplacian: v is complex128, expected real numbers"),
    "trace, not linear": (ValueError, lambda: (X * X).trace_operator(X), r"trace_operator: the formula .* is not linear in v"),
    "e of other rows": (ValueError, lambda: K.grad(X, Vj(y[:4, :1])), r"grad: the j-variables of the operands have N = 5 and N = 4"),
}  # fmt: skip


@pytest.mark.parametrize("misuse", MISUSES)
def test_misuses(misuse):
    kind, call, message = MISUSES[misuse]
    with pytest.raises(kind, match=message):
        call()


# Symbolic variables, and call=False.


S = -Vi(0, D).sqdist(Vj(1, D)) * 0.5  # symbolic
L = -X.sqdist(Y) * 0.5  # the same on data
REDUCED = {
    "sum": lambda K, c: K.sum(axis=1, call=c),
    "sum over both": lambda K, c: K.sum(axis=("i", "j"), call=c),
    "min": lambda K, c: K.min(axis=0, call=c),
    "max": lambda K, c: K.max(axis=1, call=c),
    "argmin": lambda K, c: K.argmin(axis=1, call=c),
    "argmax": lambda K, c: K.argmax_reduction(axis=0, call=c),
    "min_argmin": lambda K, c: K.min_argmin(axis=1, call=c),
    "max_argmax": lambda K, c: K.max_argmax(dim=1, call=c),
    "Kmin": lambda K, c: K.Kmin(2, axis=1, call=c),
    "argKmin": lambda K, c: K.argKmin(2, axis=1, call=c),
    "Kmin_argKmin": lambda K, c: K.Kmin_argKmin(2, axis=1, call=c),
    "logsumexp": lambda K, c: K.logsumexp(axis=1, call=c),
    "logsumexp, weight": lambda K, c: K.logsumexp(axis=1, weight=W.square(), call=c),
    "sumsoftmaxweight": lambda K, c: K.sumsoftmaxweight(W, axis=1, call=c),
    "matvec": lambda K, c: K.matvec(w, call=c),
    "rmatvec": lambda K, c: K.rmatvec(x[:, 0], call=c),
}  # fmt: skip


@pytest.mark.parametrize("name", REDUCED)
def test_reductions_that_are_called_later(name):
    reduced = REDUCED[name]
    now = reduced(L, True)
    for later in (reduced(L, False)(), reduced(S, False)(x, y), reduced(S, True)(x, y)):
        jax.tree.map(np.testing.assert_array_equal, later, now)
    word = name.split(",")[0].split(" ")[0]
    text = repr(reduced(S, True))
    assert text.startswith("SymbolicReduction(") and text.endswith(
        "a function of Vj(0, 3), Vi(1, 3))" if name == "rmatvec" else "a function of Vi(0, 3), Vj(1, 3))"
    )
    assert word in text
    assert repr(reduced(L, False)).endswith("to be called without arrays)")


def test_products_with_symbolic_kernels():
    K, G = S.exp(), np.exp(-0.5 * sqdists(x, y))
    close((K @ w)(x, y), G @ w)
    close((K @ w[:, 0])(x, y), G @ w[:, 0])
    close((x.T @ K)(x, y), x.T @ G)
    close((x[:, 0] @ K)(x, y), x[:, 0] @ G)
    with pytest.raises(ValueError, match="the j-variables of the operands have N = 4 and N = 5 rows"):
        (K @ w)(x, y[:4])


def test_the_arrays_tell_the_dtype():
    total = S.exp().sum(axis=1)
    for dtype in (np.float32, np.float64, jnp.bfloat16):
        assert total(jnp.asarray(x, dtype), jnp.asarray(y, dtype)).dtype == dtype
    assert (Vi(0, D) * Vj(1, D)).sum(axis=1)(x + 1j, y).dtype == np.complex128
    assert (Vi(0, D) * 2).sum(axis=0)(np.ones((4, D), np.int32)).dtype == jnp.sum(jnp.ones(4, np.int32)).dtype


def test_one_array_in_two_roles_and_a_tuple_as_in_keops():
    close((Vi(0, D) * Vj(0, D)).sum(axis=1)(x), x * x.sum(0))
    triple = LazyTensor((0, D, 0)) * LazyTensor((1, D, 1)) * LazyTensor((2, 1, 2))
    close(triple.sum(axis=1)(x, y, 2.0), 2 * x * y.sum(0))
    close(triple.sum(axis=1)(x, y, [2.0]), 2 * x * y.sum(0))


def test_symbolic_calculus_of_symbolic_variables():
    a, b = Vi(0, D), Vj(1, D)
    slope = (-a.sqdist(b)).exp().grad(a, Vj(2, 1)).sum(axis=1)
    expected = -2 * ((gaussian(x, y) * w[:, 0])[..., None] * (x[:, None] - y)).sum(1)
    close(slope(x, y, w[:, :1]), expected)
    close(jax.jit(slope)(x, y, w[:, :1]), expected)


WRONG = {
    "too few": (TypeError, lambda: S.sum(axis=1)(x), r"sum: .* symbolic variables Vi\(0, 3\), Vj\(1, 3\), so it needs 2 arrays.*got 1"),
    "too many": (TypeError, lambda: L.sum(axis=1, call=False)(x), r"\(none\), so it needs 0 arrays.*got 1"),
    "features": (ValueError, lambda: S.sum(axis=1)(x, y[:, :2]), r"variable 1: f64\[5,2\] has 2 features, expected 3: \(\*B, N, 3\)"),
    "a number": (ValueError, lambda: S.sum(axis=1)(x, 2.0), r"variable 1: f64\[\] is not a j-variable"),
    "a LazyTensor": (TypeError, lambda: S.sum(axis=1)(X, y), r"variable 0: got a LazyTensor"),
    "rows": (ValueError, lambda: (S * W).sum(axis=1)(x, y[:4]), r"the j-variables of the operands have N = "),
    "two dims": (ValueError, lambda: (Vi(0, 3) * Vj(0, 1)).sum(axis=1), r"Vi\(0, 3\) and Vj\(0, 1\) have the same index and different dims"),
    "order of complex numbers": (TypeError, lambda: (Vi(0, 3) < Vj(1, 3)).sum(axis=1)(x + 1j, y), r"less: .*complex numbers have no order"),
    "extremum of complex numbers": (TypeError, lambda: Vi(0, 3).min(axis=0)(x + 1j), r"min: the formula is complex128"),
    "undefined for complex": (TypeError, lambda: Vi(0, 3).floor().sum(axis=0)(x + 1j), r"floor is not defined for features c128\[3\]"),
    "option": (TypeError, lambda: S.sum(axis=1, foo=1), r"sum: unknown option 'foo'"),
    "option, later": (TypeError, lambda: S.sum(axis=1)(x, y, foo=1), r"sum: unknown option 'foo'"),
    "call": (TypeError, lambda: S.sum(axis=1, call="no"), r"sum: call=str 'no', expected True, or False"),
    "category": (ValueError, lambda: LazyTensor((0, 3, 3)), r"LazyTensor: \(0, 3, 3\) is the symbolic variable .*the list \[0, 3, 3\]"),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_arrays(wrong):
    kind, call, message = WRONG[wrong]
    with pytest.raises(kind, match=message):
        call()
