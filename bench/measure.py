"""Times of one case: first calls, then warmed calls of all contenders in turn, so that drift meets all alike."""

from __future__ import annotations

import dataclasses
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from . import reference
from .cases import Case, Data, data
from .contenders import Refused, Run

Results = dict[str, dict[str, Any]]

OURS = ("lazyjax", "lazyjax-512")  # in every case

BUDGET = 2.0  # seconds of warmed calls for a contender; slow ones get LEAST runs whatever they take
LEAST = 3
SAMPLE = 5e-3  # calls that are shorter are timed several at once
LONGEST = 15.0  # seconds of one call, beyond which a contender is not waited for
PROBED = 8e9  # work from which a contender is first tried on fewer rows
SHORT = 0.3  # calls that are shorter are preceded by one untimed: caches and threads are another contender's


@dataclasses.dataclass
class _Entry:
    run: Run
    seconds: float = 0.0  # of a warmed call, roughly
    number: int = 1  # calls of a sample
    repeats: int = LEAST
    samples: list[float] = dataclasses.field(default_factory=list)
    cpu: list[float] = dataclasses.field(default_factory=list)  # of all threads, which a busy machine disturbs less


def keops_formulas() -> int:
    """How many formulas KeOps has compiled in its cache folder."""
    folder = os.environ.get("KEOPS_CACHE_FOLDER")
    return sum(1 for _ in Path(folder).rglob("*.so")) if folder else 0


def measure(case: Case, modules: dict[str, ModuleType], repeats: int, say: Callable[[str], None]) -> Results:
    """What each contender did, or why it did not: seconds, pairs per second, error, the compiler's memory."""
    arrays = data(case)
    results: Results = {}
    entries: dict[str, _Entry] = {}
    for name, module in modules.items():
        say(name)
        try:
            if (reason := module.missing()) is not None:
                raise Refused(reason)
            if case.beside and name not in (*OURS, *case.beside):
                raise Refused(f"not compared in this case: {', '.join(case.beside)} are")
            if case.work > PROBED and name not in OURS:
                _probe(case, arrays, module)
            entries[name], results[name] = _first(case, arrays, module)
        except Refused as refused:
            results[name] = {"refused": str(refused)}
        except Exception as failed:
            if name == "lazyjax":
                raise
            first, *_ = str(failed).splitlines() or [""]  # a peer's failure is a result, and the run goes on
            results[name] = {"refused": f"failed: {type(failed).__name__}: {first}"}
    for entry in entries.values():
        _estimate(entry, repeats)
    rounds = max((entry.repeats for entry in entries.values()), default=0)
    for turn in range(rounds):
        for name, entry in entries.items():
            if turn in _turns(entry.repeats, rounds):
                say(f"{name}, {turn + 1} of {rounds}")
                _sample(entry)
    for name, entry in entries.items():
        low, median, high = np.quantile(entry.samples, [0.25, 0.5, 0.75]).tolist()
        results[name] |= {
            "median": median, "quartiles": [low, high], "runs": len(entry.samples), "calls_per_run": entry.number,
            "pairs_per_second": case.pairs / median, "cpu_seconds": statistics.median(entry.cpu),
        }  # fmt: skip
    return results


def _probe(case: Case, arrays: Data, module: ModuleType) -> None:
    """Refuse what would take too long, judged by a few rows."""
    rows = max(1, int(case.m * 2e8 / case.work))
    if rows >= case.m:
        return
    few = dataclasses.replace(case, m=rows)
    run = module.prepare(few, {name: a[:rows] if name in "xqgt" else a for name, a in arrays.items()})
    run.compile()
    run.call()
    predicted = seconds_of(run.call) * case.m / rows
    if predicted > LONGEST:
        raise Refused(f"would take about {predicted:.0f} s a call")


def _first(case: Case, arrays: Data, module: ModuleType) -> tuple[_Entry, dict[str, Any]]:
    run = module.prepare(case, arrays)
    formulas = keops_formulas()
    start = time.perf_counter()
    memory = run.compile()
    result = run.call()
    seconds = time.perf_counter() - start
    record: dict[str, Any] = {"first_call": seconds, "error": reference.error(case, arrays, result)}
    if module.NAME == "KeOps":
        record["compiled"] = keops_formulas() > formulas  # else an earlier case had compiled the formula
    if memory:
        record["compiler_memory"] = memory
    return _Entry(run), record


def _estimate(entry: _Entry, repeats: int) -> None:
    """How often to run, by a first turn of all contenders; for slow ones it is one of their runs."""
    _sample(entry)
    entry.seconds = entry.samples[0]
    if entry.seconds < SAMPLE:
        entry.seconds = statistics.median(seconds_of(entry.run.call) for _ in range(5))
    entry.number = max(1, round(SAMPLE / entry.seconds))
    each = entry.seconds * (entry.number + (entry.seconds < SHORT))
    entry.repeats = int(max(LEAST, min(repeats, BUDGET / each)))
    if entry.seconds < SHORT:
        entry.samples, entry.cpu = [], []
    else:
        entry.repeats -= 1


def _turns(repeats: int, rounds: int) -> set[int]:
    """The rounds in which a contender takes part, spread evenly."""
    return {round((k + 0.5) * rounds / repeats - 0.5) for k in range(repeats)}


def _sample(entry: _Entry) -> None:
    if 0 < entry.seconds < SHORT:
        entry.run.call()
    start, cpu = time.perf_counter(), time.process_time()
    for _ in range(entry.number):
        entry.run.call()
    entry.samples.append((time.perf_counter() - start) / entry.number)
    entry.cpu.append((time.process_time() - cpu) / entry.number)


def seconds_of(call: Callable[[], Any]) -> float:
    """Of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
