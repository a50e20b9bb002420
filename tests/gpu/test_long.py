"""The GPU kernel of long features, interpreted on the CPU, lowered, planned.  Nothing here runs on a GPU."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lazyjax import Pm, Vi, Vj, explain, lift
from lazyjax.kernels import Description
from lazyjax.kernels.triton import pallas

from ..kernels_of import agree, run_on
from ..test_long_features import SMOOTH, VALUES
from ..unoptimised import UNOPTIMISED
from .lowering import kernel_calls, lowered_for

M, N, D, E = 21, 37, 36, 34


def _arguments(dtype: Any = np.float64) -> tuple[jax.Array, ...]:
    r = np.random.default_rng(0)
    return tuple(jnp.asarray(r.normal(size=s).astype(dtype)) for s in ((M, D), (N, D), (N, E)))


def _small(desc: Description, args: Sequence[jax.Array]) -> Sequence[jax.Array]:
    """As planned for CUDA, in small tiles: two parts of two steps, summed by groups of one."""
    assert pallas.supports(desc, "cuda") is None
    plan = pallas.plan(desc, "cpu")
    assert plan.features and plan.interpret and plan.reason.startswith("features are long")
    tiles = {"block_i": 16, "block_j": 8, "unroll": 2, "features": 2, "group": 1, "splits": 2}
    return pallas.lower(desc, dataclasses.replace(plan, **tiles))(*args)


def _dense_square(x: Any, y: Any) -> Any:
    return ((x[:, None] - y[None]) ** 2).sum(-1)


def _scaled(x: Any, y: Any, v: Any) -> Any:
    """A batch of two, and the derivatives to a parameter, over all pairs."""
    f = lambda x, s: (-Pm(s) * Vi(x).sqdist(Vj(y))).exp() @ v[:, 0]  # noqa: E731
    batch = jax.vmap(lambda x: f(x, 0.02))(jnp.stack([x, x + 1]))
    return batch, jax.value_and_grad(lambda s: jnp.sin(f(x, s)).sum())(0.02)


def _scaled_dense(x: Any, y: Any, v: Any) -> Any:
    f = lambda x, s: jnp.exp(-s * _dense_square(x, y)) @ v[:, 0]  # noqa: E731
    batch = jax.vmap(lambda x: f(x, 0.02))(jnp.stack([x, x + 1]))
    return batch, jax.value_and_grad(lambda s: jnp.sin(f(x, s)).sum())(0.02)


def _two_lengths(x: Any, y: Any, v: Any) -> Any:
    """Loops that wait for one another, loops of two lengths, and features that are selected."""
    square, u = Vi(x).sqdist(Vj(y)), x[:, :E]
    spread = ((Vi(x) - Vj(y)) / (1 + square)).abs().max(-1)
    return (spread * (Vi(u) * Vj(v)).sin().sum(-1) + (Vi(x) * Vj(y)).relu().sum(-1)).min_argmin(axis=1)


def _two_lengths_dense(x: Any, y: Any, v: Any) -> Any:
    d = x[:, None] - y[None]
    spread = jnp.abs(d / (1 + (d**2).sum(-1, keepdims=True))).max(-1)
    values = spread * jnp.sin(x[:, None, :E] * v[None]).sum(-1) + jax.nn.relu(x[:, None] * y[None]).sum(-1)
    return values.min(1)[:, None], values.argmin(1)[:, None].astype(jnp.int32)


def _repeated(x: Any, y: Any) -> Any:
    """A number of j and one of the pair, repeated for every feature."""
    numbers = jnp.sum(y * y, -1, keepdims=True) * jnp.sum((x - y) ** 2, -1, keepdims=True)
    return jnp.sum((x - y) * numbers * y, -1, keepdims=True)


NARROW: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    **{k: VALUES[k] for k in ("argmin", "cosine similarity")},
    **{k: SMOOTH[k] for k in ("Gaussian sum", "product form")},
    "largest difference": VALUES["largest difference, and one feature"],
    "a repeated number of j": (
        lambda x, y, v: lift(_repeated)(Vi(x), Vj(y)).sum(axis=1),
        lambda x, y, v: _repeated(x[:, None], y[None]).sum(1),
    ),
    "a batch and a parameter": (_scaled, _scaled_dense),
    "loops that wait": (_two_lengths, _two_lengths_dense),
    "argKmin": (  # two: what interprets a longer network takes long to compile
        lambda x, y, v: Vi(x).sqdist(Vj(y)).argKmin(2, axis=1),
        lambda x, y, v: jnp.argsort(_dense_square(x, y), 1)[:, :2].astype(jnp.int32),
    ),
    "logsumexp over i": (
        lambda x, y, v: (-Vi(x).weightedsqdist(Vj(y), Pm(jnp.arange(D) / D))).logsumexp(axis=0),
        lambda x, y, v: jax.nn.logsumexp(
            -((jnp.arange(D) / D) * (x[:, None] - y[None]) ** 2).sum(-1), axis=0
        )[:, None],
    ),
}  # fmt: skip


def test_values() -> None:
    agree(NARROW, _small, _arguments())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_computed_in_float32(dtype: str) -> None:
    """Also what is computed for rows before the kernel: a square that float16 cannot hold, and one that it rounds."""
    r = np.random.default_rng(0)
    x, y = (jnp.asarray(r.uniform(300, 600, size=(s, D)), dtype) for s in (M, N))

    def ours(x: Any, y: Any) -> Any:
        scale = Pm(jnp.asarray(2.0**-10, dtype))
        return ((Vi(x) * Vi(x)) * scale | (Vj(y) * Vj(y)) * scale).sqrt().max_argmax(axis=1)

    value, index = jax.jit(lambda *a: run_on(ours, _small, *a), compiler_options=UNOPTIMISED)(x, y)
    wide = [np.asarray(a, np.float64) ** 2 / 2**10 for a in (x, y)]
    want = np.sqrt(wide[0] @ wide[1].T)
    np.testing.assert_array_equal(index[:, 0], want.argmax(1))
    assert value.dtype == dtype
    np.testing.assert_allclose(np.asarray(value[:, 0], np.float64), want.max(1), rtol=float(jnp.finfo(dtype).eps) / 2)


@pytest.mark.parametrize("platform", ["cuda", "rocm"])
def test_lowers(platform: str) -> None:
    for f, _ in NARROW.values():
        text = lowered_for(platform, f, *_arguments(np.float32))
        assert kernel_calls(text) >= 1 and f"{M}x{N}" not in text


def test_the_kernel_does_not_grow_with_features() -> None:
    def kernel(d: int) -> str:
        x = jax.ShapeDtypeStruct((1000, d), "float32")
        return lowered_for("cuda", lambda x: Vi(x).sqdist(Vj(x)).argmin(axis=1), x)

    assert len(kernel(960)) < 1.02 * len(kernel(96))


@pytest.mark.parametrize("m, n", [(1, 100_000), (1000, 100_000), (100_000, 1000), (100_000, 100_000)])
def test_programs_fill_a_gpu(m: int, n: int) -> None:
    x, y = jax.ShapeDtypeStruct((m, 300), "float32"), jax.ShapeDtypeStruct((n, 300), "float32")
    (found,) = explain(lambda x, y: Vi(x).sqdist(Vj(y)).argmin(axis=1), x, y, platform="cuda")
    tiles = found.plan.tiles
    assert -(-m // tiles.block_i) * tiles.splits >= 2 * 108  # multiprocessors
    assert tiles.registers <= 208 and tiles.pairs >= 1
    assert tiles.splits == 1 or n // tiles.splits >= tiles.block_j * tiles.unroll  # every part has a step
    text = str(found)
    assert "features are long" in text and "features=4" in text and "registers" in text


def test_what_cannot_be_walked_through_says_why() -> None:
    x = jax.ShapeDtypeStruct((1000, 200), "float32")
    (found,) = explain(lambda x: (Vi(x) - Vj(x)).cos().max(axis=1), x, platform="cuda")
    assert found.plan.kernel == "xla"
    assert dict(found.plan.refused)["pallas-triton"] == (
        "200 accumulators are more than the 128 that one program holds in registers, and they are no matrix product: "
        "results with long features are not plain sums"
    )
