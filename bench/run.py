"""The whole run: cases, contenders, progress, files."""

from __future__ import annotations

import argparse
import json
from types import ModuleType
from typing import Any

import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from . import cases, machine, measure, memory, on_gpu, plots, report
from .contenders import contenders


def chosen_cases(only: list[str], quick: bool) -> list[cases.Case]:
    """Cases by their names or parts of them; all of them where nothing is asked for."""
    every = cases.table()
    names = {c.name.lower() for c in every}

    def asked(name: str) -> bool:  # a whole name means that case alone
        return any(p.lower() == name if p.lower() in names else p.lower() in name for p in only)

    found = [c for c in every if not only or asked(c.name.lower())]
    if not found:
        raise SystemExit(
            f"--only {' '.join(only)}: no case has such a name. There are:\n" + "\n".join(c.name for c in every)
        )
    return [cases.quick(c) for c in found] if quick else found


def chosen_contenders(wanted: list[str]) -> dict[str, ModuleType]:
    every = contenders()
    if unknown := [n for n in wanted if n not in every]:
        raise SystemExit(f"--contenders {', '.join(unknown)}: there are {', '.join(every)}")
    return {name: m for name, m in every.items() if not wanted or name in wanted}


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure what the command line asks for, print it, write it, return it."""
    console = Console()
    modules = chosen_contenders(options.contenders)
    chosen = chosen_cases(options.only, options.quick)
    if options.list:
        console.print("\n".join([*(c.name for c in chosen), "", *modules]))
        return {}
    gpu = on_gpu.device() if options.gpu else None
    if gpu is not None:
        modules = {name: m for name, m in modules.items() if options.contenders or name in on_gpu.CONTENDERS}
        chosen = on_gpu.without_bars(chosen)
        chosen = chosen if options.quick else [on_gpu.larger(case) for case in chosen]
        if "lazyjax" in modules:
            on_gpu.check(chosen, modules["lazyjax"], console.print)
    if options.plots:
        return _plots(options, console, modules, gpu)
    found: dict[str, Any] = {"machine": machine.describe(options.command, gpu), "quick": options.quick, "cases": []}
    _warm(modules)
    with _progress(console) as progress:
        task = progress.add_task("", total=len(chosen))
        for case in chosen:

            def say(what: str, name: str = case.name) -> None:
                progress.update(task, description=f"{name}: {what}", refresh=True)

            results = measure.measure(case, modules, options.repeats, say)
            if gpu is not None:
                on_gpu.judge_all(case, results)
            if case.memory and not (options.no_memory or gpu):  # a process' memory says nothing about a GPU's
                for name, result in results.items():
                    if "refused" not in result:
                        say(f"{name}, memory")
                        result["memory"] = memory.measure(case.name, name, options.quick)
            found["cases"].append(report.record(case, results))
            report.judge(found)
            report.save(found, options.output)  # after each case: what is measured is not lost
            progress.advance(task)
    console.print(Markdown(report.markdown(found)) if console.is_terminal else report.markdown(found), soft_wrap=True)
    console.print(f"written: {options.output}/results.json, results.md")
    return found


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True)


def _plots(
    options: argparse.Namespace, console: Console, modules: dict[str, ModuleType], gpu: str | None
) -> dict[str, Any]:
    modules = {name: m for name, m in modules.items() if options.contenders or name in plots.NAMES}
    found: dict[str, Any] = {"machine": machine.describe(options.command, gpu), "quick": options.quick}
    _warm(modules)
    with _progress(console) as progress:
        task = progress.add_task("", total=None)
        found["curves"] = plots.run(modules, options.quick, lambda what: progress.update(task, description=what))
    written = plots.draw(found["curves"], options.output)
    (options.output / "curves.json").write_text(json.dumps(found, indent=1) + "\n")
    console.print("written:", *written, options.output / "curves.json", soft_wrap=True)
    return found


def _warm(modules: dict[str, ModuleType]) -> None:
    """Libraries imported, devices and compilers started: a first call is that of a formula, not of a process."""
    jnp.zeros(3).block_until_ready()
    if "KeOps" in modules and modules["KeOps"].missing() is None:
        from pykeops.numpy import Vi, Vj  # type: ignore[import-not-found]

        one = np.ones((2, 1), np.float32)
        (Vi(one) + Vj(one)).sum(axis=1)
