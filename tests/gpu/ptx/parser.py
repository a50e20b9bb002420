"""PTX text as a syntax tree: variables, functions, instructions.  PTX ISA 8.8, sections 4 and 5.

What is not understood is refused with its line; nothing is skipped but debug directives.
"""

from __future__ import annotations

import dataclasses
import re
import struct
from collections.abc import Iterator


class PtxError(Exception):
    """The text cannot be run, or running it does what no correct program does."""


@dataclasses.dataclass(frozen=True)
class Register:
    name: str


@dataclasses.dataclass(frozen=True)
class Negated:
    """`!%p`, a negated predicate among the operands."""

    register: Register


@dataclasses.dataclass(frozen=True)
class Immediate:
    """An integer, or the bits of a float with their width (32 or 64)."""

    value: int
    width: int | None = None


@dataclasses.dataclass(frozen=True)
class Symbol:
    """A label, a variable, a function, or `_`, which drops a result."""

    name: str


@dataclasses.dataclass(frozen=True)
class Address:
    base: Register | Symbol | Immediate
    offset: int


@dataclasses.dataclass(frozen=True)
class Group:
    """`{a, b}`, `(a, b)` or `a|b`."""

    items: tuple[Operand, ...]
    brackets: str


Operand = Register | Negated | Immediate | Symbol | Address | Group


@dataclasses.dataclass(frozen=True)
class Instruction:
    opcode: str
    operands: tuple[Operand, ...]
    guard: Register | None  # the predicate before it, if any
    negated: bool  # whether the guard is `@!%p`
    line: int

    def __str__(self) -> str:
        guard = f"@{'!' * self.negated}{self.guard.name} " if self.guard else ""
        return f"line {self.line}: {guard}{self.opcode}"


@dataclasses.dataclass
class Variable:
    space: str  # global, const, shared, local, param
    kind: str  # type of an element: b8, u64
    align: int
    count: int | None  # None: an array of no stated length, sized at launch
    data: bytes | None = None


@dataclasses.dataclass
class Function:
    name: str
    entry: bool
    parameters: list[str]
    results: list[str]
    threads: tuple[int, int, int] | None = None  # .reqntid or .maxntid
    registers: dict[str, str] = dataclasses.field(default_factory=dict)  # name: type
    variables: dict[str, Variable] = dataclasses.field(default_factory=dict)
    code: list[Instruction] = dataclasses.field(default_factory=list)
    labels: dict[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Module:
    target: str
    variables: dict[str, Variable]
    functions: dict[str, Function]


WIDTH = {"b8": 1, "u8": 1, "s8": 1, "b16": 2, "u16": 2, "s16": 2, "f16": 2, "bf16": 2, "b32": 4, "u32": 4, "s32": 4,
         "f32": 4, "f16x2": 4, "bf16x2": 4, "b64": 8, "u64": 8, "s64": 8, "f64": 8, "b128": 16}  # fmt: skip

_TOKEN = re.compile(
    r"(?P<space>\s+|//[^\n]*|/\*.*?\*/)"
    r"|(?P<number>0[fF][0-9a-fA-F]{8}|0[dD][0-9a-fA-F]{16}|0[xX][0-9a-fA-F]+U?|\d+\.\d+|\d+U?)"
    r"|(?P<word>[.%$A-Za-z_](?:[\w$.]|::)*)"
    r'|(?P<text>"[^"\n]*")'
    r"|(?P<mark>[][{}(),;:@!+\-=<>|])",
    re.DOTALL,
)
_LINKAGE = {".visible", ".extern", ".weak", ".common"}
_SPACES = {".global", ".const", ".shared", ".local", ".param"}


@dataclasses.dataclass(frozen=True)
class Token:
    kind: str
    text: str
    line: int


def tokens(text: str) -> Iterator[Token]:
    at, line = 0, 1
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise PtxError(f"line {line}: cannot read {text[at : at + 20]!r}")
        if match.lastgroup != "space":
            yield Token(str(match.lastgroup), match.group(), line)
        line += match.group().count("\n")
        at = match.end()


def parse(text: str) -> Module:
    """The module that a PTX text holds."""
    return _Parser(list(tokens(text))).module()


class _Parser:
    def __init__(self, found: list[Token]):
        self.tokens = [*found, Token("end", "", found[-1].line if found else 1)]
        self.at = 0
        self.registers: dict[str, str] = {}  # of the function that is read

    @property
    def text(self) -> str:
        return self.tokens[self.at].text

    def error(self, message: str) -> PtxError:
        return PtxError(f"line {self.tokens[self.at].line}: {message}, at {self.text!r}")

    def take(self, expected: str | None = None) -> str:
        text = self.text
        if expected is not None and text != expected:
            raise self.error(f"{expected!r} expected")
        self.at += 1
        return text

    def accept(self, text: str) -> bool:
        if self.text == text:
            self.at += 1
            return True
        return False

    def integer(self) -> int:
        sign = -1 if self.accept("-") else 1
        text = self.take()
        if not re.fullmatch(r"(0[xX][0-9a-fA-F]+|\d+)U?", text):
            self.at -= 1
            raise self.error("an integer expected")
        return sign * int(text.rstrip("U"), 0)

    def listed(self, opening: str, closing: str) -> Iterator[None]:
        """Each position of a list in brackets."""
        self.take(opening)
        while not self.accept(closing):
            yield
            if self.text != closing:
                self.take(",")

    # Declarations

    def module(self) -> Module:
        module = Module("", {}, {})
        self.take(".version")
        self.take()
        self.take(".target")
        module.target = self.take()
        while self.accept(","):
            self.take()
        self.take(".address_size")
        self.take("64")
        while self.text:
            while self.text in _LINKAGE:
                self.take()
            if self.text in (".entry", ".func"):
                function = self.function()
                module.functions[function.name] = function
            elif self.text in _SPACES:
                name, variable = self.variable()
                module.variables[name] = variable
                self.take(";")
            elif self.text == ".file":
                self.debug()
            else:
                raise self.error("unknown directive")
        return module

    def debug(self) -> None:
        """A directive that ends with its line."""
        line = self.tokens[self.at].line
        while self.text and self.tokens[self.at].line == line:
            self.take()

    def variable(self) -> tuple[str, Variable]:
        space, kind, align = self.take()[1:], "", 0
        while self.text.startswith("."):
            word = self.take()
            if word == ".align":
                align = max(align, self.integer())
            elif word[1:] in WIDTH:
                kind = word[1:]
            elif word not in (".ptr", ".global"):  # what a parameter points to
                self.at -= 1
                raise self.error("unknown attribute of a variable")
        if not kind:
            raise self.error("the type of a variable expected")
        name, count = self.take(), 1
        if self.accept("["):
            count = None if self.text == "]" else self.integer()
            self.take("]")
        data = None
        if self.accept("="):
            values = []
            for _ in self.listed("{", "}"):
                values.append(self.integer())
            data = b"".join(v.to_bytes(WIDTH[kind], "little", signed=v < 0) for v in values)
        return name, Variable(space, kind, align or WIDTH[kind], count, data)

    def parameters(self) -> dict[str, Variable]:
        found = {}
        for _ in self.listed("(", ")"):
            if self.text == ".reg":
                raise self.error("parameters in registers are not supported")
            name, variable = self.variable()
            found[name] = variable
        return found

    def function(self) -> Function:
        entry = self.take() == ".entry"
        results = self.parameters() if self.text == "(" else {}
        name = self.take()
        parameters = self.parameters() if self.text == "(" else {}
        function = Function(name, entry, list(parameters), list(results), variables=parameters | results)
        while self.text not in ("{", ";"):
            directive = self.take()
            if directive in (".reqntid", ".maxntid"):
                sizes = [self.integer()]
                while self.accept(","):
                    sizes.append(self.integer())
                function.threads = (*sizes, 1, 1)[:3]  # type: ignore[assignment]
            elif directive in (".minnctapersm", ".maxnreg"):
                self.integer()
            elif directive not in (".noreturn",):
                self.at -= 1
                raise self.error("unknown attribute of a function")
        if not self.accept(";"):
            self.registers = function.registers
            self.block(function, {}, 0)
            for instruction in function.code:
                for operand in instruction.operands:
                    if (
                        isinstance(operand, Symbol)
                        and operand.name.startswith("$")
                        and operand.name not in function.labels
                    ):
                        raise PtxError(f"{instruction}: no label {operand.name}")
        return function

    # Statements

    def block(self, function: Function, names: dict[str, str], depth: int) -> None:
        """Statements up to the closing brace; an inner block has names of its own, which `names` makes unique."""
        self.take("{")
        names = dict(names)
        while not self.accept("}"):
            if self.text == "{":
                self.block(function, names, depth + 1)
            elif self.text == ".reg":
                self.register_names(function, names, depth)
            elif self.text in _SPACES:
                name, variable = self.variable()
                if depth:
                    names[name] = f"{name}@{len(function.variables)}"
                    name = names[name]
                function.variables[name] = variable
                self.take(";")
            elif self.text in (".loc", ".file"):
                self.debug()
            elif self.text == ".pragma":
                while self.take() != ";":
                    pass
            elif self.tokens[self.at].kind == "word" and self.tokens[self.at + 1].text == ":":
                label = self.take()
                self.take(":")
                if label in function.labels:
                    raise self.error(f"label {label} is defined twice")
                function.labels[label] = len(function.code)
            else:
                function.code.append(self.instruction(names))

    def register_names(self, function: Function, names: dict[str, str], depth: int) -> None:
        self.take(".reg")
        kind = self.take()[1:]
        if kind != "pred" and kind not in WIDTH:
            raise self.error(f"unknown type {kind!r} of registers")
        while True:
            name = self.take()
            found = [name]
            if self.accept("<"):
                found = [f"{name}{k}" for k in range(self.integer())]
                self.take(">")
            for each in found:
                own = each
                if depth:  # unique: the block may be repeated with other types
                    own = names[each] = f"{each}@{len(function.registers)}"
                function.registers[own] = kind
            if not self.accept(","):
                break
        self.take(";")

    def instruction(self, names: dict[str, str]) -> Instruction:
        line, guard, negated = self.tokens[self.at].line, None, False
        if self.accept("@"):
            negated = self.accept("!")
            name = self.take()
            guard = Register(names.get(name, name))
        if self.tokens[self.at].kind != "word":
            raise self.error("an instruction expected")
        opcode, operands = self.take(), []
        while not self.accept(";"):
            operands.append(self.operand(names))
            if self.text != ";":
                self.take(",")
        return Instruction(opcode, tuple(operands), guard, negated, line)

    def operand(self, names: dict[str, str]) -> Operand:
        if self.text in ("{", "("):
            opening = self.text
            items = [self.operand(names) for _ in self.listed(opening, "}" if opening == "{" else ")")]
            return Group(tuple(items), "{}" if opening == "{" else "()")
        if self.accept("["):
            base, offset = self.operand(names), 0
            if self.accept("+") or self.text == "-":
                offset = self.integer()
            self.take("]")
            if not isinstance(base, Register | Symbol | Immediate):
                raise self.error("an address expected")
            return Address(base, offset)
        if self.accept("!"):
            name = self.take()
            return Negated(Register(names.get(name, name)))
        if self.text == "-" or self.tokens[self.at].kind == "number":
            return self.number()
        if self.tokens[self.at].kind != "word":
            raise self.error("an operand expected")
        name = self.take()
        own = names.get(name, name)
        first = Register(own) if name.startswith("%") or own in self.registers else Symbol(own)
        if self.accept("|"):
            return Group((first, self.operand(names)), "|")
        return first

    def number(self) -> Immediate:
        text = self.text
        if text[:2].lower() in ("0f", "0d"):
            self.take()
            return Immediate(int(text[2:], 16), 32 if text[1] in "fF" else 64)
        if "." in text:
            self.take()
            return Immediate(struct.unpack("<Q", struct.pack("<d", float(text)))[0], 64)
        return Immediate(self.integer())
