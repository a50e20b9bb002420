"""LazyTensor: constructors, shapes, dtypes, indexing, and what JAX, NumPy and pickle make of it."""

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lazyjax
from lazyjax import LazyTensor, Pm, Vi, Vj

from .dense import close, gaussian, normal, sqdists

M, N, D = 6, 5, 3
x, y, b = normal(0, M, D), normal(1, N, D), normal(2, N, 2)


def sum_j(tensor):
    """Values of a formula of j-variables and parameters alone, or of i-variables, row by row."""
    return np.asarray(tensor.sum(axis=1))


# Constructors.

CONSTRUCTED = {
    "(M, 1, D)": (LazyTensor(x[:, None, :]), (M, 1, D)),
    "(1, N, D)": (LazyTensor(y[None]), (1, N, D)),
    "(1, 1, D)": (LazyTensor(x[:1, None, :]), (1, 1, D)),
    "(B, M, 1, D)": (LazyTensor(normal(0, 2, M, 1, D)), (2, M, 1, D)),
    "(B, C, 1, N, D)": (LazyTensor(normal(0, 2, 3, 1, N, D)), (2, 3, 1, N, D)),
    "(B, 1, 1, D)": (LazyTensor(normal(0, 2, 1, 1, D)), (2, 1, 1, D)),
    "(M, D), axis=0": (LazyTensor(x, axis=0), (M, 1, D)),
    "(M, D), axis=1": (LazyTensor(y, axis=1), (1, N, D)),
    "(D,)": (LazyTensor(x[0]), (1, 1, D)),
    "0-D": (LazyTensor(np.float64(2)), (1, 1, 1)),
    "number": (LazyTensor(2.5), (1, 1, 1)),
    "int": (LazyTensor(2), (1, 1, 1)),
    "list": (LazyTensor([1.0, 2.0]), (1, 1, 2)),
    "LazyTensor": (LazyTensor(LazyTensor(x, axis=0)), (M, 1, D)),
    "Vi": (Vi(x), (M, 1, D)),
    "Vj": (Vj(y), (1, N, D)),
    "Vi batch": (Vi(normal(0, 2, M, D)), (2, M, 1, D)),
    "Vi of one row": (Vi(x[:1]), (1, 1, D)),
    "Pm number": (Pm(2.5), (1, 1, 1)),
    "Pm int": (Pm(2), (1, 1, 1)),
    "Pm (D,)": (Pm(x[0]), (1, 1, D)),
    "Pm (B, D)": (Pm(normal(0, 2, D)), (2, 1, 1, D)),
    "Vi, two feature axes": (Vi(normal(0, M, 2, 3), feature_ndim=2), (M, 1, 2, 3)),
    "Vj, two feature axes": (Vj(normal(0, 4, N, 2, 3), feature_ndim=2), (4, 1, N, 2, 3)),
    "Vi(index, dim)": (Vi(0, 4), (1, 1, 4)),
    "Vj(index, dim)": (Vj(1, 4), (1, 1, 4)),
    "Pm(index, dim)": (Pm(2, 4), (1, 1, 4)),
}


@pytest.mark.parametrize("form", CONSTRUCTED)
def test_constructors_shape(form):
    tensor, full = CONSTRUCTED[form]
    hidden = full[:-1] if full[-1] == 1 else full
    assert tensor._shape == full
    assert tensor.shape == hidden
    assert tensor.ndim == len(hidden)
    assert tensor.dim() == len(full)
    assert len(tensor) == full[0]


def test_nbatchdims():
    assert Vi(x).nbatchdims == 0
    assert (Vi(normal(0, 2, M, D)) - Vj(normal(0, 4, 1, N, D))).nbatchdims == 2


def test_constructors_agree():
    expected = gaussian(x, y).sum(1)[:, None]
    pairs = [(Vi(x), Vj(y)), (LazyTensor(x, axis=0), LazyTensor(y, axis=1)),
             (LazyTensor(x[:, None, :]), LazyTensor(y[None, :, :])),
             (Vi(jnp.asarray(x)), Vj(jnp.asarray(y)))]  # fmt: skip
    for x_i, y_j in pairs:
        close((-((x_i - y_j) ** 2).sum(-1)).exp().sum(axis=1), expected)


def test_a_variable_of_one_row_keeps_its_role():
    one = x[:1]
    assert ((Vi(one) - Vj(one)).sum(-1)).shape == (1, 1)
    close((Vi(one) * Vj(y)).sum(axis=0), (one * y))
    close((Vi(x) * Vj(one)).sum(axis=1), (x * one))
    close((Vi(one) * Vj(y)).sum(axis=1), (one * y).sum(0, keepdims=True))


def test_feature_axes():
    a = normal(0, M, 2, 3)
    close(Vi(a, feature_ndim=2).sum(axis=0), a.sum(0)[None])
    close((Vi(a, feature_ndim=2) * Vj(normal(1, N, 1, 1), feature_ndim=2)).sum(axis=1),
          a * normal(1, N, 1, 1).sum())  # fmt: skip


def test_operands_of_every_kind():
    array = normal(3, D)
    for other in (array, jnp.asarray(array), list(array), Pm(array), array[None, None, :]):
        close((Vi(x) + other).sum(axis=0), (x + array).sum(0)[None])
        close((other - Vi(x)).sum(axis=0), (array - x).sum(0)[None])
        close((other / (Vi(x).exp())).sum(axis=0), (array / np.exp(x)).sum(0)[None])
    for number in (2, 2.5, True, np.float64(2.5), np.int32(3), jnp.asarray(2.5), np.ones(())):
        close((number * Vi(x)).sum(axis=0), (number * x).sum(0)[None])
        close((Vi(x) - number).sum(axis=0), (x - number).sum(0)[None])
        close((number ** Vi(x)).sum(axis=0), (np.float64(number) ** x).sum(0)[None])
    close((Vi(x) * y[None]).sum(axis=1), (x[:, None] * y).sum(1))


def test_list_of_traced_numbers():
    close(jax.jit(lambda s: (Vi(x) * [s, 2 * s, 1.0]).sum(axis=0))(3.0), (x * [3, 6, 1]).sum(0)[None])


def test_constants_are_exact_in_float64():
    close((Vi(x) / 3).sum(axis=1), x / 3, 1e-15)
    close((Vi(np.abs(x)) ** 1.5).sum(axis=1), np.abs(x) ** 1.5, 1e-15)


# Dtypes.

NARROW = ("bool", "int8", "uint8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64",
          "complex64", "complex128")  # fmt: skip


@pytest.mark.parametrize("dtype", NARROW)
def test_dtypes(dtype):
    a = jnp.asarray(np.arange(-3, 3).reshape(6, 1)).astype(dtype)
    tensor = Vi(a)
    assert tensor.dtype == a.dtype and isinstance(tensor.dtype, np.dtype)
    total = tensor.sum(axis=0)
    assert total.dtype == a.sum().dtype
    close(total.astype(complex), a.sum().astype(complex).reshape(1, 1))


@pytest.mark.parametrize("left", NARROW)
def test_promotion_is_that_of_jax(left):
    for right in NARROW:
        a, c = jnp.ones((2, 1), left), jnp.ones((3, 1), right)
        assert (Vi(a) * Vj(c)).dtype == (a * c.T).dtype, right
        assert LazyTensor.cat([Vi(a), Vj(c)]).dtype == jnp.result_type(a, c), right
    for number in (True, 2, 2.5, 2j, np.float32(2), np.float64(2), np.int64(2)):
        assert (Vi(jnp.ones((2, 1), left)) * number).dtype == (jnp.ones((2, 1), left) * number).dtype, number


def test_booleans_and_integers_are_different_constants():
    positive = Vi(x) > 0
    assert (positive * 1).dtype == np.int64
    assert (positive * True).dtype == bool
    assert (positive * 1).dtype == np.int64


def test_without_x64():
    with jax.enable_x64(False):
        tensor = Vi(x) * 2.5
        assert tensor.dtype == np.float32
        assert tensor.sum(axis=1).dtype == np.float32
    assert (Vi(x) * 2.5).dtype == np.float64


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_half_precision_is_accumulated_in_float32(precision):
    ones = jnp.ones((1, 1), precision)
    many = jnp.full((4000, 1), 1.0, precision)  # float16 sums stop at 2048, bfloat16 ones at 256
    close((Vi(ones) * Vj(many)).sum(axis=1).astype(float), jnp.asarray([[4000]], precision).astype(float), 1e-3)


# Indexing and shapes of formulas.

INDICES = [0, -1, 2, slice(None), slice(1, None), slice(None, -1), slice(None, None, 2), slice(None, None, -1),
           slice(4, 0, -2)]  # fmt: skip


@pytest.mark.parametrize("index", INDICES)
def test_indexing(index):
    a = normal(5, M, 5)
    expected = a[:, index] if isinstance(index, slice) else a[:, index][:, None]
    for picked in (Vi(a)[..., index], Vi(a)[:, :, index], Vi(a)[index]):
        assert picked._shape == (M, 1, expected.shape[1])
        close(sum_j(picked), expected)


def test_indexing_with_batch_dims():
    a = normal(5, 2, M, 5)
    close(Vi(a)[:, :, :, 3].sum(axis=2), a[..., 3:4])
    close(Vi(a)[..., np.int64(3)].sum(axis=2), a[..., 3:4])
    assert Vi(a)[...]._shape == (2, M, 1, 5)


def test_transposition():
    K = (-((Vi(x) - Vj(y)) ** 2).sum(-1)).exp()
    assert K.T.shape == K.t().shape == (N, M)
    assert K.T.T.shape == (M, N)
    G = gaussian(x, y)
    close(K.T.sum(axis=1), G.T.sum(1)[:, None])
    close(K.T @ x, G.T @ x)
    close(x.T @ K, x.T @ G)
    close((K.T * Vi(y)).sum(axis=0), G @ y)  # N is the i axis of K.T


def test_products():
    K, G = (-((Vi(x) - Vj(y)) ** 2).sum(-1)).exp(), gaussian(x, y)
    column, row = normal(3, N), normal(4, M)
    close(K @ b, G @ b)
    close(K @ column, G @ column)
    close(K @ list(column), G @ column)
    close(row @ K, row @ G)
    close(jnp.asarray(row) @ K, row @ G)
    close(K.matvec(column), G @ column)
    close(K.rmatvec(row), row @ G)
    stacked = normal(5, 4, N, 2)
    close(K @ stacked, G @ stacked)
    B = np.stack([G, gaussian(x, y + 1)])
    K2 = (-((Vi(x) - Vj(np.stack([y, y + 1]))) ** 2).sum(-1)).exp()
    close(K2 @ b, B @ b)
    close(K2 @ column, B @ column)
    close(row @ K2, row @ B)
    close(normal(6, 2, 3, M) @ K2, normal(6, 2, 3, M) @ B)


def test_repr():
    K = (-((Vi(x) - Vj(y)) ** 2).sum(-1) / 2.5).exp()
    text = repr(K)
    assert text.startswith("LazyTensor(exp(") and "x0" in text and "y0" in text and "2.5" in text
    assert "shape=(6, 5)" in text and "float64" in text
    html = (K < 1)._repr_html_()
    assert "&lt;" in html and "shape=(6, 5)" in html
    assert "square" in repr(((Vi(0, 3) - Vj(1, 3)) ** 2).sum(-1).sum(axis=1))


def test_repr_stays_short():
    K = Vi(x)
    for _ in range(40):
        K = K * K + K
    assert len(repr(K)) < 2000


# A shared part is one instruction, and the same array one leaf.


def test_shared_parts_are_recorded_once():
    x_i, y_j = Vi(x), Vj(y)
    K = ((x_i - y_j) ** 2).sum(-1) + ((x_i - y_j) ** 2).sum(-1).exp() + ((Vi(x) - Vj(y)) ** 2).sum(-1)
    assert len(jax.tree.leaves(K)) == 2
    assert [i.op for i in K._tape.code].count("subtract") == 1


# Pytree.


def test_pytree():
    K = ((Vi(x) - Vj(y)) ** 2).sum(-1) * 0.5
    leaves, treedef = jax.tree.flatten(K)
    assert len(leaves) == 3 and leaves[0] is x and leaves[1] is y and leaves[2] == 0.5
    hash(treedef)
    same = ((Vi(x + 1) - Vj(y[:2])) ** 2).sum(-1) * 0.25
    assert jax.tree.structure(same) == treedef
    assert jax.tree.structure(((Vi(x) - Vj(y)) ** 3).sum(-1) * 0.5) != treedef
    jax.tree.unflatten(treedef, [None, object(), 0])  # JAX puts anything there
    repr(jax.tree.unflatten(treedef, [None, object(), 0]))
    paths = [jax.tree_util.keystr(p) for p, _ in jax.tree_util.tree_leaves_with_path({"K": K})]
    assert paths == ["['K'][0]", "['K'][1]", "['K'][2]"]
    doubled = jax.tree.map(lambda a: 2 * a, K)
    close(doubled.sum(axis=1), sqdists(2 * x, 2 * y).sum(1)[:, None])


@pytest.mark.parametrize("how", ["copy", "deepcopy", "pickle"])
def test_copy_and_pickle(how):
    K = (-((Vi(x) - Vj(y)) ** 2).sum(-1)).exp() * 0.5
    made = {"copy": copy.copy, "deepcopy": copy.deepcopy, "pickle": lambda a: pickle.loads(pickle.dumps(a))}[how](K)
    assert jax.tree.structure(made) == jax.tree.structure(K)
    assert made.shape == K.shape and made.dtype == K.dtype
    close(made.sum(axis=1), 0.5 * gaussian(x, y).sum(1)[:, None])


def test_deepcopy_of_a_lifted_function():
    K = lazyjax.lift(lambda a, c: jnp.abs(a - c).sum())(Vi(x), Vj(y))
    close(copy.deepcopy(K).sum(axis=1), np.abs(x[:, None] - y).sum((1, 2))[:, None])


# The boundaries of JAX's transformations.


def kernel(x, y, scale=1.0):
    return (-((Vi(x) - Vj(y)) ** 2).sum(-1) * scale).exp()


def test_jit_argument_and_result():
    K = jax.jit(kernel)(x, y, 0.5)
    assert isinstance(K, LazyTensor) and K.shape == (M, N)
    G = np.exp(-0.5 * sqdists(x, y))
    close(jax.jit(lambda K, b: K @ b)(K, b), G @ b)
    close(jax.jit(lambda K: (2 * K + K.T.T).sum(axis=0))(K), 3 * G.sum(0)[:, None])


def test_a_number_in_a_formula_does_not_recompile():
    f = jax.jit(lambda K: K.sum(axis=1))
    for scale in (0.5, 1.5, 2.5):
        close(f(kernel(x, y) * scale), scale * gaussian(x, y).sum(1)[:, None])
    assert f._cache_size() == 1


def test_grad_of_a_lazytensor():
    K = kernel(x, y, 0.5)
    slopes = jax.grad(lambda K: (K @ b).sum())(K)
    assert isinstance(slopes, LazyTensor)
    dense = jax.grad(lambda x, y, s: (jnp.exp(-s * ((x[:, None] - y) ** 2).sum(-1)) @ b).sum(), (0, 1, 2))(x, y, 0.5)
    assert jax.tree.structure(slopes) == jax.tree.structure(K)
    found = sorted(jax.tree.leaves(slopes), key=lambda a: -np.size(a))
    for got, expected in zip(found, dense, strict=True):
        close(got, expected)


def test_jvp_of_a_lazytensor():
    K = ((-((Vi(x) - Vj(y)) ** 2).sum(-1)).exp()) * jnp.asarray(0.5)
    direction = jax.tree.map(jnp.ones_like, K)
    _, got = jax.jvp(lambda K: K.sum(axis=1), (K,), (direction,))
    close(got, gaussian(x, y).sum(1)[:, None])  # moving x and y together changes nothing


def test_vmap_strips_a_batch_dim():
    X = normal(7, 4, M, D)
    Y = normal(8, 4, N, D)
    K = kernel(X, Y, Pm(jnp.ones((4, 1))))
    expected = gaussian(X, Y)

    def one(K):
        assert K.shape == (M, N)
        return K.sum(axis=1)

    close(jax.vmap(one)(K), expected.sum(2)[..., None])
    close(jax.jit(jax.vmap(one))(K), expected.sum(2)[..., None])
    close(jax.vmap(jax.vmap(one))(kernel(X[None], Y[None], Pm(jnp.ones((1, 4, 1))))), expected.sum(2)[None, ..., None])


def test_vmap_returns_a_lazytensor():
    X = normal(7, 4, M, D)
    K = jax.vmap(lambda x: kernel(x, y, 0.5))(X)
    assert isinstance(K, LazyTensor) and K.shape == (4, M, N)
    close(K.sum(axis=2), np.exp(-0.5 * sqdists(X, y)).sum(-1)[..., None])


def test_batch_axes():
    X = normal(7, 4, M, D)
    K = kernel(X, y, 0.5)
    axes = lazyjax.batch_axes(K)
    assert sorted(jax.tree.leaves(axes, is_leaf=lambda a: a is None), key=str) == [0, None, None]
    expected = np.exp(-0.5 * sqdists(X, y))
    close(jax.vmap(lambda K: K.sum(axis=1), in_axes=(axes,))(K), expected.sum(-1)[..., None])
    close(jax.vmap(lambda K, b: K @ b, in_axes=(axes, None))(K, b), expected @ b)
    back = jax.vmap(lambda K: jax.tree.map(jnp.sin, K), in_axes=(axes,), out_axes=axes)(K)
    close(back.sum(axis=2), np.exp(-np.sin(0.5) * sqdists(np.sin(X), np.sin(y))).sum(-1)[..., None])


def test_batch_axes_of_two_batch_dims():
    X, Y = normal(7, 2, 4, M, D), normal(8, 4, N, D)
    K = kernel(X, Y)
    axes = lazyjax.batch_axes(K)
    assert sorted(jax.tree.leaves(axes, is_leaf=lambda a: a is None), key=str) == [0, None, None]
    close(jax.vmap(lambda K: K.sum(axis=2), in_axes=(axes,))(K), gaussian(X, Y).sum(-1)[..., None])


def test_scan():
    def body(K, shift):
        K = jax.tree.map(lambda a: a, K)
        return K, (K * shift).sum(axis=1)

    K, sums = jax.lax.scan(body, kernel(x, y), jnp.arange(3.0))
    assert isinstance(K, LazyTensor)
    close(sums, np.arange(3.0)[:, None, None] * gaussian(x, y).sum(1)[:, None])


def test_scan_over_a_lazytensor():
    X = normal(7, 4, M, D)
    K = kernel(X, np.broadcast_to(y, (4, N, D)), Pm(jnp.ones((4, 1))))
    _, sums = jax.lax.scan(lambda carry, K: (carry, K.sum(axis=1)), None, K)
    close(sums, gaussian(X, y).sum(-1)[..., None])


def test_fori_and_while():
    K = kernel(x, y)
    G = gaussian(x, y)
    power = jax.lax.fori_loop(0, 3, lambda _, v: K.T @ (K @ v), b)
    close(power, np.linalg.matrix_power(G.T @ G, 3) @ b)
    _, v = jax.lax.while_loop(lambda c: c[0] < 2, lambda c: (c[0] + 1, K.T @ (K @ c[1])), (0, b))
    close(v, np.linalg.matrix_power(G.T @ G, 2) @ b)


@pytest.mark.parametrize("flag", [True, False])
def test_cond(flag):
    f = jax.jit(lambda flag, K, L: jax.lax.cond(flag, lambda K, L: K, lambda K, L: L, K, L))
    K = f(flag, kernel(x, y), kernel(2 * x, y))
    assert isinstance(K, LazyTensor)
    close(K.sum(axis=1), gaussian(x if flag else 2 * x, y).sum(1)[:, None])


def test_checkpoint():
    def loss(x):
        return jax.checkpoint(lambda K: (K @ b).sum())(kernel(x, y))

    dense = jax.grad(lambda x: (jnp.exp(-((x[:, None] - y) ** 2).sum(-1)) @ b).sum())(x)
    close(jax.grad(loss)(jnp.asarray(x)), dense)
    K = jax.checkpoint(kernel)(x, y)
    assert isinstance(K, LazyTensor)
    close(K.sum(axis=1), gaussian(x, y).sum(1)[:, None])


# NumPy functions.

UFUNCS = [np.exp, np.log1p, np.sin, np.arctan, np.tanh, np.sqrt, np.square, np.abs, np.negative, np.floor, np.sign,
          np.cbrt, np.expm1, np.exp2, np.arcsinh, np.isfinite, np.ceil, np.cos, np.cosh]  # fmt: skip
BINARY = [np.add, np.subtract, np.multiply, np.divide, np.power, np.arctan2, np.minimum, np.maximum, np.less, np.equal,
          np.greater_equal, np.mod, np.floor_divide]  # fmt: skip


def test_ufuncs():
    a, c = np.abs(x) + 0.1, np.abs(y) + 0.1
    lazy = [f(Vi(a)) for f in UFUNCS] + [f(Vi(a), Vj(c)) for f in BINARY] + [f(c[0], Vi(a)) for f in BINARY]
    dense = [f(a)[:, None] for f in UFUNCS] + [f(a[:, None], c) for f in BINARY] + [f(c[0], a)[:, None] for f in BINARY]
    sums = jax.jit(lambda lazy: [t.sum(axis=1) for t in lazy])(lazy)
    for tensor, got, expected in zip(lazy, sums, dense, strict=True):
        assert isinstance(tensor, LazyTensor)
        close(got, expected.sum(1), message=repr(tensor))


def test_numpy_arrays_on_the_left():
    a = normal(3, D)
    for f in (np.add, np.multiply):
        close(f(a, Vi(x)).sum(axis=1), f(a, x))
    close((a @ (Vi(a[:, None]) * Vj(y[:, :1]))), a @ (a[:, None] * y[:, 0]))
    close(np.matmul(Vi(x) | Vj(y), b), (x @ y.T) @ b)


# lift.


def test_lift():
    def pair(a, c, scale):
        return {"distance": jnp.linalg.norm(a - c) * scale, "outer": jnp.outer(a, c)[0]}

    out = lazyjax.lift(pair)(Vi(x), Vj(y), 2.0)
    close(out["distance"].sum(axis=1), 2 * np.sqrt(sqdists(x, y)).sum(1)[:, None])
    close(out["outer"].sum(axis=0), x[:, :1].sum() * y)
    mixed = (out["distance"].exp() + Vi(x)[..., 0]).sum(axis=1)
    close(mixed, (np.exp(2 * np.sqrt(sqdists(x, y))) + x[:, :1]).sum(1)[:, None])


def test_lift_closes_over_traced_arrays():
    def loss(matrix):
        return (lazyjax.lift(lambda a, c: jnp.tanh(a @ matrix @ c))(Vi(x), Vj(y)) @ b).sum()

    matrix = normal(3, D, D)
    dense = jax.grad(lambda m: (jnp.tanh(x @ m @ y.T) @ b).sum())(matrix)
    close(jax.grad(loss)(matrix), dense)
    close(jax.jit(jax.grad(loss))(matrix), dense)


# Symbolic variables.


def test_symbolic_variables():
    K = (-((Vi(0, D) - Vj(1, D)) ** 2).sum(-1) * Pm(2, 1)).exp()
    total = K.sum(axis=1)
    close(total(x, y, 0.5), np.exp(-0.5 * sqdists(x, y)).sum(1)[:, None])
    close(total(2 * x, y[:2], 0.5), np.exp(-0.5 * sqdists(2 * x, y[:2])).sum(1)[:, None])
    close(jax.jit(total)(x, y, 0.5), np.exp(-0.5 * sqdists(x, y)).sum(1)[:, None])
    slope = jax.grad(lambda x: total(x, y, 0.5).sum())(x)
    close(slope, jax.grad(lambda x: jnp.exp(-0.5 * ((x[:, None] - y) ** 2).sum(-1)).sum())(x))
    batched = total(np.stack([x, -x]), y, np.asarray([[0.5], [2.0]]))
    close(batched, np.exp(-np.array([0.5, 2])[:, None, None] * sqdists(np.stack([x, -x]), y)).sum(2)[..., None])


def test_symbolic_variables_beside_data():
    f = (Vi(0, D) * Vj(y)).sum(axis=1)
    close(f(x), x * y.sum(0))
    nearest = ((Vi(1, D) - Vj(0, D)) ** 2).sum(-1).argmin(axis=1)
    np.testing.assert_array_equal(nearest(y, x)[:, 0], sqdists(x, y).argmin(1))


def test_symbolic_weight():
    K = (Vi(0, D) | Vj(1, D)) * 0.5
    got = K.sumsoftmaxweight(Vj(2, 2), axis=1)(x, y, b)
    weights = np.exp(0.5 * x @ y.T)
    close(got, weights @ b / weights.sum(1, keepdims=True))


def test_reductions_by_the_names_of_keops():
    x, y, w = normal(0, 4, 2), normal(1, 5, 2), normal(2, 5, 3)
    K, D = Vi(x).sqdist(Vj(y)), sqdists(x, y)
    close(K.reduction("Sum", axis=1), D.sum(1)[:, None])
    close(K.reduction("LogSumExp", axis=0), np.log(np.exp(D).sum(0))[:, None])
    np.testing.assert_array_equal(K.reduction("ArgKMin", axis=1, opt_arg=2), np.argsort(D, 1)[:, :2])
    softmax = np.exp(D) / np.exp(D).sum(1, keepdims=True)
    for weight in ("other", "weight"):
        close(K.reduction("SumSoftMaxWeight", axis=1, **{weight: Vj(w)}), softmax @ w)
