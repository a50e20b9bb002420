"""Matrix products of a warp against NumPy, every operand in the registers that the ISA says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from .ptx import DivergenceError, PtxError, run
from .small import kernel
from .test_ptx_warps import LANES

G, P = LANES // 4, LANES % 4


def _registers(matrix: Any, places: Any) -> Any:
    """What each lane holds, register after register: the elements at (row, column), by lane."""
    return np.stack([matrix[rows.astype(int), columns.astype(int)] for rows, columns in places])


def _run(opcode: str, a: Any, b: Any, c: Any, error: float = 0.0) -> Any:
    """d, from registers (count, 32) of each operand, of which four bytes or eight are one."""
    arrays = [np.ascontiguousarray(x) for x in (a, b, c)]
    size = arrays[2].dtype.itemsize
    letter = "d" if size == 8 else "r"
    body, first, groups = [f"mul.wide.u32 %d30, %r0, {size};"], 10, []
    for k, x in enumerate(arrays):
        names = [f"%{letter}{first + q}" for q in range(len(x))]
        body.append(f"add.s64 %d31, %d{k}, %d30;")
        body += [f"ld.global.b{8 * size} {name}, [%d31+{32 * size * q}];" for q, name in enumerate(names)]
        first, groups = first + len(x), [*groups, "{" + ", ".join(names) + "}"]
    body.append(f"{opcode} {groups[2]}, {groups[0]}, {groups[1]}, {groups[2]};")
    body.append("add.s64 %d31, %d3, %d30;")
    held = groups[2].strip("{}").split(", ")
    body += [f"st.global.b{8 * size} [%d31+{32 * size * q}], {name};" for q, name in enumerate(held)]
    (got,) = run(kernel("\n".join(body), 4), (1,), arrays, [np.empty_like(arrays[2])], error=error)
    return got


def _random(*shape: int) -> Any:
    return np.random.default_rng(0).normal(size=shape)


PAIRS = [(G, 2 * P), (G, 2 * P + 1), (G + 8, 2 * P), (G + 8, 2 * P + 1)]


def test_double_precision() -> None:
    a, b, c = _random(8, 4), _random(4, 8), _random(8, 8)
    got = _run(
        "mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64",
        _registers(a, [(G, P)]), _registers(b, [(P, G)]), _registers(c, PAIRS[:2]),
    )  # fmt: skip
    np.testing.assert_allclose(got, _registers(a @ b + c, PAIRS[:2]), rtol=1e-14, atol=1e-14)


def _tf32(x: Any) -> Any:
    return (x.astype(np.float32).view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32)


def test_tf32_reads_nineteen_bits() -> None:
    a, b, c = (x.astype(np.float32) for x in (_random(16, 8), _random(8, 8), _random(16, 8)))
    opcode = "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32"
    registers = (
        _registers(a, [(G, P), (G + 8, P), (G, P + 4), (G + 8, P + 4)]), _registers(b, [(P, G), (P + 4, G)]),
        _registers(c, PAIRS),
    )  # fmt: skip
    want = _registers(_tf32(a).astype(float) @ _tf32(b) + c, PAIRS)
    np.testing.assert_allclose(_run(opcode, *registers), want, rtol=1e-6, atol=1e-7)
    errors = np.abs(_run(opcode, *registers, error=1.0) - want)
    assert 1e-8 < errors.max() < 16 * 2.0**-23 * np.abs(want).max()


@pytest.mark.parametrize("kind", ["f16", "bf16"])
def test_halves(kind: str) -> None:
    a, b, c = (np.round(8 * x) / 8 for x in (_random(16, 16), _random(16, 8), _random(16, 8)))  # exact in both

    def packed(matrix: Any, places: Any) -> Any:
        x = _registers(matrix, places).astype(np.float32)
        bits = x.astype(np.float16).view(np.uint16) if kind == "f16" else (x.view(np.uint32) >> 16).astype(np.uint16)
        return np.ascontiguousarray(np.stack([bits[0::2], bits[1::2]], -1)).view(np.float32)[..., 0]

    first = [(G + 8 * h, 2 * P + 8 * q + e) for q in (0, 1) for h in (0, 1) for e in (0, 1)]
    second = [(2 * P + 8 * q + e, G) for q in (0, 1) for e in (0, 1)]
    opcode = f"mma.sync.aligned.m16n8k16.row.col.f32.{kind}.{kind}.f32"
    got = _run(opcode, packed(a, first), packed(b, second), _registers(c, PAIRS).astype(np.float32))
    np.testing.assert_array_equal(got, _registers(a @ b + c, PAIRS).astype(np.float32))


def test_what_is_refused() -> None:
    x = np.zeros((4, 32), np.float32)
    with pytest.raises(PtxError, match="unknown instruction mma"):
        _run("mma.sync.aligned.m16n8k4.row.col.f32.tf32.tf32.f32", x, x, x)
    with pytest.raises(PtxError, match="operands where"):
        _run("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32", x, x, x)
    opcode = "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32"
    registers = " ".join(f"mov.b32 %r{k}, 0;" for k in range(10, 20))
    body = (
        f"{registers} setp.lt.u32 %p1, %r0, 16; @%p1 {opcode} {{%r10, %r11, %r12, %r13}}, {{%r14, %r15, %r16, %r17}}, "
    )
    with pytest.raises(DivergenceError, match="a matrix product"):
        run(kernel(body + "{%r18, %r19}, {%r10, %r11, %r12, %r13};", 0), (1,), [], [])


def test_rounding_to_tf32() -> None:
    from .small import compute

    x = np.array([1.0, 1 + 2.0**-11, 1 + 2.0**-12, -(1 + 2.0**-11), 1e-40, np.inf, 3.4e38], np.float32)
    got = compute("cvt.rna.tf32.f32 out, a;", [x], np.float32)
    want = np.array([1.0, 1 + 2.0**-10, 1.0, -(1 + 2.0**-10)], np.float32)
    np.testing.assert_array_equal(got[:4], want)
    assert abs(got[4] - 1e-40) < 1e-41 and got[5] == np.inf and abs(got[6] / 3.4e38 - 1) < 2.0**-11
    assert np.isnan(compute("cvt.rna.tf32.f32 out, a;", [np.array([np.nan], np.float32)], np.float32)).all()
