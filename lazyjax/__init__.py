"""lazyjax: lazy reductions over all pairs, out_i = reduce_j f(x_i, y_j, p), for JAX."""

from ._lazytensor import LazyTensor, Pm, Vi, Vj

__all__ = ["LazyTensor", "Pm", "Vi", "Vj"]
