"""Lowering for GPUs on a machine without one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import jax


def abstract_gpu() -> Any:
    """jax 0.12 lowers Pallas-Triton only for a device that is described; jax 0.10 assumes compute capability 9.0."""
    if not hasattr(jax.sharding, "AbstractDevice"):
        return contextlib.nullcontext()
    device = jax.sharding.AbstractDevice(device_kind="NVIDIA H100 80GB HBM3", num_cores=132, platform="gpu")
    return jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((), (), abstract_device=device))


def lowered_for(platform: str, f: Callable[..., Any], *args: Any) -> str:
    """The StableHLO text of f lowered for "cuda" or "rocm"."""
    with abstract_gpu():
        return jax.jit(f).trace(*args).lower(lowering_platforms=(platform,)).as_text()


def kernel_calls(text: str) -> int:
    """How many Triton kernels a lowered program launches."""
    return text.count("@__gpu$xla.gpu.triton")
