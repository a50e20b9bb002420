"""Arithmetic in the rounding modes of PTX, on NumPy arrays.

Single precision is computed exactly, as the sum of two doubles, and rounded once.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .values import Array

_TINY = np.float32(np.finfo(np.float32).tiny)


def flushed(x: Array) -> Array:
    """Subnormal numbers of single precision as zeros of their sign (`.ftz`)."""
    return np.where(np.abs(x) < _TINY, np.copysign(np.float32(0), x), x)


def saturated(x: Array) -> Array:
    """Clamped to [0, 1], NaN as 0 (`.sat`)."""
    return np.where(np.isnan(x), x.dtype.type(0), np.clip(x, 0, 1)).astype(x.dtype)


def two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """a + b as a rounded sum and its exact error (Knuth)."""
    s = a + b
    t = s - a
    error = (a - (s - t)) + (b - t)
    return s, np.where(np.isfinite(s), error, 0.0)


def two_product(a: Array, b: Array) -> tuple[Array, Array]:
    """a b as a rounded product and its error (Dekker), of factors that are split into halves."""

    def split(x: Array) -> tuple[Array, Array]:
        high = x * 134217729.0  # 2**27 + 1
        high = high - (high - x)
        return high, x - high

    p = a * b
    (ah, al), (bh, bl) = split(a), split(b)
    error = ((ah * bh - p) + ah * bl + al * bh) + al * bl
    return p, np.where(np.isfinite(error) & np.isfinite(p), error, 0.0)


def single(s: Array, error: Array, mode: str) -> Array:
    """The double s + error, of which s is the rounded value, as single precision in a rounding mode."""
    if mode == "rn":
        # Rounding twice is right if the first time is to odd (Boldo and Melquiond, 2008).
        even = (np.ascontiguousarray(s).view(np.uint64) & np.uint64(1)) == 0
        odd = np.where((error != 0) & even, np.nextafter(s, np.where(error > 0, np.inf, -np.inf)), s)
        return odd.astype(np.float32)
    near = s.astype(np.float32)
    wide = near.astype(np.float64)
    above = (wide > s) | ((wide == s) & (error < 0))
    below = (wide < s) | ((wide == s) & (error > 0))
    down, up = np.nextafter(near, np.float32(-np.inf)), np.nextafter(near, np.float32(np.inf))
    if mode == "rm":
        return np.where(above, down, near)
    if mode == "rp":
        return np.where(below, up, near)
    if mode == "rz":
        return np.where(s > 0, np.where(above, down, near), np.where(below, up, near))
    raise ValueError(mode)


def add(a: Array, b: Array, mode: str = "rn") -> Array:
    if mode == "rn":
        return a + b
    if a.dtype == np.float32:
        return single(*two_sum(a.astype(np.float64), b.astype(np.float64)), mode)
    return directed(*two_sum(a, b), mode)


def mul(a: Array, b: Array, mode: str = "rn") -> Array:
    if mode == "rn":
        return a * b
    if a.dtype == np.float32:
        p = a.astype(np.float64) * b.astype(np.float64)  # exact
        return single(p, np.zeros_like(p), mode)
    return directed(*two_product(a, b), mode)


def fma(a: Array, b: Array, c: Array, mode: str = "rn") -> Array:
    """a b + c, rounded once; in double precision but for ties that the error's own rounding decides."""
    if a.dtype == np.float32:
        p = a.astype(np.float64) * b.astype(np.float64)  # exact
        return single(*two_sum(p, c.astype(np.float64)), mode)
    if a.dtype == np.float16:
        return (a.astype(np.float64) * b.astype(np.float64) + c.astype(np.float64)).astype(np.float16)
    p, low = two_product(a, b)
    s, error = two_sum(p, c)
    rest = error + low
    near = s + rest
    if mode == "rn":
        return near
    return directed(near, np.where(np.isfinite(near), rest - (near - s), 0.0), mode)


def directed(near: Array, error: Array, mode: str) -> Array:
    """The nearest double and its error, rounded in another mode."""
    down, up = np.nextafter(near, -np.inf), np.nextafter(near, np.inf)
    if mode == "rm":
        return np.where(error < 0, down, near)
    if mode == "rp":
        return np.where(error > 0, up, near)
    return np.where((near > 0) & (error < 0), down, np.where((near < 0) & (error > 0), up, near))


def integral(x: Array, mode: str) -> Array:
    """A float rounded to an integer value."""
    return {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}[mode](x)


def to_integer(x: Array, dtype: Any, mode: str) -> Array:
    """PTX clamps to the range; NaN gives 0, or the sign bit alone where either side has 64 bits (9.7.9.21, cvt)."""
    dtype = np.dtype(dtype)
    info = np.iinfo(dtype)
    y = integral(x.astype(np.float64), mode)
    inside = np.where((y >= float(info.min)) & (y < float(info.max) + (info.bits < 64)), y, 0.0)
    out = np.where(y > 0, dtype.type(info.max), dtype.type(info.min))
    wide = x.dtype == np.float64 or dtype.itemsize == 8
    nan = np.array(1 << (info.bits - 1) if wide else 0, f"u{dtype.itemsize}").view(dtype)
    exact = inside.astype(dtype)
    in_range = (y >= float(info.min)) & (y < float(info.max) + (info.bits < 64))
    return np.where(np.isnan(x), nan, np.where(in_range, exact, out))
