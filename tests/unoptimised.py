"""Options of the compiler for programs that are compiled to be looked at, or whose machine code is not what is tested:
dense references, what stands in for another compiler's program, rules of differentiation and batching."""

from collections.abc import Callable
from typing import Any

import jax

# Less work for LLVM. XLA's own passes are the same, and with them the memory that a program takes.
UNOPTIMISED = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def _known(option: str) -> bool:
    try:
        jax.jit(lambda: 0).lower().compile({option: False})
    except jax.errors.JaxRuntimeError:
        return False
    return True


# Where XLA for the CPU still has its first emitter, that takes a third of the time. It fuses slightly otherwise.
_EMITTER = "xla_cpu_use_fusion_emitters"
_FASTEST = UNOPTIMISED | ({_EMITTER: False} if _known(_EMITTER) else {})


def unoptimised(f: Callable[..., Any]) -> Callable[..., Any]:
    """`jax.jit` of f, compiled in the least time. Not to be called from within another transformation."""
    return jax.jit(f, compiler_options=_FASTEST)
