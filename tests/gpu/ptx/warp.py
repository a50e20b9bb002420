"""Instructions of a whole warp: shuffles, votes, reductions, and matrices in shared memory (ISA 8.8, 9.7)."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from .frame import Frame, Mask
from .parser import Group, Instruction, PtxError
from .values import Array

Step = Callable[[Mask], None]


class DivergenceError(PtxError):
    """Threads that must act together do not."""


def _full(values: Array, count: int) -> Array:
    return np.broadcast_to(values, (count,))


def _active(mask: Mask, count: int) -> Array:
    return np.ones(count, bool) if mask is None else mask


def check_members(members: Array, mask: Mask, lanes: Any, what: str) -> Array:
    """The active lanes; every lane that they name as a member must be one, and they themselves members."""
    active = _active(mask, lanes.count)
    members = _full(members, lanes.count)
    warps = lanes.count // 32
    running = (active.reshape(warps, 32).astype(np.uint64) << np.arange(32, dtype=np.uint64)).sum(1).astype(np.uint32)
    running = np.repeat(running, 32)
    if (active & ((members >> lanes.lane.astype(np.uint32)) & np.uint32(1) == 0)).any():
        raise DivergenceError(f"{what} by a thread that its mask leaves out")
    if (active & (members & ~running != 0)).any():
        raise DivergenceError(f"{what} with a thread that is not there: the warp has diverged")
    return active


def source_lane(mode: str, lane: Array, b: Array, c: Array) -> tuple[Array, Array]:
    """The lane that a shuffle reads, and whether it is in range (the pseudocode of `shfl.sync`)."""
    b, bound, segment = b & 31, c & 31, (c >> 8) & 31
    most, least = (lane & segment) | (bound & ~segment), lane & segment
    if mode == "up":
        source = lane - b
        inside = source >= most
    elif mode == "down":
        source = lane + b
        inside = source <= most
    elif mode == "bfly":
        source = lane ^ b
        inside = source <= most
    else:
        source = least | (b & ~segment)
        inside = source <= most
    return np.where(inside, source, lane), inside


def shuffle(frame: Frame, instruction: Instruction) -> Step:
    mode = instruction.opcode.split(".")[2]
    lanes, operands = frame.machine.lanes, instruction.operands
    target, in_range = operands[0], None
    if isinstance(target, Group) and target.brackets == "|":
        target, in_range = target.items
    put = frame.writer(target, "b32")
    put_range = frame.writer(in_range, "pred") if in_range is not None else None
    value = frame.reader(operands[1], "b32")
    b, c, members = (frame.reader(o, "u32") for o in operands[2:5])

    def step(mask: Mask) -> None:
        active = check_members(members(), mask, lanes, "a shuffle")
        wide = lambda x: _full(x.astype(np.int64), lanes.count)  # noqa: E731
        source, inside = source_lane(mode, lanes.lane, wide(b()), wide(c()))
        source = source + lanes.warp * 32
        if (active & ~active[source]).any():
            raise DivergenceError("a shuffle from a thread that is not there: the warp has diverged")
        put(_full(value(), lanes.count)[source], mask)
        if put_range is not None:
            put_range(inside, mask)

    return step


def vote(frame: Frame, instruction: Instruction) -> Step:
    mode, lanes = instruction.opcode.split(".")[2], frame.machine.lanes
    put = frame.writer(instruction.operands[0], "b32" if mode == "ballot" else "pred")
    value, members = frame.reader(instruction.operands[1], "pred"), frame.reader(instruction.operands[2], "u32")

    def step(mask: Mask) -> None:
        active = check_members(members(), mask, lanes, "a vote")
        votes = (_full(value(), lanes.count) & active).reshape(-1, 32)
        there = active.reshape(-1, 32)
        if mode == "ballot":
            out = (votes.astype(np.uint64) << np.arange(32, dtype=np.uint64)).sum(1).astype(np.uint32)
        elif mode == "any":
            out = votes.any(1)
        elif mode == "all":
            out = (votes | ~there).all(1)
        else:
            out = (votes | ~there).all(1) | ~votes.any(1)
        put(np.repeat(out, 32), mask)

    return step


def reduce(frame: Frame, instruction: Instruction) -> Step:
    """redux.sync: over the members, which are the same for all of them."""
    _, _, name, kind = instruction.opcode.split(".")
    functions = {
        "add": np.add,
        "min": np.minimum,
        "max": np.maximum,
        "and": np.bitwise_and,
        "or": np.bitwise_or,
        "xor": np.bitwise_xor,
    }
    lanes, function = frame.machine.lanes, functions[name]
    put, value = frame.writer(instruction.operands[0], kind), frame.reader(instruction.operands[1], kind)
    members = frame.reader(instruction.operands[2], "u32")

    def step(mask: Mask) -> None:
        check_members(members(), mask, lanes, "a reduction")
        own, named = _full(value(), lanes.count), _full(members(), lanes.count)
        out = own.copy()
        for group in np.unique(np.stack([lanes.warp, named.astype(np.int64)]), axis=1).T:
            inside = (lanes.warp == group[0]) & (named == group[1])
            inside &= ((named >> lanes.lane.astype(np.uint32)) & np.uint32(1)) == 1
            if inside.any():
                out[inside] = function.reduce(own[inside])
        put(out, mask)

    return step


_MATRIX = re.compile(r"(st|ld)matrix\.sync\.aligned\.m8n8\.x([124])(\.trans)?\.shared(?:::cta)?\.b16")


def matrix(frame: Frame, instruction: Instruction) -> Step:
    """ldmatrix and stmatrix: 8 by 8 matrices of 16 bits, four to a warp.

    Lane 8 k + r says where row r of matrix k is; lane t holds, of each, elements 2 (t % 4) and the next of row t // 4,
    or of that column if transposed.
    """
    match = _MATRIX.fullmatch(instruction.opcode)
    if match is None:
        raise PtxError(f"unknown instruction {instruction.opcode}")
    storing, count, transposed = match[1] == "st", int(match[2]), bool(match[3])
    lanes, shared = frame.machine.lanes, frame.machine.shared
    where, registers = instruction.operands if storing else instruction.operands[::-1]
    address, items = frame.address(where), frame.parts(registers, "b32", count)
    readers = [frame.reader(i, "b32") for i in items] if storing else []
    writers = [] if storing else [frame.writer(i, "b32") for i in items]

    def step(mask: Mask) -> None:
        active = check_members(np.array([0xFFFFFFFF], np.uint32), mask, lanes, "a matrix instruction")
        warps = np.flatnonzero(active[::32])
        rows = _full(address(), lanes.count).reshape(-1, 32)[warps]  # address of each row, by lane
        t = np.arange(32)
        line, pair = t // 4, 2 * (t % 4)
        me = warps[:, None] * 32 + t  # lanes
        for k in range(count):
            halves = []
            for h in (0, 1):
                row, column = (pair + h, line) if transposed else (line, pair + h)
                at = (rows[:, 8 * k + row] + (2 * column).astype(np.uint64)).ravel()
                if storing:
                    value = _full(readers[k](), lanes.count)[me.ravel()]
                    shared.store(at, (value >> np.uint32(16 * h)).astype(np.uint16), me.ravel())
                else:
                    halves.append(shared.load(at, 2, me.ravel()).astype(np.uint32))
            if not storing:
                out = np.zeros(lanes.count, np.uint32)
                out[me.ravel()] = halves[0] | (halves[1] << np.uint32(16))
                writers[k](out, mask)

    return step
