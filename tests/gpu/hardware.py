"""Whether kernels run on a GPU that is there, instead of being compiled for one that is only described and emulated.

LAZYJAX_GPU=1 python -m pytest tests/gpu/compiled        # with LAZYJAX_FULL=1: the whole table
"""

import os

HARDWARE = bool(os.environ.get("LAZYJAX_GPU"))
