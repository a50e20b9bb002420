"""Tiles of the GPU kernel, from what a formula holds in registers: one model, which `explain` prints.

A thread holds R rows: their numbers of i, their accumulators and what one pair takes meanwhile stay in registers, and
each number of j that it loads serves R pairs.  More rows mean fewer instructions for a pair and more registers, and
fewer warps that hide each other's waits.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import numpy as np

from ..description import Description, traced_of
from ..reduction import TracedReduction
from .arithmetic.expression import CALL, PAIR, WEIGHTS
from .body import Fold, computing

LANES = 32  # threads of a warp
# Registers of a thread: what a program should take, so that three programs of four warps share a multiprocessor, and
# what one may take (255 is the limit of the machine; the rest is for addresses and what the model does not see).
PREFERRED, LIMIT = 152, 208
# Registers of a thread, by the machine.
MOST = 255
# Registers of addresses, counters and of what the compiler keeps in flight.
OVERHEAD = 28
# Registers of each of the pairs for which the compiler interleaves a function of many instructions.
CALLED = 8
# Short functions of float64 that call subroutines, as all long ones do.
SHORT = frozenset(["div", "sqrt of libdevice", "rsqrt of libdevice"])
# Instructions of the loop, beyond which it leaves the instruction cache.
LOOP = 1024
# Instructions of one step that count, compare, jump and make addresses.
STEP = 8
# Steps of the loop that a part of j has at least, where j is split.
STEPS_OF_A_PART = 4


@dataclasses.dataclass(frozen=True)
class Chip:
    """What bounds a kernel: multiprocessors, clock in GHz, and lanes of each multiprocessor by kind of instruction."""

    name: str
    multiprocessors: int
    clock: float
    issue: int = 128
    floats: int = 128
    special: int = 16
    tensor: int = 512  # multiplications of TF32 in tensor cores, by instructions of one warp
    warpgroup: int = 0  # and by those of four warps together (wgmma), where there are any
    registers: int = 1 << 16
    shared: int = 100 << 10  # bytes of shared memory of one program, at most

    def programs(self, registers: int, warps: int) -> int:
        """How many programs fill it twice, by the registers of their threads."""
        return 2 * self.multiprocessors * max(1, self.registers // (max(registers, 32) * LANES * warps))

    def pairs_per_second(
        self, instructions: float, floats: float, special: float, tensor: float = 0.0, warpgroup: bool = False
    ) -> float:
        """An upper bound: every lane busy at every tick, nothing ever waiting."""
        multiplied = tensor / (self.warpgroup if warpgroup else self.tensor)
        ticks = max(instructions / self.issue, floats / self.floats, special / self.special, multiplied)
        return self.multiprocessors * self.clock * 1e9 / ticks


# Of its tensor cores, instructions of one warp reach 62 % (Luo et al., "Benchmarking and dissecting the Nvidia Hopper
# GPU architecture via microbenchmarking", 2024).
H100 = Chip("H100", 132, 1.98, tensor=640, warpgroup=1024, shared=227 << 10)
A100 = Chip("A100", 108, 1.41, floats=64, shared=163 << 10)
H200 = dataclasses.replace(H100, name="H200")
CHIPS = (H100, H200, A100)
DEFAULT = Chip("a GPU like the A100", 108, 1.41, floats=64)


def chip() -> Chip:
    """The chip that a kernel is lowered for, as far as JAX knows it."""
    device = getattr(jax.sharding.get_abstract_mesh(), "abstract_device", None)
    kind = getattr(device, "device_kind", None)
    if kind is None and jax.default_backend() in ("gpu", "cuda", "rocm"):
        kind = jax.devices()[0].device_kind
    return next((c for c in CHIPS if kind and c.name in kind), DEFAULT)


@dataclasses.dataclass(frozen=True)
class TritonPlan:
    """`block_i` by `block_j` pairs at once for each program of `warps` warps, `unroll` blocks of j in the loop."""

    block_i: int
    block_j: int
    warps: int = 4
    stages: int = 1
    unroll: int = 1
    group: int = 1024  # steps of the loop that are summed before they meet the total, where merging rounds
    features: int = 0  # long features in the loop, where they are walked through by one of their own (see `long`)
    members: int = 0  # columns of a group, where the K best are first looked for among groups (see `groups`)
    rows: int = 0  # whose group minima are held at once
    selecting: tuple[int, ...] = ()  # rows and lanes of the programs that select, then
    columns: int = 0  # of a matrix product, where long results are weights times features of j (see `products`)
    products: bool = False  # inner products of long features take tensor cores, where results are short (see `long`)
    tensor: bool = False  # float32 is multiplied in tensor cores, as three products of TF32
    splits: int = 1  # parts of j that programs of their own walk through
    assembly: bool = False  # instructions of PTX by name, on CUDA
    interpret: bool = False  # run by XLA on the CPU, for tests
    registers: int = 0  # of a thread, as predicted
    instructions: float = 0  # of a pair, as predicted
    bound: float = 0  # pairs per second that `chip` cannot exceed by the model
    chip: str = ""
    reason: str = ""
    apart: tuple[TritonPlan, ...] = ()  # of the short results and of the long ones, where each has a kernel of its own

    @property
    def pairs(self) -> int:
        """Pairs of one thread in one step of the loop."""
        return self.block_i * self.block_j * self.unroll // (LANES * self.warps)

    def __post_init__(self) -> None:
        # XLA ends the process where this does not hold.
        for field, value in (("block_i", self.block_i), ("block_j", self.block_j), ("warps", self.warps)):
            if value < 1 or value & (value - 1):
                raise ValueError(f"TritonPlan: {field}={value}, expected a power of two.")
        if self.warps > 32:
            raise ValueError(f"TritonPlan: warps={self.warps}, expected at most 32, the threads of a block.")
        if self.block_i * self.block_j > 1 << 20:
            raise ValueError(f"TritonPlan: block_i * block_j = {self.block_i * self.block_j}, expected at most 2**20.")


@dataclasses.dataclass(frozen=True)
class Model:
    """What the loop takes with R rows to a thread and U blocks in the loop."""

    rows: int
    unroll: int
    registers: int
    pair: float  # instructions of a pair, of all kinds
    floats: float
    special: float
    nested: int  # how many times steps are summed by groups, one within the other


def model(desc: Description, traced: TracedReduction, fold: Fold, rows: int, unroll: int, group: int) -> Model:
    own, special, column = fold.program.cost()
    row, width = fold.program.words()
    of_j = [a for a, r in zip(desc.pair.in_avals, desc.roles, strict=True) if "j" in r]
    loads = sum(math.prod(a.shape) for a in of_j)
    loaded = sum(math.prod(a.shape) * words(a.dtype) for a in of_j)
    accumulators = sum(math.prod(a.shape) * words(a.dtype) for a in traced.acc_avals)
    nested = (desc.reduction.rounds and desc.n > LANES * unroll * group) + many_ranges(desc, group)
    registers = rows * (row + accumulators * (1 + nested) + min(width, 2 * unroll + 2)) + loaded * unroll + OVERHEAD
    registers += CALLED * min(rows, 8) if fold.program.calls() else 0
    pair = own / unroll + (1.25 * loads + column / unroll) / rows + STEP / (rows * unroll)
    return Model(rows, unroll, registers, pair, (own - special) / unroll, special / unroll, nested)


def held(desc: Description) -> bool:
    """Whether the registers of a thread hold what one row takes."""
    traced = traced_of(desc)
    return model(desc, traced, Fold(desc, traced, 1, assembly=False), 1, 1, TritonPlan.group).registers <= MOST


def many_ranges(desc: Description, group: int) -> bool:
    """Whether a row may meet so many ranges that they are summed by groups."""
    return desc.ranges is not None and desc.reduction.rounds and desc.ranges.ranges > group


def words(dtype: Any) -> int:
    return max(1, np.dtype(computing(dtype)).itemsize // 4)


def choose(desc: Description, traced: TracedReduction, platform: str) -> TritonPlan:
    """The rows of a thread and the blocks in the loop that take the fewest instructions for a pair."""
    group = TritonPlan.group
    best: Any = None
    for unroll in (1, 2, 4, 8):
        if desc.n < LANES * unroll and unroll > 1:
            break
        fold, before = Fold(desc, traced, unroll, assembly=False), best
        for rows in (16, 8, 4, 2, 1):
            new = model(desc, traced, fold, rows, unroll, group)
            if rows > 1 and (new.registers > LIMIT or new.pair * rows * unroll > LOOP):
                continue
            if best is None or price(new) < 0.99 * price(best):
                best = new
        # A function of many instructions spills where many pairs call it at once.
        if (
            fold.program.calls()
            or fold.program.cost()[0] > LOOP / 4
            or (before is not None and price(best) > 0.97 * price(before))
        ):
            break
    warps, target = 4, chip()
    block_i, block_j, unroll = _block(desc, best.rows, warps), 0, best.unroll
    pairs = best.rows * warps * LANES  # at once
    programs = -(-desc.m // block_i) * math.prod(desc.batch)
    wanted = target.programs(best.registers, warps)
    # Few programs: smaller steps, so that there are enough of them to share out.
    while programs * desc.n * block_i < wanted * STEPS_OF_A_PART * pairs * unroll and (unroll, pairs) != (
        1,
        warps * LANES,
    ):
        unroll, pairs = (unroll // 2, pairs) if unroll > 1 else (1, pairs // 2)
        block_i = min(block_i, pairs // LANES)
        programs = -(-desc.m // block_i) * math.prod(desc.batch)
    # Where there are few rows, warps and the rows of a thread stand along j too.
    longest = max(LANES, 1 << (max(1, desc.n) - 1).bit_length())
    block_j = min(pairs // block_i, longest)
    enough = programs >= wanted or desc.ranges is not None  # the ranges of a cluster are never shared out
    splits = 1 if enough else min(-(-wanted // programs), desc.n // (block_j * unroll * STEPS_OF_A_PART))
    if not enough and splits < 2 and pairs == warps * LANES and best.rows > 1 and _subroutines(fold):
        # Loops of so few steps are unrolled, and around subroutines ptxas then spills, with most registers free, unless
        # all warps stand along j: two rows for each thread, which are more programs of fewer steps.
        block_j = min(longest, pairs)
        block_i = min(block_i, 2 * pairs // block_j)
    return TritonPlan(
        block_i, block_j, warps, unroll=unroll, splits=max(1, splits),
        group=group if best.registers <= LIMIT else 1 << 30,
        assembly=platform == "cuda", interpret=platform not in ("cuda", "rocm"), registers=best.registers,
        instructions=round(best.pair, 2), chip=target.name,
        bound=target.pairs_per_second(best.pair, best.floats, best.special),
    )  # fmt: skip


def _subroutines(fold: Fold) -> bool:
    """Whether a pair calls what float64 takes for the rare cases of quotients, roots and long functions."""
    own = [n for n in fold.program.nodes if n.reads == PAIR and n.dtype == np.float64]
    return any(WEIGHTS.get(n.name, 1) >= CALL or n.name in SHORT for n in own)


def _block(desc: Description, rows: int, warps: int) -> int:
    """Rows of a program: no more than there are."""
    return min(rows * warps, 1 << max(0, desc.m - 1).bit_length())


def price(m: Model) -> float:
    """Instructions of a pair, more where registers leave room for few warps."""
    return m.pair * crowding(m.registers)


def worth(plan: TritonPlan) -> float:
    """Pairs per second of a plan, fewer where registers leave room for few warps; tensor cores do with few."""
    return plan.bound / (1 if plan.tensor else crowding(plan.registers))


def crowding(registers: int) -> float:
    """What a pair costs more where the registers of a thread leave room for few warps."""
    return max(1.0, registers / PREFERRED) ** 2
