"""From a formula string of KeOps and its aliases to a LazyTensor of symbolic variables."""

from __future__ import annotations

import difflib
import functools
import operator
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ._errors import show
from ._formula_functions import FUNCTIONS, Function, number
from ._formula_parser import FormulaError, Node, located, parse
from ._lazytensor import LazyTensor
from ._tape import Leaf
from .kernels.description import Role

_ROLES: dict[str, Role] = {"Vi": "i", "Vj": "j", "Pm": "p", "Vx": "i", "Vy": "j"}  # Vx, Vy: KeOps' old names
_CATEGORIES: tuple[Role, ...] = ("i", "j", "p")
_NAMES = {"i": "Vi", "j": "Vj", "p": "Pm"}


class Alias(NamedTuple):
    """One declared variable: its name ("" if it has none), role, number of features and place among the arrays."""

    name: str
    role: Role
    dim: int
    position: int | None

    def __str__(self) -> str:
        return f"{self.name} = {_NAMES[self.role]}({self.dim})" if self.name else f"{_NAMES[self.role]}({self.dim})"

    def tensor(self) -> LazyTensor:
        """The symbolic variable."""
        index = 0 if self.position is None else self.position
        return LazyTensor._of_leaf(Leaf(self.role, 1, "" if self.role == "p" else "rows", (index, self.dim)), None)


_ALIAS = re.compile(r"\s*(?:([A-Za-z_]\w*)\s*=\s*)?(Vi|Vj|Vx|Vy|Pm|Var)\s*\(([\s\d,]*)\)\s*$")


def read_alias(text: Any, place: int | None, method: str) -> Alias:
    """ "x = Vi(3)", "x = Vi(0, 3)", "Vi(3)", "Vi(0, 3)" or "Var(0, 3, 0)"."""
    expected = (
        'expected "name = Vi(dim)", "name = Vi(position, dim)" with Vi, Vj or Pm, or "Var(position, dim, category)"'
    )
    if not isinstance(text, str):
        raise TypeError(f"{method}: an alias is {show(text)}, {expected}.")
    match = _ALIAS.match(text)
    numbers = re.split(r"\s*,\s*", match.group(3).strip()) if match else []
    if match is None or not all(n.isdigit() for n in numbers):
        raise ValueError(f"{method}: the alias {text!r} is not understood; {expected}.")
    name, kind = match.group(1) or "", match.group(2)
    values = [int(n) for n in numbers]
    if kind == "Var" and len(values) == 3 and values[2] in (0, 1, 2):
        alias = Alias(name, _CATEGORIES[values[2]], values[1], values[0])
    elif kind != "Var" and len(values) in (1, 2):
        alias = Alias(name, _ROLES[kind], values[-1], values[0] if len(values) == 2 else place)
    else:
        raise ValueError(f"{method}: the alias {text!r} is not understood; {expected}.")
    if alias.dim < 1:
        raise ValueError(f"{method}: the alias {text!r} has dim {alias.dim}, expected at least 1.")
    return alias


_INFIX: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv, "|": operator.or_,
    "**": operator.pow, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq,
    "!=": operator.ne,
}  # fmt: skip


class _Writer:
    """Writes the LazyTensor of a formula string."""

    def __init__(self, method: str, text: str, names: dict[str, LazyTensor], variables: dict[int, Alias]):
        self.method, self.text, self.names, self.variables = method, text, names, variables

    def fail(self, node: Node, message: str, kind: type[Exception] = FormulaError) -> Exception:
        return kind(located(self.text, node.at, f"{self.method}: {message.rstrip('.')}"))

    def write(self, node: Node) -> Any:
        """The value of a node: a LazyTensor, a number or a list of integers."""
        if node.kind == "number":
            return node.value
        if node.kind == "name":
            return self.name(node)
        if node.kind == "list":
            return [self.integer(child) for child in node.children]
        if node.kind == "call":
            return self.call(node)
        return self.infix(node)

    def infix(self, node: Node) -> Any:
        """Operators, walking along their left sides, which are as deep as a sum has terms."""
        chain = []
        while node.kind in ("binary", "unary"):
            chain.append(node)
            node = node.children[0]
        value = self.write(node)
        for node in reversed(chain):
            values = [value, *map(self.write, node.children[1:])]
            value = self.applied(node, node.value, functools.partial(self.operation, node, *values))
        return value

    def applied(self, node: Node, name: str, operation: Callable[[], Any]) -> Any:
        """The result of an operation, whose errors say where it stands in the string."""
        try:
            return operation()
        except FormulaError:
            raise
        except (TypeError, ValueError, IndexError, ArithmeticError) as error:
            said = str(error)
            said = said if said.lower().startswith(name.lower()) else f"{name}: {said}"
            raise self.fail(node, said, TypeError if isinstance(error, TypeError) else FormulaError) from None

    def operation(self, node: Node, *values: Any) -> Any:
        symbol = node.value
        if node.kind == "unary":
            return -values[0]
        a, b = values
        tensors = [isinstance(v, LazyTensor) for v in values]
        if not any(tensors):
            if symbol in ("|", "<", "<=", ">", ">=", "==", "!="):
                raise TypeError("both sides are numbers, expected at least one formula of variables")
            # A power in floating point, so that none grows without bound.
            value = _INFIX[symbol](float(a) if symbol == "**" else a, b)
            if isinstance(value, complex):
                raise ValueError(f"{a} ** {b} is not a real number")
            return value
        out = _INFIX[symbol](a, b)
        return number(out) if symbol in ("<", "<=", ">", ">=", "==", "!=") else out

    def name(self, node: Node) -> LazyTensor:
        if node.value in self.names:
            return self.names[node.value]
        known = ", ".join(self.names) or "none"
        hint = f"; {node.value} is an operation, and wants its arguments" if node.value in FUNCTIONS else ""
        raise self.fail(node, f"unknown variable {node.value!r}; the aliases are {known}{hint}")

    def integer(self, node: Node) -> int:
        value = self.write(node)
        if type(value) is not int:
            raise self.fail(node, f"expected an integer, found {show(value)}")
        return value

    def tensor(self, node: Node) -> LazyTensor:
        value = self.write(node)
        if isinstance(value, list):
            raise self.fail(node, "expected a formula, found a list")
        return (
            value if isinstance(value, LazyTensor) else self.applied(node, "a number", lambda: LazyTensor(float(value)))
        )

    def call(self, node: Node) -> LazyTensor:
        if node.value == "Var" or node.value in _ROLES:
            return self.variable(node)
        function = FUNCTIONS.get(node.value)
        if function is None:
            raise self.fail(node, self.unknown(node.value))
        count, most = len(node.children), len(function.arguments)
        if not most - function.optional <= count <= most:
            raise self.fail(node, f"{function.signature} was given {count} arguments")
        values = [self.argument(function, k, child) for k, child in enumerate(node.children)]
        return self.applied(node, node.value, lambda: function.fn(*values))

    def argument(self, function: Function, k: int, node: Node) -> Any:
        kind = function.kinds[k]
        if kind == "list":
            value = self.write(node)
            if not isinstance(value, list):
                raise self.fail(node, f"{function.signature}: {function.arguments[k]} is a list of integers, as [2, 3]")
            return value
        return self.integer(node) if kind == "int" else self.tensor(node)

    def unknown(self, name: str) -> str:
        close = difflib.get_close_matches(name.lower(), {n.lower(): n for n in FUNCTIONS}, 1, 0.6)
        hint = next((f" (did you mean {n}?)" for n in FUNCTIONS if close and n.lower() == close[0]), "")
        if name in self.names:
            return f"{name!r} is a variable, not an operation"
        if name.endswith("_Reduction"):
            hint = "; give the reduction as reduction_op"
        return f"unknown operation {name!r}{hint}; known are {', '.join(sorted([*FUNCTIONS, 'Var']))}"

    def variable(self, node: Node) -> LazyTensor:
        """Var(position, dim, category), or Vi(position, dim)."""
        values = [self.integer(child) for child in node.children]
        if node.value == "Var":
            if len(values) != 3 or values[2] not in (0, 1, 2):
                raise self.fail(
                    node, "expected Var(position, dim, category), with category 0 (i), 1 (j) or 2 (parameter)"
                )
            position, dim, role = values[0], values[1], _CATEGORIES[values[2]]
        else:
            if len(values) != 2:
                raise self.fail(node, f"expected {node.value}(position, dim) inside a formula")
            position, dim, role = values[0], values[1], _ROLES[node.value]
        if dim < 1:
            raise self.fail(node, f"dim is {dim}, expected at least 1")
        alias = Alias("", role, dim, position)
        if position >= 0:  # a negative position stands for no array: TraceOperator takes the variable away
            known = self.variables.setdefault(position, alias)
            if (known.role, known.dim) != (role, dim):
                raise self.fail(node, f"the variable at position {position} is {known}, and {alias} here")
        return alias.tensor()


def declared(aliases: Sequence[str], method: str) -> tuple[dict[int, Alias], dict[str, LazyTensor]]:
    """The declared variables by their places, and their names."""
    variables: dict[int, Alias] = {}
    names: dict[str, LazyTensor] = {}
    for place, text in enumerate(aliases):
        alias = read_alias(text, place, method)
        assert alias.position is not None
        if alias.position in variables:
            raise ValueError(f"{method}: the aliases {variables[alias.position]} and {alias} have the same position.")
        if alias.name in names:
            raise ValueError(f"{method}: two aliases have the name {alias.name!r}.")
        variables[alias.position] = alias
        if alias.name:
            names[alias.name] = alias.tensor()
    return variables, names


def written(method: str, text: Any, names: dict[str, LazyTensor], variables: dict[int, Alias]) -> LazyTensor:
    if not isinstance(text, str):
        raise TypeError(f"{method}: a formula is {show(text)}, expected a string.")
    try:
        tree = parse(text)
    except FormulaError as error:
        raise FormulaError(f"{method}: {error}") from None
    return _Writer(method, text, names, variables).tensor(tree)


def in_order(variables: dict[int, Alias], method: str) -> list[Alias]:
    missing = [k for k in range(max(variables, default=-1) + 1) if k not in variables]
    if missing:
        raise ValueError(
            f"{method}: no variable has the position {missing[0]}, but one has {max(variables)}. Arrays are given in "
            "the order of positions, so number them from 0 without a gap."
        )
    return [variables[k] for k in range(len(variables))]
