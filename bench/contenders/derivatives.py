"""Derivatives by JAX of a function of (x, y, b), the same for every contender that is written in JAX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

Sums = Callable[[Any, Any, Any], Any]


def gradient_x(sums: Sums) -> Callable[..., Any]:
    return lambda x, y, b, g: jax.vjp(lambda x: sums(x, y, b), x)[1](g)[0]


def gradients(sums: Sums) -> Callable[..., Any]:
    return lambda x, y, b, g: jax.vjp(sums, x, y, b)[1](g)


def value_and_gradient_x(sums: Sums) -> Callable[..., Any]:
    def both(x: Any, y: Any, b: Any, g: Any) -> Any:
        value, pull = jax.vjp(lambda x: sums(x, y, b), x)
        return value, *pull(g)

    return both


def hessian_vector_product(sums: Sums) -> Callable[..., Any]:
    """Of the sum of all sums, in x: forward over reverse."""

    def product(x: Any, y: Any, b: Any, t: Any) -> Any:
        return jax.jvp(jax.grad(lambda x: sums(x, y, b).sum()), (x,), (t,))[1]

    return product
