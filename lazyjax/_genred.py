"""Genred: a reduction written as a string, in the syntax of KeOps; `generic_sum` and its kin are short forms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ._errors import show, static_int
from ._formula_writer import Alias, declared, in_order, read_alias, written
from ._lazytensor import LazyTensor
from ._reduction_names import check_name, reduced
from ._tape import join
from ._variables import checked_array


class Genred:
    """A reduction over all pairs written as a string, as in KeOps: a function of the arrays that its aliases declare.

    Args:
        formula: the expression to reduce, for instance "Exp(-SqDist(x, y) / 2) * b": numbers, the names of the
            aliases, `+ - * / ** |`, comparisons, and KeOps' operations. It is parsed, never evaluated as Python.
        aliases: what each array is, in order: "x = Vi(3)" an i-variable of 3 features, (M, 3); "y = Vj(3)" a
            j-variable, (N, 3); "p = Pm(2)" a parameter, (2,). All of them may have batch dims before.
        reduction_op: Sum, LogSumExp, SumSoftMaxWeight, Min, Max, ArgMin, ArgMax, Min_ArgMin, Max_ArgMax, KMin,
            ArgKMin or KMin_ArgKMin.
        axis: 0 (the default, as in KeOps) reduces over i, 1 over j.
        opt_arg: how many, for KMin and its kin.
        formula2: the weight, for LogSumExp and SumSoftMaxWeight.
        dtype, cuda_type, rec_multVar_highdim: ignored, as they are by KeOps or on the CPU.
        **options: those of the reductions of a LazyTensor (`sum_scheme`, `dtype_acc` and so on).

    Raises:
        FormulaError: a ValueError that shows the place in the formula.

    Example:
        >>> import jax.numpy as jnp
        >>> from lazyjax import Genred
        >>> f = Genred("Exp(-SqDist(x, y) / 2) * b", ["x = Vi(3)", "y = Vj(3)", "b = Vj(2)"], axis=1)
        >>> f(jnp.zeros((4, 3)), jnp.ones((5, 3)), jnp.ones((5, 2))).shape
        (4, 2)
    """

    _method = "Genred"

    def __init__(
        self,
        formula: str,
        aliases: Sequence[str],
        reduction_op: str = "Sum",
        axis: int = 0,
        dtype: Any = None,
        opt_arg: int | None = None,
        formula2: str | None = None,
        cuda_type: Any = None,
        **options: Any,
    ):
        method = self._method
        options.pop("rec_multVar_highdim", None)
        if isinstance(aliases, str) or not isinstance(aliases, list | tuple):
            raise TypeError(f'{method}: aliases is {show(aliases)}, expected a list of strings, as ["x = Vi(3)"].')
        check_name(reduction_op, "reduction_op", method)
        if static_int(axis, "axis", method) not in (0, 1):
            raise ValueError(f"{method}: axis={axis}, expected 0 to reduce over i, or 1 to reduce over j.")
        self.formula, self.formula2, self.reduction_op = formula, formula2, reduction_op
        self.axis, self.opt_arg = axis, opt_arg
        variables, names = declared(aliases, method)
        value = written(method, formula, names, variables)
        weight = None if formula2 is None else written(method, formula2, names, variables)
        self.aliases = in_order(variables, method)
        self.features = value._shape[-1]
        self._reduction = self._reduced(_with_all(value, self.aliases), weight, options)
        self._reduction.names = {k: f"{method}: {alias}" for k, alias in enumerate(self.aliases)}

    def _reduced(self, value: LazyTensor, weight: LazyTensor | None, options: dict[str, Any]) -> Any:
        return reduced(
            value, self.reduction_op, "ij"[self.axis], weight, self.opt_arg, {"call": False, **options},
            method=self._method, weight_name="formula2", weight_shown=repr(self.formula2),
        )  # fmt: skip

    def __call__(self, *arrays: Any, device_id: Any = -1, **options: Any) -> Any:
        """Run on one array for each alias: (*B, M, dim) for Vi, (*B, N, dim) for Vj, (*B, dim) for Pm.

        Returns:
            The array of the reduction, (*B, M, D) for axis=1 or (*B, N, D) for axis=0, in the dtype of the arrays;
            indices are integers. Min_ArgMin, Max_ArgMax and KMin_ArgKMin return two.

        Raises:
            TypeError: for another number of arrays; ValueError: for arrays of other sizes than declared.
        """
        if len(arrays) != len(self.aliases):
            expected = ", ".join(map(str, self.aliases))
            raise TypeError(f"{self._method}: {len(arrays)} arrays, expected {len(self.aliases)}: {expected}.")
        if device_id != -1:  # KeOps' default: wherever the data is
            options["device_id"] = device_id
        given = [
            a if type(a) in (float, complex) else checked_array(a, f"{self._method}: {alias}")
            for a, alias in zip(arrays, self.aliases, strict=True)
        ]
        out = self._reduction(*given, **options)
        dtype = jnp.result_type(*given) if given else None
        return jax.tree.map(lambda x: _as_given(x, dtype), out)

    def __repr__(self) -> str:
        weight = f", formula2={self.formula2!r}" if self.formula2 is not None else ""
        number = f", opt_arg={self.opt_arg}" if self.opt_arg is not None else ""
        return (
            f"{type(self).__name__}({self.formula!r}, {list(map(str, self.aliases))}, "
            f"reduction_op={self.reduction_op!r}, axis={self.axis}{number}{weight})"
        )


def _as_given(x: Any, dtype: Any) -> Any:
    """A result in the dtype of the arrays: a formula of numbers and comparisons alone has none of its own."""
    if dtype is None or not jnp.issubdtype(x.dtype, jnp.inexact) or not jnp.issubdtype(dtype, jnp.inexact):
        return x
    return x.astype(dtype)


def _with_all(value: LazyTensor, aliases: Sequence[Alias]) -> LazyTensor:
    """The formula with every declared variable among its leaves: one that it does not read still says how many rows
    there are."""
    tape, data, nodes = join([t._operand() for t in (value, *(a.tensor() for a in aliases))])
    return LazyTensor._make(tape, nodes[0], data)


# The short forms: the role of the output says which axis is reduced.


def _generic(reduction: str, formula: str, output: str, aliases: Sequence[str], options: dict[str, Any]) -> Genred:
    method = f"generic_{reduction.lower()}"
    alias = read_alias(output, None, method)
    if alias.role == "p":
        raise ValueError(f"{method}: the output is {output!r}, expected Vi (one row for each i) or Vj.")
    selects = reduction == "ArgKMin"
    number = {"opt_arg": alias.dim} if selects else {}
    made = Genred(formula, list(aliases), reduction, 1 if alias.role == "i" else 0, **number, **options)
    features = made.features
    if features != (1 if selects else alias.dim):
        expected = "is for a formula with 1" if selects else f"has {alias.dim}"
        raise ValueError(
            f"{method}: the formula {formula!r} has {features} features, but the output {output!r} {expected}."
        )
    return made


def generic_sum(formula: str, output: str, *aliases: str, **options: Any) -> Genred:
    """A `Genred` that sums: over j if the output is "a = Vi(dim)", over i if it is "a = Vj(dim)".

    Args:
        formula: the expression to reduce, as in `Genred`.
        output: "a = Vi(dim)" for a reduction over j, "a = Vj(dim)" for one over i; dim is the number of features of
            the formula.
        *aliases: what each array is, in order, as in `Genred`.
        **options: those of the reductions of a LazyTensor.

    Returns:
        A `Genred`, a function of the arrays.

    Raises:
        FormulaError: for a mistake in the formula. ValueError: where the output is a parameter or dim does not fit the
            formula.

    Example:
        >>> import jax.numpy as jnp
        >>> from lazyjax import generic_sum
        >>> f = generic_sum("Exp(-SqNorm2(x - y))", "a = Vi(1)", "x = Vi(3)", "y = Vj(3)")
        >>> f(jnp.zeros((4, 3)), jnp.ones((5, 3))).shape
        (4, 1)
    """
    return _generic("Sum", formula, output, aliases, options)


def generic_logsumexp(formula: str, output: str, *aliases: str, **options: Any) -> Genred:
    """A `Genred` whose reduction is log sum exp.

    Args:
        formula: the expression to reduce, as in `Genred`.
        output: "a = Vi(dim)" for a reduction over j, "a = Vj(dim)" for one over i; dim is the number of features of
            the formula: 1, unless every one is reduced on its own.
        *aliases: what each array is, in order, as in `Genred`.
        **options: those of the reductions of a LazyTensor.

    Returns:
        A `Genred`, a function of the arrays.

    Raises:
        FormulaError: for a mistake in the formula. ValueError: where the output is a parameter or dim does not fit the
            formula.

    Example:
        >>> import jax.numpy as jnp
        >>> from lazyjax import generic_logsumexp
        >>> f = generic_logsumexp("-SqDist(x, y)", "a = Vi(1)", "x = Vi(3)", "y = Vj(3)")
        >>> f(jnp.zeros((4, 3)), jnp.zeros((1, 3))).tolist()
        [[0.0], [0.0], [0.0], [0.0]]
    """
    return _generic("LogSumExp", formula, output, aliases, options)


def generic_argmin(formula: str, output: str, *aliases: str, **options: Any) -> Genred:
    """A `Genred` that gives the index of the smallest value, an integer.

    Args:
        formula: the expression to reduce, as in `Genred`.
        output: "a = Vi(dim)" for a reduction over j, "a = Vj(dim)" for one over i; dim is the number of features of
            the formula.
        *aliases: what each array is, in order, as in `Genred`.
        **options: those of the reductions of a LazyTensor.

    Returns:
        A `Genred`, a function of the arrays.

    Raises:
        FormulaError: for a mistake in the formula. ValueError: where the output is a parameter or dim does not fit the
            formula.

    Example:
        >>> import jax.numpy as jnp
        >>> from lazyjax import generic_argmin
        >>> f = generic_argmin("SqDist(x, y)", "a = Vi(1)", "x = Vi(1)", "y = Vj(1)")
        >>> f(jnp.array([[0.0], [3.0]]), jnp.array([[2.0], [1.0], [4.0]])).tolist()
        [[1], [0]]
    """
    return _generic("ArgMin", formula, output, aliases, options)


def generic_argkmin(formula: str, output: str, *aliases: str, **options: Any) -> Genred:
    """A `Genred` that gives the indices of the K smallest values, integers.

    Args:
        formula: the expression to reduce, as in `Genred`.
        output: "a = Vi(dim)" for a reduction over j, "a = Vj(dim)" for one over i; dim is K; the formula has one
            feature.
        *aliases: what each array is, in order, as in `Genred`.
        **options: those of the reductions of a LazyTensor.

    Returns:
        A `Genred`, a function of the arrays.

    Raises:
        FormulaError: for a mistake in the formula. ValueError: where the output is a parameter or dim does not fit the
            formula.

    Example:
        >>> import jax.numpy as jnp
        >>> from lazyjax import generic_argkmin
        >>> f = generic_argkmin("SqDist(x, y)", "a = Vi(2)", "x = Vi(1)", "y = Vj(1)")
        >>> f(jnp.array([[0.0], [3.0]]), jnp.array([[2.0], [1.0], [4.0]])).tolist()
        [[1, 0], [0, 2]]
    """
    return _generic("ArgKMin", formula, output, aliases, options)
