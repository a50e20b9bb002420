"""How errors speak: the argument, what came, what was expected, what to do."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

_SHORT = {"float": "f", "int": "i", "uint": "u", "complex": "c", "bfloat": "bf"}


def show(x: Any) -> str:
    """An argument in a few characters: f32[3,4] for an array, its type and value otherwise."""
    if hasattr(x, "shape") and hasattr(x, "dtype"):
        name = np.dtype(x.dtype).name if not jnp.issubdtype(x.dtype, jax.dtypes.extended) else str(x.dtype)
        for long, short in _SHORT.items():
            if name.startswith(long) and name[len(long) :].isdigit():
                name = short + name[len(long) :]
                break
        return f"{name}[{','.join(map(str, x.shape))}]"
    text = repr(x)
    return f"{type(x).__name__} {text if len(text) <= 60 else text[:57] + '...'}"


def static_int(value: Any, name: str, method: str) -> int:
    """A number that must be known while tracing."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer):
        if isinstance(value, Tracer):
            raise TypeError(
                f"{method}: {name} is a traced value ({show(value)}), but it must be known when the formula is "
                f"written, because shapes depend on it. Pass a Python int, or mark the argument with "
                "static_argnums in jax.jit."
            )
        raise TypeError(f"{method}: {name} must be an int, got {show(value)}.")
    return int(value)
