"""The GPU kernel of matrix products: interpreted on the CPU, lowered, planned.  Nothing here runs on a GPU."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lazyjax import Pm, Sum, Vi, Vj, explain, i_index, j_index, lift
from lazyjax._accumulation import Accumulated
from lazyjax.kernels import Description
from lazyjax.kernels.triton import pallas

from ..kernels_of import agree, run_on
from ..unoptimised import UNOPTIMISED
from .lowering import kernel_calls, lowered_for

# Columns that take three blocks of a small tile, and features that take two steps of an inner product.
M, N, D, E = 21, 37, 40, 36


def arguments(dtype: Any = np.float64, m: int = M, n: int = N, e: int = E, d: int = D) -> tuple[jax.Array, ...]:
    """Short x and y, long q, k and v, and w of i as long as v."""
    r = np.random.default_rng(0)
    shapes = ((m, 3), (n, 3), (m, d), (n, d), (n, e), (m, e))
    return tuple(jnp.asarray(r.normal(size=s).astype(dtype)) for s in shapes)


def small(desc: Description, args: Sequence[jax.Array]) -> Sequence[jax.Array]:
    """As planned for CUDA, in small tiles: two parts of three steps and two, summed by groups of two."""
    assert pallas.supports(desc, "cuda") is None
    plan = pallas.plan(desc, "cpu")
    if plan.columns:
        tiles = {"block_i": 16, "block_j": 8, "columns": 16, "group": 2, "splits": 2}
        plan = dataclasses.replace(plan, **tiles, features=2 if plan.features else 0)
    return pallas.lower(desc, plan)(*args)


def gaussian(x: Any, y: Any) -> Any:
    return (-Vi(x).sqdist(Vj(y))).exp()


def dense_gaussian(x: Any, y: Any) -> Any:
    return jnp.exp(-((x[:, None] - y[None]) ** 2).sum(-1))


def attention(q: Any, k: Any, v: Any) -> Any:
    return ((Vi(q) | Vj(k)) / 4).sumsoftmaxweight(Vj(v), axis=1)


def dense_attention(q: Any, k: Any, v: Any) -> Any:
    return jax.nn.softmax(q @ k.T / 4, 1) @ v


def _causal(x: Any, y: Any, q: Any, k: Any, v: Any, w: Any) -> Any:
    """The first row sees nothing."""
    score = (Vi(x) | Vj(y)) * 3
    return (j_index(score) < i_index(score)).where(score, -jnp.inf).sumsoftmaxweight(Vj(v), axis=1)


def _dense_causal(x: Any, y: Any, q: Any, k: Any, v: Any, w: Any) -> Any:
    seen = jnp.arange(y.shape[0])[None] < jnp.arange(x.shape[0])[:, None]
    p = jax.nn.softmax(jnp.where(seen, 3 * x @ y.T, -jnp.inf), 1)
    return jnp.where(seen.any(1, keepdims=True), p, 0) @ v


def _several(x: Any, y: Any, q: Any, k: Any, v: Any, w: Any) -> Any:
    """Terms of several weights, rows of i and of a parameter, and a formula that is infinite where y is padded by 0."""
    first = gaussian(x, y) / Vj(y).sqnorm2()
    second = (Vi(x) | Vj(y)).cos()
    scale = Pm(jnp.arange(v.shape[1]) / 7.0)
    return (first * Vj(v) * Vi(w) - second * (Vj(v) * Vj(v) * scale)).sum(axis=1)


def _dense_several(x: Any, y: Any, q: Any, k: Any, v: Any, w: Any) -> Any:
    first = dense_gaussian(x, y) / (y * y).sum(-1)
    return first @ v * w - jnp.cos(x @ y.T) @ (v * v * jnp.arange(v.shape[1]) / 7.0)


def _few(x: Any, y: Any, q: Any, k: Any, v: Any, w: Any) -> Any:
    """Columns that are few, vectors that are repeated, and differences, which stay what they are."""
    repeated = lift(lambda x, y: jnp.tile((x - y)[:, None], (1, 4)).ravel())
    soft = ((Vi(x) | Vj(y)) * 3).sumsoftmaxweight(Vj(v[:, :20]), axis=1)
    sums = [(gaussian(x, y) * f).sum(axis=1) for f in (Vj(v[:, :20]) * Vi(w[:, :20]), Vi(q[:, :9]) - Vj(k[:, :9]))]
    return [*sums, (gaussian(x, y) * repeated(Vi(x), Vj(y))).sum(axis=1), soft]


def _dense_few(x: Any, y: Any, q: Any, k: Any, v: Any, w: Any) -> Any:
    weight, d = dense_gaussian(x, y), jnp.repeat(x[:, None] - y, 4, -1)
    differences = jnp.einsum("ij,ijd->id", weight, q[:, None, :9] - k[:, :9])
    soft = jax.nn.softmax(3 * x @ y.T, 1) @ v[:, :20]
    return [weight @ v[:, :20] * w[:, :20], differences, jnp.einsum("ij,ijd->id", weight, d), soft]


def derivatives(f: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *a: jax.grad(lambda *b: jnp.sum(jnp.sin(f(*b))), tuple(range(len(a))))(*a)


def heads(f: Callable[..., Any]) -> Callable[..., Any]:
    """Two problems that share their keys."""
    return lambda q, k, v: jax.vmap(f, (0, None, 0))(jnp.stack([q, q + 1]), k, jnp.stack([v, 1 - v]))


Formula = Callable[..., Any]
FORMULAS: dict[str, tuple[Formula, Formula]] = {
    "K @ b": (lambda x, y, q, k, v, w: gaussian(x, y) @ v, lambda x, y, q, k, v, w: dense_gaussian(x, y) @ v),
    "over i": (
        lambda x, y, q, k, v, w: (gaussian(x, y) * Vi(w)).sum(axis=0),
        lambda x, y, q, k, v, w: dense_gaussian(x, y).T @ w,
    ),
    "derivatives of K @ b": (
        lambda x, y, q, k, v, w: derivatives(lambda x, y, v: gaussian(x, y) @ v)(x, y, v),
        lambda x, y, q, k, v, w: derivatives(lambda x, y, v: dense_gaussian(x, y) @ v)(x, y, v),
    ),
    "several terms": (_several, _dense_several),
    "weighted logsumexp": (
        lambda x, y, q, k, v, w: ((Vi(q) | Vj(k)) * 9).logsumexp(axis=1, weight=Vj(v) ** 2),
        lambda x, y, q, k, v, w: jax.nn.logsumexp(9 * (q @ k.T)[..., None], 1, v**2),
    ),
    "attention": (lambda x, y, q, k, v, w: attention(q, k, v), lambda x, y, q, k, v, w: dense_attention(q, k, v)),
    "causal": (_causal, _dense_causal),
    "few columns": (_few, _dense_few),
    "heads": (
        lambda x, y, q, k, v, w: heads(attention)(q, k, v),
        lambda x, y, q, k, v, w: heads(dense_attention)(q, k, v),
    ),
    "derivatives of attention": (
        lambda x, y, q, k, v, w: derivatives(attention)(q, k, v),
        lambda x, y, q, k, v, w: derivatives(dense_attention)(q, k, v),
    ),
}


def test_values() -> None:
    agree(FORMULAS, small, arguments())


def test_short_results_beside_many_columns_have_a_kernel_of_their_own() -> None:
    """The derivatives with respect to y and b: weights of the one take an inner product of all columns."""
    r = np.random.default_rng(0)
    x, y, b = (jnp.asarray(r.normal(size=s)) for s in ((M, 3), (N, 3), (N, 300)))
    f = jax.grad(lambda y, b: jnp.sum(jnp.sin(gaussian(x, y) @ b)), (0, 1))
    found = explain(f, y, b, platform="cuda")
    assert [len(e.plan.tiles.apart) for e in found] == [0, 2]
    assert "a kernel each" in found[1].plan.tiles.reason
    run = lambda desc, args: pallas.lower(desc, pallas.plan(desc, "cpu"))(*args)  # noqa: E731
    got = jax.jit(lambda *a: run_on(f, run, *a), compiler_options=UNOPTIMISED)(y, b)
    want = jax.grad(lambda y, b: jnp.sum(jnp.sin(dense_gaussian(x, y) @ b)), (0, 1))(y, b)
    for a, c in zip(got, want, strict=True):
        np.testing.assert_allclose(a, c, rtol=1e-9, atol=1e-9)


def test_few_columns_take_what_takes_fewer_instructions() -> None:
    """A matrix product of 16 or 32 columns, or an accumulator for every column: the model decides."""

    def tiles(columns: int) -> Any:
        x, b = (jax.ShapeDtypeStruct((1 << 16, k), "float32") for k in (3, columns))
        (found,) = explain(lambda x, b: gaussian(x, x) @ b, x, b, platform="cuda")
        assert found.plan.kernel == "pallas-triton"
        return found.plan.tiles

    assert [tiles(c).columns for c in (4, 8, 16, 17, 24, 32)] == [0, 0, 16, 32, 32, 32]
    assert tiles(8).instructions < tiles(16).instructions < tiles(32).instructions


def test_padding_has_no_score() -> None:
    """Scores are so far below that of padding, 0, that exponentials of them would vanish."""
    *_, v, _ = arguments()
    far = jnp.full((N, 1), -900.0) + jnp.arange(N)[:, None] / 9
    f = lambda far, v: (Vi(jnp.ones((M, 1))) * Vj(far)).sumsoftmaxweight(Vj(v), axis=1)  # noqa: E731
    got = jax.jit(lambda *a: run_on(f, small, *a), compiler_options=UNOPTIMISED)(far, v)
    np.testing.assert_allclose(got, np.tile(jax.nn.softmax(far[:, 0]) @ v, (M, 1)), rtol=1e-9)


@pytest.mark.parametrize("platform", ["cuda", "rocm"])
def test_lowers(platform: str) -> None:
    args = arguments(np.float32, 51, 71)
    text = lowered_for(platform, lambda *a: [f(*a) for f, _ in FORMULAS.values()], *args)
    assert kernel_calls(text) >= len(FORMULAS) and "51x71" not in text


def test_the_kernel_does_not_grow_with_columns() -> None:
    x = jax.ShapeDtypeStruct((1000, 3), "float32")

    def kernel(columns: int) -> str:
        v = jax.ShapeDtypeStruct((1000, columns), "float32")
        return lowered_for("cuda", lambda x, v: gaussian(x, x) @ v, x, v)

    assert len(kernel(4000)) < 1.02 * len(kernel(400))


@pytest.mark.parametrize("m, n", [(1, 100_000), (1000, 100_000), (100_000, 1000), (100_000, 100_000)])
def test_programs_fill_a_gpu(m: int, n: int) -> None:
    q, k, v = (jax.ShapeDtypeStruct((s, 64), "float32") for s in (m, n, n))
    (found,) = explain(attention, q, k, v, platform="cuda")
    tiles = found.plan.tiles
    assert found.plan.kernel == "pallas-triton" and tiles.columns == (64 if m > 1 else 32)
    assert -(-m // tiles.block_i) * tiles.splits >= 2 * 108  # multiprocessors
    assert tiles.registers <= 240
    assert tiles.splits == 1 or n // tiles.splits >= 8 * tiles.block_j  # every part has some steps
    assert f"columns={tiles.columns}" in str(found) and "results with long features are matrix products" in str(found)


def test_what_is_no_matrix_product_says_why() -> None:
    x, v = jax.ShapeDtypeStruct((1000, 3), "float32"), jax.ShapeDtypeStruct((1000, 200), "float32")
    (found,) = explain(lambda x, v: (gaussian(x, x) * (Vi(v) - Vj(v)).abs()).sum(axis=1), x, v, platform="cuda")
    assert found.plan.kernel == "xla"
    assert dict(found.plan.refused)["pallas-triton"] == (
        "200 accumulators are more than the 128 that one program holds in registers, and they are no matrix product: "
        "a result with long features is no sum of numbers of the pair times features of i or j"
    )
    wide = lambda x, v: (gaussian(x, x) * Vj(v)).reduction(Accumulated(Sum(), "float64"), axis=1)  # noqa: E731
    (found,) = explain(wide, x, v, platform="cuda")
    assert dict(found.plan.refused)["pallas-triton"].endswith("float32 values are accumulated in float64")
    n = jax.ShapeDtypeStruct((1 << 24, 3), "float32")
    b = jax.ShapeDtypeStruct((1 << 24, 127), "float32")
    (found,) = explain(lambda x, b: gaussian(x, x) @ b, n, b, platform="cuda")
    assert "more than 2**31 elements, padded" in dict(found.plan.refused)["pallas-triton"]


def test_rows_of_half_precision_are_computed_in_float32() -> None:
    """8 added and taken away again costs a bfloat16 six bits."""
    r = np.random.default_rng(2)
    q, k, v = (jnp.asarray(r.normal(size=s), jnp.bfloat16) for s in ((17, 3), (45, 3), (45, 64)))
    got = ((-Vi(q).sqdist(Vj(k))).exp() * ((Vj(v) * 0.7 + 8) - 8)).sum(axis=1, backend="pallas-triton")
    a, b, c = (np.asarray(x, np.float64) for x in (q, k, v))
    want = np.exp(-((a[:, None] - b) ** 2).sum(-1)) @ (0.7 * c)
    assert np.abs(np.asarray(got, np.float64) - want).max() < 2**-8 * np.abs(want).max()


@pytest.mark.parametrize("m, n, batch", [(0, 5, 3), (5, 0, 3), (5, 7, 0)])
def test_nothing_to_do(m: int, n: int, batch: int) -> None:
    """Empty axes and batches need no kernel."""
    shapes = ((batch, m, 3), (batch, n, 3), (batch, n, 300))
    args = [jax.ShapeDtypeStruct(s, np.float32) for s in shapes]

    def run(x: Any, y: Any, b: Any) -> Any:
        return gaussian(x, y) @ b, gaussian(x, y) @ b[:, :1], Vi(x).sqdist(Vj(y)).argKmin(10, axis=1)

    text = lowered_for("cuda", jax.vmap(run), *args)
    assert kernel_calls(text) == 0
