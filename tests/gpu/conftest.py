"""What compiles for CUDA needs packages that only the environment of `.ci/gpu-checks` has."""

import importlib.util

collect_ignore = [] if importlib.util.find_spec("jax_cuda12_plugin") else ["compiled"]
