"""LazyTensor: arrays and a recorded expression, as a pytree.  Operators, methods and reductions are mixins."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import _formula
from ._algebra import Algebra
from ._complex import Complex
from ._errors import show
from ._feature_tensors import FeatureTensors
from ._features import Features
from ._numpy import NumPyHabits
from ._operators import Operators
from ._ops import OPS
from ._products import Products
from ._ranges import Ranges, checked_form, common_ranges, exchanged
from ._reduce import Reductions
from ._solve import Solvers
from ._symbolic import Calculus
from ._tape import Instruction, Leaf, Operand, Tape, append, join, node_avals, result_aval
from ._variables import (
    Sizes,
    checked_array,
    common_sizes,
    data_leaf,
    is_array,
    leaf_aval,
    leaf_sizes,
    number_leaf,
    variable_leaf,
)  # fmt: skip
from ._views import Views


@jax.tree_util.register_pytree_with_keys_class
class LazyTensor(
    NumPyHabits, Operators, Features, Algebra, FeatureTensors, Complex, Reductions, Products, Solvers, Views, Calculus
):
    """A symbolic array of shape (*B, M, N, D), computed pair by pair when it is reduced, never stored.

    B are batch dims, M the i axis, N the j axis, D the features: one axis, or several (`Vi(x, feature_ndim=2)`).
    Operators record themselves: `+ - * / // % **`, comparisons, `& ~` of booleans, and `|`, the scalar product over
    all features (of booleans the logical or). Operands are LazyTensors, arrays and numbers; features broadcast, batch
    dims too, dtypes promote as in JAX. `K @ b` and reductions over i and j compute, and return arrays.

    Args:
        x: the data. An array of shape (*B, M, 1, D) is an i-variable, (*B, 1, N, D) a j-variable,
            (*B, 1, 1, D) a parameter; (D,), a 0-D array, a number or a list of numbers a parameter. Of dtype float16,
            bfloat16, float32, float64, complex64, complex128, bool, or an integer one. Or KeOps' symbolic variable
            (index, D, category), see `Vi`.
        axis: for an array of shape (M, D), and only then: 0 for an i-variable, 1 for a j-variable.

    Raises:
        TypeError, ValueError: for anything else, with the shapes that are accepted.

    A LazyTensor is a pytree: its leaves are the data arrays, its expression is static. It may be an argument
    or a result of functions under `jax.jit`, `vmap`, `scan`, `cond` and `checkpoint`.

    Example:
        >>> import jax.numpy as jnp
        >>> from lazyjax import LazyTensor
        >>> x, y = jnp.zeros((4, 3)), jnp.ones((5, 3))
        >>> D = ((LazyTensor(x[:, None, :]) - LazyTensor(y[None, :, :])) ** 2).sum(-1)
        >>> D.shape, D.argmin(axis=1).shape
        ((4, 5), (4, 1))
    """

    __slots__ = ("_cached_aval", "_cached_sizes", "_data", "_node", "_ranges", "_tape")

    _tape: Tape
    _node: int
    _data: tuple[Any, ...]
    _ranges: Ranges | None

    def __init__(self, x: Any, axis: Any = None):
        if isinstance(x, LazyTensor):
            if axis is not None:
                raise ValueError(f"LazyTensor: x is a LazyTensor already, so axis={axis!r} must not be given.")
            self._set(x._tape, x._node, x._data, ranges=x._ranges)
            return
        leaf, data = data_leaf(x, axis, "LazyTensor")
        self._set(Tape((leaf,), ()), -1, (data,))

    def _set(self, tape: Tape, node: int, data: tuple[Any, ...], aval: Any = None, sizes: Sizes | None = None,
             ranges: Ranges | None = None) -> None:  # fmt: skip
        self._tape, self._node, self._data = tape, node, data
        self._cached_aval, self._cached_sizes = aval, sizes
        self._ranges = ranges

    @classmethod
    def _of_leaf(cls, leaf: Leaf, data: Any) -> LazyTensor:
        return cls._make(Tape((leaf,), ()), -1, (data,))

    @classmethod
    def _make(cls, *args: Any) -> LazyTensor:
        self = object.__new__(cls)
        self._set(*args)
        return self

    # Pytree. Unflattening never looks at the data: JAX passes None, axis numbers and tracers through it.

    def tree_flatten_with_keys(self) -> tuple[Any, Any]:
        leaves, aux = self.tree_flatten()
        return [(jax.tree_util.SequenceKey(k), d) for k, d in enumerate(leaves)], aux

    def tree_flatten(self) -> tuple[Any, Any]:
        return (*self._data, *(self._ranges or ())), (self._tape, self._node, self._ranges is not None)

    @classmethod
    def tree_unflatten(cls, aux: Any, children: Sequence[Any]) -> LazyTensor:
        tape, node, sparse = aux
        data, ranges = tuple(children[: len(tape.leaves)]), tuple(children[len(tape.leaves) :])
        return cls._make(tape, node, data, None, None, ranges if sparse else None)

    def __reduce__(self) -> Any:
        return LazyTensor._make, (self._tape, self._node, self._data, None, None, self._ranges)

    # Shapes.

    @property
    def _aval(self) -> Any:
        if self._cached_aval is None:
            leaves = [leaf_aval(leaf, d) for leaf, d in zip(self._tape.leaves, self._data, strict=True)]
            avals = node_avals(self._tape, leaves)
            self._cached_aval = leaves[-1 - self._node] if self._node < 0 else avals[self._node]
        return self._cached_aval

    @property
    def _sizes(self) -> Sizes:
        if self._cached_sizes is None:
            sizes: Sizes = ((), None, None)
            for leaf, d in zip(self._tape.leaves, self._data, strict=True):
                batch, rows = leaf_sizes(leaf, d)
                own = (batch, rows if leaf.role == "i" else None, rows if leaf.role == "j" else None)
                sizes = common_sizes(sizes, own, "this formula")
            self._cached_sizes = sizes
        return self._cached_sizes

    @property
    def _shape(self) -> tuple[Any, ...]:
        """The full shape (*B, M, N, D), 1 where no variable has the axis."""
        batch, m, n = self._sizes
        features = self._aval.shape or (1,)
        return (*batch, 1 if m is None else m, 1 if n is None else n, *features)

    @property
    def shape(self) -> tuple[Any, ...]:
        """The NumPy-friendly shape: (*B, M, N, D), or (*B, M, N) where D is 1, as in KeOps.

        M or N is 1 where no variable has that axis. Reductions keep the feature axis, also of size 1.

        Example:
            >>> import jax.numpy as jnp
            >>> from lazyjax import Vi, Vj
            >>> x, y = Vi(jnp.ones((4, 3))), Vj(jnp.ones((5, 3)))
            >>> x.shape, (x - y).shape, x.sqdist(y).shape
            ((4, 1, 3), (4, 5, 3), (4, 5))
        """
        full = self._shape
        return full[:-1] if full[-1] == 1 and len(self._aval.shape) <= 1 else full

    @property
    def ndim(self) -> int:
        """The number of axes of `shape`, as in NumPy; KeOps has the number of features here.

        Example:
            >>> import jax.numpy as jnp
            >>> from lazyjax import Vi, Vj
            >>> x, y = Vi(jnp.ones((4, 3))), Vj(jnp.ones((5, 3)))
            >>> (x - y).ndim, x.sqdist(y).ndim
            (3, 2)
        """
        return len(self.shape)

    @property
    def nbatchdims(self) -> int:
        """How many batch dims stand before the i axis; so it is the number of the i axis.

        Example:
            >>> import jax.numpy as jnp
            >>> from lazyjax import Vi
            >>> Vi(jnp.ones((7, 4, 3))).nbatchdims
            1
        """
        return len(self._sizes[0])

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the values, a `numpy.dtype`: what JAX makes of the data under its promotion rules.

        Example:
            >>> import jax.numpy as jnp
            >>> from lazyjax import Vi, Vj
            >>> (Vi(jnp.ones((4, 3), "bfloat16")) + Vj(jnp.ones((5, 3), "float32"))).dtype
            dtype('float32')
        """
        return np.dtype(self._aval.dtype)

    @property
    def ranges(self) -> Ranges | None:
        """The pairs that reductions keep, where they are not told otherwise by their option `ranges`; None for all.

        Six integer arrays, (ranges_i, slices_i, redranges_j, ranges_j, slices_j, redranges_i), as KeOps has them, of
        shapes (Mc, 2), (Mc,), (Mcc, 2), (Nc, 2), (Nc,), (Ncc, 2): rows ranges_i[k, 0] to ranges_i[k, 1] - 1 meet the
        columns of redranges_j[l] for slices_i[k - 1] <= l < slices_i[k]; the last three say the same of columns, and
        serve reductions over i and derivatives. `lazyjax.cluster.from_matrix` makes them. May be set; formulas made
        of this one have the same. Views, such as `dense`, show all values.

        A row without pairs has the result of nothing: 0 for a sum, inf and index -1 for a minimum. Work is
        proportional to the pairs that are kept. Wrong arrays raise an error; traced ones, whose numbers are not known,
        are clamped to the axes, and so are never read out of bounds, but must be right to give the right pairs.

        Raises:
            TypeError, ValueError: for anything but None or six integer arrays of these shapes; where K is reduced, for
                ranges out of bounds, that overlap, or whose two halves keep different pairs.

        Example:
            >>> import jax.numpy as jnp
            >>> import numpy as np
            >>> from lazyjax import Vi, Vj
            >>> from lazyjax.cluster import from_matrix
            >>> K = Vi(jnp.ones((4, 1))) * Vj(jnp.ones((6, 1)))
            >>> rows, columns = np.array([[0, 2], [2, 4]]), np.array([[0, 1], [1, 6]])
            >>> K.ranges = from_matrix(rows, columns, np.array([[True, False], [True, True]]))
            >>> K.sum(axis=1, keepdims=False).tolist()
            [1.0, 1.0, 6.0, 6.0]
        """
        return self._ranges

    @ranges.setter
    def ranges(self, value: Any) -> None:
        self._ranges = checked_form(value, "K.ranges = ...")

    def dim(self) -> int:
        """The number of axes of (*B, M, N, D), as in PyTorch and KeOps; `ndim` does not count features of size 1.

        Returns:
            An int.

        Example:
            >>> import jax.numpy as jnp
            >>> from lazyjax import Vi, Vj
            >>> Vi(jnp.ones((4, 3))).sqdist(Vj(jnp.ones((5, 3)))).dim()
            3
        """
        return len(self._shape)

    def __repr__(self) -> str:
        return _formula.describe(self)

    def _repr_html_(self) -> str:
        return _formula.describe_html(self)

    # Recording.

    def _operand(self) -> Operand:
        return Operand(self._tape, self._node, self._data)

    def _lift(self, x: Any, name: str, argument: str = "other") -> LazyTensor:
        """Any operand as a LazyTensor."""
        if isinstance(x, LazyTensor):
            return x
        if type(x) in (int, bool):
            return LazyTensor._make(
                Tape((), (Instruction("constant", (("kind", type(x).__name__), ("value", x)), ()),)), 0, ()
            )
        if isinstance(x, str) or x is None or (not is_array(x) and not isinstance(x, float | complex | list | tuple)):
            hint = " Whether K is None is asked by `K is None`." if x is None else ""
            raise TypeError(f"{name}: {argument} is {show(x)}, expected a LazyTensor, an array or a number.{hint}")
        if isinstance(x, list | tuple):
            x = checked_array(x, f"{name}: {argument}")
        if np.ndim(x) == 2:
            raise ValueError(
                f"{name}: {argument} is {show(x)}, a 2-D array, which may be an i- or a j-variable. Say which: Vi(x) "
                "for (M, D), Vj(x) for (N, D), Pm(x) for a parameter with a batch dim."
            )
        if np.ndim(x) > 2:
            return LazyTensor._of_leaf(*data_leaf(x, None, f"{name}: {argument}"))
        return LazyTensor._of_leaf(*number_leaf(x, f"{name}: {argument}"))

    def _record(self, op: str, *others: Any, shown: str | None = None, **params: Any) -> LazyTensor:
        """This operation on self and others: validated at once, computed later."""
        row, name = OPS[op], shown or op
        operands = [self, *(self._lift(o, name) for o in others)]
        avals = [o._aval for o in operands]
        if row.broadcast:
            _check_features(name, tuple(a.shape or (1,) for a in avals))
        check_order(op, name, avals)
        instruction = (op, tuple(sorted(params.items())))
        return extend(instruction, operands, avals, name)

    # Transposition.

    @property
    def T(self) -> LazyTensor:
        """i and j exchanged: of shape (*B, N, M, D). `mT` transposes the features, matrices.

        Example:
            >>> from lazyjax import Vi, Vj
            >>> K = Vi([[1.0], [2.0]]) - Vj([[1.0], [10.0], [100.0]])
            >>> K.shape, K.T.shape, K.T.sum(axis=1).tolist() == K.sum(axis=0).tolist()
            ((2, 3), (3, 2), True)
        """
        leaves = tuple(leaf.swapped() for leaf in self._tape.leaves)
        batch, m, n = self._sizes
        return LazyTensor._make(
            Tape(leaves, self._tape.code), self._node, self._data, self._cached_aval, (batch, n, m),
            exchanged(self._ranges),
        )  # fmt: skip

    def t(self) -> LazyTensor:
        """i and j exchanged, as `T`.

        Returns:
            A LazyTensor of shape (*B, N, M, D).

        Example:
            >>> from lazyjax import Vi, Vj
            >>> (Vi([[1.0], [2.0]]) - Vj([[1.0], [10.0], [100.0]])).t().shape
            (3, 2)
        """
        return self.T


# Operations that complex numbers have no order for.
_ORDERED = {"less", "less_equal", "greater", "greater_equal", "minimum", "maximum", "clamp", "step", "relu", "atan2",
            "ifelse", "one_hot", "bspline", "softdtw_sqdist", "min_features", "max_features",
            "argmin_features", "argmax_features"}  # fmt: skip


def check_order(op: str, name: str, avals: Sequence[Any]) -> None:
    """Complex numbers have no order."""
    if op in _ORDERED and any(jnp.issubdtype(a.dtype, jnp.complexfloating) for a in avals):
        kinds = " and ".join(str(a.dtype) for a in avals)
        raise TypeError(f"{name}: the features are {kinds}, expected real numbers: complex numbers have no order.")


@functools.lru_cache(maxsize=8192)
def _check_features(name: str, shapes: tuple[tuple[int, ...], ...]) -> None:
    """Features broadcast if their sizes are equal or 1."""
    for k in range(1, len(shapes)):
        if len(shapes[0]) != len(shapes[k]) and 1 not in (np.prod(shapes[0]), np.prod(shapes[k])):
            raise ValueError(f"{name}: feature shapes {shapes[0]} and {shapes[k]} have different numbers of axes.")
    try:
        np.broadcast_shapes(*shapes)
    except ValueError:
        sizes = " and ".join(str(s[0] if len(s) == 1 else s) for s in shapes)
        raise ValueError(f"{name}: operands have {sizes} features; their sizes must be equal, or 1.") from None


def extend(instruction: tuple[str, Any], operands: Sequence[LazyTensor], avals: Sequence[Any], name: str) -> LazyTensor:
    """A LazyTensor that applies one more instruction to the operands."""
    sizes = operands[0]._sizes
    for operand in operands[1:]:
        sizes = common_sizes(sizes, operand._sizes, name)
    tape, data, nodes = join([o._operand() for o in operands])
    new = Instruction(*instruction, nodes)
    try:
        aval = result_aval(new, avals)
    except TypeError as error:
        kinds = ", ".join(show(a) for a in avals)
        raise TypeError(f"{name} is not defined for features {kinds}: {str(error).splitlines()[0]}") from None
    return LazyTensor._make(*append(tape, new), data, aval, sizes, common_ranges(operands, name))


def Vi(x: Any, dim: Any = None, *, feature_ndim: Any = 1) -> LazyTensor:
    """An i-variable: one row of features for every i; or, with `dim`, a symbolic one.

    Args:
        x: an array (*B, M, D); with feature_ndim=2, 3, ... (*B, M, D1, D2, ...), a matrix or a tensor for every row.
            With `dim` the index of a symbolic variable: which of the arrays it stands for that the reduction is
            called with.
        dim: the number of features of a symbolic variable.
        feature_ndim: how many feature axes x has.

    Returns:
        A LazyTensor of shape (*B, M, 1, D). A reduction of a formula with symbolic variables is a function of arrays.

    Raises:
        ValueError: where x has too few axes. TypeError: where it is no array of a dtype that a formula can hold.

    Example:
        >>> import jax.numpy as jnp
        >>> from lazyjax import Vi, Vj
        >>> Vi(jnp.ones((10, 3))).shape, Vi(jnp.ones((10, 2, 3)), feature_ndim=2).shape
        ((10, 1, 3), (10, 1, 2, 3))
        >>> total = Vi(0, 3).sqdist(Vj(1, 3)).sum(axis=1)
        >>> total(jnp.zeros((4, 3)), jnp.ones((5, 3))).tolist()
        [[15.0], [15.0], [15.0], [15.0]]
    """
    return LazyTensor._of_leaf(*variable_leaf(x, dim, "i", feature_ndim, "Vi"))


def Vj(x: Any, dim: Any = None, *, feature_ndim: Any = 1) -> LazyTensor:
    """A j-variable: one row of features for every j; or, with `dim`, a symbolic one.

    Args:
        x: an array (*B, N, D), (*B, N, D1, D2, ...) with feature_ndim=2, 3, ...; with `dim` the index of a symbolic
            variable, as in `Vi`.
        dim: the number of features of a symbolic variable.
        feature_ndim: how many feature axes x has.

    Returns:
        A LazyTensor of shape (*B, 1, N, D).

    Raises:
        ValueError: where x has too few axes. TypeError: where it is no array of a dtype that a formula can hold.

    Example:
        >>> import jax.numpy as jnp
        >>> from lazyjax import Vi, Vj
        >>> Vj(jnp.ones((10, 3))).shape, (Vi(jnp.ones((4, 3))) * Vj(jnp.ones((10, 3)))).shape
        ((1, 10, 3), (4, 10, 3))
    """
    return LazyTensor._of_leaf(*variable_leaf(x, dim, "j", feature_ndim, "Vj"))


def Pm(x: Any, dim: Any = None, *, feature_ndim: Any = 1) -> LazyTensor:
    """A parameter, the same for all pairs; or, with `dim`, a symbolic one.

    Args:
        x: a number, an array (D,), or (*B, D) with batch dims; (*B, D1, D2, ...) with feature_ndim=2, 3, ... With
            `dim` the index of a symbolic variable, as in `Vi`. Python floats stay weakly typed, and new values of
            them do not compile again.
        dim: the number of features of a symbolic variable.
        feature_ndim: how many feature axes x has.

    Returns:
        A LazyTensor of shape (*B, 1, 1, D).

    Raises:
        ValueError: where x has less axes than feature_ndim. TypeError: where it is no array of a dtype that a formula
            can hold.

    Example:
        >>> import jax.numpy as jnp
        >>> from lazyjax import Pm, Vi
        >>> (Vi(jnp.ones((2, 3))) * Pm([1.0, 2.0, 3.0])).sum(-1).sum(axis=1).tolist()
        [[6.0], [6.0]]
        >>> Pm(jnp.eye(3), feature_ndim=2).matmul(Vi(jnp.ones((2, 3)))).shape
        (2, 1, 3)
    """
    if type(x) is int and dim is None:
        x = np.asarray(x)
    return LazyTensor._of_leaf(*variable_leaf(x, dim, "p", feature_ndim, "Pm"))
