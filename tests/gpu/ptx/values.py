"""Bits and numbers: what a register holds, read and written as a PTX type.

Registers hold unsigned integers of their width, predicates booleans.  bfloat16 is no NumPy type: its values are
float32.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from .parser import WIDTH, Immediate, PtxError

Array = np.ndarray[Any, Any]

DTYPES = {
    "b8": np.uint8, "u8": np.uint8, "s8": np.int8, "b16": np.uint16, "u16": np.uint16, "s16": np.int16,
    "b32": np.uint32, "u32": np.uint32, "s32": np.int32, "b64": np.uint64, "u64": np.uint64, "s64": np.int64,
    "f16": np.float16, "f32": np.float32, "f64": np.float64, "f16x2": np.uint32, "bf16x2": np.uint32,
    "pred": np.bool_, "bf16": np.float32,
}  # fmt: skip
UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


def is_type(word: str) -> bool:
    return word in DTYPES


def is_float(kind: str) -> bool:
    return kind in ("f16", "bf16", "f32", "f64")


def doubled(kind: str) -> str:
    """The type of twice the width: s32 gives s64."""
    match = re.fullmatch(r"([usb])(16|32)", kind)
    if match is None:
        raise PtxError(f"no type is twice as wide as {kind}")
    return f"{match[1]}{2 * int(match[2])}"


def bf16_from_f32(x: Array) -> Array:
    """The bits of the nearest bfloat16, ties to even; NaN stays NaN."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return np.where(np.isnan(x), np.uint32(0x7FFF), rounded).astype(np.uint16)


def f32_from_bf16(bits: Array) -> Array:
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def read(bits: Array, kind: str, wider: bool = False) -> Array:
    """The bits of a register as values of a type; `wider`: the register may be wider than the type."""
    if kind == "pred" or bits.dtype == bool:
        if kind != "pred" or bits.dtype != bool:
            raise PtxError(f"a register of {bits.dtype} read as {kind}")
        return bits
    width = WIDTH[kind]
    if bits.dtype.itemsize != width:
        if not wider or bits.dtype.itemsize < width:
            raise PtxError(f"a register of {8 * bits.dtype.itemsize} bits read as {kind}")
        bits = bits.astype(UNSIGNED[width])
    return f32_from_bf16(bits) if kind == "bf16" else bits.view(DTYPES[kind])


def write(values: Any, kind: str, width: int | None = None) -> Array:
    """Values of a type as the bits of a register; `width`: of a wider register, in bytes."""
    if kind == "pred":
        return np.asarray(values, np.bool_)
    if kind == "bf16":
        bits = bf16_from_f32(np.asarray(values, np.float32))
    else:
        values = np.asarray(values)
        if values.dtype != DTYPES[kind]:
            raise PtxError(f"a result of {values.dtype} where {kind} was due")
        bits = np.ascontiguousarray(values).view(UNSIGNED[WIDTH[kind]]).reshape(values.shape)
    if width is None or width == bits.dtype.itemsize:
        return bits
    if width < bits.dtype.itemsize:
        raise PtxError(f"a register of {8 * width} bits takes no {kind}")
    if kind[0] == "s":  # the sign is extended
        return bits.view(DTYPES[kind]).astype(f"i{width}").view(UNSIGNED[width])
    return bits.astype(UNSIGNED[width])


def immediate(value: Immediate, kind: str) -> Any:
    """A constant as a scalar of a type."""
    if kind == "pred":
        return np.bool_(value.value != 0)
    width = WIDTH[kind]
    if value.width is None:
        if is_float(kind):
            raise PtxError(f"the integer {value.value} where {kind} was due")
        if not -(1 << (8 * width - 1)) <= value.value < (1 << 8 * width):
            raise PtxError(f"{value.value} does not fit in {kind}")
        return np.array(value.value % (1 << 8 * width), UNSIGNED[width]).view(DTYPES[kind])[()]
    number = np.array(value.value, UNSIGNED[value.width // 8])
    if 8 * width == value.width:
        return number.view(DTYPES[kind])[()]
    if value.width == 64 and kind == "f32":  # decimal constants have double precision
        return np.float32(number.view(np.float64)[()])
    raise PtxError(f"a constant of {value.width} bits where {kind} was due")
