"""Functions of JAX arrays as contenders: compiled ahead, refused before they would exhaust memory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ..cases import Case, Data
from ..machine import memory_available
from .contract import Refused, Run


def x64(case: Case) -> contextlib.AbstractContextManager[Any]:
    """float64 only where a case is in float64: elsewhere it would widen indices."""
    return jax.enable_x64(case.dtype == "float64")


def jitted(fn: Callable[..., Any], case: Case, data: Data, options: dict[str, Any] | None = None) -> Run:
    with x64(case):
        arrays = [jnp.asarray(a) for a in data.values()]
    compiled: list[Any] = []

    def compile() -> dict[str, int]:
        with x64(case):
            compiled.append(jax.jit(fn).lower(*arrays).compile(options))
        sizes = compiled[0].memory_analysis()
        temporary = int(sizes.temp_size_in_bytes)
        if temporary > 0.7 * memory_available():
            raise Refused(f"would need {temporary / 2**30:.3g} GiB of memory")
        return {"temporary": temporary, "output": int(sizes.output_size_in_bytes)}

    def call() -> Any:
        try:
            return jax.block_until_ready(compiled[0](*arrays))
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" in str(error):
                raise Refused("needs more memory than there is") from error
            raise

    return Run(call, compile)


EAGER_INPUTS = 64


def eager(fn: Callable[..., Any], data: Data) -> Run:
    """`fn` called as it is, on other device arrays at each call."""
    inputs = [[jnp.asarray(a + 0.01 * k) for a in data.values()] for k in range(EAGER_INPUTS)]
    calls = iter(range(10**9))
    return Run(lambda: jax.block_until_ready(fn(*inputs[next(calls) % EAGER_INPUTS])))
