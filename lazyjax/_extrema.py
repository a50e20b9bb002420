"""Reductions of a LazyTensor that select: the smallest and largest values, the K best of them, and their indices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._errors import static_int
from ._reductions import Extremum, KSmallest
from ._request import every, first


class Extrema:
    """Minima, maxima and the K best. Over i and j NaN is skipped, and ties take the lowest index."""

    __slots__ = ()

    if TYPE_CHECKING:
        _reduced: Any

    def min(self, axis: Any = None, *, dim: Any = None, **options: Any) -> Any:
        """The smallest value over the features (lazily, the default), over i, over j, or over both.

        Differentiable, unlike in KeOps: the derivative is that of the winning pair, the one of lowest index among
        equals. Over i and j NaN is skipped; over the features it is as `jnp.min`, where NaN wins and equals share the
        derivative.

        Args:
            axis, dim, **options: as in `sum`.

        Returns:
            A LazyTensor with one feature; or an array (*B, R, D), (*B, D) over both axes, in the dtype of the formula.
            Where there is nothing to choose from it holds inf (the largest number of an integer dtype).

        Raises:
            TypeError: for complex formulas, and for unknown options. ValueError: for an axis that is none.

        Example:
            >>> from lazyjax import Vi, Vj
            >>> D = Vi([[0.0], [1.0]]).sqdist(Vj([[0.0], [2.0], [4.0]]))
            >>> D.min(axis=1).tolist(), D.min(axis=0).tolist()
            ([[0.0], [1.0]], [[0.0], [1.0], [9.0]])
        """
        return self._reduced("min", Extremum(), axis, dim, options, default=-1)

    def max(self, axis: Any = None, *, dim: Any = None, **options: Any) -> Any:
        """The largest value over the features (lazily, the default), over i, over j, or over both.

        Differentiable, unlike in KeOps: the derivative is that of the winning pair, the one of lowest index among
        equals. Over i and j NaN is skipped; over the features it is as `jnp.max`, where NaN wins and equals share the
        derivative.

        Args:
            axis, dim, **options: as in `sum`.

        Returns:
            A LazyTensor with one feature; or an array (*B, R, D), (*B, D) over both axes, in the dtype of the formula.
            Where there is nothing to choose from it holds -inf (the lowest number of an integer dtype).

        Raises:
            TypeError: for complex formulas, and for unknown options. ValueError: for an axis that is none.

        Example:
            >>> from lazyjax import Vi, Vj
            >>> D = Vi([[0.0], [1.0]]).sqdist(Vj([[0.0], [2.0], [4.0]]))
            >>> D.max(axis=1).tolist(), D.max(axis="ij").tolist()
            ([[16.0], [9.0]], [16.0])
        """
        return self._reduced("max", Extremum(largest=True), axis, dim, options, default=-1)

    def argmin(self, axis: Any = None, *, dim: Any = None, **options: Any) -> Any:
        """The index of the smallest value, over the features (lazily, the default), over i or over j.

        Over i and j NaN is skipped; over the features it is as `jnp.argmin`, where NaN wins.

        Args:
            axis, dim, **options: as in `sum`; not over both axes at once.

        Returns:
            A LazyTensor with one feature; or an array (*B, R, D): the row j (or i) of every feature's smallest value,
            the lowest of several, -1 where there is nothing to choose from. Of dtype int32, int64 where the axis
            needs it.

        Raises:
            TypeError: for complex formulas, and for unknown options. ValueError: for an axis that is none, and for
                both.

        Example:
            >>> from lazyjax import Vi, Vj
            >>> D = Vi([[0.0], [1.0]]).sqdist(Vj([[0.0], [2.0], [4.0]]))
            >>> D.argmin(axis=1).tolist(), D.argmin(axis=0, keepdims=False).tolist()
            ([[0], [0]], [0, 1, 1])
        """
        return self._reduced("argmin", Extremum(False, "index"), axis, dim, options, default=-1)

    def argmax(self, axis: Any = None, *, dim: Any = None, **options: Any) -> Any:
        """The index of the largest value, over the features (lazily, the default), over i or over j.

        Over i and j NaN is skipped; over the features it is as `jnp.argmax`, where NaN wins.

        Args:
            axis, dim, **options: as in `sum`; not over both axes at once.

        Returns:
            A LazyTensor with one feature; or an array (*B, R, D): the row j (or i) of every feature's largest value,
            the lowest of several, -1 where there is nothing to choose from. Of dtype int32, int64 where the axis
            needs it.

        Raises:
            TypeError: for complex formulas, and for unknown options. ValueError: for an axis that is none, and for
                both.

        Example:
            >>> from lazyjax import Vi, Vj
            >>> D = Vi([[0.0], [1.0]]).sqdist(Vj([[0.0], [2.0], [4.0]]))
            >>> D.argmax(axis=1).tolist()
            [[2], [2]]
        """
        return self._reduced("argmax", Extremum(True, "index"), axis, dim, options, default=-1)

    def min_argmin(self, axis: Any = None, *, dim: Any = None, **options: Any) -> Any:
        """The smallest value over i or over j and its index, in one pass.

        Args:
            axis, dim, **options: as in `sum`; `axis` must be given, and not both axes at once.

        Returns:
            The arrays of `min` and of `argmin`, both (*B, R, D).

        Raises:
            TypeError: for complex formulas, and for unknown options. ValueError: for another axis than i or j.

        Example:
            >>> from lazyjax import Vi, Vj
            >>> D = Vi([[0.0], [1.0]]).sqdist(Vj([[0.0], [2.0], [4.0]]))
            >>> value, index = D.min_argmin(axis=1)
            >>> value.tolist(), index.tolist()
            ([[0.0], [1.0]], [[0], [0]])
        """
        return self._reduced("min_argmin", Extremum(False, "both"), axis, dim, options, every)

    def max_argmax(self, axis: Any = None, *, dim: Any = None, **options: Any) -> Any:
        """The largest value over i or over j and its index, in one pass.

        Args:
            axis, dim, **options: as in `sum`; `axis` must be given, and not both axes at once.

        Returns:
            The arrays of `max` and of `argmax`, both (*B, R, D).

        Raises:
            TypeError: for complex formulas, and for unknown options. ValueError: for another axis than i or j.

        Example:
            >>> from lazyjax import Vi, Vj
            >>> D = Vi([[0.0], [1.0]]).sqdist(Vj([[0.0], [2.0], [4.0]]))
            >>> value, index = D.max_argmax(axis=1)
            >>> value.tolist(), index.tolist()
            ([[16.0], [9.0]], [[2], [2]])
        """
        return self._reduced("max_argmax", Extremum(True, "both"), axis, dim, options, every)

    def _k_best(self, name: str, K: Any, wanted: Any, axis: Any, dim: Any, options: Any, pick: Any = first) -> Any:
        k = static_int(K, "K", name)
        if k < 1:
            raise ValueError(f"{name}: K={k}, expected at least 1.")
        return self._reduced(name, KSmallest(k, wanted, "Kmax" in name), axis, dim, options, pick)

    def Kmin(self, K: Any, axis: Any = None, *, dim: Any = None, **options: Any) -> Any:
        """The K smallest values over i or over j, in ascending order.

        Differentiable, unlike in KeOps, as `min`. NaN is skipped; every feature has its own winners.

        Args:
            K: how many, an int of at least 1.
            axis, dim, **options: as in `sum`; `axis` must be given, and not both axes at once.

        Returns:
            An array (*B, R, K) of a formula with one feature, (*B, R, K, D) of others, in the dtype of the formula;
            where there are fewer than K values, inf follows (the largest number of an integer dtype).

        Raises:
            TypeError: where K is no int, for complex formulas, and for unknown options. ValueError: where K < 1, and
                for another axis than i or j.

        Example:
            >>> from lazyjax import Vi, Vj
            >>> D = Vi([[0.0], [1.0]]).sqdist(Vj([[0.0], [2.0], [4.0]]))
            >>> D.Kmin(2, axis=1).tolist()
            [[0.0, 4.0], [1.0, 1.0]]
        """
        return self._k_best("Kmin", K, "value", axis, dim, options)

    def argKmin(self, K: Any, axis: Any = None, *, dim: Any = None, **options: Any) -> Any:
        """The indices of the K smallest values over i or over j: the K nearest neighbours, of a distance.

        In ascending order of the values, equals in that of their indices. NaN is skipped.

        Args:
            K: how many, an int of at least 1.
            axis, dim, **options: as in `sum`; `axis` must be given, and not both axes at once.

        Returns:
            An array (*B, R, K) of a formula with one feature, (*B, R, K, D) of others, int32 (int64 where the axis
            needs it); where there are fewer than K values, -1 follows (KeOps: 0).

        Raises:
            TypeError: where K is no int, for complex formulas, and for unknown options. ValueError: where K < 1, and
                for another axis than i or j.

        Example:
            >>> from lazyjax import Vi, Vj
            >>> D = Vi([[0.0], [1.0]]).sqdist(Vj([[0.0], [2.0], [4.0]]))
            >>> D.argKmin(2, axis=1).tolist()
            [[0, 1], [0, 1]]
        """
        return self._k_best("argKmin", K, "index", axis, dim, options)

    def Kmin_argKmin(self, K: Any, axis: Any = None, *, dim: Any = None, **options: Any) -> Any:
        """The K smallest values over i or over j and their indices, in one pass.

        Args:
            K: how many, an int of at least 1.
            axis, dim, **options: as in `sum`; `axis` must be given, and not both axes at once.

        Returns:
            The arrays of `Kmin` and of `argKmin`, both (*B, R, K), or (*B, R, K, D) where D is not 1.

        Raises:
            TypeError, ValueError: as `Kmin`.

        Example:
            >>> from lazyjax import Vi, Vj
            >>> D = Vi([[0.0], [1.0]]).sqdist(Vj([[0.0], [2.0], [4.0]]))
            >>> values, indices = D.Kmin_argKmin(2, axis=1)
            >>> values.tolist(), indices.tolist()
            ([[0.0, 4.0], [1.0, 1.0]], [[0, 1], [0, 1]])
        """
        return self._k_best("Kmin_argKmin", K, "both", axis, dim, options, every)

    def Kmax(self, K: Any, axis: Any = None, *, dim: Any = None, **options: Any) -> Any:
        """The K largest values over i or over j, in descending order.

        Differentiable, as `max`. NaN is skipped; every feature has its own winners.

        Args:
            K: how many, an int of at least 1.
            axis, dim, **options: as in `sum`; `axis` must be given, and not both axes at once.

        Returns:
            An array (*B, R, K) of a formula with one feature, (*B, R, K, D) of others, in the dtype of the formula;
            where there are fewer than K values, -inf follows (the lowest number of an integer dtype).

        Raises:
            TypeError, ValueError: as `Kmin`.

        Example:
            >>> from lazyjax import Vi, Vj
            >>> D = Vi([[0.0], [1.0]]).sqdist(Vj([[0.0], [2.0], [4.0]]))
            >>> D.Kmax(2, axis=1).tolist()
            [[16.0, 4.0], [9.0, 1.0]]
        """
        return self._k_best("Kmax", K, "value", axis, dim, options)

    def argKmax(self, K: Any, axis: Any = None, *, dim: Any = None, **options: Any) -> Any:
        """The indices of the K largest values over i or over j.

        In descending order of the values, equals in ascending order of their indices. NaN is skipped.

        Args:
            K: how many, an int of at least 1.
            axis, dim, **options: as in `sum`; `axis` must be given, and not both axes at once.

        Returns:
            An array (*B, R, K) of a formula with one feature, (*B, R, K, D) of others, int32 (int64 where the axis
            needs it); where there are fewer than K values, -1 follows.

        Raises:
            TypeError, ValueError: as `Kmin`.

        Example:
            >>> from lazyjax import Vi, Vj
            >>> D = Vi([[0.0], [1.0]]).sqdist(Vj([[0.0], [2.0], [4.0]]))
            >>> D.argKmax(2, axis=1).tolist()
            [[2, 1], [2, 0]]
        """
        return self._k_best("argKmax", K, "index", axis, dim, options)

    def Kmax_argKmax(self, K: Any, axis: Any = None, *, dim: Any = None, **options: Any) -> Any:
        """The K largest values over i or over j and their indices, in one pass.

        Args:
            K: how many, an int of at least 1.
            axis, dim, **options: as in `sum`; `axis` must be given, and not both axes at once.

        Returns:
            The arrays of `Kmax` and of `argKmax`, both (*B, R, K), or (*B, R, K, D) where D is not 1.

        Raises:
            TypeError, ValueError: as `Kmin`.

        Example:
            >>> from lazyjax import Vi, Vj
            >>> D = Vi([[0.0], [1.0]]).sqdist(Vj([[0.0], [2.0], [4.0]]))
            >>> values, indices = D.Kmax_argKmax(2, axis=1)
            >>> values.tolist(), indices.tolist()
            ([[16.0, 4.0], [9.0, 1.0]], [[2, 1], [2, 0]])
        """
        return self._k_best("Kmax_argKmax", K, "both", axis, dim, options, every)
