"""LazyTensor: arrays and a recorded expression, as a pytree; operators and methods that record more of it."""

from __future__ import annotations

import html
import operator
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from . import _formula
from ._errors import show, static_int
from ._ops import OPS
from ._reduce import Reductions
from ._tape import Instruction, Leaf, Operand, Tape, join, node_avals, result_aval
from ._variables import checked_array, data_leaf, is_array, leaf_aval, leaf_sizes, number_leaf, variable_leaf

Sizes = tuple[tuple[Any, ...], Any, Any]  # batch dims, M, N (None where no variable has that axis)


@jax.tree_util.register_pytree_with_keys_class
class LazyTensor(Reductions):
    """A symbolic array of shape (*B, M, N, D), computed pair by pair when it is reduced, never stored.

    Args:
        x: the data. An array of shape (*B, M, 1, D) is an i-variable, (*B, 1, N, D) a j-variable,
            (*B, 1, 1, D) a parameter; (D,), a 0-D array, a number or a list of numbers a parameter.
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

    __slots__ = ("_cached_aval", "_cached_sizes", "_data", "_node", "_tape")
    __array_priority__ = 1000  # NumPy arrays on the left hand over to the reflected operators
    __hash__ = None  # type: ignore[assignment]  # == is an element-wise comparison

    _tape: Tape
    _node: int
    _data: tuple[Any, ...]

    if TYPE_CHECKING:  # the methods of the table of operations, attached below

        def __getattr__(self, name: str) -> Any: ...

    def __init__(self, x: Any, axis: Any = None):
        if isinstance(x, LazyTensor):
            if axis is not None:
                raise ValueError(f"LazyTensor: x is a LazyTensor already, so axis={axis!r} must not be given.")
            self._set(x._tape, x._node, x._data)
            return
        leaf, data = data_leaf(x, axis, "LazyTensor")
        self._set(Tape((leaf,), ()), -1, (data,))

    def _set(self, tape: Tape, node: int, data: tuple[Any, ...], aval: Any = None, sizes: Sizes | None = None) -> None:
        self._tape, self._node, self._data = tape, node, data
        self._cached_aval, self._cached_sizes = aval, sizes

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
        keyed = [(jax.tree_util.SequenceKey(k), d) for k, d in enumerate(self._data)]
        return keyed, (self._tape, self._node)

    def tree_flatten(self) -> tuple[Any, Any]:
        return self._data, (self._tape, self._node)

    @classmethod
    def tree_unflatten(cls, aux: Any, children: Sequence[Any]) -> LazyTensor:
        return cls._make(*aux, tuple(children))

    def __reduce__(self) -> Any:
        return LazyTensor._make, (self._tape, self._node, self._data)

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
        """The NumPy-friendly shape: as `_shape`, with a trailing feature axis of size 1 hidden."""
        full = self._shape
        return full[:-1] if full[-1] == 1 and len(self._aval.shape) <= 1 else full

    @property
    def ndim(self) -> int:
        """len(shape)."""
        return len(self.shape)

    @property
    def nbatchdims(self) -> int:
        """How many batch dims stand before the i axis."""
        return len(self._sizes[0])

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the values."""
        return np.dtype(self._aval.dtype)

    def dim(self) -> int:
        """The number of axes of `_shape`, as in PyTorch."""
        return len(self._shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __bool__(self) -> bool:
        raise TypeError(
            f"The truth value of a LazyTensor of shape {self.shape} is ambiguous: its values are not computed. "
            "Reduce it first, or combine conditions with & and |."
        )

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(
            f"A LazyTensor of shape {self.shape} is not an array: its values are not computed. Reduce it first, for "
            "instance with .sum(axis=1)."
        )

    def __repr__(self) -> str:
        return _formula.describe(self)

    def _repr_html_(self) -> str:
        return f"<code>{html.escape(repr(self))}</code>"

    # Recording.

    def _operand(self) -> Operand:
        return Operand(self._tape, self._node, self._data)

    def _lift(self, x: Any, name: str, argument: str = "other") -> LazyTensor:
        """Any operand as a LazyTensor."""
        if isinstance(x, LazyTensor):
            return x
        if type(x) in (int, bool):
            return LazyTensor._make(Tape((), (Instruction("constant", (("kind", type(x).__name__), ("value", x)), ()),)), 0, ())
        if isinstance(x, str) or x is None or (not is_array(x) and not isinstance(x, float | complex | list | tuple)):
            raise TypeError(
                f"{name}: {argument} is {show(x)}, expected a LazyTensor, an array or a number."
            )
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
            _check_features(name, avals)
        if op in _ORDERED and any(jnp.issubdtype(a.dtype, jnp.complexfloating) for a in avals):
            kinds = " and ".join(str(a.dtype) for a in avals)
            raise TypeError(f"{name}: the features are {kinds}, expected real numbers: complex numbers have no order.")
        instruction = (op, tuple(sorted(params.items())))
        return extend(instruction, operands, avals, name)

    # Operators. Each accepts LazyTensors, arrays and numbers on either side.

    def __pow__(self, other: Any) -> LazyTensor:
        if type(other) is int:
            return self._record("square") if other == 2 else self._record("integer_power", exponent=other)
        if type(other) is float and other in (0.5, -0.5):
            return self._record("sqrt" if other > 0 else "rsqrt")
        return self._record("power_of", other, shown="**")

    def power(self, other: Any) -> LazyTensor:
        """`x ** other`."""
        return self**other

    def __rpow__(self, other: Any) -> LazyTensor:
        return self._lift(other, "**")._record("power_of", self, shown="**")

    def __pos__(self) -> LazyTensor:
        return self

    def __abs__(self) -> LazyTensor:
        return self.abs()

    def __invert__(self) -> LazyTensor:
        if self.dtype != bool:
            raise TypeError(f"~x: x is {self.dtype}, expected bool. Write (x == 0), or compare first.")
        return self._record("logical_not")

    def __and__(self, other: Any) -> LazyTensor:
        return self._logical_and(other)

    def __rand__(self, other: Any) -> LazyTensor:
        return self._logical_and(other)

    def _logical_and(self, other: Any) -> LazyTensor:
        other = self._lift(other, "&")
        if self.dtype != bool or other.dtype != bool:
            raise TypeError(f"x & y: dtypes {self.dtype} and {other.dtype}, expected bool and bool.")
        return self._record("logical_and", other, shown="&")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        """NumPy functions record themselves: np.exp(K) is K.exp()."""
        name = _UFUNCS.get(ufunc.__name__)
        if method != "__call__" or kwargs or name is None:
            raise TypeError(
                f"np.{ufunc.__name__}{'' if method == '__call__' else '.' + method} is not available on a LazyTensor"
                f"{' with ' + ', '.join(kwargs) if kwargs else ''}. Use its methods, or lazyjax.lift for any "
                "other function of one pair."
            )
        first, *rest = inputs
        if name == "matmul" and not isinstance(first, LazyTensor):
            return self.__rmatmul__(first)
        first = self._lift(first, f"np.{ufunc.__name__}")
        return _OPERATORS[name](first, *rest) if name in _OPERATORS else getattr(first, name)(*rest)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        raise TypeError(
            f"np.{func.__name__} is not available on a LazyTensor, whose values are not computed. Use its methods, "
            "which say over which axis they go: sum, min, where, concatenate and so on."
        )

    # Indexing the features.

    def __getitem__(self, key: Any) -> LazyTensor:
        """Features by an int or a slice: x[..., k], x[..., a:b:c], x[:, :, k]; also x[k]."""
        if isinstance(key, tuple) or key is Ellipsis:
            key = self._feature_key(key if isinstance(key, tuple) else (key,))
        size = self._shape[-1]
        if isinstance(key, slice):
            for part, value in (("start", key.start), ("stop", key.stop), ("step", key.step)):
                if value is not None:
                    static_int(value, part, "indexing")
            start, stop, step = key.indices(size)
            if len(range(start, stop, step)) == 0:
                raise IndexError(f"x[..., {key.start}:{key.stop}:{key.step}] is empty: the features are 0 to {size - 1}.")
        else:
            k = static_int(key, "the index", "indexing")
            if not -size <= k < size:
                raise IndexError(f"x[..., {k}]: index {k} is out of range for {size} features.")
            start, stop, step = k % size, k % size + 1, 1
        return self._record("take", start=start, stop=stop, step=step)

    def _feature_key(self, key: tuple[Any, ...]) -> Any:
        full = len(self._shape)
        if Ellipsis in [k for k in key if k is Ellipsis]:
            at = next(i for i, k in enumerate(key) if k is Ellipsis)
            key = (*key[:at], *[slice(None)] * (full - len(key) + 1), *key[at + 1 :])
        if len(key) != full or any(not (isinstance(k, slice) and k == slice(None)) for k in key[:-1]):
            raise IndexError(
                f"x[{', '.join(map(_show_index, key))}] on shape {self._shape}: only the last axis, the features, can be "
                "indexed; the axes of a LazyTensor's pairs are not in memory. Index the data before."
            )
        return key[-1]

    def __iter__(self) -> Any:
        raise TypeError("A LazyTensor cannot be iterated: its rows are not in memory. Index features with x[..., k].")

    def elem(self, i: Any) -> LazyTensor:
        """Feature i, as a scalar."""
        i = static_int(i, "i", "elem")
        if not 0 <= i < self._shape[-1]:
            raise IndexError(f"elem({i}): index {i} is out of range for {self._shape[-1]} features.")
        return self[i]

    def extract(self, i: Any, d: Any) -> LazyTensor:
        """Features i to i + d."""
        i, d, size = static_int(i, "i", "extract"), static_int(d, "d", "extract"), self._shape[-1]
        if not (0 <= i < size and 1 <= d <= size - i):
            raise IndexError(f"extract({i}, {d}): features {i} to {i + d} are out of range for {size} features.")
        return self[i : i + d]

    def concat(self, other: Any) -> LazyTensor:
        """The features of self, then those of other."""
        return self._record("concat", other)

    @staticmethod
    def concatenate(tensors: Sequence[Any], axis: Any = -1) -> LazyTensor:
        """The features of several LazyTensors, one after the other; `axis` must be the last one."""
        tensors = list(tensors)
        if not tensors or not any(isinstance(t, LazyTensor) for t in tensors):
            raise ValueError(f"concatenate: expected a sequence with at least one LazyTensor, got {show(tensors)}.")
        first = next(t for t in tensors if isinstance(t, LazyTensor))
        if static_int(axis, "axis", "concatenate") not in (-1, len(first._shape) - 1):
            raise ValueError(f"concatenate: axis={axis}, expected -1: only features can be concatenated.")
        head, *rest = [first._lift(t, "concatenate") for t in tensors]
        return head._record("concat", *rest) if rest else head

    @staticmethod
    def cat(tensors: Sequence[Any], dim: Any = -1) -> LazyTensor:
        """`concatenate` under PyTorch's name."""
        return LazyTensor.concatenate(tensors, dim)

    # Methods with arguments that need a check.

    def norm(self, dim: Any = -1) -> LazyTensor:
        """The Euclidean norm over the features."""
        if static_int(dim, "dim", "norm") not in (-1, len(self._shape) - 1):
            raise ValueError(f"norm: dim={dim}, expected -1: a norm is over the features.")
        return self.norm2()

    def round(self, decimals: Any = 0) -> LazyTensor:
        """Round to `decimals` places, half away from zero."""
        return self._record("round", decimals=static_int(decimals, "decimals", "round"))

    def mod(self, modulus: Any, offset: Any = 0) -> LazyTensor:
        """x modulo `modulus`, in [offset, offset + modulus)."""
        return self._record("mod", modulus, offset)

    def weightedsqnorm(self, s: Any) -> LazyTensor:
        """s |x|^2 for a scalar s, sum_k s_k x_k^2 for D weights, x^T S x for D*D weights."""
        s = self._lift(s, "weightedsqnorm", "s")
        d, size = self._shape[-1], s._shape[-1]
        if size not in (1, d, d * d):
            raise ValueError(f"weightedsqnorm: s has {size} features, expected 1, D = {d} or D * D = {d * d}.")
        return self._record("weightedsqnorm", s)

    def weightedsqdist(self, y: Any, s: Any) -> LazyTensor:
        """`(x - y).weightedsqnorm(s)`."""
        return (self - y).weightedsqnorm(s)

    # Transposition.

    @property
    def T(self) -> LazyTensor:
        """i and j exchanged."""
        leaves = tuple(leaf.swapped() for leaf in self._tape.leaves)
        batch, m, n = self._sizes
        return LazyTensor._make(Tape(leaves, self._tape.code), self._node, self._data, self._cached_aval, (batch, n, m))

    def t(self) -> LazyTensor:
        """i and j exchanged, as `T`."""
        return self.T


def _show_index(k: Any) -> str:
    return ":" if isinstance(k, slice) and k == slice(None) else str(k)


def _check_features(name: str, avals: Sequence[Any]) -> None:
    """Features broadcast if their sizes are equal or 1."""
    shapes = [a.shape or (1,) for a in avals]
    for k in range(1, len(shapes)):
        if len(shapes[0]) != len(shapes[k]) and 1 not in (np.prod(shapes[0]), np.prod(shapes[k])):
            raise ValueError(f"{name}: feature shapes {shapes[0]} and {shapes[k]} have different numbers of axes.")
    try:
        np.broadcast_shapes(*shapes)
    except ValueError:
        sizes = " and ".join(str(s[0] if len(s) == 1 else s) for s in shapes)
        raise ValueError(
            f"{name}: operands have {sizes} features; their sizes must be equal, or 1."
        ) from None


def common_sizes(a: Sizes, b: Sizes, name: str) -> Sizes:
    (batch_a, m_a, n_a), (batch_b, m_b, n_b) = a, b
    rows = []
    for axis, own, other in (("M", m_a, m_b), ("N", n_a, n_b)):
        if own is not None and other is not None and own != other:
            letter = "i" if axis == "M" else "j"
            raise ValueError(
                f"{name}: the {letter}-variables of the operands have {axis} = {own} and {axis} = {other} rows, "
                "expected the same number."
            )
        rows.append(other if own is None else own)
    if batch_a == batch_b:
        return batch_a, rows[0], rows[1]
    try:
        batch = jnp.broadcast_shapes(batch_a, batch_b)
    except ValueError:
        raise ValueError(
            f"{name}: batch dims {batch_a} and {batch_b} do not broadcast; sizes must be equal, or 1."
        ) from None
    return tuple(batch), rows[0], rows[1]


def extend(instruction: tuple[str, Any], operands: Sequence[LazyTensor], avals: Sequence[Any], name: str) -> LazyTensor:
    """A LazyTensor that applies one more instruction to the operands."""
    sizes = operands[0]._sizes
    for operand in operands[1:]:
        sizes = common_sizes(sizes, operand._sizes, name)
    leaves, code, data, nodes = join([o._operand() for o in operands])
    new = Instruction(*instruction, tuple(nodes))
    try:
        aval = result_aval(new, avals)
    except TypeError as error:
        kinds = ", ".join(show(a) for a in avals)
        raise TypeError(f"{name} is not defined for features {kinds}: {str(error).splitlines()[0]}") from None
    try:
        node = code.index(new)
    except ValueError:
        code.append(new)
        node = len(code) - 1
    return LazyTensor._make(Tape(leaves, tuple(code)), node, data, aval, sizes)


_OPERATORS: dict[str, Callable[..., Any]] = {
    "add": operator.add, "subtract": operator.sub, "multiply": operator.mul, "divide": operator.truediv,
    "floor_divide": operator.floordiv, "remainder": operator.mod, "power": operator.pow, "negative": operator.neg,
    "positive": operator.pos, "matmul": operator.matmul, "equal": operator.eq, "not_equal": operator.ne,
    "less": operator.lt, "less_equal": operator.le, "greater": operator.gt, "greater_equal": operator.ge,
    "logical_and": operator.and_, "bitwise_and": operator.and_, "logical_or": operator.or_, "bitwise_or": operator.or_,
    "logical_not": operator.invert, "invert": operator.invert, "absolute": operator.abs,
}  # fmt: skip

_UFUNCS = {name: name for name in _OPERATORS} | {
    "exp": "exp", "exp2": "exp2", "expm1": "expm1", "log": "log", "log1p": "log1p", "sin": "sin", "cos": "cos",
    "tan": "tan", "arcsin": "asin", "arccos": "acos", "arctan": "atan", "sinh": "sinh", "cosh": "cosh",
    "tanh": "tanh", "arcsinh": "asinh", "arccosh": "acosh", "arctanh": "atanh", "sqrt": "sqrt", "square": "square",
    "cbrt": "cbrt", "sign": "sign", "floor": "floor", "ceil": "ceil", "arctan2": "atan2", "minimum": "minimum",
    "maximum": "maximum", "isfinite": "isfinite", "float_power": "power", "true_divide": "divide", "fabs": "abs",
}  # fmt: skip

_DUNDERS = {
    "add": ("add", "+"), "sub": ("subtract", "-"), "mul": ("multiply", "*"), "truediv": ("divide", "/"),
    "floordiv": ("floor_divide", "//"), "mod": ("remainder", "%"), "or": ("scalar_product", "|"),
}  # fmt: skip
_COMPARISONS = {
    "eq": ("equal", "=="), "ne": ("not_equal", "!="), "lt": ("less", "<"), "le": ("less_equal", "<="),
    "gt": ("greater", ">"), "ge": ("greater_equal", ">="),
}  # fmt: skip
_INTERNAL = {"add", "subtract", "multiply", "divide", "floor_divide", "remainder", "power_of", "integer_power",
             "negative", "scalar_product", "take", "concat", "round", "mod", "weightedsqnorm"}  # fmt: skip


_ORDERED = {"less", "less_equal", "greater", "greater_equal", "minimum", "maximum", "clamp", "step", "relu", "atan2",
            "min_features", "max_features", "argmin_features", "argmax_features"}  # fmt: skip


def _attach() -> None:
    """Methods and operators of the table of operations."""

    def binary(op: str, symbol: str, reflected: bool) -> Callable[..., Any]:
        def method(self: LazyTensor, other: Any) -> LazyTensor:
            if reflected:
                return self._lift(other, symbol)._record(op, self, shown=symbol)
            return self._record(op, other, shown=symbol)

        return method

    for dunder, (op, symbol) in _DUNDERS.items():
        setattr(LazyTensor, f"__{dunder}__", binary(op, symbol, False))
        setattr(LazyTensor, f"__r{dunder}__", binary(op, symbol, True))
    for dunder, (op, symbol) in _COMPARISONS.items():
        setattr(LazyTensor, f"__{dunder}__", binary(op, symbol, False))
    setattr(LazyTensor, "__neg__", lambda self: self._record("negative"))  # noqa: B010
    for name, row in OPS.items():
        if name in _INTERNAL or name.endswith("_features"):
            continue

        def method(self: LazyTensor, *others: Any, _name: str = name, _row: Any = row) -> LazyTensor:
            if len(others) != _row.arity - 1:
                raise TypeError(f"{_name} takes {_row.arity - 1} more operands, got {len(others)}.")
            return self._record(_name, *others)

        method.__name__, method.__qualname__ = name, f"LazyTensor.{name}"
        method.__doc__ = f"Element-wise or over the features: {row.doc}."
        setattr(LazyTensor, name, method)


_attach()


def Vi(x: Any, dim: Any = None, *, feature_ndim: Any = 1) -> LazyTensor:
    """An i-variable of shape (*B, M, D); or, with `dim`, the symbolic i-variable of that index.

    Example:
        >>> import jax.numpy as jnp
        >>> from lazyjax import Vi
        >>> Vi(jnp.ones((10, 3))).shape
        (10, 1, 3)
    """
    return LazyTensor._of_leaf(*variable_leaf(x, dim, "i", feature_ndim, "Vi"))


def Vj(x: Any, dim: Any = None, *, feature_ndim: Any = 1) -> LazyTensor:
    """A j-variable of shape (*B, N, D); or, with `dim`, the symbolic j-variable of that index."""
    return LazyTensor._of_leaf(*variable_leaf(x, dim, "j", feature_ndim, "Vj"))


def Pm(x: Any, dim: Any = None, *, feature_ndim: Any = 1) -> LazyTensor:
    """A parameter: a number, (D,) or (*B, D); or, with `dim`, the symbolic parameter of that index."""
    if type(x) is int and dim is None:
        x = np.asarray(x)
    return LazyTensor._of_leaf(*variable_leaf(x, dim, "p", feature_ndim, "Pm"))
