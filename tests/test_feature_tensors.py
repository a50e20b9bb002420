"""Features with several axes, matrices and tensors for every pair: against dense NumPy and JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

import lazyjax
from lazyjax import LazyTensor, Pm, Vi, Vj

from .dense import close, normal, trees_close

M, N = 4, 3
a, b = normal(0, M, 2, 3), normal(1, N, 3, 4)
A, B = np.broadcast_to(a[:, None], (M, N, 2, 3)), np.broadcast_to(b, (M, N, 3, 4))
w, c = normal(2, M, 3), normal(3, N, 2, 3)
W, C = np.broadcast_to(w[:, None], (M, N, 3)), np.broadcast_to(c, (M, N, 2, 3))


def summed(cases):
    """Every formula, a function of (a, b, w, c) as variables, summed over j; against the sum of the dense array.

    Many share a kernel, their features flattened, which compiles faster than one for each.
    """
    names = list(cases)
    groups = [names[k : k + 10] for k in range(0, len(names), 10)]

    @jax.jit
    def ours(a, b, w, c):
        operands = Vi(a, feature_ndim=2), Vj(b, feature_ndim=2), Vi(w), Vj(c, feature_ndim=2)
        every_pair = Vi(np.zeros((M, 1))) + Vj(np.zeros((N, 1)))
        tensors = {name: cases[name][0](*operands) + every_pair for name in names}
        for name in names:
            assert tensors[name]._shape == cases[name][1].shape, name
        return [LazyTensor.cat([tensors[n].reshape_features(-1) for n in group]).sum(axis=1) for group in groups]

    for group, got in zip(groups, ours(a, b, w, c), strict=True):
        dense = [cases[name][1].sum(1) for name in group]
        cuts = np.cumsum([d[0].size for d in dense])[:-1]
        for name, own, expected in zip(group, np.split(got, cuts, axis=1), dense, strict=True):
            close(own.reshape(expected.shape), expected, message=str(name))


KEYS = [
    np.s_[..., 0, :], np.s_[..., 1], np.s_[..., 1:, ::2], np.s_[..., ::-1, -1], np.s_[:, :, 1, 0:2], np.s_[..., None],
    np.s_[..., None, :, 2:0:-1], np.s_[:, :, :, None, 1], np.s_[..., -1, None, 0], np.s_[:, :, ..., 0],
]  # fmt: skip


def test_indexing():
    cases = {str(k): (lambda a, b, w, c, k=k: a[k] * c[k], A[k] * C[k]) for k in KEYS}
    cases["one number"] = (lambda a, b, w, c: a[..., 1, 0] * c[..., 0, 2], (A[..., 1, 0] * C[..., 0, 2])[..., None])
    cases["of a vector"] = (lambda a, b, w, c: w[..., None] * c[..., None, :, 1],
                            W[..., None] * C[..., None, :, 1])  # fmt: skip
    cases["a vector of one"] = (
        lambda a, b, w, c: w[..., 1, None] * c[..., 0, 0],
        (W[..., 1] * C[..., 0, 0])[..., None],
    )
    summed(cases)
    whole = Vi(a, feature_ndim=2)
    assert whole[...] is whole and whole[:, :, :, :] is whole
    assert whole[..., None, 0, 1:]._shape == (M, 1, 1, 2)
    rows = (whole * Vj(c, feature_ndim=2))[1:3, :, 1, ::2]
    close(rows.sum(axis=1), (A * C)[1:3, :, 1, ::2].sum(1))
    assert "x0[None, 0, 1:3:1]" in repr(whole[..., None, 0, 1:])


def test_products():
    cases = {
        "matmul": (lambda a, b, w, c: a.matmul(b), A @ B),
        "matrix, vector": (lambda a, b, w, c: c.matmul(w), np.einsum("mnab,mnb->mna", C, W)),
        "vector, matrix": (lambda a, b, w, c: w.matmul(b), np.einsum("mna,mnab->mnb", W, B)),
        "vector, vector": (lambda a, b, w, c: w.matmul(c[..., 0, :]), (W * C[..., 0, :]).sum(-1, keepdims=True)),
        "stacks of matrices": (lambda a, b, w, c: a[..., None, :, :].matmul(LazyTensor.stack([b, -b], axis=-3)),
                               A[..., None, :, :] @ np.stack([B, -B], -3)),
        "mT": (lambda a, b, w, c: c.mT.matmul(a), np.swapaxes(C, -1, -2) @ A),
        "einsum, outer": (lambda a, b, w, c: LazyTensor.einsum("ab,cd->acbd", a, c),
                          np.einsum("mnab,mncd->mnacbd", A, C)),
        "einsum, three": (lambda a, b, w, c: LazyTensor.einsum("ab, bc, b -> ca", a, b, w),
                          np.einsum("mnab,mnbc,mnb->mnca", A, B, W)),
        "einsum, implicit": (lambda a, b, w, c: LazyTensor.einsum("bc,ab", b, a), np.einsum("mnbc,mnab->mnac", B, A)),
        "einsum, to a number": (lambda a, b, w, c: LazyTensor.einsum("ab,ab->", a, c),
                                (A * C).sum((-1, -2))[..., None]),
        "einsum, a diagonal": (lambda a, b, w, c: LazyTensor.einsum("aa->a", b[..., :3]),
                               np.einsum("mnaa->mna", B[..., :3])),
        "einsum, a trace": (lambda a, b, w, c: LazyTensor.einsum("aa", b[..., :3]),
                            np.trace(B[..., :3], axis1=-2, axis2=-1)[..., None]),
        "einsum, a number": (lambda a, b, w, c: LazyTensor.einsum(",ab,->b", w | w, c, 2.0),
                             2 * (W * W).sum(-1, keepdims=True) * C.sum(-2)),
        "einsum, sums of one": (lambda a, b, w, c: LazyTensor.einsum("ab->b", c), C.sum(-2)),
        "|": (lambda a, b, w, c: a | c, (A * C).sum((-1, -2))[..., None]),
        "sqdist": (lambda a, b, w, c: a.sqdist(c), ((A - C) ** 2).sum((-1, -2))[..., None]),
        "norm2": (lambda a, b, w, c: (a - c).norm2(), np.linalg.norm((A - C).reshape(M, N, 6), axis=-1)[..., None]),
        "normalize": (lambda a, b, w, c: (a - c).normalize(),
                      (A - C) / np.linalg.norm((A - C), axis=(-1, -2), keepdims=True)),
        "scalar times matrix": (lambda a, b, w, c: (a | c) * b + 1, (A * C).sum((-1, -2))[..., None, None] * B + 1),
        "broadcasting": (lambda a, b, w, c: a + c[..., :1], A + C[..., :1]),
        "where": (lambda a, b, w, c: (a > c).where(a, 0.5), np.where(A > C, A, 0.5)),
        "concatenate": (lambda a, b, w, c: LazyTensor.cat([a, c]), np.concatenate([A, C], -1)),
        "concatenate, another axis": (lambda a, b, w, c: LazyTensor.concatenate([a, b.mT[..., :3]], axis=-2),
                                      np.concatenate([A, np.swapaxes(B, -1, -2)[..., :3]], -2)),
        "weightedsqnorm": (lambda a, b, w, c: (a - c).weightedsqnorm(a), ((A - C) ** 2 * A).sum((-1, -2))[..., None]),
    }  # fmt: skip
    summed(cases)
    close(Vi(a, feature_ndim=2).matmul(Pm(b[0], feature_ndim=2)).sum(axis=1), a @ b[0])


def test_shapes():
    summed({
        "reshape": (lambda a, b, w, c: (a * c).reshape_features(3, 2), (A * C).reshape(M, N, 3, 2)),
        "reshape to a vector": (lambda a, b, w, c: (a * c).reshape_features(-1), (A * C).reshape(M, N, 6)),
        "reshape to a tensor": (lambda a, b, w, c: b.reshape_features((2, -1, 3)), B.reshape(M, N, 2, 2, 3)),
        "transpose": (lambda a, b, w, c: LazyTensor.einsum("ab,cd->abcd", a, c).transpose_features(2, 0, 3, 1),
                      np.einsum("mnab,mncd->mncadb", A, C)),
        "transpose, reversed": (lambda a, b, w, c: LazyTensor.stack([a, c]).transpose_features(),
                                np.stack([A, C]).transpose(1, 2, 0, 4, 3)),
    })  # fmt: skip


AXES = [-1, -2, 2, 3, (-2, -1), (2, 3)]
OVER = {
    "sum": np.sum, "prod": np.prod, "mean": np.mean, "min": np.min, "max": np.max, "argmin": np.argmin,
    "argmax": np.argmax, "logsumexp": scipy.special.logsumexp,
}  # fmt: skip


def test_over_feature_axes():
    """An axis that is reduced goes; of all of them a single number stays."""
    F = A * C
    kept = lambda x: x[..., None] if x.ndim == 2 else x  # noqa: E731
    cases = {}
    for name, dense in OVER.items():
        for axis in AXES if not name.startswith("arg") else AXES[:4]:
            cases[name, axis] = (
                lambda a, b, w, c, name=name, axis=axis: getattr(a * c, name)(axis),
                kept(dense(F, axis)),
            )
    for axis in (-1, -2, (-2, -1)):
        cases["softmax", axis] = (lambda a, b, w, c, axis=axis: (a * c).softmax(axis), scipy.special.softmax(F, axis))
        cases["norm", axis] = (lambda a, b, w, c, axis=axis: (a * c).norm(axis), kept(np.linalg.norm(F, axis=axis)))
        cases["var", axis] = (lambda a, b, w, c, axis=axis: (a * c).var(axis), kept(np.var(F, axis)))
        cases["std", axis] = (lambda a, b, w, c, axis=axis: (a * c).std(axis, ddof=1), kept(np.std(F, axis, ddof=1)))
        cases["any", axis] = (lambda a, b, w, c, axis=axis: (a > c).any(axis) + 0, kept(np.any(A > C, axis)))
        cases["all", axis] = (lambda a, b, w, c, axis=axis: (a > c).all(axis) + 0, kept(np.all(A > C, axis)))
        cases["count", axis] = (
            lambda a, b, w, c, axis=axis: (a * (a > c)).count_nonzero(axis),
            kept(np.count_nonzero(A * (A > C), axis)),
        )
    cases["default"] = (lambda a, b, w, c: (a * c).sum(), F.sum(-1))
    cases["dim"] = (lambda a, b, w, c: (a * c).max(dim=-2), F.max(-2))
    cases["with batch axes of a vector"] = (lambda a, b, w, c: (w * w).sum((-1,)), (W * W).sum(-1, keepdims=True))
    summed(cases)


def squares(n, seed=7):
    """Matrices that are far from singular: (M, n, n) and (N, n, n)."""
    return normal(seed, M, n, n) + 3 * np.eye(n), normal(seed + 1, N, n, n) - 2 * np.eye(n)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_square_matrices(n):
    s, t = squares(n)
    S = s[:, None] @ t

    def lazy(s, t):
        return Vi(s, feature_ndim=2).matmul(Vj(t, feature_ndim=2))

    trace, det, inv = jax.jit(lambda s, t: [f(lazy(s, t)).sum(axis=1) for f in
                                            (LazyTensor.trace, LazyTensor.det, LazyTensor.inv)])(s, t)  # fmt: skip
    close(trace, np.trace(S, axis1=-2, axis2=-1).sum(1)[:, None])
    close(det, np.linalg.det(S).sum(1)[:, None])
    close(inv, np.linalg.inv(S).sum(1))
    if n == 4:  # the others are in the table of operations
        ours = jax.jit(jax.grad(lambda s: (lazy(s, t).det() * lazy(s, t).inv()[..., 1, 2]).sum(axis=1).sum()))(s)
        close(ours, jax.grad(lambda s: (jnp.linalg.det(s[:, None] @ t) * jnp.linalg.inv(s[:, None] @ t)[..., 1, 2])
                             .sum())(s), 1e-9)  # fmt: skip


def test_stacks_of_square_matrices():
    s = np.stack(squares(3)[:1] * 2, 1) + normal(9, M, 2, 3, 3) / 3
    t = Vi(s, feature_ndim=3)
    close(t.inv().sum(axis=1), np.linalg.inv(s))
    close(t.det().sum(axis=1), np.linalg.det(s))
    close(t.trace().sum(axis=1), np.trace(s, axis1=-2, axis2=-1))


def test_inverse_of_tiny_large_and_singular_matrices():
    for n in (1, 2, 3, 4):
        s = squares(n)[0].astype("float32")
        for scale in (np.float32(1e-15), np.float32(1e15)):  # whose determinants float32 cannot hold
            got = Vi(s * scale, feature_ndim=2).inv().sum(axis=1)
            close(got * scale, np.linalg.inv(s.astype(float)).astype("float32"), 1e-4)
        singular = Vi(np.zeros((1, n, n)), feature_ndim=2).inv().sum(axis=1)
        assert not np.isfinite(singular).any()


def test_larger_matrices_by_lift():
    s = squares(5)[0]
    with pytest.raises(ValueError, match=r"inv: the features are matrices of 5 by 5.*lazyjax.lift\(jnp.linalg.inv\)"):
        Vi(s, feature_ndim=2).inv()
    close(lazyjax.lift(jnp.linalg.inv)(Vi(s, feature_ndim=2)).sum(axis=1), np.linalg.inv(s))
    close(lazyjax.lift(jnp.linalg.det)(Vi(s, feature_ndim=2)).sum(axis=1), np.linalg.det(s)[:, None])
    close(Vi(s, feature_ndim=2).trace().sum(axis=1), np.trace(s, axis1=1, axis2=2)[:, None])


# An anisotropic Gaussian: a covariance for every point.


def lazy_gaussian(x, S, y, v):
    d = Vi(x) - Vj(y)
    return (-LazyTensor.einsum("a,ab,b->", d, Vi(S, feature_ndim=2).inv(), d)).exp() @ v


def dense_gaussian(x, S, y, v):
    d = x[:, None] - y
    return jnp.exp(-jnp.einsum("mna,mab,mnb->mn", d, jnp.linalg.inv(S), d)) @ v


def covariances(seed, *lead):
    root = normal(seed, *lead, 3, 3)
    return root @ np.swapaxes(root, -1, -2) + np.eye(3)


def test_anisotropic_gaussian():
    args = normal(0, M, 3), covariances(1, M), normal(2, N, 3), normal(3, N, 2)
    moved = normal(4, M, 3), normal(5, M, 3, 3), normal(6, N, 3), normal(7, N, 2)

    def results(f):
        loss = lambda *args: jnp.sum(jnp.sin(f(*args)))  # noqa: E731
        gradient = jax.grad(loss, (0, 1, 2, 3))
        return {
            "value": f(*args),
            "forward": jax.jvp(f, args, moved)[1],
            "gradient": gradient(*args),
            "hessian-vector": jax.jvp(gradient, args, moved)[1],
            "batches": jax.vmap(gradient, (0, None, None, None))(np.stack([args[0], 2 * args[0]]), *args[1:]),
        }

    trees_close(jax.jit(lambda: results(lazy_gaussian))(), jax.jit(lambda: results(dense_gaussian))(), 1e-9)


def test_batch_dims_and_transposition():
    x, S, y, v = normal(0, 2, M, 3), covariances(1, 2, M), normal(2, N, 3), normal(3, N, 2)
    expected = np.stack([dense_gaussian(x[k], S[k], y, v) for k in range(2)])
    close(lazy_gaussian(x, S, y, v), expected)
    close(jax.vmap(lazy_gaussian, (0, 0, None, None))(x, S, y, v), expected)
    K = (Vi(x[0]) | Vj(y)) * Vi(S[0], feature_ndim=2)
    close(K.T.sum(axis=1), np.einsum("md,nd,mab->nab", x[0], y, S[0]))
    axes = lazyjax.batch_axes(Vi(S, feature_ndim=2))
    close(jax.vmap(lambda t: t.det().sum(axis=1), in_axes=(axes,))(Vi(S, feature_ndim=2)), np.linalg.det(S)[..., None])
    assert jax.jit(lambda t: t.inv())(Vi(S, feature_ndim=2)).shape == (2, M, 1, 3, 3)


@pytest.mark.parametrize("backend", ["xla", "dense", "pallas-triton"])
def test_kernels(backend):
    x, S, y = (z.astype("float32") for z in (normal(0, M, 3), covariances(1, M), normal(2, N, 3)))

    def value(x, S, y):
        d, T = Vi(x) - Vj(y), Vi(S, feature_ndim=2)
        K = LazyTensor.einsum("a,ab,b->", d, T.inv(), d) + T.mT[..., 0, 1:].sum()
        return K.sum(axis=1, backend=backend).sum()

    def dense(x, S, y):
        d = x[:, None] - y
        K = jnp.einsum("mna,mab,mnb->mn", d, jnp.linalg.inv(S), d)
        return (K + S[:, 1:, 0].sum(1)[:, None]).sum()

    got = jax.jit(jax.value_and_grad(value, 1))(x, S, y)
    expected = jax.value_and_grad(dense, 1)(*(z.astype(float) for z in (x, S, y)))
    scale = lambda tree: jax.tree.map(lambda u, e: u / np.abs(e).max(), tree, expected)  # noqa: E731
    trees_close(scale(got), scale(expected), 1e-4)


def test_every_kernel_runs_matrices():
    """Unrolled on the CPU and not refused for GPUs, values and gradients: no call of a library of linear algebra."""
    s = jnp.ones((40, 3, 3), "float32")  # more pairs than one block takes
    forms = [
        LazyTensor.inv, LazyTensor.det, LazyTensor.trace, lambda t: t.mT.matmul(t), lambda t: t[..., 1, None, ::-1],
        lambda t: LazyTensor.einsum("ab,bc->ac", t, t), lambda t: t.reshape_features(-1).exp(), lambda t: t.norm2(),
    ]  # fmt: skip

    def values(s, t):
        return [f(Vi(s, feature_ndim=2) * Vj(t, feature_ndim=2)).sum(axis=1) for f in forms]

    def gradient(s, t):
        return jax.grad(lambda s, t: sum(jnp.sum(v**2) for v in values(s, t)), (0, 1))(s, t)

    for fn in (values, gradient):
        for platform, kernel in (("cpu", "xla"), ("cuda", "pallas-triton")):
            plans = [e.plan for e in lazyjax.explain(fn, s, s + 1, platform=platform)]
            assert len(plans) >= len(forms) and {p.kernel for p in plans} == {kernel}
            assert platform != "cpu" or {p.tiles.shape for p in plans} == {"lanes"}


# Reductions over i and j keep the feature axes.


def test_reductions_keep_the_feature_axes():
    F = np.sin(a[:, None] * c)
    S, e = w @ c[:, 0].T, np.exp(w @ c[:, 0].T)
    score, weight = Vi(w) | Vj(c[:, 0]), Vj(c**2, feature_ndim=2)

    @jax.jit
    def ours(f):
        return {
            "sum": f.sum(axis=1), "sum over i": f.sum(axis=0), "both": f.sum(axis=("i", "j")), "min": f.min(axis=1),
            "max": f.max(axis=0), "argmin": f.argmin(axis=1), "argmax": f.argmax(axis=0), "Kmin": f.Kmin(2, axis=1),
            "argKmin": f.argKmin(2, axis=1), "logsumexp": f.logsumexp(axis=1),
            "sumsoftmaxweight": score.sumsoftmaxweight(weight, axis=1),
            "logsumexp with weight": score.logsumexp(axis=1, weight=weight),
            "product": (score * weight).sum(axis=1),
        }  # fmt: skip

    expected = {
        "sum": F.sum(1), "sum over i": F.sum(0), "both": F.sum((0, 1)), "min": F.min(1), "max": F.max(0),
        "argmin": F.argmin(1), "argmax": F.argmax(0), "Kmin": np.sort(F, 1)[:, :2],
        "argKmin": np.argsort(F, 1)[:, :2], "logsumexp": scipy.special.logsumexp(F, 1),
        "sumsoftmaxweight": np.einsum("mn,nab->mab", e, c**2) / e.sum(1)[:, None, None],
        "logsumexp with weight": np.log(np.einsum("mn,nab->mab", e, c**2)),
        "product": np.einsum("mn,nab->mab", S, c**2),
    }  # fmt: skip
    got = ours((Vi(a, feature_ndim=2) * Vj(c, feature_ndim=2)).sin())
    for name, dense in expected.items():
        close(got[name], dense, message=name)


def test_gradients_of_reductions_of_matrices():
    def both(f):
        return jax.jit(jax.grad(lambda a, c: sum(jnp.sum(jnp.sin(v)) for v in f(a, c)), (0, 1)))(a, c)

    def ours(a, c):
        f = (Vi(a, feature_ndim=2) * Vj(c, feature_ndim=2)).sin()
        return [f.min(axis=1), f.Kmin(2, axis=0), f.logsumexp(axis=1), f.sum(-2).max(axis=1)]

    def dense(a, c):
        f = jnp.sin(a[:, None] * c)
        return [f.min(1), jnp.sort(f, 0)[:2], jax.nn.logsumexp(f, 1), f.sum(-2).max(1)]

    trees_close(both(ours), both(dense))


def test_strict_rank_promotion():
    """One number meets a matrix without any rank promotion of JAX."""
    with jax.numpy_rank_promotion("raise"):
        s, t = Vi(w), Vj(c, feature_ndim=2)
        f = (s.norm2() * t + 1.5).normalize() - s[..., 0] / t.norm2()
        close(((s[..., 0] > 0).where(f, 0.0)).sum(axis=0).shape, (N, 2, 3))
        assert LazyTensor.stack([t, s[..., 0]]).sum(axis=1).shape == (M, 2, 3, 2)


REFUSED = {
    "det: the features have shape (2, 3), expected square matrices": lambda t, v: t.det(),
    "trace: the features have shape (3,), expected square matrices": lambda t, v: v.trace(),
    "mT: the features have shape (3,), expected matrices": lambda t, v: v.mT,
    "matmul: features of shapes (2, 3) and (2, 3) do not multiply": lambda t, v: t.matmul(t),
    "matmul: other is f64[2,3], a 2-D array": lambda t, v: t.matmul(a[0]),
    "reshape_features: (4, -1) does not hold the 6 features of shape (2, 3)": lambda t, v: t.reshape_features(4, -1),
    "reshape_features: (-1, -1) does not hold": lambda t, v: t.reshape_features(-1, -1),
    "transpose_features: axes (0, 0), expected each of the feature axes 0 to 1 once":
        lambda t, v: t.transpose_features(0, 0),
    "einsum: 'ab,b->a' is about 2 operands, but there are 1": lambda t, v: LazyTensor.einsum("ab,b->a", t),
    "einsum: 'abc->a' gives operand 0 the letters 'abc', but its features have shape (2, 3)":
        lambda t, v: LazyTensor.einsum("abc->a", t),
    "einsum: in 'ab,a->b' the letter 'a' stands for axes of sizes 2 and 3":
        lambda t, v: LazyTensor.einsum("ab,a->b", t, v),
    "einsum: the result of 'ab->aa' has the letter 'a' twice": lambda t, v: LazyTensor.einsum("ab->aa", t),
    "einsum: the result of 'ab->c' has the letter 'c'": lambda t, v: LazyTensor.einsum("ab->c", t),
    "einsum: '...b->b' may hold letters": lambda t, v: LazyTensor.einsum("...b->b", t),
    "einsum: subscripts are f64[4,1,2,3], expected a string": LazyTensor.einsum,
    "einsum: expected at least one LazyTensor": lambda t, v: LazyTensor.einsum("a->a", w[0]),
    "x[0] on shape (4, 1, 2, 3), which has 2 feature axes": lambda t, v: t[0],
    "x[..., 5]: index 5 is out of range for 3 features": lambda t, v: t[..., 5],
    "only the last 2 axes, the features, can be indexed": lambda t, v: t[..., 0, ...],
    "x[..., :, :, :, :, :] on shape": lambda t, v: t[..., :, :, :, :, :],
    "x[None, :, :, :, :] on shape": lambda t, v: t[None, :, :, :, :],
    "+: feature shapes (2, 3) and (3,) have different numbers of axes": lambda t, v: t + v,
    "argmin: 2 feature axes, expected one": lambda t, v: t.argmin((-1, -2)),
    "sum: axis=2 is not an axis to reduce": lambda t, v: t.sum((1, 2)),
    "logsumexp: a weight has no meaning over the features": lambda t, v: (v | v).logsumexp((-1,), weight=v),
    "sum: options ['backend'] have no meaning over the features": lambda t, v: t.sum(-1, backend="xla"),
    "Kmin: the features cannot be reduced by it": lambda t, v: t.Kmin(2, -1),
    "norm: dim=0, expected -1": lambda t, v: t.norm(0),
    "concatenate: axis=1, expected -1: only features": lambda t, v: LazyTensor.concatenate([t, t], axis=1),
    "K has 6 features, expected a scalar formula": lambda t, v: t @ w,
}  # fmt: skip


@pytest.mark.parametrize("message", REFUSED)
def test_errors(message):
    with pytest.raises((ValueError, TypeError, IndexError)) as error:
        REFUSED[message](Vi(a, feature_ndim=2), Vi(w))
    assert message in str(error.value)
