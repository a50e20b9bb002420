"""Sums of numbers of a pair times differences of long features, on the GPU kernel of matrix products: interpreted on the
CPU, lowered, planned.  Nothing here runs on a GPU."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lazyjax import Pm, Vi, Vj, explain

from ..kernels_of import run_on
from ..unoptimised import UNOPTIMISED
from .lowering import kernel_calls, lowered_for
from .test_products import E as LONG
from .test_products import Formula, arguments, dense_gaussian, derivatives, gaussian, small


def _dense_square(x: Any, y: Any) -> Any:
    return ((x[:, None] - y[None]) ** 2).sum(-1)


def laplacian(x: Any, y: Any, b: Any) -> Any:
    return (-0.3 * Vi(x).sqdist(Vj(y)).sqrt()).exp() @ b


def dense_laplacian(x: Any, y: Any, b: Any) -> Any:
    return jnp.exp(-0.3 * jnp.sqrt(_dense_square(x, y))) @ b


def curvature(f: Formula) -> Formula:
    """A derivative along x of the gradients to x and y, and the same for two problems that share their y."""

    def one(x: Any, y: Any, b: Any) -> Any:
        gradient = jax.grad(lambda x, y: jnp.sum(jnp.sin(f(x, y, b))), (0, 1))
        return jax.jvp(lambda x: gradient(x, y), (x,), (jnp.cos(x),))[1]

    return one


def batch(f: Formula) -> Formula:
    return lambda x, y, b: jax.vmap(derivatives(f), (0, None, 0))(jnp.stack([x, x + 1]), y, jnp.stack([b, 1 - b]))


def _soft(q: Any, k: Any, w: Any) -> Any:
    return (-Vi(q).sqdist(Vj(k)) / 20).sumsoftmaxweight((Vi(q) - Vj(k)) / Pm(jnp.arange(1.0, 1 + q.shape[1])), axis=1)


def _dense_soft(q: Any, k: Any, w: Any) -> Any:
    difference = (q[:, None] - k) / jnp.arange(1.0, 1 + q.shape[1])
    return jnp.einsum("ij,ijd->id", jax.nn.softmax(-_dense_square(q, k) / 20, 1), difference)


def _several(q: Any, k: Any, w: Any) -> Any:
    """Sums and differences in both orders beside rows of j, of i and of a parameter; a weight of its own for i alone, and
    two weights of the same rows."""
    x, y, p = Vi(q), Vj(k), Pm(jnp.arange(q.shape[1]) / 7.0)
    first, second = (x[:3] | y[:3]).cos(), gaussian(q[:, :3], k[:, :3])
    one = first * ((y - x) * y * p + x * x - p) - second * (x - y) * p
    return (one + (second / (1 + (y[:3] | y[:3]))) * ((y + x) * x * 2 - y * p)).sum(axis=1)


def _dense_several(q: Any, k: Any, w: Any) -> Any:
    x, y, p = q[:, None], k[None], jnp.arange(q.shape[1]) / 7.0
    first = jnp.cos((x[..., :3] * y[..., :3]).sum(-1, keepdims=True))
    second = dense_gaussian(q[:, :3], k[:, :3])[..., None]
    one = first * ((y - x) * y * p + x * x - p) - second * (x - y) * p
    return (one + second / (1 + (y[..., :3] ** 2).sum(-1, keepdims=True)) * ((y + x) * x * 2 - y * p)).sum(1)


def _scaled(f: Formula) -> Formula:
    """Of points whose distances are about 1."""
    return lambda q, k, w: f(q / 9, k / 9, w)


# Of q (M, D), k (N, D) and weights of two columns.
FORMULAS: dict[str, tuple[Formula, Formula]] = {
    "derivatives of a Gaussian sum": (
        _scaled(derivatives(lambda x, y, b: gaussian(x, y) @ b)),
        _scaled(derivatives(lambda x, y, b: dense_gaussian(x, y) @ b)),
    ),
    "derivatives of a Laplacian sum, batched": (batch(laplacian), batch(dense_laplacian)),
    "second derivatives of a Gaussian sum": (
        _scaled(curvature(lambda x, y, b: gaussian(x, y) @ b)),
        _scaled(curvature(lambda x, y, b: dense_gaussian(x, y) @ b)),
    ),
    "gradient of logsumexp": (
        lambda q, k, w: derivatives(lambda x, y: (-Vi(x).sqdist(Vj(y))).logsumexp(axis=1))(q / 9, k / 9),
        lambda q, k, w: derivatives(lambda x, y: jax.nn.logsumexp(-_dense_square(x, y), 1))(q / 9, k / 9),
    ),
    "weights of a softmax": (_soft, _dense_soft),
    "several terms": (_several, _dense_several),
}


def points(dtype: Any, m: int, n: int, d: int) -> tuple[jax.Array, ...]:
    _, _, q, k, *_ = arguments(dtype, m, n, d=d)
    return q, k, k[:, :2]


def test_values() -> None:
    args = points(np.float64, 21, 37, 40)
    run = lambda *a: {k: run_on(f[0], small, *a) for k, f in FORMULAS.items()}  # noqa: E731
    got = jax.jit(run, compiler_options=UNOPTIMISED)(*args)
    want = jax.jit(lambda *a: {k: f[1](*a) for k, f in FORMULAS.items()}, compiler_options=UNOPTIMISED)(*args)
    for name in want:
        for a, b in zip(jax.tree.leaves(got[name]), jax.tree.leaves(want[name]), strict=True):
            assert a.shape == b.shape and a.dtype == b.dtype, name
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10 * float(jnp.max(jnp.abs(b))), err_msg=name)
