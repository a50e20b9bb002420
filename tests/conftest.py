"""Settings that must stand before JAX starts: the CPU (or a GPU first), two virtual devices of it, and float64."""

import importlib.util
import os

from .gpu.hardware import HARDWARE

os.environ["JAX_PLATFORMS"] = "cuda,cpu" if HARDWARE else "cpu"
_FLAG = "--xla_force_host_platform_device_count"
if _FLAG not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_FLAG}=2".strip()

import jax  # noqa: E402

jax.config.update("jax_enable_x64", True)

# KeOps is an oracle for a developer's own machine, and no dependency.
collect_ignore = [] if importlib.util.find_spec("pykeops") else ["test_keops_conformance.py"]
