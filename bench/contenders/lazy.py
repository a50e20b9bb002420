"""lazyjax: formulas on LazyTensors under jit, or called eagerly where a case asks for that."""

from __future__ import annotations

from typing import Any

import jax

from lazyjax import LazyTensor, Vi, Vj

from ..cases import Case, Data
from . import derivatives
from .contract import Run, problem
from .jitted import eager, jitted

NAME = "lazyjax"


def missing() -> str | None:
    return None


def _distance(x: Any, y: Any) -> LazyTensor:
    return Vi(x).sqdist(Vj(y))


def gaussian(x: Any, y: Any, b: Any) -> Any:
    return (-_distance(x, y)).exp() @ b


def matern(x: Any, y: Any, b: Any) -> Any:
    r = _distance(x, y).sqrt()
    return ((1 + r) * (-r).exp()) @ b


def attention(q: Any, k: Any, v: Any) -> Any:
    return ((Vi(q) | Vj(k)) * q.shape[-1] ** -0.5).sumsoftmaxweight(Vj(v), axis=1)


def function(case: Case) -> Any:
    """The problem as a function of arrays."""
    argkmin = lambda x, y: _distance(x, y).argKmin(case.k, axis=1)  # noqa: E731
    problems = {
        "gaussian": gaussian,
        "gradient_x": derivatives.gradient_x(gaussian),
        "gradients": derivatives.gradients(gaussian),
        "hvp": derivatives.hessian_vector_product(gaussian),
        "argmin": lambda x, y: _distance(x, y).argmin(axis=1),
        "argkmin": argkmin,
        "logsumexp": lambda x, y: (-_distance(x, y)).logsumexp(axis=1),
        "attention": attention,
        "batched": jax.vmap(gaussian),
        "batched_argkmin": jax.vmap(argkmin),
        "matern": derivatives.value_and_gradient_x(matern),
    }
    return problem(problems, case, NAME)


def prepare(case: Case, data: Data) -> Run:
    return eager(gaussian, data) if case.problem == "eager" else jitted(function(case), case, data)
