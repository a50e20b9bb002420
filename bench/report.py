"""Results as Markdown: what was to be reached and what was, then everything that was measured."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from .cases import Bar, Case

OURS = "lazyjax"


def record(case: Case, results: dict[str, Any]) -> dict[str, Any]:
    """One case in the JSON file; its bars are judged by `judge` when all cases have run."""
    fields = dataclasses.asdict(case)
    return {**fields, "sizes": case.sizes, "pairs": case.pairs, "work": case.work, "results": results}


def compared(machine: dict[str, Any]) -> str:
    """By what calls are compared: wall time, or processor time where other programs took all cores."""
    busy = machine["load_before"] > machine["cores"] and not machine.get("gpu")
    return "cpu_seconds" if busy else "median"


def judge(found: dict[str, Any]) -> None:
    """Put `measured` and `met` beside each bar: None where the other side has no figure.

    Bars are for full sizes: at quick ones nothing is met or missed.
    """
    cases, quick, time = found["cases"], found["quick"], compared(found["machine"])
    rates = {c["name"]: c["pairs"] / ours[time] for c in cases if (ours := c["results"].get(OURS, {})).get(time)}
    for case in cases:
        for bar in case["bars"]:
            measured = _measured(
                Bar(bar["kind"], bar["against"], bar["least"]), case["results"], rates, case["name"], time
            )
            bar["measured"] = measured
            judged = measured is not None and bar["least"] is not None and not quick
            bar["met"] = measured >= bar["least"] if judged else None


def _measured(bar: Bar, results: dict[str, Any], rates: dict[str, Any], name: str, time: str) -> float | None:
    if bar.kind == "rate":
        ours, theirs = rates.get(name), rates.get(bar.against)
        return ours / theirs if ours and theirs else None
    ours, theirs = results.get(OURS, {}), results.get(bar.against, {})
    field = time if bar.kind == "time" else "first_call"
    if not ours.get(field) or field not in theirs:
        return None
    if bar.kind == "first" and theirs.get("compiled") is False:
        return None  # it had compiled the formula before
    return theirs[field] / ours[field]


def markdown(found: dict[str, Any]) -> str:
    quick = ["", "Small sizes, which show that everything runs: targets are for full ones."] if found["quick"] else []
    parts = [_heading(found["machine"]), quick, [""], _bars(found["cases"]), [""], _measurements(found["cases"]), [""]]
    return "\n".join(line for part in parts for line in part)


def save(found: dict[str, Any], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(found, indent=1) + "\n")
    (folder / "results.md").write_text(markdown(found))


def describe(machine: dict[str, Any]) -> str:
    """The machine in one line."""
    flags = ", ".join(machine["cpu"].get("flags", []))
    gpu = f"{machine['gpu']}; beside it " if machine.get("gpu") else ""
    return f"{gpu}{machine['cpu']['model']}, {machine['cores']} cores ({flags}), {machine['memory_gib']} GiB"


def load(machine: dict[str, Any]) -> str:
    """Whether other programs ran: times are longer then, ratios noisier."""
    before, cores = machine["load_before"], machine["cores"]
    if before < 0.5:
        return "The machine was otherwise idle."
    return (
        f"Other programs ran meanwhile (load {before:.0f} on {cores} cores when it began): "
        "wall times are too long"
        + (", and calls are compared by the processor time of all threads." if compared(machine) != "median" else ".")
    )


def _heading(machine: dict[str, Any]) -> list[str]:
    versions = ", ".join(f"{name} {v}" for name, v in machine["versions"].items())
    return [
        "# Benchmarks",
        "",
        f"- {machine['date']}, commit {machine['commit']}: `{machine['command']}`",
        f"- {describe(machine)}, {machine['system']}. {load(machine)}",
        f"- {versions}",
        *([f"- XLA_FLAGS={machine['xla_flags']}"] if machine["xla_flags"] else []),
    ]


def _bars(cases: list[dict[str, Any]]) -> list[str]:
    lines = [
        "## Targets",
        "",
        "How many times the speed of the other side lazyjax has (a warmed call, unless it says so).",
        "",
        "| case | against | target | measured | |",
        "|---|---|---:|---:|---|",
    ]
    words = {"time": "{}", "first": "{}, first call", "rate": "own pairs/s of {}"}
    for case in cases:
        for bar in case["bars"]:
            target = "" if bar["least"] is None else f"{bar['least']:.3g}"
            measured = "" if bar["measured"] is None else f"{bar['measured']:.3g}"
            met = {True: "met", False: "**missed**", None: "" if measured else "no figure"}[bar["met"]]
            against = words[bar["kind"]].format(bar["against"])
            lines.append(f"| {case['name']} | {against} | {target} | {measured} | {met} |")
    return lines


def _measurements(cases: list[dict[str, Any]]) -> list[str]:
    lines = [
        "## Measurements",
        "",
        "Medians of warmed calls with their quartiles. CPU is the time of all threads together, which other programs",
        "disturb less. The error is the largest, against float64. Memory is what a later call held at its peak over",
        "interpreter, libraries and data; in brackets, what XLA says it needs.",
        "",
    ]
    for case in cases:
        ours = case["results"].get(OURS, {}).get("median")
        lines += [
            f"### {case['name']}",
            "",
            f"{case['sizes']}",
            "",
            "| contender | first call | median | quartiles | CPU | runs | pairs/s | error | memory | times lazyjax |",
            "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
        ]
        lines += [_row(name, result, ours) for name, result in case["results"].items()]
        lines.append("")
    return lines[:-1]


def _row(name: str, result: dict[str, Any], ours: float | None) -> str:
    if "refused" in result:
        return f"| {name} | {result['refused']} | | | | | | | | |"
    low, high = result["quartiles"]
    first = duration(result["first_call"]) + ("" if result.get("compiled", True) else " (compiled before)")
    ratio = f"{result['median'] / ours:.3g}" if ours else ""
    cells = [
        name,
        first,
        duration(result["median"]),
        f"{duration(low)} to {duration(high)}",
        duration(result["cpu_seconds"]),
        str(result["runs"]),
        f"{result['pairs_per_second']:.2e}",
        f"{result['error']:.0e}",
        _memory(result),
        ratio,
    ]
    return f"| {' | '.join(cells)} |"


def _memory(result: dict[str, Any]) -> str:
    peak = result.get("memory", {})
    shown = size(peak["later"]) if "later" in peak else peak.get("refused", "")
    compiler = result.get("compiler_memory")
    return f"{shown} [{size(compiler['temporary'] + compiler['output'])}]".strip() if compiler else shown


def duration(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} µs"


def size(number: float) -> str:
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20)):
        if number >= scale:
            return f"{number / scale:.3g} {unit}"
    return f"{number / 2**10:.3g} KiB"
