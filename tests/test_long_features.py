"""Formulas with many features: loops over features and matrix products give dense NumPy's numbers, in bounded code."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lazyjax import Pm, Vi, Vj
from lazyjax.kernels import Description, planner, xla

from .kernels_of import run_on

M, N, D, E = 35, 41, 37, 34


def _arguments(seed: int = 0) -> tuple[jax.Array, ...]:
    r = np.random.default_rng(seed)
    return tuple(jnp.asarray(a) for a in (r.normal(size=(M, D)), r.normal(size=(N, D)), r.normal(size=(N, E))))


def _small(desc: Description, args: Sequence[jax.Array]) -> Sequence[jax.Array]:
    """The shape that the planner takes for many pairs, in small ragged tiles."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planner, "LARGE", 0)
        patch.setattr(planner, "LEAST_ROWS", 1)
        plan = planner.plan_xla(desc, planner.operations(desc), "cpu")
    assert plan.shape in ("long", "long selection")
    tiles = {"tile_j": 32, "chunk": 32} if plan.shape == "long selection" else {"tile_j": 14}
    return xla.lower(desc, dataclasses.replace(plan, tile_i=16, unroll=4, features=5, **tiles))(*args)


def _differences(x: Any, y: Any) -> Any:
    return x[:, None] - y[None]


WEIGHTS = np.random.default_rng(1).uniform(size=D)

# Values with derivatives: ours, and dense JAX.
SMOOTH: dict[str, tuple[Any, Any]] = {
    "Gaussian sum": (
        lambda x, y, v: (-Vi(x).sqdist(Vj(y)) / D).exp() @ v[:, :2],
        lambda x, y, v: jnp.exp(-(_differences(x, y) ** 2).sum(-1) / D) @ v[:, :2],
    ),
    "Laplacian sum with many columns": (
        lambda x, y, v: (-(Vi(x) - Vj(y)).abs().sum(-1) / D).exp() @ v,
        lambda x, y, v: jnp.exp(-jnp.abs(_differences(x, y)).sum(-1) / D) @ v,
    ),
    "attention": (
        lambda x, y, v: ((Vi(x) | Vj(y)) / 6.0).sumsoftmaxweight(Vj(v), axis=1),
        lambda x, y, v: jax.nn.softmax(x @ y.T / 6.0, axis=1) @ v,
    ),
    "logsumexp of weighted distances over i": (
        lambda x, y, v: (-Vi(x).weightedsqdist(Vj(y), Pm(jnp.asarray(WEIGHTS)))).logsumexp(axis=0),
        lambda x, y, v: jax.nn.logsumexp(-(WEIGHTS * _differences(x, y) ** 2).sum(-1), axis=0)[:, None],
    ),
    "vectors over both axes": (
        lambda x, y, v: ((Vi(x) - Vj(y)).sin() * Vj(v)[..., 0]).sum(axis="ij"),
        lambda x, y, v: (jnp.sin(_differences(x, y)) * v[None, :, :1]).sum((0, 1)),
    ),
    "product form": (
        lambda x, y, v: (-Vi(x).sqdist(Vj(y), form="product") / D).exp() @ v[:, :2],
        lambda x, y, v: jnp.exp(-(_differences(x, y) ** 2).sum(-1) / D) @ v[:, :2],
    ),
}

VALUES: dict[str, tuple[Any, Any]] = {
    "argmin": (
        lambda x, y, v: Vi(x).sqdist(Vj(y)).argmin(axis=1),
        lambda x, y, v: (_differences(x, y) ** 2).sum(-1).argmin(1)[:, None].astype(jnp.int32),
    ),
    "argKmin": (
        lambda x, y, v: Vi(x).sqdist(Vj(y)).argKmin(5, axis=1),
        lambda x, y, v: jnp.argsort((_differences(x, y) ** 2).sum(-1), 1)[:, :5].astype(jnp.int32),
    ),
    "cosine similarity": (
        lambda x, y, v: (Vi(x).normalize() | Vj(y).normalize()).max(axis=1),
        lambda x, y, v: (x @ y.T / jnp.linalg.norm(x, axis=1)[:, None] / jnp.linalg.norm(y, axis=1)).max(1)[:, None],
    ),
    "softmax over features": (
        lambda x, y, v: ((Vi(x) * Vj(y)).softmax(-1) * Vj(y)).sum(axis=1),
        lambda x, y, v: (jax.nn.softmax(x[:, None] * y[None], axis=-1) * y).sum(1),
    ),
    "largest difference, and one feature": (
        lambda x, y, v: ((Vi(x) - Vj(y)).abs().max(-1) * Vi(x)[..., 3]).std(axis=1),
        lambda x, y, v: (jnp.abs(_differences(x, y)).max(-1) * x[:, 3:4]).std(1)[:, None],
    ),
}


def _programs(which: int) -> Any:
    def run(*args: Any) -> Any:
        outs: dict[str, Any] = {name: f[which](*args) for name, f in VALUES.items()}
        for name, f in SMOOTH.items():
            loss = lambda *a, g=f[which]: jnp.sum(jnp.sin(g(*a)))  # noqa: E731
            outs[name] = f[which](*args), jax.grad(loss, (0, 1, 2))(*args)
        return outs

    return run


def test_values_and_gradients() -> None:
    args = _arguments()
    got = jax.jit(lambda *a: run_on(_programs(0), _small, *a))(*args)
    want = jax.jit(_programs(1))(*args)
    for name in want:
        for a, b in zip(jax.tree.leaves(got[name]), jax.tree.leaves(want[name]), strict=True):
            assert a.shape == b.shape and a.dtype == b.dtype, name
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10 * float(jnp.max(jnp.abs(b))), err_msg=name)
