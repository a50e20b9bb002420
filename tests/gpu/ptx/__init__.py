"""PTX, the assembly language of NVIDIA's GPUs, run in NumPy.

It is strict where hardware is not: unknown instructions and modifiers, accesses out of bounds, races, divergent warp
instructions, values that nobody wrote are errors.  Source: NVIDIA, Parallel Thread Execution ISA, version 8.8.
"""

from .machine import Machine, run
from .memory import MemoryFault, RaceError
from .parser import PtxError, parse
from .warp import DivergenceError

__all__ = ["DivergenceError", "Machine", "MemoryFault", "PtxError", "RaceError", "parse", "run"]
