"""K.solve: linear systems of a kernel matrix that is never stored, by conjugate gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from . import _formula
from ._cg import CONVERGED, REASONS
from ._errors import show, static_int
from ._options import read_options
from ._ranges import checked_form
from ._reductions import Sum
from ._symbolic_reduction import SymbolicReduction, bind, unbound
from ._system import EPS, Plan, Solution, computed_in, run
from ._tape import Leaf
from ._variables import checked_array, is_array

# The most iterations that are made without being asked for.
MAXITER = 1000


class Solvers:
    """`K.solve`."""

    __slots__ = ()

    if TYPE_CHECKING:
        _sizes: Any
        _aval: Any
        T: Any

    def solve(
        self,
        other: Any,
        var: Any = None,
        call: Any = True,
        *,
        alpha: Any = 1e-10,
        eps: Any = None,
        atol: Any = 0.0,
        maxiter: Any = None,
        preconditioner: Any = None,
        x0: Any = None,
        full_output: Any = False,
        **options: Any,
    ) -> Any:
        """Solve (K + alpha I) a = b for a, by conjugate gradients: K is never stored.

        K must be symmetric (Hermitian, if complex) and positive semidefinite: a formula such as
        (-Vi(x).sqdist(Vj(x))).exp(), with the same points as i- and j-variable. A vector-valued K, with D features,
        multiplies a of D features element by element.

        Args:
            other: b, an array (M,), (M, E) or (*B, M, E); or Vi(b); Vj(b) solves with K.T.
            var: the unknown, a symbolic variable Vj(index, E) of K, where K is a formula linear in it (a matrix-valued
                kernel: (G * A).matvecmult(v)): the system is then K.sum(axis=1) + alpha var = b.
            call: False for a function to be called later, as for every reduction.
            alpha: ridge regularisation, a number of at least 0, or an array of the shape of the batch dims.
            eps: a system is solved when the norm of b - (K + alpha) a, the true one, not that of the recurrence, is at
                most eps times the norm of b. Unless told, iterations end at 1e-6, and the true residual, which rounding
                errors part from that of the recurrence, may be 1e-4 in float32. (KeOps compares the root mean square of
                the recurrence's residual with eps, so there the precision depends on the units of b. That is eps=0,
                atol=1e-6 here.)
            atol: or when the root mean square of b - (K + alpha) a is at most atol.
            maxiter: the most iterations; 10 M, at most 1000, unless told.
            preconditioner: a function that applies a symmetric positive definite approximation of the inverse of
                K + alpha to an array of the shape of the solution; or "jacobi", for the inverse of the diagonal.
            x0: where to start, an array that broadcasts to the solution; 0 unless told.
            full_output: return a `lazyjax.Solution`, which tells iterations, residuals and convergence.
            **options: of the sums, `ranges`, `dtype_acc`, `use_double_acc`, `sum_scheme`, `backend`, as in `sum`.

        Returns:
            a, of shape (*B, M) for b (M,), else (*B, M, E), in the dtype that K and b promote to (integers become
            floats; float16 and bfloat16 are solved in float32). Every column, and every problem of a batch, is a system
            of its own, and all share the products.

        It is differentiable to every order, forward and reverse, in the data of K, in alpha and in b, by implicit
        differentiation: a derivative is a system with the same K + alpha, solved to the same eps, relative to its own
        right-hand side.

        Raises:
            numpy.linalg.LinAlgError: if a system is not solved. Inside `jit`, `vmap` and so on, where nothing can be
                raised, its solution is NaN. With full_output=True the best found is returned, and says so; derivatives
                that could not be computed are NaN.
            TypeError, ValueError: for arguments of other types and shapes.

        Example:
            >>> import jax
            >>> import jax.numpy as jnp
            >>> from lazyjax import Vi, Vj
            >>> x = jnp.linspace(0, 1, 100)[:, None]
            >>> K = (-Vi(x).sqdist(Vj(x)) / 0.1).exp()
            >>> a = K.solve(jnp.sin(5 * x), alpha=0.1, eps=1e-4)
            >>> a.shape, bool(jnp.allclose(K @ a + 0.1 * a, jnp.sin(5 * x), atol=1e-3))
            ((100, 1), True)
        """
        settings = {
            "alpha": alpha, "eps": eps, "atol": atol, "maxiter": maxiter, "preconditioner": preconditioner, "x0": x0,
            "full_output": full_output,
        }  # fmt: skip
        return _solve(self, other, var, call, "solve", read_settings({**settings, **options}, "solve"))


_DEFAULTS = {
    "alpha": 1e-10, "eps": None, "atol": 0.0, "maxiter": None, "preconditioner": None, "x0": None, "full_output": False,
}  # fmt: skip


def read_settings(settings: dict[str, Any], method: str) -> dict[str, Any]:
    """All settings of a solve, those that were not given with their defaults; unknown ones raise."""
    given = {k: v for k, v in settings.items() if k not in _DEFAULTS}
    if "keepdims" in given:
        raise TypeError(f"{method}: keepdims has no meaning; the solution has the shape of the right-hand side.")
    read_options(given, method, Sum())
    return {**_DEFAULTS, **settings}


def _solve(tensor: Any, other: Any, var: Any, call: Any, method: str, settings: dict[str, Any]) -> Any:
    from ._lazytensor import LazyTensor

    if not isinstance(call, bool):
        raise TypeError(f"{method}: call={show(call)}, expected True, or False for a function to be called later.")
    tensor, settings = _with_ranges(tensor, settings, method)
    if isinstance(other, LazyTensor):
        leaf = other._tape.leaves[0] if other._node < 0 and len(other._tape.leaves) == 1 else None
        if leaf is None or leaf.role == "p" or leaf.feature_ndim != 1:
            raise TypeError(f"{method}: b is {other!r}, expected an array (*B, M, E), or a variable: Vi(b) or Vj(b).")
    else:
        checked_array(other, f"{method}: b")
        if np.ndim(other) == 0:
            raise ValueError(f"{method}: b is {show(other)}, expected (M,) or (*B, M, E).")
        leaf = None
    var_leaf = None if var is None else _unknown(tensor, other, leaf, var, method)
    if leaf is not None and leaf.role == "j":
        tensor, other = tensor.T, other.T
        var_leaf = None if var_leaf is None else var_leaf.swapped()
    rest = [symbol for symbol in unbound(tensor) if symbol != var_leaf]
    if rest or (leaf is not None and unbound(other)) or not call:
        return SymbolicSolve(method, tensor, other, var_leaf, settings)
    return _solved(tensor, other, var_leaf, method, settings)


def _with_ranges(tensor: Any, settings: dict[str, Any], method: str) -> tuple[Any, dict[str, Any]]:
    """The option `ranges` as those of the formula, and the other settings."""
    if "ranges" not in settings:
        return tensor, settings
    rest = dict(settings)
    sparse = type(tensor)(tensor)
    sparse._ranges = checked_form(rest.pop("ranges"), method)
    return sparse, rest


def _unknown(tensor: Any, other: Any, leaf: Leaf | None, var: Any, method: str) -> Leaf:
    """The leaf of the variable that is solved for."""
    role = "i" if leaf is not None and leaf.role == "j" else "j"
    symbols = unbound(var) if hasattr(var, "_tape") and var._node < 0 else []
    name = f"V{role}(index, dim)"
    if len(symbols) != 1 or symbols[0].role != role:
        raise TypeError(f"{method}: var is {var!r}, expected a symbolic variable {name}, for b on the other axis.")
    if symbols[0] not in unbound(tensor):
        raise ValueError(f"{method}: the formula does not contain var, {_formula.symbol_name(symbols[0])}.")
    index = symbols[0].symbol[0]  # type: ignore[index]
    if leaf is not None and unbound(other) and leaf.symbol[0] != index:  # type: ignore[index]
        raise ValueError(
            f"{method}: b is {_formula.symbol_name(leaf)} and var is {_formula.symbol_name(symbols[0])}, expected the "
            "same index: the array at the place of var is the right-hand side."
        )
    others = [s.symbol[0] for s in unbound(tensor) if s != symbols[0]]  # type: ignore[index]
    if not (leaf is not None and unbound(other)) and index < max(others, default=-1):
        raise ValueError(
            f"{method}: var is {_formula.symbol_name(symbols[0])}, but b is an array, and variables of higher index "
            "are symbolic. Give var the highest index, or make b symbolic too."
        )
    return symbols[0]


class SymbolicSolve(SymbolicReduction):
    """A system that waits for arrays: those of symbolic variables, in the order of their indices; at the place of
    `var`, the right-hand side."""

    def __init__(self, name: str, tensor: Any, other: Any, var: Leaf | None, settings: dict[str, Any]):
        symbolic = hasattr(other, "_tape") and bool(unbound(other))
        super().__init__(name, [tensor, other] if symbolic else [tensor], Sum(), "j", settings, None, without=var)
        self._other, self._var = other, var

    def _run(self, arrays: Any, options: dict[str, Any]) -> Any:
        head, *rest = self._tensors
        other = bind(rest[0], arrays, self.names) if rest else self._other
        head = bind(head, arrays, self.names, without=self._var)
        return _solved(head, other, self._var, self._name, options)

    def __repr__(self) -> str:
        of = _formula.formula(self._tensors[0])
        what = f" for {_formula.symbol_name(self._var)}" if self._var is not None else ""
        function = f"a function of {self._signature()}" if self._symbols else "to be called without arrays"
        return f"SymbolicReduction({self._name} {of}{what}, {function})"


def _solved(tensor: Any, other: Any, var: Leaf | None, method: str, settings: dict[str, Any]) -> Any:
    """Check everything, and run."""
    tensor, settings = _with_ranges(tensor, settings, method)
    options = read_settings(settings, method)
    alpha, eps, atol, maxiter, preconditioner, x0, full_output = (
        options.pop(k) for k in ("alpha", "eps", "atol", "maxiter", "preconditioner", "x0", "full_output")
    )
    if not isinstance(full_output, bool):
        raise TypeError(f"{method}: full_output={show(full_output)}, expected True or False.")
    b, vector, batch, m = _right_hand_side(tensor, other, var, method)
    told, eps = eps is not None, EPS if eps is None else eps
    for name, value in (("eps", eps), ("atol", atol)):
        _check_number(value, name, method)
    if _known(eps) and _known(atol) and eps == 0 and atol == 0:
        raise ValueError(f"{method}: eps=0 and atol=0, expected one of them above 0: rounding errors never vanish.")
    _check_number(alpha, "alpha", method, batch)
    most = min(10 * m, MAXITER) if maxiter is None else static_int(maxiter, "maxiter", method)
    if maxiter is not None and most < 1:
        raise ValueError(f"{method}: maxiter={most}, expected at least 1.")
    if isinstance(preconditioner, str) and preconditioner == "jacobi":
        if var is not None:
            raise ValueError(
                f"{method}: preconditioner='jacobi' needs the diagonal of K, which a formula with var does not tell. "
                "Pass a function."
            )
    elif preconditioner is not None and not callable(preconditioner):
        raise TypeError(
            f"{method}: preconditioner is {show(preconditioner)}, expected None, 'jacobi', or a function of an array."
        )
    shape = (*batch, *b.shape[-1:]) if vector else (*batch, *b.shape[-2:])
    dtype = _dtype(tensor, b, var)
    if x0 is not None:
        x0 = checked_array(x0, f"{method}: x0")
        if not _broadcasts(x0.shape, shape):
            raise ValueError(f"{method}: x0 is {show(x0)}, expected an array that broadcasts to {shape}.")
    slack = 100.0 if not told and jnp.finfo(computed_in(dtype)).bits < 64 else 1.0
    plan = Plan(method, var, vector, batch, dtype, tuple(sorted(options.items())), slack, preconditioner, full_output)
    out: Solution = run(plan, tensor, b, alpha, eps, atol, max(most, 1), x0)
    if full_output:
        return out
    if not isinstance(out.converged, Tracer) and not bool(jnp.all(out.converged)):
        raise np.linalg.LinAlgError(_failure(out, method, eps * slack, atol))
    return out.value


def _right_hand_side(tensor: Any, other: Any, var: Leaf | None, method: str) -> tuple[Any, bool, Any, int]:
    """b, whether it is a vector, the batch dims, M."""
    from ._lazytensor import LazyTensor

    batch, m, n = tensor._sizes
    if isinstance(other, LazyTensor):
        own, rows = other._sizes[0], other._sizes[1]
        b = jnp.reshape(other._data[0], (*own, rows, other._data[0].shape[-1]))
    else:
        b = checked_array(other, f"{method}: b")
    if var is None:
        m, n = 1 if m is None else m, 1 if n is None else n
        if m != n:
            raise ValueError(
                f"{method}: K of shape {tensor.shape} has {m} rows and {n} columns, expected as many of each: a "
                "symmetric matrix."
            )
    elif n is not None and m is not None and m != n:
        raise ValueError(f"{method}: the formula has {m} rows and {n} columns, expected as many of each.")
    else:
        m = next((k for k in (m, n) if k is not None), b.shape[-1 if b.ndim == 1 else -2])
    vector = b.ndim == 1
    features = tensor._aval.shape or (1,)
    if len(features) != 1:
        raise ValueError(f"{method}: the formula has feature shape {features}, expected one feature axis.")
    width = 1 if vector else b.shape[-1]
    fits = features[0] in (1, width) if var is None else features[0] == var.symbol[1] == width  # type: ignore[index]
    if b.shape[-1 if vector else -2] != m or not fits:
        dim = "E" if features[0] == 1 and var is None else features[0]
        one = f"({m},) or " if dim in ("E", 1) else ""
        raise ValueError(
            f"{method}: b is {show(b)}, expected {one}(*B, {m}, {dim}) for a formula of shape {tensor._shape}"
            f"{'' if var is None else f' in {_formula.symbol_name(var)}'}."
        )
    try:
        batch = jnp.broadcast_shapes(batch, b.shape[:-2])
    except ValueError:
        raise ValueError(
            f"{method}: batch dims {batch} of K and {b.shape[:-2]} of b, {show(b)}, do not broadcast."
        ) from None
    return b, vector, tuple(batch), m


def _broadcasts(shape: Any, to: Any) -> bool:
    tail = to[len(to) - len(shape) :]
    return len(shape) <= len(to) and all(a in (1, b) for a, b in zip(shape, tail, strict=True))


def _known(x: Any) -> bool:
    return not isinstance(x, Tracer)


def _check_number(x: Any, name: str, method: str, batch: tuple[Any, ...] = ()) -> None:
    """A finite real number of at least 0; alpha also for each problem of a batch."""
    number = is_array(x) or (isinstance(x, int | float) and not isinstance(x, bool))
    expected = "a finite number of at least 0"
    if not number or not any(jnp.issubdtype(jnp.result_type(x), kind) for kind in (jnp.floating, jnp.integer)):
        raise TypeError(f"{method}: {name} is {show(x)}, expected {expected}.")
    shape = np.shape(x)
    if shape and not _broadcasts(shape, batch):
        also = f", or an array of the shape of the batch dims, {batch}" if batch else ""
        raise ValueError(f"{method}: {name} is {show(x)}, expected {expected}{also}.")
    if _known(x):
        value = np.asarray(x)
        if not np.all(np.isfinite(value)) or np.any(value < 0):
            raise ValueError(f"{method}: {name}={value if value.ndim else value[()]}, expected {expected}.")


def _dtype(tensor: Any, b: Any, var: Leaf | None) -> Any:
    """The dtype of the solution."""
    dtype = jnp.result_type(b)
    if not jnp.issubdtype(dtype, jnp.inexact):
        known = var is None and jnp.issubdtype(tensor.dtype, jnp.inexact)
        dtype = tensor.dtype if known else jnp.result_type(float)
    if var is None:
        return jnp.promote_types(dtype, tensor.dtype)
    bound = bind(tensor, {var.symbol[0]: np.zeros((1, var.symbol[1]), dtype)}, {})  # type: ignore[index]
    return jnp.promote_types(dtype, bound._aval.dtype)


def _failure(out: Solution, method: str, eps: Any, atol: Any) -> str:
    status, residual = np.ravel(out.status), np.ravel(out.residual)
    wrong = status != CONVERGED
    at = int(np.argmax(np.where(wrong, np.nan_to_num(residual, nan=np.inf), -1)))
    of = f"{wrong.sum()} of {len(status)} systems are not solved; the worst" if len(status) > 1 else "the system"
    absolute = f" and atol={float(atol):g}" if np.any(np.asarray(atol) > 0) else ""
    return (
        f"{method}: {of} ended after {np.ravel(out.iterations)[at]} iterations with a residual of {residual[at]:.2g} "
        f"times the right-hand side, asked for was eps={float(eps):g}{absolute}: {REASONS[int(status[at])]}. "
        "full_output=True returns the best found instead of raising this."
    )
