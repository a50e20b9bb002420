"""What jax.export needs to know of the GPU kernels."""

from jax.export import DisabledSafetyCheck

# `jax.export.export(..., platforms=("cpu", "cuda"), disabled_checks=GPU_EXPORT_CHECKS)`: JAX gives no guarantee that
# the call of a Triton kernel keeps its meaning between versions, and exports one only when told that it is meant.
GPU_EXPORT_CHECKS = (DisabledSafetyCheck.custom_call("__gpu$xla.gpu.triton"),)
