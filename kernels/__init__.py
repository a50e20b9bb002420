"""The machine: descriptions of reductions over pairs, the planner, and the kernels that run them.

`kernels` knows nothing of LazyTensors.  It is imported as `lazyjax.kernels`.
"""

from .description import Description, PairFunction, trace_pair
from .planner import KERNELS, Plan, UnsupportedError, plan
from .reduction import Reduction, Selection, ShiftedSum

__all__ = [
    "KERNELS",
    "Description",
    "PairFunction",
    "Plan",
    "Reduction",
    "Selection",
    "ShiftedSum",
    "UnsupportedError",
    "plan",
    "trace_pair",
]
