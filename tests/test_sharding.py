"""shard_map over i and over j on two virtual CPU devices, and arrays with automatic and explicit shardings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from .cases import CASES, Case, arguments

M, N = 12, 16
BY_NAME = {c.name: c for c in CASES}


def _mesh(kind: AxisType) -> jax.sharding.Mesh:
    assert jax.device_count() >= 2, "conftest.py asks for two virtual CPU devices"
    return jax.make_mesh((2,), ("d",), axis_types=(kind,), devices=jax.devices()[:2])


def _agree(ours: Callable[..., Any], dense: Callable[..., Any], smooth: bool = True) -> None:
    args = arguments(M, N)

    def programs(f: Callable[..., Any]) -> Any:
        loss = lambda *a: jnp.sum(jnp.sin(f(*a)))  # noqa: E731
        outs = [f(*args)]
        if smooth:
            outs.append(jax.grad(loss, (0, 1, 2, 3))(*args))
            outs.append(jax.jvp(jax.grad(loss, (0, 1)), args, args)[1])
        return outs

    # Dense JAX step by step: XLA may compute a distance and its minimum with other roundings, which then differ.
    got, want = jax.jit(lambda: programs(ours))(), programs(dense)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", ["K @ b", "min", "argmin", "Kmin", "logsumexp", "sumsoftmaxweight"])
def test_over_i(name: str) -> None:
    case: Case = BY_NAME[name]
    mesh = _mesh(AxisType.Auto)
    sharded = jax.shard_map(case.ours, mesh=mesh, in_specs=(P("d"), P(), P(), P()), out_specs=P("d"), check_vma=True)
    _agree(jax.jit(sharded), case.dense, case.smooth)


def _over_j(local: Callable[..., Any]) -> Callable[..., Any]:
    mesh = _mesh(AxisType.Auto)
    return jax.jit(jax.shard_map(local, mesh=mesh, in_specs=(P(), P("d"), P("d"), P()), out_specs=P(), check_vma=True))


def test_sum_over_j_merged_by_psum() -> None:
    case = BY_NAME["K @ b"]
    _agree(_over_j(lambda *a: jax.lax.psum(case.ours(*a), "d")), case.dense)


def test_logsumexp_over_j_merged() -> None:
    case = BY_NAME["logsumexp"]

    def merged(*args: Any) -> Any:
        local = case.ours(*args)
        shift = jax.lax.pmax(jax.lax.stop_gradient(local), "d")
        return shift + jnp.log(jax.lax.psum(jnp.exp(local - shift), "d"))

    _agree(_over_j(merged), case.dense)


def test_argmin_over_j_merged() -> None:
    from lazyjax import Pm, Vi, Vj

    def merged(x: Any, y: Any, b: Any, s: Any) -> Any:
        value, index = (Pm(s) * Vi(x).sqdist(Vj(y))).min_argmin(axis=1)
        index = index + jax.lax.axis_index("d") * y.shape[0]
        best = jax.lax.pmin(value, "d")
        return jax.lax.pmin(jnp.where(value == best, index, jnp.iinfo(index.dtype).max), "d")

    _agree(_over_j(merged), BY_NAME["argmin of min_argmin"].dense, smooth=False)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_sharded_arrays(kind: AxisType) -> None:
    case = BY_NAME["K @ b"]
    mesh = _mesh(kind)
    x, y, b, s = arguments(M, N)
    with jax.set_mesh(mesh):
        placed = jax.device_put(x, NamedSharding(mesh, P("d")))
        out = jax.jit(case.ours)(placed, y, b, s)
        gradient = jax.jit(jax.grad(lambda x: jnp.sum(jnp.sin(case.ours(x, y, b, s)))))(placed)
    np.testing.assert_allclose(out, case.dense(x, y, b, s), rtol=1e-10)
    np.testing.assert_allclose(
        gradient, jax.grad(lambda x: jnp.sum(jnp.sin(case.dense(x, y, b, s))))(x), rtol=1e-9, atol=1e-12
    )
    if kind is AxisType.Explicit:
        assert jax.typeof(out).sharding.spec[0] == "d"
