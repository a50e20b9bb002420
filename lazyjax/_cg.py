"""Conjugate gradients for many symmetric positive definite systems at once, on plain arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

# Why a system was left, in the end.
CONVERGED, MAXITER, ROUNDING, INDEFINITE, NOT_FINITE, NOT_LINEAR = range(6)
# Before: it iterates; or it waits for a look at its true residual, and will be left for the reason that is added unless
# it is solved or may go on.
_LIVE, _WAITS = 100, 10

REASONS = {
    MAXITER: "maxiter was reached; allow more, take a larger alpha or eps, or give a preconditioner",
    ROUNDING: "rounding errors allow no better in this dtype; take a larger eps or alpha, or float64",
    INDEFINITE: "the system, or the preconditioner, is not positive definite; is K symmetric? Take a larger alpha",
    NOT_FINITE: "a value is NaN or infinite; look at the data of K, at alpha, at the right-hand side",
    NOT_LINEAR: "the formula is not linear in var: it is not 0 where var is 0",
}


class Outcome(NamedTuple):
    """What is known of every system: iterations, the norm of the true residual by that of b, why it was left."""

    iterations: jax.Array
    residual: jax.Array
    status: jax.Array


class _State(NamedTuple):
    """x, its residual r by recurrence, the direction p; `best`: the x whose r was smallest. Scalars are per system."""

    x: jax.Array
    r: jax.Array
    p: jax.Array
    rz: jax.Array  # 0 where there is no direction yet: the next one is steepest descent
    best: jax.Array
    best_norm: jax.Array
    true_norm: jax.Array  # of the residual, at the last look
    status: jax.Array
    iterations: jax.Array
    count: jax.Array  # of the iterations of all systems


def conjugate_gradient(
    apply: Callable[[jax.Array], jax.Array],
    b: jax.Array,
    x0: jax.Array | None,
    *,
    eps: Any,
    slack: float,
    atol: Any,
    maxiter: Any,
    precondition: Callable[[jax.Array], jax.Array] | None,
    axes: tuple[int, ...],
    affine: bool = False,
) -> tuple[jax.Array, Outcome]:
    """Solve apply(x) = b: the method of Hestenes and Stiefel (1952), preconditioned as in Golub and Van Loan, Matrix
    Computations, algorithm 11.5.1.

    The unknowns of one system lie along `axes` of b; every other axis counts independent systems, which share the
    products and nothing else. A system is solved when |b - apply(x)| <= slack max(eps |b|, atol sqrt(its unknowns)).

    The residual of the recurrence drifts away from the true one (Greenbaum, SIAM J. Matrix Anal. Appl. 18, 1997), so it
    only says when to look: when every system claims to be solved, with slack 1, or cannot go on, one product gives the
    true residuals. Systems whose claim was wrong start again from them; one that has not halved its true residual since
    the last look has reached what rounding allows.

    apply stands once in the loop, so that it is compiled once.

    affine: apply may have a constant term; then there is no solution of a linear system, and the status says so.

    Returns:
        x, the best found where a system is not solved, and an Outcome with sizes 1 along `axes`.
    """

    def dot(u: jax.Array, v: jax.Array) -> jax.Array:
        return jnp.real(jnp.conj(u) * v).sum(axes, keepdims=True)

    # In units of b, so that no square overflows, and none of a small b vanishes.
    unit = jnp.abs(b).max(axes, keepdims=True, initial=0)
    unit = jnp.where((unit > 0) & jnp.isfinite(unit), unit, 1)
    b = b / unit.astype(b.dtype)
    size = jnp.sqrt(dot(b, b))
    unknowns = jnp.ones_like(b, unit.dtype).sum(axes, keepdims=True)
    limit = jnp.maximum(eps * size, atol * jnp.sqrt(unknowns) / unit)

    def step(s: _State, p: jax.Array, rz: jax.Array, product: jax.Array) -> _State:
        curvature = dot(p, product)
        goes = (curvature > 0) & (rz > 0) & (curvature < jnp.inf) & (rz < jnp.inf)
        live = s.status == _LIVE
        on = live & goes
        length = (rz / jnp.where(goes, curvature, 1)).astype(p.dtype)
        x = jnp.where(on, s.x + length * p, s.x)
        r = jnp.where(on, s.r - length * product, s.r)
        norm = jnp.sqrt(dot(r, r))
        better = on & (norm < s.best_norm)
        count = s.count + 1
        stopped = jnp.where(jnp.isfinite(curvature) & jnp.isfinite(rz), _WAITS + INDEFINITE, _WAITS + NOT_FINITE)
        paused = jnp.where((norm <= limit) | (count >= maxiter), _WAITS + MAXITER, _LIVE)
        status = jnp.where(live, jnp.where(goes, paused, stopped), s.status)
        return s._replace(
            x=x, r=r, p=p, rz=jnp.where(on, rz, s.rz), best=jnp.where(better, x, s.best),
            best_norm=jnp.where(better, norm, s.best_norm), status=status,
            iterations=s.iterations + on.astype(jnp.int32), count=count,
        )  # fmt: skip

    def look(s: _State, product: jax.Array) -> _State:
        r = b - product
        norm = jnp.sqrt(dot(r, r))
        status = s.status - _WAITS
        again = (status == MAXITER) & (s.count < maxiter)
        status = jnp.where(again, jnp.where(norm > s.true_norm / 2, ROUNDING, _LIVE), status)
        status = jnp.where(norm <= slack * limit, CONVERGED, jnp.where(jnp.isfinite(norm), status, NOT_FINITE))
        if affine:
            constant = jnp.any((s.best == 0).all(axes, keepdims=True) & (product != 0), axes, keepdims=True)
            status = jnp.where(constant & (s.count == 0), NOT_LINEAR, status)
        status = jnp.where(s.status >= _WAITS, status, s.status)
        live = status == _LIVE
        return s._replace(
            x=jnp.where(live, s.best, s.x), r=jnp.where(live, r, s.r), rz=jnp.where(live, 0, s.rz),
            best_norm=jnp.where(live, norm, s.best_norm), true_norm=norm, status=status,
        )  # fmt: skip

    def body(s: _State) -> _State:
        looks = ~jnp.any(s.status == _LIVE)
        z = s.r if precondition is None else precondition(s.r)
        rz = dot(s.r, z)
        first = s.rz == 0
        turn = jnp.where(first, 0, rz / jnp.where(first, 1, s.rz)).astype(s.p.dtype)
        p = jnp.where(s.status == _LIVE, z + turn * s.p, s.p)
        product = apply(jnp.where(looks, s.best, p))
        return jax.tree.map(lambda a, b: jnp.where(looks, a, b), look(s, product), step(s, p, rz, product))

    x = jnp.zeros_like(b) if x0 is None else x0 / unit.astype(b.dtype)
    waits = jnp.ones_like(size, bool) if x0 is not None or affine else size <= limit  # b is 0: so is x
    zero = jnp.zeros_like(size)
    start = _State(
        x=x, r=b, p=jnp.zeros_like(b), rz=zero, best=x, best_norm=size, true_norm=jnp.full_like(zero, jnp.inf),
        status=jnp.where(waits, _WAITS + MAXITER, _LIVE).astype(jnp.int32),
        iterations=jnp.zeros_like(zero, jnp.int32), count=jnp.asarray(0, jnp.int32),
    )  # fmt: skip
    end = lax.while_loop(lambda s: jnp.any(s.status >= _WAITS), body, start)
    return end.best * unit.astype(b.dtype), Outcome(
        end.iterations, end.true_norm / jnp.where(size > 0, size, 1), end.status
    )
