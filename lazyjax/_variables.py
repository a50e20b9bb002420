"""From data to leaves: what an array, a number or an index means as a variable of a formula."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ._errors import show, static_int
from ._tape import Leaf
from .kernels.description import Role

DTYPES = (
    "float16", "bfloat16", "float32", "float64", "complex64", "complex128", "int8", "int16", "int32", "int64",
    "uint8", "uint16", "uint32", "bool",
)  # fmt: skip

_ROLE_NAME = {"i": "an i-variable", "j": "a j-variable", "p": "a parameter"}
_SIDES: list[Role] = ["i", "j"]


def is_array(x: Any) -> bool:
    """A NumPy or JAX array, a NumPy number, or anything that JAX traces in their place."""
    return isinstance(x, np.ndarray | np.generic | jax.Array)


def checked_array(x: Any, name: str) -> Any:
    """An array whose dtype the language knows; lists and other buffers become NumPy arrays."""
    if hasattr(x, "_tape"):
        raise TypeError(f"{name}: got a LazyTensor, {x!r}, expected an array. Use the LazyTensor as it is.")
    if not is_array(x):
        given = x
        try:
            traced = isinstance(x, list | tuple) and any(isinstance(v, jax.Array) for v in x)
            x = jnp.asarray(x) if traced else np.asarray(x)
        except ValueError as error:
            raise TypeError(f"{name}: expected an array, got {show(x)}. Pass a NumPy or JAX array.") from error
        if x.dtype.kind in "OSU":
            raise TypeError(f"{name}: expected an array, got {show(given)}. Pass a NumPy or JAX array.")
    if not _known(x.dtype):
        raise TypeError(
            f"{name}: dtype {x.dtype} of {show(x)} is not one that a formula can hold. Use one of {', '.join(DTYPES)}."
        )
    return x


@functools.lru_cache(maxsize=256)
def _known(dtype: Any) -> bool:
    return not jnp.issubdtype(dtype, jax.dtypes.extended) and np.dtype(dtype).name in DTYPES


def number_leaf(x: Any, name: str) -> tuple[Leaf, Any]:
    """A number, a 0-D array, a vector (D,) or a list of numbers: a parameter."""
    if type(x) in (float, complex):
        return Leaf("p", 0, ""), x  # stays weakly typed, and a new value never recompiles
    x = checked_array(x, name)
    if x.ndim > 1:
        raise ValueError(
            f"{name}: {show(x)} is neither a number nor a vector (D,). For a parameter with batch dims give "
            "(*B, 1, 1, D); for an i- or j-variable give (*B, M, 1, D) or (*B, 1, N, D), or Vi and Vj."
        )
    return Leaf("p", x.ndim, ""), x


def data_leaf(x: Any, axis: Any, name: str) -> tuple[Leaf, Any]:
    """LazyTensor(x, axis): the role of an array told by its shape, or by `axis`."""
    if isinstance(x, tuple) and len(x) == 3 and all(type(k) is int for k in x):  # KeOps' (index, dim, category)
        index, size, category = x
        if axis is not None or category not in (0, 1, 2):
            raise ValueError(
                f"{name}: {x} is the symbolic variable (index, dim, category), so the last number must be 0 for an "
                "i-variable, 1 for a j-variable or 2 for a parameter, and axis must not be given. For a parameter of "
                f"three numbers give the list {list(x)}."
            )
        return variable_leaf(index, size, (*_SIDES, "p")[category], 1, name)
    if type(x) in (float, complex) or (not is_array(x) and isinstance(x, int)):
        if axis is not None:
            raise ValueError(f"{name}: a number is a parameter, so axis={axis!r} must not be given.")
        return number_leaf(x if type(x) in (float, complex) else np.asarray(x), name)
    x = checked_array(x, name)
    if x.ndim <= 1:
        if axis is not None:
            raise ValueError(
                f"{name}: {show(x)} with axis={axis!r}. A vector is a parameter; an i- or j-variable of scalars is "
                "(M, 1): write x[:, None]."
            )
        return number_leaf(x, name)
    if x.ndim == 2:
        if axis is None:
            raise ValueError(
                f"{name}: {show(x)} is a 2-D array, so axis is needed: axis=0 for an i-variable (M, D), axis=1 for "
                "a j-variable (N, D). Or give (M, 1, D) or (1, N, D)."
            )
        axis = static_int(axis, "axis", name)
        if axis not in (0, 1):
            raise ValueError(f"{name}: axis={axis!r}, expected 0 (i-variable) or 1 (j-variable).")
        return Leaf(_SIDES[axis], 1, "rows"), x
    if axis is not None:
        raise ValueError(
            f"{name}: axis={axis!r} was given with {show(x)}. An array of 3 axes or more tells its role by its shape, "
            "(*B, M, 1, D), (*B, 1, N, D) or (*B, 1, 1, D): leave axis out."
        )
    m, n = x.shape[-3], x.shape[-2]
    if isinstance(m, int) and m == 1 and isinstance(n, int) and n == 1:
        return Leaf("p", 1, "1,1"), x
    if isinstance(n, int) and n == 1:
        return Leaf("i", 1, "rows,1"), x
    if isinstance(m, int) and m == 1:
        return Leaf("j", 1, "1,rows"), x
    raise ValueError(
        f"{name}: {show(x)} has {m} at axis -3 and {n} at axis -2, so it is neither an i-variable (*B, M, 1, D) nor a "
        "j-variable (*B, 1, N, D). Insert an axis: x[..., :, None, :] or x[..., None, :, :]."
    )


def variable_leaf(x: Any, dim: Any, role: Role, feature_ndim: Any, name: str) -> tuple[Leaf, Any]:
    """Vi, Vj, Pm: data with its role, or (index, dim) for a symbolic variable."""
    if dim is not None:
        index, size = static_int(x, "index", name), static_int(dim, "dim", name)
        if index < 0 or size < 1:
            raise ValueError(f"{name}({index}, {size}): expected an index of at least 0 and a dim of at least 1.")
        if feature_ndim != 1:
            raise ValueError(
                f"{name}: feature_ndim={feature_ndim!r}, expected 1: a symbolic variable has one feature axis."
            )
        return Leaf(role, 1, "" if role == "p" else "rows", (index, size)), None
    ndim = static_int(feature_ndim, "feature_ndim", name)
    if ndim < 1:
        raise ValueError(f"{name}: feature_ndim={ndim}, expected at least 1.")
    if role == "p":
        if type(x) in (float, complex):
            return number_leaf(x, name)
        x = checked_array(x, name)
        if ndim == 1 and x.ndim <= 1:
            return number_leaf(x, name)
        if x.ndim < ndim:
            raise ValueError(f"{name}: {show(x)} has fewer axes than feature_ndim={ndim}.")
        return Leaf(role, ndim, ""), x
    if not is_array(x) and isinstance(x, int | float | complex):
        raise TypeError(
            f"{name}: got {show(x)} where an array (*B, {'M' if role == 'i' else 'N'}, D) was expected. "
            f"For a symbolic variable give its dim too: {name}({x!r}, dim)."
        )
    x = checked_array(x, name)
    rows = "M" if role == "i" else "N"
    if x.ndim < ndim + 1:
        features = "D" if ndim == 1 else ", ".join(f"D{k + 1}" for k in range(ndim))
        raise ValueError(
            f"{name}: {show(x)} is not {_ROLE_NAME[role]} (*B, {rows}, {features}). Scalars for each row are "
            f"({rows}, 1): write x[:, None]."
        )
    return Leaf(role, ndim, "rows"), x


def leaf_aval(leaf: Leaf, x: Any) -> jax.ShapeDtypeStruct:
    """Shape and dtype of the features of a leaf."""
    if leaf.symbol is not None and x is None:
        return jax.ShapeDtypeStruct((leaf.symbol[1],), jnp.result_type(float))
    if not hasattr(x, "shape"):  # a Python number, or the kind that JAX makes of one inside a jaxpr
        aval = jax.typeof(x)
        return jax.ShapeDtypeStruct((), aval.dtype, weak_type=aval.weak_type)
    shape = x.shape
    return _aval(
        shape[len(shape) - leaf.feature_ndim :], jax.dtypes.canonicalize_dtype(x.dtype),
        bool(getattr(x, "weak_type", False)),
    )  # fmt: skip


@functools.lru_cache(maxsize=8192)
def _aval(shape: tuple[Any, ...], dtype: Any, weak: bool) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype, weak_type=weak)


def leaf_sizes(leaf: Leaf, x: Any) -> tuple[tuple[Any, ...], Any]:
    """(batch dims, rows) of a leaf; rows is None for a parameter."""
    if x is None or not hasattr(x, "shape"):
        return (), None
    lead = x.ndim - leaf.feature_ndim - leaf.lead
    batch = tuple(x.shape[:lead])
    if leaf.layout in ("rows", "rows,1"):
        return batch, x.shape[lead]
    return batch, (x.shape[lead + 1] if leaf.layout == "1,rows" else None)


def canonical(leaf: Leaf, x: Any, nbatch: int) -> jax.Array:
    """The array as the primitive wants it: (*B, rows, *F) with all the batch dims, sizes 1 where shared."""
    x = jnp.asarray(x)
    lead = x.ndim - leaf.feature_ndim - leaf.lead
    gone = {"rows,1": (lead + 1,), "1,rows": (lead,), "1,1": (lead, lead + 1)}.get(leaf.layout, ())
    return lax.expand_dims(lax.squeeze(x, gone), range(nbatch - lead))


Sizes = tuple[tuple[Any, ...], Any, Any]  # batch dims, M, N (None where no variable has that axis)


def common_sizes(a: Sizes, b: Sizes, name: str) -> Sizes:
    """The axes of two operands together; `name` is who joins them."""
    (batch_a, m_a, n_a), (batch_b, m_b, n_b) = a, b
    rows = []
    for axis, own, other in (("M", m_a, m_b), ("N", n_a, n_b)):
        if own is not None and other is not None and own != other:
            letter = "i" if axis == "M" else "j"
            raise ValueError(
                f"{name}: the {letter}-variables of the operands have {axis} = {own} and {axis} = {other} rows, "
                "expected the same number."
            )
        rows.append(other if own is None else own)
    if batch_a == batch_b:
        return batch_a, rows[0], rows[1]
    try:
        batch = jnp.broadcast_shapes(batch_a, batch_b)
    except ValueError:
        raise ValueError(
            f"{name}: batch dims {batch_a} and {batch_b} do not broadcast; sizes must be equal, or 1."
        ) from None
    return tuple(batch), rows[0], rows[1]
