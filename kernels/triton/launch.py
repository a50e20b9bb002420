"""One call of Pallas for its Triton backend, with whole arrays: a kernel addresses them by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax

from .plan import TritonPlan


def launch(
    kernel: Callable[..., None],
    plan: TritonPlan,
    arrays: Sequence[jax.Array],
    out_shape: Sequence[jax.ShapeDtypeStruct],
    grid: tuple[int, ...],
) -> list[jax.Array]:
    """What the kernel wrote, for a grid of programs."""
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton as plt

    def whole(s: tuple[int, ...]) -> Any:
        return pl.BlockSpec(s, lambda *_: (0,) * len(s))

    call = pl.pallas_call(
        kernel,
        out_shape=list(out_shape),
        grid=grid,
        in_specs=[whole(x.shape) for x in arrays],
        out_specs=[whole(s.shape) for s in out_shape],
        compiler_params=plt.CompilerParams(num_warps=plan.warps, num_stages=plan.stages),
        interpret=plan.interpret,
        name="lazyjax",
    )
    return list(call(*arrays))
