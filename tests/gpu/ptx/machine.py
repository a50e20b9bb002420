"""A launch: all threads of all programs walk through the code of a kernel, in NumPy.

Every thread has its own position.  The threads that are furthest behind go first, so that those which a branch has
separated meet again; threads that wait at a barrier stand aside until all of their program are there.  Which order a
GPU would choose makes no difference to a kernel without races, and races are errors (see `memory`).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence

import numpy as np

from . import arithmetic, copies, floats, tensor, warp, warpgroup
from .frame import Frame, Mask, unsigned
from .groups import Groups
from .memory import WARPGROUP, GlobalMemory, Lanes, LocalMemory, SharedMemory
from .parser import WIDTH, Function, Group, Immediate, Instruction, Module, Operand, PtxError, Register, Symbol, parse
from .values import Array, immediate, read
from .warp import DivergenceError

Step = Callable[[Mask], None]

STEPS = 2_000_000  # instructions after which a launch is taken for endless

_HINT = r"(?:\.(?:ca|cg|cs|lu|cv|wb|wt))?(?:\.L1::\w+)?(?:\.L2::\w+)?"
_LOAD = re.compile(
    rf"ld(?:\.volatile)?\.(param(?:::entry|::func)?|global|shared|shared::cta|local|const){_HINT}(?:\.nc)?{_HINT}(?:\.v([24]))?\.(\w+)"
)
_STORE = re.compile(
    rf"st(?:\.volatile)?\.(param(?:::func)?|global|shared|shared::cta|local){_HINT}(?:\.v([24]))?\.(\w+)"
)
_MOVE = re.compile(r"mov\.(pred|[bus](?:16|32|64)|f(?:16|32|64))")
_SHUFFLE = re.compile(r"shfl\.sync\.(?:up|down|bfly|idx)\.b32")
_VOTE = re.compile(r"vote\.sync\.(?:any|all|uni)\.pred|vote\.sync\.ballot\.b32")
_REDUX = re.compile(r"redux\.sync\.(?:(?:add|min|max)\.[us]32|(?:and|or|xor)\.b32)")
_NOTHING = {"griddepcontrol.wait", "griddepcontrol.launch_dependents"}
_BARRIER = {"bar.sync", "barrier.sync", "barrier.sync.aligned", "barrier.cta.sync.aligned", "bar.cta.sync"}
_IDENTITY = re.compile(r"cvta(?:\.to)?\.(?:global|shared|local)\.u64")


class Machine:
    def __init__(
        self,
        text: str | Module,
        grid: Sequence[int],
        inputs: Sequence[Array],
        outputs: Sequence[Array],
        entry: str | None = None,
        shared: int = 0,
        error: float = 0.0,
    ):
        """`shared`: bytes of shared memory given at launch; `error`: of approximate functions, in its bounds."""
        self.module = parse(text) if isinstance(text, str) else text
        entries = [f for f in self.module.functions.values() if f.entry and entry in (None, f.name)]
        if len(entries) != 1:
            raise PtxError(f"{len(entries)} kernels of the name {entry}")
        (function,) = entries
        self.grid = tuple([*grid, 1, 1][:3])
        self.block = function.threads or (0, 0, 0)
        threads = int(np.prod(self.block))
        if not threads or threads % 32:
            raise PtxError(f"{function.name} has {threads} threads, not a positive multiple of 32")
        self.lanes = Lanes(int(np.prod(self.grid)), threads)
        self.error = error
        self.copies = Groups(self.lanes.count)
        self.products = Groups(self.lanes.count // WARPGROUP)
        self.addresses: dict[str, int] = {}
        constants = self._variables(len(inputs) + len(outputs), shared)
        self.globals = GlobalMemory(self.lanes, list(inputs), list(outputs), constants)
        self.like = list(outputs)
        self.frames: dict[str, Frame] = {}
        self.executed: dict[str, int] = {}
        self._enter(function)

    def _variables(self, first: int, shared: int) -> list[bytes]:
        """Give addresses to the variables of the module."""
        constants, size = [], 0
        for name, variable in self.module.variables.items():
            if variable.space == "shared":
                if variable.count is None and any(
                    v.space == "shared" and v.count for v in self.module.variables.values()
                ):
                    raise PtxError("shared memory both declared and given at launch")
                self.addresses[name] = size = -(-size // variable.align) * variable.align
                size += WIDTH[variable.kind] * variable.count if variable.count is not None else shared
            elif variable.space in ("global", "const"):
                data = variable.data or b""
                total = WIDTH[variable.kind] * (variable.count or len(data) // WIDTH[variable.kind])
                self.addresses[name] = (first + len(constants) + 1) << 40
                constants.append(data.ljust(total, b"\0"))
            else:
                raise PtxError(f"{name}: .{variable.space} variables of a module are not supported")
        self.shared = SharedMemory(self.lanes, size)
        return constants

    def _enter(self, function: Function) -> None:
        frame = self.frame(function.name)
        buffers = len(self.globals.sizes) - sum(v.space in ("global", "const") for v in self.module.variables.values())
        if len(function.parameters) != buffers:
            raise PtxError(f"{function.name} takes {len(function.parameters)} arguments, not {buffers}")
        every = np.arange(self.lanes.count)
        for k, name in enumerate(function.parameters):
            address = np.full(self.lanes.count, self.globals.base(k))
            frame.memory[name].store(np.zeros(self.lanes.count, np.uint64), address, every)
        self.entry = frame

    def run(self) -> list[Array]:
        """The outputs, once every thread has returned."""
        with np.errstate(all="ignore"):
            self._walk(self.entry, None)
        if self.copies.pending or self.products.pending:
            raise PtxError("threads return from a kernel with copies or matrix products that were not waited for")
        return self.globals.outputs(self.like)

    def special(self, name: str) -> Array:
        """A special register, such as %tid.x, as unsigned 32-bit values."""
        register, _, axis = name.partition(".")
        lanes = self.lanes
        if register in ("%laneid", "%warpid") and not axis:
            return (lanes.lane if register == "%laneid" else lanes.thread // 32).astype(np.uint32)
        k = {"x": 0, "y": 1, "z": 2}.get(axis)
        if k is None:
            raise PtxError(f"unknown special register {name}")
        sizes = self.block if "tid" in register and "cta" not in register else self.grid
        if register in ("%ntid", "%nctaid"):
            return np.full(lanes.count, sizes[k], np.uint32)
        number = lanes.thread if register == "%tid" else lanes.program
        return (number // int(np.prod(sizes[:k])) % sizes[k]).astype(np.uint32)

    def address_of(self, name: str) -> int:
        if name not in self.addresses:
            raise PtxError(f"no variable {name}")
        return self.addresses[name]

    def frame(self, name: str) -> Frame:
        """The frame of a function; there is one for each, so none calls itself."""
        if name not in self.frames:
            if name not in self.module.functions or not self.module.functions[name].code:
                raise PtxError(f"no function {name}")
            frame = self.frames[name] = Frame(self.module.functions[name], self)
            if any(i.opcode.startswith("wgmma.") for i in frame.function.code):
                frame.watch = warpgroup.Watch(self.lanes.count)
            frame.steps = [self._prepare(frame, i) for i in frame.function.code]
        return self.frames[name]

    # The walk

    def _walk(self, frame: Frame, mask: Mask) -> None:
        """Run a function for the lanes of a mask until they all return."""
        code, labels, steps = frame.function.code, frame.function.labels, frame.steps
        at = np.zeros(self.lanes.count, np.int64)
        live = np.ones(self.lanes.count, bool) if mask is None else mask.copy()
        waiting = np.zeros(self.lanes.count, bool)
        position: int | None = 0 if mask is None else None  # of all lanes, while they are together
        count = 0
        while True:
            if position is not None:
                here, active = position, None
            else:
                ready = live & ~waiting
                if not ready.any():
                    if not live.any():
                        return
                    raise DivergenceError("threads of a program wait at different barriers, or for one that has left")
                here = int(at[ready].min())
                active = ready & (at == here)
                if active.all():
                    position, active = here, None
            if here >= len(code):
                raise PtxError(f"{frame.function.name} runs past its end")
            count += 1
            if count > STEPS:
                raise PtxError(f"no end after {STEPS} instructions")
            instruction = code[here]
            self.executed[instruction.opcode] = self.executed.get(instruction.opcode, 0) + 1
            try:
                doing = self._guarded(frame, instruction, active)
                opcode = instruction.opcode
                if opcode in ("bra", "bra.uni"):
                    (label,) = instruction.operands
                    target = labels[label.name]  # type: ignore[union-attr]
                    if doing is None:
                        position = target
                    else:
                        if position is not None:
                            at[:] = here + 1
                            live[:], waiting[:], position = True, False, None
                        else:
                            at[active] = here + 1
                        at[doing] = target
                        if opcode == "bra.uni" and active is None and doing.any() and not doing.all():
                            raise DivergenceError("threads part at a branch that is said to be uniform")
                    continue
                if opcode in ("ret", "exit") or opcode in _BARRIER:
                    if position is not None and doing is not None:
                        at[:] = here
                        live[:], waiting[:], position, active = True, False, None, np.ones(self.lanes.count, bool)
                    if opcode in _BARRIER:
                        if frame is not self.entry:
                            raise PtxError("a barrier inside a called function is not supported")
                        self._check_barrier(instruction)
                        if position is not None:
                            self.shared.barriers += 1
                            position = here + 1
                        else:
                            at[active] = here + 1
                            waiting |= doing
                            at[doing] = here  # type: ignore[index]
                            self._release(at, live, waiting)
                    elif position is not None:
                        return
                    else:
                        at[active] = here + 1
                        live &= ~doing  # type: ignore[operator]
                    continue
                if doing is None or doing.any():
                    frame.active = doing
                    steps[here](doing)
            except PtxError as error:
                raise type(error)(f"{frame.function.name}, {instruction}: {error}") from None
            if position is not None:
                position = here + 1
            else:
                at[active] = here + 1

    def _guarded(self, frame: Frame, instruction: Instruction, active: Mask) -> Mask:
        """The lanes for which the guard of an instruction holds."""
        if instruction.guard is None:
            return active
        holds = frame.reader(instruction.guard, "pred")()
        holds = np.broadcast_to(~holds if instruction.negated else holds, (self.lanes.count,))
        if active is None:
            return None if holds.all() else holds
        return active & holds

    def _check_barrier(self, instruction: Instruction) -> None:
        first, *count = instruction.operands
        if not isinstance(first, Immediate) or first.value != 0:
            raise PtxError("only barrier 0 is supported")
        if count and not (isinstance(count[0], Immediate) and count[0].value == self.lanes.threads):
            raise PtxError("only barriers of the whole program are supported")

    def _release(self, at: Array, live: Array, waiting: Array) -> None:
        """Let the programs go on of which all threads wait at one barrier."""
        shape = (self.lanes.programs, self.lanes.threads)
        full = waiting.reshape(shape).all(1)
        together = (at.reshape(shape) == at.reshape(shape)[:, :1]).all(1)
        free = np.repeat(full & together, self.lanes.threads)
        self.shared.barriers[full & together] += 1
        at[free] += 1
        waiting[free] = False

    # What each instruction does

    def _prepare(self, frame: Frame, instruction: Instruction) -> Step:
        try:
            return self._step(frame, instruction)
        except PtxError as error:
            raise type(error)(f"{frame.function.name}, {instruction}: {error}") from None

    def _step(self, frame: Frame, instruction: Instruction) -> Step:
        opcode, operands = instruction.opcode, instruction.operands
        if opcode in arithmetic.OPERATIONS:
            return self._compute(frame, arithmetic.OPERATIONS[opcode], operands)
        if opcode in ("bra", "bra.uni", "ret", "exit", *_BARRIER, *_NOTHING):
            return lambda mask: None  # the walk does it
        if match := _MOVE.fullmatch(opcode):
            return self._move(frame, match[1], operands)
        if match := _LOAD.fullmatch(opcode):
            return self._load(frame, match[1], int(match[2] or 1), match[3], operands)
        if match := _STORE.fullmatch(opcode):
            return self._store(frame, match[1], int(match[2] or 1), match[3], operands)
        if _IDENTITY.fullmatch(opcode):  # addresses of all spaces are what they are
            put, get = frame.writer(operands[0], "u64"), frame.reader(operands[1], "u64")
            return lambda mask: put(get(), mask)
        if _SHUFFLE.fullmatch(opcode):
            return warp.shuffle(frame, instruction)
        if _VOTE.fullmatch(opcode):
            return warp.vote(frame, instruction)
        if _REDUX.fullmatch(opcode):
            return warp.reduce(frame, instruction)
        if opcode.startswith(("ldmatrix", "stmatrix")):
            return warp.matrix(frame, instruction)
        if opcode.startswith("mma."):
            return tensor.product(frame, instruction)
        if opcode.startswith("wgmma."):
            return warpgroup.step(frame, instruction)
        if opcode.startswith("cp.async."):
            return copies.step(frame, instruction)
        if opcode in ("fence.proxy.async", "fence.proxy.async.shared::cta") and not operands:
            return lambda mask: self.shared.fence(self._indices(mask))
        if opcode == "bar.warp.sync":
            return self._warp_barrier(frame, operands)
        if opcode in ("call", "call.uni"):
            return self._call(frame, operands)
        raise PtxError(f"unknown instruction {opcode}")

    def _compute(self, frame: Frame, op: arithmetic.Operation, operands: Sequence[Operand]) -> Step:
        put = frame.writer(operands[0], op.destination, op.wider)
        kinds = [k for k in op.sources if k != "carry"]
        if len(operands) != 1 + len(kinds):
            raise PtxError(f"{len(operands)} operands where {1 + len(kinds)} were due")
        readers = [frame.reader(o, k, op.wider) for o, k in zip(operands[1:], kinds, strict=True)]
        function, extra = op.function, {}
        if function in floats.APPROXIMATE:
            extra = {"error": self.error}
        takes, gives = "carry" in op.sources, "cc" in op.words

        def step(mask: Mask) -> None:
            values = [r() for r in readers]
            if takes:
                if frame.carry is None:
                    raise PtxError("the carry is read before it is written")
                values.append(frame.carry)
            out = function(op, *values, **extra)
            if gives:
                out, carry = out
                carry = np.broadcast_to(carry, (self.lanes.count,))
                old = np.zeros_like(carry) if frame.carry is None else frame.carry
                frame.carry = carry if mask is None else np.where(mask, carry, old)
            put(out, mask)

        return step

    def _move(self, frame: Frame, kind: str, operands: Sequence[Operand]) -> Step:
        target, source = operands
        reader, writer = (functools.partial(f, access="move") for f in (frame.reader, frame.writer))
        if isinstance(source, Group):  # several registers into one
            parts = len(source.items)
            narrow = f"b{8 * WIDTH[kind] // parts}"
            put, readers = writer(target, kind), [reader(i, narrow) for i in source.items]
            dtype, bits = unsigned(kind), 8 * WIDTH[kind] // parts

            def pack(mask: Mask) -> None:
                values = [r().astype(dtype) << dtype(bits * k) for k, r in enumerate(readers)]
                whole = np.bitwise_or.reduce(np.broadcast_arrays(*values))
                put(
                    np.ascontiguousarray(whole).view(
                        f"{'f' if kind[0] == 'f' else 'i' if kind[0] == 's' else 'u'}{WIDTH[kind]}"
                    ),
                    mask,
                )

            return pack
        if isinstance(target, Group):
            parts = len(target.items)
            bits = 8 * WIDTH[kind] // parts
            writers, get = (
                [writer(i, f"b{bits}") for i in target.items],
                reader(source, f"b{8 * WIDTH[kind]}"),
            )

            def unpack(mask: Mask) -> None:
                value = get()
                for k, put in enumerate(writers):
                    put((value >> value.dtype.type(bits * k)).astype(f"u{bits // 8}"), mask)

            return unpack
        put, get = writer(target, kind), reader(source, kind)
        return lambda mask: put(get(), mask)

    def _indices(self, mask: Mask) -> Array:
        return np.arange(self.lanes.count) if mask is None else np.flatnonzero(mask)

    def _space(self, frame: Frame, space: str) -> GlobalMemory | SharedMemory | LocalMemory:
        own = {"global": self.globals, "const": self.globals, "shared": self.shared, "shared::cta": self.shared}
        return own.get(space, frame.local)  # type: ignore[return-value]

    def _place(self, frame: Frame, space: str, operand: Operand) -> tuple[Callable[[Array], Array], object]:
        """The addresses that an operand stands for, of given lanes, and the memory that they are in."""
        if space.startswith("param"):
            base = operand.base.name  # type: ignore[union-attr]
            if base not in frame.memory:
                raise PtxError(f"no parameter {base}")
            offset = np.uint64(operand.offset)  # type: ignore[union-attr]
            return lambda active: np.full(active.size, offset), frame.memory[base]
        address = frame.address(operand)
        return lambda active: np.broadcast_to(address(), (self.lanes.count,))[active], self._space(frame, space)

    def _load(self, frame: Frame, space: str, count: int, kind: str, operands: Sequence[Operand]) -> Step:
        where, memory = self._place(frame, space, operands[1])
        writers = [frame.writer(i, kind, wider=True) for i in frame.parts(operands[0], kind, count)]
        size, dtype = WIDTH[kind], {"bf16": "b16"}.get(kind, kind)

        def step(mask: Mask) -> None:
            active = self._indices(mask)
            address = where(active)
            if count > 1 and (address % np.uint64(size * count)).any():
                raise PtxError(f"a vector of {size * count} bytes that is not aligned")
            for k, put in enumerate(writers):
                bits = memory.load(address + np.uint64(k * size), size, active)  # type: ignore[attr-defined]
                whole = np.zeros(self.lanes.count, bits.dtype)
                whole[active] = bits
                put(read(whole, dtype), mask)

        return step

    def _store(self, frame: Frame, space: str, count: int, kind: str, operands: Sequence[Operand]) -> Step:
        where, memory = self._place(frame, space, operands[0])
        bits_kind = f"b{8 * WIDTH[kind]}"
        readers = [self._stored(frame, i, kind, bits_kind) for i in frame.parts(operands[1], kind, count)]
        size = WIDTH[kind]

        def step(mask: Mask) -> None:
            active = self._indices(mask)
            address = where(active)
            if count > 1 and (address % np.uint64(size * count)).any():
                raise PtxError(f"a vector of {size * count} bytes that is not aligned")
            for k, get in enumerate(readers):
                values = np.broadcast_to(get(), (self.lanes.count,))[active]
                memory.store(address + np.uint64(k * size), values, active)  # type: ignore[attr-defined]

        return step

    def _stored(self, frame: Frame, operand: Operand, kind: str, bits: str) -> Callable[[], Array]:
        if isinstance(operand, Immediate):
            constant = np.array([immediate(operand, kind)]).view(unsigned(kind))
            return lambda: constant
        return frame.reader(operand, bits, wider=True)

    def _warp_barrier(self, frame: Frame, operands: Sequence[Operand]) -> Step:
        members = frame.reader(operands[0], "u32")

        def step(mask: Mask) -> None:
            active = warp.check_members(members(), mask, self.lanes, "a barrier of a warp")
            if not (np.broadcast_to(members(), active.shape)[active] == 0xFFFFFFFF).all():
                raise PtxError("only barriers of the whole warp are supported")
            self.shared.warp_barriers[np.unique(self.lanes.warp[active])] += 1

        return step

    def _call(self, frame: Frame, operands: Sequence[Operand]) -> Step:
        """(results), function, (arguments): parameters are copied in and out."""
        groups = [o for o in operands if isinstance(o, Group)]
        (name,) = [o for o in operands if isinstance(o, Symbol)]
        results = list(groups.pop(0).items) if isinstance(operands[0], Group) else []
        arguments = list(groups.pop(0).items) if groups else []
        if name.name == frame.function.name or any(isinstance(o, Register) for o in operands):
            raise PtxError("only calls of other functions by name are supported")

        def step(mask: Mask) -> None:
            callee = self.frame(name.name)
            for mine, theirs in zip(arguments, callee.function.parameters, strict=True):
                np.copyto(callee.memory[theirs].bytes, frame.memory[mine.name].bytes)  # type: ignore[union-attr]
            self._walk(callee, mask)
            for mine, theirs in zip(results, callee.function.results, strict=True):
                np.copyto(frame.memory[mine.name].bytes, callee.memory[theirs].bytes)  # type: ignore[union-attr]

        return step


def run(
    text: str,
    grid: Sequence[int],
    inputs: Sequence[Array],
    outputs: Sequence[Array],
    entry: str | None = None,
    shared: int = 0,
    error: float = 0.0,
) -> list[Array]:
    """Launch a kernel on NumPy arrays: what it writes, in arrays of the shapes and dtypes of `outputs`."""
    return Machine(text, grid, inputs, outputs, entry, shared, error).run()
