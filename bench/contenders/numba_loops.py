"""numba: two plain loops, `prange` over the rows, fastmath."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from ..cases import Case, Data
from .contract import Run, not_installed, problem

NAME = "numba"


def missing() -> str | None:
    return not_installed("numba")


@functools.cache
def _loops() -> dict[str, Callable[..., Any]]:
    import numba  # type: ignore[import-not-found]
    import numpy as np

    parallel = numba.njit(parallel=True, fastmath=True)

    @numba.njit(fastmath=True, inline="always")
    def distance(x: Any, y: Any, i: int, j: int) -> Any:
        s = x.dtype.type(0)
        for k in range(x.shape[1]):
            s += (x[i, k] - y[j, k]) ** 2
        return s

    @parallel
    def gaussian(x: Any, y: Any, b: Any) -> Any:
        out = np.zeros((x.shape[0], b.shape[1]), x.dtype)
        for i in numba.prange(x.shape[0]):
            for j in range(y.shape[0]):
                w = np.exp(-distance(x, y, i, j))
                for c in range(b.shape[1]):
                    out[i, c] += w * b[j, c]
        return out

    @parallel
    def gradient_x(x: Any, y: Any, b: Any, g: Any) -> Any:
        out = np.zeros_like(x)
        for i in numba.prange(x.shape[0]):
            for j in range(y.shape[0]):
                w = x.dtype.type(0)
                for c in range(b.shape[1]):
                    w += g[i, c] * b[j, c]
                w *= -2 * np.exp(-distance(x, y, i, j))
                for k in range(x.shape[1]):
                    out[i, k] += w * (x[i, k] - y[j, k])
        return out

    @parallel
    def argmin(x: Any, y: Any) -> Any:
        out = np.zeros((x.shape[0], 1), np.int32)
        for i in numba.prange(x.shape[0]):
            best, index = x.dtype.type(np.inf), 0
            for j in range(y.shape[0]):
                s = distance(x, y, i, j)
                if s < best:
                    best, index = s, j
            out[i, 0] = index
        return out

    @parallel
    def logsumexp(x: Any, y: Any) -> Any:
        out = np.zeros((x.shape[0], 1), x.dtype)
        for i in numba.prange(x.shape[0]):
            least = x.dtype.type(np.inf)
            for j in range(y.shape[0]):
                least = min(least, distance(x, y, i, j))
            total = x.dtype.type(0)
            for j in range(y.shape[0]):
                total += np.exp(least - distance(x, y, i, j))
            out[i, 0] = np.log(total) - least
        return out

    return {"gaussian": gaussian, "gradient_x": gradient_x, "argmin": argmin, "logsumexp": logsumexp}


def prepare(case: Case, data: Data) -> Run:
    loop, arrays = problem(_loops(), case, NAME), list(data.values())
    return Run(lambda: loop(*arrays))
