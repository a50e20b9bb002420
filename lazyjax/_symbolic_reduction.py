"""Reductions that wait for their arrays: those of symbolic variables, and those asked for with `call=False`."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from . import _formula
from ._compat import trace_context
from ._errors import show
from ._tape import Leaf, Tape, result_aval
from ._variables import checked_array, leaf_aval, variable_leaf

if TYPE_CHECKING:
    from ._lazytensor import LazyTensor

_ROWS = {"i": "(*B, M, {0})", "j": "(*B, N, {0})", "p": "(*B, {0})"}


def unbound(tensor: Any) -> list[Leaf]:
    """The symbolic variables of a formula that have no data yet."""
    return [leaf for leaf, d in zip(tensor._tape.leaves, tensor._data, strict=True) if leaf.symbol and d is None]


class SymbolicReduction:
    """A reduction that has not run yet: a function of the arrays of its symbolic variables, in the order of their
    indices.

    What `K.sum(axis=1)` returns when K has symbolic variables, and every reduction with `call=False`. The dtype is that
    of the arrays. It may be called as often as needed, and inside functions that JAX transforms.

    Example:
        >>> import jax.numpy as jnp
        >>> from lazyjax import Vi, Vj
        >>> total = (Vi(0, 3) - Vj(1, 3)).sqnorm2().sum(axis=1)
        >>> total
        SymbolicReduction(sum over j of sqnorm2(Vi(0, 3) - Vj(1, 3)), a function of Vi(0, 3), Vj(1, 3))
        >>> total(jnp.zeros((4, 3)), jnp.ones((5, 3))).shape
        (4, 1)
    """

    def __init__(
        self, name: str, tensors: Sequence[Any], reduction: Any, axis: str, options: dict[str, Any], pick: Any,
        without: Leaf | None = None,
    ):  # fmt: skip
        self._name, self._tensors, self._reduction = name, tensors, reduction
        self._axis, self._options, self._pick = axis, options, pick
        self.names: dict[int, str] = {}  # how errors call the arrays, by their indices
        self._symbols: dict[int, list[Leaf]] = {}
        for leaf in (leaf for t in tensors for leaf in unbound(t) if leaf != without):
            index, size = leaf.symbol  # type: ignore[misc]
            if index < 0:
                raise ValueError(
                    f"{name}: the variable {_formula.symbol_name(leaf)} has a negative index, so it stands for no "
                    "array, but it is still in the formula. Only trace_operator takes such a variable away."
                )
            known = self._symbols.setdefault(index, [])
            if any(k.symbol[1] != size for k in known):  # type: ignore[index]
                raise ValueError(
                    f"{name}: {_formula.symbol_name(known[0])} and {_formula.symbol_name(leaf)} have the same index "
                    "and different dims, but they stand for the same array. Give each array its own index."
                )
            if leaf not in known:
                known.append(leaf)

    @property
    def count(self) -> int:
        """How many arrays it takes."""
        return max(self._symbols, default=-1) + 1

    def __call__(self, *arrays: Any, **options: Any) -> Any:
        """Run on arrays: (*B, M, D) for i-variables, (*B, N, D) for j-variables, (*B, D) for parameters.

        Raises:
            TypeError: for another number of arrays than there are variables; ValueError: for wrong shapes.
        """
        if len(arrays) != self.count:
            raise TypeError(
                f"{self._name}: the formula has the symbolic variables {self._signature() or '(none)'}, so it needs "
                f"{self.count} arrays, in the order of their indices; got {len(arrays)}."
            )
        return self._run(arrays, {**self._options, **options})

    def _run(self, arrays: Sequence[Any], options: dict[str, Any]) -> Any:
        head, *weight = (bind(t, arrays, self.names) for t in self._tensors)
        return head._reduced(
            self._name, self._reduction, self._axis, None, options, self._pick, weight=weight[0] if weight else None
        )

    def _signature(self) -> str:
        return ", ".join(_formula.symbol_name(leaf) for k in sorted(self._symbols) for leaf in self._symbols[k])

    def __repr__(self) -> str:
        of, *weight = map(_formula.formula, self._tensors)
        weighted = f" with weight {weight[0]}" if weight else ""
        function = f"a function of {self._signature()}" if self._symbols else "to be called without arrays"
        return f"SymbolicReduction({self._name} over {self._axis} of {of}{weighted}, {function})"


def bind(tensor: LazyTensor, arrays: Any, names: Mapping[int, str], without: Leaf | None = None) -> LazyTensor:
    """Give symbolic variables their data, `without` one of them: arrays[index] for each."""
    leaves, data = [], []
    for leaf, d in zip(tensor._tape.leaves, tensor._data, strict=True):
        if leaf.symbol is not None and d is None and leaf != without:
            index, size = leaf.symbol
            name = names.get(index, f"variable {index}")
            x = arrays[index]
            x = x if leaf.role == "p" and type(x) in (float, complex) else checked_array(x, name)
            leaf, d = variable_leaf(x, None, leaf.role, 1, name)
            got = d.shape[-1] if getattr(d, "ndim", 0) else 1
            if got != size:
                raise ValueError(
                    f"{name}: {show(d)} has {got} features, expected {size}: {_ROWS[leaf.role].format(size)}."
                )
        leaves.append(leaf)
        data.append(d)
    tape = Tape(tuple(leaves), tensor._tape.code)
    _check(tape, tuple(leaf_aval(leaf, d) for leaf, d in zip(leaves, data, strict=True)), trace_context())
    return type(tensor)._make(tape, tensor._node, tuple(data), None, None, tensor._ranges)


@functools.lru_cache(maxsize=1024)
def _check(tape: Tape, leaf_avals: tuple[Any, ...], context: Any) -> None:
    """What is checked when a formula is written, again, because only now the dtypes are known."""
    from ._lazytensor import check_order

    del context
    avals: list[Any] = []
    for instruction in tape.code:
        inputs = [leaf_avals[-1 - n] if n < 0 else avals[n] for n in instruction.inputs]
        check_order(instruction.op, instruction.op, inputs)
        try:
            avals.append(result_aval(instruction, inputs))
        except TypeError as error:
            kinds = ", ".join(map(show, inputs))
            raise TypeError(
                f"{instruction.op} is not defined for features {kinds}: {str(error).splitlines()[0]}"
            ) from None
