"""Rows of the table of operations: complex numbers and their parts."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ._op import Op, floating, unary


def _part(x: Any) -> jax.Array:
    """Real numbers in a precision that complex numbers have: float32 or float64."""
    x = floating(x)
    return x.astype(jnp.finfo(jnp.result_type(x, jnp.complex64)).dtype)


def _real2complex(x: Any) -> Any:
    x = _part(x)
    return lax.complex(x, jnp.zeros_like(x))


def _imag2complex(x: Any) -> Any:
    x = _part(x)
    return lax.complex(jnp.zeros_like(x), x)


def _exp1j(x: Any) -> Any:
    x = _part(x)
    return lax.complex(jnp.cos(x), jnp.sin(x))


COMPLEX: list[Op] = [
    unary("real", jnp.real, "the real part"),
    unary("imag", jnp.imag, "the imaginary part"),
    unary(
        "conj",
        jnp.conj,
        "The complex conjugate",
        dtype="same",
        note="As `numpy.conj`; real numbers stay as they are.",
        example="Vi([[1 + 2j]]).conj() -> (1-2j)",
    ),
    unary(
        "angle",
        jnp.angle,
        "The argument of a complex number, in [-pi, pi]",
        dtype="norm",
        note="As `numpy.angle`: pi of negative real numbers. The derivative at 0 is NaN.",
        example="Vi([[1j]]).angle() ~> 1.5708",
    ),
    unary("real2complex", _real2complex, "x + 0j"),
    unary("imag2complex", _imag2complex, "0 + x j"),
    unary("exp1j", _exp1j, "cos(x) + sin(x) j"),
]
