"""Inner products as matrix products where results are short: interpreted on the CPU, lowered, planned, refused.

Nothing here runs on a GPU.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lazyjax import Pm, Vi, Vj, explain
from lazyjax.kernels import Description
from lazyjax.kernels.triton import pallas
from lazyjax.kernels.triton.inner_products import split
from lazyjax.kernels.weighted_sums import inner_products

from ..kernels_of import agree, run_on
from ..unoptimised import UNOPTIMISED
from .lowering import abstract_gpu, kernel_calls, lowered_for

# Features that fill no piece: of two pieces and of three.
M, N, D, E = 21, 37, 60, 90


def arguments(dtype: Any = np.float64, m: int = M, n: int = N) -> tuple[jax.Array, ...]:
    """x and y of D features, u and v of E, b of two columns."""
    r = np.random.default_rng(0)
    shapes = ((m, D), (n, D), (m, E), (n, E), (n, 2))
    return tuple(jnp.asarray(r.normal(size=s).astype(dtype)) for s in shapes)


def _small(desc: Description, args: Sequence[jax.Array]) -> Sequence[jax.Array]:
    """As planned for CUDA, in small tiles: two parts of two steps, summed by groups of one."""
    assert pallas.supports(desc, "cuda") is None
    plan = pallas.plan(desc, "cpu")
    if not plan.columns:
        assert not isinstance(inner_products(desc), str) and plan.features
        tiles = {"block_i": 16, "block_j": 16, "unroll": 1, "features": 1, "group": 1, "splits": 2}
        plan = dataclasses.replace(plan, products=True, **tiles)
    return pallas.lower(desc, plan)(*args)


def product_form(x: Any, y: Any) -> Any:
    return Vi(x).sqdist(Vj(y), form="product")


def _squares(x: Any, y: Any) -> Any:
    return ((x[:, None] - y[None]) ** 2).sum(-1)


def _derivatives(x: Any, y: Any, u: Any, v: Any, b: Any) -> Any:
    """To a parameter, over all pairs, and to what is short, of two problems that share y."""
    f = lambda x, s, b: (((Vi(x) | Vj(y)) * Pm(s)).tanh() * Vj(b)).sum(axis=1)  # noqa: E731
    loss = lambda x, s, b: jnp.sum(f(x, s, b) * x[:, :2])  # noqa: E731
    return jax.vmap(lambda x, b: jax.grad(loss, (1, 2))(x, 0.1, b))(jnp.stack([x, 1 - x]), jnp.stack([b, 1 - b]))


def _dense_derivatives(x: Any, y: Any, u: Any, v: Any, b: Any) -> Any:
    loss = lambda x, s, b: jnp.sum(jnp.tanh(s * x @ y.T) @ b * x[:, :2])  # noqa: E731
    return jax.vmap(lambda x, b: jax.grad(loss, (1, 2))(x, 0.1, b))(jnp.stack([x, 1 - x]), jnp.stack([b, 1 - b]))


def _several(x: Any, y: Any, u: Any, v: Any, b: Any) -> Any:
    """Two inner products, of two lengths and one of three factors; a distance that stays a loop; numbers of i and j."""
    weights = Pm(jnp.arange(E) / E)
    value = (Vi(x) | Vj(y)) * Vi(x[:, :1]) + (Vi(u) * weights | Vj(v).sin()) - Vi(x).sqdist(Vj(y)).sqrt() * Vj(b[:, :1])
    return value.max_argmax(axis=1)


def _dense_several(x: Any, y: Any, u: Any, v: Any, b: Any) -> Any:
    value = x @ y.T * x[:, :1] + (u * (jnp.arange(E) / E)) @ jnp.sin(v).T - jnp.sqrt(_squares(x, y)) * b[:, 0]
    return value.max(1)[:, None], value.argmax(1)[:, None].astype(jnp.int32)


Formula = Callable[..., Any]
FORMULAS: dict[str, tuple[Formula, Formula]] = {
    "argmin, product form": (
        lambda x, y, u, v, b: product_form(x, y).min_argmin(axis=1),
        lambda x, y, u, v, b: (
            _squares(x, y).min(1)[:, None], _squares(x, y).argmin(1)[:, None].astype(jnp.int32),
        ),
    ),
    "argKmin over i": (
        lambda x, y, u, v, b: product_form(x, y).argKmin(2, axis=0),
        lambda x, y, u, v, b: jnp.argsort(_squares(x, y), 0)[:2].T.astype(jnp.int32),
    ),
    "softmax of few columns": (
        lambda x, y, u, v, b: (Vi(x) | Vj(y)).sumsoftmaxweight(Vj(b), axis=1),
        lambda x, y, u, v, b: jax.nn.softmax(x @ y.T, 1) @ b,
    ),
    "derivatives of a batch": (_derivatives, _dense_derivatives),
    "several": (_several, _dense_several),
}  # fmt: skip


def test_values() -> None:
    agree(FORMULAS, _small, arguments())


def test_parts_of_float32_lose_nothing() -> None:
    r = np.random.default_rng(0)
    x = (r.normal(size=4000) * 2.0 ** r.integers(-90, 120, 4000)).astype(np.float32)
    x = np.concatenate([x, np.float32([0, 1, -1, np.finfo(np.float32).max, np.finfo(np.float32).min])])
    parts = [np.asarray(p, np.float64) for p in jax.jit(split)(x)]
    np.testing.assert_array_equal(sum(parts), x.astype(np.float64))
    special = np.asarray(split(jnp.float32([np.inf, -np.inf, np.nan]))[0], np.float64)
    np.testing.assert_array_equal(special, [np.inf, -np.inf, np.nan])


def extreme() -> tuple[Any, Any, Any]:
    """float32 rows with infinity, NaN, and more than bfloat16 holds, and the sum of inner products of each."""
    x, y, *_ = arguments(np.float32)
    y = jnp.abs(y).at[:, 2].set(1 / 128)
    largest = jnp.zeros(D, np.float32).at[2].set(np.finfo(np.float32).max)
    x = x.at[3, 5].set(jnp.inf).at[4, 5].set(-jnp.inf).at[5, 5].set(jnp.nan).at[6].set(largest)
    want = np.sum(np.asarray(x.at[3:6].set(0), np.float64) @ np.asarray(y, np.float64).T, 1)
    want[3:6] = np.inf, -np.inf, np.nan
    return x, y, want


def total_product(x: Any, y: Any) -> Any:
    return (Vi(x) | Vj(y)).sum(axis=1)[:, 0]


def test_infinite_and_large_features() -> None:
    """An infinite number has no parts but one."""
    x, y, want = extreme()
    got = jax.jit(lambda *a: run_on(total_product, _small, *a), compiler_options=UNOPTIMISED)(x, y)
    np.testing.assert_allclose(got, want, rtol=2e-6, atol=1e-4)


@pytest.mark.parametrize("platform", ["cuda", "rocm"])
def test_lowers(platform: str) -> None:
    args = arguments(np.float32, 51, 71)
    text = lowered_for(platform, lambda *a: [f(*a) for f, _ in FORMULAS.values()], *args)
    assert kernel_calls(text) >= len(FORMULAS) and "51x71" not in text


def test_the_kernel_does_not_grow_with_features() -> None:
    def kernel(d: int) -> str:
        x = jax.ShapeDtypeStruct((1000, d), "float32")
        return lowered_for("cuda", lambda x: product_form(x, x).argmin(axis=1), x)

    assert len(kernel(960)) < 1.05 * len(kernel(150))


def _plan(f: Callable[..., Any], *shapes: tuple[int, ...], dtype: str = "float32", platform: str = "cuda") -> Any:
    with abstract_gpu():
        return explain(f, *(jax.ShapeDtypeStruct(s, dtype) for s in shapes), platform=platform)[-1]


@pytest.mark.parametrize("m, n", [(1, 100_000), (1000, 100_000), (100_000, 1000), (100_000, 100_000)])
def test_programs_fill_a_gpu(m: int, n: int) -> None:
    found = _plan(lambda x, y: product_form(x, y).argmin(axis=1), (m, 300), (n, 300))
    tiles = found.plan.tiles
    assert tiles.products == (m > 1)  # of sixteen rows, one would be of use
    assert -(-m // tiles.block_i) * tiles.splits >= 2 * 108  # multiprocessors
    assert tiles.registers <= 208
    assert tiles.splits == 1 or n // tiles.splits >= tiles.block_j * tiles.unroll  # every part has a step
    assert "matrix products" in str(found) and ("products=True" in str(found)) == tiles.products


def test_what_is_no_matrix_product_says_why() -> None:
    exact = lambda x: (Vi(x) | Vj(x)).exp().sum(axis=1, precision="exact")  # noqa: E731
    largest = lambda x: (Vi(x) | Vj(x)).max(axis=1)  # noqa: E731
    short = (1000, 64)
    rows: list[tuple[Any, str]] = [
        (
            _plan(lambda x: Vi(x).sqdist(Vj(x)).argmin(axis=1), short),
            "no features of i are multiplied by features of j",
        ),
        (_plan(exact, short), "tensor cores do not round as precision='exact' says"),
        (_plan(largest, short, dtype="int32"), "no features of i are multiplied by features of j"),
        (_plan(largest, short, platform="rocm"), "tensor cores are taken on CUDA alone"),
        (_plan(largest, (1 << 25, 63)), "more than 2**31 elements, padded"),
        (_plan(lambda x: largest(x[:1]), short), "they take more time"),
        (_plan(lambda x: (Vi(x) | Vj(x)).Kmin(60, axis=1), short), "their tiles are too many for registers"),
    ]
    for found, reason in rows:
        tiles = found.plan.tiles
        assert found.plan.kernel == "pallas-triton" and tiles.features and not tiles.products
        assert tiles.reason.startswith("features are long, and no matrix products: ") and reason in tiles.reason
    assert _plan(exact, short, dtype="float64").plan.tiles.products
    assert (
        _plan(largest, short).plan.tiles.reason == "features are long, and inner products of them are matrix products"
    )
