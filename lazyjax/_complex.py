"""Methods of a LazyTensor for complex numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax.numpy as jnp


class Complex:
    """Complex features: parts, and the ways from real to complex. All other operations take complex numbers too.

    Derivatives are those of JAX: the gradient of a real function of z = x + y j is dx - dy j.
    """

    __slots__ = ()

    if TYPE_CHECKING:  # what LazyTensor has
        _record: Any
        dtype: Any

    @property
    def real(self) -> Any:
        """The real part, feature by feature; a real LazyTensor is its own."""
        return self._record("real") if jnp.issubdtype(self.dtype, jnp.complexfloating) else self

    @property
    def imag(self) -> Any:
        """The imaginary part, feature by feature; 0 of real features."""
        return self._record("imag")

    def real2complex(self) -> Any:
        """x + 0j, feature by feature, of real x.

        Example:
            >>> import jax.numpy as jnp
            >>> from lazyjax import Vi
            >>> Vi(jnp.ones((4, 3), "float32")).real2complex().dtype
            dtype('complex64')
        """
        return self._from_real("real2complex")

    def imag2complex(self) -> Any:
        """0 + x j, feature by feature, of real x."""
        return self._from_real("imag2complex")

    def exp1j(self) -> Any:
        """exp(x j) = cos(x) + sin(x) j, feature by feature, of real x."""
        return self._from_real("exp1j")

    def _from_real(self, name: str) -> Any:
        if jnp.issubdtype(self.dtype, jnp.complexfloating):
            instead = "(1j * z).exp()" if name == "exp1j" else "1j * z" if name == "imag2complex" else "z as it is"
            raise TypeError(f"{name}: the features are {self.dtype} already, expected real numbers. Use {instead}.")
        return self._record(name)
