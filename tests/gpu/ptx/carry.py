"""Additions that keep a carry, from which wider ones are made (ISA 8.8, 9.7.2)."""

from __future__ import annotations

import numpy as np

from .arithmetic import Operation, define, high_product
from .values import Array

_TYPES = "{u32,s32,u64,s64}"


def _sum(op: Operation, a: Array, b: Array, carry: Array | None) -> tuple[Array, Array] | Array:
    kind, unsigned = a.dtype, f"u{a.dtype.itemsize}"
    x, y = (np.ascontiguousarray(v).view(unsigned) for v in (a, b))
    total = x + y
    out = total < x
    if carry is not None:
        more = total + carry.astype(unsigned)
        total, out = more, out | (more < total)
    total = total.view(kind)
    return (total, out) if "cc" in op.words else total


@define("t = t t", f"add.cc.{_TYPES}")
def _add_cc(op: Operation, a: Array, b: Array) -> tuple[Array, Array] | Array:
    return _sum(op, a, b, None)


@define("t = t t carry", f"addc{{,.cc}}.{_TYPES}")
def _addc(op: Operation, a: Array, b: Array, carry: Array) -> tuple[Array, Array] | Array:
    return _sum(op, a, b, carry)


def _half(op: Operation, a: Array, b: Array) -> Array:
    return a * b if "lo" in op.words else high_product(a, b)


@define("t = t t t", f"mad.{{lo,hi}}.cc.{_TYPES}")
def _mad_cc(op: Operation, a: Array, b: Array, c: Array) -> tuple[Array, Array] | Array:
    return _sum(op, _half(op, a, b), c, None)


@define("t = t t t carry", f"madc.{{lo,hi}}{{,.cc}}.{_TYPES}")
def _madc(op: Operation, a: Array, b: Array, c: Array, carry: Array) -> tuple[Array, Array] | Array:
    return _sum(op, _half(op, a, b), c, carry)
