"""Who computes: each contender writes the problems of `bench.cases` as its own users would."""

from __future__ import annotations

import importlib
from types import ModuleType

from .contract import Refused, Run

# In the order of the tables. A module has NAME, missing() and prepare(case, data).
MODULES = (
    "lazy",
    "lazy_wide",
    "keops",
    "dense",
    "mapped",
    "c_loops",
    "numba_loops",
    "neighbours_sklearn",
    "neighbours_scipy",
)

__all__ = ["Refused", "Run", "contenders"]


def contenders() -> dict[str, ModuleType]:
    """The contenders by name; those that are not installed are among them, and say so by `missing()`."""
    found = [importlib.import_module(f"{__name__}.{module}") for module in MODULES]
    return {module.NAME: module for module in found}
