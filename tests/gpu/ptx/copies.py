"""Copies from global to shared memory that run on by themselves: `cp.async` (ISA 8.8, 9.7.9.25).

What they copy is read when they begin, or is zeros where the source is ignored.  Until the thread that began them has
waited, nobody may touch where it goes; then it is as if that thread had stored it.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from .frame import Frame, Mask, Read
from .memory import MemoryFault
from .parser import Immediate, Instruction, Operand, PtxError, Register
from .values import Array

Step = Callable[[Mask], None]

_COPY = re.compile(r"cp\.async\.(ca|cg)\.shared(?:::cta)?\.global(?:\.L2::\w+)?")


def _length(frame: Frame, operand: Operand, size: int) -> Read:
    """Of what is read, as the last operand says: a number of bytes, or that the source is ignored."""
    ignoring = isinstance(operand, Register) and frame.function.registers.get(operand.name) == "pred"
    if not ignoring:
        return frame.reader(operand, "u32")
    ignored = frame.reader(operand, "pred")
    return lambda: np.where(ignored(), np.uint32(0), np.uint32(size))


def step(frame: Frame, instruction: Instruction) -> Step:
    machine, opcode, operands = frame.machine, instruction.opcode, instruction.operands

    def lanes(mask: Mask) -> Array:
        return np.ones(machine.lanes.count, bool) if mask is None else mask

    if opcode == "cp.async.commit_group" and not operands:
        return lambda mask: machine.copies.commit(lanes(mask))
    if opcode == "cp.async.wait_group" and len(operands) == 1 and isinstance(operands[0], Immediate):
        left = operands[0].value
        return lambda mask: machine.copies.wait(lanes(mask), left)
    match = _COPY.fullmatch(opcode)
    if match is None or len(operands) not in (3, 4) or not isinstance(operands[2], Immediate):
        raise PtxError(f"unknown instruction {opcode}")
    size = operands[2].value
    if size not in ((16,) if match[1] == "cg" else (4, 8, 16)):
        raise PtxError(f"a copy of {size} bytes")
    target, source = frame.address(operands[0]), frame.address(operands[1])
    given = _length(frame, operands[3], size) if len(operands) == 4 else lambda: np.array([size], np.uint32)

    def copy(mask: Mask) -> None:
        active = np.flatnonzero(lanes(mask))
        every = lambda x: np.broadcast_to(x, (machine.lanes.count,))[active]  # noqa: E731
        length, start = every(given()), every(source())
        if not np.isin(length, (0, size)).all():
            raise PtxError(f"a copy of a part of {size} bytes, which is not supported")
        reads, word = length > 0, min(size, 8)
        if (start[reads] % np.uint64(size)).any():
            raise MemoryFault(f"a copy of {size} bytes that is not aligned")
        data = np.zeros((active.size, size // word), f"u{word}")
        for k in range(size // word):
            data[reads, k] = machine.globals.load(start[reads] + np.uint64(k * word), word, active[reads])
        at = machine.shared.begin_copies(every(target()), data.view(np.uint8), active)

        def finish(done: Array) -> None:
            own = done[active]
            machine.shared.end_copies((at[0][own], at[1][own]), active[own])

        machine.copies.begin(lanes(mask), finish)

    return copy
