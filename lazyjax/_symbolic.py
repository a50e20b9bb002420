"""Symbolic calculus: derivatives of a formula with respect to one of its variables, as formulas again.

A derivative is one instruction of the tape that holds the tape it differentiates: JAX's jvp and vjp act on it when the
pair function is traced, so it needs no rules, nests, and is itself differentiated like everything else.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp

from ._compat import dce, trace_context
from ._errors import show
from ._ranges import common_ranges
from ._tape import Instruction, Leaf, Tape, evaluate

Kind = Literal["grad", "diff", "grad_matrix", "divergence", "laplacian", "trace_operator"]


@dataclasses.dataclass(frozen=True)
class Derivative:
    """A derivative of one node of a tape, as a function of features.

    Its arguments are the features of the leaves in `others`, then those of the variable v (unless `free`, where the
    derivative does not depend on v and v has no data), then the operand e of `grad` and `diff`.

    wrt: the leaves that are v; shape: the features of v.
    """

    kind: Kind
    tape: Tape
    node: int
    wrt: tuple[int, ...]
    shape: tuple[int, ...]
    free: bool = False

    @property
    def others(self) -> list[int]:
        """The leaves that are held fixed."""
        return [k for k in range(len(self.tape.leaves)) if k not in self.wrt]

    def __call__(self, *features: Any) -> Any:
        others, rest = features[: len(self.others)], list(features[len(self.others) :])
        v = jnp.zeros(self.shape, jnp.result_type(float, *others)) if self.free else rest.pop(0)
        e = rest.pop(0) if rest else None
        # In the floating dtype of v and e together: integers have no tangents, and nothing is lost to a shorter float.
        kinds = [x for x in (v, e) if x is not None]
        v = jnp.reshape(jnp.asarray(v, jnp.result_type(float, *kinds)), self.shape)
        return _CALCULUS[self.kind](functools.partial(self._value, others), v, e)

    def _value(self, others: Sequence[Any], v: Any) -> Any:
        """The differentiated formula as a function of v; the parts of an integer have zero derivatives."""
        held = iter(others)
        data = [v if k in self.wrt else next(held) for k in range(len(self.tape.leaves))]
        out = jnp.asarray(data[-1 - self.node] if self.node < 0 else evaluate(self.tape, data)[self.node])
        out = out if jnp.issubdtype(out.dtype, jnp.inexact) else out.astype(jnp.result_type(float))
        return out.reshape(out.shape or (1,))


Function = Callable[[Any], Any]


def _grad(f: Function, v: Any, e: Any) -> Any:
    # The adjoint of the differential for the real scalar product, as in KeOps. JAX transposes it, without a
    # conjugate, which is the same for real numbers.
    out, pull = jax.vjp(f, v)
    cotangent = jnp.broadcast_to(jnp.asarray(e, out.dtype), out.shape)
    return jnp.conj(pull(jnp.conj(cotangent))[0])


def _diff(f: Function, v: Any, e: Any) -> Any:
    return jax.jvp(f, (v,), (jnp.broadcast_to(jnp.asarray(e, v.dtype), v.shape),))[1]


def _jacobian(f: Function, v: Any) -> Any:
    """df_k / dv_l at [k, l], both flattened: one jvp for each feature of v, by vmap, so without control flow."""
    size = math.prod(v.shape)
    basis = jnp.eye(size, dtype=v.dtype).reshape(size, *v.shape)
    columns = jax.vmap(lambda t: jax.jvp(f, (v,), (t,))[1])(basis)
    return columns.reshape(size, -1).T


def _grad_matrix(f: Function, v: Any, e: Any) -> Any:
    return _jacobian(f, v).ravel()


def _trace(f: Function, v: Any, e: Any) -> Any:
    # A selection rather than a product with the identity: what stands beside the diagonal is never computed.
    jacobian = _jacobian(f, v)
    return jnp.sum(jnp.where(jnp.eye(len(jacobian), dtype=bool), jacobian, jnp.zeros_like(jacobian))).reshape(1)


def _laplacian(f: Function, v: Any, e: Any) -> Any:
    return _trace(lambda u: _grad(f, u, 1), v, None)


_CALCULUS: dict[Kind, Callable[..., Any]] = {
    "grad": _grad, "diff": _diff, "grad_matrix": _grad_matrix, "divergence": _trace, "laplacian": _laplacian,
    "trace_operator": _trace,
}  # fmt: skip


@functools.lru_cache(maxsize=1024)
def _is_linear(function: Derivative, avals: tuple[Any, ...], context: Any) -> bool:
    """Whether the differential of a formula is the same everywhere: v is not read by it."""
    del context
    others, v = avals[:-1], avals[-1]
    v = jax.ShapeDtypeStruct(function.shape, jnp.result_type(float, v))

    def differential(v: Any, t: Any, *others: Any) -> Any:
        return jax.jvp(functools.partial(function._value, others), (v,), (t,))[1]

    closed = jax.make_jaxpr(differential)(v, v, *others)
    return not dce(closed, [True])[1][0]


def subtape(tape: Tape, node: int) -> tuple[Tape, int, list[int]]:
    """What one node needs of a tape: the smaller tape, the node in it, and the leaves that it reads.

    Roles and layouts are dropped, because only features are read: equal formulas are equal tapes.
    """
    needed, todo = set(), [node]
    while todo:
        n = todo.pop()
        if n not in needed:
            needed.add(n)
            todo += tape.code[n].inputs if n >= 0 else ()
    leaves = sorted(-1 - n for n in needed if n < 0)
    number = {-1 - k: -1 - new for new, k in enumerate(leaves)}
    code = []
    for n in sorted(n for n in needed if n >= 0):
        op, params, inputs = tape.code[n]
        number[n] = len(code)
        code.append(Instruction(op, params, tuple(number[m] for m in inputs)))
    return Tape((Leaf("p", 0, ""),) * len(leaves), tuple(code)), number[node], leaves


class Calculus:
    """Derivatives of a formula with respect to a variable v: the LazyTensor `Vi(x)`, `Vj(y)` or `Pm(p)` that it was
    written with, or a symbolic variable."""

    __slots__ = ()

    if TYPE_CHECKING:  # what LazyTensor has
        _tape: Any
        _node: Any
        _data: Any
        _aval: Any
        _shape: Any
        _lift: Any

    def grad(self, v: Any, e: Any) -> Any:
        """The gradient with respect to v, applied to e: J^T e, for the Jacobian J of the formula.

        Args:
            v: a variable of the formula: the LazyTensor `Vi(x)`, `Vj(y)` or `Pm(p)` that it was written with, or a
                symbolic one.
            e: a LazyTensor, an array or a number with as many features as the formula, or one.

        Returns:
            A LazyTensor with the features of v. Of complex formulas it is the adjoint for the real scalar product,
            so the conjugate of JAX's.

        Raises:
            TypeError: if v is not a variable, or e is complex where the formula is real. ValueError: if v does not
                occur in the formula, or e has other features.

        Example:
            >>> from lazyjax import Vi, Vj
            >>> x, y = Vi([[1.0, 2.0]]), Vj([[0.0, 0.0], [1.0, 1.0]])
            >>> x.sqdist(y).grad(x, 1).sum(axis=1).tolist()  # the sum of 2 (x - y)
            [[2.0, 6.0]]
        """
        return self._derivative("grad", v, e, self._aval.shape)

    def diff(self, v: Any, e: Any) -> Any:
        """The differential with respect to v, applied to e: J e, for the Jacobian J of the formula.

        Args:
            v: a variable of the formula, as in `grad`.
            e: a LazyTensor, an array or a number with as many features as v, or one.

        Returns:
            A LazyTensor with the features of the formula.

        Raises:
            TypeError: if v is not a variable, or e is complex where v is real. ValueError: if v does not occur in the
                formula, or e has other features.

        Example:
            >>> from lazyjax import Vi, Vj
            >>> x, y = Vi([[1.0, 2.0]]), Vj([[0.0, 0.0], [1.0, 1.0]])
            >>> x.sqdist(y).diff(x, [1.0, 0.0]).dense().tolist()  # 2 (x - y) along the first axis
            [[2.0, 0.0]]
        """
        return self._derivative("diff", v, e, None)

    def grad_matrix(self, v: Any) -> Any:
        """The Jacobian with respect to v, flattened row by row.

        Feature k * V + l is the derivative of feature k of the formula with respect to v_l, V being the number of
        features of v.

        Args:
            v: a variable of the formula, as in `grad`.

        Returns:
            A LazyTensor with as many features as the formula has times V.

        Raises:
            TypeError: if v is not a variable, or is complex. ValueError: if v does not occur in the formula.

        Example:
            >>> from lazyjax import Vi
            >>> x = Vi([[3.0, 5.0]])
            >>> (x**2).grad_matrix(x).sum(axis=1).tolist()
            [[6.0, 0.0, 0.0, 10.0]]
        """
        return self._derivative("grad_matrix", v)

    def divergence(self, v: Any) -> Any:
        """The trace of the Jacobian with respect to v.

        Args:
            v: a variable of the formula, as in `grad`, with as many features as the formula.

        Returns:
            A LazyTensor with one feature.

        Raises:
            TypeError: if v is not a variable, or is complex. ValueError: if v does not occur in the formula, or has
                another number of features.

        Example:
            >>> from lazyjax import Vi
            >>> x = Vi([[3.0, 5.0]])
            >>> (x**2).divergence(x).sum(axis=1).tolist()
            [[16.0]]
        """
        return self._derivative("divergence", v)

    def laplacian(self, v: Any) -> Any:
        """The trace of the Hessian of a scalar formula with respect to v.

        Args:
            v: a variable of the formula, as in `grad`.

        Returns:
            A LazyTensor with one feature.

        Raises:
            TypeError: if v is not a variable, or is complex. ValueError: if v does not occur in the formula, or the
                formula has several features.

        Example:
            >>> from lazyjax import Vi, Vj
            >>> x, y = Vi([[1.0, 2.0]]), Vj([[0.0, 0.0], [1.0, 1.0]])
            >>> x.sqdist(y).laplacian(x).dense().tolist()  # 2 D
            [[4.0, 4.0]]
        """
        return self._derivative("laplacian", v)

    def trace_operator(self, v: Any) -> Any:
        """The trace of a formula that is linear in v. If v is symbolic, the result does not have it any more.

        Args:
            v: a variable, often a symbolic one with a negative index, as in KeOps; with as many features as the
                formula.

        Returns:
            A LazyTensor with one feature.

        Raises:
            TypeError: if v is not a variable, or is complex. ValueError: if the formula is not linear in v, or has
                another number of features.

        Example:
            >>> from lazyjax import Vi
            >>> x, v = Vi([[3.0, 5.0]]), Vi(0, 2)
            >>> (x * v).trace_operator(v).sum(axis=1).tolist()
            [[8.0]]
        """
        return self._derivative("trace_operator", v)

    def factorize(self, other: Any) -> Any:
        """The same formula: what occurs in it twice is always computed once. Accepted for KeOps' sake.

        Args:
            other: a LazyTensor, an array or a number, which KeOps would compute first.

        Returns:
            self.

        Raises:
            TypeError: where other is no operand.

        Example:
            >>> from lazyjax import Vi, Vj
            >>> x, y = Vi([[1.0]]), Vj([[3.0]])
            >>> K = x.sqdist(y) + x.sqdist(y).sqrt()
            >>> K.factorize(x.sqdist(y)).dense().item()
            6.0
        """
        self._lift(other, "factorize")
        return self

    def auto_factorize(self) -> Any:
        """The same formula: what occurs in it twice is always computed once. Accepted for KeOps' sake.

        Returns:
            self.

        Example:
            >>> from lazyjax import Vi, Vj
            >>> x, y = Vi([[1.0]]), Vj([[3.0]])
            >>> K = x.sqdist(y) + x.sqdist(y).sqrt()
            >>> K.auto_factorize().dense().item()
            6.0
        """
        return self

    def _derivative(self, kind: Kind, v: Any, e: Any = None, of_e: tuple[int, ...] | None = None) -> Any:
        from ._lazytensor import LazyTensor, extend

        if not isinstance(v, LazyTensor):
            raise TypeError(f"{kind}: v is {show(v)}, expected a variable of the formula: Vi(x), Vj(y) or Pm(p).")
        if v._node >= 0:
            raise TypeError(f"{kind}: v is {v!r}, a formula, expected a variable: Vi(x), Vj(y) or Pm(p).")
        leaf, data = v._tape.leaves[-1 - v._node], v._data[-1 - v._node]
        symbolic = leaf.symbol is not None and data is None
        shape, size = v._aval.shape, math.prod(v._aval.shape)
        self._check_dims(kind, shape, size, v)
        tape, node, leaves = subtape(self._tape, self._node)
        parts = [LazyTensor._of_leaf(self._tape.leaves[k], self._data[k]) for k in leaves]
        found = tuple(k for k, p in enumerate(parts) if p._tape.leaves[0] == leaf and p._data[0] is data)
        if not found and not symbolic:
            raise ValueError(
                f"{kind}: v, of shape {v.shape}, does not occur in the formula {self!r}. Use the variable that the "
                "formula was written with; inside a transformed function, write the formula there from its arguments."
            )
        free = kind == "trace_operator" and symbolic
        function = Derivative(kind, tape, node, found, shape, free)
        operands = [p for k, p in enumerate(parts) if k not in found]
        if kind == "trace_operator":
            avals = (*(p._aval for p in operands), v._aval)
            if not _is_linear(function, avals, trace_context()):
                raise ValueError(f"trace_operator: the formula {self!r} is not linear in v.")
        operands += [] if free else [v]
        if kind in ("grad", "diff"):
            e = self._lift(e, kind, "e")
            expected = self._aval.shape if kind == "grad" else shape
            if e._aval.shape != expected and math.prod(e._aval.shape) != 1:
                whose = "the formula" if kind == "grad" else "v"
                raise ValueError(
                    f"{kind}: e has {_count(e._aval.shape)} features, expected {_count(expected)} as {whose}, or 1."
                )
            real = not jnp.issubdtype(self.dtype if kind == "grad" else v.dtype, jnp.complexfloating)  # type: ignore[attr-defined]
            if real and jnp.issubdtype(e.dtype, jnp.complexfloating):
                whose = "the formula" if kind == "grad" else "v"
                raise TypeError(f"{kind}: e is {e.dtype}, but {whose} is real; take its real part.")
            operands.append(e)
        if not operands:  # the trace of v itself
            return self._lift(float(size), kind)
        out = extend(("derivative", (("function", function),)), operands, [o._aval for o in operands], kind)
        out._ranges = common_ranges([self, out], kind)
        return out

    def _check_dims(self, kind: Kind, shape: tuple[int, ...], size: int, v: Any) -> None:
        own = math.prod(self._aval.shape)
        if kind in ("divergence", "trace_operator") and own != size:
            raise ValueError(f"{kind}: the formula has {own} features and v has {size}, expected the same number.")
        if kind == "laplacian" and own != 1:
            raise ValueError(f"laplacian: the formula has {own} features, expected a scalar formula, with one.")
        if kind not in ("grad", "diff") and jnp.issubdtype(v.dtype, jnp.complexfloating):
            raise TypeError(f"{kind}: v is {v.dtype}, expected real numbers; use grad or diff, or separate its parts.")


def _count(shape: tuple[int, ...]) -> Any:
    return shape[0] if len(shape) == 1 else shape or 1
