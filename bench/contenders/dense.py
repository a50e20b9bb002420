"""Dense JAX: the array of all pairs, in the same direct form as lazyjax' formulas."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ..cases import Case, Data
from . import derivatives
from .contract import Run, problem
from .jitted import eager, jitted

NAME = "dense"


def missing() -> str | None:
    return None


def _distance(x: Any, y: Any) -> Any:
    return ((x[:, None] - y[None]) ** 2).sum(-1)


def gaussian(x: Any, y: Any, b: Any) -> Any:
    return jnp.exp(-_distance(x, y)) @ b


def matern(x: Any, y: Any, b: Any) -> Any:
    r = jnp.sqrt(_distance(x, y))
    return ((1 + r) * jnp.exp(-r)) @ b


def attention(q: Any, k: Any, v: Any) -> Any:
    return jax.nn.softmax(q @ k.T * q.shape[-1] ** -0.5, axis=1) @ v


def prepare(case: Case, data: Data) -> Run:
    if case.problem == "eager":
        return eager(jax.jit(gaussian), data)
    argkmin = lambda x, y: jax.lax.top_k(-_distance(x, y), case.k)[1]  # noqa: E731
    problems = {
        "gaussian": gaussian,
        "gradient_x": derivatives.gradient_x(gaussian),
        "gradients": derivatives.gradients(gaussian),
        "hvp": derivatives.hessian_vector_product(gaussian),
        "argmin": lambda x, y: _distance(x, y).argmin(1)[:, None],
        "argkmin": argkmin,
        "logsumexp": lambda x, y: jax.nn.logsumexp(-_distance(x, y), axis=1, keepdims=True),
        "attention": attention,
        "batched": jax.vmap(gaussian),
        "batched_argkmin": jax.vmap(argkmin),
        "matern": derivatives.value_and_gradient_x(matern),
    }
    return jitted(problem(problems, case, NAME), case, data)
