"""What NumPy and Python make of a LazyTensor: each habit works, or raises an error that says what to write."""

from __future__ import annotations

import inspect
import math
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from ._errors import show

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

# np.sum(K, axis=1) is K.sum(axis=1).
_REDUCING = {
    "sum": "sum", "prod": "prod", "mean": "mean", "var": "var", "std": "std", "min": "min", "max": "max", "amin": "min",
    "amax": "max", "argmin": "argmin", "argmax": "argmax", "any": "any", "all": "all", "count_nonzero": "count_nonzero",
}  # fmt: skip

# Functions of NumPy that are not ufuncs, as methods.
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "shape": lambda x: x.shape,
    "ndim": lambda x: x.ndim,
    "size": lambda x: x.size,
    "transpose": lambda x: x.T,
    "diagonal": lambda x: x.diagonal(),
    "dot": lambda x, y: x @ y,
    "clip": lambda x, a_min, a_max: x.clamp(a_min, a_max),
    "round": lambda x, decimals=0: x.round(decimals),
    "where": lambda condition, x, y: _first_lazy(condition, x, y)._lift(condition, "np.where").where(x, y),
    "concatenate": lambda arrays, axis=0: _first_lazy(*arrays).concatenate(arrays, axis),
}


def _first_lazy(*operands: Any) -> Any:
    return next(x for x in operands if isinstance(x, NumPyHabits))


class NumPyHabits:
    """The protocols of arrays and of Python's numbers and containers."""

    __slots__ = ()
    __array_priority__ = 1000  # NumPy arrays on the left hand over to the reflected operators

    if TYPE_CHECKING:
        shape: Any
        _lift: Any
        __rmatmul__: Any

    @property
    def size(self) -> int:
        """How many values there are: the product of `shape`.

        Example:
            >>> import jax.numpy as jnp
            >>> from lazyjax import Vi, Vj
            >>> (Vi(jnp.ones((4, 3))) - Vj(jnp.ones((5, 3)))).size
            60
        """
        return math.prod(self.shape)

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
        if name == "matmul" and not isinstance(first, NumPyHabits):
            return self.__rmatmul__(first)
        first = self._lift(first, f"np.{ufunc.__name__}")
        return _OPERATORS[name](first, *rest) if name in _OPERATORS else getattr(first, name)(*rest)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        """np.sum(K, axis=1) is K.sum(axis=1); a few others work too."""
        name = func.__name__
        if name in _REDUCING:
            given = dict(zip(("a", "axis"), args, strict=False)) | kwargs
            tensor, axis = given.pop("a", None), given.pop("axis", None)
            if isinstance(tensor, NumPyHabits) and set(given) <= {"ddof"}:
                if axis is None:
                    raise TypeError(
                        f"np.{name} of a LazyTensor needs an axis: write K.{_REDUCING[name]}(axis='j'), 'i', 'ij' for "
                        "both, or -1 for the features."
                    )
                return getattr(tensor, _REDUCING[name])(axis=axis, **given)
        elif name in _FUNCTIONS:
            try:
                bound = inspect.signature(_FUNCTIONS[name]).bind(*args, **kwargs)
            except TypeError:  # options that it does not have
                pass
            else:
                return _FUNCTIONS[name](*bound.args, **bound.kwargs)
        raise TypeError(
            f"np.{name} is not available on a LazyTensor{' with ' + ', '.join(kwargs) if kwargs else ''}, whose values "
            "are not computed. Use its methods, which say over which axis they go: sum, min, where, concatenate and so "
            "on; or lazyjax.lift for a function of one pair; or K.dense() for a small array of all values."
        )

    def _refuse(self, what: str, instead: str) -> NoReturn:
        raise TypeError(f"{what} a LazyTensor of shape {self.shape}: its values are not computed. {instead}")

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(
            f"A LazyTensor of shape {self.shape} is not an array: its values are not computed. Reduce it first, for "
            "instance with .sum(axis=1), or make an array of all of them with .dense(), if it is small."
        )

    def __bool__(self) -> bool:
        raise TypeError(
            f"The truth value of a LazyTensor of shape {self.shape} is ambiguous: its values are not computed. "
            "Reduce it first, for instance with .any(axis=1), or combine conditions with & and |."
        )

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Any:
        raise TypeError("A LazyTensor cannot be iterated: its rows are not in memory. Index features with x[..., k].")

    def __contains__(self, x: Any) -> bool:
        self._refuse("`in` is not available on", f"Write (K == {show(x).split()[-1]}).any(axis=1).")

    def __hash__(self) -> int:
        raise TypeError(
            "unhashable type: a LazyTensor holds arrays, and == compares values. As a key take id(K); pass it to a "
            "jitted function as an ordinary argument, not as a static one."
        )

    def __float__(self) -> float:
        self._refuse("float() is not available on", "Reduce it first: float(K.sum(axis='ij')[0]).")

    def __int__(self) -> int:
        self._refuse("int() is not available on", "Reduce it first: int(K.sum(axis='ij')[0]).")

    def __complex__(self) -> complex:
        self._refuse("complex() is not available on", "Reduce it first: complex(K.sum(axis='ij')[0]).")
