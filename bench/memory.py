"""Peak memory of one contender in one case, in a process of its own.

The peak is that of resident memory over what the process held before the first call: interpreter, libraries, data.
That of the first call includes what its compiler took; that of a later call includes what was kept since.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from .cases import data, quick, table
from .contenders import Refused, contenders

LIMIT = 300  # seconds


def measure(case_name: str, contender: str, small: bool) -> dict[str, Any]:
    """Bytes over the baseline: {"first": ..., "later": ...}; or why there are none."""
    command = [sys.executable, "-m", "bench.memory", case_name, contender, *(["--quick"] if small else [])]
    root = Path(__file__).parent.parent
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=root, timeout=LIMIT, check=False)
    except subprocess.TimeoutExpired:
        return {"refused": f"took more than {LIMIT} s"}
    if done.returncode:
        return {"refused": f"its process ended with code {done.returncode}"}
    return json.loads(done.stdout.splitlines()[-1])


def _status(field: str) -> int:
    """VmRSS or VmHWM (its peak), in bytes. The peak of getrusage would be that of the process that started this one."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise KeyError(field)


def _peak(call: Any) -> int:
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    call()
    return _status("VmHWM")


def main() -> None:
    name, contender, *flags = sys.argv[1:]
    case = next(c for c in table() if c.name == name)
    case = quick(case) if "--quick" in flags else case
    try:
        if not Path("/proc/self/clear_refs").exists():
            raise Refused("measured on Linux only")
        run = contenders()[contender].prepare(case, data(case))
        baseline = _status("VmRSS")
        first = _peak(lambda: (run.compile(), run.call()))
        found: dict[str, Any] = {"first": first - baseline, "later": _peak(run.call) - baseline}
    except Refused as refused:
        found = {"refused": str(refused)}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
