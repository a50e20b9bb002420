"""The GPUs that kernels are compiled for, and what a launch on them may take."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import re

from .hardware import HARDWARE

FOLDER = pathlib.Path(__file__).parent / "chip_descriptions"


@dataclasses.dataclass(frozen=True)
class Chip:
    name: str

    @functools.cached_property
    def description(self) -> str:
        """A GpuTargetConfigProto, as XLA reads it."""
        return (FOLDER / f"{self.name}.txtpb").read_text()

    @property
    def kind(self) -> str:
        """The name that JAX knows it by."""
        return re.findall(r'device_description_str: "(.*)"', self.description)[0]

    def number(self, field: str) -> int:
        return int(re.findall(rf"\b{field}: (\d+)", self.description)[0])

    def refuses(self, grid: tuple[int, ...], threads: tuple[int, ...], shared: int, registers: int) -> list[str]:
        """What of a launch is beyond the limits of this chip."""
        own, count = self.number, threads[0] * threads[1] * threads[2]
        limits = [
            ("threads", count, own("threads_per_block_limit")),
            ("bytes of shared memory", shared, own("shared_memory_per_block_optin")),
        ]
        limits += [
            ("registers", count * -(-registers // 8) * 8, own("registers_per_block_limit")),
            ("registers of a thread", registers, 255),
        ]
        for axis, blocks, size in zip("xyz", grid, threads, strict=True):
            limits.append((f"programs along {axis}", blocks, own(f"block_dim_limit_{axis}")))
            limits.append((f"threads along {axis}", size, own(f"thread_dim_limit_{axis}")))
        return [f"{value} {what}, {most} at most" for what, value, most in limits if value > most]


A100, H100 = Chip("a100"), Chip("h100")
CHIPS = (H100,) if HARDWARE else (A100, H100)  # a GPU that is there does not care
