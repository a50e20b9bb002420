"""`jax.lax.map` over rows in batches: what JAX offers for linear memory. Rows are checkpointed, so that gradients stay
linear too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ..cases import Case, Data
from . import derivatives
from .contract import Refused, Run, problem
from .jitted import jitted

NAME = "lax.map"
ROWS = 128  # at once
PROBLEMS = 16


def missing() -> str | None:
    return None


def _rows(one: Callable[[Any], Any], x: Any) -> Any:
    return jax.lax.map(jax.checkpoint(one), x, batch_size=min(ROWS, x.shape[0]))


def _distance(x: Any, y: Any) -> Any:
    return ((x - y) ** 2).sum(-1)


def gaussian(x: Any, y: Any, b: Any) -> Any:
    return _rows(lambda x: jnp.exp(-_distance(x, y)) @ b, x)


def matern(x: Any, y: Any, b: Any) -> Any:
    def one(x: Any) -> Any:
        r = jnp.sqrt(_distance(x, y))
        return ((1 + r) * jnp.exp(-r)) @ b

    return _rows(one, x)


def attention(q: Any, k: Any, v: Any) -> Any:
    return _rows(lambda q: jax.nn.softmax(k @ q * q.shape[-1] ** -0.5) @ v, q)


def prepare(case: Case, data: Data) -> Run:
    if case.problem == "hvp":
        raise Refused("its program ends the process: a segmentation fault in XLA, seen with jaxlib 0.10.2")
    problems = {
        "gaussian": gaussian,
        "gradient_x": derivatives.gradient_x(gaussian),
        "gradients": derivatives.gradients(gaussian),
        "argmin": lambda x, y: _rows(lambda x: _distance(x, y).argmin(keepdims=True), x),
        "argkmin": lambda x, y: _rows(lambda x: jax.lax.top_k(-_distance(x, y), case.k)[1], x),
        "logsumexp": lambda x, y: _rows(lambda x: jax.nn.logsumexp(-_distance(x, y), keepdims=True), x),
        "attention": attention,
        "batched": lambda *args: jax.lax.map(
            lambda a: jnp.exp(-((a[0][:, None] - a[1][None]) ** 2).sum(-1)) @ a[2], args, batch_size=PROBLEMS
        ),
        "matern": derivatives.value_and_gradient_x(matern),
    }
    return jitted(problem(problems, case, NAME), case, data)
