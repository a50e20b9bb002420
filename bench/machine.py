"""What the figures were measured on, and with."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import jax

FLAGS = ("sse4_2", "avx", "fma", "avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve")
PACKAGES = ("jax", "jaxlib", "numpy", "pykeops", "numba", "scikit-learn", "scipy")


def memory_available() -> int:
    """Bytes that an array of JAX's default device may still take."""
    stats = jax.devices()[0].memory_stats() or {}  # None on the CPU
    if {"bytes_limit", "bytes_in_use"} <= stats.keys():
        return stats["bytes_limit"] - stats["bytes_in_use"]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        fields = dict(line.split(":") for line in lines)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def cpu() -> dict[str, Any]:
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return {"model": platform.processor() or platform.machine()}
    fields = {k.strip(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
    flags = fields.get("flags", fields.get("Features", "")).split()
    model = fields.get("model name", platform.machine())
    if "cpu family" in fields:
        model += f" (family {fields['cpu family']}, model {fields['model']})"
    return {"model": model, "flags": [f for f in FLAGS if f in flags]}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip().splitlines()[0]


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe(command: str, gpu: str | None = None) -> dict[str, Any]:
    """Machine, with the GPU if there is one, versions, command line, date, and how busy the machine was."""
    import lazyjax

    root = Path(__file__).parent.parent
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
        "command": command,
        "gpu": gpu,
        "cpu": cpu(),
        "cores": cores(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "load_before": os.getloadavg()[0],
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "commit": _output("git", "-C", str(root), "describe", "--always", "--dirty"),
        "versions": {
            "python": platform.python_version(),
            "lazyjax": lazyjax.__version__,
            **{p: v for p in PACKAGES if (v := _version(p))},
            **({"gcc": v.split()[-1]} if (v := _output("gcc", "--version")) else {}),
        },
    }
