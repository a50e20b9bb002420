"""lazyjax beside its peers on this machine: times, memory and errors in one run, and the bars that it has to clear.

    python -m bench                                    # everything: half an hour on two cores, mostly KeOps
    python -m bench --quick                            # small sizes: a first look
    python -m bench --only argmin logsumexp --contenders lazyjax KeOps dense
    python -m bench --output bench/results             # writes results.json and results.md there
    python -m bench --gpu                              # on a GPU: first whether its numbers are right, then times
    python -m bench --plots --output bench/results     # curves over N and D instead of the table

docs/benchmarks.md says what is compared, and how to read it.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any

# Threads that wait for work must not spin through the next contender's turn. Read when OpenMP is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

DEFAULT_OUTPUT = Path(".benchmarks")


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", default=[], metavar="PART", help="cases whose name contains one of these")
    parser.add_argument("--contenders", nargs="+", default=[], metavar="NAME", help="these only, by their whole names")
    parser.add_argument(
        "--repeats", type=int, default=11, help="timed runs of a fast contender; slow ones get 3 or more"
    )
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--no-memory", action="store_true", help="leave out the processes that measure peak memory")
    parser.add_argument("--plots", action="store_true", help="curves over N and over D instead of the table")
    parser.add_argument("--gpu", action="store_true", help="on a GPU: small sizes are checked before any is timed")
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT, help="folder for results.json and results.md")
    parser.add_argument(
        "--keops-cache", type=Path, help="folder of KeOps' compiled formulas, to be kept; a new one each time otherwise"
    )
    parser.add_argument("--list", action="store_true", help="names of cases and contenders")
    return parser


def _without_folders(argv: list[str]) -> list[str]:
    """What of a command line says what was measured."""
    kept, skip = [], False
    for word in argv:
        folder = word in ("--output", "--keops-cache")
        if not (skip or folder or word.startswith(("--output=", "--keops-cache="))):
            kept.append(word)
        skip = folder
    return kept


def main(argv: list[str] | None = None) -> dict[str, Any]:
    argv = sys.argv[1:] if argv is None else argv
    options = arguments().parse_args(argv)
    options.command = shlex.join(["python", "-m", "bench", *_without_folders(argv)])
    with tempfile.TemporaryDirectory() as scratch:
        # KeOps reads it when it is imported. A new folder, so that its first calls are first calls.
        os.environ["KEOPS_CACHE_FOLDER"] = str(options.keops_cache or scratch)
        from . import run

        return run.run(options)


if __name__ == "__main__":
    main()
