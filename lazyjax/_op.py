"""One row of the table of operations, and what the functions of many rows need."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Op:
    """One operation.

    name: the method of LazyTensor; fn(*features, **static parameters) -> features; arity: how many LazyTensors.
    symbol: how it is printed, "{0} + {1}" or None for a call.  broadcast: operands must have equal D, or 1.
    """

    name: str
    fn: Callable[..., Any]
    arity: int = 1
    symbol: str | None = None
    doc: str = ""
    broadcast: bool = True


def unary(name: str, fn: Callable[..., Any], doc: str) -> Op:
    """A row of one operand."""
    return Op(name, fn, 1, None, doc)


def binary(name: str, fn: Callable[..., Any], symbol: str | None, doc: str, **kwargs: Any) -> Op:
    """A row of two operands."""
    return Op(name, fn, 2, symbol, doc, **kwargs)


def vector(x: Any) -> jax.Array:
    """Features with at least one axis: a number is a vector of length 1."""
    x = jnp.asarray(x)
    return x.reshape(1) if x.ndim == 0 else x


def floating(x: Any) -> jax.Array:
    """Integers and booleans as floats, as jnp does before sqrt or exp."""
    x = jnp.asarray(x)
    return x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(jnp.result_type(float))
