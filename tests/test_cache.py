"""Eager use: data of the same shapes never traces or compiles again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lazyjax
from lazyjax import LazyTensor, Pm, Vi, Vj

from .cases import CASES, SMOOTH, Case, arguments


@contextmanager
def traces() -> Iterator[list[str]]:
    """What JAX traces and compiles inside the block."""
    events: list[str] = []
    listening = True

    def listen(name: str, _: float, **kwargs: Any) -> None:
        if listening and name.startswith("/jax/core/compile/"):
            events.append(name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield events
    finally:
        listening = False


def _twice(run: Callable[[int], Any]) -> None:
    jax.clear_caches()
    with traces() as first:
        jax.block_until_ready(run(0))
    assert first  # the listener hears something
    with traces() as second:
        jax.block_until_ready(run(1))
    assert second == []


@pytest.mark.parametrize("case", CASES, ids=str)
def test_values(case: Case) -> None:
    _twice(lambda seed: case.ours(*arguments(11, 13, seed)))


def _fresh(case: Case) -> Callable[..., Any]:
    """The formula is written anew at each call, as a user's own function does."""
    return lambda *a: jnp.sum(case.ours(*a))


@pytest.mark.parametrize("case", [c for c in SMOOTH if c.name in ("K @ b", "min", "logsumexp")], ids=str)
def test_transformed(case: Case) -> None:
    """A gradient, a hessian and a vmap made anew, on new data, are found in the cache."""
    f = _fresh(case)
    _twice(lambda seed: jax.grad(f, (0, 1))(*arguments(11, 13, seed)))
    _twice(lambda seed: jax.hessian(f, 3)(*arguments(11, 13, seed)))
    _twice(lambda seed: jax.vmap(f, in_axes=(None, None, None, 0))(*arguments(11, 13, seed)[:3], jnp.arange(3.0)))


def test_numbers_do_not_recompile() -> None:
    x, y, b, _ = arguments(11, 13)
    _twice(lambda k: (-Vi(x).sqdist(Vj(y)) / (0.5 + k)).exp() @ b)


def test_the_same_formula_written_twice_is_one_program() -> None:
    x, y, b, s = arguments(11, 13)

    def first() -> Any:
        return (Pm(s) * Vi(x).sqdist(Vj(y))).exp() @ b

    def second() -> Any:
        d = Vi(x).sqdist(Vj(y))
        return (Pm(s) * d).exp() @ b

    first()
    with traces() as events:
        jax.block_until_ready(second())
    assert events == []


def test_a_lifted_function_is_traced_once() -> None:
    count = []

    @lazyjax.lift
    def kernel(x: Any, y: Any) -> Any:
        count.append(1)
        return jnp.exp(-jnp.sum((x - y) ** 2))

    x, y, *_ = arguments(11, 13)
    for k in range(3):
        kernel(Vi(x + k), Vj(y)).sum(axis=1)
    assert len(count) == 1


def test_shared_parts_stay_small() -> None:
    """A formula that doubles with every level has a tape of one instruction for each level."""
    t = LazyTensor(np.ones((4, 1, 1)))
    for _ in range(40):
        t = t + t
    assert len(t._tape.code) == 40
    assert t.sum(axis=0).shape == (1, 1)
    np.testing.assert_allclose(t.sum(axis=0), 4 * 2.0**40)
