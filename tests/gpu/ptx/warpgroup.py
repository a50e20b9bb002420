"""Matrix products of a warpgroup, four warps side by side: `wgmma` (ISA 8.8, 9.7.15).

Each warp has 16 of 64 rows, spread over its lanes as `mma.sync` spreads them.  Of a, where it is not in registers, and
of b a descriptor tells where they stand in shared memory, in pieces of 8 rows of 16 bytes; the layouts are those that
CUTLASS calls canonical (cute/atom/mma_traits_sm90_gmma.hpp).

Products run on by themselves.  Until they were waited for, nobody else may access their registers or write to what
they read in shared memory.  Between other accesses of their registers and them there must be a `wgmma.fence`, between
stores and them a `fence.proxy.async`, of the thread that stored, or of those that multiply, once a barrier has told
them of the store.  Operands are read when a product begins; its result then stands where nobody may read it yet.

Refused: integers, float8, results in half precision, sparse matrices, swizzled patterns that start elsewhere than at
multiples of their size (a base offset in a descriptor).  Not modelled: fences that moves of registers need (see
`Watch.touch`), and products of registers that one of another shape wrote before; how sums are rounded, which the ISA
leaves open, as for `mma.sync`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .frame import Access, Frame, Mask
from .memory import WARPGROUP
from .parser import Group, Immediate, Instruction, Operand, PtxError
from .tensor import FRAGMENTS, PAIRS, accumulated, gathered, numbers, places_of
from .values import UNSIGNED, Array
from .warp import DivergenceError, check_members

Step = Callable[[Mask], None]

_PRODUCT = re.compile(r"wgmma\.mma_async\.sync\.aligned\.m64n(\d+)k(\d+)\.f32\.(tf32|bf16|f16)\.(tf32|bf16|f16)")
_SPANS = (16, 128, 64, 32)  # bytes of a row of the pattern that a descriptor's bits 62 and 63 name
_FIELDS = 0xC00E_3FFF_3FFF_3FFF  # bits of a descriptor that mean something


def step(frame: Frame, instruction: Instruction) -> Step:
    machine, operation = frame.machine, instruction.opcode.removesuffix(".sync.aligned")
    if operation == "wgmma.fence" and not instruction.operands:

        def fence(mask: Mask) -> None:
            active = np.repeat(together(machine, mask), WARPGROUP)
            frame.watch.fences = frame.watch.fences + active

        return fence
    if operation == "wgmma.commit_group" and not instruction.operands:
        return lambda mask: machine.products.commit(together(machine, mask))
    if operation == "wgmma.wait_group" and len(instruction.operands) == 1:
        left = _constant(instruction.operands[0], range(8))
        return lambda mask: machine.products.wait(together(machine, mask), left)
    if match := _PRODUCT.fullmatch(instruction.opcode):
        n, k, kind = int(match[1]), int(match[2]), match[3]
        if n % 8 == 0 and 8 <= n <= 256 and k == (8 if kind == "tf32" else 16) and kind == match[4]:
            return product(frame, instruction, n, k, kind)
    raise PtxError(f"unknown instruction {instruction.opcode}")


def together(machine: Any, mask: Mask) -> Array:
    """Which warpgroups are there; of each all threads must be."""
    lanes = machine.lanes
    if lanes.threads % WARPGROUP:
        raise PtxError(f"a warpgroup has {WARPGROUP} threads, and the program has {lanes.threads}")
    active = check_members(np.array([0xFFFFFFFF], np.uint32), mask, lanes, "a warpgroup's instruction")
    active = active.reshape(-1, WARPGROUP)
    if (active.any(1) != active.all(1)).any():
        raise DivergenceError("a warpgroup's instruction with a warp that is not there")
    return active[:, 0]


def _constant(operand: Operand, allowed: Sequence[int]) -> int:
    if not isinstance(operand, Immediate) or operand.width is not None or operand.value not in allowed:
        given = operand.value if isinstance(operand, Immediate) else operand
        raise PtxError(f"{given} where {' or '.join(map(str, allowed))} was due")
    return operand.value


@functools.lru_cache(4096)
def addresses(descriptor: int, rows: int, k: int, width: int, transposed: bool) -> Array:
    """Where the elements (rows, k) of `width` bytes stand that a descriptor describes; `transposed`: rows, not k, are
    next to each other."""
    if descriptor & ~_FIELDS:
        raise PtxError(f"a descriptor {descriptor:#018x} with bits that mean nothing")
    if descriptor >> 49 & 7:
        raise PtxError(f"a descriptor {descriptor:#018x} with a base offset, which is not supported")
    start, leading, stride = ((descriptor >> bit & 0x3FFF) << 4 for bit in (0, 16, 32))
    span = _SPANS[descriptor >> 62]
    row, column = np.arange(rows)[:, None], np.arange(k)
    inner = (row if transposed else column) * width
    line, block = (column % 8, column // 8) if transposed else (row % 8, row // 8)
    if span > 16:
        piece, step = inner // span, (leading, stride)  # a row of k has 32 bytes, and is in one piece
    else:
        piece, step = inner // span, (stride, leading) if transposed else (leading, stride)
    at = start + inner % span + piece * step[0] + line * span + block * step[1]
    return at ^ (at >> 7 & span // 16 - 1) << 4


class Watch:
    """Registers of a function: who is to have them."""

    def __init__(self, lanes: int):
        self.fences = np.zeros(lanes, np.int32)  # that each thread has passed
        self.accesses: dict[str, Array] = {}  # by other instructions: fences that had been passed by the last one
        self.flying: dict[str, Array] = {}  # how many products that run have it
        self.role: dict[str, object] = {}  # of those

    def touch(self, name: str, mask: Mask, access: Access) -> None:
        """Another instruction accesses a register.  Moves need no fence: compilers put them behind it, where
        accumulators get their first values, and ptxas, which gives them registers, cares for those."""
        if name in self.flying and (self.flying[name] if mask is None else self.flying[name][mask]).any():
            raise PtxError(f"{name} belongs to a matrix product that was not waited for")
        if access == "move":
            return
        old = self.accesses.get(name)
        self.accesses[name] = self.fences if mask is None or old is None else np.where(mask, self.fences, old)

    def take(self, name: str, role: object, lanes: Array) -> None:
        """A product takes a register; sums may go on where they are."""
        if name in self.flying and self.flying[name][lanes].any() and self.role[name] != role:
            raise PtxError(f"{name} belongs to another matrix product, which was not waited for")
        if name in self.accesses and (self.accesses[name] >= self.fences)[lanes].any():
            raise PtxError(f"no wgmma.fence since {name} was read or written")
        self.flying[name] = self.flying.get(name, np.zeros(len(lanes), np.int32)) + lanes
        self.role[name] = role

    def give_back(self, name: str, lanes: Array) -> None:
        self.flying[name] = self.flying[name] - lanes
        if not self.flying[name].any():
            del self.flying[name]


def product(frame: Frame, instruction: Instruction, n: int, k: int, kind: str) -> Step:
    """d = a b + d, or a b, exact but for one rounding at the end, for each warpgroup that is there."""
    machine, watch, width = frame.machine, frame.watch, 4 if kind == "tf32" else 2
    lanes, shared = machine.lanes, machine.shared
    d, a, b, scale, *constants = instruction.operands
    in_registers = isinstance(a, Group)
    signs, majors = constants[:2], constants[2:]
    if len(constants) != 2 + (width == 2) * (2 - in_registers):
        raise PtxError(f"{len(instruction.operands)} operands are not those of a matrix product of {kind}")
    signs = [_constant(s, (1, -1)) for s in signs]
    majors = [False] * (2 - len(majors)) + [bool(_constant(m, (0, 1))) for m in majors]
    sums = frame.parts(d, "f32", n // 2)
    rows = [(row, 8 * block + column) for block in range(n // 8) for row, column in PAIRS]
    writers = [frame.writer(r, "f32", access="product") for r in sums]
    readers = [frame.reader(r, "b32", access="product") for r in sums]
    adding = frame.reader(scale, "pred")
    factors = [frame.reader(r, "b32", access="product") for r in frame.parts(a, "b32", 4)] if in_registers else []
    descriptors = [frame.reader(x, "b64") for x in ([b] if in_registers else [a, b])]
    named = [(r.name, ("sum", n, k, at)) for at, r in enumerate(sums)]  # type: ignore[union-attr]
    named += [(r.name, "factor") for r in (a.items if in_registers else ())]  # type: ignore[union-attr]

    def every(get: Callable[[], Array]) -> Array:
        return np.ascontiguousarray(np.broadcast_to(get(), (lanes.count,)))

    def same(get: Callable[[], Array], here: Array, what: str) -> Array:
        values = every(get).reshape(-1, WARPGROUP)[here]
        if (values != values[:, :1]).any():
            raise DivergenceError(f"threads of a warpgroup have different {what}")
        return values[:, 0]

    def matrix(get: Callable[[], Array], here: Array, count: int, transposed: bool) -> tuple[Array, Array]:
        """(warpgroup, count, k), and where its bytes are."""
        found = same(get, here, "descriptors")
        at = np.stack([addresses(int(x), count, k, width, transposed) for x in found]).reshape(len(found), -1)
        at = (at[..., None] + np.arange(width)).reshape(len(found), -1)
        data = shared.load_operand(at, here)
        bits = data.view(UNSIGNED[width]).reshape(len(found), count, k)
        return numbers(bits, kind), at

    def step(mask: Mask) -> None:
        groups = together(machine, mask)
        here, active = np.flatnonzero(groups), np.repeat(groups, WARPGROUP)
        if not watch.fences[active].all():
            raise PtxError("no wgmma.fence before the first matrix product")
        for name, role in named:
            watch.take(name, role, active)
        reads = []
        if in_registers:
            x = gathered([every(r) for r in factors], FRAGMENTS[kind], (16, k), kind)
            x = x.reshape(-1, 64, k)[here]
        else:
            x, at = matrix(descriptors[0], here, 64, majors[0])
            reads.append(at)
        y, at = matrix(descriptors[-1], here, n, majors[1])
        reads.append(at)
        c = np.zeros((len(here), 64, n))
        more = same(adding, here, "scale-d")
        if more.any():
            held = gathered([every(r) for r in readers], rows, (16, n), "f32").reshape(-1, 64, n)
            c[more] = held[here[more]]
        total = accumulated(signs[0] * x, signs[1] * y.swapaxes(1, 2), c, machine.error, np.float32)
        whole = np.zeros((lanes.count // WARPGROUP, 64, n), np.float32)
        whole[here] = total
        for put, values in zip(writers, places_of(whole.reshape(-1, 16, n), rows), strict=True):
            put(values, mask)
        for at in reads:
            shared.hold(at, here)

        def finish(groups: Array) -> None:
            for name, _ in named:
                watch.give_back(name, np.repeat(groups, WARPGROUP))
            own = groups[here]
            for at in reads:
                shared.release(at[own], here[own])

        machine.products.begin(groups, finish)

    return step
