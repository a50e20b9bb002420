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
        """The real part, feature by feature, as `numpy.real`; a real LazyTensor is its own.

        Example:
            >>> from lazyjax import Vi
            >>> Vi([[1 + 2j, 3 - 1j]]).real.sum(axis=1).tolist()
            [[1.0, 3.0]]
        """
        return self._record("real") if jnp.issubdtype(self.dtype, jnp.complexfloating) else self

    @property
    def imag(self) -> Any:
        """The imaginary part, feature by feature, as `numpy.imag`; 0 of real features.

        Example:
            >>> from lazyjax import Vi
            >>> Vi([[1 + 2j, 3 - 1j]]).imag.sum(axis=1).tolist()
            [[2.0, -1.0]]
        """
        return self._record("imag")

    def real2complex(self) -> Any:
        """x + 0j, feature by feature, of real x.

        Returns:
            A LazyTensor of the shape of self: complex64, complex128 of float64.

        Raises:
            TypeError: for complex x.

        Example:
            >>> from lazyjax import Vi
            >>> Vi([[1.0, 2.0]]).real2complex().sum(axis=1).tolist()
            [[(1+0j), (2+0j)]]
        """
        return self._from_real("real2complex")

    def imag2complex(self) -> Any:
        """0 + x j, feature by feature, of real x.

        Returns:
            A LazyTensor of the shape of self: complex64, complex128 of float64.

        Raises:
            TypeError: for complex x.

        Example:
            >>> from lazyjax import Vi
            >>> Vi([[1.0, 2.0]]).imag2complex().sum(axis=1).tolist()
            [[1j, 2j]]
        """
        return self._from_real("imag2complex")

    def exp1j(self) -> Any:
        """exp(x j) = cos(x) + sin(x) j, feature by feature, of real x.

        Returns:
            A LazyTensor of the shape of self: complex64, complex128 of float64.

        Raises:
            TypeError: for complex x.

        Example:
            >>> from lazyjax import Vi
            >>> Vi([[0.0]]).exp1j().sum(axis=1).tolist()
            [[(1+0j)]]
        """
        return self._from_real("exp1j")

    def _from_real(self, name: str) -> Any:
        if jnp.issubdtype(self.dtype, jnp.complexfloating):
            instead = "(1j * z).exp()" if name == "exp1j" else "1j * z" if name == "imag2complex" else "z as it is"
            raise TypeError(f"{name}: the features are {self.dtype} already, expected real numbers. Use {instead}.")
        return self._record(name)
