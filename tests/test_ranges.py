"""Block-sparse reductions: every reduction on the pairs that ranges keep, against dense JAX with an explicit mask."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lazyjax
from lazyjax import Genred, LazyTensor, Vi, Vj
from lazyjax.cluster import from_matrix, swap_axes
from lazyjax.kernels import planner
from lazyjax.kernels.xla.plan import XlaPlan

from . import cases
from .cases import CASES, Case, arguments, distance
from .dense import close
from .full import FULL
from .kernels_of import RUNS, on_pallas, on_xla, run_on
from .masked import (
    BOTH,
    COLUMNS,
    EVERY_ROW_MASK,
    EVERY_ROW_RANGES,
    KEEP,
    MASK,
    MASKED,
    RANGES,
    ROWS,
    SEVERAL,
    M,
    N,
    agree,
    gaussian,
    mask_of,
    sparse,
    var,
    where,
)
from .transformations import ALL


def test_every_case_has_a_masked_reference() -> None:
    assert list(MASKED) == [c.name for c in CASES]


# Values: rows of no cluster, a cluster that meets none, an empty range; the ranges are traced.


@pytest.mark.parametrize("case", CASES if FULL else CASES[::2], ids=str)
def test_values(case: Case) -> None:
    args = arguments(M, N)
    want = jax.jit(lambda *a: MASKED[case.name](*a, jnp.asarray(MASK)))(*args)
    agree(jax.jit(lambda ranges, *a: sparse(case, ranges)(*a))(RANGES, *args), want)


# Tiles that are smaller than clusters and do not divide them, and several groups of tiles; then what is planned for
# many pairs: two passes, shared scalars.
SOME = [c for c in CASES if c.name in ("K @ b", "sum over both", "min of min_argmin", "Kmin", "logsumexp")]
KERNELS = {
    "lanes": on_xla(XlaPlan("lanes", tile_i=4, unroll=4, tiles=2)),
    "block": on_xla(XlaPlan("block", tile_i=4, tile_j=8, tiles=2)),
    "as planned for many pairs": RUNS["as planned for many pairs"],
    "pallas-triton, interpreted": on_pallas(block_i=4, block_j=2, unroll=2, group=1),
}


@pytest.mark.parametrize("kernel", KERNELS)
def test_kernels(kernel: str) -> None:
    args = arguments(M, N)
    chosen = [c for c in SOME if (c.name != "Kmin") or kernel != "lanes"]
    got = jax.jit(lambda *a: [run_on(sparse(c, RANGES), KERNELS[kernel], *a) for c in chosen])(*args)
    agree(got, jax.jit(lambda *a: [MASKED[c.name](*a, jnp.asarray(MASK)) for c in chosen])(*args))


def test_long_ranges_are_summed_by_groups() -> None:
    """More chunks than are added one after the other: a float32 sum is as accurate as a dense one."""
    terms = np.random.default_rng(0).uniform(size=(100_000, 1)).astype(np.float32)
    ranges = from_matrix([[0, 2]], [[0, 60_000], [60_000, 100_000]], np.ones((1, 2), bool))
    total = (Vj(terms) + Vi(np.zeros((2, 1), np.float32))).sum(axis=1, ranges=ranges)
    np.testing.assert_allclose(total, np.full((2, 1), terms.sum(dtype=float)), rtol=4e-7)


# Transformations.

# One case for each way to write a tangent.
SMOOTH = [c for c in CASES if c.name in (
    "sum over i", "sum over both", "K @ b", "min", "Kmin", "logsumexp with weight", "mean over i", "var")]  # fmt: skip


def _second(f: Any, args: Any) -> Any:
    """The value, the gradient and a Hessian-vector product: tangents, transposes and their tangents."""
    loss = jax.value_and_grad(lambda *a: jnp.sum(jnp.sin(f(*a))), ALL)
    return jax.jvp(loss, args, tuple(jnp.cos(1 + jnp.arange(a.size, dtype=a.dtype)).reshape(a.shape) for a in args))


@pytest.mark.parametrize("case", SMOOTH, ids=str)
def test_derivatives(case: Case) -> None:
    """The calculus is the same whichever kernel runs it: here the dense one, which compiles fast."""
    args = tuple(map(jnp.asarray, arguments()))
    got = jax.jit(lambda *a: run_on(lambda *a: _second(sparse(case, EVERY_ROW_RANGES), a), RUNS["dense"], *a))(*args)
    agree(got, jax.jit(lambda *a: _second(lambda *a: MASKED[case.name](*a, jnp.asarray(EVERY_ROW_MASK)), a))(*args))


def test_derivatives_walk_through_the_same_pairs() -> None:
    """On the kernel that skips pairs, with NaN wherever it must not look; rows without pairs have zero gradients."""
    x, y, b, s = arguments(M, N)
    y = y.at[3:5].set(jnp.nan)
    x = x.at[4:9].set(jnp.nan).at[20].set(jnp.nan)

    def loss(f: Any) -> Any:
        return lambda x, y, b: jnp.sum(jnp.sin(f(x, y, b)))

    def dense(x: Any, y: Any, b: Any) -> Any:
        x, y = jnp.where(jnp.isnan(x), 0, x), jnp.where(jnp.isnan(y), 0, y)
        return jnp.where(MASK, jnp.exp(-distance(x, y, s)), 0) @ b

    ours = jax.jit(jax.value_and_grad(loss(lambda x, y, b: gaussian(x, y, s).matvec(b, ranges=RANGES)), (0, 1, 2)))
    value, slopes = ours(x, y, b)
    agree((value, slopes), jax.jit(jax.value_and_grad(loss(dense), (0, 1, 2)))(x, y, b))
    assert not np.any(slopes[0][4:9]) and not np.any(slopes[1][3:5]) and np.any(slopes[0][:4])


@pytest.mark.parametrize("name", ["min", "var"])
def test_gradients_where_some_rows_have_no_pairs(name: str) -> None:
    x, y, _, s = arguments(M, N)
    some = MASK.any(1)

    def loss(x: Any, y: Any, method: str, **options: Any) -> Any:
        out = getattr(cases.lazy_distance(x, y, s), method)(axis=1, backend="dense", **options)
        return jnp.sum(jnp.where(jnp.isfinite(out), out, 0) ** 2)

    got = jax.jit(jax.grad(lambda x, y: loss(x, y, name, ranges=RANGES), (0, 1)))(x, y)
    assert np.all(np.isfinite(got[0])) and np.all(np.isfinite(got[1])) and not np.any(got[0][~some])

    def dense(x: Any, y: Any) -> Any:
        v, mask = distance(x[np.flatnonzero(some)], y, s), MASK[some]
        return jnp.sum((var(v, mask, 1) if name == "var" else where(v, mask, jnp.inf).min(1)) ** 2)

    agree(got, jax.jit(jax.grad(dense, (0, 1)))(x, y))


# Batches: ranges that all problems share, and others for each; batch dims and vmap.


def test_batches() -> None:
    x, y, b, s = arguments(M, N)
    xs, bs = jnp.stack([x, 2 * x]), jnp.stack([b, b + 1])
    masks = [jnp.asarray(mask_of(ROWS, COLUMNS, k, M, N)) for k in SEVERAL]

    def ours(xs: Any, bs: Any, ranges: Any) -> Any:
        one = tuple(r[0] for r in ranges)
        each = lambda x, b, r: gaussian(x, y).matvec(b, ranges=r)  # noqa: E731
        K = gaussian(xs, y)
        K.ranges = ranges
        return [
            jax.vmap(each, (0, 0, None))(xs, bs, one),  # shared
            jax.vmap(each, (None, None, 0))(x, b, ranges),  # only the ranges differ
            gaussian(xs, y).matvec(bs, ranges=one),  # batch dims
            K @ b,  # batch dims of both
            jax.vmap(lambda K: K @ b, (lazyjax.batch_axes(K),))(K),
        ]

    def dense(xs: Any, bs: Any) -> Any:
        both = [
            [jnp.where(mask, jnp.exp(-distance(x, y, s)), 0) @ b for x, b, mask in zip(us, vs, pick, strict=True)]
            for us, vs, pick in (
                (xs, bs, [masks[0]] * 2), ((x, x), (b, b), masks), (xs, bs, [masks[0]] * 2), (xs, (b, b), masks),
                (xs, (b, b), masks),
            )
        ]  # fmt: skip
        return [jnp.stack(v) for v in both]

    agree(jax.jit(ours)(xs, bs, BOTH), jax.jit(dense)(xs, bs))


# The language.


def test_ranges_travel_with_the_formula() -> None:
    x, y, b, s = arguments(M, N)
    G = np.where(MASK, np.exp(-0.8 * np.asarray(distance(x, y, 1.0))), 0)
    D = cases.lazy_distance(x, y, s)
    assert D.ranges is None
    D.ranges = RANGES
    K = (-D).exp()
    assert K.ranges is D.ranges and all(map(np.array_equal, K.T.ranges, swap_axes(RANGES)))
    assert LazyTensor(K).ranges is D.ranges and (2 * K + K).ranges is D.ranges
    variable = Vi(x)
    variable.ranges = RANGES
    assert (variable * Vj(y)).grad(variable, 1).ranges is variable.ranges
    assert all(map(np.array_equal, pickle.loads(pickle.dumps(K)).ranges, RANGES))
    w, dense = np.cos(np.arange(M)), np.exp(-0.8 * np.asarray(distance(x, y, 1.0)))

    @jax.jit
    def results(K: Any, plain: Any) -> Any:
        return K @ b, w @ K, K.rmatvec(w), plain.rmatvec(w, ranges=RANGES), K.matvec(b, ranges=None)

    for got, want in zip(results(K, gaussian(x, y)), (G @ b, w @ G, w @ G, w @ G, dense @ b), strict=True):
        close(got, want, 1e-12)
    close(K.dense(), dense, 1e-12)
    K.ranges = None
    assert K.ranges is None


def test_symbolic_variables_and_formula_strings() -> None:
    x, y, b, _ = arguments(M, N)
    want = np.where(MASK, np.exp(-np.asarray(distance(x, y, 1.0))), 0) @ b
    later = ((-Vi(0, 2).sqdist(Vj(1, 2))).exp() * Vj(2, 3)).sum(axis=1)
    close(later(x, y, b, ranges=RANGES), want, 1e-12)
    close((-Vi(x).sqdist(Vj(y))).exp().matvec(b, call=False, ranges=RANGES)(), want, 1e-12)
    f = Genred("Exp(-SqDist(x, y)) * b", ["x = Vi(2)", "y = Vj(2)", "b = Vj(3)"], axis=1)
    close(f(x, y, b, ranges=RANGES), want, 1e-12)
    g = lazyjax.generic_sum("Exp(-SqDist(x, y)) * b", "a = Vi(3)", "x = Vi(2)", "y = Vj(2)", "b = Vj(3)")
    close(g(x, y, b, ranges=RANGES), want, 1e-12)


def test_ties_take_the_lowest_index_in_any_order_of_ranges() -> None:
    y = np.zeros((N, 1))
    ranges = ([[0, 3]], [3], [[20, 30], [2, 9], [31, 33]], [[2, 9], [20, 30], [31, 33]], [1, 2, 3], [[0, 3]] * 3)
    K = Vi(np.zeros((5, 1))) + Vj(y)
    best, index = K.Kmin_argKmin(3, axis=1, ranges=ranges)
    np.testing.assert_array_equal(K.argmin(axis=1, ranges=ranges)[:, 0], [2, 2, 2, -1, -1])
    np.testing.assert_array_equal(index, [[2, 3, 4]] * 3 + [[-1] * 3] * 2)
    np.testing.assert_array_equal(best, [[0.0] * 3] * 3 + [[np.inf] * 3] * 2)


def test_nothing_is_kept() -> None:
    x, y, b, s = arguments(M, N)
    none = from_matrix(ROWS, COLUMNS, np.zeros_like(KEEP))
    empty = from_matrix(np.zeros((0, 2), int), COLUMNS, np.zeros((0, 4), bool))
    for ranges in (none, empty, ([], [], [], [], [], [])):
        K = cases.lazy_distance(x, y, s)
        K.ranges = ranges
        close(K @ b, np.zeros((M, 3)))
        close(K.min(axis=1), np.full((M, 1), np.inf))
        close(K.logsumexp(axis=0), np.full((N, 1), -np.inf))
        close(K.mean(axis=1), np.full((M, 1), np.nan))
        np.testing.assert_array_equal(K.argmax(axis=1), np.full((M, 1), -1))
        close(jax.grad(lambda x, K=K: (-Vi(x).sqdist(Vj(y))).exp().matvec(b, ranges=K.ranges).sum())(x), 0 * x)


def test_a_million_by_a_million() -> None:
    """All pairs would take hours: only what is kept is computed, and memory is that of the points."""
    size, side = 1_000_000, 100
    x = np.arange(size, dtype=np.float32)[:, None] % side
    starts = np.arange(0, size, 100_000)
    blocks = np.stack([starts, starts + side], 1)
    ranges = from_matrix(blocks, blocks, np.eye(len(blocks), dtype=bool))
    K = Vi(x) * Vj(x)
    got = np.asarray(K.sum(axis=1, ranges=ranges))[:, 0]
    want = np.zeros(size)
    for start, end in blocks:
        want[start:end] = x[start:end, 0] * np.arange(side).sum()
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_memory_is_linear() -> None:
    size, clusters = 4096, 64
    ends = np.arange(1, clusters + 1) * (size // clusters)
    blocks = np.stack([ends - size // clusters, ends], 1)
    ranges = from_matrix(blocks, blocks, np.ones((clusters, clusters), bool))
    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((size, 2), (size, 2), (size, 3))]

    def energy(x: Any, y: Any, b: Any) -> Any:
        return jnp.sum(jnp.sin((-Vi(x).sqdist(Vj(y))).exp().matvec(b, ranges=ranges)))

    compiled = jax.jit(jax.grad(energy, 1)).lower(*shapes).compile()
    temporaries = compiled.memory_analysis().temp_size_in_bytes
    assert temporaries < 80 * size * 4 + (1 << 20) * 4  # as in tests/test_memory.py; all pairs would take 67 MB


def test_explain() -> None:
    x, y, b, _ = arguments(M, N)
    found = lazyjax.explain(lambda x, y: gaussian(x, y).matvec(b, ranges=RANGES), x, y, platform="cuda")
    assert found[0].plan.kernel == "pallas-triton"
    text = str(found)
    assert "pallas-triton" in text
    with pytest.raises(planner.UnsupportedError, match="it walks through all pairs, not through ranges"):
        gaussian(x, y).matvec(b, ranges=RANGES, backend="triton-ir")
    assert "21 rows, each over at most 37 pairs, in 3 clusters with 5 ranges" in text


# Wrong ranges.


def test_traced_ranges_are_never_read_out_of_bounds() -> None:
    x, y, b, s = arguments(M, N)
    wild = (
        np.array([[-3, 4], [15, 99]]), np.array([1, 7]), np.array([[30, 2**31 - 1], [-5, 3], [9, 4]]),
        np.array([[0, 1]]), np.array([1]), np.array([[0, 1]]),
    )  # fmt: skip
    mask = np.zeros((M, N), bool)
    mask[:4, 30:], mask[15:, :3] = True, True  # an end before its start: nothing
    got = jax.jit(lambda r: gaussian(x, y).matvec(b, ranges=r))(wild)
    close(got, np.where(mask, np.exp(-np.asarray(distance(x, y, s))), 0) @ b, 1e-12)


def _changed(k: int, change: Callable[[np.ndarray], Any]) -> Any:
    return tuple(change(np.array(r)) if j == k else r for j, r in enumerate(RANGES))


def _put(place: Any, value: int) -> Callable[[np.ndarray], np.ndarray]:
    def change(x: np.ndarray) -> np.ndarray:
        x[place] = value
        return x

    return change


WRONG = {
    "a number": (3, TypeError, r"sum: ranges is int 3, expected None or six integer arrays \(ranges_i, .*from_matrix"),
    "three": (RANGES[:3], TypeError, r"sum: ranges is 3 of them, expected None or six"),
    "floats": (_changed(0, lambda x: x.astype(float)), TypeError,
               r"ranges\[0\], ranges_i, is f64\[3,2\], expected an array of integers \(Mc, 2\)"),
    "booleans": (_changed(1, lambda x: x > 0), TypeError, r"ranges\[1\], slices_i, is bool\[3\], expected an array of"),
    "None": (_changed(5, lambda x: None), TypeError, r"ranges\[5\], redranges_i, is NoneType None, expected"),
    "flat": (_changed(2, np.ravel), ValueError, r"ranges\[2\], redranges_j, is i32\[10\], expected \(Mcc, 2\)"),
    "a slice too few": (_changed(1, lambda x: x[:-1]), ValueError,
                        r"ranges_i is i32\[3,2\] and slices_i i32\[2\], expected one slice for each of the Mc"),
    "negative": (_changed(2, _put((0, 0), -1)), ValueError,
                 r"redranges_j\[0\] is \[-1, 3\], expected 0 <= start <= end <= 37"),
    "beyond": (_changed(0, _put((2, 1), 22)), ValueError,
               r"ranges_i\[2\] is \[11, 22\], expected 0 <= start <= end <= 21"),
    "backwards": (_changed(3, _put((2, 1), 4)), ValueError, r"ranges_j\[2\] is \[5, 4\], expected 0 <= start"),
    "decreasing": (_changed(1, _put(1, 1)), ValueError, r"slices_i\[1\] is 1, less than 2 before it"),
    "a short end": (_changed(1, _put(2, 4)), ValueError,
                    r"slices_i ends with 4, but redranges_j has 5 ranges; expected it to end"),
    "overlapping clusters": (_changed(0, _put((1, 0), 3)), ValueError,
                             r"ranges_i\[0\] and ranges_i\[1\] are \[0, 4\] and \[3, 9\], which overlap"),
    "a pair twice": (_changed(2, _put((1, 0), 1)), ValueError,
                     r"redranges_j\[0\] and redranges_j\[1\] are .*overlap, and both belong to cluster 0; expected"),
    "two different halves": (_changed(5, _put((0, 1), 3)), ValueError,
                             r"slices_i, redranges_j keep 242 pairs, and .* keep 239; expected the same pairs"),
    "as many other pairs": ((*RANGES[:3], *swap_axes(from_matrix(ROWS, COLUMNS, np.roll(KEEP, 1, 0)))[:3]), ValueError,
                            r"expected the same pairs"),
    "batch dims": (BOTH, ValueError,
                   r"ranges_i is i32\[2,3,2\], with batch dims \(2,\), but those of the formula are \(\)"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", WRONG)
def test_wrong_ranges(mistake: str) -> None:
    ranges, error, message = WRONG[mistake]
    x, y, _, s = arguments(M, N)
    with pytest.raises(error, match=message):
        cases.lazy_distance(x, y, s).sum(axis=1, ranges=ranges)


def test_misuse() -> None:
    x, y, b, s = arguments(M, N)
    K = cases.lazy_distance(x, y, s)
    with pytest.raises(TypeError, match=r"K\.ranges = \.\.\.: ranges is str 'all', expected None or six"):
        K.ranges = "all"
    K.ranges = RANGES
    with pytest.raises(ValueError, match=r"indexing: K has ranges.*Select first, then set ranges"):
        K[:3, :]
    L = cases.lazy_distance(x, y, s)
    L.ranges = EVERY_ROW_RANGES
    with pytest.raises(ValueError, match=r"\+: the operands have different ranges. Set them once"):
        K + L
    with pytest.raises(TypeError, match=r"sum: options \['ranges'\] have no meaning over the features"):
        Vi(x).sum(-1, ranges=RANGES)
