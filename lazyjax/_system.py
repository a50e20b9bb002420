"""A linear system of a kernel matrix as one differentiable function: conjugate gradients, and implicit derivatives."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ._cg import CONVERGED, Outcome, conjugate_gradient
from ._errors import show
from ._reductions import Sum
from ._symbolic_reduction import bind
from ._tape import Leaf
from ._variables import is_array


class Solution(NamedTuple):
    """What `solve(..., full_output=True)` returns.

    value: the solution, or the best found.
    iterations: of conjugate gradients, int32.
    residual: the norm of b - (K + alpha) value, computed at the end, divided by that of b.
    converged: whether the residual is as small as asked.
    status: why it ended: 0 converged, 1 maxiter was reached, 2 rounding errors allow no better, 3 the system or the
        preconditioner is not positive definite, 4 NaN or infinite values, 5 the formula is not linear in var.

    The last four are (*B,) for b (M,), and (*B, E) for b (M, E): every column is a system of its own. With `var`, and
    for KernelSolve, all columns are one system: (*B,).

    Example:
        >>> import jax.numpy as jnp
        >>> from lazyjax import Vi, Vj
        >>> x = jnp.arange(4.0)[:, None]
        >>> found = (-Vi(x).sqdist(Vj(x))).exp().solve(jnp.ones(4), alpha=0.1, full_output=True)
        >>> found.value.shape, bool(found.converged), int(found.status)
        ((4,), True, 0)
    """

    value: jax.Array
    iterations: jax.Array
    residual: jax.Array
    converged: jax.Array
    status: jax.Array


class Plan(NamedTuple):
    """Everything about a system that is static."""

    method: str
    var: Leaf | None  # the variable that is solved for; None for K times it
    vector: bool  # b is (M,)
    batch: tuple[Any, ...]
    dtype: Any  # of the solution
    options: tuple[tuple[str, Any], ...]  # of the sums
    slack: float  # see conjugate_gradient
    preconditioner: Any
    full_output: bool


# The precision that is asked for unless told, as in KeOps.
EPS = 1e-6


def computed_in(dtype: Any) -> Any:
    """The dtype of the iterations, at least float32, for a solution of some dtype."""
    return jnp.dtype(jnp.float32) if jnp.finfo(dtype).bits < 32 else dtype


@functools.partial(jax.jit, static_argnums=0, inline=True)
def run(plan: Plan, tensor: Any, b: Any, alpha: Any, eps: Any, atol: Any, maxiter: Any, x0: Any) -> Solution:
    """All of a solve in one jit, so that an eager call is one dispatch and is traced once."""
    dtype = computed_in(plan.dtype)
    real = jnp.finfo(dtype).dtype
    b = jnp.asarray(b, dtype)
    b = b[..., None] if plan.vector else b
    b = jnp.broadcast_to(b, (*plan.batch, *b.shape[-2:]))
    alpha = jnp.asarray(alpha, real)
    alpha = lax.expand_dims(alpha, (*range(b.ndim - 2 - alpha.ndim), b.ndim - 2, b.ndim - 1)) if alpha.ndim else alpha
    start = None if x0 is None else jnp.asarray(x0, dtype)
    start = start[..., None] if start is not None and plan.vector else start
    start = None if start is None else jnp.broadcast_to(start, b.shape)
    steering = {
        "eps": jnp.asarray(eps, real), "atol": jnp.asarray(atol, real), "maxiter": maxiter,
        "x0": start,
    }  # fmt: skip
    precondition = None
    if plan.preconditioner is not None:
        # What the function closes over becomes an argument, as custom_jvp wants it.
        precondition, steering["held"] = jax.closure_convert(_preconditioner(plan, tensor, alpha, b), b)
    x, outcome = _solution(plan, precondition, {"tensor": tensor, "alpha": alpha}, b, steering)
    x = x[..., 0] if plan.vector else x
    axes = (-2, -1) if plan.vector or plan.var is not None else (-2,)
    iterations, residual, status = (jnp.squeeze(v, axes) for v in outcome)
    return Solution(x.astype(plan.dtype), iterations, residual, status == CONVERGED, status)


def _iterate(
    plan: Plan, precondition: Any, steering: dict[str, Any], apply: Any, b: jax.Array, transposed: bool = False
) -> tuple[jax.Array, Outcome]:
    def applied(r: jax.Array) -> jax.Array:
        if transposed:  # the transpose of a Hermitian matrix is its conjugate
            return jnp.conj(precondition(jnp.conj(r), *steering["held"]))
        return precondition(r, *steering["held"])

    return conjugate_gradient(
        apply,
        b,
        steering["x0"],
        eps=steering["eps"],
        slack=plan.slack,
        atol=steering["atol"],
        maxiter=steering["maxiter"],
        precondition=None if precondition is None else applied,
        axes=(-2,) if plan.var is None else (-2, -1),
        affine=plan.var is not None,
    )


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _solution(
    plan: Plan, precondition: Any, system: dict[str, Any], b: jax.Array, steering: dict[str, Any]
) -> tuple[jax.Array, Outcome]:
    x, outcome = _iterate(plan, precondition, steering, functools.partial(_apply, plan, **system), b)
    return x if plan.full_output else jnp.where(outcome.status == CONVERGED, x, jnp.nan), outcome


@functools.partial(_solution.defjvp, symbolic_zeros=True)
def _solution_jvp(plan: Plan, precondition: Any, primals: Any, tangents: Any) -> Any:
    """(A + dA) (x + dx) = b + db, so A dx = db - dA x."""
    system, b, steering = primals
    x, outcome = _solution(plan, precondition, system, b, steering)
    flat, tree = jax.tree.flatten(system)
    dflat, db = jax.tree.leaves(tangents[0]), tangents[1]
    moved = [k for k, d in enumerate(dflat) if _moves(d)]

    def product(*leaves: Any) -> jax.Array:
        own = list(flat)
        for k, leaf in zip(moved, leaves, strict=True):
            own[k] = leaf
        return _apply(plan, v=x, **jax.tree.unflatten(tree, own))

    rhs = db if _moves(db) else jnp.zeros_like(b)
    if moved:
        rhs = rhs - jax.jvp(product, [flat[k] for k in moved], [dflat[k] for k in moved])[1]
    # A derivative starts at 0, and is as precise relative to its own right-hand side: it has other units than b.
    steering = {**steering, "x0": None, "atol": jnp.zeros_like(steering["atol"])}

    def solved(transposed: bool, operator: Any, rhs: jax.Array) -> jax.Array:
        dx, outcome = _iterate(plan, precondition, steering, operator, rhs, transposed)
        return jnp.where(outcome.status == CONVERGED, dx, jnp.nan)

    dx = lax.custom_linear_solve(
        functools.partial(_apply, plan, **system), rhs, solve=functools.partial(solved, False),
        transpose_solve=functools.partial(solved, True),
    )  # fmt: skip
    return (x, outcome), (dx, jax.tree.map(jax.custom_derivatives.zero_from_primal, outcome))


def _moves(tangent: Any) -> bool:
    """Whether a tangent is more than zero."""
    return not isinstance(tangent, jax.custom_derivatives.SymbolicZero) and tangent.dtype != jax.dtypes.float0


def _apply(plan: Plan, v: jax.Array, tensor: Any, alpha: jax.Array) -> jax.Array:
    """(K + alpha) v."""
    from ._lazytensor import LazyTensor

    if plan.var is None:
        product = tensor._record("multiply", LazyTensor._of_leaf(Leaf("j", 1, "rows"), v), shown=plan.method)
    else:
        product = bind(tensor, {plan.var.symbol[0]: v}, {})  # type: ignore[index]
    out = product._reduced(plan.method, Sum(), "j", None, dict(plan.options))
    return out.astype(v.dtype) + alpha.astype(v.dtype) * v


def _preconditioner(plan: Plan, tensor: Any, alpha: jax.Array, b: jax.Array) -> Callable[[jax.Array], jax.Array]:
    """The preconditioner on arrays (*B, M, E)."""
    if isinstance(plan.preconditioner, str):
        diagonal = jnp.real(tensor.diagonal())
        diagonal = diagonal[..., None] if math.prod(tensor._aval.shape) == 1 else diagonal
        diagonal = jnp.broadcast_to(diagonal, b.shape).astype(alpha.dtype) + alpha
        return lambda r: r / diagonal.astype(r.dtype)

    def precondition(r: jax.Array) -> jax.Array:
        r = r[..., 0] if plan.vector else r
        z = plan.preconditioner(r)
        if not is_array(z):
            raise TypeError(f"{plan.method}: preconditioner returned {show(z)}, expected an array {r.shape}.")
        if z.shape != r.shape or not jnp.can_cast(z.dtype, r.dtype, "same_kind"):
            raise ValueError(f"{plan.method}: preconditioner returned {show(z)} for {show(r)}, expected the like.")
        z = z.astype(r.dtype)
        return z[..., None] if plan.vector else z

    return precondition
