"""How a LazyTensor is printed."""

from __future__ import annotations

import html
import itertools
import math
from typing import Any

from ._ops import OPS


def formula(tensor: Any, limit: int = 400) -> str:
    """The recorded expression, with the letters x (i), y (j) and p for its variables, Vi(0, 3) for a symbolic one.

    It is written as deep as `limit` characters allow; `...` stands for what lies deeper.
    """
    tape = tensor._tape
    counts = {"i": 0, "j": 0, "p": 0}
    names = []
    for leaf, d in zip(tape.leaves, tensor._data, strict=True):
        if type(d) in (float, complex):
            names.append(f"{d:g}" if type(d) is float else str(d))
            continue
        if leaf.symbol is not None:
            names.append(symbol_name(leaf))
            continue
        letter = {"i": "x", "j": "y", "p": "p"}[leaf.role]
        names.append(f"{letter}{counts[leaf.role]}")
        counts[leaf.role] += 1
    text = "..."
    for depth in itertools.count(1):
        deeper = _text(tape, tensor._node, names, depth, {})
        if depth > 1 and (deeper == text or len(deeper) > limit):
            break
        text = deeper
    return text


def symbol_name(leaf: Any) -> str:
    """How the symbolic variable of a leaf is written."""
    index, size = leaf.symbol
    return f"{ {'i': 'Vi', 'j': 'Vj', 'p': 'Pm'}[leaf.role] }({index}, {size})"


def _text(tape: Any, node: int, names: list[str], depth: int, memory: dict[Any, str]) -> str:
    """A node as text, its operands down to a depth."""
    if node < 0:
        return names[-1 - node]
    if (node, depth) not in memory:
        op, params, inputs = tape.code[node]
        if depth == 0 and op != "constant":
            return "..."
        args = [_text(tape, n, names, depth - 1, memory) for n in inputs]
        memory[node, depth] = _instruction(op, dict(params), args, depth)
    return memory[node, depth]


def _instruction(op: str, values: dict[str, Any], args: list[str], depth: int) -> str:
    if op == "constant":
        return str(values["value"])
    if op == "lift":
        return f"{values['name']}({', '.join(args)})"
    if op == "derivative":
        return _derivative(values["function"], args, depth)
    if op == "take":
        return f"{_atom(args[0])}[{', '.join(map(_index, values['key']))}]"
    if (symbol := OPS[op].symbol) is not None:
        return symbol.format(*map(_atom, args), **values)
    return f"{op.removesuffix('_features')}({', '.join([*args, *map(str, values.values())])})"


def _derivative(function: Any, args: list[str], depth: int) -> str:
    """grad(formula, v, e) and its kin."""
    others, rest = args[: len(function.others)], args[len(function.others) :]
    v = "v" if function.free else rest[0]
    held = iter(others)
    names = [v if k in function.wrt else next(held) for k in range(len(function.tape.leaves))]
    of = _text(function.tape, function.node, names, depth - 1, {})
    return f"{function.kind}({', '.join([of, v, *rest[1:]])})"


def _index(k: Any) -> str:
    return ":".join(map(str, k)) if isinstance(k, tuple) else str(k)


def _atom(text: str) -> str:
    """An operand: in brackets, unless it is a name, a number, a call or in brackets already."""
    plain = text == "..." or text.replace("_", "").replace(".", "").isalnum()
    return text if plain or _closed(text) else f"({text})"


def _closed(text: str) -> bool:
    """name(...), (...) or either of them followed by an index."""
    while text.endswith("]"):
        text = text[: _opening(text)]
    if text.isidentifier():
        return True
    start = _opening(text) if text.endswith(")") else -1
    return start == 0 or (start > 0 and text[:start].isidentifier())


def _opening(text: str) -> int:
    """Where the bracket opens that the last character closes."""
    level = 0
    for at in range(len(text) - 1, -1, -1):
        level += (text[at] in ")]") - (text[at] in "([")
        if level == 0:
            return at
    return -1


def describe(tensor: Any) -> str:
    """repr: formula, shape, dtype, which axes are lazy."""
    try:
        shape, kind, axes = str(tensor.shape), tensor.dtype.name, _axes(tensor)
    except Exception as error:  # a LazyTensor that JAX holds without data still prints
        return f"LazyTensor(<{type(error).__name__} while reading its data>)"
    return f"LazyTensor({formula(tensor)}, shape={shape}, dtype={kind}, {axes})"


def _axes(tensor: Any) -> str:
    roles = {leaf.role for leaf in tensor._tape.leaves}
    lazy = [role for role in "ij" if role in roles]
    return f"lazy over {' and '.join(lazy)}" if lazy else "the same for all pairs"


def describe_html(tensor: Any) -> str:
    """The same for notebooks, with what an array of all values would take."""
    text = f"<code>{html.escape(describe(tensor))}</code>"
    try:
        size = dense_bytes(tensor)
    except Exception:  # as in `describe`
        size = None
    return text if size is None else f"{text}<br>not stored; an array of all values would take {show_bytes(size)}"


def dense_bytes(tensor: Any) -> int | None:
    """What the values of a LazyTensor would take; None where a size is symbolic."""
    size = math.prod(tensor._shape)
    return size * tensor.dtype.itemsize if isinstance(size, int) else None


def show_bytes(size: int) -> str:
    """A number of bytes for people."""
    value, unit = float(size), "B"
    for larger in ("kB", "MB", "GB", "TB", "PB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.3g} {unit}"
