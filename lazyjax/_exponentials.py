"""Reductions of a LazyTensor by sums of exponentials: logsumexp, softmax and softmax-weighted sums."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._options import reduce_axis
from ._reductions import LogSumExp, SumSoftmaxWeight


class Exponentials:
    """Sums of exponentials, shifted by the largest one, so that nothing overflows."""

    __slots__ = ()

    if TYPE_CHECKING:
        _reduced: Any
        _record: Any
        _lift: Any
        _shape: Any

    def logsumexp(self, axis: Any = None, *, dim: Any = None, weight: Any = None, **options: Any) -> Any:
        """log sum exp(K) over the features (lazily), over i, over j, or over both; with a weight log sum w exp(K).

        The running maximum is kept beside the sum (Milakov and Gimelshein, Online normalizer calculation for softmax,
        2018). The derivative is weighted by the softmax and never divides by a saved sum.

        Args:
            axis, dim, **options: as in `sum`; `axis` must be given.
            weight: a LazyTensor, an array or a number of E features, of any sign; K must then have one feature. Not
                over the features.

        Returns:
            Over the features (axis=-1) a LazyTensor with one feature; or an array (*B, R, D), (*B, R, E) with a
            weight; without R over both axes. In the dtype of the formula, integers and booleans as floats. All -inf,
            and no pairs, give -inf (KeOps: NaN); a negative weighted sum NaN.

        Raises:
            ValueError: for an axis that is none; with a weight, where K has several features. TypeError: for unknown
                options.

        Example:
            >>> from lazyjax import Vi, Vj
            >>> D = Vi([[0.0], [1.0]]).sqdist(Vj([[0.0], [2.0], [4.0]]))
            >>> round((-D).logsumexp(axis="ij").item(), 4)
            0.562
            >>> D.logsumexp(axis=1, weight=Vj([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]])).tolist()
            [[0.0, -inf], [1.0, -inf]]
        """
        weight = self._weight(weight, "logsumexp")
        return self._reduced("logsumexp", LogSumExp(), axis, dim, options, weight=weight)

    def sumsoftmaxweight(self, weight: Any, axis: Any = None, *, dim: Any = None, **options: Any) -> Any:
        """sum softmax(K) * weight over i, over j, or over both: attention, for a formula K with one feature.

        sum_j exp(K_ij) w_ij / sum_j exp(K_ij), computed without overflow, as `logsumexp`.

        Args:
            weight: a LazyTensor, an array or a number of E features.
            axis, dim, **options: as in `sum`; `axis` must be given, i or j or both.

        Returns:
            An array (*B, R, E), (*B, E) over both axes, in the dtype that K and the weight promote to, integers and
            booleans as floats; 0 where no pair has a weight: there are no pairs, or K is -inf in all of them.

        Raises:
            ValueError: where K has several features, and for an axis that is none. TypeError: where weight is None,
                and for unknown options.

        Example:
            >>> from lazyjax import Vi, Vj
            >>> scores = Vi([[0.0]]) * Vj([[1.0], [2.0]])
            >>> scores.sumsoftmaxweight(Vj([[1.0, 10.0], [3.0, 20.0]]), axis=1).tolist()
            [[2.0, 15.0]]
        """
        if weight is None:
            raise TypeError("sumsoftmaxweight: weight is None, expected a LazyTensor or an array.")
        weight = self._weight(weight, "sumsoftmaxweight")
        return self._reduced("sumsoftmaxweight", SumSoftmaxWeight(), axis, dim, options, weight=weight)

    def softmax(self, axis: Any = -1) -> Any:
        """exp(x) / sum of exp(x) over a feature axis, or over a tuple of them, lazily, as `jax.nn.softmax`.

        Over i or j the softmax of all pairs takes a reduction first: write
        `sumsoftmaxweight`, or `(K - Vi(K.logsumexp(axis=1))).exp()`.

        Args:
            axis: -1, the last feature axis, or another one.

        Returns:
            A LazyTensor of the shape of self, in the dtype of self, integers and booleans as floats.

        Raises:
            ValueError: for an axis that is not one of the features.

        Example:
            >>> from lazyjax import Vi
            >>> Vi([[0.0, 0.0, 0.0, 0.0]]).softmax().sum(axis=1).tolist()
            [[0.25, 0.25, 0.25, 0.25]]
        """
        if reduce_axis(self, axis, None, None, "softmax") != "features":
            raise ValueError("softmax: only over the features (axis=-1); over i or j use sumsoftmaxweight.")
        return self._record("softmax_features", shown="softmax")

    def _weight(self, weight: Any, name: str) -> Any:
        if weight is None:
            return None
        if self._shape[-1] != 1:
            raise ValueError(
                f"{name}: with a weight the formula must be scalar, but it has {self._shape[-1]} features; "
                "sum them first, for instance with .sum(-1)."
            )
        return self._lift(weight, name, "weight")
