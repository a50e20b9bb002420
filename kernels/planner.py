"""Which kernel runs a reduction, and why the others were refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax

from . import dense
from .cost import operations
from .description import Description
from .pairs import nothing
from .triton import ir, pallas
from .xla import kernel as xla

KERNELS = {k.name: k for k in (pallas, ir, xla, dense)}
GPU = ("cuda", "rocm")


class UnsupportedError(ValueError):
    """The kernel that was asked for cannot run this reduction; the text says why and what to do."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """The choice made for one description on one platform."""

    kernel: str
    tiles: Any
    platform: str
    operations: int | None  # scalar operations on one pair
    refused: tuple[tuple[str, str], ...]  # (kernel, reason)

    def lower(self, desc: Description) -> Callable[..., Sequence[jax.Array]]:
        """A JAX function of the arrays of the description."""
        sizes = (desc.m, desc.n, *desc.batch, *(desc.ranges[:2] if desc.ranges else ()))
        empty = [s for s in sizes if isinstance(s, int) and s == 0]
        return nothing(desc) if empty else KERNELS[self.kernel].lower(desc, self.tiles)


def _with_pairs(desc: Description) -> Description:
    """The same, sizes of 0 taken as 1: nothing runs where there are no pairs, but there is a plan for it."""
    some = lambda size: size if not isinstance(size, int) else max(size, 1)  # noqa: E731
    return desc.replace(m=some(desc.m), n=some(desc.n), batch=tuple(map(some, desc.batch)))


def plan(desc: Description, platform: str) -> Plan:
    """Choose a kernel for a platform ("cpu", "cuda", "rocm", "tpu"), or refuse with the reason."""
    desc = _with_pairs(desc)
    cost = operations(desc)
    number = cost if isinstance(cost, int) else None
    refused: list[tuple[str, str]] = []
    if desc.backend is not None:
        kernel = KERNELS[desc.backend]
        if (reason := kernel.supports(desc, platform)) is not None:
            raise UnsupportedError(
                f"backend={desc.backend!r} cannot run this reduction on {platform}: {reason}. "
                "Leave backend=None to let the planner choose a kernel that can."
            )
        return Plan(desc.backend, kernel.plan(desc, platform), platform, number, ())
    if platform in GPU:
        reason = pallas.supports(desc, platform)
        if reason is None:
            return Plan("pallas-triton", pallas.plan(desc, platform), platform, number, ())
        refused.append(("pallas-triton", reason))
    else:
        refused.append(("pallas-triton", f"it is for {' and '.join(GPU)}, not {platform}"))
    refused.append(("dense", "it holds all pairs in memory, so it runs only when asked for"))
    return Plan("xla", xla.plan(desc, platform), platform, number, tuple(refused))
