"""The transformations that every case goes through, each a function of (f, arguments) that returns arrays.

Adding a transformation is adding one function; it is applied to ours and to dense JAX, and the results must agree.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Fn = Callable[..., jax.Array]
Args = tuple[jax.Array, ...]
ALL = (0, 1, 2, 3)


def _loss(f: Fn) -> Fn:
    """A scalar that depends on every result, non-linearly."""
    return lambda *a: jnp.sum(jnp.sin(f(*a)))


def _like(args: Args, seed: int) -> Args:
    """Directions."""
    r = np.random.default_rng(seed)
    return tuple(jnp.asarray(r.normal(size=a.shape)) for a in args)


def _stacked(args: Args, size: int) -> Args:
    """A leading batch axis of different problems."""
    return tuple(jnp.stack([a * (1 + 0.1 * k) for k in range(size)]) for a in args)


# Values.


def value(f: Fn, args: Args) -> Any:
    return f(*args)


def vmap_each(f: Fn, args: Args) -> Any:
    outs = []
    for k in ALL:
        batch = [*args]
        batch[k] = _stacked(args, 3)[k]
        outs.append(jax.vmap(f, in_axes=tuple(0 if j == k else None for j in ALL))(*batch))
    return outs


def vmap_all(f: Fn, args: Args) -> Any:
    return jax.vmap(f)(*_stacked(args, 3))


def vmap_axes(f: Fn, args: Args) -> Any:
    """in_axes and out_axes anywhere."""
    x, y, b, s = _stacked(args, 3)
    moved = (jnp.moveaxis(x, 0, 1), jnp.moveaxis(y, 0, 2), b, s)
    return jax.vmap(f, in_axes=(1, 2, 0, 0), out_axes=-1)(*moved)


def vmap_of_vmap(f: Fn, args: Args) -> Any:
    x, y, b, s = args
    xs, ys = _stacked(args, 2)[0], _stacked(args, 3)[1]
    inner = jax.vmap(f, in_axes=(None, 0, None, None))
    return jax.vmap(inner, in_axes=(0, None, None, None))(xs, ys, b, s), jax.vmap(
        jax.vmap(f, in_axes=(0, None, None, 0)), in_axes=(0, 0, None, None)
    )(_stacked((xs,), 2)[0], ys[:2], b, jnp.stack([s, 2 * s]))


def scan(f: Fn, args: Args) -> Any:
    x, y, b, s = args

    def step(carry: Any, k: Any) -> Any:
        out = f(x, y, b, s * carry)
        return carry + 0.1 * k, out

    return jax.lax.scan(step, jnp.asarray(1.0), jnp.arange(3.0))


def cond(f: Fn, args: Args) -> Any:
    return [jax.lax.cond(p, lambda a: f(*a), lambda a: f(*a) + 1, args) for p in (args[3] > 0, args[3] < 0)]


def eval_shape(f: Fn, args: Args) -> Any:
    out = jax.eval_shape(f, *args)
    return jnp.zeros(out.shape, out.dtype)


VALUES = [value, vmap_each, vmap_all, vmap_axes, vmap_of_vmap, scan, cond, eval_shape]


# First derivatives.


def grad(f: Fn, args: Args) -> Any:
    return jax.grad(_loss(f), ALL)(*args)


def value_and_grad(f: Fn, args: Args) -> Any:
    return jax.value_and_grad(_loss(f), (0, 2))(*args)


def jvp(f: Fn, args: Args) -> Any:
    return jax.jvp(f, args, _like(args, 1))


def jvp_of_one(f: Fn, args: Args) -> Any:
    return [jax.jvp(lambda a, k=k: f(*args[:k], a, *args[k + 1 :]), (args[k],), (_like(args, 1)[k],)) for k in ALL]


def vjp(f: Fn, args: Args) -> Any:
    out, back = jax.vjp(f, *args)
    return out, back(jnp.cos(jnp.arange(out.size, dtype=out.dtype)).reshape(out.shape))


def linearize(f: Fn, args: Args) -> Any:
    out, push = jax.linearize(f, *args)
    return out, push(*_like(args, 2)), push(*_like(args, 3))


def linear_transpose(f: Fn, args: Args) -> Any:
    """Of the linearised function, which is linear in every argument."""
    out, push = jax.linearize(f, *args)
    return jax.linear_transpose(push, *args)(jnp.ones_like(out))


def jacobians(f: Fn, args: Args) -> Any:
    return jax.jacfwd(f, (0, 3))(*args), jax.jacrev(f, (1, 2))(*args)


def vmap_of_grad(f: Fn, args: Args) -> Any:
    return jax.vmap(jax.grad(_loss(f), ALL), in_axes=(0, None, 0, None))(
        _stacked(args, 2)[0], args[1], _stacked(args, 2)[2], args[3]
    )


def grad_of_vmap(f: Fn, args: Args) -> Any:
    batched = jax.vmap(f, in_axes=(0, None, None, None))
    return jax.grad(_loss(batched), ALL)(_stacked(args, 2)[0], *args[1:])


def grad_of_checkpoint(f: Fn, args: Args) -> Any:
    return jax.grad(_loss(jax.checkpoint(f)), (0, 1))(*args)


def grad_of_scan(f: Fn, args: Args) -> Any:
    x, y, b, s = args

    def total(x: Any, s: Any) -> Any:
        step = lambda c, k: (c + jnp.sum(f(x * c, y, b, s)) * 0.01, None)  # noqa: E731
        return jax.lax.scan(step, jnp.asarray(1.0), None, length=2)[0]

    return jax.grad(total, (0, 1))(x, s)


FIRST = [grad, value_and_grad, jvp, jvp_of_one, vjp, linearize, linear_transpose, jacobians, vmap_of_grad, grad_of_vmap,
         grad_of_checkpoint, grad_of_scan]  # fmt: skip


# Second and third derivatives.


def hessian(f: Fn, args: Args) -> Any:
    return jax.hessian(_loss(f), (0, 3))(*args)


def second_orders(f: Fn, args: Args) -> Any:
    loss = lambda y, b: _loss(f)(args[0], y, b, args[3])  # noqa: E731
    forward = jax.jacfwd(jax.jacfwd(loss, 1), 0)
    reverse = jax.jacrev(jax.jacrev(loss, 0), 1)
    mixed = jax.jacrev(jax.jacfwd(loss, 0), 0)
    return [g(args[1], args[2]) for g in (forward, reverse, mixed)]


def hessian_vector(f: Fn, args: Args) -> Any:
    directions = _like(args, 4)
    forward_over_reverse = jax.jvp(jax.grad(_loss(f), ALL), args, directions)[1]
    inner = lambda *a: sum(jnp.vdot(g, d) for g, d in zip(jax.grad(_loss(f), ALL)(*a), directions, strict=True))  # noqa: E731
    return forward_over_reverse, jax.grad(inner, ALL)(*args)


def third_order(f: Fn, args: Args) -> Any:
    x, y, b, s = args
    along = lambda t, u: _loss(f)(x + t * _like(args, 5)[0], y + u * _like(args, 6)[1], b, s + t * u)  # noqa: E731
    third = jax.grad(jax.grad(jax.grad(along, 0), 1), 0)
    forward = jax.jacfwd(jax.jacfwd(jax.jacfwd(along, 0), 0), 1)
    mixed = jax.grad(lambda x: jnp.sum(jax.hessian(_loss(f), 3)(x, y, b, s)))(x)
    zero = jnp.zeros(())
    return third(zero, zero), forward(zero, zero), mixed


HIGHER = [hessian, second_orders, hessian_vector, third_order]
