"""Matrix products of a warp: `mma.sync`, whose operands are spread over the registers of 32 lanes (ISA 8.8, 9.7.15.5).

Lane t has the group g = t / 4 and the place p = t % 4 in it.  Where an element stands is told by the ISA for each
shape; of these, the ones that Triton emits.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

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


@dataclasses.dataclass(frozen=True)
class Shape:
    """m by n by k; for every element that a lane holds of a, b and c its row and column, by lane."""

    m: int
    n: int
    k: int
    kind: str  # of a and b
    total: str  # of c and d
    packed: int  # elements of a and b in one register
    a: list[tuple[Array, Array]]
    b: list[tuple[Array, Array]]
    c: list[tuple[Array, Array]]


def _pairs(m: int) -> list[tuple[Array, Array]]:
    return [(G + 8 * h, 2 * P + q) for h in range(m // 8) for q in (0, 1)]


def _shapes() -> dict[str, Shape]:
    found = {}
    double = Shape(8, 8, 4, "f64", "f64", 1, [(G, P)], [(P, G)], _pairs(8))
    found["mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64"] = double
    a = [(G + 8 * h, P + 4 * q) for q in (0, 1) for h in (0, 1)]
    b = [(P + 4 * q, G) for q in (0, 1)]
    found["mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32"] = Shape(16, 8, 8, "tf32", "f32", 1, a, b, _pairs(16))
    a = [(G + 8 * h, 2 * P + 8 * q + e) for q in (0, 1) for h in (0, 1) for e in (0, 1)]
    b = [(2 * P + 8 * q + e, G) for q in (0, 1) for e in (0, 1)]
    for kind in ("f16", "bf16"):
        half = Shape(16, 8, 16, kind, "f32", 2, a, b, _pairs(16))
        found[f"mma.sync.aligned.m16n8k16.row.col.f32.{kind}.{kind}.f32"] = half
    return found


SHAPES = _shapes()


def _elements(bits: Array, kind: str) -> list[Array]:
    """The elements of a register, in double precision; of tf32 the lower 13 bits are not read."""
    if kind == "f64":
        return [bits.view(np.float64)]
    if kind == "f32":
        return [bits.view(np.float32).astype(np.float64)]
    if kind == "tf32":
        return [(bits & np.uint32(0xFFFFE000)).view(np.float32).astype(np.float64)]
    halves = [(bits >> np.uint32(16 * h)).astype(np.uint16) for h in (0, 1)]
    return [(f32_from_bf16(h) if kind == "bf16" else h.view(np.float16)).astype(np.float64) for h in halves]


def product(frame: Frame, instruction: Instruction) -> Step:
    """d = a b + c, exact but for one rounding at the end."""
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
            matrix = np.zeros((machine.lanes.count // 32, *size))
            held = [np.ascontiguousarray(np.broadcast_to(r(), (machine.lanes.count,))) for r in registers]
            items = [x for bits in held for x in _elements(bits, kind)]
            for (row, column), x in zip(places, items, strict=True):
                matrix[:, row, column] = x.reshape(-1, 32)
            matrices.append(matrix)
        a, b, c = matrices
        total = a @ b + c
        if machine.error and shape.total == "f32":
            total = total + machine.error * TRUNCATION * (np.abs(a) @ np.abs(b) + np.abs(c))
        total = total.astype(np.float64 if shape.total == "f64" else np.float32)
        for (row, column), put in zip(shape.c, writers, strict=True):
            put(total[:, row, column].reshape(-1), active if mask is not None else None)

    return step
