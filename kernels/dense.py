"""The reference: all pairs in memory at once, reduced by the definition.  Runs only when asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from .description import Description
from .pairs import all_pairs, batched
from .ranges import kept

name = "dense"


def supports(desc: Description, platform: str) -> str | None:
    """None: everything is supported; it only needs the memory."""
    return None


def plan(desc: Description, platform: str) -> None:
    """There is nothing to choose."""


def lower(desc: Description, plan: Any) -> Callable[..., Sequence[jax.Array]]:
    """The whole M-by-N array of values, then one merge tree along j."""
    m, n, reduction = desc.m, desc.n, desc.reduction
    outputs = desc.pair.out_avals

    def problem(args: Sequence[jax.Array]) -> Sequence[jax.Array]:
        own, ranges = desc.split(args)
        values = all_pairs(desc, m, n)(*own)
        valid = kept(ranges[:3], m, n) if ranges else jnp.ones((m, n), bool)
        indices = jnp.arange(n, dtype=desc.index_dtype)
        if desc.over == "ij":
            flat = [v.reshape(m * n, *v.shape[2:]) for v in values]
            acc = reduction.block(flat, jnp.tile(indices, m), valid.reshape(m * n))
            return reduction.finalize(acc, outputs)
        rows = jax.vmap(lambda v, there: reduction.block(v, indices, there))(values, valid)
        return jax.vmap(lambda acc: tuple(reduction.finalize(acc, outputs)))(rows)

    return lambda *args: batched(problem, desc, args)
