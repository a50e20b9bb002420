"""Matrix products of a warp: `mma.sync`, whose operands are spread over the registers of 32 lanes (ISA 8.8, 9.7.15.5).

Lane t has the group g = t / 4 and the place p = t % 4 in it.  Where an element stands is told by the ISA for each
shape; of these, the ones that Triton emits.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from .frame import Frame, Mask
from .parser import Instruction, PtxError
from .values import Array, f32_from_bf16
from .warp import check_members

Step = Callable[[Mask], None]
T = np.arange(32)
G, P = T // 4, T % 4

# Of a sum in single precision: order and rounding are unspecified (9.7.15.5); what hardware was found to cut off is
# below the last place of the largest term (Fasi, Higham, Mikaitis and Pranesh, "Numerical behavior of NVIDIA tensor
# cores", 2021).
TRUNCATION = 2.0**-23


Places = list[tuple[Array, Array]]  # rows and columns, by lane


@dataclasses.dataclass(frozen=True)
class Shape:
    """m by n by k; for every element that a lane holds of a, b and c its row and column, by lane."""

    m: int
    n: int
    k: int
    kind: str  # of a and b
    total: str  # of c and d
    packed: int  # elements of a and b in one register
    a: Places
    b: Places
    c: Places


PAIRS: Places = [(G + 8 * h, 2 * P + q) for h in (0, 1) for q in (0, 1)]  # of 16 rows and 8 columns of c
_HALVES: Places = [(G + 8 * h, 2 * P + 8 * q + e) for q in (0, 1) for h in (0, 1) for e in (0, 1)]
# Of 16 rows of a.
FRAGMENTS: dict[str, Places] = {
    "tf32": [(G + 8 * h, P + 4 * q) for q in (0, 1) for h in (0, 1)], "f16": _HALVES, "bf16": _HALVES,
}  # fmt: skip


def _shapes() -> dict[str, Shape]:
    found = {}
    double = Shape(8, 8, 4, "f64", "f64", 1, [(G, P)], [(P, G)], PAIRS[:2])
    found["mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64"] = double
    b = [(P + 4 * q, G) for q in (0, 1)]
    single = Shape(16, 8, 8, "tf32", "f32", 1, FRAGMENTS["tf32"], b, PAIRS)
    found["mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32"] = single
    b = [(2 * P + 8 * q + e, G) for q in (0, 1) for e in (0, 1)]
    for kind in ("f16", "bf16"):
        half = Shape(16, 8, 16, kind, "f32", 2, FRAGMENTS[kind], b, PAIRS)
        found[f"mma.sync.aligned.m16n8k16.row.col.f32.{kind}.{kind}.f32"] = half
    return found


SHAPES = _shapes()


def numbers(bits: Array, kind: str) -> Array:
    """Elements of their own width, in double precision; of tf32 the lower 13 bits are not read."""
    if kind == "tf32":
        bits, kind = bits & np.uint32(0xFFFFE000), "f32"
    dtype = {"f64": np.float64, "f32": np.float32, "f16": np.float16}.get(kind)
    return (f32_from_bf16(bits) if dtype is None else bits.view(dtype)).astype(np.float64)


def gathered(registers: list[Array], places: Places, size: tuple[int, int], kind: str) -> Array:
    """The matrices of all warps, from the bits of registers."""
    if kind in ("f16", "bf16"):  # two of them in each
        registers = [(bits >> np.uint32(16 * h)).astype(np.uint16) for bits in registers for h in (0, 1)]
    matrix = np.zeros((registers[0].size // 32, *size))
    for (row, column), bits in zip(places, registers, strict=True):
        matrix[:, row, column] = numbers(bits, kind).reshape(-1, 32)
    return matrix


def places_of(matrix: Array, places: Places) -> list[Array]:
    """What each register of all lanes holds of the matrices of warps."""
    return [matrix[:, row, column].reshape(-1) for row, column in places]


def accumulated(a: Array, b: Array, c: Array, error: float, dtype: Any) -> Array:
    """a b + c, exact but for one rounding at the end; `error`: of single precision, in its bounds."""
    total = a @ b + c
    if error and dtype == np.float32:
        total = total + error * TRUNCATION * (np.abs(a) @ np.abs(b) + np.abs(c))
    return total.astype(dtype)


def product(frame: Frame, instruction: Instruction) -> Step:
    """d = a b + c."""
    shape = SHAPES.get(instruction.opcode)
    if shape is None:
        raise PtxError(f"unknown instruction {instruction.opcode}")
    machine = frame.machine
    width = "b64" if shape.total == "f64" else "b32"
    counts = [len(shape.a) // shape.packed, len(shape.b) // shape.packed, len(shape.c)]
    d, *operands = instruction.operands
    writers = [frame.writer(r, shape.total) for r in frame.parts(d, width, len(shape.c))]
    readers = [
        [frame.reader(r, width) for r in frame.parts(operand, width, count)]
        for operand, count in zip(operands, counts, strict=True)
    ]
    spread = [(shape.a, (shape.m, shape.k), shape.kind), (shape.b, (shape.k, shape.n), shape.kind),
              (shape.c, (shape.m, shape.n), shape.total)]  # fmt: skip

    def step(mask: Mask) -> None:
        active = check_members(np.array([0xFFFFFFFF], np.uint32), mask, machine.lanes, "a matrix product")
        matrices = []
        for (places, size, kind), registers in zip(spread, readers, strict=True):
            held = [np.ascontiguousarray(np.broadcast_to(r(), (machine.lanes.count,))) for r in registers]
            matrices.append(gathered(held, places, size, kind))
        total = accumulated(*matrices, machine.error, np.float64 if shape.total == "f64" else np.float32)
        for values, put in zip(places_of(total, shape.c), writers, strict=True):
            put(values, active if mask is not None else None)

    return step
