"""scikit-learn's brute force for nearest neighbours: matrix products and heaps."""

from __future__ import annotations

from typing import Any

from ..cases import Case, Data
from .contract import Refused, Run, not_installed

NAME = "scikit-learn"


def missing() -> str | None:
    return not_installed("sklearn")


def prepare(case: Case, data: Data) -> Run:
    if case.problem not in ("argmin", "argkmin"):
        raise Refused("compared for nearest neighbours only")
    from sklearn.metrics import pairwise_distances_argmin  # type: ignore[import-not-found]
    from sklearn.neighbors import NearestNeighbors  # type: ignore[import-not-found]

    def argkmin(x: Any, y: Any) -> Any:
        fitted = NearestNeighbors(n_neighbors=case.k, algorithm="brute").fit(y)
        return fitted.kneighbors(x, return_distance=False)

    if case.problem == "argmin":
        return Run(lambda: pairwise_distances_argmin(data["x"], data["y"])[:, None])
    return Run(lambda: argkmin(data["x"], data["y"]))
