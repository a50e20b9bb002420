"""lazyjax: lazy reductions over all pairs, out_i = reduce_j f(x_i, y_j, p), for JAX.

    x, y = Vi(points), Vj(others)                  # variables
    K = (-((x - y) ** 2).sum(-1)).exp()            # a formula: an (M, N) matrix that is never stored
    a = K @ b                                      # a reduction: an (M, E) array

See LazyTensor for the language, and `explain` for how a reduction runs.
"""

from . import cluster as cluster
from ._autotune import autotune, tuned
from ._batch_axes import batch_axes
from ._explain import explain
from ._export import GPU_EXPORT_CHECKS
from ._formula_parser import FormulaError
from ._genred import Genred, generic_argkmin, generic_argmin, generic_logsumexp, generic_sum
from ._index import i_index, j_index
from ._kernel_solve import KernelSolve
from ._lazytensor import LazyTensor, Pm, Vi, Vj
from ._lift import lift
from ._reductions import Sum
from ._system import Solution
from .kernels import Reduction

__version__ = "0.1.0"

__all__ = [
    "GPU_EXPORT_CHECKS",
    "FormulaError",
    "Genred",
    "KernelSolve",
    "LazyTensor",
    "Pm",
    "Reduction",
    "Solution",
    "Sum",
    "Vi",
    "Vj",
    "autotune",
    "batch_axes",
    "explain",
    "generic_argkmin",
    "generic_argmin",
    "generic_logsumexp",
    "generic_sum",
    "i_index",
    "j_index",
    "lift",
    "tuned",
]
