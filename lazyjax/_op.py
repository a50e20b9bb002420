"""One row of the table of operations, and what the functions of many rows need."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


@dataclasses.dataclass(frozen=True)
class Op:
    """One operation.

    name: the method of LazyTensor; fn(*features, **static parameters) -> features; arity: how many LazyTensors.
    symbol: how it is printed, "{0} + {1}" or None for a call.  broadcast: operands must have equal D, or 1.

    What the docstring of its method is made of (`_op_docs.py`), where that is not written by hand:
    doc: the summary, without a full stop.  note: sentences about the domain, singular points, the source.
    dtype: of the result, a key of `_op_docs.DTYPES`.  one: whether the result has one feature.  refuses: which dtypes.
    operands: the names of those after self.  example: "0.0, 4.0 -> 0.0, 2.0", arguments and values; or an expression
    in place of the arguments; "1.0 ~> 2.7183" where the value is rounded to 4 decimals.
    """

    name: str
    fn: Callable[..., Any]
    arity: int = 1
    symbol: str | None = None
    doc: str = ""
    broadcast: bool = True
    note: str = ""
    dtype: str = "float"
    one: bool = False
    refuses: str = ""
    operands: tuple[str, ...] = ("y",)
    example: str = ""


def unary(name: str, fn: Callable[..., Any], doc: str, **kwargs: Any) -> Op:
    """A row of one operand."""
    return Op(name, fn, 1, None, doc, **kwargs)


def binary(name: str, fn: Callable[..., Any], symbol: str | None, doc: str, **kwargs: Any) -> Op:
    """A row of two operands."""
    return Op(name, fn, 2, symbol, doc, **kwargs)


def vector(x: Any) -> jax.Array:
    """Features with at least one axis: a number is a vector of length 1."""
    x = jnp.asarray(x)
    return x.reshape(1) if x.ndim == 0 else x


def flat(x: Any) -> jax.Array:
    """Features as one vector, row by row: how KeOps holds matrices and tensors."""
    x = vector(x)
    return x if x.ndim == 1 else x.reshape(-1)


def floating(x: Any) -> jax.Array:
    """Integers and booleans as floats, as jnp does before sqrt or exp: int32 is float32, with and without x64."""
    x = jnp.asarray(x)
    if jnp.issubdtype(x.dtype, jnp.inexact):
        return x
    return x.astype(jax.eval_shape(jnp.sqrt, jax.ShapeDtypeStruct((), x.dtype)).dtype)


def cut(x: jax.Array, axis: int, start: int, stop: int, step: int) -> jax.Array:
    """x[start:stop:step] along one axis, by slices alone, which every kernel can do."""
    index = range(start, stop, step)
    if len(index) == 0:
        return lax.slice_in_dim(x, 0, 0, axis=axis)
    if step < 0:
        return jnp.flip(lax.slice_in_dim(x, index[-1], index[0] + 1, -step, axis), axis)
    return lax.slice_in_dim(x, start, stop, step, axis)


def aligned(op: Op) -> Op:
    """An operation whose operands broadcast, with as many feature axes on each: one number meets a matrix as (1, 1).

    Numbers without axes stay as they are, which also strict rank promotion allows.
    """
    if not op.broadcast or op.arity < 2:
        return op

    def fn(*xs: Any, **params: Any) -> Any:
        rank = max(map(jnp.ndim, xs))
        return op.fn(*(jnp.reshape(x, (1,) * rank) if 0 < jnp.ndim(x) < rank else x for x in xs), **params)

    return dataclasses.replace(op, fn=fn)
