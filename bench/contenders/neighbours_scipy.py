"""SciPy's k-d tree: not all pairs, and what one would use for neighbours in few dimensions. Building it is counted."""

from __future__ import annotations

from typing import Any

from ..cases import Case, Data
from .contract import Refused, Run, not_installed

NAME = "cKDTree"


def missing() -> str | None:
    return not_installed("scipy")


def prepare(case: Case, data: Data) -> Run:
    if case.problem not in ("argmin", "argkmin"):
        raise Refused("compared for nearest neighbours only")
    from scipy.spatial import cKDTree  # type: ignore[import-not-found]

    k = [1] if case.problem == "argmin" else case.k

    def query() -> Any:
        return cKDTree(data["y"]).query(data["x"], k=k, workers=-1)[1]

    return Run(query)
