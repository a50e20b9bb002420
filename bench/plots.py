"""Curves of throughput over the number of points and over the dimension: `python -m bench --plots`."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from .cases import Case, data
from .contenders import Refused
from .measure import seconds_of

NAMES = ("lazyjax", "KeOps", "dense")  # drawn unless the command line asks for others
POINT = 10.0  # seconds that a call may take; a curve ends before it would take longer
ROWS = 10_000  # at most: beyond, only j grows
SIZES = (100, 300, 1000, 3000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
DIMENSIONS = (1, 3, 10, 30, 100, 300, 1000)
PROBLEMS = {"gaussian": "Gaussian sum", "gradient_x": "x-gradient", "argmin": "argmin"}
WIDE = 2000  # points of both sides in the curves over D


@dataclasses.dataclass(frozen=True)
class Curve:
    """One problem over one quantity."""

    problem: str
    over: str  # "N" or "D"
    points: tuple[Case, ...]

    @property
    def title(self) -> str:
        fixed = f"D = 3, M = min(N, {ROWS})" if self.over == "N" else f"M = N = {self.points[0].n}"
        return f"{PROBLEMS[self.problem]}, {fixed}"


def curves(quick: bool = False) -> list[Curve]:
    """What is drawn."""
    sizes, dimensions, wide = (SIZES[:2], DIMENSIONS[:2], 100) if quick else (SIZES, DIMENSIONS, WIDE)
    over_n = [Curve(p, "N", tuple(Case(f"{p} {n}", p, min(n, ROWS), n, 3) for n in sizes)) for p in PROBLEMS]
    over_d = [
        Curve(p, "D", tuple(Case(f"{p} D {d}", p, wide, wide, d) for d in dimensions)) for p in ("gaussian", "argmin")
    ]
    return over_n + over_d


def measure(curve: Curve, module: ModuleType, say: Callable[[str], None]) -> list[dict[str, float]]:
    """Points {size, seconds, pairs_per_second} until one would take too long or does not fit."""
    found: list[dict[str, float]] = []
    rate = None
    for case in curve.points:
        if rate is not None and case.work / rate > POINT:
            break
        say(f"{curve.title}, {curve.over} = {case.n if curve.over == 'N' else case.d}: {module.NAME}")
        try:
            run = module.prepare(case, data(case))
            run.compile()
            run.call()
        except Refused:
            break
        seconds = seconds_of(run.call)
        if seconds < 1:
            seconds = statistics.median(seconds_of(run.call) for _ in range(5))
        rate = case.work / seconds
        size = case.n if curve.over == "N" else case.d
        found.append({"size": size, "seconds": seconds, "pairs_per_second": case.pairs / seconds})
    return found


def draw(measured: list[dict[str, Any]], folder: Path) -> list[Path]:
    """One picture over N and one over D, a panel for each problem."""
    import matplotlib  # type: ignore[import-not-found]

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt  # type: ignore[import-not-found]

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for over in ("N", "D"):
        panels = [m for m in measured if m["over"] == over]
        figure, axes = plt.subplots(1, len(panels), figsize=(4.5 * len(panels), 4), squeeze=False, layout="constrained")
        for axis, panel in zip(axes[0], panels, strict=True):
            for name, points in panel["contenders"].items():
                axis.loglog([p["size"] for p in points], [p["pairs_per_second"] for p in points], "o-", label=name)
            axis.set(title=panel["title"], xlabel=over, ylabel="pairs per second")
            axis.grid(alpha=0.3)
            axis.legend()
        written.append(folder / f"speed_over_{over}.png")
        figure.savefig(written[-1], dpi=120)
        plt.close(figure)
    return written


def run(modules: dict[str, ModuleType], quick: bool, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """All curves of all contenders that are there, as data."""

    def contenders(curve: Curve) -> Iterable[tuple[str, list[dict[str, float]]]]:
        for name, module in modules.items():
            if module.missing() is None and (points := measure(curve, module, say)):
                yield name, points

    return [{"title": c.title, "over": c.over, "contenders": dict(contenders(c))} for c in curves(quick)]
