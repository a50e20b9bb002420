"""Matrix products: a scalar formula K as a kernel matrix (M, N)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp

from ._errors import show
from ._ranges import checked_form, exchanged
from ._reductions import Sum
from ._request import first
from ._symbolic_reduction import unbound
from ._tape import Leaf
from ._variables import checked_array, is_array


class Products:
    """`K @ b`, `b @ K`, and the same as methods with options."""

    __slots__ = ()

    if TYPE_CHECKING:
        _record: Any
        _reduced: Any
        _sizes: Any
        _aval: Any
        T: Any

    def __matmul__(self, b: Any) -> Any:
        """K @ b, the sum over j of K_ij b_j, for a scalar formula K.

        Args:
            b: an array (N,), or (*B, N, E) whose batch dims broadcast against those of K.

        Returns:
            An array (*B, M), or (*B, M, E), in the dtype that K and b promote to.

        Raises:
            ValueError: where K has several features, or the sizes do not fit. TypeError: where b is a LazyTensor.

        Example:
            >>> from lazyjax import Vi, Vj
            >>> K = Vi([[1.0], [2.0]]) * Vj([[1.0], [10.0], [100.0]])
            >>> (K @ [1.0, 0.0, 1.0]).tolist(), (K @ [[1.0], [0.0], [1.0]]).tolist()
            ([101.0, 202.0], [[101.0], [202.0]])
        """
        return self._product(b, "K @ b", {})

    def __rmatmul__(self, b: Any) -> Any:
        """b @ K, the sum over i of b_i K_ij, for a scalar formula K.

        Args:
            b: an array (M,), or (*B, E, M).

        Returns:
            An array (*B, N), or (*B, E, N), in the dtype that K and b promote to.

        Raises:
            ValueError: where K has several features, or the sizes do not fit.

        Example:
            >>> import jax.numpy as jnp
            >>> from lazyjax import Vi, Vj
            >>> K = Vi([[1.0], [2.0]]) * Vj([[1.0], [10.0], [100.0]])
            >>> (jnp.asarray([1.0, 1.0]) @ K).tolist()
            [3.0, 30.0, 300.0]
        """
        b = checked_array(b, "b @ K")
        if b.ndim >= 2:
            return self.T._product(jnp.swapaxes(b, -1, -2), "b @ K", {}, _transposed)
        return self.T._product(b, "b @ K", {})

    def matvec(self, b: Any, **options: Any) -> Any:
        """K @ b, with options: the sum over j of K_ij b_j, for a scalar formula K.

        Args:
            b: an array (N,), or (*B, N, E) whose batch dims broadcast against those of K (KeOps flattens a batch).
            **options: as in `sum`.

        Returns:
            An array (*B, M), or (*B, M, E), in the dtype that K and b promote to.

        Raises:
            ValueError: where K has several features, or the sizes do not fit. TypeError: where b is a LazyTensor, and
                for unknown options.

        Example:
            >>> from lazyjax import Vi, Vj
            >>> K = Vi([[1.0], [2.0]]) * Vj([[1.0], [10.0], [100.0]])
            >>> K.matvec([1.0, 0.0, 1.0], sum_scheme="kahan_scheme").tolist()
            [101.0, 202.0]
        """
        return self._product(b, "matvec", options)

    def rmatvec(self, b: Any, **options: Any) -> Any:
        """K.T @ b, with options: the sum over i of K_ij b_i, for a scalar formula K.

        Args:
            b: an array (M,), or (*B, M, E).
            **options: as in `sum`.

        Returns:
            An array (*B, N), or (*B, N, E), in the dtype that K and b promote to. K is not conjugated.

        Raises:
            ValueError, TypeError: as `matvec`.

        Example:
            >>> from lazyjax import Vi, Vj
            >>> K = Vi([[1.0], [2.0]]) * Vj([[1.0], [10.0], [100.0]])
            >>> K.rmatvec([1.0, 1.0]).tolist()
            [3.0, 30.0, 300.0]
        """
        if options.get("ranges") is not None:
            options["ranges"] = exchanged(checked_form(options["ranges"], "rmatvec"))
        return self.T._product(b, "rmatvec", options)

    def _product(self, b: Any, name: str, options: dict[str, Any], pick: Any = first) -> Any:
        from ._lazytensor import LazyTensor

        if isinstance(b, LazyTensor) or not (is_array(b) or isinstance(b, list | tuple)):
            raise TypeError(
                f"{name}: b is {show(b) if not isinstance(b, LazyTensor) else 'a LazyTensor'}, expected an array "
                "(N,) or (*B, N, E). For a sum against a formula write (K * f).sum(axis=1)."
            )
        batch, m, n = self._sizes
        features = math.prod(self._aval.shape)
        if features != 1:
            raise ValueError(
                f"{name}: K has {features} features, expected a scalar formula: (M, N) with one feature. "
                "Sum the features first, or write (K * Vj(b)).sum(axis=1)."
            )
        b = checked_array(b, name)
        if n is None and b.ndim and any(leaf.role == "j" for leaf in unbound(self)):
            n = b.shape[-1 if b.ndim == 1 else -2]  # not known yet: checked when the arrays come
        m, n = 1 if m is None else m, 1 if n is None else n
        if b.ndim == 0 or b.shape[-1 if b.ndim == 1 else -2] != n:
            raise ValueError(
                f"{name}: b is {show(b)}, expected ({n},) or (*B, {n}, E) for K of shape {(*batch, m, n)}."
            )
        vector = b.ndim == 1
        leaf = Leaf("j", 0 if vector else 1, "rows")
        product = self._record("multiply", LazyTensor._of_leaf(leaf, b), shown=name)
        return product._reduced(name, Sum(), "j", None, options, _squeezed if vector else pick)


def _squeezed(outs: Sequence[Any]) -> Any:
    return outs[0][..., 0]


def _transposed(outs: Sequence[Any]) -> Any:
    return jnp.swapaxes(outs[0], -1, -2)
