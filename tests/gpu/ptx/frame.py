"""The registers of a function, and how operands are read and written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from .memory import LocalMemory
from .parser import WIDTH, Address, Function, Group, Immediate, Negated, Operand, PtxError, Register, Symbol
from .values import UNSIGNED, Array, immediate, read, write

Mask = Array | None  # None: every lane
Read = Callable[[], Array]
Write = Callable[[Any, Mask], None]
Access = Literal["product", "move", "other"]

SPECIAL = ("%tid", "%ntid", "%ctaid", "%nctaid", "%laneid", "%warpid")


class Frame:
    """One function at work: registers of all lanes, its parameters, its local memory."""

    def __init__(self, function: Function, machine: Any):
        self.function, self.machine = function, machine
        self.registers: dict[str, Array] = {}
        self.carry: Array | None = None
        self.steps: list[Callable[[Mask], None]] = []  # what each instruction does
        self.active: Mask = None  # lanes of the instruction at work
        # Registers that matrix products of warpgroups have, if there are any.
        self.watch: Any = None
        self.memory: dict[str, LocalMemory] = {}
        self.depot: dict[str, int] = {}
        size = 0
        for name, variable in function.variables.items():
            total = WIDTH[variable.kind] * (variable.count or 0)
            if variable.space == "param":
                self.memory[name] = LocalMemory(machine.lanes, total)
            elif variable.space == "local":
                size = -(-size // variable.align) * variable.align
                self.depot[name] = size
                size += total
            else:
                raise PtxError(f"{name}: .{variable.space} variables inside a function are not supported")
        self.local = LocalMemory(machine.lanes, size)

    # Reading

    def reader(self, operand: Operand, kind: str, wider: bool = False, access: Access = "other") -> Read:
        """A function that gives an operand's values, for all lanes or for one that stands for all.

        `access`: by what, which matters for registers that products have (see `warpgroup.Watch`).
        """
        if isinstance(operand, Immediate):
            constant = np.array([immediate(operand, kind)])
            return lambda: constant
        if isinstance(operand, Negated):
            if kind != "pred":
                raise PtxError(f"!{operand.register.name} where {kind} was due")
            positive = self.reader(operand.register, kind)
            return lambda: ~positive()
        if isinstance(operand, Symbol):
            address = np.array([self.address_of(operand.name)], np.uint64)
            if kind not in ("b64", "u64", "b32", "u32"):
                raise PtxError(f"the address of {operand.name} where {kind} was due")
            narrow = read(address, kind, wider=True)
            return lambda: narrow
        if not isinstance(operand, Register):
            raise PtxError(f"{operand} where a value was due")
        if operand.name.split(".")[0] in SPECIAL:
            special = self.machine.special(operand.name)
            return lambda: read(special, kind)
        self.declared(operand)
        name, registers = operand.name, self.registers

        def value() -> Array:
            if name not in registers:
                raise PtxError(f"{name} is read before it is written")
            return read(registers[name], kind, wider)

        def watched_value() -> Array:
            self.watch.touch(name, self.active, access)
            return value()

        watched = access != "product" and kind != "pred" and self.watch is not None
        return watched_value if watched else value

    def declared(self, register: Register) -> str:
        if register.name not in self.function.registers:
            raise PtxError(f"no register {register.name}")
        return self.function.registers[register.name]

    def address_of(self, name: str) -> int:
        if name in self.depot:
            return self.depot[name]
        return self.machine.address_of(name)

    def address(self, operand: Operand, kind: str = "u64") -> Read:
        """The addresses that `[base + offset]` stands for, without the parameters' space."""
        if not isinstance(operand, Address):
            raise PtxError(f"{operand} where an address was due")
        base = operand.base
        own = (
            "u32"
            if isinstance(base, Register) and self.function.registers.get(base.name, "") in ("b32", "u32")
            else kind
        )
        value = self.reader(base, own)
        offset = np.uint64(operand.offset % (1 << 64))
        return lambda: value().astype(np.uint64) + offset

    # Writing

    def writer(self, operand: Operand, kind: str, wider: bool = False, access: Access = "other") -> Write:
        """A function that takes a result, for all lanes or one for all, and the lanes that are to have it."""
        if isinstance(operand, Symbol) and operand.name == "_":
            return lambda values, mask: None
        if isinstance(operand, Group) and len(operand.items) == 1:  # {%r1}, as inline assembly writes it
            (operand,) = operand.items
        if not isinstance(operand, Register):
            raise PtxError(f"{operand} where a register was due")
        declared = self.declared(operand)
        if (declared == "pred") != (kind == "pred"):
            raise PtxError(f"{operand.name}, declared {declared}, takes a result of {kind}")
        width = None if kind == "pred" else WIDTH[declared]
        if width is not None and width != WIDTH[kind] and not wider:
            raise PtxError(f"{operand.name}, declared {declared}, takes a result of {kind}")
        name, count = operand.name, self.machine.lanes.count
        watch = self.watch if access != "product" and kind != "pred" else None

        def put(values: Any, mask: Mask) -> None:
            if watch is not None:
                watch.touch(name, mask, access)
            bits = write(values, kind, width)
            self.set(name, bits if bits.shape == (count,) else np.broadcast_to(bits, (count,)), mask)

        return put

    def set(self, name: str, bits: Array, mask: Mask) -> None:
        if mask is None:
            self.registers[name] = bits
            return
        old = self.registers.get(name)
        if old is None:  # what nobody wrote is noise, and not a number where it is a float
            old = np.zeros(bits.shape, bool) if bits.dtype == bool else np.full(bits.shape, -1).astype(bits.dtype)
        self.registers[name] = np.where(mask, bits, old)

    def parts(self, operand: Operand, kind: str, count: int) -> list[Operand]:
        """The registers of a vector operand."""
        items = list(operand.items) if isinstance(operand, Group) and operand.brackets == "{}" else [operand]
        if len(items) != count:
            raise PtxError(f"{len(items)} operands where {count} of {kind} were due")
        return items


def unsigned(kind: str) -> Any:
    return UNSIGNED[WIDTH[kind]]
