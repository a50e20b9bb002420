"""Methods of a LazyTensor on its features: indexing, joining, norms, and what has arguments to be checked."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from ._errors import show, static_int
from ._op import floating
from ._tape import Leaf
from ._variables import canonical


class Features:
    """Operations on the last axis, which is in memory pair by pair."""

    __slots__ = ()

    if TYPE_CHECKING:  # what LazyTensor has
        _record: Any
        _lift: Any
        _shape: Any
        _aval: Any
        _tape: Any
        _data: Any
        _of_leaf: Any
        _pair_selection: Any

        def __sub__(self, other: Any) -> Any: ...

    def __getitem__(self, key: Any) -> Any:
        """Features by NumPy's basic indexing: x[..., k], x[..., a:b:c], x[:, :, k], x[..., 0, :], x[..., None].

        An int drops its axis, but the last one stays, of size 1. With one feature axis x[k] and x[a:b] are accepted.

        The axes of pairs are written `...` or `:`; or K[rows, columns] keeps some of them, each given by a slice, a
        mask or an array of indices, as `np.ix_` would (for single pairs see `at_pairs`).

        Args:
            key: an int, a slice, None, `...`, or a tuple of them; of rows and columns also masks and integer arrays.

        Returns:
            A LazyTensor.

        Raises:
            IndexError: for other axes than the features, beyond their sizes, and where nothing would be left.
                TypeError: for a traced mask of rows, and for an index of features that is no int.

        Example:
            >>> from lazyjax import Vi, Vj
            >>> x = Vi([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
            >>> x[..., 0].shape, x[..., ::2].dense().tolist()
            ((2, 1), [[[1.0, 3.0]], [[4.0, 6.0]]])
            >>> D = x.sqdist(Vj([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0], [4.0, 5.0, 6.0]]))
            >>> D[[1, 0], 1:].dense().tolist()
            [[77.0, 0.0], [14.0, 27.0]]
        """
        if (selection := self._pair_selection(key)) is not None:
            tensor, rest = selection
            return tensor[rest]
        sizes = self._aval.shape or (1,)
        given = self._feature_key(key)
        axes = iter(sizes)
        items = tuple(None if k is None else _feature_item(k, next(axes)) for k in given)
        if items == tuple((0, size, 1) for size in sizes):
            return self
        return self._record("take", key=items)

    def _feature_key(self, key: Any) -> tuple[Any, ...]:
        """The entries of a key that are about features; those about pairs must be full slices."""
        full, rank = len(self._shape), len(self._aval.shape) or 1
        if not isinstance(key, tuple):
            if key is not Ellipsis and rank > 1:
                raise IndexError(
                    f"x[{_show_index(key)}] on shape {self._shape}, which has {rank} feature axes: say which one, with "
                    f"an entry for each that follows, as in x[..., {_show_index(key)}, :]."
                )
            key = (Ellipsis,) if key is Ellipsis else (Ellipsis, key)
        where = [at for at, k in enumerate(key) if k is Ellipsis]
        axes = sum(k is not None and k is not Ellipsis for k in key)
        filled = key
        if len(where) == 1:
            filled = (*key[: where[0]], *[slice(None)] * (full - axes), *key[where[0] + 1 :])
        pairs = full - rank
        of_pairs = all(isinstance(k, slice) and k == slice(None) for k in filled[:pairs])
        if len(where) > 1 or sum(k is not None for k in filled) != full or not of_pairs:
            last = "the last axis, the features," if rank == 1 else f"the last {rank} axes, the features,"
            raise IndexError(
                f"x[{', '.join(map(_show_index, key))}] on shape {self._shape}: only {last} can be indexed; the axes "
                "of a LazyTensor's pairs are not in memory. Index the data before."
            )
        return filled[pairs:]

    def elem(self, i: Any) -> Any:
        """Feature i, as a formula with one feature: `x[..., i:i+1]` for KeOps' users.

        Args:
            i: an int from 0 to D - 1.

        Returns:
            A LazyTensor with one feature.

        Raises:
            IndexError: where i is out of range. TypeError: where it is no int.

        Example:
            >>> from lazyjax import Vi
            >>> Vi([[1.0, 2.0, 3.0]]).elem(1).dense().tolist()
            [[2.0]]
        """
        i = static_int(i, "i", "elem")
        if not 0 <= i < self._shape[-1]:
            raise IndexError(f"elem({i}): index {i} is out of range for {self._shape[-1]} features.")
        return self[i]

    def extract(self, i: Any, d: Any) -> Any:
        """Features i to i + d - 1: `x[..., i:i+d]` for KeOps' users.

        Args:
            i: the first feature, an int of at least 0.
            d: how many, an int of at least 1.

        Returns:
            A LazyTensor with d features.

        Raises:
            IndexError: where some of them are out of range. TypeError: where i or d is no int.

        Example:
            >>> from lazyjax import Vi
            >>> Vi([[1.0, 2.0, 3.0]]).extract(1, 2).sum(axis=1).tolist()
            [[2.0, 3.0]]
        """
        i, d, size = static_int(i, "i", "extract"), static_int(d, "d", "extract"), self._shape[-1]
        if not (0 <= i < size and 1 <= d <= size - i):
            raise IndexError(f"extract({i}, {d}): features {i} to {i + d} are out of range for {size} features.")
        return self[i : i + d]

    def concat(self, other: Any) -> Any:
        """The features of self, then those of other: `concatenate` of two.

        Args:
            other: a LazyTensor, an array or a number, of D2 features.

        Returns:
            A LazyTensor with D + D2 features, in the dtype that they promote to.

        Raises:
            ValueError: where rows or batch dims do not fit.

        Example:
            >>> from lazyjax import Vi
            >>> Vi([[1.0, 2.0]]).concat(Vi([[3.0]])).sum(axis=1).tolist()
            [[1.0, 2.0, 3.0]]
        """
        return self._record("concat", other)

    @staticmethod
    def concatenate(tensors: Sequence[Any], axis: Any = -1) -> Any:
        """The features of several LazyTensors, one after the other along a feature axis, the last one by default.

        Args:
            tensors: a sequence of LazyTensors, arrays and numbers, at least one of them a LazyTensor.
            axis: -1, or another feature axis of the first LazyTensor. KeOps' users may give the axis of (*B, M, N, D).

        Returns:
            A LazyTensor, in the dtype that they promote to.

        Raises:
            ValueError: where there is no LazyTensor, where axis is not one of the features, and where rows or batch
                dims do not fit.

        Example:
            >>> from lazyjax import LazyTensor, Vi, Vj
            >>> pair = LazyTensor.concatenate([Vi([[1.0, 2.0]]), Vj([[3.0], [4.0]]), 5.0])
            >>> pair.shape, pair.sum(axis=1).tolist()
            ((1, 2, 4), [[2.0, 4.0, 7.0, 10.0]])
        """
        tensors = list(tensors)
        if not tensors or not any(isinstance(t, Features) for t in tensors):
            raise ValueError(f"concatenate: expected a sequence with at least one LazyTensor, got {show(tensors)}.")
        first = next(t for t in tensors if isinstance(t, Features))
        axes = feature_axes(first, static_int(axis, "axis", "concatenate"))
        if axes is None:
            raise ValueError(f"concatenate: axis={axis}, expected -1: only features can be concatenated.")
        head, *rest = [first._lift(t, "concatenate") for t in tensors]
        if not rest:
            return head
        return head._record("concat", *rest) if axes == (-1,) else head._record("concat", *rest, axis=axes[0])

    @staticmethod
    def cat(tensors: Sequence[Any], dim: Any = -1) -> Any:
        """`concatenate` under PyTorch's name.

        Args:
            tensors: as in `concatenate`.
            dim: the axis, as in `concatenate`.

        Returns:
            A LazyTensor, in the dtype that they promote to.

        Raises:
            ValueError: as `concatenate`.

        Example:
            >>> from lazyjax import LazyTensor, Vi
            >>> LazyTensor.cat([Vi([[1.0, 2.0]]), Vi([[3.0]])]).sum(axis=1).tolist()
            [[1.0, 2.0, 3.0]]
        """
        return Features.concatenate(tensors, dim)

    # Methods with arguments that need a check.

    def norm(self, dim: Any = -1) -> Any:
        """The Euclidean norm over a feature axis, or a tuple of them: the last one by default. `norm2` is over all.

        As `numpy.linalg.norm`; its derivatives at 0 are 0, as in KeOps.

        Args:
            dim: -1, or other feature axes.

        Returns:
            A LazyTensor without these axes, with one feature if there is no other: real, integers and booleans as
            floats.

        Raises:
            ValueError: for an axis that is not one of the features.

        Example:
            >>> from lazyjax import Vi
            >>> Vi([[[3.0, 4.0], [0.0, 2.0]]], feature_ndim=2).norm(-1).sum(axis=1).tolist()
            [[5.0, 2.0]]
        """
        axes = feature_axes(self, dim)
        if axes is None:
            raise ValueError(f"norm: dim={dim}, expected -1: a norm is over the features of shape {self._shape}.")
        return (
            self._record("norm2") if len(axes) == len(self._shape) - _pairs(self) else self._record("norm2", axes=axes)
        )

    def round(self, decimals: Any = 0) -> Any:
        """Round to a number of decimals, half away from zero, as KeOps; `numpy.round` rounds half to even.

        Args:
            decimals: an int; negative ones round to tens, hundreds, ...

        Returns:
            A LazyTensor of the shape and dtype of self; integers and booleans stay as they are. The derivative is 0.

        Raises:
            TypeError: where decimals is no int, and for complex numbers.

        Example:
            >>> from lazyjax import Vj
            >>> Vj([[0.5], [2.5], [-1.5]]).round().dense().tolist(), Vj([[16.0]]).round(-1).dense().item()
            ([[1.0, 3.0, -2.0]], 20.0)
        """
        return self._record("round", decimals=static_int(decimals, "decimals", "round"))

    def mod(self, modulus: Any, offset: Any = 0) -> Any:
        """x - modulus * k for the integer k that puts it into [offset, offset + modulus), as KeOps.

        With offset 0 it is `x % modulus`, `numpy.mod`. The derivative with respect to x is 1, also at the jumps.

        Args:
            modulus, offset: LazyTensors, arrays or numbers, with as many features as self, or one.

        Returns:
            A LazyTensor with the features of all operands, broadcast, in the dtype that they promote to.

        Raises:
            ValueError: where features, rows or batch dims do not fit. TypeError: for complex numbers.

        Example:
            >>> from lazyjax import Vj
            >>> Vj([[-0.5], [2.0], [3.5]]).mod(3, -1).dense().tolist()
            [[-0.5, -1.0, 0.5]]
        """
        return self._record("mod", modulus, offset)

    def weightedsqnorm(self, s: Any) -> Any:
        """The squared norm with weights s: s |x|^2, sum_k s_k |x_k|^2, or x^* S x.

        Args:
            s: a LazyTensor, an array or a number: one weight, D weights, or a matrix of D * D, row by row.

        Returns:
            A LazyTensor with one feature: real for one and for D real weights; x^* conjugates a complex x.

        Raises:
            ValueError: where s has another number of features, and where rows or batch dims do not fit.

        Example:
            >>> from lazyjax import Vi
            >>> x = Vi([[1.0, 2.0]])
            >>> [x.weightedsqnorm(s).sum(axis=1).item() for s in (3.0, [3.0, 1.0], [3.0, 1.0, 0.0, 1.0])]
            [15.0, 7.0, 9.0]
        """
        s = self._lift(s, "weightedsqnorm", "s")
        d, size = math.prod(self._aval.shape), math.prod(s._aval.shape)
        if size not in (1, d, d * d):
            raise ValueError(f"weightedsqnorm: s has {size} features, expected 1, D = {d} or D * D = {d * d}.")
        return self._record("weightedsqnorm", s)

    def sqdist(self, y: Any, form: Any = "direct") -> Any:
        """|x - y|^2, the squared Euclidean distance over D.

        Args:
            y: the other operand, with as many features, or one.
            form: "direct" sums the squares of the differences. "product" computes |a|^2 + |b|^2 - 2 a.b, for a and b
                the features of both operands less the mean of their means: a matrix product, several times as fast for
                some 64 features and more on a CPU, and **less accurate**: its error is about eps (|a|^2 + |b|^2),
                where that of the direct form is about eps |x - y|^2, so near pairs of far points lose digits. What
                rounding makes negative is 0. Derivatives are those of the same polynomial.

        Returns:
            A LazyTensor with one feature, in the dtype that both promote to.

        Raises:
            ValueError: for another form; and with "product" where one operand is not of i alone and the other of j
                alone, or has symbolic variables, whose mean is not known.
            TypeError: with "product", for complex features.

        Example:
            >>> import jax.numpy as jnp
            >>> from lazyjax import Vi, Vj
            >>> x, y = jnp.zeros((4, 100)), jnp.ones((5, 100))
            >>> Vi(x).sqdist(Vj(y), form="product").sum(axis=1)[:, 0].tolist()
            [500.0, 500.0, 500.0, 500.0]
        """
        if form == "direct":
            return self._record("sqdist", y)
        if form != "product":
            raise ValueError(f"sqdist: form={form!r}, expected 'direct' or 'product'.")
        other = self._lift(y, "sqdist", "y")
        axes = [{leaf.role for leaf in t._tape.leaves} - {"p"} for t in (self, other)]
        if sorted(map(sorted, axes)) != [["i"], ["j"]]:
            found = " and ".join("".join(sorted(a)) or "no axis" for a in axes)
            raise ValueError(
                f"sqdist: form='product' takes one operand of i and one of j, got operands of {found}. "
                "Leave form='direct'."
            )
        for t in (self, other):
            if any(leaf.symbol and d is None for leaf, d in zip(t._tape.leaves, t._data, strict=True)):
                raise ValueError(
                    "sqdist: form='product' centers the data, which symbolic variables do not have yet. "
                    "Leave form='direct', or write the formula on arrays."
                )
            if jnp.issubdtype(t._aval.dtype, jnp.complexfloating):
                raise TypeError(
                    f"sqdist: form='product' takes real features, got {t._aval.dtype}. Leave form='direct'."
                )
        means = [_mean_row(t) for t in (self, other)]
        rank = max(1, *(len(t._aval.shape) for t in (self, other)))
        # The distance does not depend on it, so no derivative goes through it; nor does one row of NaN spoil the rest.
        center = jax.lax.stop_gradient(0.5 * (means[0] + means[1]))
        center = jnp.where(jnp.isfinite(center), center, jnp.zeros_like(center))
        return self._record("sqdist_product", other, type(self)._of_leaf(Leaf("p", rank, ""), center))

    def weightedsqdist(self, y: Any, s: Any) -> Any:
        """The squared distance with weights s: `(x - y).weightedsqnorm(s)`.

        Args:
            y: a LazyTensor, an array or a number, with D features, or one.
            s: one weight, D weights, or a matrix of D * D, row by row, as in `weightedsqnorm`.

        Returns:
            A LazyTensor with one feature.

        Raises:
            ValueError: as `weightedsqnorm`, and where the features of x and y do not fit.

        Example:
            >>> from lazyjax import Vi, Vj
            >>> Vi([[1.0, 2.0]]).weightedsqdist(Vj([[0.0, 0.0]]), [3.0, 1.0]).dense().tolist()
            [[7.0]]
        """
        return (self - y).weightedsqnorm(s)


def _mean_row(tensor: Any) -> jax.Array:
    """The mean of a formula of i alone, or of j alone, over its rows: (*B, *F)."""
    if tensor._node < 0:
        leaf, data = tensor._tape.leaves[-1 - tensor._node], tensor._data[-1 - tensor._node]
        rows = canonical(leaf, data, tensor.nbatchdims)
    else:
        features = tensor._aval.shape or (1,)
        rows = tensor.dense(max_bytes=sys.maxsize).reshape(*tensor._sizes[0], -1, *features)
    return floating(rows).mean(tensor.nbatchdims)


def _pairs(tensor: Any) -> int:
    """How many axes of the full shape stand before the features."""
    return len(tensor._shape) - max(1, len(tensor._aval.shape))


def feature_axes(tensor: Any, axis: Any) -> tuple[int, ...] | None:
    """The feature axes that `axis` (an int or a tuple) names, counted from the end; None where it names others."""
    axes = axis if isinstance(axis, tuple | list) else (axis,)
    if not all(isinstance(a, int | np.integer) and not isinstance(a, bool) for a in axes) or not axes:
        return None
    full, pairs = len(tensor._shape), _pairs(tensor)
    counted = tuple(int(a) + full if a < 0 else int(a) for a in axes)
    if len(set(counted)) != len(counted) or not all(pairs <= a < full for a in counted):
        return None
    return tuple(sorted(a - full for a in counted))


def _feature_item(k: Any, size: int) -> int | tuple[int, int, int]:
    """An int or a slice of one feature axis, checked: k, or (start, stop, step)."""
    if not isinstance(k, slice):
        k = static_int(k, "the index", "indexing")
        if not -size <= k < size:
            raise IndexError(f"x[..., {k}]: index {k} is out of range for {size} features.")
        return k % size
    for part, value in (("start", k.start), ("stop", k.stop), ("step", k.step)):
        if value is not None:
            static_int(value, part, "indexing")
    start, stop, step = k.indices(size)
    if len(range(start, stop, step)) == 0:
        raise IndexError(f"x[..., {k.start}:{k.stop}:{k.step}] is empty: the features are 0 to {size - 1}.")
    return start, stop, step


def _show_index(k: Any) -> str:
    return ":" if isinstance(k, slice) and k == slice(None) else "..." if k is Ellipsis else str(k)
