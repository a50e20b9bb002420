"""Operators of a LazyTensor, and the methods of the table of operations."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ._op import Op
from ._op_docs import docstring, signature
from ._ops import OPS
from ._ops_algebra import ALGEBRA
from ._ops_tensors import TENSORS


class Operators:
    """Every operator accepts LazyTensors, arrays and numbers on either side."""

    __slots__ = ()

    if TYPE_CHECKING:  # what LazyTensor has, and what the tables below attach
        _record: Any
        _lift: Any
        dtype: Any
        __rmatmul__: Any

        def __getattr__(self, name: str) -> Any: ...
        def __add__(self, other: Any) -> Any: ...
        def __radd__(self, other: Any) -> Any: ...
        def __sub__(self, other: Any) -> Any: ...
        def __rsub__(self, other: Any) -> Any: ...
        def __mul__(self, other: Any) -> Any: ...
        def __rmul__(self, other: Any) -> Any: ...
        def __truediv__(self, other: Any) -> Any: ...
        def __rtruediv__(self, other: Any) -> Any: ...
        def __floordiv__(self, other: Any) -> Any: ...
        def __rfloordiv__(self, other: Any) -> Any: ...
        def __mod__(self, other: Any) -> Any: ...
        def __rmod__(self, other: Any) -> Any: ...
        def __or__(self, other: Any) -> Any: ...
        def __ror__(self, other: Any) -> Any: ...
        def __lt__(self, other: Any) -> Any: ...
        def __le__(self, other: Any) -> Any: ...
        def __gt__(self, other: Any) -> Any: ...
        def __ge__(self, other: Any) -> Any: ...
        def __neg__(self) -> Any: ...

    def __pow__(self, other: Any) -> Any:
        if type(other) is int:
            return self._record("square") if other == 2 else self._record("integer_power", exponent=other)
        if type(other) is float and other in (0.5, -0.5):
            return self._record("sqrt" if other > 0 else "rsqrt")
        return self._record("power_of", other, shown="**")

    def power(self, other: Any) -> Any:
        """x to the power other: `x ** other`, as `numpy.power`.

        A Python int is an exact power, 0.5 and -0.5 are `sqrt` and `rsqrt`. In float64 the exponent is exact, where
        KeOps rounds it to float32.

        Args:
            other: a LazyTensor, an array or a number, with as many features as self, or one.

        Returns:
            A LazyTensor with the features of both operands, broadcast, in the dtype that they promote to.

        Raises:
            ValueError: where features, rows or batch dims do not fit.

        Example:
            >>> from lazyjax import Vj
            >>> Vj([[2.0], [-3.0]]).power(3).dense().tolist()
            [[8.0, -27.0]]
        """
        return self**other

    def __rpow__(self, other: Any) -> Any:
        return self._lift(other, "**")._record("power_of", self, shown="**")

    def __pos__(self) -> Any:
        return self

    def __abs__(self) -> Any:
        return self.abs()

    def __invert__(self) -> Any:
        if self.dtype != bool:
            raise TypeError(f"~x: x is {self.dtype}, expected bool. Write (x == 0), or compare first.")
        return self._record("logical_not")

    def __and__(self, other: Any) -> Any:
        return self._logical_and(other)

    def __rand__(self, other: Any) -> Any:
        return self._logical_and(other)

    def _logical_and(self, other: Any) -> Any:
        other = self._lift(other, "&")
        if self.dtype != bool or other.dtype != bool:
            raise TypeError(f"x & y: dtypes {self.dtype} and {other.dtype}, expected bool and bool.")
        return self._record("logical_and", other, shown="&")


_DUNDERS = {
    "add": ("add", "+"), "sub": ("subtract", "-"), "mul": ("multiply", "*"), "truediv": ("divide", "/"),
    "floordiv": ("floor_divide", "//"), "mod": ("remainder", "%"), "or": ("scalar_product", "|"),
}  # fmt: skip
_COMPARISONS = {
    "eq": ("equal", "=="), "ne": ("not_equal", "!="), "lt": ("less", "<"), "le": ("less_equal", "<="),
    "gt": ("greater", ">"), "ge": ("greater_equal", ">="),
}  # fmt: skip
# Operations whose methods are written elsewhere, because they check their arguments.
_WRITTEN = {"add", "subtract", "multiply", "divide", "floor_divide", "remainder", "power_of", "integer_power",
            "negative", "scalar_product", "take", "concat", "round", "mod", "weightedsqnorm", "sqdist",
            "sqdist_product",
            *(row.name for row in [*ALGEBRA, *TENSORS]),
            "real", "imag", "real2complex", "imag2complex", "exp1j"}  # fmt: skip


def _attach() -> None:
    """Methods and operators of the table of operations."""

    def binary(op: str, symbol: str, reflected: bool) -> Callable[..., Any]:
        def method(self: Operators, other: Any) -> Operators:
            if reflected:
                return self._lift(other, symbol)._record(op, self, shown=symbol)
            return self._record(op, other, shown=symbol)

        return method

    for dunder, (op, symbol) in _DUNDERS.items():
        setattr(Operators, f"__{dunder}__", binary(op, symbol, False))
        setattr(Operators, f"__r{dunder}__", binary(op, symbol, True))
    for dunder, (op, symbol) in _COMPARISONS.items():
        setattr(Operators, f"__{dunder}__", binary(op, symbol, False))
    setattr(Operators, "__neg__", lambda self: self._record("negative"))  # noqa: B010
    for name, row in OPS.items():
        if name not in _WRITTEN and not name.endswith("_features"):
            setattr(Operators, name, _method(row))


def _method(row: Op) -> Callable[..., Any]:
    name = row.name

    def method(self: Operators, *others: Any) -> Operators:
        _check_count(row, others)
        return self._record(name, *others)

    method.__name__, method.__qualname__ = name, f"Operators.{name}"
    method.__doc__ = docstring(row)
    setattr(method, "__signature__", signature(row))  # noqa: B010
    return method


def _check_count(row: Op, others: tuple[Any, ...]) -> None:
    if len(others) != row.arity - 1:
        raise TypeError(f"{row.name} takes {row.arity - 1} more operands, got {len(others)}.")


_attach()
