"""batch_axes: which axis of each leaf of a LazyTensor `jax.vmap` maps over."""

from __future__ import annotations

from typing import Any

from ._errors import show
from ._lazytensor import LazyTensor
from ._ranges import NDIM as RANGES_NDIM
from ._variables import leaf_sizes


def batch_axes(tensor: LazyTensor) -> LazyTensor:
    """The `in_axes` of a LazyTensor whose first batch dim is mapped over.

    `jax.vmap(f)(K)` maps axis 0 of every leaf, which is right if all of them have the first batch dim. Where some are
    shared (numbers, or variables without that dim) say so with `jax.vmap(f, in_axes=(batch_axes(K),))(K)`.

    Args:
        tensor: a LazyTensor with at least one batch dim.

    Returns:
        A LazyTensor of the same structure that holds 0 for the leaves with that batch dim and None for the others.

    Raises:
        TypeError, ValueError: for anything else, and where a leaf has size 1 along a longer batch dim.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from lazyjax import Vi, Vj, batch_axes
        >>> x, y = jnp.zeros((7, 4, 3)), jnp.ones((5, 3))
        >>> K = (Vi(x) - Vj(y)).sqnorm2() * 0.5
        >>> jax.vmap(lambda K: K.sum(axis=1), in_axes=(batch_axes(K),))(K).shape
        (7, 4, 1)
    """
    if not isinstance(tensor, LazyTensor):
        raise TypeError(f"batch_axes: got {show(tensor)}, expected a LazyTensor.")
    batch = tensor._sizes[0]
    if not batch:
        raise ValueError(f"batch_axes: the LazyTensor has shape {tensor.shape}, without a batch dim to map over.")
    axes: list[int | None] = []
    for leaf, x in zip(tensor._tape.leaves, tensor._data, strict=True):
        own, _ = leaf_sizes(leaf, x)
        mapped = len(own) == len(batch)
        if mapped and own[0] != batch[0]:
            raise ValueError(
                f"batch_axes: {show(x)} has size 1 along the first batch dim, where others have {batch[0]}; vmap "
                "cannot share it. Broadcast it, or leave that dim out of it."
            )
        axes.append(0 if mapped else None)
    axes += [_mapped_ranges(x, ndim, batch) for x, ndim in zip(tensor._ranges or (), RANGES_NDIM, strict=False)]
    return LazyTensor.tree_unflatten(tensor.tree_flatten()[1], axes)


def _mapped_ranges(x: Any, ndim: int, batch: Any) -> int | None:
    if x.ndim - ndim < len(batch):
        return None
    if x.shape[0] != batch[0]:
        raise ValueError(
            f"batch_axes: {show(x)}, of the ranges, has size {x.shape[0]} along the first batch dim, expected "
            f"{batch[0]}, or no such dim: vmap cannot share it otherwise."
        )
    return 0
