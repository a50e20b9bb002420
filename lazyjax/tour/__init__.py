"""A tour on real data: the colours of two photographs as point clouds in the unit cube, red, green and blue.

`python -m lazyjax` runs it: nearest colours, a kernel product, its gradient, a density, and a transfer of colours
from one photograph to the other. Each step visits every pair of a pixel of one and a pixel of the other; the matrix of
these pairs is never stored.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from .computations import photographs, sample
from .steps import CHECKED, STEPS, Photographs

__all__ = ["main", "parser", "peak_memory", "report", "save"]

# What the tour imports beside the library, and the package that has it.
NEEDS = {"sklearn": "scikit-learn", "matplotlib": "matplotlib", "rich": "rich"}


def save(path: Path, source: np.ndarray, target: np.ndarray, result: np.ndarray) -> None:
    """The two photographs and the recoloured one, side by side, as an image file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 3.7), layout="constrained")
    titles = ("photograph", "palette", "photograph with that palette")
    for axes, image, title in zip(figure.subplots(1, 3), (source, target, result), titles, strict=True):
        axes.imshow(np.clip(image, 0, 1), interpolation="lanczos")
        axes.set_title(title)
        axes.set_axis_off()
    figure.savefig(path, dpi=130)


def peak_memory() -> str:
    """The most memory that this process has held so far."""
    if importlib.util.find_spec("resource") is None:  # Windows
        return "unknown"
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return f"{unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**30:.2f} GiB"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        "python -m lazyjax", description="Lazy reductions on the colours of two photographs."
    )
    default = "(default %(default)s)"
    made.add_argument("--pixels-i", type=int, default=100_000, metavar="M", help=f"colours of the first {default}")
    made.add_argument("--pixels-j", type=int, default=200_000, metavar="N", help=f"colours of the second {default}")
    made.add_argument("--output", type=Path, default=Path("lazyjax_tour.png"), help=f"image to write {default}")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tour; returns the exit status."""
    arguments = parser()
    options = arguments.parse_args(argv)
    missing = [NEEDS[name] for name in NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        print(f'The tour needs {", ".join(missing)}: pip install "lazyjax[tour]"', file=sys.stderr)  # noqa: T201
        return 1
    source, target = photographs()
    counts = {"--pixels-i": options.pixels_i, "--pixels-j": options.pixels_j}
    most = source.shape[0] * source.shape[1]
    for name, count in counts.items():
        if not 1 <= count <= most:
            arguments.error(f"{name} {count}: the photograph has {most} pixels, expected 1 to {most}")
    x, y = sample(source, options.pixels_i, seed=0), sample(target, options.pixels_j, seed=1)
    report(Photographs(source, target, x, y), options.output)
    return 0


def report(data: Photographs, output: Path) -> None:
    """Run the steps behind a progress bar, print what they found and a closing table, and save the image."""
    from rich import box, console, progress, table

    out = console.Console(highlight=False, soft_wrap=True)
    m, n = len(data.x), len(data.y)
    out.print(f"{m:,} colours of one photograph, {n:,} of another: {data.pairs:,} pairs, on {jax.default_backend()}")
    closing = table.Table(box=box.SIMPLE, caption="Times are wall times of a first call: they include compilation.")
    for column in ("step", "time", "pairs/s", "dense matrix", "error", "peak"):
        closing.add_column(column, justify="left" if column == "step" else "right")
    shown = (progress.SpinnerColumn(), *progress.Progress.get_default_columns()[:2], progress.TimeElapsedColumn())
    with progress.Progress(*shown, console=out, transient=True) as bar:
        task = bar.add_task("", total=len(STEPS))
        for name, compute in STEPS.items():
            bar.update(task, description=name)
            step = compute(data)
            seconds, rate = f"{step.seconds:.2f} s", f"{step.pairs / step.seconds:.3g}"
            dense = f"{4 * step.pairs / 1e9:.3g} GB"
            out.print(f"{name}: {compute.__doc__}")
            out.print(f"    {seconds}, {rate} pairs/s; the dense matrix would have had {dense}")
            out.print(f"    {step.said}")
            closing.add_row(name, seconds, rate, dense, f"{step.error:.0e}", peak_memory())
            bar.advance(task)
            if step.image is not None:
                save(output, data.source, data.target, step.image)
    out.print(closing)
    out.print("dense matrix: what all pairs would have taken in float32; it was never stored")
    out.print(f"error: against NumPy in float64 on {CHECKED} rows, relative to the largest value")
    out.print(f"peak: the most memory the process had held until then; in the end {peak_memory()}")
    out.print(f"image: {output}")
