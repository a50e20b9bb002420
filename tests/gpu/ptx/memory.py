"""The memories of a GPU, watched: what a correct kernel never does to them raises an error.

- Global memory is a list of buffers far apart: an access outside them, or not aligned, is caught.  Inputs are only
  read.  An element of an output is written by one program alone, once all is done every element is written, and
  nobody reads what another program wrote or nobody did.
- Shared memory belongs to a program.  Two accesses of one byte by different threads, of which one is a write, must
  have a barrier between them, that of the whole program or that of the warp that both are in.  What copies write and
  matrix products read by themselves (`cp.async`, `wgmma`) is left alone until they were waited for; a product's reads
  are those of all four warps, and need a fence after the stores (`fence.proxy.async`).
- Local memory belongs to a thread, constants are only read.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .parser import PtxError
from .values import UNSIGNED, Array


class MemoryFault(PtxError):
    """An access outside of what is there, or not aligned."""


class RaceError(PtxError):
    """Two threads touch the same memory with nothing between them."""


class Lanes:
    """The threads of a launch in one row: program after program, warp after warp."""

    def __init__(self, programs: int, threads: int):
        self.programs, self.threads = programs, threads
        self.count = programs * threads
        lane = np.arange(self.count)
        self.program, self.thread = lane // threads, lane % threads
        self.warp = lane // 32  # unique over all programs
        self.lane = lane % 32


WARPGROUP = 128  # threads
SHIFT = np.uint64(40)  # buffers start at multiples of 2**40


class GlobalMemory:
    def __init__(self, lanes: Lanes, inputs: list[Array], outputs: list[Array], constants: list[bytes]):
        self.lanes = lanes
        arrays = [np.ascontiguousarray(a).reshape(-1).view(np.uint8) for a in [*inputs, *outputs]]
        arrays += [np.frombuffer(c, np.uint8) for c in constants]
        self.sizes = np.array([a.size for a in arrays], np.uint64)
        self.written = len(inputs), len(inputs) + len(outputs)
        # A margin, so that every buffer can be seen as elements of any width.
        self.bytes = [np.concatenate([a, np.zeros(16 - a.size % 16, np.uint8)]) for a in arrays]
        self.owner = {k: np.full(arrays[k].size, -1, np.int32) for k in range(*self.written)}

    def base(self, k: int) -> np.uint64:
        return np.uint64(k + 1) << SHIFT

    def _locate(self, address: Array, size: int, what: str) -> tuple[Array, Array]:
        buffer, offset = (address >> SHIFT).astype(np.int64) - 1, address & np.uint64((1 << 40) - 1)
        known = (buffer >= 0) & (buffer < len(self.bytes))
        end = self.sizes[np.where(known, buffer, 0)]
        inside = known & (offset + np.uint64(size) <= end)
        if not inside.all():
            k = int(np.argmin(inside))
            where = f"argument {buffer[k]} of {end[k]} bytes" if known[k] else "no argument"
            at = int(offset[k]) - (1 << 40 if offset[k] >> np.uint64(39) else 0)
            raise MemoryFault(f"{what} of {size} bytes out of bounds: offset {at} in {where}")
        if (offset % np.uint64(size)).any():
            raise MemoryFault(
                f"{what} of {size} bytes that is not aligned: offset {int(offset[np.argmax(offset % size)])}"
            )
        return buffer, offset.astype(np.int64)

    def load(self, address: Array, size: int, active: Array) -> Array:
        """Elements of `size` bytes; `active`: the numbers of the lanes that load."""
        out = np.zeros(address.size, UNSIGNED[size])
        buffer, offset = self._locate(address, size, "load")
        for k in np.unique(buffer):
            mine = buffer == k
            at = offset[mine]
            if k in self.owner:
                owners = self.owner[k][at[:, None] + np.arange(size)]
                if (owners == -1).any():
                    raise RaceError("load of an output that nobody has written")
                if (owners != self.lanes.program[active[mine]][:, None]).any():
                    raise RaceError("load of an output that another program writes")
            out[mine] = self.bytes[k].view(UNSIGNED[size])[at // size]
        return out

    def store(self, address: Array, values: Array, active: Array) -> None:
        size = values.dtype.itemsize
        buffer, offset = self._locate(address, size, "store")
        for k in np.unique(buffer):
            if k not in self.owner:
                raise MemoryFault(f"store to argument {k}, an input or a constant")
            mine = buffer == k
            at, own, program = offset[mine], values[mine], self.lanes.program[active[mine]]
            view = self.bytes[k].view(UNSIGNED[size])
            view[at // size] = own
            owners = self.owner[k][at[:, None] + np.arange(size)]
            if ((owners != -1) & (owners != program[:, None])).any():
                raise RaceError(f"two programs write the same element of argument {k}")
            self.owner[k][at[:, None] + np.arange(size)] = program[:, None]
            if (self.owner[k][at] != program).any():
                raise RaceError(f"two programs write the same element of argument {k}")
            if (view[at // size] != own).any():
                raise RaceError(f"two threads write different values to the same element of argument {k}")

    def outputs(self, like: list[Array]) -> list[Array]:
        """The outputs as arrays of the shapes and dtypes of `like`; every element must have been written."""
        found = []
        for k, array in zip(range(*self.written), like, strict=True):
            missing = int((self.owner[k] == -1).sum())
            if missing:
                raise PtxError(
                    f"{missing} of the {self.owner[k].size} bytes of argument {k}, an output, are never written"
                )
            found.append(self.bytes[k][: self.owner[k].size].view(array.dtype).reshape(array.shape))
        return found


NEVER = np.iinfo(np.int32).max


class SharedMemory:
    """For each byte: who wrote it last and who read it since, each with the barriers that were passed by then."""

    def __init__(self, lanes: Lanes, size: int):
        self.lanes, self.size = lanes, size
        shape = (lanes.programs, size)
        self.bytes = np.full(shape, 0xA5, np.uint8)
        self.barriers = np.zeros(lanes.programs, np.int32)  # passed by the whole program
        self.warp_barriers = np.zeros(lanes.count // 32, np.int32)  # passed by the warp alone
        none = lambda: np.full(shape, -1, np.int32)  # noqa: E731
        self.writer, self.write_barrier, self.write_warp_barrier = none(), none(), none()
        self.reader, self.read_barrier, self.read_warp_barrier = none(), none(), none()
        self.reader_warp = none()
        self.copied = np.zeros(shape, bool)  # by copies that were not waited for
        self.multiplied = np.zeros(shape, np.int16)  # by so many products that were not waited for
        # Fences between ordinary accesses and those of products, and the barriers that were passed by then: the
        # writer's first one since it wrote, and each thread's last one.
        self.write_fence = np.full(shape, NEVER, np.int32)
        self.fences = np.full(lanes.count, -1, np.int32)
        self.fenced = True  # by all threads, all that was written

    def _locate(self, address: Array, size: int, active: Array, what: str) -> tuple[Array, Array]:
        """Row and columns of the bytes; generic and shared addresses are the same here."""
        offset = address.astype(np.int64)
        if ((offset < 0) | (offset + size > self.size)).any():
            bad = offset[(offset < 0) | (offset + size > self.size)][0]
            raise MemoryFault(f"{what} of {size} bytes at {bad} of {self.size} bytes of shared memory")
        if (offset % size).any():
            raise MemoryFault(f"{what} of {size} bytes of shared memory that is not aligned")
        return self.lanes.program[active][:, None], offset[:, None] + np.arange(size)

    def _now(self, active: Array) -> tuple[Array, Array, Array, Array]:
        program, warp = self.lanes.program[active], self.lanes.warp[active]
        return (active.astype(np.int32)[:, None], warp.astype(np.int32)[:, None], self.barriers[program][:, None],
                self.warp_barriers[warp][:, None])  # fmt: skip

    def load(self, address: Array, size: int, active: Array) -> Array:
        at = self._locate(address, size, active, "load")
        lane, warp, barrier, warp_barrier = self._now(active)
        writer = self.writer[at]
        if (writer == -1).any():
            raise RaceError("load of shared memory that nobody has written")
        if self.copied[at].any():
            raise RaceError("load of shared memory that a copy writes which was not waited for")
        same_warp = writer // 32 == warp
        ordered = (
            (writer == lane)
            | (self.write_barrier[at] < barrier)
            | (same_warp & (self.write_warp_barrier[at] < warp_barrier))
        )
        if not ordered.all():
            raise self._race("load of shared memory that another thread wrote", ordered, writer, lane)
        self._remember_reads(at, lane, warp, barrier, warp_barrier)
        return np.ascontiguousarray(self.bytes[at]).view(UNSIGNED[size])[:, 0]

    def _remember_reads(self, at: Any, lane: Array, warp: Array, barrier: Array, warp_barrier: Array) -> None:
        """-2 stands for several readers since the last barrier; many lanes may read one byte at once."""
        stale = self.read_barrier[at] < barrier
        first = np.where(stale, -1, self.reader[at])
        first_warp = np.where(stale, -1, self.reader_warp[at])
        self.reader[at] = np.where((first == -1) | (first == lane), lane, -2)
        self.reader_warp[at] = np.where((first_warp == -1) | (first_warp == warp), warp, -2)
        self.read_barrier[at] = np.broadcast_to(barrier, first.shape)
        self.read_warp_barrier[at] = np.broadcast_to(warp_barrier, first.shape)
        # Where lanes of this very instruction read the same byte, the last one was kept.
        kept, kept_warp = self.reader[at], self.reader_warp[at]
        several = kept != np.where((first == -1) | (first == lane), lane, -2)
        mixed = kept_warp != np.where((first_warp == -1) | (first_warp == warp), warp, -2)
        rows = np.broadcast_to(at[0], several.shape)
        self.reader[rows[several], at[1][several]] = -2
        self.reader_warp[rows[mixed], at[1][mixed]] = -2

    def store(self, address: Array, values: Array, active: Array) -> None:
        at = self._locate(address, values.dtype.itemsize, active, "store")
        data = np.ascontiguousarray(values)[:, None].view(np.uint8)
        self._overwrite(at, data, active)
        self._remember_writes(at, active)

    def _overwrite(self, at: Any, data: Array, active: Array) -> None:
        lane, warp, barrier, warp_barrier = self._now(active)
        if self.copied[at].any():
            raise RaceError("store to shared memory that a copy writes which was not waited for")
        if self.multiplied[at].any():
            raise RaceError("store to shared memory that a matrix product reads which was not waited for")
        reader, reader_warp = self.reader[at], self.reader_warp[at]
        after_reads = (
            (reader == -1)
            | (reader == lane)
            | (self.read_barrier[at] < barrier)
            | ((reader_warp == warp) & (self.read_warp_barrier[at] < warp_barrier))
        )
        if not after_reads.all():
            raise self._race("store to shared memory that another thread reads", after_reads, reader, lane)
        writer = self.writer[at]
        after_writes = (
            (writer == -1)
            | (writer == lane)
            | (self.write_barrier[at] < barrier)
            | ((writer // 32 == warp) & (self.write_warp_barrier[at] < warp_barrier))
            | (self.bytes[at] == data)  # several threads may say the same
        )
        if not after_writes.all():
            raise self._race("store to shared memory that another thread wrote", after_writes, writer, lane)
        self.bytes[at] = data
        if (self.bytes[at] != data).any():
            raise RaceError("two threads store different values to the same shared memory at once")

    def _remember_writes(self, at: Any, active: Array) -> None:
        lane, _, barrier, warp_barrier = self._now(active)
        shape = at[1].shape
        self.writer[at] = np.broadcast_to(lane, shape)
        self.write_barrier[at] = np.broadcast_to(barrier, shape)
        self.write_warp_barrier[at] = np.broadcast_to(warp_barrier, shape)
        self.write_fence[at], self.fenced = NEVER, False

    def begin_copies(self, address: Array, data: Array, active: Array) -> Any:
        """Rows of bytes on their way to shared memory, and where they go."""
        at = self._locate(address, data.shape[1], active, "copy")
        self._overwrite(at, data, active)
        self.writer[at] = np.broadcast_to(active[:, None], data.shape)
        self.copied[at] = True
        return at

    def end_copies(self, at: Any, active: Array) -> None:
        """They are as what the threads store when they have waited."""
        self.copied[at] = False
        self._remember_writes(at, active)

    def fence(self, active: Array) -> None:
        """Threads let products see what they stored, or what others have told them by a barrier."""
        self.fences[active] = self.barriers[self.lanes.program[active]]
        if self.fenced:
            return
        all_of_them = active.size == self.lanes.count
        here = np.zeros(self.lanes.count, bool)
        here[active] = True
        new = (self.write_fence == NEVER) & (self.writer >= 0) & (here[self.writer] | all_of_them)
        self.write_fence = np.where(new, self.barriers[:, None], self.write_fence)
        self.fenced = all_of_them

    def load_operand(self, offset: Array, groups: Array) -> Array:
        """Bytes that products of warpgroups read, a row for each of them; `groups`: their numbers."""
        if ((offset < 0) | (offset >= self.size)).any():
            bad = offset[(offset < 0) | (offset >= self.size)][0]
            raise MemoryFault(f"a matrix product reads at {bad} of {self.size} bytes of shared memory")
        program = self._program(groups)
        at, barrier = (program, offset), self.barriers[program]
        if (self.writer[at] == -1).any():
            raise RaceError("a matrix product of shared memory that nobody has written")
        if self.copied[at].any():
            raise RaceError("a matrix product of shared memory that a copy writes which was not waited for")
        written = self.write_barrier[at]
        if not (written < barrier).all():
            raise self._race(
                "a matrix product of shared memory that a thread wrote",
                *(written < barrier, self.writer[at], groups[:, None] * WARPGROUP),
            )
        fences = self.fences.reshape(-1, WARPGROUP).min(1)[groups][:, None]
        if not ((self.write_fence[at] < barrier) | (fences > written)).all():
            raise RaceError("a matrix product of shared memory with no fence.proxy.async since it was written")
        return np.ascontiguousarray(self.bytes[at])

    def hold(self, offset: Array, groups: Array) -> None:
        """Products of warpgroups read these bytes until they were waited for."""
        np.add.at(self.multiplied.reshape(-1), self._program(groups) * self.size + offset, 1)

    def release(self, offset: Array, groups: Array) -> None:
        """They have been read by all four warps."""
        program = self._program(groups)
        np.subtract.at(self.multiplied.reshape(-1), program * self.size + offset, 1)
        at = program, offset
        self.reader[at] = self.reader_warp[at] = -2
        self.read_barrier[at] = np.broadcast_to(self.barriers[program], offset.shape)

    def _program(self, groups: Array) -> Array:
        return self.lanes.program[groups * WARPGROUP][:, None]

    def _race(self, what: str, ordered: Array, other: Array, lane: Array) -> RaceError:
        k = tuple(np.argwhere(~ordered)[0])
        mine = int(lane[k[0], 0]) % self.lanes.threads
        theirs = "several" if other[k] < 0 else str(int(other[k]) % self.lanes.threads)
        return RaceError(f"{what} with no barrier between: threads {mine} and {theirs}")


class LocalMemory:
    """Bytes of each thread's own."""

    def __init__(self, lanes: Lanes, size: int):
        self.size = size
        self.bytes = np.full((lanes.count, size), 0xA5, np.uint8)

    def _locate(self, address: Array, size: int, active: Array, what: str) -> tuple[Array, Array]:
        offset = address.astype(np.int64)
        if ((offset < 0) | (offset + size > self.size) | (offset % size != 0)).any():
            raise MemoryFault(f"{what} of {size} bytes outside the {self.size} bytes of local memory, or not aligned")
        return active[:, None], offset[:, None] + np.arange(size)

    def load(self, address: Array, size: int, active: Array) -> Array:
        return np.ascontiguousarray(self.bytes[self._locate(address, size, active, "load")]).view(UNSIGNED[size])[:, 0]

    def store(self, address: Array, values: Array, active: Array) -> None:
        at = self._locate(address, values.dtype.itemsize, active, "store")
        self.bytes[at] = np.ascontiguousarray(values)[:, None].view(np.uint8)
