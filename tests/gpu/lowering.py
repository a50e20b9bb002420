"""Lowering for GPUs on a machine without one, and the kernels in what is lowered.  Needs jaxlib alone."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.interpreters import mlir
from jaxlib.mlir import ir
from jaxlib.triton import dialect

from .chips import H100, Chip

TARGET = "__gpu$xla.gpu.triton"  # the custom call by which XLA takes Triton's IR


def abstract_gpu(chip: Chip = H100) -> Any:
    """jax 0.12 lowers Pallas-Triton only for a device that is described; jax 0.10 assumes compute capability 9.0."""
    if not hasattr(jax.sharding, "AbstractDevice"):
        return contextlib.nullcontext()
    cores = chip.number("core_count")
    device = jax.sharding.AbstractDevice(device_kind=chip.kind, num_cores=cores, platform="gpu")
    return jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((), (), abstract_device=device))


def lowered(platform: str, f: Callable[..., Any], *args: Any) -> Any:
    """f lowered for "cuda" or "rocm"."""
    with abstract_gpu():
        return jax.jit(f).trace(*args).lower(lowering_platforms=(platform,))


def lowered_for(platform: str, f: Callable[..., Any], *args: Any) -> str:
    """The StableHLO text of f lowered for "cuda" or "rocm"."""
    return lowered(platform, f, *args).as_text()


def kernel_calls(text: str) -> int:
    """How many Triton kernels a lowered program launches."""
    return text.count(f"@{TARGET}")


@dataclasses.dataclass(frozen=True)
class TritonCall:
    """One launch as it stands in a lowered program."""

    name: str
    grid: tuple[int, int, int]
    warps: int
    stages: int
    ir: str

    def refused(self) -> list[str]:
        """What XLA would not refuse, but die of, or what no chip can launch."""
        found = []
        if self.warps not in (1, 2, 4, 8, 16, 32):
            found.append(f"{self.warps} warps, not a power of two up to 32")
        if not 1 <= self.stages <= 8:
            found.append(f"{self.stages} stages")
        if min(self.grid) < 1:
            found.append(f"a grid of {self.grid}")
        return found


def triton_calls(lowered: Any) -> list[TritonCall]:
    """The launches in a lowered program, with their IR as text."""
    return list(_calls_in(lowered.compiler_ir("stablehlo").operation))


def _calls_in(operation: Any) -> Iterator[TritonCall]:
    if operation.name == "stablehlo.custom_call" and TARGET in str(operation.attributes["call_target_name"]):
        found: dict[str, Any] = {}
        for item in operation.attributes["mhlo.backend_config"]:
            if item.name == "ir":
                found["ir"] = _text(ir.StringAttr(item.attr).value_bytes)
            elif isinstance(item.attr, ir.IntegerAttr | ir.StringAttr):
                found[item.name] = item.attr.value
        grid = (found["grid_x"], found["grid_y"], found["grid_z"])
        yield TritonCall(found["name"], grid, found["num_warps"], found["num_stages"], found["ir"])
    for region in operation.regions:
        for block in region.blocks:
            for inner in block.operations:
                yield from _calls_in(inner.operation)


def _text(code: bytes) -> str:
    """MLIR, bytecode or text, as text."""
    with mlir.make_ir_context() as context:
        dialect.register_dialect(context)
        context.allow_unregistered_dialects = True
        return ir.Module.parse(code).operation.get_asm(enable_debug_info=False)
