"""Before anything is timed on a GPU: there is one, and lazyjax' numbers are right on it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import jax

from . import cases, reference
from .cases import Case

# Who computes on JAX's default device, the others computing on the CPU. KeOps' arrays on a GPU are PyTorch's, and KeOps
# 2.3 ended the process on the one that was tried (an H100 with CUDA 13).
CONTENDERS = ("lazyjax", "dense", "lax.map")
# Pairs below which the time of a launch is a part of what is measured, and how much larger a case becomes then.
PAIRS, LARGER = 1 << 30, 4
SMALL = 1 << 20  # pairs of a case that is about what a call costs
# The largest error against float64 that is let pass, as `reference` takes it.
LARGEST = {"float32": 1e-5, "float64": 1e-12}


def device() -> str:
    """The name of the GPU that JAX computes on."""
    first = jax.devices()[0]
    if first.platform not in ("gpu", "cuda", "rocm"):
        raise SystemExit(
            f"--gpu: JAX computes on {first.platform} here, expected a GPU. Install JAX for it "
            '(pip install "jax[cuda12]"), or leave --gpu out to measure this device.'
        )
    return first.device_kind


def without_bars(chosen: Sequence[Case]) -> list[Case]:
    """The same cases for every contender: what they have to reach, and beside whom, was set for CPUs."""
    return [dataclasses.replace(case, bars=(), beside=()) for case in chosen]


def larger(case: Case) -> Case:
    """Of a square case, four times as many rows and columns: a GPU is not full, or done within a launch, before."""
    if case.batch or case.m != case.n or not SMALL < case.pairs < PAIRS:
        return case
    return dataclasses.replace(case, m=LARGER * case.m, n=LARGER * case.n)


def check(chosen: Sequence[Case], module: ModuleType, say: Callable[[str], object]) -> None:
    """Every case at a small size, against NumPy in float64: ends the run at the first that is wrong."""
    for case in map(cases.quick, chosen):
        say(f"{case.name}: checked first")
        arrays = cases.data(case)
        run = module.prepare(case, arrays)
        run.compile()
        judge(case, module.NAME, reference.error(case, arrays, run.call()))


def judge(case: Case, contender: str, error: float) -> None:
    """Ends the run where an error is too large: a wrong number has no speed."""
    if not error <= LARGEST[case.dtype]:  # NaN is wrong as well
        raise SystemExit(
            f"{contender} is wrong on this GPU, so nothing more is timed: {case.name} ({case.sizes}) has an error of "
            f"{error:.1e} against float64, expected at most {LARGEST[case.dtype]:.0e}. Please report it with what "
            "lazyjax.explain says of that formula."
        )


def judge_all(case: Case, results: dict[str, dict[str, Any]]) -> None:
    """The same at full size, of what was measured of lazyjax."""
    if "error" in (ours := results.get("lazyjax", {})):
        judge(case, "lazyjax", ours["error"])
