"""What `jax.export` needs to know of the GPU kernels: `GPU_EXPORT_CHECKS`.

JAX gives no guarantee that the call of a Triton kernel keeps its meaning between its versions, and exports one only
when told that this is meant, by `disabled_checks`:

    >>> import jax, jax.numpy as jnp
    >>> from lazyjax import GPU_EXPORT_CHECKS, Vi, Vj
    >>> f = jax.jit(lambda x: Vi(x).sqdist(Vj(x)).sum(axis=1))
    >>> x = jax.ShapeDtypeStruct((4, 3), jnp.float32)
    >>> exported = jax.export.export(f, platforms=["cpu"], disabled_checks=GPU_EXPORT_CHECKS)(x)
    >>> exported.out_avals[0].shape
    (4, 1)

With platforms=["cpu", "cuda"] the same program holds both kernels; an export for the CPU alone needs no disabled
check.
"""

from jax.export import DisabledSafetyCheck

GPU_EXPORT_CHECKS = (DisabledSafetyCheck.custom_call("__gpu$xla.gpu.triton"),)
"""For `disabled_checks` of `jax.export.export`, a tuple: allows the calls of Triton kernels."""
