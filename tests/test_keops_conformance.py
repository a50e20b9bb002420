"""The same Python expressions in KeOps and here: values and shapes, over the vocabulary that both have.

Left out: softdtw_sqdist, whose numbers in KeOps 2.3 are not those of the published recursion (tests/test_algebra.py has
them), and the method grad_matrix, which KeOps cannot write; its formula string is here. KeOps compiles every formula with g++, for seconds, so expressions are joined into one formula for each group. Collected
only where pykeops is installed:

    pip install pykeops && python -m pytest tests/test_keops_conformance.py
"""

# ruff: noqa: E501  (tables: one expression on one line)

import warnings

import numpy as np
import pytest

import lazyjax

from .dense import normal, uniform

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import pykeops
    import pykeops.numpy as keops

pykeops.set_verbose(False)
pytestmark = pytest.mark.filterwarnings("ignore")
M, N, D = 4, 5, 3
DATA = {
    "x": (0, normal(0, M, D)), "y": (1, normal(1, N, D)), "a": (0, uniform(2, M, D, low=0.3, high=0.9)),
    "b": (1, uniform(3, N, D, low=0.4, high=2.0)), "s": (0, uniform(4, M, 1, low=0.2, high=0.8)),
    "t": (1, normal(5, N, 1)), "m": (1, normal(6, N, 6)), "n": (0, normal(7, M, 9)),
    "p": (2, uniform(8, 3, low=0.5, high=1.5)), "g": (2, uniform(9, 1, low=0.5, high=1.5)), "k": (2, np.arange(7.0)),
}  # fmt: skip


def variables(library, dtype=np.float64):
    """Every variable as a LazyTensor of a library."""
    make = (library.Vi, library.Vj, library.Pm)
    return {name: make[axis](np.ascontiguousarray(v.astype(dtype))) for name, (axis, v) in DATA.items()}


ELEMENTWISE = """x + y | x - t | x * y | x / b | s + 2 | 2 - x | 1 / b | x / 3 | 0.5 * x | -x | abs(x) | x.abs() | x ** 2 | x ** 3
    a ** 0.5 | a ** -0.5 | a ** 1.5 | a ** b | a ** -2 | x.square() | a.sqrt() | a.rsqrt() | a.log() | a.xlogx() | x.exp()
    x.sin() | x.cos() | x.sinxdivx() | x.sinc() | a.asin() | a.acos() | x.atan() | x.atan2(b) | x.sign() | x.step() | x.relu()
    x.clamp(-1, 1) | x.clamp(t, b) | x.ifelse(y, b) | x.mod(0.7, 0.1) | x.mod(b) | x.round(0) | x.round(1) | x.power(2)
    a.power(b) | x + [1.0, 2.0, 3.0] | p * x | x * g | g - x""".replace("\n", " | ")
COMPARISONS = "x < y | x <= y | x > y | x >= y | x.round() == y.round() | x.round() != y.round() | 0.5 < x"
FEATURES = """x.sum(-1) | x.sum(2) | x.min(-1) | x.max(-1) | x.argmin(-1) | x.argmax(-1) | x.sqnorm2() | x.norm2() | x.norm(-1)
    x.normalize() | x.sqdist(y) | x.weightedsqnorm(g) | x.weightedsqnorm(b) | x.weightedsqnorm(n) | x.weightedsqdist(y, b)
    (x | y) | x.elem(1) | x.extract(1, 2) | x[1] | x[:, :, 2] | x[:, :, 1:] | x[0:2] | x[:, :, :2] | x.concat(y)
    LT.concatenate((x, y, t), axis=-1) | LT.cat((x, y), -1) | (s * 5).round().one_hot(5)
    m.matvecmult(x) | x.vecmatmult(n) | n.matvecmult(x) | x.tensorprod(y)
    m.keops_tensordot(n, (2, 3), (3, 3), (1,), (0,)) | n.keops_tensordot(x, (3, 3), (3,), (0,), (0,))
    m.keops_tensordot(x, (2, 3), (3,), (), (), (2, 0, 1)) | m.keops_kron(n, [2, 3], [3, 3]) | x.keops_kron(y, [3], [3])""".replace(
    "\n", " | "
)
CALCULUS = """(-x.sqdist(y)).exp().grad(x, t) | (-x.sqdist(y)).exp().grad(y, 1) | (x * y).sin().grad(x, y) | a.log().grad(a, b)
    (x * y).sin().diff(x, y) | (-x.sqdist(y)).exp().diff(y, x)
    (x * x * y).divergence(x) | (-x.sqdist(y)).exp().laplacian(x) | (-x.sqdist(y)).exp().grad(x, 1).grad(y, x)
    x.norm2().grad(x, t) | x.normalize().grad(x, y) | x.relu().grad(x, y) | x.clamp(-1, 1).grad(x, y) | x.abs().grad(x, y)
    x.sinxdivx().grad(x, y) | a.xlogx().grad(a, y) | (a ** 1.5).grad(a, y) | (x ** 3).grad(x, y) | x.weightedsqnorm(b).grad(x, t)
    x.atan2(b).grad(x, y) | x.atan2(b).grad(b, y) | x.mod(0.7, 0.1).grad(x, y) | a.rsqrt().grad(a, y) | n.matvecmult(x).grad(n, x)
    x.tensorprod(y).sum(-1).grad(x, t) | x.concat(y).sum(-1).grad(y, t) | x.elem(1).grad(x, t) | x.max(-1).grad(x, t)
    ((x - y) * (x - y)).factorize(x - y) | ((x - y) * (x - y)).auto_factorize()""".replace("\n", " | ")
SHORT = "k.bspline(s * 4, 0) | k.bspline(s * 4, 2)"  # KeOps cannot write them in float64
GROUPS = {
    "float32": SHORT,
    "element-wise": ELEMENTWISE,
    "comparisons": COMPARISONS,
    "features": FEATURES,
    "calculus": CALCULUS,
}


def expressions(text):
    """Split at "|" outside brackets (inside, it is the scalar product)."""
    parts, depth = [""], 0
    for c in text:
        depth += (c in "([") - (c in ")]")
        if c == "|" and depth == 0:
            parts.append("")
        else:
            parts[-1] += c
    return [e for e in map(str.strip, parts) if e]


def write(library, text):
    """The LazyTensors of some expressions."""
    names = {**variables(library, np.float32 if text is SHORT else np.float64), "LT": library.LazyTensor}
    return {e: eval(e, names) for e in expressions(text)}


def joined(library, tensors):
    return library.LazyTensor.concatenate(tuple(tensors), axis=-1)


def close(got, expected, what, tolerance=1e-6):  # KeOps rounds constants to float32
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape, f"{what}: shape {got.shape}, KeOps has {expected.shape}"
    scale = max(1.0, np.abs(expected).max(initial=0))
    np.testing.assert_allclose(got / scale, expected / scale, rtol=0, atol=tolerance, err_msg=what)


@pytest.mark.parametrize("group", GROUPS)
def test_expressions(group):
    ours, theirs = write(lazyjax, GROUPS[group]), write(keops, GROUPS[group])
    for e, tensor in theirs.items():
        assert (ours[e].shape, ours[e]._shape) == (tensor.shape, tensor._shape), e
    expected = joined(keops, theirs.values()).sum(axis=1)
    got = joined(lazyjax, [o * 1.0 for o in ours.values()]).sum(axis=1)
    start = 0
    for e, tensor in theirs.items():
        stop = start + tensor._shape[-1]
        close(got[:, start:stop], expected[:, start:stop], e)
        start = stop
    assert start == got.shape[1]


REDUCTIONS = {
    "sum": lambda v: (v["x"] - v["y"]).sum(axis=0),
    "sum_reduction": lambda v: (v["x"] * v["y"]).sum_reduction(dim=1),
    "min": lambda v: (v["x"] - v["y"]).min(axis=1),
    "max": lambda v: (v["x"] - v["y"]).max(dim=0),
    "argmin": lambda v: (v["x"] - v["y"]).argmin(axis=1),
    "argmax": lambda v: (v["x"] - v["y"]).argmax_reduction(axis=0),
    "min_argmin": lambda v: v["x"].sqdist(v["y"]).min_argmin(axis=1),
    "max_argmax": lambda v: (v["x"] - v["y"]).max_argmax(axis=1),
    "Kmin": lambda v: v["x"].sqdist(v["y"]).Kmin(2, axis=1),
    "Kmin of vectors": lambda v: (v["x"] - v["y"]).Kmin(2, axis=0),
    "argKmin": lambda v: v["x"].sqdist(v["y"]).argKmin(K=3, axis=1),
    "Kmin_argKmin": lambda v: v["x"].sqdist(v["y"]).Kmin_argKmin(2, axis=0),
    "logsumexp": lambda v: v["x"].sqdist(v["y"]).logsumexp(axis=1),
    "logsumexp, weight": lambda v: v["x"].sqdist(v["y"]).logsumexp(axis=1, weight=v["b"]),
    "sumsoftmaxweight": lambda v: v["x"].sqdist(v["y"]).sumsoftmaxweight(v["y"], axis=1),
    "K @ b": lambda v: (-v["x"].sqdist(v["y"])).exp() @ DATA["y"][1],
    "K @ vector": lambda v: (-v["x"].sqdist(v["y"])).exp() @ DATA["t"][1][:, 0].copy(),
    "K.T @ b": lambda v: (-v["x"].sqdist(v["y"])).exp().t() @ DATA["x"][1],
    "of no j-variable": lambda v: v["x"].sum(axis=1),
}  # fmt: skip


def same(got, expected, what):
    pairs = zip(got, expected, strict=True) if isinstance(expected, tuple) else [(got, expected)]
    for a, b in pairs:
        close(a, b, what)


@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions(name):
    same(REDUCTIONS[name](variables(lazyjax)), REDUCTIONS[name](variables(keops)), name)


def test_batch_dims():
    x, y, p = normal(0, 2, 1, M, 1, D), normal(1, 3, 1, N, D), normal(2, 2, 1, 1, 1, D)
    results = []
    for library in (lazyjax, keops):
        X, Y, P = map(library.LazyTensor, (x, y, p))
        K = (-(X * P - Y).square().sum(-1)).exp()
        results.append([K.sum(axis=2), K.sum(axis=3), (K * X).sum(axis=3), K @ normal(3, N, 2), K.shape, K.nbatchdims])
    for k, (got, expected) in enumerate(zip(*results, strict=True)):
        close(got, expected, f"batch {k}") if hasattr(expected, "dtype") else None
    assert results[0][-2:] == [results[1][-2], 2]


def test_symbolic_variables():
    results = []
    for library in (lazyjax, keops):
        K = (-(library.Vi(0, 3) - library.Vj(1, 3)).sqnorm2() * library.Pm(2, 1)).exp()
        total = (K * library.Vj(DATA["t"][1])).sum(axis=1)
        results.append(total(DATA["x"][1], DATA["y"][1], DATA["g"][1]))
    close(*results, "symbolic")


def test_linear_systems():
    x, b = DATA["x"][1], normal(10, M, 2)
    unknown = [
        library.KernelSolve("Exp(-SqDist(x, y)) * a", ["x = Vi(3)", "y = Vj(3)", "a = Vj(2)"], "a", axis=1)
        for library in (lazyjax, keops)
    ]
    close(*(inverse(x, x, b, alpha=0.1, eps=1e-9) for inverse in unknown), "KernelSolve")
    results = []
    for library in (lazyjax, keops):
        K = (-library.Vi(x).sqdist(library.Vj(x))).exp()
        results.append([K.solve(library.Vi(b), alpha=0.1, eps=1e-9), K.solve(library.Vj(b), alpha=0.1, eps=1e-9)])
    for k, (got, expected) in enumerate(zip(*results, strict=True)):
        close(got, expected, f"system {k}")


STRINGS = {
    "Exp(-SqDist(x, y) / 2) * t": ("Sum", {}),
    "-x ** 2 + 3 * (x | y) - RatCst(1, 3) * y": ("Sum", {}),
    "Grad(Exp(-SqNorm2(x - y)), x, t)": ("Sum", {}),
    "GradMatrix(x * (x | y), x)": ("Sum", {}),
    "TraceOperator(Var(-1, 3, 0) * y, Var(-1, 3, 0)) + Laplacian(Exp(-SqDist(x, y)), y)": ("Sum", {}),
    "(x < y) + (y <= x) * 2": ("Sum", {}),
    "SqDist(x, y)": ("KMin", {"opt_arg": 2}),
    "x - y": ("ArgMin", {}),
    "SqDist(x, y) ": ("LogSumExp", {"formula2": "Square(t)"}),
    " SqDist(x, y)": ("SumSoftMaxWeight", {"formula2": "y"}),
    "Concat(ElemT(t, 4, 2), SumT(t, 2)) + ExtractT(x, 2, 6)": ("Sum", {}),
}  # fmt: skip


@pytest.mark.parametrize("text", STRINGS)
def test_formula_strings(text):
    reduction, options = STRINGS[text]
    aliases = ["x = Vi(3)", "y = Vj(3)", "t = Vj(1)"]
    data = [DATA[k][1] for k in "xyt"]
    got, expected = (
        L.Genred(text.strip(), list(aliases), reduction, axis=1, **options)(*data) for L in (lazyjax, keops)
    )
    same(got, expected, text)


COMPLEX = {
    "product": lambda z, w, r: z * w,
    "quotient": lambda z, w, r: z / w,
    "sum": lambda z, w, r: z + w - z.conj(),
    "exp": lambda z, w, r: z.exp(),
    "real times complex": lambda z, w, r: r * z,
    "over the features": lambda z, w, r: z.sum(-1),
    "real": lambda z, w, r: z.real,
    "imag": lambda z, w, r: z.imag,
    "abs": lambda z, w, r: abs(z),
    "angle": lambda z, w, r: z.angle(),
    "exp1j": lambda z, w, r: r.exp1j(),
    "real2complex": lambda z, w, r: r.real2complex() + r.imag2complex(),
}  # fmt: skip


@pytest.mark.parametrize("name", COMPLEX)
def test_complex(name):
    z, w = (normal(k, n, D) + 1j * normal(k + 10, n, D) for k, n in ((0, M), (1, N)))
    results = []
    for library in (lazyjax, keops):
        Z, W, R = library.Vi(z), library.Vj(w), library.Vi(z.real.copy())
        results.append(COMPLEX[name](Z, W, R).sum(axis=1))
    close(*results, name)


def test_block_sparse_reductions_and_clusters():
    import pykeops.numpy.cluster as theirs

    from lazyjax import cluster

    points = [uniform(seed, size, 2) for seed, size in ((20, 60), (21, 50))]
    weights = [uniform(seed, size, low=0.1) for seed, size in ((22, 60), (23, 50))]

    def made(module):
        found = []
        for x, w in zip(points, weights, strict=True):
            lab = module.grid_cluster(x, 0.25)
            ranges, centroids, total = module.cluster_ranges_centroids(x, np.asarray(lab), weights=w)
            (x_sorted, w_sorted), lab_sorted = module.sort_clusters((x, w), lab)
            plain = module.cluster_ranges(np.asarray(lab)), module.cluster_centroids(x, np.asarray(lab))
            # Sorting is stable here and not there: the sums of each cluster are what can be compared.
            sums = np.add.reduceat(np.c_[np.asarray(x_sorted), np.asarray(w_sorted)], np.asarray(ranges)[:, 0])
            found += [lab, ranges, centroids, total, lab_sorted, *plain, sums]
        keep = ((np.asarray(found[2])[:, None] - np.asarray(found[10])) ** 2).sum(-1) < 0.2
        ranges = module.from_matrix(np.asarray(found[1]), np.asarray(found[9]), keep)
        return [*found, *ranges, *module.swap_axes(ranges)], ranges

    (ours, _), (expected, ranges) = made(cluster), made(theirs)
    for got, want in zip(ours, expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12)
    b = normal(24, 50, 2)

    def products(library):
        K = (-library.Vi(points[0]).sqdist(library.Vj(points[1]))).exp()
        K.ranges = ranges
        return K @ b, (K * library.Vj(b)).sum(axis=0)

    for got, want in zip(products(lazyjax), products(keops), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12)
