"""Kernels of a few lines, for tests of the emulator: threads load from arrays, compute, and store."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from .ptx import Machine

REGISTERS = "\n".join(
    f"\t.reg .{kind} \t%{name}<40>;" for kind, name in [("pred", "p"), ("b16", "h"), ("b32", "r"), ("b64", "d")]
)


def kernel(body: str, arguments: int, threads: int = 32, declared: str = "") -> str:
    """A kernel `small`: the addresses of its arguments in %d0, %d1, ..., the thread in %r0, the program in %r1."""
    parameters = ",\n".join(f"\t.param .u64 small_param_{k}" for k in range(arguments))
    loads = "\n".join(f"\tld.param.b64 \t%d{k}, [small_param_{k}];" for k in range(arguments))
    return (
        f".version 8.8\n.target sm_90a\n.address_size 64\n{declared}\n.visible .entry small(\n{parameters}\n)\n"
        f".reqntid {threads}, 1, 1\n{{\n{REGISTERS}\n{loads}\n\tmov.u32 \t%r0, %tid.x;\n\tmov.u32 \t%r1, %ctaid.x;\n"
        f"{body}\n\tret;\n}}\n"
    )


def _register(dtype: np.dtype[Any], k: int) -> str:
    return {1: f"%h{k}", 2: f"%h{k}", 4: f"%r{k}", 8: f"%d{k}"}[dtype.itemsize]


def compute(body: str, inputs: Sequence[Any], dtype: Any, error: float = 0.0) -> Any:
    """Each thread t has inputs[k][t] in register 10 + k of its width, and stores register 20 as `dtype`.

    `a`, `b`, `c`, ... and `out` in the body stand for these registers.
    """
    arrays = [np.asarray(a) for a in inputs]
    count, out = arrays[0].size, np.dtype(dtype)
    padded = [np.concatenate([a, np.repeat(a[-1:], -count % 32)]) for a in arrays]
    lines, names = [], {}

    def address(k: int, size: int) -> str:
        return f"mul.wide.u32 %d30, %r0, {size}; add.s64 %d31, %d{k}, %d30;"

    for k, array in enumerate(padded):
        names["abcde"[k]] = _register(array.dtype, 10 + k)
        size = array.dtype.itemsize
        lines.append(f"{address(k, size)} ld.global.b{8 * size} {_register(array.dtype, 10 + k)}, [%d31];")
    names["out"] = _register(out, 20)
    lines.append(re.sub(r"(?<![\w.%$])(out|[abcde])(?![\w.])", lambda m: names[m[1]], body))
    lines.append(f"{address(len(arrays), out.itemsize)} st.global.b{8 * out.itemsize} [%d31], {names['out']};")
    text = kernel("\n".join(lines), len(arrays) + 1, padded[0].size)
    (written,) = Machine(text, (1,), padded, [np.empty(padded[0].shape, out)], error=error).run()
    return written[:count]
