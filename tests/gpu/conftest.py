"""What compiles for CUDA needs packages that only the environment of `.ci/gpu-checks` has, or a GPU."""

import importlib.util

import jax
import pytest

from .hardware import HARDWARE

collect_ignore = [] if HARDWARE or importlib.util.find_spec("jax_cuda12_plugin") else ["compiled"]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On a GPU numbers are asked for, and what looks into compiled kernels is left to machines without one."""
    if HARDWARE:
        described = [item for item in items if item.get_closest_marker("described")]
        config.hook.pytest_deselected(items=described)
        items[:] = [item for item in items if item not in described]


if HARDWARE:
    jax.config.update("jax_default_device", jax.devices("cpu")[0])  # of what kernels are compared with
