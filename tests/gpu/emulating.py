"""Run a function as it would run on a GPU: its reductions on the planned kernel, compiled for a chip, emulated; or on
the GPU that is there (see `hardware`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from lazyjax.kernels import Description, plan
from lazyjax.kernels.triton.pallas import quiet

from ..kernels_of import run_on
from .chips import Chip
from .compiling import Kernel, Program, compile_for, lower_for
from .hardware import HARDWARE
from .lowering import TritonCall, kernel_calls, triton_calls
from .ptx import run

LAUNCHING = ("pallas_call", "ffi_call")  # primitives that are one kernel


@dataclasses.dataclass(frozen=True)
class Launch:
    """One kernel with the arrays that it was given and what it wrote."""

    call: TritonCall
    program: Program
    kernel: Kernel
    inputs: list[np.ndarray[Any, Any]]
    outputs: list[np.ndarray[Any, Any]]


_programs: dict[Any, Program] = {}


def compiled_equation(chip: Chip, equation: Any) -> tuple[TritonCall, Program]:
    """The kernel that an equation is, compiled once for each text of its IR."""
    params = equation.primitive.get_bind_params(equation.params)
    shapes = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in equation.invars]
    with quiet():
        lowered = lower_for(chip, lambda *a: equation.primitive.bind(*a, **params), *shapes)
        (call,) = triton_calls(lowered)
        key = (chip, call, str([v.aval for v in (*equation.invars, *equation.outvars)]))
        if key not in _programs:
            _programs[key] = compile_for(chip, lowered)
    return call, _programs[key]


def emulate(
    chip: Chip, f: Callable[..., Any], *args: Any, error: float = 0.0, backend: str | None = None
) -> tuple[Any, list[Launch]]:
    """f(*args), and the launches it took; `error`: of approximate instructions, in their bounds.

    On a GPU no launch is seen, and instructions err as they do.
    """
    if HARDWARE:
        return _on_gpu(f, args, backend), []
    launches: list[Launch] = []

    def on_chip(desc: Description, arrays: Sequence[jax.Array]) -> Sequence[jax.Array]:
        chosen = desc.replace(backend=backend or desc.backend)
        return launch_all(chip, plan(chosen, "cuda").lower(chosen), arrays, launches, error)

    return run_on(f, on_chip, *args), launches


def _on_gpu(f: Callable[..., Any], args: Sequence[Any], backend: str | None) -> Any:
    """f(*args) on the first GPU; reductions that name no backend go the way of every call."""

    def on_backend(desc: Description, arrays: Sequence[jax.Array]) -> Sequence[jax.Array]:
        chosen = desc.replace(backend=backend)
        return plan(chosen, "cuda").lower(chosen)(*arrays)

    gpu, cpu = (jax.devices(platform)[0] for platform in ("gpu", "cpu"))
    program = f if backend is None else lambda *a: run_on(f, on_backend, *a)
    with jax.default_device(gpu), quiet():
        arrays = jax.device_put(args, gpu)
        lowered = jax.jit(program).lower(*arrays)
        assert kernel_calls(lowered.as_text()) > 0  # or XLA's own code would be what is compared
        return jax.device_put(lowered.compile()(*arrays), cpu)


def launch_all(
    chip: Chip, f: Callable[..., Any], args: Sequence[Any], launches: list[Launch], error: float
) -> list[Any]:
    """f(*args) with its kernels emulated, and the rest run on the CPU."""
    closed = jax.make_jaxpr(f)(*args)
    return _evaluate(closed.jaxpr, closed.consts, args, lambda e, v: _launch(chip, e, v, launches, error))


def _evaluate(jaxpr: Any, consts: Sequence[Any], args: Sequence[Any], launch: Callable[..., Any]) -> list[Any]:
    env = dict(zip(jaxpr.constvars, consts, strict=True)) | dict(zip(jaxpr.invars, args, strict=True))
    read = lambda v: jnp.asarray(v.val, v.aval.dtype) if isinstance(v, Literal) else env[v]  # noqa: E731
    for equation in jaxpr.eqns:
        values = [read(v) for v in equation.invars]
        inner = equation.params.get("jaxpr")
        if equation.primitive.name in LAUNCHING:
            out = launch(equation, values)
        elif equation.primitive.name in ("jit", "pjit") and any(_launches(inner)):
            out = _evaluate(inner.jaxpr, inner.consts, values, launch)
        else:
            out = equation.primitive.bind(*values, **equation.primitive.get_bind_params(equation.params))
        env.update(zip(equation.outvars, out if equation.primitive.multiple_results else [out], strict=True))
    return [read(v) for v in jaxpr.outvars]


def _launches(closed: Any) -> Iterator[Any]:
    for equation in closed.jaxpr.eqns:
        if equation.primitive.name in LAUNCHING:
            yield equation
        elif hasattr(inner := equation.params.get("jaxpr"), "jaxpr"):
            yield from _launches(inner)


def _launch(chip: Chip, equation: Any, values: Sequence[Any], launches: list[Launch], error: float) -> list[Any]:
    call, program = compiled_equation(chip, equation)
    (kernel,) = program.kernels
    inputs = [np.asarray(v) for v in values]
    outputs = [np.empty(v.aval.shape, v.aval.dtype) for v in equation.outvars]
    written = run(kernel.ptx, kernel.grid, inputs, outputs, kernel.name, kernel.shared, error)
    launches.append(Launch(call, program, kernel, inputs, written))
    return [jnp.asarray(w) for w in written]
