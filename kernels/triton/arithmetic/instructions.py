"""Machine instructions that XLA does not emit by itself: what they are in PTX, and in ordinary arithmetic.

XLA compiles Triton kernels without contracting a * b + c, with the accurate functions of libdevice and without flushing
denormal numbers.  A kernel that asks for an instruction by name gets it as inline assembly on CUDA; everywhere else
(interpreted on the CPU, on ROCm, where PTX text would lower unnoticed) it gets ordinary arithmetic.

Errors are those of the PTX ISA 8.8, section 9.7.3 (floating point instructions).  `.ftz` reads and writes numbers below
1.2e-38 as 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import lax

from ...scalarize import broadcast_tile

_LETTER = {np.dtype(np.float32): "f", np.dtype(np.float64): "d"}
_TYPE = {"f": "f32", "d": "f64"}


def _minimum(a: Any, b: Any) -> Any:
    return lax.select(lax.lt(b, a) | lax.ne(a, a), b, a)


def _maximum(a: Any, b: Any) -> Any:
    return lax.select(lax.gt(b, a) | lax.ne(a, a), b, a)


def log2(x: Any) -> Any:
    return lax.log(x) * np.asarray(1 / np.log(2), x.dtype)[()]


def _reciprocal(x: Any) -> Any:
    return lax.div(lax.full_like(x, 1), x)


# Name: (PTX, {t} being the type, and the same in ordinary arithmetic).
INSTRUCTIONS: dict[str, tuple[str, Callable[..., Any]]] = {
    # One rounding.
    "fma": ("fma.rn.{t} $0, $1, $2, $3;", lambda a, b, c: a * b + c),
    # NaN is skipped, in a as in b: it is the result only where both are.
    "minimum": ("min.{t} $0, $1, $2;", _minimum),
    "maximum": ("max.{t} $0, $1, $2;", _maximum),
    # Approximate, float32 only.  Maximal errors: 2 units in the last place (ulp) for exp2; for log2 2^-22, absolute
    # from 1/2 to 2 and relative elsewhere; 1 ulp for the reciprocal and the square root, 2^-22.9 relative for rsqrt.
    "exp2": ("ex2.approx.ftz.{t} $0, $1;", lax.exp2),
    "log2": ("lg2.approx.ftz.{t} $0, $1;", log2),
    "reciprocal": ("rcp.approx.ftz.{t} $0, $1;", _reciprocal),
    "sqrt": ("sqrt.approx.ftz.{t} $0, $1;", lax.sqrt),
    "rsqrt": ("rsqrt.approx.ftz.{t} $0, $1;", lax.rsqrt),
}
APPROXIMATE = frozenset(["exp2", "log2", "reciprocal", "sqrt", "rsqrt"])


def emit(name: str, operands: tuple[Any, ...], assembly: bool) -> Any:
    """The instruction on tiles of shapes that broadcast and of one dtype, float32 or float64."""
    shape = np.broadcast_shapes(*(np.shape(x) for x in operands))
    text, plain = INSTRUCTIONS[name]
    tiles = [jax.numpy.asarray(broadcast_tile(x, shape)) for x in operands]
    if not assembly:
        return plain(*tiles)
    from jax.experimental.pallas import triton as plt

    letter = _LETTER[np.dtype(tiles[0].dtype)]
    (out,) = plt.elementwise_inline_asm(
        text.format(t=_TYPE[letter]),
        args=tiles,
        constraints=",".join([f"={letter}", *[letter] * len(tiles)]),
        pack=1,
        result_shape_dtypes=[jax.ShapeDtypeStruct(shape, tiles[0].dtype)],
    )
    return out
