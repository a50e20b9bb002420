"""explain says what will run."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from lazyjax import Vi, Vj, explain

from .cases import arguments


def _kernel_product(x: jax.Array, y: jax.Array, b: jax.Array) -> jax.Array:
    return (-Vi(x).sqdist(Vj(y))).exp() @ b


def test_text() -> None:
    x, y, b, _ = arguments(1000, 2000)
    text = str(explain(_kernel_product, x, y, b, platform="cpu"))
    for part in ("Sum()", "1000 rows, each over 2000 pairs", "xla on cpu", "tile_i=1000", "flops", "bytes",
                 "pallas-triton: it is for cuda and rocm, not cpu", "dense: it holds all pairs in memory"):  # fmt: skip
        assert part in text


def test_figures() -> None:
    x, y, b, _ = arguments(1000, 2000)
    (e,) = explain(_kernel_product, x, y, b, platform="cpu")
    assert e.pairs == 2_000_000
    assert e.flops == e.plan.operations * e.pairs
    # x (1000, 2), y (2000, 2), b (2000, 3) read and (1000, 3) written, in float64; dense: 3 values for each pair
    assert e.bytes == 8 * (2000 + 4000 + 6000 + 3000)
    assert e.dense_bytes == 8 * 3 * 2_000_000


def test_every_reduction_of_a_gradient() -> None:
    x, y, b, _ = arguments(100, 200)
    found = explain(jax.grad(lambda *a: jnp.sum(_kernel_product(*a)), (0, 1, 2)), x, y, b, platform="cuda")
    assert [e.plan.kernel for e in found] == ["pallas-triton", "pallas-triton"]
    assert {(e.description.m, e.description.n) for e in found} == {(100, 200), (200, 100)}


def test_inside_control_flow() -> None:
    x, y, b, _ = arguments(10, 20)

    def loop(x: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, 3, lambda _, z: z + _kernel_product(z, y, b)[:, :2], x)

    assert len(explain(loop, x)) == 1


def test_nothing_to_explain() -> None:
    assert str(explain(lambda x: x + 1, 1.0)) == "no reduction over pairs"


@pytest.mark.parametrize("backend", ["dense", "xla", "pallas-triton"])
def test_an_explicit_backend(backend: str) -> None:
    x, y, b, _ = arguments(30, 40)
    f = lambda x: Vi(x).sqdist(Vj(y)).sum(axis=1, backend=backend)  # noqa: E731
    (e,) = explain(f, x, platform="cpu")
    assert e.plan.kernel == backend
    assert jnp.allclose(f(x), ((x[:, None] - y[None]) ** 2).sum((1, 2))[:, None])


def test_unknown_platforms_are_refused() -> None:
    with pytest.raises(ValueError, match=r"explain: platform='metal', expected one of 'cpu', 'cuda', 'rocm', 'tpu'"):
        explain(_kernel_product, *arguments()[:3], platform="metal")
