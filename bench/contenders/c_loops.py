"""Loops in C, written by hand and compiled here: what the processor allows. See loops.c."""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..cases import Case, Data
from .contract import Refused, Run

NAME = "C"
SOURCE = Path(__file__).parent / "loops.c"
# Like -ffast-math without -fassociative-math, which would undo the rounding in its exp.
FLAGS = ("-O3", "-march=native", "-fopenmp", "-fno-math-errno", "-fno-trapping-math", "-funroll-loops", "-std=gnu11")


def missing() -> str | None:
    return None if _compiler() else "no C compiler found"


def _compiler() -> str | None:
    return shutil.which(os.environ.get("CC", "gcc"))


@functools.cache
def _library() -> ctypes.CDLL:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "loops.so"
        command = [_compiler(), *FLAGS, "-shared", "-fPIC", str(SOURCE), "-o", str(target)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # type: ignore[arg-type]
        if done.returncode:
            raise Refused(f"does not compile: {done.stderr.strip().splitlines()[0]}")
        return ctypes.CDLL(str(target))


def prepare(case: Case, data: Data) -> Run:
    written = ("gaussian", "gradient_x", "argmin")
    if case.problem not in written or case.d != 3 or case.e != 1 or case.dtype != "float32":
        raise Refused("written for Gaussian sum, x-gradient and argmin with D = 3, one column, float32")
    ready = functools.cache(lambda: _call(_library(), case, data))

    def call() -> Any:  # the first one compiles the library
        return ready()()

    return Run(call)


def _call(library: ctypes.CDLL, case: Case, data: Data) -> Callable[[], Any]:
    """A call on padded copies, one coordinate after the other: laying them out is no part of the time."""
    m, rows = case.m, library.rows()
    padded = -(-m // rows) * rows

    def of_rows(a: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(np.pad(a, ((0, padded - m), (0, 0))).T)

    inputs = [of_rows(a) if name in "xg" else np.ascontiguousarray(a.T) for name, a in data.items()]
    out = np.empty((3 if case.problem == "gradient_x" else 1, padded), np.int32 if case.problem == "argmin" else "f4")
    pointers = [ctypes.c_void_p(a.ctypes.data) for a in (*inputs, out)]
    function = getattr(library, case.problem)

    def call() -> Any:
        function(padded, case.n, *pointers)
        return out.T[:m]

    call.keep = inputs  # type: ignore[attr-defined]
    return call
