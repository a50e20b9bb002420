"""What compiles for CUDA needs packages that only the environment of the GPU checks has: see `.ci/gpu-checks`."""

import importlib.util

COMPILING = ["test_ceilings.py", "test_compiled.py", "test_memory_of_programs.py", "test_mutations.py"]
collect_ignore = [] if importlib.util.find_spec("jax_cuda12_plugin") else COMPILING
