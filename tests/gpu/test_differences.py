"""Differences of long features times numbers of a pair, on the GPU kernel of matrix products: interpreted on the CPU,
lowered, planned.  Nothing here runs on a GPU."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lazyjax import Pm, Vi, Vj, explain

from ..kernels_of import agree, run_on
from ..unoptimised import UNOPTIMISED
from .lowering import kernel_calls, lowered_for
from .test_products import Formula, arguments, dense_gaussian, derivatives, gaussian, small


def _dense_square(x: Any, y: Any) -> Any:
    return ((x[:, None] - y[None]) ** 2).sum(-1)


def laplacian(x: Any, y: Any, b: Any) -> Any:
    return (-0.3 * Vi(x).sqdist(Vj(y)).sqrt()).exp() @ b


def dense_laplacian(x: Any, y: Any, b: Any) -> Any:
    return jnp.exp(-0.3 * jnp.sqrt(_dense_square(x, y))) @ b


def curvature(f: Formula) -> Formula:
    """A derivative along x of the gradients to x and y."""

    def run(x: Any, y: Any, b: Any) -> Any:
        gradient = jax.grad(lambda x, y: jnp.sum(jnp.sin(f(x, y, b))), (0, 1))
        return jax.jvp(lambda x: gradient(x, y), (x,), (jnp.cos(x),))[1]

    return run


def batch(f: Formula) -> Formula:
    """Derivatives of two problems that share their y; what is stacked has no rounding, in no dtype."""
    both = lambda x, y, b: derivatives(lambda x, y: f(x, y, b))(x, y)  # noqa: E731
    return lambda x, y, b: jax.vmap(both, (0, None, 0))(jnp.stack([x, -x]), y, jnp.stack([b, b / 2]))


def _soft(q: Any, k: Any, w: Any) -> Any:
    return (-Vi(q).sqdist(Vj(k)) / 20).sumsoftmaxweight(
        (Vi(q) - Vj(k)) / Pm(jnp.arange(1, 1 + q.shape[1], dtype=q.dtype)), axis=1
    )


def _dense_soft(q: Any, k: Any, w: Any) -> Any:
    difference = (q[:, None] - k) / jnp.arange(1, 1 + q.shape[1], dtype=q.dtype)
    return jnp.einsum("ij,ijd->id", jax.nn.softmax(-_dense_square(q, k) / 20, 1), difference)


def _several(q: Any, k: Any, w: Any) -> Any:
    """Sums and differences in both orders beside rows of j, of i and of a parameter; a weight of its own for i alone,
    and two weights of the same rows."""
    x, y, p = Vi(q), Vj(k), Pm(jnp.arange(q.shape[1], dtype=q.dtype) / 7)
    first, second = (x[:3] | y[:3]).cos(), gaussian(q[:, :3], k[:, :3])
    one = first * ((y - x) * y * p + x * x - p) - second * (x - y) * p
    return (one + (second / (1 + (y[:3] | y[:3]))) * ((y + x) * x * 2 - y * p)).sum(axis=1)


def _dense_several(q: Any, k: Any, w: Any) -> Any:
    x, y, p = q[:, None], k[None], jnp.arange(q.shape[1], dtype=q.dtype) / 7
    first = jnp.cos((x[..., :3] * y[..., :3]).sum(-1, keepdims=True))
    second = dense_gaussian(q[:, :3], k[:, :3])[..., None]
    one = first * ((y - x) * y * p + x * x - p) - second * (x - y) * p
    return (one + second / (1 + (y[..., :3] ** 2).sum(-1, keepdims=True)) * ((y + x) * x * 2 - y * p)).sum(1)


def _scaled(f: Formula) -> Formula:
    """Of points whose distances are about 1."""
    return lambda q, k, w: f(q / 9, k / 9, w)


# Of q (M, D), k (N, D) and weights of two columns.
FORMULAS: dict[str, tuple[Formula, Formula]] = {
    "derivatives of a Laplacian sum, batched": (batch(laplacian), batch(dense_laplacian)),
    "second derivatives of a Gaussian sum": (
        _scaled(curvature(lambda x, y, b: gaussian(x, y) @ b)),
        _scaled(curvature(lambda x, y, b: dense_gaussian(x, y) @ b)),
    ),
    "weights of a softmax": (_soft, _dense_soft),
    "several terms": (_several, _dense_several),
}


def points(dtype: Any, m: int, n: int, d: int) -> tuple[jax.Array, ...]:
    _, _, q, k, *_ = arguments(dtype, m, n, d=d)
    return q, k, k[:, :2]


def test_values() -> None:
    agree(FORMULAS, small, points(np.float64, 21, 37, 70))


def weighted_difference(x: Any, y: Any) -> Any:
    """Every row sees some rows."""
    return ((-Vi(x).sqdist(Vj(y)) / x.shape[1]).exp() * (Vi(x) - Vj(y))).sum(axis=1)


def dense_weighted_difference(x: Any, y: Any) -> Any:
    x, y = (np.asarray(a, np.float64) for a in (x, y))
    difference = x[:, None] - y
    return np.einsum("ij,ijd->id", np.exp(-(difference**2).sum(-1) / x.shape[1]), difference)


@pytest.mark.parametrize("where", ["at 0", "far off", "in clusters"])
def test_the_place_of_points_costs_no_precision(where: str) -> None:
    """Programs have 16 rows: those of a cluster each, or of one and the end of the other."""
    x, y, _ = (np.asarray(a) for a in points(np.float64, 32, 48, 70))
    place = {"at 0": 0.0, "far off": 1000.0, "in clusters": np.array([[3000.0], [-3000.0]])}[where]
    x, y = ((a.reshape(2, -1, 70) + np.reshape(place, (-1, 1, 1))).reshape(a.shape).astype(np.float32) for a in (x, y))
    got = jax.jit(lambda *a: run_on(weighted_difference, small, *a), compiler_options=UNOPTIMISED)(x, y)
    want = dense_weighted_difference(x, y)
    assert np.abs(got - want).max() <= 1e-6 * np.abs(want).max()


def test_a_row_that_is_infinite_spoils_no_other() -> None:
    """Nor do numbers whose sum is beyond float32."""
    x, y, _ = (np.array(a) for a in points(np.float32, 32, 48, 70))
    x[3], x[16:, 0], y[:, 0] = np.inf, 3e38, 3e38
    f = lambda x, y: (Vi(x[:, 1:]).sqdist(Vj(y[:, 1:])) * 1e-5 * (Vi(x) - Vj(y))).sum(axis=1)  # noqa: E731
    got = jax.jit(lambda *a: run_on(f, small, *a), compiler_options=UNOPTIMISED)(x, y)
    a, b = x[:, None].astype(np.float64), y[None].astype(np.float64)
    want = (1e-5 * ((a - b)[..., 1:] ** 2).sum(-1, keepdims=True) * (a - b)).sum(1)
    others = np.arange(32) != 3
    scale = np.abs(want[others, 1:]).max()
    np.testing.assert_allclose(got[others, 1:], want[others, 1:], rtol=0, atol=1e-5 * scale)
    assert not np.isfinite(got[3]).any() and np.abs(got[16:, 0]).max() <= 1e-5 * 3e38


@pytest.mark.parametrize("platform", ["cuda", "rocm"])
def test_lowers(platform: str) -> None:
    args = points(np.float32, 51, 71, 140)
    text = lowered_for(platform, lambda *a: [f(*a) for f, _ in FORMULAS.values()], *args)
    assert kernel_calls(text) >= len(FORMULAS) and "51x71" not in text


def test_what_is_told_apart_and_what_is_not() -> None:
    x, y = jax.ShapeDtypeStruct((1000, 200), "float32"), jax.ShapeDtypeStruct((1100, 200), "float32")

    def found(f: Formula) -> tuple[Any, str]:
        (one,) = explain(f, x, y, platform="cuda")
        return one.plan.tiles, dict(one.plan.refused).get("pallas-triton", "")

    tiles, reason = found(weighted_difference)
    assert not reason and tiles.columns == 256 and tiles.unroll == 2 and tiles.tensor
    assert tiles.reason == "results with long features are matrix products, differences about a centre of each program"
    weight = lambda x, y: (-Vi(x).sqdist(Vj(y))).exp()  # noqa: E731
    many = (
        "200 accumulators are more than the 128 that one program holds in registers, and they are no matrix product: "
    )
    _, reason = found(lambda x, y: (weight(x, y) * (Vi(x) - Vj(y))).sum(axis=1, precision="exact"))
    assert reason == many + "differences of long features are told apart, which precision='exact' does not allow"
    product = "a result with long features is no sum of numbers of the pair times features of i or j"
    for f in (lambda d: d.abs(), lambda d: d * d, lambda d: d.square()):
        _, reason = found(lambda x, y, f=f: (weight(x, y) * f(Vi(x) - Vj(y))).sum(axis=1))
        assert reason == many + product
    _, reason = found(lambda x, y: (weight(x, y) * Vi(x)).sum(axis=1))
    assert reason == many + "no result with long features reads those of j"
    _, reason = found(lambda x, y: (weight(x, y) * (Vi(x) - Vj(y).sum())).sum(axis=1))
    assert reason == many + "a result with long features has a part that is the same for all features"


@pytest.mark.parametrize(
    "dtype, precision, held", [("float32", "fast", True), ("float64", "fast", False), ("float64", "exact", True)]
)
def test_differences_are_held_as_they_are_where_registers_do(dtype: str, precision: str, held: bool) -> None:
    x = jax.ShapeDtypeStruct((3000, 50), dtype)
    sums = lambda x, y: (-Vi(x).sqdist(Vj(y))).exp().sum(axis=1, precision=precision).sum()  # noqa: E731
    own = explain(jax.grad(sums), x, x, platform="cuda")[-1]
    assert own.plan.kernel == "pallas-triton" and (own.plan.tiles.columns == 0) == held
