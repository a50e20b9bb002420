"""Methods of a LazyTensor under KeOps' names whose vectors hold matrices and tensors, flattened row by row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ._errors import static_int


class Algebra:
    """KeOps' small tensors, B-splines and time warping. A feature tensor counts as its features, row by row."""

    __slots__ = ()

    if TYPE_CHECKING:  # what LazyTensor has
        _record: Any
        _lift: Any
        _aval: Any
        dtype: Any

    @property
    def _features(self) -> int:
        """How many features there are, over all feature axes."""
        return math.prod(self._aval.shape)

    def matvecmult(self, other: Any) -> Any:
        """The product of self, a matrix of A * B features row by row, and other, a vector of B: A features.

        Args:
            other: a LazyTensor, an array or a number.

        Returns:
            A LazyTensor with A features, in the dtype that the operands promote to.

        Raises:
            ValueError: if B does not divide the features of self.

        Example:
            >>> from lazyjax import Vi
            >>> Vi([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]]).matvecmult([1.0, 0.0, 1.0]).sum(axis=1).tolist()
            [[4.0, 10.0]]
        """
        other = self._lift(other, "matvecmult")
        _divides("matvecmult", "other, the vector,", other._features, "self, the matrix,", self._features)
        return self._record("matvecmult", other)

    def vecmatmult(self, other: Any) -> Any:
        """The product of self, a vector of A features, and other, a matrix of A * B row by row: B features.

        Args:
            other: a LazyTensor or an array.

        Returns:
            A LazyTensor with B features, in the dtype that the operands promote to.

        Raises:
            ValueError: if A does not divide the features of other.

        Example:
            >>> from lazyjax import Vi
            >>> Vi([[1.0, 1.0]]).vecmatmult(Vi([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]])).sum(axis=1).tolist()
            [[5.0, 7.0, 9.0]]
        """
        other = self._lift(other, "vecmatmult")
        _divides("vecmatmult", "self, the vector,", self._features, "other, the matrix,", other._features)
        return self._record("vecmatmult", other)

    def tensorprod(self, other: Any) -> Any:
        """x_a y_b for each of the A features of self and the B of other, row by row, as `numpy.outer`.

        Args:
            other: a LazyTensor, an array or a number.

        Returns:
            A LazyTensor with A * B features, in the dtype that the operands promote to: x_a y_b is feature a * B + b.

        Raises:
            ValueError: where rows or batch dims do not fit.

        Example:
            >>> from lazyjax import Vi
            >>> Vi([[1.0, 2.0]]).tensorprod([1.0, 10.0, 100.0]).sum(axis=1).tolist()
            [[1.0, 10.0, 100.0, 2.0, 20.0, 200.0]]
        """
        return self._record("tensorprod", other)

    def keops_tensordot(self, other: Any, dimfa: Any, dimfb: Any, contfa: Any, contfb: Any, *args: Any) -> Any:
        """`numpy.tensordot` of self and other, read as tensors, flattened row by row.

        Args:
            other: a LazyTensor, an array or a number.
            dimfa, dimfb: the shapes of the tensors self and other; an int is one axis.
            contfa, contfb: the axes of each to sum over, in pairs; () for none.
            args: at most one permutation p: axis k of the result becomes axis p[k]. The axes of the result are those
                of self that are not summed over, then those of other.

        Returns:
            A LazyTensor with the entries of the product as features, in the dtype that the operands promote to.

        Raises:
            ValueError: where a shape, an axis or the permutation does not fit. TypeError: for more arguments.

        Example:
            >>> import jax.numpy as jnp
            >>> from lazyjax import Vi, Vj
            >>> x, y = Vi(jnp.ones((4, 6))), Vj(jnp.ones((5, 12)))
            >>> x.keops_tensordot(y, (2, 3), (3, 4), (1,), (0,), (1, 0)).shape
            (4, 5, 8)
        """
        name = "keops_tensordot"
        other = self._lift(other, name)
        dims_a = _dims(name, "dimfa", dimfa, "self", self._features)
        dims_b = _dims(name, "dimfb", dimfb, "other", other._features)
        axes_a = _axes(name, "contfa", contfa, len(dims_a))
        axes_b = _axes(name, "contfb", contfb, len(dims_b))
        sizes_a, sizes_b = [dims_a[k] for k in axes_a], [dims_b[k] for k in axes_b]
        if sizes_a != sizes_b:
            raise ValueError(
                f"{name}: contfa={axes_a} names axes of sizes {tuple(sizes_a)} and contfb={axes_b} axes of sizes "
                f"{tuple(sizes_b)}; they are summed over in pairs, so the sizes must be equal."
            )
        rank = len(dims_a) + len(dims_b) - 2 * len(axes_a)
        if len(args) > 1:
            raise TypeError(f"{name}: expected at most one permutation after contfb, got {len(args)} arguments.")
        order = _ints(name, "the permutation", args[0]) if args else tuple(range(rank))
        if sorted(order) != list(range(rank)):
            raise ValueError(
                f"{name}: the permutation is {order}, expected each of 0 to {rank - 1} once; the result has {rank} "
                "axes."
            )
        return self._record(name, other, dims=(dims_a, dims_b), axes=(axes_a, axes_b), permutation=order)

    def keops_kron(self, other: Any, dimfself: Any, dimfother: Any) -> Any:
        """`numpy.kron` of self and other, read as tensors of as many axes, flattened row by row.

        Args:
            other: a LazyTensor, an array or a number.
            dimfself, dimfother: the shapes of the tensors, of the same length.

        Returns:
            A LazyTensor with as many features as those of self times those of other, in the dtype that they promote
            to.

        Raises:
            ValueError: where a shape does not fit.

        Example:
            >>> from lazyjax import Vi
            >>> Vi([[1.0, 2.0]]).keops_kron([1.0, 1.0, 3.0], (1, 2), (1, 3)).sum(axis=1).tolist()
            [[1.0, 1.0, 3.0, 2.0, 2.0, 6.0]]
        """
        name = "keops_kron"
        other = self._lift(other, name)
        dims_a = _dims(name, "dimfself", dimfself, "self", self._features)
        dims_b = _dims(name, "dimfother", dimfother, "other", other._features)
        if len(dims_a) != len(dims_b):
            raise ValueError(f"{name}: dimfself={dims_a} and dimfother={dims_b} must have the same number of axes.")
        return self._record(name, other, dims=(dims_a, dims_b))

    def one_hot(self, D: Any) -> Any:
        """A vector of D features, 1 at the integer nearest to self and 0 elsewhere.

        It is 0 everywhere if that integer is not one of 0 ... D-1. Halves round up. The derivative is 0.

        Args:
            D: how many features, an int of at least 1.

        Returns:
            A LazyTensor with D features, in the dtype of self; the default integer of booleans.

        Raises:
            ValueError: if self has more than one feature, or D is less than 1. TypeError: for complex numbers.

        Example:
            >>> from lazyjax import Vi
            >>> Vi([[1.0], [2.5], [7.0]]).one_hot(4).sum(axis=1).tolist()
            [[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0]]
        """
        size = static_int(D, "D", "one_hot")
        if size < 1:
            raise ValueError(f"one_hot: D={size}, expected at least 1.")
        if self._features != 1:
            raise ValueError(f"one_hot: self has {self._features} features, expected 1: a scalar formula.")
        return self._record("one_hot", size=size)

    def bspline(self, x: Any, k: Any = 0) -> Any:
        """The B-splines of order k (degree k) at x, of the ascending knots that are the features of self.

        n knots have n - k - 1 B-splines. A spline is 0 outside of its knots, and at the last one; repeated knots are
        allowed. Differentiable with respect to x and to the knots. By the recursion of Cox and de Boor (de Boor, A
        Practical Guide to Splines, chapter IX).

        Args:
            x: a scalar formula, or a number.
            k: an int, at least 0.

        Returns:
            A LazyTensor with n - k - 1 features, in the floating dtype that x and the knots promote to.

        Raises:
            ValueError: if x has more than one feature, k is negative, or there are less than k + 2 knots. TypeError:
                for complex numbers.

        Example:
            >>> from lazyjax import Pm, Vi
            >>> knots, x = Pm([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), Vi([[2.5], [3.5]])
            >>> knots.bspline(x, 2).sum(axis=1).tolist()
            [[0.125, 0.75, 0.125, 0.0], [0.0, 0.125, 0.75, 0.125]]
        """
        order, x = static_int(k, "k", "bspline"), self._lift(x, "bspline", "x")
        if order < 0:
            raise ValueError(f"bspline: k={order}, expected at least 0.")
        if x._features != 1:
            raise ValueError(f"bspline: x has {x._features} features, expected 1: a scalar formula.")
        if self._features < order + 2:
            raise ValueError(
                f"bspline: self has {self._features} knots, expected at least k + 2 = {order + 2} for splines of order "
                f"k={order}."
            )
        return self._record("bspline", x, order=order)

    def softdtw_sqdist(self, other: Any, gamma: Any) -> Any:
        """Soft dynamic time warping between two series of numbers, the features of self and of other: one feature.

        The cost of a match is the squared difference. Differentiable with respect to gamma too. Cuturi and Blondel,
        Soft-DTW: a Differentiable Loss Function for Time-Series, ICML 2017, algorithm 1; the numbers of KeOps 2.3 are
        others.

        Args:
            other: a LazyTensor, an array or a number, of any number of features.
            gamma: the smoothness, a positive number or scalar formula.

        Returns:
            A LazyTensor with one feature, in the floating dtype that the operands promote to.

        Raises:
            ValueError: if gamma has more than one feature. TypeError: for complex numbers.

        Example:
            >>> from lazyjax import Vi, Vj
            >>> x, y = Vi([[0.0, 1.0]]), Vj([[0.0, 1.0, 1.0]])
            >>> round(x.softdtw_sqdist(y, 1e-3).dense().item(), 4), round(x.softdtw_sqdist(y, 1.0).dense().item(), 4)
            (0.0, -0.806)
        """
        gamma = self._lift(gamma, "softdtw_sqdist", "gamma")
        if gamma._features != 1:
            raise ValueError(f"softdtw_sqdist: gamma has {gamma._features} features, expected 1.")
        return self._record("softdtw_sqdist", other, gamma)


def _divides(name: str, small: str, size: int, large: str, total: int) -> None:
    if size == 0 or total % size:
        raise ValueError(f"{name}: {large} has {total} features and {small} {size}, expected a multiple of {size}.")


def _ints(name: str, argument: str, value: Any) -> tuple[int, ...]:
    """An int, or a sequence of them."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, Sequence) or isinstance(value, str):
        value = (value,)
    return tuple(static_int(v, argument, name) for v in value)


def _dims(name: str, argument: str, value: Any, whose: str, features: int) -> tuple[int, ...]:
    dims = _ints(name, argument, value)
    if math.prod(dims) != features or any(d < 1 for d in dims):
        raise ValueError(
            f"{name}: {argument}={dims} has {math.prod(dims)} entries, but {whose} has {features} features; "
            "they must be equal."
        )
    return dims


def _axes(name: str, argument: str, value: Any, rank: int) -> tuple[int, ...]:
    axes = _ints(name, argument, value)
    if any(not 0 <= k < rank for k in axes) or len(set(axes)) != len(axes):
        raise ValueError(f"{name}: {argument}={axes}, expected different axes out of 0 to {rank - 1}.")
    return axes
