"""The second emitter: its kernels are text that Triton's own parser reads, and no planner chooses them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from lazyjax import Vi, Vj, explain
from lazyjax.kernels import Description, planner
from lazyjax.kernels.triton.ir import TritonIrPlan

from ..cases import CASES, arguments
from ..full import FULL
from ..kernels_of import run_on
from .lowering import lowered, triton_calls


@pytest.mark.parametrize("dtype", ["float32", "float64"] if FULL else ["float32"])
def test_every_case_is_written(dtype: str) -> None:
    args = tuple(a.astype(dtype) for a in arguments(100, 150))

    def on_text(desc: Description, arrays: Sequence[jax.Array]) -> Sequence[jax.Array]:
        chosen = desc.replace(backend="triton-ir")
        return planner.plan(chosen, "cuda").lower(chosen)(*arrays)

    def every(*args: Any) -> list[Any]:
        return [run_on(case.ours, on_text, *args) for case in CASES]

    calls = triton_calls(lowered("cuda", every, *args))
    assert len(calls) == sum(case.passes for case in CASES)
    assert all(call.refused() == [] and call.warps == 4 and call.stages == 1 for call in calls)
    assert not any("100x150" in call.ir for call in calls)


def test_batches_are_the_second_axis_of_the_grid() -> None:
    x, y, _, _ = arguments(100, 150)
    f = lambda x, y: Vi(x).sqdist(Vj(y)).sum(axis=1, backend="triton-ir")  # noqa: E731
    each = jax.vmap(jax.vmap(f, in_axes=(0, None)), in_axes=(None, 0))
    (call,) = triton_calls(lowered("cuda", each, jnp.stack([x] * 3), jnp.stack([y] * 2)))
    assert call.grid == (4, 6, 1)


def test_it_runs_only_where_it_is_asked_for() -> None:
    x = jnp.ones((100, 3))
    f = lambda x, backend: Vi(x).sqdist(Vj(x)).sum(axis=1, backend=backend)  # noqa: E731
    for platform, kernel in (("cpu", "xla"), ("cuda", "pallas-triton")):
        (explained,) = explain(lambda x: f(x, None), x, platform=platform)
        assert explained.plan.kernel == kernel
    (explained,) = explain(lambda x: f(x, "triton-ir"), x, platform="cuda")
    assert explained.plan.kernel == "triton-ir" and explained.plan.tiles == TritonIrPlan(32, 32)
    with pytest.raises(
        ValueError, match=r"backend='triton-ir' cannot run this reduction on cpu: it is for cuda, not cpu"
    ):
        f(x, "triton-ir")


def _many(x: jax.Array) -> jax.Array:
    one = lambda y: Vi(y).sqdist(Vj(y)).sum(axis=1, backend="triton-ir")  # noqa: E731
    return jax.vmap(one)(jnp.broadcast_to(x[:1], (70000, 1, 3)))


REFUSED = {
    "it does not write round in Triton's IR": lambda x: (Vi(x) * Vj(x)).round().sum(axis=1, backend="triton-ir"),
    "float16 values are not written in Triton's IR": lambda x: (Vi(x.astype("float16")) * Vj(x.astype("float16"))).sum(
        axis=1, backend="triton-ir"
    ),
    "70000 problems are more than the 65535 programs": _many,
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_it_refuses(message: str) -> None:
    with pytest.raises(ValueError, match=f"backend='triton-ir' cannot run this reduction on cuda: {message}"):
        explain(REFUSED[message], jnp.ones((100, 3), jnp.float32), platform="cuda")
