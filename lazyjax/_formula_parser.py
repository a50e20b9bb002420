"""The formula strings of KeOps, as a tree: a parser by recursive descent, which evaluates nothing.

The grammar is the part of Python's expressions that KeOps uses, with Python's precedence, from loose to tight:

    comparison   = product ["<" | "<=" | ">" | ">=" | "==" | "!="] product
    product      = sum { "|" sum }                                         the scalar product
    sum          = term { ("+" | "-") term }
    term         = unary { ("*" | "/") unary }
    unary        = ("-" | "+") unary | power
    power        = atom [ "**" unary ]                                     to the right: 2 ** 3 ** 2 is 2 ** 9
    atom         = number | name | name "(" [ argument { "," argument } ] ")" | "(" comparison ")"
    argument     = comparison | "[" [ comparison { "," comparison } ] "]"
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any, Literal


class FormulaError(ValueError):
    """A mistake in a formula string of `Genred` and its kin; the message shows where.

    Example:
        >>> from lazyjax import FormulaError, Genred
        >>> try:
        ...     Genred("Exp(-SqDist(x, y)", ["x = Vi(3)", "y = Vj(3)"], axis=1)
        ... except FormulaError as error:
        ...     print(error)
        Genred: expected ',' or ')', found the end of the formula
            Exp(-SqDist(x, y)
                             ^ position 17
    """


@dataclasses.dataclass(frozen=True)
class Node:
    """kind: number, name, call, list, binary or unary; value: the number, name, operator or called name; at: where."""

    kind: Literal["number", "name", "call", "list", "binary", "unary"]
    value: Any
    children: tuple[Node, ...]
    at: int


def located(text: str, at: int, message: str) -> str:
    """A message with the place in the formula that it is about."""
    line = text.replace("\n", " ").replace("\t", " ")
    start = max(0, at - 60)
    shown = ("..." if start else "") + line[start : at + 60] + ("..." if at + 60 < len(line) else "")
    caret = " " * (at - start + (3 if start else 0)) + "^"
    return f"{message}\n    {shown}\n    {caret} position {at}"


_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<name>[A-Za-z_]\w*)"
    r"|(?P<symbol>\*\*|<=|>=|==|!=|[-+*/|<>(),\[\]]))"
)
_SPACE = re.compile(r"\s*")
_HINTS = {
    "^": "a power is written x ** n", "%": "the modulo is written Mod(x, n, d)", "=": "a comparison is written ==",
    "&": "logical operations are products of comparisons", "@": "a matrix product is written MatVecMult(A, x)",
}  # fmt: skip
_COMPARISONS = ("<", "<=", ">", ">=", "==", "!=")
_LEVEL = {**dict.fromkeys(_COMPARISONS, 0), "|": 1, "+": 2, "-": 2, "*": 3, "/": 3}
_DEEPEST = 100  # brackets within brackets, below Python's own limit of recursion


@dataclasses.dataclass(frozen=True)
class Token:
    """kind: number, name, symbol or end."""

    kind: str
    text: str
    at: int


def _tokens(text: str) -> list[Token]:
    tokens, at = [], 0
    while at < (end := len(text)):
        at = _SPACE.match(text, at).end()  # type: ignore[union-attr]
        if at == end:
            break
        match = _TOKEN.match(text, at)
        if match is None:
            hint = _HINTS.get(text[at])
            raise FormulaError(located(text, at, f"unexpected character {text[at]!r}" + (f"; {hint}" if hint else "")))
        kind = str(match.lastgroup)
        tokens.append(Token(kind, match.group(kind), at))
        at = match.end()
    return [*tokens, Token("end", "", len(text))]


def parse(text: str) -> Node:
    """The tree of a formula; FormulaError where it is not one."""
    return _Parser(text).whole()


class _Parser:
    def __init__(self, text: str):
        self.text, self.tokens, self.next, self.depth = text, _tokens(text), 0, 0

    @property
    def token(self) -> Token:
        return self.tokens[self.next]

    def take(self) -> Token:
        token = self.token
        self.next += 1
        return token

    def is_symbol(self, *symbols: str) -> bool:
        return self.token.kind == "symbol" and self.token.text in symbols

    def fail(self, expected: str) -> FormulaError:
        found = repr(self.token.text) if self.token.kind != "end" else "the end of the formula"
        hint = ""
        if self.is_symbol("["):
            hint = "; a feature is written Elem(x, k)"
        elif self.is_symbol("/") and self.next and self.tokens[self.next - 1].text == "/":
            hint = "; the quotient rounded down is written Floor(x / y)"
        return FormulaError(located(self.text, self.token.at, f"expected {expected}, found {found}{hint}"))

    def expect(self, symbol: str) -> None:
        if not self.is_symbol(symbol):
            raise self.fail(repr(symbol))
        self.next += 1

    def whole(self) -> Node:
        if self.token.kind == "end":
            raise FormulaError("the formula is empty.")
        node = self.comparison()
        if self.token.kind != "end":
            raise self.fail("an operator, or the end of the formula")
        return node

    def comparison(self) -> Node:
        return self.infix(0)

    def infix(self, loosest: int) -> Node:
        """Operands joined by operators at least as tight as `loosest`, from left to right (precedence climbing)."""
        node = self.unary()
        while self.token.kind == "symbol" and (level := _LEVEL.get(self.token.text, -1)) >= loosest:
            token = self.take()
            node = Node("binary", token.text, (node, self.infix(level + 1)), token.at)
            if level == 0 and self.is_symbol(*_COMPARISONS):
                message = "comparisons cannot be chained; multiply them: (a < b) * (b < c)"
                raise FormulaError(located(self.text, self.token.at, message))
        return node

    def unary(self) -> Node:
        first, negative = self.token, False
        while self.is_symbol("-", "+"):
            negative ^= self.take().text == "-"
        node = self.atom()
        if self.is_symbol("**"):
            token = self.take()
            self.deeper(token)
            node = Node("binary", "**", (node, self.unary()), token.at)
            self.depth -= 1
        return Node("unary", "-", (node,), first.at) if negative else node

    def deeper(self, token: Token) -> None:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise FormulaError(located(self.text, token.at, f"more than {_DEEPEST} brackets within brackets"))

    def atom(self) -> Node:
        token = self.token
        if token.kind == "number":
            self.next += 1
            if len(token.text) > 400:
                raise FormulaError(located(self.text, token.at, f"a number of {len(token.text)} digits"))
            return Node("number", int(token.text) if token.text.isdigit() else float(token.text), (), token.at)
        if token.kind == "name":
            self.next += 1
            if not self.is_symbol("("):
                return Node("name", token.text, (), token.at)
            return Node("call", token.text, self.sequence("(", ")"), token.at)
        if self.is_symbol("("):
            self.deeper(self.take())
            node = self.comparison()
            self.expect(")")
            self.depth -= 1
            return node
        raise self.fail("a number, a variable, an operation or '('")

    def sequence(self, opening: str, closing: str) -> tuple[Node, ...]:
        self.deeper(self.token)
        self.expect(opening)
        items: list[Node] = []
        while not self.is_symbol(closing):
            if items and not self.is_symbol(","):
                raise self.fail(f"',' or {closing!r}")
            self.next += bool(items)
            at = self.token.at
            items.append(Node("list", None, self.sequence("[", "]"), at) if self.is_symbol("[") else self.comparison())
        self.next += 1
        self.depth -= 1
        return tuple(items)
