"""The speed figures of README.md, from a results file: `python -m bench.readme [bench/results/results.json]`.

Rewrites what stands between two marks, and nothing else.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from . import report

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench" / "results" / "results.json"
BEGIN, END = "<!-- speed: begin, written by python -m bench.readme -->", "<!-- speed: end -->"
PEERS = ("KeOps", "dense", "C", "scikit-learn", "lazyjax-512")


def block(found: dict[str, Any]) -> str:
    """The Markdown between the marks."""
    machine = found["machine"]
    versions = machine["versions"]
    named = [("JAX", "jax"), ("KeOps", "pykeops"), ("scikit-learn", "scikit-learn")]
    lines = [
        "| | time | pairs/s | KeOps | dense JAX | C | scikit-learn | 512 bits | first call (KeOps') |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---|",
        *(
            _row(case, report.compared(machine))
            for case in found["cases"]
            if "median" in case["results"].get(report.OURS, {})
        ),
        "",
        f"Measured on {report.describe(machine)}, {machine['date'][:10]}, with "
        + ", ".join(f"{name} {versions[key]}" for name, key in named if key in versions)
        + f", by `{machine['command']}`. {report.load(machine)}",
        "",
        "Time is the median of lazyjax' warmed calls; under the others' names stands how many times as long they take.",
        "Dense JAX holds all pairs in memory; C is a loop written by hand for this one formula, with vector",
        "instructions and threads; 512 bits is lazyjax with XLA's vectors as wide as AVX-512 has them, not JAX':",
        "`jax.jit(f, compiler_options={'xla_cpu_prefer_vector_width': 512})`. First calls include",
        "compilation. An empty field: not measured, not possible, or not of this kind;",
        "[docs/benchmarks.md](docs/benchmarks.md) says more, and how to run it.",
    ]
    return "\n".join(lines)


def _row(case: dict[str, Any], time: str) -> str:
    results = case["results"]
    ours = results[report.OURS]
    ratios = [f"{results[p][time] / ours[time]:.2g}" if time in results.get(p, {}) else "" for p in PEERS]
    keops = results.get("KeOps", {})
    first = report.duration(ours["first_call"])
    if keops.get("compiled"):
        first += f" ({report.duration(keops['first_call'])})"
    columns = f", {case['e']} columns" if case["e"] > 1 and "columns" not in case["name"] else ""
    cells = [
        f"{case['name']}{columns} ({case['sizes'].split(',')[0]})",
        report.duration(ours["median"]),
        f"{ours['pairs_per_second']:.2g}",
        *ratios,
        first,
    ]
    return f"| {' | '.join(cells)} |"


def rewrite(text: str, found: dict[str, Any]) -> str:
    """README.md with the block of these results."""
    before, mark, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not mark or not end:
        raise SystemExit(f"README.md has no block between {BEGIN!r} and {END!r}")
    return f"{before}{BEGIN}\n{block(found)}\n{END}{after}"


def main() -> None:
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS
    readme = ROOT / "README.md"
    readme.write_text(rewrite(readme.read_text(), json.loads(source.read_text())))


if __name__ == "__main__":
    main()
