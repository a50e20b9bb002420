"""What every kernel shares: pair functions over many pairs, and batch dims around a single problem."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .description import Description, Role


def axes_for(roles: Sequence[Role], role: Role) -> tuple[int | None, ...]:
    """`in_axes` that maps the leading axis of the arguments of one role."""
    return tuple(0 if r == role else None for r in roles)


def all_pairs(desc: Description, m: int, n: int) -> Callable[..., Any]:
    """The pair function on all pairs of a tile: outputs (m, n, *F), whichever roles f reads."""
    roles = desc.roles

    def over(fn: Callable[..., Any], role: Role, size: int) -> Callable[..., Any]:
        return jax.vmap(fn, in_axes=(axes_for(roles, role),), axis_size=size)

    fn = over(lambda args: tuple(desc.pair(*args)), "j", n)
    return lambda *args: over(fn, "i", m)(args)


def nothing(desc: Description) -> Callable[..., Sequence[jax.Array]]:
    """A reduction over no pairs: the neutral element, finalized, for every row."""

    def run(*args: jax.Array) -> Sequence[jax.Array]:
        del args
        values = desc.pair.out_avals
        row = desc.reduction.finalize(desc.reduction.init(values), values)
        return [jnp.broadcast_to(jnp.asarray(x, o.dtype), o.shape) for x, o in zip(row, desc.outputs, strict=True)]

    return run


def padded_size(size: Any, tile: int) -> Any:
    """Rows that tiles of this size may touch.  A symbolic size takes a tile more, which needs no comparison."""
    return -(-size // tile) * tile if isinstance(size, int) else size + tile


def pad_leading(x: jax.Array, extra: Any) -> jax.Array:
    """Zeros after the leading axis; their results are masked or dropped, never read."""
    if isinstance(extra, int) and extra == 0:
        return x
    tail = jnp.zeros((extra, *x.shape[1:]), x.dtype)
    return lax.concatenate([x, tail], 0)


def tiles_of_rows(
    desc: Description, args: Sequence[jax.Array], tile: int
) -> tuple[Any, Callable[[Any], list[jax.Array]]]:
    """How many rows all tiles of i have together, and the arguments for tile k."""
    rows = padded_size(desc.m, tile)
    padded = [pad_leading(x, rows - desc.m) if r == "i" else x for x, r in zip(args, desc.roles, strict=True)]

    def args_of(k: Any) -> list[jax.Array]:
        return [
            lax.dynamic_slice_in_dim(x, k * tile, tile) if r == "i" else x
            for x, r in zip(padded, desc.roles, strict=True)
        ]

    return rows, args_of


def by_rows(
    desc: Description, tile: int, one: Callable[[Sequence[jax.Array]], Sequence[jax.Array]]
) -> Callable[[Sequence[jax.Array]], Sequence[jax.Array]]:
    """One problem, every row on its own: `one` gives the results of a tile of rows, of its arguments."""
    m = desc.m

    def problem(args: Sequence[jax.Array]) -> Sequence[jax.Array]:
        if isinstance(m, int) and m <= tile:
            return one(args)
        rows, args_of = tiles_of_rows(desc, args, tile)

        def step(k: Any, outs: list[jax.Array]) -> list[jax.Array]:
            new = one(args_of(k))
            return [lax.dynamic_update_slice_in_dim(o, x, k * tile, 0) for o, x in zip(outs, new, strict=True)]

        outs = [jnp.zeros((rows, *o.shape[1:]), o.dtype) for o in desc.replace(batch=()).outputs]
        return [o[:m] for o in lax.fori_loop(0, -(-m // tile), step, outs)]

    return problem


def batched(
    core: Callable[[Sequence[jax.Array]], Sequence[jax.Array]],
    desc: Description,
    args: Sequence[jax.Array],
    together: int | None = None,
) -> Sequence[jax.Array]:
    """Run `core`, written for a single problem, over the batch dims of a description.

    Arguments of batch size 1 are shared, never copied.  At most `together` problems are vectorised
    at once (None: all of them); the others follow one after the other.
    """
    if not desc.batch:
        return core(args)
    size, rest = desc.batch[0], desc.replace(batch=desc.batch[1:])
    inside = 1
    for b in rest.batch:
        inside = inside * b
    mapped = [k for k, a in enumerate(args) if a.shape[0] != 1 or _is_one(size)]
    shared = {k: lax.squeeze(a, (0,)) for k, a in enumerate(args) if k not in mapped}

    def one(own: Sequence[jax.Array]) -> Sequence[jax.Array]:
        merged = dict(shared) | dict(zip(mapped, own, strict=True))
        return batched(core, rest, [merged[k] for k in range(len(args))], together)

    own = [args[k] for k in mapped]
    if not mapped:
        return [jnp.broadcast_to(x, (size, *x.shape)) for x in one(own)]
    if together is None or (isinstance(size, int) and isinstance(inside, int) and size * inside <= together):
        return jax.vmap(one)(own)
    if not isinstance(size, int) or not isinstance(inside, int) or inside >= together:
        return lax.map(one, own)
    return lax.map(one, own, batch_size=max(1, together // inside))


def _is_one(size: Any) -> bool:
    return isinstance(size, int) and size == 1
