"""Methods of a LazyTensor whose features have several axes: matrices and tensors, one for every pair."""

from __future__ import annotations

import collections
import math
from typing import TYPE_CHECKING, Any

from ._errors import show, static_int
from ._features import feature_axes
from ._ops import FEATURE_OPS
from ._ops_tensors import LARGEST
from ._options import _LAZY as LAZY
from ._options import read_options
from ._reduce import Reductions
from ._reduce import _check_no_options as check_no_options


class FeatureTensors(Reductions):
    """Matrices and tensors of features, of variables such as `Vi(x, feature_ndim=2)`.

    At least one feature axis always stays: where an operation leaves a single number, it has size 1.
    """

    __slots__ = ()

    if TYPE_CHECKING:  # what LazyTensor has
        _features: Any

    @property
    def _feature_shape(self) -> tuple[int, ...]:
        return tuple(self._aval.shape) or (1,)

    # Shapes.

    @staticmethod
    def stack(tensors: Any, axis: Any = -1) -> Any:
        """LazyTensors along a new feature axis, the last one by default; scalar formulas become a vector.

        Features of size 1 broadcast.

        Args:
            tensors: a sequence of LazyTensors, arrays and numbers, at least one of them a LazyTensor.
            axis: where the new axis stands in the shape of the result, among the features.

        Returns:
            A LazyTensor, in the dtype that they promote to.

        Raises:
            ValueError: where shapes do not fit, or axis is not one of the features.

        Example:
            >>> import jax.numpy as jnp
            >>> from lazyjax import LazyTensor, Vi, Vj
            >>> x, y = Vi(jnp.ones((4, 3))), Vj(jnp.ones((5, 3)))
            >>> LazyTensor.stack([x, y]).shape, LazyTensor.stack([x | y, 1.0, x.norm2()]).shape
            ((4, 5, 3, 2), (4, 5, 3))
        """
        head, rest = _operands("stack", tensors)
        shapes = [t._feature_shape for t in (head, *rest)]
        rank = max(map(len, shapes))
        shape = (1,)
        for s in shapes:
            fits = len(s) == rank or math.prod(s) == 1
            wide = s if len(s) == rank else (1,) * rank
            if not fits or any(a != b and 1 not in (a, b) for a, b in zip(shape, wide, strict=False)):
                raise ValueError(f"stack: features of shapes {', '.join(map(str, shapes))}; they must be equal, or 1.")
            shape = tuple(max(a, b) for a, b in zip(shape if len(shape) == rank else (1,) * rank, wide, strict=True))
        new = rank if shape == (1,) else rank + 1
        k, pairs = static_int(axis, "axis", "stack"), len(head._shape) - len(head._feature_shape)
        at = k if k < 0 else k - pairs - new
        if not -new <= at < 0:
            raise ValueError(
                f"stack: axis={axis}, expected -1 to {-new}, or {pairs} to {pairs + new - 1}: the result has {new} "
                "feature axes."
            )
        return head._record("stack", *rest, axis=at)

    def reshape_features(self, *shape: Any) -> Any:
        """The same features, row by row, in another shape.

        Args:
            *shape: the feature shape, as ints or as one tuple; one size may be -1.

        Returns:
            A LazyTensor of these feature axes, in the dtype of self.

        Raises:
            ValueError: where the shape does not hold the features. TypeError: where a size is no int.

        Example:
            >>> import jax.numpy as jnp
            >>> from lazyjax import Vi
            >>> Vi(jnp.ones((4, 6))).reshape_features(2, 3).shape, Vi(jnp.ones((4, 6))).reshape_features((-1, 2)).shape
            ((4, 1, 2, 3), (4, 1, 3, 2))
        """
        name = "reshape_features"
        given = shape[0] if len(shape) == 1 and isinstance(shape[0], tuple | list) else shape
        sizes = [static_int(s, "a size", name) for s in given]
        known = math.prod(s for s in sizes if s != -1)
        if sizes.count(-1) == 1 and known > 0 and self._features % known == 0:
            sizes[sizes.index(-1)] = self._features // known
        if not sizes or any(s < 1 for s in sizes) or math.prod(sizes) != self._features:
            raise ValueError(
                f"{name}: {tuple(given)} does not hold the {self._features} features of shape {self._feature_shape}."
            )
        return self if tuple(sizes) == self._feature_shape else self._record(name, shape=tuple(sizes))

    def transpose_features(self, *axes: Any) -> Any:
        """The feature axes in another order, as `numpy.transpose`. `T` exchanges i and j instead.

        Args:
            *axes: axis k of the result is feature axis axes[k] of self; ints from 0 or from the end, or one tuple of
                them. Without axes their order is reversed.

        Returns:
            A LazyTensor, in the dtype of self.

        Raises:
            ValueError: where the axes are not each of the feature axes once. TypeError: where one is no int.

        Example:
            >>> import jax.numpy as jnp
            >>> from lazyjax import Vi
            >>> A = Vi(jnp.ones((5, 2, 3, 4)), feature_ndim=3)
            >>> A.transpose_features().shape, A.transpose_features(1, 0, 2).shape
            ((5, 1, 4, 3, 2), (5, 1, 3, 2, 4))
        """
        name, rank = "transpose_features", len(self._feature_shape)
        given = axes[0] if len(axes) == 1 and isinstance(axes[0], tuple | list) else axes
        order = tuple(static_int(a, "an axis", name) for a in given) or tuple(reversed(range(rank)))
        if sorted(a % rank if -rank <= a < rank else rank for a in order) != list(range(rank)):
            raise ValueError(f"{name}: axes {order}, expected each of the feature axes 0 to {rank - 1} once.")
        return self._record(name, axes=tuple(a % rank for a in order))

    @property
    def mT(self) -> Any:  # noqa: N802  (the name of the array API standard)
        """The transposed matrices: the last two feature axes exchanged, as in the array API. `T` exchanges i and j.

        Raises:
            ValueError: where there are less than two feature axes.

        Example:
            >>> from lazyjax import Vi
            >>> Vi([[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]], feature_ndim=2).mT.sum(axis=1).tolist()
            [[[1.0, 4.0], [2.0, 5.0], [3.0, 6.0]]]
        """
        rank = len(self._feature_shape)
        if rank < 2:
            raise ValueError(f"mT: the features have shape {self._feature_shape}, expected matrices (..., D1, D2).")
        return self._record("transpose_features", axes=(*range(rank - 2), rank - 1, rank - 2))

    # Products.

    def matmul(self, other: Any) -> Any:
        """The matrix product of every pair, over the last two feature axes, as `numpy.matmul`; vectors are allowed.

        `K @ b` is the kernel product instead, a sum over j.

        Args:
            other: a LazyTensor; or an array as in every operator, a vector or (*B, M, 1, D), ...: for a constant
                matrix give Pm(matrix, feature_ndim=2).

        Returns:
            A LazyTensor, in the dtype that the operands promote to.

        Raises:
            ValueError: where the sizes do not fit.

        Example:
            >>> import jax.numpy as jnp
            >>> from lazyjax import Vi, Vj
            >>> A, x = Vi(jnp.ones((4, 2, 3)), feature_ndim=2), Vj(jnp.ones((5, 3)))
            >>> A.matmul(x).shape
            (4, 5, 2)
        """
        other = self._lift(other, "matmul")
        a, b = self._feature_shape, other._feature_shape
        lead = [x != y and 1 not in (x, y) for x, y in zip(reversed(a[:-2]), reversed(b[:-2]), strict=False)]
        if a[-1] != b[-1 if len(b) == 1 else -2] or any(lead):
            raise ValueError(
                f"matmul: features of shapes {a} and {b} do not multiply; expected (..., A, B) and (..., B, C), either "
                "of them possibly a vector (B,)."
            )
        return self._record("matmul", other)

    @staticmethod
    def einsum(subscripts: Any, *operands: Any) -> Any:
        """`numpy.einsum` over the feature axes: one letter for each feature axis of each operand.

        A scalar formula may have no letter, and so may the result.

        Args:
            subscripts: such as "ab,b->a"; without "->" the letters that stand once, in alphabetical order.
            operands: LazyTensors, arrays and numbers, at least one of them a LazyTensor.

        Returns:
            A LazyTensor with an axis for each letter of the result, in the dtype that the operands promote to.

        Raises:
            ValueError: where the letters do not fit the operands. TypeError: where subscripts is no string.

        Example:
            >>> import jax.numpy as jnp
            >>> from lazyjax import LazyTensor, Vi, Vj
            >>> S, x, y = Vi(jnp.ones((4, 3, 3)), feature_ndim=2), Vi(jnp.ones((4, 3))), Vj(jnp.ones((5, 3)))
            >>> LazyTensor.einsum("a,ab,b->", x - y, S, x - y).shape
            (4, 5)
        """
        if not isinstance(subscripts, str):
            raise TypeError(f"einsum: subscripts are {show(subscripts)}, expected a string such as 'ab,b->a'.")
        head, rest = _operands("einsum", operands)
        text = subscripts.replace(" ", "")
        _check_subscripts(text, [t._feature_shape for t in (head, *rest)])
        return head._record("einsum", *rest, subscripts=text)

    # Square matrices.

    def trace(self) -> Any:
        """The sum of the diagonal of the last two feature axes.

        Returns:
            A LazyTensor without these axes, with one feature if there is no other.

        Raises:
            ValueError: where the features are not square matrices.

        Example:
            >>> from lazyjax import Vi
            >>> Vi([[[1.0, 2.0], [3.0, 4.0]]], feature_ndim=2).trace().sum(axis=1).tolist()
            [[5.0]]
        """
        self._square("trace")
        return self._record("trace")

    def det(self) -> Any:
        """The determinant of matrices of at most 4 by 4, the last two feature axes, written out in their entries.

        By cofactors, of 4 by 4 by 2 by 2 minors (Laplace's expansion): no pivots, so less accurate than
        `jnp.linalg.det` where the matrix is nearly singular. Larger matrices: `lift(jnp.linalg.det)`.

        Returns:
            A LazyTensor without these axes, with one feature if there is no other.

        Raises:
            ValueError: where the features are not square matrices, or are larger.

        Example:
            >>> from lazyjax import Vi
            >>> Vi([[[1.0, 2.0], [3.0, 4.0]]], feature_ndim=2).det().sum(axis=1).tolist()
            [[-2.0]]
        """
        self._square("det", LARGEST)
        return self._record("det")

    def inv(self) -> Any:
        """The inverse of matrices of at most 4 by 4, the last two feature axes: cofactors over the determinant.

        A singular matrix has infinite or NaN entries. It is computed for every pair: a matrix that belongs to points
        is better inverted before, once for each, with `jnp.linalg.inv`. Larger matrices: `lift(jnp.linalg.inv)`.

        Returns:
            A LazyTensor of the shape of self, integers as floats.

        Raises:
            ValueError: where the features are not square matrices, or are larger.

        Example:
            >>> from lazyjax import LazyTensor, Vi, Vj
            >>> S = Vi([[[2.0, 1.0], [1.0, 1.0]]], feature_ndim=2)
            >>> S.inv().sum(axis=1).tolist()
            [[[1.0, -1.0], [-1.0, 2.0]]]
            >>> d = Vi([[1.0, 2.0]]) - Vj([[0.0, 0.0], [1.0, 1.0]])
            >>> LazyTensor.einsum("a,ab,b->", d, S.inv(), d).dense().tolist()  # squared Mahalanobis distances
            [[5.0, 2.0]]
        """
        self._square("inv", LARGEST)
        return self._record("inv")

    def _square(self, name: str, largest: int | None = None) -> None:
        shape = self._feature_shape
        if len(shape) < 2 or shape[-1] != shape[-2]:
            raise ValueError(
                f"{name}: the features have shape {shape}, expected square matrices (..., D, D): "
                "Vi(x, feature_ndim=2), or x.reshape_features(D, D)."
            )
        if largest is not None and shape[-1] > largest:
            raise ValueError(
                f"{name}: the features are matrices of {shape[-1]} by {shape[-1]}, expected at most {largest} by "
                f"{largest}. For larger ones write lazyjax.lift(jnp.linalg.{name})(x)."
            )

    # Over feature axes.  With a single one these are the methods of `Reductions`.

    def _reduced(
        self, name: str, reduction: Any, axis: Any, dim: Any, options: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Any:
        weight = kwargs.get("weight")
        if weight is not None and len(weight._feature_shape) > len(self._feature_shape):
            score = self.reshape_features([1] * len(weight._feature_shape))  # which broadcasts against the weight
            return score._reduced(name, reduction, axis, dim, options, *args, **kwargs)
        axes = self._several(name, axis, dim, options, kwargs.get("default"))
        if axes is None:
            return super()._reduced(name, reduction, axis, dim, options, *args, **kwargs)
        if weight is not None:
            raise ValueError(f"{name}: a weight has no meaning over the features; give the i or the j axis.")
        return self._along(name, axes)

    def softmax(self, axis: Any = -1) -> Any:
        axes = self._several("softmax", axis)
        return super().softmax(axis) if axes is None else self._along("softmax", axes)

    def _spread(self, name: Any, axis: Any, dim: Any, ddof: Any, options: Any) -> Any:
        axes = self._several(name, axis, dim, options)
        if axes is None:
            return super()._spread(name, axis, dim, ddof, options)
        count = math.prod(self._feature_shape[a] for a in axes)
        new = (None if k in axes else slice(None) for k in range(-len(self._feature_shape), 0))
        mean = self._along("mean", axes)
        middle = mean if len(axes) == len(self._feature_shape) else mean[(Ellipsis, *new)]
        var = (self - middle).abs().square()._along("sum", axes) / max(float(count - ddof), 0.0)
        return var if name == "var" else var.sqrt()

    def count_nonzero(self, axis: Any = None, *, dim: Any = None, **options: Any) -> Any:
        if self._several("count_nonzero", axis, dim, options) is None:
            return super().count_nonzero(axis, dim=dim, **options)
        return self._truth("count_nonzero", "sum", None, axis, dim, options)

    def _truth(self, name: str, over_features: str, reduction: Any, axis: Any, dim: Any, options: Any) -> Any:
        axes = self._several(name, axis, dim, options)
        if axes is None:
            return super()._truth(name, over_features, reduction, axis, dim, options)
        tensor: Any = self if self.dtype == bool else self != 0
        return tensor._along(over_features, axes)

    def _several(
        self, name: str, axis: Any, dim: Any = None, options: Any = None, default: Any = -1
    ) -> tuple[int, ...] | None:
        """The feature axes that are named, of several; None where there is one, or others are named."""
        if axis is not None and dim is not None and axis != dim:
            return None  # which `Reductions` refuses
        chosen = next((a for a in (axis, dim, default) if a is not None), None)
        if len(self._feature_shape) == 1 and not isinstance(chosen, tuple | list):
            return None
        axes = feature_axes(self, chosen)
        if axes is not None:
            if name not in LAZY:
                raise ValueError(f"{name}: the features cannot be reduced by it; give the i or the j axis.")
            check_no_options(read_options(options or {}, name, None), options or {}, name)
        return axes

    def _along(self, name: str, axes: tuple[int, ...]) -> Any:
        if name.startswith("arg") and len(axes) > 1:
            raise ValueError(
                f"{name}: {len(axes)} feature axes, expected one; x.reshape_features(-1) makes one of all."
            )
        row = FEATURE_OPS[name]
        return self._record(row, shown=name) if axes == (-1,) else self._record(row, shown=name, axes=axes)


def _operands(name: str, tensors: Any) -> tuple[Any, list[Any]]:
    """The first operand and the others, as LazyTensors."""
    tensors = list(tensors)
    known = next((t for t in tensors if isinstance(t, FeatureTensors)), None)
    if known is None:
        raise ValueError(f"{name}: expected at least one LazyTensor among the operands, got {show(tensors)}.")
    head, *rest = [known._lift(t, name, f"operand {k}") for k, t in enumerate(tensors)]
    return head, rest


def _check_subscripts(text: str, shapes: list[tuple[int, ...]]) -> None:
    inputs, arrow, output = text.partition("->")
    terms = inputs.split(",")
    if not all(c.isalpha() and c.isascii() for c in text.replace(",", "").replace("->", "")) or text.count("->") > 1:
        raise ValueError(f"einsum: {text!r} may hold letters, commas and one '->'; every feature axis has a letter.")
    if len(terms) != len(shapes):
        raise ValueError(f"einsum: {text!r} is about {len(terms)} operands, but there are {len(shapes)}.")
    sizes: dict[str, int] = {}
    for k, (term, shape) in enumerate(zip(terms, shapes, strict=True)):
        if len(term) != len(shape) and not (term == "" and shape == (1,)):
            raise ValueError(
                f"einsum: {text!r} gives operand {k} the letters {term!r}, but its features have shape {shape}: one "
                "letter for each axis."
            )
        for letter, size in zip(term, shape, strict=False):
            if sizes.setdefault(letter, size) != size:
                raise ValueError(
                    f"einsum: in {text!r} the letter {letter!r} stands for axes of sizes {sizes[letter]} and {size}."
                )
    wrong = [c for c, count in collections.Counter(output).items() if count > 1 or c not in sizes]
    if arrow and wrong:
        raise ValueError(
            f"einsum: the result of {text!r} has the letter {wrong[0]!r} twice, or it stands in no operand."
        )
