"""Reductions of a LazyTensor: from a formula and an axis to one call of the primitive."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from ._aliases import attach_aliases
from ._errors import show
from ._exponentials import Exponentials
from ._extrema import Extrema
from ._ops import FEATURE_OPS
from ._options import OWN, Accumulation, Options, check_accumulator, read_options, reduce_axis
from ._ranges import checked, common_ranges
from ._reduction_names import check_name, reduced
from ._reductions import Extremum, KSmallest, LogSumExp, Sum, SumSoftmaxWeight
from ._request import every, first, reduce_tensors
from ._statistics import Mean, OverBoth, Product, Variance
from ._symbolic_reduction import SymbolicReduction, unbound
from ._variables import common_sizes
from .kernels import Reduction

# What can be reduced over both axes at once: the results need no index of a pair.
_BOTH = (Sum, Mean, Variance, Product, LogSumExp, SumSoftmaxWeight)


class Reductions(Extrema, Exponentials):
    """The reductions of a LazyTensor: how they are asked for, sums, and what is written by sums."""

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
        ranges = common_ranges(tensors, name) if settings.ranges is OWN else settings.ranges
        if ranges is not None:
            batch, m, n = functools.reduce(lambda a, b: common_sizes(a, b, name), (t._sizes for t in tensors))
            checked(ranges, batch, 1 if m is None else m, 1 if n is None else n, name)
        check_accumulator(settings.accumulation, [t.dtype for t in tensors], name)
        reduction = settings.accumulation.apply(reduction)
        if which == "ij" and selects:
            reduction = OverBoth(reduction)
        drop = isinstance(reduction, KSmallest) or not settings.keepdims
        owners: Any = tensors
        return reduce_tensors(owners, reduction, which, settings.backend, pick, drop, ranges, settings.precision)

    def sum(self, axis: Any = None, *, dim: Any = None, **options: Any) -> Any:
        """The sum over the features (lazily, the default), over i, over j, or over both.

        Args:
            axis: "i" or "j", or both: "ij" or ("i", "j"). Or an int, as in KeOps: it counts the axes of (*B, M, N,
                D), from 0 or from the end, so that without batch dims 0 is i, 1 is j and -1, the default, the
                features. With several feature axes also a tuple of some of them.
            dim: another name of `axis`.
            **options: of all reductions, over i and j only.
                keepdims: False drops the feature axis of the result where its size is 1.
                sum_scheme: "auto" and "block_sum" add by blocks, "direct_sum" one term after the other, "kahan_scheme"
                    keeps the rounding error of every addition beside the sum. Of sums, means, products `K @ b`,
                    logsumexp and sumsoftmaxweight.
                dtype_acc: "auto", "float32" or "float64", the dtype of the accumulator; use_double_acc=True is
                    "float64".
                backend: None or "auto", the choice of the planner; or the name of a kernel, see `explain`.
                precision: "fast" lets GPU kernels use approximate instructions of float32, "exact" does not; on the CPU
                    both are the same. KeOps' use_fast_math says the same by True and False.
                ranges: the pairs that are kept, block by block, see the property `ranges`.
                call: False returns a function of the arrays of symbolic variables, as reductions of these always do.
                KeOps' enable_chunks changes nothing; its other options work, or an error says what to do instead.

        Returns:
            Over the features a LazyTensor with one feature. Else an array (*B, R, D), R being the axis that stays: M
            or N; (*B, D) over both. Its dtype is that of `jnp.sum`; float16 and bfloat16 are added in float32. The
            sum of no pairs is 0.

        Raises:
            ValueError: for an axis that is none, for unknown values of options, and for options that contradict each
                other. TypeError: for unknown options, and for those that JAX cannot honour.

        Example:
            >>> from lazyjax import Vi, Vj
            >>> D = ((Vi([[0.0], [1.0]]) - Vj([[0.0], [2.0], [4.0]])) ** 2).sum(-1)
            >>> D.shape, D.sum(axis=1).tolist(), D.sum(axis="i").tolist(), D.sum(axis="ij").tolist()
            ((2, 3), [[20.0], [11.0]], [[1.0], [5.0], [25.0]], [31.0])
        """
        return self._reduced("sum", Sum(), axis, dim, options, default=-1)

    def prod(self, axis: Any = None, *, dim: Any = None, **options: Any) -> Any:
        """The product over the features (lazily, the default), over i, over j, or over both.

        Derivatives to fourth order are right also where factors are 0; beyond, they are NaN there.

        Args:
            axis, dim, **options: as in `sum`; `dtype_acc` sets the accumulator, `sum_scheme` does not apply.

        Returns:
            A LazyTensor with one feature; or an array (*B, R, D), (*B, D) over both axes, in the dtype of `jnp.prod`.
            The product of no pairs is 1.

        Raises:
            ValueError, TypeError: as `sum`.

        Example:
            >>> from lazyjax import Vi, Vj
            >>> D = Vi([[0.0], [1.0]]).sqdist(Vj([[0.0], [2.0], [4.0]]))
            >>> D.prod(axis=1).tolist()
            [[0.0], [9.0]]
        """
        return self._reduced("prod", Product(), axis, dim, options, default=-1)

    def mean(self, axis: Any = None, *, dim: Any = None, **options: Any) -> Any:
        """The mean over the features (lazily, the default), over i, over j, or over both.

        Args:
            axis, dim, **options: as in `sum`.

        Returns:
            A LazyTensor with one feature; or an array (*B, R, D), (*B, D) over both axes, in the dtype of the formula,
            integers and booleans as floats. The mean of no pairs is NaN. With `ranges`, of the pairs that are kept.

        Raises:
            ValueError, TypeError: as `sum`.

        Example:
            >>> from lazyjax import Vi, Vj
            >>> D = Vi([[0.0], [1.0]]).sqdist(Vj([[0.0], [2.0], [4.0]]))
            >>> D.mean(axis=0).tolist()
            [[0.5], [2.5], [12.5]]
        """
        return self._reduced("mean", Mean(), axis, dim, options, default=-1)

    def var(self, axis: Any = None, *, dim: Any = None, ddof: Any = 0, **options: Any) -> Any:
        """The variance over the features (lazily, the default), over i, over j, or over both, as `numpy.var`.

        Over pairs, squared deviations from running means are merged without cancellation, in one pass (Chan, Golub and
        LeVeque, Updating formulae and a pairwise algorithm for computing sample variances, COMPSTAT 1982).

        Args:
            axis, dim, **options: as in `sum`; `dtype_acc` sets the accumulator, `sum_scheme` does not apply.
            ddof: squared deviations are divided by the number of values less ddof; with `ranges`, of those that are
                kept.

        Returns:
            A LazyTensor with one feature; or an array (*B, R, D), (*B, D) over both axes. Real, also of complex
            formulas. NaN of no more than ddof values.

        Raises:
            TypeError: where ddof is no number, and for unknown options. ValueError: as `sum`.

        Example:
            >>> from lazyjax import Vi, Vj
            >>> D = Vi([[0.0], [1.0]]).sqdist(Vj([[0.0], [2.0], [4.0]]))
            >>> D.var(axis=0).tolist(), D.var(axis=0, ddof=1).tolist()
            ([[0.25], [2.25], [12.25]], [[0.5], [4.5], [24.5]])
        """
        return self._spread("var", axis, dim, ddof, options)

    def std(self, axis: Any = None, *, dim: Any = None, ddof: Any = 0, **options: Any) -> Any:
        """The standard deviation, the square root of `var`.

        Its derivative where it is 0 is 0.

        Args:
            axis, dim, ddof, **options: as in `var`.

        Returns:
            A LazyTensor with one feature; or an array (*B, R, D), (*B, D) over both axes: real, NaN of no more than
            ddof values.

        Raises:
            TypeError, ValueError: as `var`.

        Example:
            >>> from lazyjax import Vi, Vj
            >>> D = Vi([[0.0], [1.0]]).sqdist(Vj([[0.0], [2.0], [4.0]]))
            >>> D.std(axis=0).tolist()
            [[0.5], [1.5], [3.5]]
        """
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
        """Whether some value is not 0, over the features (lazily, the default), over i, over j, or over both.

        Args:
            axis, dim, **options: as in `sum`.

        Returns:
            A LazyTensor with one feature; or an array (*B, R, D), (*B, D) over both axes, of dtype bool. False of no
            pairs; NaN is not 0.

        Raises:
            ValueError, TypeError: as `sum`.

        Example:
            >>> from lazyjax import Vi, Vj
            >>> D = Vi([[0.0], [1.0]]).sqdist(Vj([[0.0], [2.0], [4.0]]))
            >>> (D > 9).any(axis=1).tolist()
            [[True], [False]]
        """
        return self._truth("any", "max", Extremum(largest=True), axis, dim, options)

    def all(self, axis: Any = None, *, dim: Any = None, **options: Any) -> Any:
        """Whether no value is 0, over the features (lazily, the default), over i, over j, or over both.

        Args:
            axis, dim, **options: as in `sum`.

        Returns:
            A LazyTensor with one feature; or an array (*B, R, D), (*B, D) over both axes, of dtype bool. True of no
            pairs; NaN is not 0.

        Raises:
            ValueError, TypeError: as `sum`.

        Example:
            >>> from lazyjax import Vi, Vj
            >>> D = Vi([[0.0], [1.0]]).sqdist(Vj([[0.0], [2.0], [4.0]]))
            >>> D.all(axis=1).tolist()
            [[False], [True]]
        """
        return self._truth("all", "min", Extremum(), axis, dim, options)

    def count_nonzero(self, axis: Any = None, *, dim: Any = None, **options: Any) -> Any:
        """How many values are not 0, over the features (lazily, the default), over i, over j, or over both.

        Args:
            axis, dim, **options: as in `sum`.

        Returns:
            A LazyTensor with one feature; or an array (*B, R, D), (*B, D) over both axes, of the integer dtype of a
            `jnp.sum` of booleans.

        Raises:
            ValueError: where there are more pairs than an int32 can hold and x64 is not enabled; and as `sum`.

        Example:
            >>> from lazyjax import Vi, Vj
            >>> D = Vi([[0.0], [1.0]]).sqdist(Vj([[0.0], [2.0], [4.0]]))
            >>> D.count_nonzero(axis=1).tolist(), (D < 2).count_nonzero(axis="ij").tolist()
            ([[2], [3]], [3])
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

    def reduction(
        self, reduction: Any, axis: Any = None, *, dim: Any = None, weight: Any = None, opt_arg: Any = None,
        **options: Any,
    ) -> Any:  # fmt: skip
        """Reduce by a monoid of your own over i or over j, or by the name of a reduction in KeOps.

        Args:
            reduction: an instance of a subclass of `lazyjax.Reduction`, hashable: a frozen dataclass; or, as in KeOps,
                the name that formula strings have for a reduction, "Sum", "LogSumExp", "ArgKMin" and so on.
            axis, dim, **options: as in `sum`; `axis` must be given, and for a monoid not both axes at once.
            weight: a LazyTensor, an array or a number, whose features are the second value of every pair; for a name,
                the weight of LogSumExp and SumSoftMaxWeight (`other` in KeOps).
            opt_arg: for a name, how many values KMin and its kin return.

        Returns:
            A tuple of the arrays (*B, R, ...) that `reduction.finalize` returns; for a name, what its method returns.

        Raises:
            TypeError: where reduction is none, or is not hashable. ValueError: for an unknown name, and as `sum`.

        Example:
            >>> import dataclasses
            >>> import jax.numpy as jnp
            >>> from lazyjax import Reduction, Vi, Vj
            >>> @dataclasses.dataclass(frozen=True)
            ... class Range(Reduction):  # (max, min) of every feature
            ...     def init(self, values):
            ...         infinite = jnp.full(values[0].shape, jnp.inf, values[0].dtype)
            ...         return -infinite, infinite
            ...     def lift(self, values, index):
            ...         return values[0], values[0]
            ...     def merge(self, a, b):
            ...         return jnp.maximum(a[0], b[0]), jnp.minimum(a[1], b[1])
            ...     def finalize(self, acc, values):
            ...         return (acc[0] - acc[1],)
            >>> (spread,) = Vi([[0.0], [1.0]]).sqdist(Vj([[0.0], [2.0], [4.0]])).reduction(Range(), axis=1)
            >>> spread.tolist()
            [[16.0], [8.0]]
            >>> Vi([[0.0], [1.0]]).sqdist(Vj([[0.0], [2.0], [4.0]])).reduction("ArgKMin", axis=1, opt_arg=2).tolist()
            [[0, 1], [0, 1]]
        """
        if isinstance(reduction, str):
            check_name(reduction, "reduction", "reduction")
            weight = options.pop("other", weight)
            return reduced(
                self, reduction, axis, weight, opt_arg, {"dim": dim, **options},
                method="reduction", weight_name="weight", weight_shown=show(weight),
            )  # fmt: skip
        if opt_arg is not None:
            raise TypeError(f"reduction: opt_arg={opt_arg!r} has no meaning for a monoid; make it one of its fields.")
        if not isinstance(reduction, Reduction):
            raise TypeError(
                f"reduction: got {show(reduction)}, expected an instance of a subclass of lazyjax.Reduction, or the "
                'name of a reduction in KeOps, as "Sum".'
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


attach_aliases(Reductions)
