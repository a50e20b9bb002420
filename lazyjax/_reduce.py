"""Reductions of a LazyTensor: from a formula and an axis to one call of the primitive."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from ._errors import show, static_int
from ._ops import FEATURE_OPS
from ._options import Accumulation, Options, check_accumulator, read_options, reduce_axis
from ._reductions import Extremum, KSmallest, LogSumExp, Sum, SumSoftmaxWeight
from ._request import every, first, reduce_tensors
from ._statistics import Mean, OverBoth, Product, Variance
from ._symbolic_reduction import SymbolicReduction, unbound
from ._variables import common_sizes
from .kernels import Reduction

# What can be reduced over both axes at once: the results need no index of a pair.
_BOTH = (Sum, Mean, Variance, Product, LogSumExp, SumSoftmaxWeight)


class Reductions:
    """The reductions of a LazyTensor. `axis` (or `dim`) counts batch dims as KeOps does; "i" and "j" say it plainly."""

    __slots__ = ()

    if TYPE_CHECKING:
        _record: Any
        _tape: Any
        _data: Any
        _lift: Any
        _shape: Any
        _sizes: Any
        _aval: Any
        dtype: Any
        shape: Any
        T: Any

    def _reduced(self, name: str, reduction: Any, axis: Any, dim: Any, options: dict[str, Any], pick: Any = first,
                 default: Any = None, weight: Any = None) -> Any:  # fmt: skip
        which = reduce_axis(self, axis, dim, default, name)
        options = dict(options)
        call = options.pop("call", True)
        if not isinstance(call, bool):
            raise TypeError(f"{name}: call={show(call)}, expected True, or False for a function to be called later.")
        settings = read_options(options, name, reduction)
        if which == "features":
            if name not in FEATURE_OPS:
                raise ValueError(f"{name}: the features cannot be reduced by it; give the i or the j axis.")
            if weight is not None:
                raise ValueError(f"{name}: a weight has no meaning over the features; give the i or the j axis.")
            _check_no_options(settings, options, name)
            return self._record(FEATURE_OPS[name], shown=name)
        if isinstance(reduction, Extremum | KSmallest) and jnp.issubdtype(self.dtype, jnp.complexfloating):
            raise TypeError(
                f"{name}: the formula is {self.dtype}, and complex numbers have no order; reduce its real part, its "
                "imaginary part or its modulus abs(x)."
            )
        selects = isinstance(reduction, Extremum) and reduction.wanted == "value"
        if which == "ij" and not selects and not isinstance(reduction, _BOTH):
            raise ValueError(
                f"{name}: it cannot reduce both axes at once; reduce one, then the result. Over both go sum, mean, "
                "prod, var, std, min, max, logsumexp, sumsoftmaxweight, any, all and count_nonzero."
            )
        if weight is not None:
            common_sizes(self._sizes, weight._sizes, f"{name} of a formula and its weight")
        tensors = [self] if weight is None else [self, weight]
        if not call or any(map(unbound, tensors)):
            return SymbolicReduction(name, tensors, reduction, which, options, pick)
        check_accumulator(settings.accumulation, [t.dtype for t in tensors], name)
        reduction = settings.accumulation.apply(reduction)
        if which == "ij" and selects:
            reduction = OverBoth(reduction)
        drop = isinstance(reduction, KSmallest) or not settings.keepdims
        owners: Any = tensors
        return reduce_tensors(owners, reduction, which, settings.backend, pick, drop, settings.precision)

    def sum(self, axis: Any = None, *, dim: Any = None, **options: Any) -> Any:
        """Sum over the features (axis=-1, the default, lazily), over i, over j, or over both ("i", "j").

        Returns:
            A LazyTensor with one feature, or an array (*B, R, D), R being the axis that stays; (*B, D) for both.

        Example:
            >>> import jax.numpy as jnp
            >>> from lazyjax import Vi, Vj
            >>> x, y = jnp.zeros((4, 3)), jnp.ones((5, 3))
            >>> (-((Vi(x) - Vj(y)) ** 2).sum(-1)).exp().sum(axis=1).shape
            (4, 1)
        """
        return self._reduced("sum", Sum(), axis, dim, options, default=-1)

    def min(self, axis: Any = None, *, dim: Any = None, **options: Any) -> Any:
        """The smallest value, differentiable: (*B, R, D). NaN is skipped; inf where there is nothing."""
        return self._reduced("min", Extremum(), axis, dim, options, default=-1)

    def max(self, axis: Any = None, *, dim: Any = None, **options: Any) -> Any:
        """The largest value, differentiable: (*B, R, D). NaN is skipped; -inf where there is nothing."""
        return self._reduced("max", Extremum(largest=True), axis, dim, options, default=-1)

    def argmin(self, axis: Any = None, *, dim: Any = None, **options: Any) -> Any:
        """The index of the smallest value: int32 (*B, R, D), the lowest one of several, -1 where there is nothing."""
        return self._reduced("argmin", Extremum(False, "index"), axis, dim, options, default=-1)

    def argmax(self, axis: Any = None, *, dim: Any = None, **options: Any) -> Any:
        """The index of the largest value: int32 (*B, R, D), the lowest one of several, -1 where there is nothing."""
        return self._reduced("argmax", Extremum(True, "index"), axis, dim, options, default=-1)

    def min_argmin(self, axis: Any = None, *, dim: Any = None, **options: Any) -> Any:
        """(`min`, `argmin`) in one pass."""
        return self._reduced("min_argmin", Extremum(False, "both"), axis, dim, options, every)

    def max_argmax(self, axis: Any = None, *, dim: Any = None, **options: Any) -> Any:
        """(`max`, `argmax`) in one pass."""
        return self._reduced("max_argmax", Extremum(True, "both"), axis, dim, options, every)

    def _k_best(self, name: str, K: Any, wanted: Any, axis: Any, dim: Any, options: Any, pick: Any = first) -> Any:
        k = static_int(K, "K", name)
        if k < 1:
            raise ValueError(f"{name}: K={k}, expected at least 1.")
        return self._reduced(name, KSmallest(k, wanted, "Kmax" in name), axis, dim, options, pick)

    def Kmin(self, K: Any, axis: Any = None, *, dim: Any = None, **options: Any) -> Any:
        """The K smallest values, ascending, differentiable: (*B, R, K), or (*B, R, K, D); inf follows where K > N."""
        return self._k_best("Kmin", K, "value", axis, dim, options)

    def argKmin(self, K: Any, axis: Any = None, *, dim: Any = None, **options: Any) -> Any:
        """The indices of the K smallest values: int32 (*B, R, K), or (*B, R, K, D); -1 follows where K > N."""
        return self._k_best("argKmin", K, "index", axis, dim, options)

    def Kmin_argKmin(self, K: Any, axis: Any = None, *, dim: Any = None, **options: Any) -> Any:
        """(`Kmin`, `argKmin`) in one pass."""
        return self._k_best("Kmin_argKmin", K, "both", axis, dim, options, every)

    def Kmax(self, K: Any, axis: Any = None, *, dim: Any = None, **options: Any) -> Any:
        """The K largest values, descending, differentiable: (*B, R, K), or (*B, R, K, D); -inf follows where K > N."""
        return self._k_best("Kmax", K, "value", axis, dim, options)

    def argKmax(self, K: Any, axis: Any = None, *, dim: Any = None, **options: Any) -> Any:
        """The indices of the K largest values: int32 (*B, R, K), or (*B, R, K, D); -1 follows where K > N."""
        return self._k_best("argKmax", K, "index", axis, dim, options)

    def Kmax_argKmax(self, K: Any, axis: Any = None, *, dim: Any = None, **options: Any) -> Any:
        """(`Kmax`, `argKmax`) in one pass."""
        return self._k_best("Kmax_argKmax", K, "both", axis, dim, options, every)

    def logsumexp(self, axis: Any = None, *, dim: Any = None, weight: Any = None, **options: Any) -> Any:
        """log sum exp over i or j: (*B, R, D); or, of a scalar formula with `weight`, log sum w exp: (*B, R, E).

        Over the features (axis=-1) it is lazy. All -inf gives -inf.
        """
        weight = self._weight(weight, "logsumexp")
        return self._reduced("logsumexp", LogSumExp(), axis, dim, options, weight=weight)

    def sumsoftmaxweight(self, weight: Any, axis: Any = None, *, dim: Any = None, **options: Any) -> Any:
        """sum of softmax(K) * weight over i or j, K a scalar formula (attention): (*B, R, E)."""
        if weight is None:
            raise TypeError("sumsoftmaxweight: weight is None, expected a LazyTensor or an array.")
        weight = self._weight(weight, "sumsoftmaxweight")
        return self._reduced("sumsoftmaxweight", SumSoftmaxWeight(), axis, dim, options, weight=weight)

    def softmax(self, axis: Any = -1) -> Any:
        """exp(x) / sum of exp(x) over the features, lazily."""
        if reduce_axis(self, axis, None, None, "softmax") != "features":
            raise ValueError("softmax: only over the features (axis=-1); over i or j use sumsoftmaxweight.")
        return self._record("softmax_features", shown="softmax")

    def prod(self, axis: Any = None, *, dim: Any = None, **options: Any) -> Any:
        """The product over the features (the default, lazily), over i, over j or over both: (*B, R, D); 1 of nothing.

        Its derivatives are right at zeros too, up to the fourth.
        """
        return self._reduced("prod", Product(), axis, dim, options, default=-1)

    def mean(self, axis: Any = None, *, dim: Any = None, **options: Any) -> Any:
        """The mean over the features (the default, lazily), over i, over j or over both: (*B, R, D); NaN of nothing."""
        return self._reduced("mean", Mean(), axis, dim, options, default=-1)

    def var(self, axis: Any = None, *, dim: Any = None, ddof: Any = 0, **options: Any) -> Any:
        """The variance over the features (the default, lazily), over i, over j or over both: (*B, R, D), real.

        Squared deviations from the mean are summed without cancellation, in one pass, and divided by N - ddof; the
        variance of no more than ddof pairs is NaN.
        """
        return self._spread("var", axis, dim, ddof, options)

    def std(self, axis: Any = None, *, dim: Any = None, ddof: Any = 0, **options: Any) -> Any:
        """The square root of `var`, with derivative 0 where it is 0: (*B, R, D)."""
        return self._spread("std", axis, dim, ddof, options)

    def _spread(self, name: Any, axis: Any, dim: Any, ddof: Any, options: Any) -> Any:
        if isinstance(ddof, bool) or not isinstance(ddof, int | float | np.integer | np.floating):
            raise TypeError(f"{name}: ddof={show(ddof)}, expected a number that is known when the formula is written.")
        if reduce_axis(self, axis, dim, -1, name) != "features":
            return self._reduced(name, Variance(float(ddof), name), axis, dim, options)
        _check_no_options(read_options(options, name, None), options, name)
        var = (self - self.mean(-1)).sqnorm2() / max(float(self._shape[-1] - ddof), 0.0)
        return var if name == "var" else var.sqrt()

    def any(self, axis: Any = None, *, dim: Any = None, **options: Any) -> Any:
        """Whether any value is not zero, over the features (the default, lazily), i, j or both: bool (*B, R, D)."""
        return self._truth("any", "max", Extremum(largest=True), axis, dim, options)

    def all(self, axis: Any = None, *, dim: Any = None, **options: Any) -> Any:
        """Whether no value is zero, over the features (the default, lazily), i, j or both: bool (*B, R, D)."""
        return self._truth("all", "min", Extremum(), axis, dim, options)

    def count_nonzero(self, axis: Any = None, *, dim: Any = None, **options: Any) -> Any:
        """How many values are not zero, over the features (the default, lazily), i, j or both: (*B, R, D).

        An integer, of the dtype of a sum of booleans.
        """
        _, m, n = self._sizes
        which = reduce_axis(self, axis, dim, -1, "count_nonzero")
        pairs = math.prod(k for k, letter in ((m, "i"), (n, "j")) if letter in which and isinstance(k, int))
        most = jnp.iinfo(jnp.zeros((), int).dtype).max
        if which != "features" and pairs > most:
            raise ValueError(
                f"count_nonzero: {pairs} pairs may be counted, more than an int32 can hold. Call "
                "jax.config.update('jax_enable_x64', True) first, or count over one axis."
            )
        return self._truth("count_nonzero", "sum", Sum(), axis, dim, options)

    def _truth(self, name: str, over_features: str, reduction: Any, axis: Any, dim: Any, options: Any) -> Any:
        """A reduction of `self != 0`."""
        which = reduce_axis(self, axis, dim, -1, name)
        tensor = self if self.dtype == bool else self._record("not_equal", 0, shown="!=")
        if which != "features":
            return tensor._reduced(name, reduction, which, None, options)
        _check_no_options(read_options(options, name, reduction), options, name)
        return tensor._record(FEATURE_OPS[over_features], shown=name)

    def _weight(self, weight: Any, name: str) -> Any:
        if weight is None:
            return None
        if self._shape[-1] != 1:
            raise ValueError(
                f"{name}: with a weight the formula must be scalar, but it has {self._shape[-1]} features; "
                "sum them first, for instance with .sum(-1)."
            )
        return self._lift(weight, name, "weight")

    def reduction(
        self, reduction: Any, axis: Any = None, *, dim: Any = None, weight: Any = None, **options: Any
    ) -> Any:
        """Reduce by a monoid of your own, a `lazyjax.Reduction`; a tuple of its results."""
        if not isinstance(reduction, Reduction):
            raise TypeError(
                f"reduction: got {show(reduction)}, expected an instance of a subclass of lazyjax.Reduction."
            )
        try:
            hash(reduction)
        except TypeError:
            raise TypeError(
                f"reduction: {type(reduction).__name__} is not hashable, but reductions are part of a cache's key. "
                "Make it a dataclass with frozen=True, whose fields are numbers and strings."
            ) from None
        weight = None if weight is None else self._lift(weight, "reduction", "weight")
        return self._reduced("reduction", reduction, axis, dim, options, every, weight=weight)


def _check_no_options(settings: Options, options: dict[str, Any], name: str) -> None:
    if settings != Options(None, True, Accumulation()):
        raise TypeError(f"{name}: options {sorted(options)} have no meaning over the features.")


def _attach_aliases() -> None:
    """`K.sum_reduction(axis=...)` and so on, as in KeOps."""
    for name in ("sum", "mean", "prod", "var", "std", "any", "all", "count_nonzero", "min", "max", "argmin", "argmax",
                 "min_argmin", "max_argmax", "Kmin", "argKmin", "Kmin_argKmin", "Kmax", "argKmax", "Kmax_argKmax",
                 "logsumexp", "sumsoftmaxweight"):  # fmt: skip
        method = getattr(Reductions, name)

        def alias(self: Any, *args: Any, _method: Any = method, _name: str = name, **kwargs: Any) -> Any:
            positional = 1 if "K" in _name or _name == "sumsoftmaxweight" else 0
            given = kwargs.get("axis", kwargs.get("dim", args[positional] if len(args) > positional else None))
            if given is None:
                raise ValueError(f"{_name}_reduction: axis is missing; give the i or the j axis.")
            return _method(self, *args, **kwargs)

        alias.__name__ = f"{name}_reduction"
        alias.__doc__ = f"`{name}` under KeOps' other name; `axis` must be given."
        setattr(Reductions, f"{name}_reduction", alias)


_attach_aliases()
