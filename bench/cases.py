"""What is measured: problems, sizes, data, and the bar that each case has to clear.

A *problem* is a computation ("gaussian", "argmin", ...), which every contender writes in its own way; a *case* is a
problem at one size. Data are scaled so that squared distances are of the order of 1 in every dimension: neither all
exponentials 0 nor all 1, and no subnormal numbers, which some machines compute slowly.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import numpy as np

Data = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Bar:
    """What lazyjax has to reach: `least` times the speed of the other side. None: shown, with no target.

    `time`: a warmed call, against a contender. `first`: a first call, against a contender. `rate`: pairs per second,
    against lazyjax's own in another case.
    """

    kind: Literal["time", "first", "rate"]
    against: str
    least: float | None


def bars(**least: float) -> tuple[Bar, ...]:
    """Bars on the time of a warmed call: bars(KeOps=10, dense=5)."""
    return tuple(Bar("time", name.replace("_", "-"), factor) for name, factor in least.items())


@dataclasses.dataclass(frozen=True)
class Case:
    name: str
    problem: str
    m: int
    n: int
    d: int
    e: int = 1  # columns of b, or of the values of attention
    k: int = 10  # neighbours, where there are several
    batch: int = 0  # problems of this size; 0: one, without a batch axis
    dtype: str = "float32"
    bars: tuple[Bar, ...] = ()
    beside: tuple[str, ...] = ()  # contenders, to keep the run short; (): all that can
    memory: bool = False  # peak memory is measured, each contender in a process of its own

    @property
    def pairs(self) -> int:
        return max(self.batch, 1) * self.m * self.n

    @property
    def work(self) -> int:
        """About proportional to the time that it takes."""
        return self.pairs * (self.d + self.e)

    @property
    def sizes(self) -> str:
        batch = f"{self.batch} x " if self.batch else ""
        columns = f", {self.e} columns" if self.e > 1 else ""
        return f"{batch}{self.m} x {self.n}, D = {self.d}{columns}, {self.dtype}"


SQUARE, SQUARE_ARGMIN = "Gaussian sum, D = 3", "argmin, D = 3"
N, N_WIDE = 16384, 8192


def table() -> list[Case]:
    """Every case, in the order in which they run."""

    def gaussian(name: str, m: int = N, n: int = N, d: int = 3, **kwargs: object) -> Case:
        return Case(f"Gaussian sum, {name}", "gaussian", m, n, d, **kwargs)  # type: ignore[arg-type]

    thin = {"bars": (Bar("time", "KeOps", 5), Bar("rate", SQUARE, 0.5)), "beside": ("KeOps", "C")}
    few = ("KeOps", "dense")
    return [
        gaussian("D = 3", bars=bars(KeOps=10, dense=10, C=0.6), memory=True),
        gaussian("D = 10", d=10, bars=bars(KeOps=10, dense=5), beside=few),
        gaussian("D = 64", N_WIDE, N_WIDE, d=64, bars=bars(KeOps=8, dense=2), beside=(*few, "lax.map")),
        gaussian("16 columns", e=16, bars=bars(KeOps=10, dense=5), beside=few),
        gaussian("float64", dtype="float64", bars=bars(KeOps=8, dense=5), beside=few),
        Case("x-gradient, D = 3", "gradient_x", N, N, 3, bars=bars(KeOps=8, dense=10, C=0.3)),
        Case("gradient in x, y, b, D = 3", "gradients", N, N, 3, bars=bars(KeOps=10), memory=True),
        Case("Hessian-vector product, D = 3", "hvp", N_WIDE, N_WIDE, 3),
        Case(SQUARE_ARGMIN, "argmin", N, N, 3, bars=bars(KeOps=5, dense=5, C=0.7)),
        Case("argmin, D = 64", "argmin", N_WIDE, N_WIDE, 64, bars=bars(KeOps=5, dense=2)),
        Case("argKmin 10, D = 3", "argkmin", N, N, 3, bars=bars(KeOps=3, scikit_learn=3), memory=True),
        Case("argKmin 10, D = 10", "argkmin", N, N, 10, bars=bars(KeOps=2, scikit_learn=2)),
        Case("argKmin 10, D = 64", "argkmin", N_WIDE, N_WIDE, 64, bars=bars(KeOps=3, scikit_learn=0.7)),
        Case("argKmin 10, vmap of 1000", "batched_argkmin", 100, 100, 3, batch=1000, beside=few),
        Case("logsumexp, D = 3", "logsumexp", N, N, 3, bars=bars(KeOps=12, dense=5)),
        Case("attention, D = 64", "attention", N_WIDE, N_WIDE, 64, e=64, bars=bars(KeOps=10, dense=1.5)),
        gaussian("1 x 1e6", 1, 10**6, **thin),
        gaussian("1000 x 1e6", 1000, 10**6, **thin),
        gaussian("1e6 x 1000", 10**6, 1000, **thin),
        Case(
            "Gaussian sum, vmap of 1000", "batched", 100, 100, 3, batch=1000,
            bars=(Bar("time", "KeOps", 5), Bar("rate", SQUARE, 1 / 3)),
        ),
        Case("eager Gaussian sum, new data", "eager", 100, 100, 3, bars=bars(dense=0.5)),
        Case("new formula and its gradient", "matern", N, N, 3, bars=(Bar("first", "KeOps", 10),)),
        gaussian("1e5 x 1e5", 10**5, 10**5, bars=(Bar("rate", SQUARE, None),), beside=("KeOps", "C")),
        Case(
            "argmin, 1e5 x 1e5", "argmin", 10**5, 10**5, 3,
            bars=(Bar("rate", SQUARE_ARGMIN, None),), beside=("KeOps", "C", "cKDTree"),
        ),
        gaussian("1e4 x 1e6", 10**4, 10**6, beside=(*few, "lax.map", "C"), memory=True),
        gaussian("D = 1000", 4096, 4096, d=1000),
        gaussian("D = 300, 300 columns", 4096, 4096, d=300, e=300),
    ]  # fmt: skip


def quick(case: Case) -> Case:
    """The same at a size that takes no time, for tests and for a first look."""
    return dataclasses.replace(
        case, m=min(case.m, 500), n=min(case.n, 600), batch=min(case.batch, 8), d=case.d if case.d < 1000 else 100
    )


def data(case: Case, seed: int = 0) -> Data:
    """The arrays of a case by name, in the order in which contenders take them."""
    r = np.random.default_rng(seed)

    def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
        shape = (case.batch, *shape) if case.batch else shape
        return (scale * r.normal(size=shape)).astype(case.dtype)

    if case.problem == "attention":
        return {"q": normal(case.m, case.d), "k": normal(case.n, case.d), "v": normal(case.n, case.e)}
    near = 1 / math.sqrt(case.d)  # |x - y|^2 is about 2
    arrays = {"x": normal(case.m, case.d, scale=near), "y": normal(case.n, case.d, scale=near)}
    if case.problem not in ("argmin", "argkmin", "batched_argkmin", "logsumexp"):
        arrays["b"] = normal(case.n, case.e)
    if case.problem in ("gradient_x", "gradients", "matern"):
        arrays["g"] = normal(case.m, case.e)  # the cotangent of the sums
    if case.problem == "hvp":
        arrays["t"] = normal(case.m, case.d)  # the direction in x
    return arrays
