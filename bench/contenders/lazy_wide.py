"""lazyjax with vectors of 512 bits, which JAX does not use by itself: what is lost by its default of 256."""

from __future__ import annotations

from ..cases import Case, Data
from ..machine import cpu
from . import lazy
from .contract import Refused, Run
from .jitted import jitted

NAME = "lazyjax-512"


def missing() -> str | None:
    return None if "avx512f" in cpu().get("flags", []) else "the processor has no AVX-512"


def prepare(case: Case, data: Data) -> Run:
    if case.problem == "eager":
        raise Refused("an option of jax.jit, and this case has none")
    return jitted(lazy.function(case), case, data, {"xla_cpu_prefer_vector_width": 512})
