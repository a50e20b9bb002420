"""KernelSolve: a linear system written as a formula string, in the syntax of KeOps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ._errors import show
from ._formula_writer import Alias, read_alias
from ._genred import Genred
from ._lazytensor import LazyTensor
from ._solve import SymbolicSolve, read_settings
from ._tape import Leaf


class KernelSolve(Genred):
    """A system (K + alpha I) a = b, with K a written as a string: a function of the arrays that its aliases declare.

    Args:
        formula: an expression linear in the variable `varinvalias`, for instance "Exp(-SqDist(x, y)) * a". Its sum must
            be a symmetric positive semidefinite operator, once the same points are given as i- and as j-variable. It is
            parsed, never evaluated as Python.
        aliases: what each array is, in order, as for `Genred`: "x = Vi(3)", "y = Vj(3)", "a = Vj(2)".
        varinvalias: the name of the unknown, or "Var(position, dim, category)": a j-variable for axis=1, an i-variable
            for axis=0. The array at its place in a call is b.
        axis: 0 (the default, as in KeOps) sums over i, 1 over j.
        dtype, rec_multVar_highdim: ignored, as by KeOps or on the CPU. opt_arg: a sum has none.
        **options: of `LazyTensor.solve`, each with its default there: `alpha`, `eps`, `atol`, `maxiter`,
            `preconditioner`, `x0`, `full_output`, `dtype_acc` and so on. A call may give others.

    Returns:
        A function: Kinv(*arrays, alpha=..., eps=...) is a, of the shape of b. All columns of b are one system.

    Raises:
        FormulaError: a ValueError that shows the place in the formula. numpy.linalg.LinAlgError: as `LazyTensor.solve`.

    Example:
        >>> import jax.numpy as jnp
        >>> from lazyjax import KernelSolve
        >>> Kinv = KernelSolve("Exp(-SqDist(x, y)) * a", ["x = Vi(1)", "y = Vj(1)", "a = Vj(2)"], "a", axis=1)
        >>> x = jnp.arange(4.0)[:, None]
        >>> Kinv(x, x, jnp.ones((4, 2)), alpha=0.1).shape
        (4, 2)
    """

    _method = "KernelSolve"

    def __init__(
        self,
        formula: str,
        aliases: Sequence[str],
        varinvalias: str,
        axis: int = 0,
        dtype: Any = None,
        opt_arg: Any = None,
        **options: Any,
    ):
        self.varinvalias = varinvalias
        super().__init__(formula, aliases, "Sum", axis, dtype, opt_arg, **options)

    def _reduced(self, value: LazyTensor, weight: LazyTensor | None, options: dict[str, Any]) -> SymbolicSolve:
        if self.opt_arg is not None:
            raise TypeError(f"KernelSolve: opt_arg={self.opt_arg!r} has no meaning for a sum.")
        alias = self._unknown()
        leaf = alias.tensor()._tape.leaves[0]
        number = -1 - value._tape.leaves.index(leaf)
        if value._node != number and all(number not in step.inputs for step in value._tape.code):
            raise ValueError(f"KernelSolve: the formula {self.formula!r} does not contain the unknown, {alias}.")
        if alias.dim != self.features:
            raise ValueError(
                f"KernelSolve: the formula {self.formula!r} has {self.features} features and the unknown, {alias}, has "
                f"{alias.dim}, expected as many."
            )
        if self.axis == 0:  # a sum over i is one over j with the roles exchanged
            value, leaf = value.T, leaf.swapped()
        b = LazyTensor._of_leaf(Leaf("i", 1, "rows", leaf.symbol), None)
        return SymbolicSolve(self._method, value, b, leaf, read_settings(options, self._method))

    def _unknown(self) -> Alias:
        """The alias of the variable that is solved for."""
        text = self.varinvalias
        if not isinstance(text, str):
            raise TypeError(f"KernelSolve: varinvalias is {show(text)}, expected the name of an alias.")
        named = [a for a in self.aliases if a.name == text.strip()]
        if not named and "(" in text:
            position = read_alias(text, None, self._method).position
            named = [a for k, a in enumerate(self.aliases) if k == position]
        if not named:
            known = ", ".join(a.name or str(a) for a in self.aliases)
            raise ValueError(f"KernelSolve: varinvalias={text!r}, expected the name of an alias: {known}.")
        role = "ij"[self.axis]
        if named[0].role != role:
            raise ValueError(
                f"KernelSolve: the unknown is {named[0]}, but axis={self.axis} sums over {role}, expected "
                f"V{role}({named[0].dim})."
            )
        return named[0]

    def __repr__(self) -> str:
        return f"KernelSolve({self.formula!r}, {list(map(str, self.aliases))}, {self.varinvalias!r}, axis={self.axis})"
