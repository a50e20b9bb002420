"""Complex formulas: values against NumPy, derivatives against dense JAX, both in complex128."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from lazyjax import LazyTensor, Pm, Vi, Vj

from .dense import close, normal, trees_close

M, N, D = 4, 3, 3


def complex_normal(seed, *shape):
    return normal(seed, *shape) + 1j * normal(seed + 100, *shape)


u, v, b = complex_normal(0, M, D), complex_normal(1, N, D), complex_normal(2, N, 2)
U = u[:, None]  # meets v as (M, N, D)


def _last(fn):
    return lambda z: fn(z, -1)[..., None]


ELEMENTWISE = {
    "real": (lambda z: z.real, np.real),
    "imag": (lambda z: z.imag, np.imag),
    "conj": (lambda z: z.conj(), np.conj),
    "angle": (lambda z: z.angle(), np.angle),
    "abs": (lambda z: z.abs(), np.abs),
    "sign": (lambda z: z.sign(), lambda z: z / np.abs(z)),
    "-z": (lambda z: -z, np.negative),
    "z * 2": (lambda z: z * 2, lambda z: z * 2),
    "2j - z": (lambda z: 2j - z, lambda z: 2j - z),
    "1 / z": (lambda z: 1 / z, lambda z: 1 / z),
    "z ** 2": (lambda z: z**2, lambda z: z * z),
    "z ** -3": (lambda z: z**-3, lambda z: 1 / z**3),
    "z ** 0.3": (lambda z: z**0.3, lambda z: np.exp(0.3 * np.log(z))),
    "z ** z": (lambda z: z**z, lambda z: np.exp(z * np.log(z))),
    "2 ** z": (lambda z: 2**z, lambda z: np.exp(z * np.log(2))),
    "exp2": (lambda z: z.exp2(), lambda z: np.exp(z * np.log(2))),
    **{name: (lambda z, name=name: getattr(z, name)(), getattr(np, name))
       for name in ("exp", "log", "sqrt", "square", "sin", "cos", "tan", "sinh", "cosh", "tanh", "log1p", "expm1")},
    **{f"a{name}": (lambda z, name=name: getattr(z, f"a{name}")(), getattr(np, f"arc{name}"))
       for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh")},
    "rsqrt": (lambda z: z.rsqrt(), lambda z: 1 / np.sqrt(z)),
    "xlogx": (lambda z: z.xlogx(), lambda z: z * np.log(z)),
    "sinxdivx": (lambda z: z.sinxdivx(), lambda z: np.sin(z) / z),
    "sigmoid": (lambda z: z.sigmoid(), lambda z: 1 / (1 + np.exp(-z))),
    "isfinite": (lambda z: (z / z.imag.relu()).isfinite(), lambda z: z.imag > 0),
    "where": (lambda z: (z.real > 0).where(z, z.conj()), lambda z: np.where(z.real > 0, z, z.conj())),
    "sum": (lambda z: z.sum(-1), _last(np.sum)),
    "prod": (lambda z: z.prod(-1), _last(np.prod)),
    "mean": (lambda z: z.mean(-1), _last(np.mean)),
    "logsumexp": (lambda z: z.logsumexp(-1).exp(), _last(lambda z, axis: np.exp(z).sum(axis))),
    "softmax": (lambda z: z.softmax(-1), lambda z: np.exp(z) / np.exp(z).sum(-1, keepdims=True)),
    "sqnorm2": (lambda z: z.sqnorm2(), lambda z: (np.abs(z) ** 2).sum(-1, keepdims=True)),
    "norm2": (lambda z: z.norm2(), lambda z: np.linalg.norm(z, axis=-1, keepdims=True)),
    "normalize": (lambda z: z.normalize(), lambda z: z / np.linalg.norm(z, axis=-1, keepdims=True)),
    "weightedsqnorm": (lambda z: z.weightedsqnorm([1.0, 2, 3]),
                       lambda z: (np.abs(z) ** 2 * [1, 2, 3]).sum(-1, keepdims=True)),
    "weightedsqnorm of a matrix": (lambda z: z.weightedsqnorm(u.ravel()[:9]),
                                   lambda z: np.einsum("mna,ab,mnb->mn", z.conj(), u.ravel()[:9].reshape(3, 3),
                                                       z)[..., None]),
    "matvecmult": (lambda z: z.tensorprod(z).matvecmult(z),
                   lambda z: z * (z * z).sum(-1, keepdims=True)),
    "det": (lambda z: (z.tensorprod([1, 2j, 3]).reshape_features(3, 3) + Pm(np.eye(3), feature_ndim=2)).det(),
            lambda z: 1 + (z * [1, 2j, 3]).sum(-1, keepdims=True)),
    "inv": (lambda z: (z.tensorprod(z).reshape_features(3, 3) + Pm(np.eye(3), feature_ndim=2)).inv().matmul(z),
            lambda z: z / (1 + (z * z).sum(-1, keepdims=True))),
}  # fmt: skip


def test_values():
    """With a single j, which compiles fastest."""
    with np.errstate(all="ignore"):
        expected = {name: dense(U + v[:1]) for name, (_, dense) in ELEMENTWISE.items()}
    kinds = [[n for n, e in expected.items() if e.dtype.kind == kind] for kind in "cfb"]
    groups = [names[k : k + 12] for names in kinds for k in range(0, len(names), 12)]  # of one kernel each

    @jax.jit
    def sums(u, v):
        forms = {name: ours(Vi(u) + Vj(v)) for name, (ours, _) in ELEMENTWISE.items()}
        return [LazyTensor.cat([forms[name] for name in names]).sum(axis=1) for names in groups]

    for names, got in zip(groups, sums(u, v[:1]), strict=True):
        ends = np.cumsum([expected[name].shape[-1] for name in names])
        for name, own in zip(names, np.split(got, ends[:-1], axis=1), strict=True):
            close(own, expected[name].sum(1), 1e-9, name)


def test_real_to_complex():
    x, y = normal(0, M, D), normal(1, N, D)
    pairs = x[:, None] * y
    t = Vi(x) * Vj(y)
    close(t.real2complex().sum(axis=1), pairs.sum(1) + 0j)
    close(t.imag2complex().sum(axis=1), 1j * pairs.sum(1))
    close(t.exp1j().sum(axis=1), np.exp(1j * pairs).sum(1))
    assert t.real is t
    close(t.imag.sum(axis=1), np.zeros((M, D)))
    close(t.conj().sum(axis=1), pairs.sum(1))
    close(t.angle().sum(axis=1), np.angle(pairs).sum(1))
    kinds = {"float16": "complex64", "float32": "complex64", "float64": "complex128"}
    for dtype in (*kinds, "bool", "int32", "int64"):
        x = jnp.ones((M, 1), dtype)
        kind = kinds[str(jnp.sqrt(x).dtype)]  # integers are as wide as in jnp
        for name in ("real2complex", "imag2complex", "exp1j"):
            assert getattr(Vi(x), name)().dtype == kind, (dtype, name)
    assert Vi(jnp.ones((M, 1), "complex64")).abs().dtype == np.float32
    assert (2j * Vi(jnp.ones((M, 1), "float32"))).dtype == np.complex64


def test_scalar_product_does_not_conjugate():
    """z | w is the sum of z_k w_k, as of real numbers; the Hermitian product is z.conj() | w, whose real part is what
    KeOps writes a|b for the pairs (re, im) of its features."""
    close((Vi(u) | Vj(v)).sum(axis=1), (u @ v.T).sum(1)[:, None])
    close((Vi(u).conj() | Vj(v)).sum(axis=1), (u.conj() @ v.T).sum(1)[:, None])
    pairs = lambda z: np.stack([z.real, z.imag], -1).reshape(len(z), -1)  # noqa: E731
    close((Vi(u).conj() | Vj(v)).real.sum(axis=1), (pairs(u) @ pairs(v).T).sum(1)[:, None])


def test_reductions():
    scores, weights = (Vi(u) | Vj(v)), Vj(b)
    S = u @ v.T
    close(scores @ b, S @ b)
    close(scores.T @ u, S.T @ u)
    close(scores.sum(axis=0), S.sum(0)[:, None])
    close(scores.sum(axis=("i", "j")), S.sum()[None])
    close(np.exp(scores.logsumexp(axis=1)), np.exp(S).sum(1)[:, None])
    close(np.exp(scores.logsumexp(axis=1, weight=weights)), np.exp(S) @ b)
    close(scores.sumsoftmaxweight(weights, axis=1), scipy.special.softmax(S, 1) @ b)
    close(scores.real.sumsoftmaxweight(weights, axis=1), scipy.special.softmax(S.real, 1) @ b)
    close(scores.abs().argmin(axis=1), np.abs(S).argmin(1)[:, None])


REFUSED = {
    "min: the formula is complex128, and complex numbers have no order": lambda z: z.min(axis=1),
    "Kmin: the formula is complex128": lambda z: z.Kmin(2, axis=1),
    "max: the features are complex128, expected real numbers": lambda z: z.max(-1),
    "ifelse: the features are complex128 and float64 and float64, expected real": lambda z: z.ifelse(1.0, 2.0),
    "<: the features are complex128": lambda z: z < 1,
    "one_hot: the features are complex128": lambda z: z[..., 0].one_hot(3),
    "bspline: the features are float64 and complex128": lambda z: Pm([0.0, 1, 2]).bspline(z[..., 0], 1),
    "softdtw_sqdist: the features are complex128": lambda z: z.softdtw_sqdist(z, 1.0),
    "floor is not defined for features c128[3]": lambda z: z.floor(),
    "round is not defined for features c128[3]": lambda z: z.round(),
    "erf is not defined for features c128[3]": lambda z: z.erf(),
    "real2complex: the features are complex128 already": lambda z: z.real2complex(),
    "exp1j: the features are complex128 already, expected real numbers. Use (1j * z).exp()": lambda z: z.exp1j(),
}


@pytest.mark.parametrize("message", REFUSED)
def test_refused(message):
    with pytest.raises(TypeError) as error:
        REFUSED[message](Vi(u))
    assert message in str(error.value)


# Derivatives, by JAX's conventions, against dense JAX.


def lazy(u, v, s):
    """A function of complex arrays that is not holomorphic."""
    z = Vi(u) * Vj(v).conj() + s
    K = (z.exp() * z.angle() + z.abs().exp1j() / (2 + z) + (z**2).real).sum(-1)
    return (K + (Vi(u) | Vj(v)) * z.norm2()) @ b


def dense(u, v, s):
    z = u[:, None] * jnp.conj(v) + s
    K = (jnp.exp(z) * jnp.angle(z) + jnp.exp(1j * jnp.abs(z)) / (2 + z) + (z**2).real).sum(-1)
    return (K + (u @ v.T) * jnp.linalg.norm(z, axis=-1)) @ b


def test_derivatives():
    args = (u, v, np.asarray(0.3 + 0.2j))
    directions = (complex_normal(5, M, D), complex_normal(6, N, D), np.asarray(0.7 - 0.1j))
    loss = lambda f: lambda *a: jnp.sum(jnp.abs(f(*a)) ** 2) ** 0.5  # noqa: E731

    def results(f):
        slope = jax.grad(loss(f), (0, 1, 2))
        return {
            "value": f(*args),
            "forward": jax.jvp(f, args, directions)[1],
            "reverse": jax.vjp(f, *args)[1](jnp.ones((M, 2), complex) * (1 - 2j)),
            "gradient": slope(*args),
            "forward over reverse": jax.jvp(slope, args, directions)[1],
            "reverse over forward": jax.grad(lambda *a: jnp.sum(jnp.abs(jax.jvp(f, a, directions)[1])), 0)(*args),
            "batches": jax.vmap(f, (0, None, None))(np.stack([u, 2 * u]), *args[1:]),
        }

    trees_close(jax.jit(lambda: results(lazy))(), jax.jit(lambda: results(dense))(), 1e-9)


def test_holomorphic_derivatives():
    """Also with respect to a Python number."""
    f = lambda s: ((Vi(u) * s).exp() | Vj(v)).sin().sum(axis=1)  # noqa: E731
    g = lambda s: jnp.sin(jnp.exp(u * s) @ v.T).sum(1)[:, None]  # noqa: E731
    s = 0.3 + 0.1j
    for jacobian in (jax.jacfwd, jax.jacrev):
        close(jacobian(f, holomorphic=True)(s), jacobian(g, holomorphic=True)(s))


def test_the_modulus_at_zero_has_derivative_zero():
    f = lambda z: Vi(z).abs().sum(axis=1).sum() + Vi(z).norm2().sum(axis=1).sum()  # noqa: E731
    z = np.array([[0j], [3 + 4j]])
    close(jax.grad(f)(z), np.array([[0], [2 * (3 - 4j) / 5]]))
    close(jax.jvp(f, (z,), (np.array([[1 + 0j], [0]]),))[1], np.float64(0))


# The non-uniform Fourier transform: sum over j of b_j exp(-2 pi i <x_j, f_i>).


def fourier(frequencies, points, b):
    phase = -2j * np.pi * (Vi(frequencies) | Vj(points))
    return phase.exp() @ b


def dense_fourier(frequencies, points, b):
    return jnp.exp(-2j * np.pi * frequencies @ points.T) @ b


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_non_uniform_fourier_transform(precision):
    wide = "complex128" if precision == "float64" else "complex64"
    tolerance = 1e-9 if precision == "float64" else 2e-4
    frequencies, points = normal(0, 6, 2).astype(precision), normal(1, 7, 2).astype(precision)
    weights = complex_normal(2, 7, 3)
    args = (frequencies, points, weights.astype(wide))
    moved = (normal(3, 6, 2).astype(precision), normal(4, 7, 2).astype(precision), args[2] * (1 + 2j))
    target = complex_normal(5, 6, 3).astype(wide)

    def results(f, args, moved, target):
        loss = lambda *a: jnp.sum(jnp.abs(f(*a) - target) ** 2)  # noqa: E731
        return {
            "value": f(*args),
            "forward": jax.jvp(f, args, moved)[1],
            "gradient": jax.grad(loss, (0, 1, 2))(*args),
            "hessian-vector": jax.jvp(jax.grad(loss, 1), args, moved)[1],
        }

    ours = jax.jit(lambda: results(fourier, args, moved, target))()
    assert ours["value"].dtype == wide and ours["gradient"][0].dtype == precision
    exact = [np.asarray(a, "complex128" if np.iscomplexobj(a) else "float64") for a in (*args, *moved, target)]
    expected = results(dense_fourier, tuple(exact[:3]), tuple(exact[3:6]), exact[6])
    scaled = lambda tree: jax.tree.map(lambda a, e: a / np.abs(e).max(), tree, expected)  # noqa: E731
    trees_close(scaled(ours), scaled(expected), tolerance)


def test_fourier_there_and_back():
    """On a regular grid the transform is the discrete Fourier transform of NumPy, and its adjoint inverts it."""
    n = 8
    grid = np.arange(n)[:, None] / 1.0
    signal = complex_normal(0, n, 2)
    spectrum = fourier(grid / n, grid, signal)
    close(spectrum, np.fft.fft(signal, axis=0))
    backward = (2j * np.pi * (Vi(grid) | Vj(grid / n))).exp() @ np.asarray(spectrum)
    close(backward / n, signal)
    exact = LazyTensor(-2 * np.pi * grid[:, None] / n) | LazyTensor(grid[None])
    close(exact.exp1j() @ signal, np.fft.fft(signal, axis=0))
