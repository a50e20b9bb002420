"""Options of the compiler for programs that are compiled to be looked at, or that stand in for another compiler's."""

# Less work for LLVM. XLA's own passes are the same, and with them the memory that a program takes.
UNOPTIMISED = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
