"""Index variables as masks, dense views, selections of rows and columns, diagonals and listed pairs."""

# ruff: noqa: E501, PLW0108  (a table: one misuse on one line)

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lazyjax
from lazyjax import Pm, Vi, Vj, i_index, j_index

from .dense import close, gaussian, normal, sqdists, trees_close

M, N, D = 6, 5, 3
x, y = normal(0, M, D), normal(1, N, D)
b = normal(2, N, 2)


def kernel(x: Any, y: Any) -> Any:
    return (-Vi(x).sqdist(Vj(y))).exp()


def dense_kernel(x: Any, y: Any) -> Any:
    return jnp.exp(-((x[..., :, None, :] - y[..., None, :, :]) ** 2).sum(-1))


# Masks.

MASKS = {
    "causal": (lambda i, j: j <= i, np.tril),
    "strictly upper": (lambda i, j: j > i, lambda G: np.triu(G, 1)),
    "banded": (lambda i, j: (i - j).abs() <= 1, lambda G: np.tril(np.triu(G, -1), 1)),
    "not the diagonal": (lambda i, j: i != j, lambda G: G - np.tril(np.triu(G))),
}


@pytest.mark.parametrize("name", MASKS)
def test_masks(name):
    mask, dense = MASKS[name]

    @jax.jit
    def masked(x: Any, y: Any) -> Any:
        K = kernel(x, y)
        return mask(i_index(K), j_index(K)).where(K, 0) @ b, mask(i_index(K), j_index(K)).count_nonzero(axis="ij")

    product, count = masked(x, y)
    close(product, dense(gaussian(x, y)) @ b)
    close(count, [np.count_nonzero(dense(np.ones((M, N))))])


def test_masks_with_batch_dims_and_under_vmap():
    X = normal(3, 4, M, D)
    want = np.tril(gaussian(X, y)).sum(-1)

    def causal(K: Any) -> Any:
        return (j_index(K) <= i_index(K)).where(K, 0).sum(axis="j", keepdims=False)

    close(causal(kernel(X, y)), want)
    close(jax.jit(jax.vmap(lambda x: causal(kernel(x, y))))(X), want)
    K = kernel(X, y)
    close(jax.vmap(causal, in_axes=(lazyjax.batch_axes(K),))(K), want)
    close(jax.vmap(lambda x: (j_index(kernel(x, y)) <= i_index(kernel(x, y))).where(kernel(x, y), 0))(X).sum(
        axis="j", keepdims=False), want)  # fmt: skip


def test_masked_attention_and_its_gradient():
    def ours(x: Any, y: Any) -> Any:
        S = Vi(x) | Vj(y)
        return (j_index(S) <= i_index(S)).where(S, -np.inf).sumsoftmaxweight(Vj(b), axis=1)

    def dense(x: Any, y: Any) -> Any:
        S = x @ y.T
        return jax.nn.softmax(jnp.where(jnp.tril(jnp.ones_like(S)) > 0, S, -jnp.inf), 1) @ b

    for f in (lambda f: f(x, y), lambda f: jax.grad(lambda *a: (f(*a) ** 2).sum(), (0, 1))(x, y)):
        trees_close(jax.jit(lambda f=f: f(ours))(), jax.jit(lambda f=f: f(dense))())


def test_index_variables():
    K = kernel(x, y)
    i, j = i_index(K), j_index(K)
    assert i._shape == (M, 1, 1) and j._shape == (1, N, 1) and i.dtype == j.dtype == np.int32
    assert len(jax.tree.leaves(i + i_index(K))) == 1  # the same array
    assert (
        sum(leaf.size for leaf in jax.tree.leaves(i_index(kernel(normal(3, 9, M, D), y)))) == M
    )  # not for each problem
    close((i * N + j).dense(), np.arange(M * N).reshape(M, N))
    close(i_index(K.T).dense(), np.arange(N)[:, None])
    close((i + 1).T.dense(), np.arange(1, M + 1)[None])
    close(i_index(Vj(y)).dense(), [[0]])  # a formula without i-variables has one row
    assert i_index(kernel(x[:0], y)).shape == (0, 1)


def test_symbolic_sizes():
    m, n = jax.export.symbolic_shape("m, n")
    shapes = [jax.ShapeDtypeStruct((k, D), jnp.float32) for k in (m, n)]

    def f(x: Any, y: Any) -> Any:
        K = kernel(x, y)
        causal = (j_index(K) <= i_index(K)).where(K, 0)
        return causal.mean(axis=1), causal.var(axis=0), K.dense()[:1], K.at_pairs([0, 1], [1, -1])

    exported = jax.export.export(jax.jit(f), platforms=["cpu"])(*shapes)
    single = x.astype(np.float32), y.astype(np.float32)
    G = np.tril(gaussian(*single))
    got = exported.call(*single)
    want = G.mean(1, keepdims=True), G.var(0)[:, None], gaussian(*single)[:1], gaussian(*single)[[0, 1], [1, -1]]
    for a, c in zip(got, want, strict=True):
        close(a, c, 1e-5)


# Dense views.


def test_dense():
    close(kernel(x, y).dense(), gaussian(x, y))
    close((Vi(x) * Vj(y)).dense(), x[:, None] * y)
    close(Vi(x).dense(), x[:, None])
    close(Pm(2.0).dense(), [[2.0]])
    X, Y = normal(3, 4, 1, M, D), normal(4, 2, N, D)
    assert kernel(X, Y).dense().shape == kernel(X, Y).shape == (4, 2, M, N)
    close(kernel(X, Y).dense(), np.exp(-sqdists(X, Y)))
    matrices = Vi(normal(5, M, 2, 2), feature_ndim=2) + Vj(normal(6, N, 1, 1), feature_ndim=2)
    close(matrices.dense(), normal(5, M, 1, 2, 2) + normal(6, 1, N, 1, 1))
    assert (kernel(x, y) > 0.5).dense().dtype == bool
    assert kernel(x[:0], y).dense().shape == (0, N)


def test_views_are_differentiable_and_batched():
    def ours(x: Any, y: Any) -> Any:
        K = kernel(x, y)
        return jnp.concatenate([jnp.sin(K.dense()).ravel(), K.at_pairs([0, 0, 5], [4, 4, 0]), K[:N, :].diagonal()])

    def dense(x: Any, y: Any) -> Any:
        G = dense_kernel(x, y)
        return jnp.concatenate([jnp.sin(G).ravel(), G[jnp.array([0, 0, 5]), jnp.array([4, 4, 0])], jnp.diagonal(G)])

    def derivatives(f: Any) -> Any:
        loss = lambda x, y: (f(x, y) ** 2).sum()  # noqa: E731
        batch = jax.vmap(f, in_axes=(0, None))(jnp.stack([x, 2 * x]), y)
        return jax.jit(lambda: (jax.jacfwd(f, (0, 1))(x, y), jax.hessian(loss, (0, 1))(x, y), batch))()

    trees_close(derivatives(ours), derivatives(dense))


def test_large_arrays_are_refused():
    K = kernel(np.ones((40_000, 1)), np.ones((50_000, 1)))
    with pytest.raises(
        ValueError, match=r"shape \(40000, 50000\) takes 16 GB, more than max_bytes=1073741824. .*K\[rows"
    ):
        K.dense()
    with pytest.raises(ValueError, match=r"takes 240 B, more than max_bytes=239. .*allow it with max_bytes=240"):
        kernel(x, y).dense(max_bytes=239)
    assert kernel(x, y).dense(max_bytes=240).shape == (M, N)
    assert K[:2, [7]].dense().shape == (2, 1)


# Rows and columns.

ROWS: list[Any] = [slice(1, 4), slice(None, None, -2), slice(5, 2), [0, -1, 2], np.array([3, 3]), jnp.arange(2), x[:, 0] > 0,
                   [True, False] * 3, [], np.uint8([1])]  # fmt: skip


@pytest.mark.parametrize("rows", ROWS, ids=str)
def test_rows_and_columns(rows):
    """As NumPy does along one axis, for variables of every layout."""
    G, V = gaussian(x, y), x[:, None] * y
    index = rows if isinstance(rows, slice) else np.asarray(rows, None if len(rows) else int)
    forms = [kernel(x, y), kernel(x, y).T.T, (-(Vi(x) - y[None]).sqnorm2()).exp(), (-Vj(y).sqdist(x[:, None])).exp()]
    for K in forms:
        close(K[rows, :].dense(), G[index])
        close(K.T[:, rows].dense(), G[index].T)
    close((Vi(x) * Vj(y))[rows, :, 1].dense(), V[index][..., 1])
    close((Vi(x) * Vj(y))[..., rows, :, 1:].dense(), V[index][..., 1:])
    close(kernel(x, y)[rows, 1:3].dense(), G[index][:, 1:3])
    batch = kernel(normal(3, 2, M, D), y)
    close(batch[:, rows, :].dense(), gaussian(normal(3, 2, M, D), y)[:, index])
    close((kernel(x, y)[rows, :] @ b), G[index] @ b)


def test_rows_and_columns_make_a_submatrix():
    """As np.ix_ does, not element by element."""
    close(kernel(x, y)[[0, 2, 4], [1, 1, 0]].dense(), gaussian(x, y)[np.ix_([0, 2, 4], [1, 1, 0])])


def test_traced_rows():
    f = jax.jit(lambda rows: kernel(x, y)[rows, :].dense())
    close(f(np.array([0, -1, 6])), np.concatenate([gaussian(x, y)[[0, -1]], np.full((1, N), np.nan)]))
    close(jax.vmap(f)(np.array([[0, 1], [2, 3]])), gaussian(x, y)[:4].reshape(2, 2, N))


# Listed pairs.


def test_listed_pairs():
    i, j = np.array([0, 5, -1, 5]), np.array([4, -5, 2, 0])
    close(kernel(x, y).at_pairs(i, j), gaussian(x, y)[i, j])
    close((Vi(x) * Vj(y)).at_pairs(i, j), (x[:, None] * y)[i, j])
    close(kernel(x, y).at_pairs([], []), np.zeros(0))
    X = normal(3, 2, M, D)
    G = gaussian(X, y)
    close(kernel(X, y).at_pairs(i, j), G[:, i, j])
    close(kernel(X, y).at_pairs([[0], [1]], [[2], [3]]), [[G[0, 0, 2]], [G[1, 1, 3]]])
    assert (kernel(x, y) > 0).at_pairs(i, j).dtype == bool
    close(Vi(x).at_pairs([1], [0]), x[1:2])


def test_listed_pairs_that_are_traced():
    """Out of range: NaN, and nothing in the gradient; the lowest integer; False."""
    i, j = np.array([0, -1, 6, -7, 0]), np.array([1, -5, 0, 0, 5])
    want = np.array([gaussian(x, y)[0, 1], gaussian(x, y)[-1, -5], *[np.nan] * 3])
    f = lambda x, i, j: kernel(x, y).at_pairs(i, j)  # noqa: E731
    close(jax.jit(f)(x, i, j), want)
    slope = jax.jit(jax.grad(lambda x, i, j: jnp.nansum(f(x, i, j))))(x, i, j)
    close(slope, jax.grad(lambda x: f(x, i[:2], j[:2]).sum())(x))
    whole = jax.jit(lambda i, j: ((i_index(kernel(x, y)) + 1).at_pairs(i, j), (Vi(x) < 9).elem(0).at_pairs(i, j)))
    low = np.iinfo(np.int32).min
    trees_close(whole(i, 0 * j), (jnp.asarray([1, 6, low, low, 1]), jnp.asarray([True, True, False, False, True])))


def test_listed_pairs_of_nothing():
    none = jax.jit(lambda i: kernel(x[:0], y).at_pairs(i, i))(np.array([0, 1]))
    assert np.isnan(none).all()


def test_memory_of_listed_pairs():
    """Linear in the list: 10,000 pairs of 10^10."""
    many = jax.ShapeDtypeStruct((100_000, 3), jnp.float32)
    listed = jax.ShapeDtypeStruct((10_000,), jnp.int32)
    slope = jax.jit(jax.grad(lambda x, y, i, j: kernel(x, y).at_pairs(i, j).sum(), (0, 1)))
    program = slope.lower(many, many, listed, listed).compile()
    assert program.memory_analysis().temp_size_in_bytes < 50 * 10_000 * 4 + 6 * 100_000 * 4


def test_diagonal():
    close(kernel(x, x[::-1]).diagonal(), np.diagonal(gaussian(x, x[::-1])))
    close((Vi(x) * Vj(x)).diagonal(), x * x)
    close(kernel(normal(3, 2, N, D), y).diagonal(), np.diagonal(gaussian(normal(3, 2, N, D), y), axis1=1, axis2=2))


# Misuse.

symbolic = Vi(0, 3).sqdist(Vj(1, 3))
K = kernel(x, y)
BATCH = kernel(normal(3, 2, M, D), y)
MISUSES = {
    "index of an array": (lambda: i_index(x), TypeError, r"i_index: got f64\[6,3\], expected a LazyTensor"),
    "index of a symbol": (lambda: j_index(symbolic), ValueError, r"j_index: K has a symbolic j-variable.*Vj\(index, 1\)"),
    "dense of a symbol": (lambda: symbolic.dense(), ValueError, r"dense: K has symbolic variables"),
    "rows of a symbol": (lambda: symbolic[:2, :], ValueError, r"indexing: K has symbolic variables"),
    "a row": (lambda: K[2, :], IndexError, r"the rows: got 2, which would drop the i axis.*Keep it with 2:3"),
    "a column": (lambda: K[:, -1], IndexError, r"the columns: got -1, which would drop the j axis.*Keep it with -1:"),
    "row out of range": (lambda: K[[0, 6], :], IndexError, r"the rows: index 6 is out of range for M = 6"),
    "column out of range": (lambda: K[:, [-6]], IndexError, r"the columns: index -6 is out of range for N = 5"),
    "a short mask": (lambda: K[[True], :], IndexError, r"the mask is bool\[1\], expected \(6,\) for M = 6"),
    "a mask of pairs": (lambda: K[np.ones((6, 5), bool), :], IndexError, r"the mask is bool\[6,5\], expected \(6,\)"),
    "a traced mask": (lambda: jax.jit(lambda m: K[m, :].dense())(x[:, 0] > 0), TypeError, r"a traced mask, bool\[6\].*mask\.where"),
    "rows in two axes": (lambda: K[[[0], [1]], :], IndexError, r"the rows: got i32\[2,1\], expected a slice, a mask or a 1-D"),
    "rows that are floats": (lambda: K[[0.0], :], TypeError, r"the rows: got f64\[1\], expected integers"),
    "a traced slice": (lambda: jax.jit(lambda k: K[:k, :].dense())(2), TypeError, r"indexing: stop is a traced value"),
    "a problem of a batch": (lambda: BATCH[:1, :, :], IndexError, r"not problems of its batch. Index the data before"),
    "rows without rows": (lambda: Vj(y)[[0, 0], :], IndexError, r"K has no i-variable, so its i axis has size 1, and 2 of it"),
    "diagonal": (lambda: K.diagonal(), ValueError, r"diagonal: K of shape \(6, 5\) has 6 rows and 5 columns"),
    "lengths differ": (lambda: K.at_pairs([0, 1], [0]), ValueError, r"at_pairs: i is i32\[2\] and j is i32\[1\], expected two arrays of shape \(L,\)\."),
    "a table of pairs": (lambda: K.at_pairs([[0, 1]], [[0, 1]]), ValueError, r"two arrays of shape \(L,\)"),
    "lists for another batch": (lambda: BATCH.at_pairs([[0]] * 3, [[0]] * 3), ValueError, r"at_pairs: i is i32\[3,1\], but the batch dims of K are \(2,\)"),
    "pair out of range": (lambda: K.at_pairs([0, 6], [0, 0]), IndexError, r"at_pairs: i: index 6 is out of range for M = 6"),
    "floats for pairs": (lambda: K.at_pairs([0.0], [0]), TypeError, r"at_pairs: i: got f64\[1\], expected integers"),
    "max_bytes": (lambda: K.dense(max_bytes=1e9), TypeError, r"dense: max_bytes must be an int, got float"),
}  # fmt: skip


@pytest.mark.parametrize("misuse", MISUSES)
def test_misuse(misuse):
    call, kind, message = MISUSES[misuse]
    with pytest.raises(kind, match=message):
        call()
