"""Reductions of symbolic variables: functions of the arrays that the variables stand for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ._errors import show
from ._tape import Tape
from ._variables import checked_array, variable_leaf
from .kernels import Reduction

if TYPE_CHECKING:
    from ._lazytensor import LazyTensor


class SymbolicReduction:
    """A reduction of symbolic variables: a function of their arrays, in the order of their indices."""

    def __init__(self, tensors: Sequence[Any], reduction: Reduction, axis: str, backend: str | None, pick: Any):
        self._tensors, self._reduction, self._axis = tensors, reduction, axis
        self._backend, self._pick = backend, pick

    def __call__(self, *arrays: Any) -> Any:
        """Bind the variables to arrays: (*B, M, D) for i, (*B, N, D) for j, (*B, D) for parameters."""
        symbols = {leaf.symbol[0] for t in self._tensors for leaf in t._tape.leaves if leaf.symbol}
        if len(arrays) != max(symbols) + 1:
            raise TypeError(
                f"the formula has the symbolic variables {sorted(symbols)}, so it needs {max(symbols) + 1} arrays, in "
                f"the order of these indices; got {len(arrays)}."
            )
        from ._reduce import reduce_tensors

        bound = [bind(t, arrays) for t in self._tensors]
        return reduce_tensors(bound, self._reduction, self._axis, self._backend, self._pick)

    def __repr__(self) -> str:
        return f"SymbolicReduction({self._reduction}, over {self._axis}, of {', '.join(map(repr, self._tensors))})"


def bind(tensor: LazyTensor, arrays: Sequence[Any]) -> LazyTensor:
    """Give symbolic variables their data."""
    leaves, data = [], []
    for leaf, d in zip(tensor._tape.leaves, tensor._data, strict=True):
        if leaf.symbol is not None:
            index, size = leaf.symbol
            name = f"variable {index}"
            leaf, d = variable_leaf(checked_array(arrays[index], name), None, leaf.role, 1, name)
            got = d.shape[-1] if d.ndim else 1
            if got != size:
                raise ValueError(f"{name}: {show(d)} has {got} features, expected {size}.")
        leaves.append(leaf)
        data.append(d)
    return type(tensor)._make(Tape(tuple(leaves), tensor._tape.code), tensor._node, tuple(data))
