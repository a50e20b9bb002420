"""The docstrings and signatures of the methods that are rows of the table of operations."""

from __future__ import annotations

import functools
import inspect
import textwrap

from ._op import Op

# The dtype of a result: of one operand, and of several.
DTYPES = {
    "same": ("in the dtype of self", ""),
    "float": (
        "in the dtype of self; integers and booleans become floats, as in `jnp.sqrt`",
        "in the floating dtype that the operands promote to",
    ),
    "norm": ("real, in the floating dtype of self", ""),
    "real": ("in the dtype of self, real where that is complex", ""),
    "sum": ("real, in the dtype of a `jnp.sum` of the features",) * 2,
    "promoted": ("", "in the dtype that the operands promote to"),
    "branches": ("", "in the dtype that a and b promote to"),
    "bool": ("of dtype bool",) * 2,
}


def docstring(op: Op) -> str:
    """Summary, note, Args, Returns, Raises and Example of a method."""
    others = op.operands[: op.arity - 1]
    # What is not a function of single features says so itself.
    each = "" if op.one or not op.broadcast or "all features" in op.doc else ", feature by feature"
    features = (
        "with one feature" if op.one else "with the features of all operands, broadcast" if others
        else "of the shape of self"
    )  # fmt: skip
    if not op.broadcast:
        features = "with A * B features"
    errors = [f"TypeError: for {op.refuses}."] if op.refuses else []
    sections = [op.doc + each + ".", textwrap.fill(op.note, 110)]
    if others:
        size = ", with as many features as self, or one" if op.broadcast else ""
        what = "a LazyTensor, an array or a number" if len(others) == 1 else "LazyTensors, arrays or numbers"
        sections.append(_section("Args", f"{', '.join(others)}: {what}{size}."))
        wrong = "rows or batch dims" if not op.broadcast else "features, rows or batch dims"
        errors.append(
            f"ValueError: where {wrong} do not fit; for a 2-D array, which may be an i- or a j-variable: say which, "
            f"Vi({others[0]}) or Vj({others[0]})."
        )
    sections.append(_section("Returns", f"A LazyTensor {features}, {DTYPES[op.dtype][bool(others)]}."))
    sections += [_section("Raises", *errors)] if errors else []
    return "\n\n".join(filter(None, [*sections, "Example:\n" + textwrap.indent(_example(op), "    ")]))


def signature(op: Op) -> inspect.Signature:
    """Of a method, whose operands are given by position."""
    names = ("self", *op.operands[: op.arity - 1])
    return inspect.Signature([inspect.Parameter(name, inspect.Parameter.POSITIONAL_ONLY) for name in names])


@functools.lru_cache(maxsize=128)  # most rows share theirs, and wrapping lines is what takes time
def _section(title: str, *entries: str) -> str:
    indent = "    " if title == "Returns" else "        "
    lines = [textwrap.fill(e, 110, initial_indent="    ", subsequent_indent=indent) for e in entries]
    return "\n".join([f"{title}:", *lines])


def _example(op: Op) -> str:
    rounded = " ~> " in op.example
    given, result = op.example.split(" ~> " if rounded else " -> ")
    rows = ", ".join(f"[{point}]" for point in given.split(", "))
    code = given if "V" in given else f"Vj([{rows}]).{op.name}()"
    names = ", ".join(name for name in ("Vi", "Vj") if name + "(" in code)
    code += "" if ".sum(" in code else ".dense()"
    if "," in result:
        code, result = f"{code}.tolist()", f"[[{result}]]"
    else:
        code = f"round({code}.item(), 4)" if rounded else f"{code}.item()"
    return f">>> from lazyjax import {names}\n>>> {code}\n{result}"
