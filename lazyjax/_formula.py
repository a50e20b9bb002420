"""How a LazyTensor is printed."""

from __future__ import annotations

from typing import Any

from ._ops import OPS


def formula(tensor: Any, limit: int = 400) -> str:
    """The recorded expression, with the letters x (i), y (j) and p for its variables, Vi(0, 3) for a symbolic one."""
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
    texts = _texts(tape, names, limit)
    return names[-1 - tensor._node] if tensor._node < 0 else texts[tensor._node]


def symbol_name(leaf: Any) -> str:
    """How the symbolic variable of a leaf is written."""
    index, size = leaf.symbol
    return f"{ {'i': 'Vi', 'j': 'Vj', 'p': 'Pm'}[leaf.role] }({index}, {size})"


def _texts(tape: Any, names: list[str], limit: int) -> list[str]:
    """Every instruction as text."""
    texts: list[str] = []
    for op, params, inputs in tape.code:
        args = [names[-1 - n] if n < 0 else texts[n] for n in inputs]
        values = dict(params)
        if op == "constant":
            text = str(values["value"])
        elif op == "lift":
            text = f"{values['name']}({', '.join(args)})"
        elif op == "derivative":
            text = _derivative(values["function"], args, limit)
        elif op == "take":
            text = f"{_atom(args[0])}[{', '.join(map(_index, values['key']))}]"
        elif (symbol := OPS[op].symbol) is not None:
            text = symbol.format(*map(_atom, args), **values)
        else:
            name = op.removesuffix("_features")
            text = f"{name}({', '.join([*args, *map(str, values.values())])})"
        texts.append(text if len(text) <= limit else text[: limit // 2] + " ... " + text[-limit // 2 :])
    return texts


def _derivative(function: Any, args: list[str], limit: int) -> str:
    """grad(formula, v, e) and its kin."""
    others, rest = args[: len(function.others)], args[len(function.others) :]
    v = "v" if function.free else rest[0]
    held = iter(others)
    names = [v if k in function.wrt else next(held) for k in range(len(function.tape.leaves))]
    of = names[-1 - function.node] if function.node < 0 else _texts(function.tape, names, limit)[function.node]
    return f"{function.kind}({', '.join([of, v, *rest[1:]])})"


def _index(k: Any) -> str:
    return ":".join(map(str, k)) if isinstance(k, tuple) else str(k)


def _atom(text: str) -> str:
    plain = text.replace("_", "").replace(".", "").isalnum()
    closed = text.endswith(")") and text.split("(", 1)[0].isidentifier() and text.count("(") == 1
    return text if plain or closed or (text.startswith("(") and text.endswith(")")) else f"({text})"


def describe(tensor: Any) -> str:
    """repr: formula, shape, dtype."""
    try:
        shape = str(tensor.shape)
        kind = f"{tensor.dtype.name}"
    except Exception as error:  # a LazyTensor that JAX holds without data still prints
        return f"LazyTensor(<{type(error).__name__} while reading its data>)"
    return f"LazyTensor({formula(tensor)}, shape={shape}, dtype={kind})"
