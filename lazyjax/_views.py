"""Views of a LazyTensor: its values as an array, some of its rows and columns, its diagonal, listed entries."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ._errors import show, static_int
from ._formula import dense_bytes, show_bytes
from ._reductions import Sum
from ._request import Request, describe, first
from ._symbolic_reduction import unbound
from ._tape import Tape
from .kernels import Description
from .kernels.pairs import all_pairs, batched

# What `dense` makes without being asked twice: 1 GiB.
DENSE_BYTES = 1 << 30


class Views:
    """Values without a reduction. A feature axis of size 1 is hidden, as in `shape`."""

    __slots__ = ()

    if TYPE_CHECKING:
        _tape: Any
        _node: Any
        _data: Any
        _sizes: Any
        _shape: Any
        _aval: Any
        _ranges: Any
        dtype: Any
        shape: Any

        @classmethod
        def _make(cls, *args: Any) -> Any: ...

    def dense(self, *, max_bytes: Any = DENSE_BYTES) -> jax.Array:
        """All values as an array of shape `K.shape`: (*B, M, N), or (*B, M, N, D) where D is not 1. Differentiable.

        Args:
            max_bytes: the most memory that the array may take. 1 GiB unless told, so that nobody makes one unawares.

        Returns:
            An array in the dtype of K.

        Raises:
            ValueError: if it would take more, or if K has symbolic variables. TypeError: where max_bytes is no int.

        Example:
            >>> from lazyjax import Vi, Vj
            >>> (Vi([[0.0], [1.0]]) - Vj([[0.0], [1.0], [2.0]])).dense().tolist()
            [[0.0, -1.0, -2.0], [1.0, 0.0, -1.0]]
        """
        _check_bound(self, "dense")
        most, size = static_int(max_bytes, "max_bytes", "dense"), dense_bytes(self)
        if size is not None and size > most:
            raise ValueError(
                f"dense: an array of shape {self.shape} takes {show_bytes(size)}, more than max_bytes={most}. Reduce K "
                f"instead, select rows with K[rows, :], or allow it with max_bytes={size}."
            )
        return _dense(self._tape, self._node, *self._data)

    def diagonal(self) -> jax.Array:
        """The values of the pairs (i, i) of a square K. Differentiable; all pairs are never computed.

        Returns:
            An array (*B, M), or (*B, M, D) where D is not 1, in the dtype of K.

        Raises:
            ValueError: if M and N differ, or if K has symbolic variables.

        Example:
            >>> from lazyjax import Vi, Vj
            >>> (Vi([[1.0], [2.0]]) * Vj([[10.0], [20.0]])).diagonal().tolist()
            [10.0, 40.0]
        """
        _check_bound(self, "diagonal")
        _, m, n = self._sizes
        m, n = 1 if m is None else m, 1 if n is None else n
        if m != n:
            raise ValueError(
                f"diagonal: K of shape {self.shape} has {m} rows and {n} columns, expected as many of each."
            )
        numbers = np.arange(m, dtype=np.int32) if isinstance(m, int) else jnp.arange(m)
        return _entries(self._tape, self._node, numbers, numbers, *self._data)

    def at_pairs(self, i: Any, j: Any) -> jax.Array:
        """The values of the listed pairs (i[k], j[k]).

        Memory grows with L, not with the number of all pairs; differentiable in the data.

        Args:
            i, j: integer arrays (L,), or (*B, L) to list other pairs for each problem of a batch. Negative numbers
                count from the end.

        Returns:
            An array (*B, L), or (*B, L, D) where D is not 1, in the dtype of K.

        Raises:
            IndexError: for an index out of range; where an index is traced, its value is then NaN (for integers the
                lowest one, for booleans False).
            ValueError, TypeError: for other arrays, and if K has symbolic variables.

        Example:
            >>> import jax.numpy as jnp
            >>> from lazyjax import Vi, Vj
            >>> K = Vi(jnp.arange(4.0)[:, None]) * Vj(jnp.arange(5.0)[:, None])
            >>> K.at_pairs([1, -1], [4, 3]).tolist()
            [4.0, 9.0]
        """
        _check_bound(self, "at_pairs")
        batch, m, n = self._sizes
        i = _indices(i, 1 if m is None else m, "at_pairs: i", "M")
        j = _indices(j, 1 if n is None else n, "at_pairs: j", "N")
        if i.shape != j.shape or i.ndim not in (1, 1 + len(batch)):
            shape = "(L,)" if not batch else f"(L,) or ({', '.join(map(str, batch))}, L)"
            raise ValueError(f"at_pairs: i is {show(i)} and j is {show(j)}, expected two arrays of shape {shape}.")
        if i.ndim > 1 and any(a not in (1, b) for a, b in zip(i.shape, batch, strict=False)):
            raise ValueError(f"at_pairs: i is {show(i)}, but the batch dims of K are {batch}.")
        return _entries(self._tape, self._node, i, j, *self._data)

    def _pair_selection(self, key: Any) -> tuple[Any, Any] | None:
        """(K with only the rows and columns of a key, the key of its features); None if the key takes all pairs."""
        if not isinstance(key, tuple):
            return None
        rank = max(1, len(self._aval.shape))
        pairs, full = len(self._shape) - rank, len(self._shape)
        axes = sum(k is not None and k is not Ellipsis for k in key)
        where = [at for at, k in enumerate(key) if k is Ellipsis]
        if len(where) == 1 and axes <= full:
            key = (*key[: where[0]], *[slice(None)] * (full - axes), *key[where[0] + 1 :])
        elif not where and axes == len(key) == pairs:
            key = (*key, Ellipsis)  # K[rows, columns]
        elif where or axes != full:
            return None
        *batch, rows, columns = key[:pairs]
        if all(isinstance(k, slice) and k == slice(None) for k in (*batch, rows, columns)):
            return None
        if any(k is None for k in (*batch, rows, columns)):
            return None
        if any(not (isinstance(k, slice) and k == slice(None)) for k in batch):
            raise IndexError(
                f"indexing: only rows, columns and features of a LazyTensor of shape {self._shape} can be selected, "
                "not problems of its batch. Index the data before."
            )
        _check_bound(self, "indexing")
        if self._ranges is not None:
            raise ValueError(
                "indexing: K has ranges, which number the rows and columns that it has now. Select first, then set "
                "ranges for what is left."
            )
        _, m, n = self._sizes
        data = list(self._data)
        for entry, size, role in ((rows, m, "i"), (columns, n, "j")):
            chosen = _chosen(entry, 1 if size is None else size, role)
            if chosen is None:
                continue
            if size is None and chosen.count != 1:
                raise IndexError(
                    f"indexing: K has no {role}-variable, so its {role} axis has size 1, and {chosen.count} of it "
                    "cannot be selected."
                )
            for k, leaf in enumerate(self._tape.leaves):
                if leaf.role == role:
                    axis = data[k].ndim - leaf.feature_ndim - leaf.lead + (leaf.layout == "1,rows")
                    data[k] = chosen.of(data[k], axis)
        selected = self._make(self._tape, self._node, tuple(data), self._aval, None)
        return selected, (*[slice(None)] * pairs, *key[pairs:])


def _check_bound(tensor: Any, name: str) -> None:
    if unbound(tensor):
        raise ValueError(
            f"{name}: K has symbolic variables, which have no data yet. Make it of arrays: Vi(x), not Vi(0, dim)."
        )


class _Chosen(NamedTuple):
    """Rows (or columns) to keep: a slice, or an array of indices."""

    key: Any
    count: int

    def of(self, x: Any, axis: int) -> Any:
        if isinstance(self.key, slice):
            return x[(slice(None),) * axis + (self.key,)]
        if isinstance(self.key, Tracer):
            return jnp.take(x, self.key, axis=axis, mode="fill")
        return np.take(x, self.key, axis) if isinstance(x, np.ndarray) else jnp.take(x, self.key, axis=axis)


def _chosen(entry: Any, size: Any, role: str) -> _Chosen | None:
    """What an entry of a key selects along one axis; None for all of it."""
    rows, letter = ("rows", "M") if role == "i" else ("columns", "N")
    name = f"indexing: the {rows}"
    if isinstance(entry, slice):
        if entry == slice(None):
            return None
        for part, value in (("start", entry.start), ("stop", entry.stop), ("step", entry.step)):
            if value is not None:
                static_int(value, part, "indexing")
        return _Chosen(entry, len(range(*entry.indices(size))))
    if isinstance(entry, int | np.integer) and not isinstance(entry, bool):
        one = f"{entry}:{entry + 1}" if entry != -1 else "-1:"
        raise IndexError(
            f"{name}: got {entry}, which would drop the {role} axis, but a LazyTensor has both. Keep it with {one}, or "
            "look single values up with K.at_pairs(i, j)."
        )
    array: Any = entry if hasattr(entry, "dtype") else np.asarray(entry)
    if array.dtype == bool:
        if isinstance(array, Tracer):
            raise TypeError(
                f"{name}: a traced mask, {show(array)}, selects a number of them that is not known while tracing. Mask "
                "values instead: mask.where(K, 0) with a mask made by Vi or Vj."
            )
        if array.shape != (size,):
            raise IndexError(f"{name}: the mask is {show(array)}, expected ({size},) for {letter} = {size}.")
        array = np.nonzero(np.asarray(array))[0]
    array = _indices(array, size, name, letter)
    if array.ndim != 1:
        raise IndexError(f"{name}: got {show(array)}, expected a slice, a mask or a 1-D array of indices.")
    return _Chosen(array, array.shape[0])


def _indices(x: Any, size: Any, name: str, letter: str) -> Any:
    """Indices, negative ones counted from the end; out of range raises where they are known."""
    x = x if hasattr(x, "dtype") else np.asarray(x)
    if x.size == 0 and not hasattr(x, "aval"):
        x = x.astype(np.int32)  # an empty list
    if not jnp.issubdtype(x.dtype, jnp.integer):
        raise TypeError(f"{name}: got {show(x)}, expected integers.")
    if isinstance(x, Tracer) or not isinstance(size, int):
        return x
    x = np.asarray(x)
    wrong = (x < -size) | (x >= size)
    if wrong.any():
        raise IndexError(f"{name}: index {x[wrong][0]} is out of range for {letter} = {size}.")
    return np.where(x < 0, x + size, x).astype(np.int64 if size > np.iinfo(np.int32).max else np.int32)


def _described(tape: Tape, node: int, data: Sequence[Any]) -> tuple[Description, list[jax.Array]]:
    return describe(Request(tape, (node,), Sum(), "j", None, False, first), data)


def _hidden(out: jax.Array, desc: Description) -> jax.Array:
    """Without a feature axis of size 1."""
    return out[..., 0] if desc.pair.out_avals[0].shape == (1,) else out


@functools.partial(jax.jit, static_argnums=(0, 1), inline=True)
def _dense(tape: Tape, node: int, *data: Any) -> jax.Array:
    desc, args = _described(tape, node, data)
    (out,) = batched(lambda own: all_pairs(desc, desc.m, desc.n)(*own), desc, args)
    return _hidden(out, desc)


@functools.partial(jax.jit, static_argnums=(0, 1), inline=True)
def _entries(tape: Tape, node: int, i: Any, j: Any, *data: Any) -> jax.Array:
    """The pair function on gathered rows; what is out of range is replaced before, and its value after."""
    desc, args = _described(tape, node, data)
    nbatch = len(desc.batch)
    sizes = {"i": desc.m, "j": desc.n}

    def problem(own: Sequence[jax.Array]) -> Sequence[jax.Array]:
        *arrays, rows, columns = own
        at, there = {}, jnp.ones(rows.shape, bool)
        for role, k in (("i", rows), ("j", columns)):
            k = jnp.where(k < 0, k + sizes[role], k)
            inside = (k >= 0) & (k < sizes[role])
            at[role], there = jnp.where(inside, k, 0), there & inside
        if isinstance(rows.shape[0], int) and rows.shape[0] and 0 in sizes.values():
            arrays = [  # nothing can be looked up: any row will do
                jnp.zeros((1, *x.shape[1:]), x.dtype) if r != "p" else x
                for x, r in zip(arrays, desc.roles, strict=True)
            ]
        gathered = [x if r == "p" else x[at[r]] for x, r in zip(arrays, desc.roles, strict=True)]
        axes = tuple(None if r == "p" else 0 for r in desc.roles)
        values = jax.vmap(lambda a: tuple(desc.pair(*a)), (axes,), axis_size=rows.shape[0])(tuple(gathered))
        return [jnp.where(there.reshape(-1, *(1,) * (v.ndim - 1)), v, _nothing(v.dtype)) for v in values]

    listed = [jnp.asarray(k) for k in (i, j)]
    listed = [jnp.expand_dims(k, range(nbatch)) if k.ndim == 1 else k for k in listed]
    (out,) = batched(problem, desc, [*args, *listed])
    return _hidden(out, desc)


def _nothing(dtype: Any) -> Any:
    if jnp.issubdtype(dtype, jnp.inexact):
        return jnp.asarray(jnp.nan, dtype)
    return jnp.asarray(False if np.dtype(dtype).kind == "b" else jnp.iinfo(dtype).min, dtype)
