"""KeOps' other names of the reductions: `K.sum_reduction(axis=...)` and so on."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

NAMES = (
    "sum", "mean", "prod", "var", "std", "any", "all", "count_nonzero", "min", "max", "argmin", "argmax", "min_argmin",
    "max_argmax", "Kmin", "argKmin", "Kmin_argKmin", "Kmax", "argKmax", "Kmax_argKmax", "logsumexp", "sumsoftmaxweight",
)  # fmt: skip


def attach_aliases(owner: type) -> None:
    """The aliases of the methods of a class."""
    for name in NAMES:
        setattr(owner, f"{name}_reduction", _alias(name, getattr(owner, name)))


def _alias(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    positional = 1 if "K" in name or name == "sumsoftmaxweight" else 0

    def alias(self: Any, *args: Any, **kwargs: Any) -> Any:
        given = kwargs.get("axis", kwargs.get("dim", args[positional] if len(args) > positional else None))
        if given is None:
            raise ValueError(f"{name}_reduction: axis is missing; give the i or the j axis.")
        return method(self, *args, **kwargs)

    alias.__name__, alias.__qualname__ = f"{name}_reduction", f"{method.__qualname__}_reduction"
    setattr(alias, "__signature__", inspect.signature(method))  # noqa: B010
    alias.__doc__ = _docstring(name, inspect.getdoc(method) or "", inspect.signature(method))
    return alias


def _docstring(name: str, of_method: str, signature: inspect.Signature) -> str:
    marks = {inspect.Parameter.VAR_KEYWORD: "**"}
    arguments = ", ".join(marks.get(p.kind, "") + p.name for p in list(signature.parameters.values())[1:])
    example = of_method.partition("\nExample:\n")[2].replace(f".{name}(", f".{name}_reduction(")
    return (
        f"`{name}` under KeOps' other name.\n\n"
        f"Args:\n    {arguments}: as in `{name}`; `axis` (or `dim`) must be given.\n\n"
        f"Returns:\n    What `{name}` returns.\n\n"
        f"Raises:\n    ValueError: where the axis is missing. TypeError, ValueError: as `{name}`.\n\n"
        f"Example:\n{example}"
    )
