"""KeOps' small tensors, flattened row by row, and one_hot, bspline, softdtw_sqdist, stack: against NumPy and SciPy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.interpolate
import scipy.special

import lazyjax
from lazyjax import LazyTensor, Pm, Vi, Vj

from .dense import close, derivatives_agree, normal, uniform

M, N = 4, 3


def of_pairs(fn, x, y):
    """fn(x_i, y_j), flattened, for every i and j: (M, N, D)."""
    return np.array([[np.ravel(fn(a, b)) for b in y] for a in x])


# Products.  Each: ours, and NumPy's on one pair; x has 24 features, y 12.

PRODUCTS = {
    "matvecmult": (lambda x, y: x.matvecmult(y), lambda x, y: x.reshape(2, 12) @ y),
    "matvecmult of a scalar": (lambda x, y: x.matvecmult(y[..., 0]), lambda x, y: x * y[0]),
    "matvecmult of a matrix": (lambda x, y: x.reshape_features(2, 12).matvecmult(y),
                               lambda x, y: x.reshape(2, 12) @ y),
    "vecmatmult": (lambda x, y: y.vecmatmult(x), lambda x, y: y @ x.reshape(12, 2)),
    "tensorprod": (lambda x, y: x.tensorprod(y), np.outer),
    "tensorprod with an array": (lambda x, y: (x * y[..., 0]).tensorprod([1.0, 2.0]),
                                 lambda x, y: np.outer(x * y[0], [1, 2])),
    "tensordot, one axis": (lambda x, y: x.keops_tensordot(y, (2, 3, 4), (4, 3), (2,), (0,)),
                            lambda x, y: np.tensordot(x.reshape(2, 3, 4), y.reshape(4, 3), 1)),
    "tensordot, pairs of axes": (lambda x, y: x.keops_tensordot(y, (2, 3, 4), (4, 3), (2, 1), (0, 1)),
                                 lambda x, y: np.einsum("abc,cb->a", x.reshape(2, 3, 4), y.reshape(4, 3))),
    "tensordot, no axis": (lambda x, y: x.keops_tensordot(y, (24,), (3, 4), (), ()), np.outer),
    "tensordot, ints": (lambda x, y: x[..., :12].keops_tensordot(y, 12, 12, 0, 0), lambda x, y: x[:12] @ y),
    # Axis k of (2, 3, 3) becomes axis (1, 2, 0)[k]; the permutation is not its own inverse.
    "tensordot, permutation": (lambda x, y: x.keops_tensordot(y, [2, 3, 4], [4, 3], [2], [0], [1, 2, 0]),
                               lambda x, y: np.einsum("abc,cd->dab", x.reshape(2, 3, 4), y.reshape(4, 3))),
    "tensordot, permutation of all": (
        lambda x, y: x.keops_tensordot(y, (2, 3, 4), (2, 6), (), (), np.array([2, 0, 4, 1, 3])),
        lambda x, y: np.einsum("abc,de->bdaec", x.reshape(2, 3, 4), y.reshape(2, 6))),
    "kron": (lambda x, y: x.keops_kron(y, [2, 3, 4], [3, 2, 2]),
             lambda x, y: np.kron(x.reshape(2, 3, 4), y.reshape(3, 2, 2))),
    "kron of vectors": (lambda x, y: x.keops_kron(y, [24], [12]), np.kron),
}  # fmt: skip


def test_products():
    x, y = normal(0, M, 24), normal(1, N, 12)
    forms = jax.jit(lambda x, y: [f(Vi(x), Vj(y)).sum(axis=1) for f, _ in PRODUCTS.values()])(x, y)
    for (name, (_, dense)), got in zip(PRODUCTS.items(), forms, strict=True):
        close(got, of_pairs(dense, x, y).sum(1), message=name)


def test_products_derivatives():
    smooth = [PRODUCTS[name][0] for name in ("matvecmult", "tensordot, permutation", "kron of vectors")]

    def f(x, y):
        return LazyTensor.cat([form(Vi(x), Vj(y))[..., :5].sin() for form in smooth]).sum(axis=1)

    derivatives_agree(f, (normal(0, M, 24), normal(1, N, 12)))


def test_products_with_batch_dims_and_vmap():
    x, y = normal(0, 2, M, 6), normal(1, N, 3)
    dense = np.einsum("bmac,nc->bma", x.reshape(2, M, 2, 3), y)
    close(Vi(x).matvecmult(Vj(y)).sum(axis=2), dense)
    close(jax.vmap(lambda x: Vi(x).matvecmult(Vj(y)).sum(axis=1))(x), dense)
    integers = np.arange(24).reshape(M, 6)
    assert Vi(integers).matvecmult([1, 2, 3]).dtype == np.int64
    close(Vi(integers).matvecmult([1, 2, 3]).sum(axis=1), integers.reshape(M, 2, 3) @ [1, 2, 3])


def test_every_kernel_runs_the_algebra():
    """Plans of values and gradients of more pairs than one block takes: unrolled on the CPU, not refused for GPUs."""
    x, y = jnp.zeros((60, 6), "float32"), jnp.ones((50, 3), "float32")
    forms = [
        lambda a, b: a.matvecmult(b), lambda a, b: b.vecmatmult(a), lambda a, b: a.tensorprod(b),
        lambda a, b: a.keops_tensordot(b, (2, 3), 3, 1, 0), lambda a, b: a.keops_kron(b, (2, 3), (3, 1)),
        lambda a, b: Pm(jnp.arange(6.0)).bspline(a[..., 0], 2) * b[..., 0], lambda a, b: a.softdtw_sqdist(b, 0.5),
        lambda a, b: LazyTensor.stack([a[..., :3], b]).exp(), lambda a, b: a[..., 1].one_hot(4) * b[..., 1],
    ]  # fmt: skip

    def values(x, y):
        return [f(Vi(x), Vj(y)).sum(axis=1) for f in forms]

    def gradient(x, y):
        return jax.grad(lambda x, y: sum(v.sum() for v in values(x, y)), (0, 1))(x, y)

    for fn in (values, gradient):
        for platform, kernel in (("cpu", "xla"), ("cuda", "pallas-triton")):
            plans = [e.plan for e in lazyjax.explain(fn, x, y, platform=platform)]
            assert len(plans) >= len(forms) - 1
            assert {p.kernel for p in plans} == {kernel}
            assert platform != "cpu" or {p.tiles.shape for p in plans} == {"lanes"}


REFUSED = {
    "matvecmult: self, the matrix, has 6 features and other, the vector, 4, expected a multiple of 4":
        lambda x: x.matvecmult(np.ones(4)),
    "vecmatmult: other, the matrix, has 4 features and self, the vector, 6": lambda x: x.vecmatmult(np.ones(4)),
    "keops_tensordot: dimfa=(2, 4) has 8 entries, but self has 6":
        lambda x: x.keops_tensordot(x, (2, 4), (2, 3), (0,), (0,)),
    "keops_tensordot: contfa=(0,) names axes of sizes (2,) and contfb=(1,) axes of sizes (3,)":
        lambda x: x.keops_tensordot(x, (2, 3), (2, 3), (0,), (1,)),
    "keops_tensordot: contfa=(2,), expected different axes out of 0 to 1":
        lambda x: x.keops_tensordot(x, (2, 3), (2, 3), (2,), (0,)),
    "keops_tensordot: the permutation is (0, 0), expected each of 0 to 1 once":
        lambda x: x.keops_tensordot(x, (2, 3), (2, 3), (0,), (0,), (0, 0)),
    "keops_tensordot: expected at most one permutation": lambda x: x.keops_tensordot(x, 6, 6, 0, 0, (), ()),
    "keops_tensordot: dimfa must be an int, got float 6.0": lambda x: x.keops_tensordot(x, 6.0, 6, 0, 0),
    "keops_kron: dimfself=(2, 3) and dimfother=(6,) must have the same number": lambda x: x.keops_kron(x, (2, 3), (6,)),
    "one_hot: self has 6 features, expected 1": lambda x: x.one_hot(3),
    "one_hot: D=0, expected at least 1": lambda x: x[..., 0].one_hot(0),
    "one_hot: D must be an int": lambda x: x[..., 0].one_hot(2.0),
    "bspline: x has 6 features, expected 1": lambda x: x.bspline(x, 1),
    "bspline: self has 6 knots, expected at least k + 2 = 7": lambda x: x.bspline(x[..., 0], 5),
    "bspline: k=-1, expected at least 0": lambda x: x.bspline(x[..., 0], -1),
    "softdtw_sqdist: gamma has 6 features, expected 1": lambda x: x.softdtw_sqdist(x, x),
    "stack: features of shapes (6,), (2,); they must be equal, or 1": lambda x: LazyTensor.stack([x, np.ones(2)]),
    "stack: axis=1, expected -1 to -2, or 2 to 3": lambda x: LazyTensor.stack([x, x], 1),
    "stack: expected at least one LazyTensor among the operands": lambda x: LazyTensor.stack([]),
}  # fmt: skip


@pytest.mark.parametrize("message", REFUSED)
def test_errors(message):
    with pytest.raises((ValueError, TypeError)) as error:
        REFUSED[message](Vi(normal(0, M, 6)))
    assert message in str(error.value)


# one_hot.


def test_one_hot():
    x = np.array([[0.4], [0.5], [1.5], [2.49], [3.5], [-0.4], [-0.5], [-7.0], [np.nan], [np.inf]])
    row = lambda *on: [float(k in on) for k in range(4)]  # noqa: E731
    expected = [row(0), row(1), row(2), row(2), row(), row(0), row(0), row(), row(), row()]
    close(Vi(x).one_hot(4).sum(axis=1), np.array(expected))
    assert Vi(x.astype("float32")).one_hot(4).dtype == np.float32
    close(Vi(np.array([[2], [5], [-1]])).one_hot(3).sum(axis=1), np.array([[0, 0, 1], [0, 0, 0], [0, 0, 0]]))
    close(Vi(np.array([[True], [False]])).one_hot(2).sum(axis=1), np.array([[0, 1], [1, 0]]))
    labels, values = np.array([0, 2, 2, 1]), normal(0, M)
    sums = (Vi(labels[:, None]).one_hot(3) * Vi(values[:, None])).sum(axis=0)  # of each class
    close(sums, np.bincount(labels, values)[None])
    slope = jax.grad(lambda x: (Vi(x).one_hot(4) * Vi(x)).sum(axis=1).sum())(x[:4])
    close(slope, np.ones((4, 1)))  # only through the factor


# bspline.

KNOTS = np.array([-1.0, 0.0, 0.3, 0.7, 1.0, 2.0, 2.5])
REPEATED = np.array([0.0, 0.0, 0.0, 0.4, 0.4, 1.0, 1.0, 1.0])


def bsplines(knots, order, x):
    """All B-splines at x, (len(x), number of splines), by SciPy, each 0 outside of its half-open support."""
    values = []
    for t in np.lib.stride_tricks.sliding_window_view(knots, order + 2):
        piece = scipy.interpolate.BSpline.basis_element(t)
        values.append(np.where((t[0] <= x) & (x < t[-1]), piece(x), 0))
    return np.stack(values, -1)


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_bspline(order):
    x = np.array([-1.5, -1.0, -0.35, 0.0, 0.2, 0.7, 0.75, 1.3, 2.2, 2.4])
    close(Pm(KNOTS).bspline(Vi(x[:, None]), order).sum(axis=1), bsplines(KNOTS, order, x))
    assert not Pm(KNOTS).bspline(2.5, order).sum(axis=1).any()  # the last knot is outside
    if order == 2:
        inside, h = np.linspace(0.01, 0.99, 20), 1e-3
        spline = lambda x: Pm(REPEATED).bspline(Vi(x[:, None]), 2).sum(axis=1)  # noqa: E731
        close(spline(inside), bsplines(REPEATED, 2, inside))
        slopes = jax.jvp(spline, (inside,), (np.ones_like(inside),))[1]
        differences = bsplines(REPEATED, 2, inside + h) - bsplines(REPEATED, 2, inside - h)  # exact for parabolas
        close(slopes, differences / (2 * h))
        at_knots = jax.jacrev(lambda t: Pm(t).bspline(Vi(inside[:, None]), 2).sum(axis=1))(REPEATED)
        assert np.isfinite(at_knots).all()


def test_bspline_of_variable_knots():
    knots, x = np.sort(uniform(0, N, 6), 1), uniform(1, M, 1)
    dense = np.stack([bsplines(t, 1, x[:, 0]) for t in knots], 1)
    close(Vj(knots).bspline(Vi(x), 1).sum(axis=1), dense.sum(1))


# softdtw_sqdist.


def alignments(n, m):
    """All monotone paths of cells from (0, 0) to (n - 1, m - 1)."""
    if n == 1 and m == 1:
        return [[(0, 0)]]
    ends = [(a, b) for a, b in ((n - 1, m), (n, m - 1), (n - 1, m - 1)) if a >= 1 and b >= 1]
    return [[*path, (n - 1, m - 1)] for end in ends for path in alignments(*end)]


def softdtw(x, y, gamma):
    """The soft minimum over all alignments of their costs: the definition of soft-DTW."""
    cost = (x[:, None] - y) ** 2
    totals = jnp.stack([sum(cost[cell] for cell in path) for path in alignments(len(x), len(y))])
    return -gamma * jax.nn.logsumexp(-totals / gamma)


@pytest.mark.parametrize(("n", "m"), [(3, 4), (4, 2), (1, 3), (3, 1), (1, 1)])
def test_softdtw(n, m):
    args = normal(0, M, n), normal(1, N, m), np.array([0.7])

    def ours(x, y, gamma):
        return Vi(x).softdtw_sqdist(Vj(y), Pm(gamma)).sum(axis=1)

    def dense(x, y, gamma):
        pair = jax.vmap(jax.vmap(softdtw, (None, 0, None)), (0, None, None))
        return pair(x, y, gamma[0]).sum(1)[:, None]

    close(ours(*args), dense(*args))
    if (n, m) == (3, 4):
        weights = normal(2, M, 1)
        for got, expected in zip(
            *(jax.jit(jax.grad(lambda *a, f=f: (weights * f(*a)).sum(), (0, 1, 2)))(*args) for f in (ours, dense)),
            strict=True,
        ):
            close(got, expected)


def test_softdtw_of_small_gamma_is_dtw():
    x, y = normal(0, 1, 4), normal(1, 1, 5)
    cost = (x.T - y) ** 2
    least = min(sum(cost[cell] for cell in path) for path in alignments(4, 5))
    for gamma in (1e-3, 1e-12):
        close(Vi(x).softdtw_sqdist(Vj(y), gamma).sum(axis=1), np.array([[least]]), 1e-2 if gamma == 1e-3 else 1e-10)
    slope = jax.grad(lambda x: Vi(x).softdtw_sqdist(Vj(y), 1e-12).sum(axis=1).sum())(x)
    best = min(alignments(4, 5), key=lambda path: sum(cost[cell] for cell in path))
    expected = np.zeros((1, 4))
    for a, b in best:
        expected[0, a] += 2 * (x[0, a] - y[0, b])
    close(slope, expected)


# stack.


def test_stack():
    x, y = normal(0, M, 2), normal(1, N, 2)
    X, Y = np.broadcast_to(x[:, None], (M, N, 2)), np.broadcast_to(y, (M, N, 2))
    s = (x @ y.T)[..., None]
    one = np.ones((M, N, 1))
    cases = [
        (LazyTensor.stack([Vi(x), Vj(y)]), np.stack([X, Y], -1)),
        (LazyTensor.stack([Vi(x), Vj(y)], axis=-2), np.stack([X, Y], -2)),
        (LazyTensor.stack((Vi(x), Vj(y)), axis=2), np.stack([X, Y], 2)),
        (LazyTensor.stack([Vi(x), Vi(x) | Vj(y), 2]), np.stack([X, s + 0 * X, 2 + 0 * X], -1)),
        (LazyTensor.stack([Vi(x) | Vj(y), 2.5, True]), np.concatenate([s, 2.5 * one, one], -1)),
        (LazyTensor.stack([Vi(x) | Vj(y)]), s),
        (LazyTensor.stack([LazyTensor.stack([Vi(x), Vj(y)]), Vi(x)[..., 0]]),
         np.stack([np.stack([X, Y], -1), X[..., :1, None] + np.zeros((M, N, 2, 2))], -1)),
    ]  # fmt: skip
    sums = jax.jit(lambda tensors: [t.sum(axis=1) for t in tensors])([t for t, _ in cases])
    for k, (got, (_, dense)) in enumerate(zip(sums, cases, strict=True)):
        close(got, dense.sum(1), message=str(k))


def test_names_of_section_three_exist():
    """Element-wise, vector, building and tensor methods that KeOps' users, and the guide, call by name."""
    names = """exp log sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh exp2 expm1 log1p sqrt rsqrt square
        cbrt abs sign step relu round floor ceil xlogx sinxdivx sinc atan2 power clamp ifelse where mod minimum maximum
        erf erfc lgamma digamma sigmoid softplus logistic isfinite sum prod mean min max argmin argmax sqnorm2 norm2
        norm normalize sqdist weightedsqnorm weightedsqdist logsumexp softmax softdtw_sqdist difference_matrix elem
        extract one_hot bspline concat concatenate cat stack matvecmult vecmatmult tensorprod keops_tensordot
        keops_kron einsum matmul mT trace det inv real imag conj angle real2complex imag2complex exp1j""".split()
    assert [n for n in itertools.chain(names) if not hasattr(LazyTensor, n)] == []
