"""How a reduction is asked for: the axis, and the options that KeOps users pass."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ._accumulation import Accumulation
from ._errors import show, static_int
from ._ops import FEATURE_OPS
from ._ranges import checked_form
from ._reductions import Extremum, LogSumExp, Sum, SumSoftmaxWeight
from ._statistics import Mean, Product, Variance
from .kernels import KERNELS, Selection

# What adds numbers up.
SUMS = (Sum, Mean, LogSumExp, SumSoftmaxWeight)
# What also goes over the features, lazily.
_LAZY = (*FEATURE_OPS, "var", "std", "any", "all", "count_nonzero")


def reduce_axis(tensor: Any, axis: Any, dim: Any, default: Any, method: str) -> str:
    """ "i", "j", "ij" or "features" from an axis that counts batch dims, as in KeOps."""
    if axis is not None and dim is not None and axis != dim:
        raise ValueError(f"{method}: axis={axis!r} and dim={dim!r} are two names of the same thing; give one.")
    axis = dim if axis is None else axis
    axis = default if axis is None else axis
    if isinstance(axis, str) and axis in ("i", "j", "ij"):
        return axis
    shape, nbatch = tensor._shape, tensor.nbatchdims
    expected = (
        f"expected {nbatch} or 'i' for the i axis, {nbatch + 1} or 'j' for the j axis"
        f"{', -1 for the features' if method in _LAZY else ''}; the shape is {shape}"
    )
    if axis is None:
        raise ValueError(f"{method}: axis is missing, {expected}.")
    if isinstance(axis, tuple | list):
        both = {reduce_axis(tensor, a, None, None, method) for a in axis}
        if both == {"i", "j"} and len(axis) == 2:
            return "ij"
        raise ValueError(f"{method}: axis={axis!r}, {expected}, or ('i', 'j') for both.")
    if isinstance(axis, str):
        raise ValueError(f"{method}: axis={axis!r}, {expected}.")
    k = static_int(axis, "axis", method)
    k = k + len(shape) if k < 0 else k
    if k == nbatch:
        return "i"
    if k == nbatch + 1:
        return "j"
    if k == len(shape) - 1 and len(shape) == nbatch + 3:
        return "features"
    if 0 <= k < nbatch:
        raise ValueError(f"{method}: axis={axis!r} is a batch dim of shape {shape}. Reduce, then reduce the result.")
    raise ValueError(f"{method}: axis={axis!r} is not an axis to reduce, {expected}.")


# The ranges of the LazyTensor itself, where no others are given.
OWN: Any = object()


class Options(NamedTuple):
    """The options of a reduction, checked."""

    backend: str | None
    keepdims: bool
    accumulation: Accumulation
    ranges: Any = OWN  # None: all pairs; or six arrays
    precision: Literal["fast", "exact"] = "fast"


_NONE = Options(None, True, Accumulation(None, "auto"))

_REFUSED = {
    "device_id": "move the data with jax.device_put(x, jax.devices()[k])",
    "out": "JAX arrays are immutable: use the returned array",
}

# The defaults of KeOps, which ask for nothing.
_DEFAULTS = {"device_id": None, "out": None}
_KNOWN = ("axis", "dim", "backend", "keepdims", "call", "ranges", "dtype_acc", "use_double_acc", "sum_scheme",
         "precision", "use_fast_math")  # fmt: skip
_SCHEMES = ("auto", "direct_sum", "block_sum", "kahan_scheme")
_PRECISIONS = ("fast", "exact")
_ACCUMULATORS = ("float32", "float64")


def read_options(options: dict[str, Any], method: str, reduction: Any) -> Options:
    """Every option is honoured, or refused with what to do instead."""
    if not options:
        return _NONE
    options = dict(options)
    options.pop("enable_chunks", None)  # cannot change a result
    backend, keepdims = options.pop("backend", None), options.pop("keepdims", True)
    ranges = options.pop("ranges", OWN)
    dtype = options.pop("dtype_acc", "auto")
    precision = _precision(options.pop("precision", None), options.pop("use_fast_math", None), method)
    double, scheme = options.pop("use_double_acc", False), options.pop("sum_scheme", "auto")
    for name, value in options.items():
        if name in _DEFAULTS and type(value) is type(_DEFAULTS[name]) and value == _DEFAULTS[name]:
            continue
        hint = _REFUSED.get(name)
        if hint is None:
            known = ", ".join(_KNOWN)
            raise TypeError(f"{method}: unknown option {name!r}; the options are {known}.")
        raise TypeError(
            f"{method}: the option {name}={value if isinstance(value, str) else show(value)} is not available; {hint}."
        )
    if not isinstance(keepdims, bool):
        raise TypeError(
            f"{method}: keepdims={show(keepdims)}, expected True (the feature axis stays), or False (it is dropped "
            "where its size is 1)."
        )
    if backend in (None, "auto"):
        backend = None
    elif backend not in KERNELS:
        raise ValueError(
            f"{method}: backend={backend!r}, expected None or 'auto' (the planner chooses), or one of "
            f"{', '.join(map(repr, KERNELS))}. The device is that of the data: move it with jax.device_put."
        )
    ranges = ranges if ranges is OWN else checked_form(ranges, method)
    return Options(backend, keepdims, _accumulation(dtype, double, scheme, method, reduction), ranges, precision)


def _precision(precision: Any, fast_math: Any, method: str) -> Literal["fast", "exact"]:
    """Of the option `precision` and of KeOps' name for it, which must agree."""
    if precision is not None and (not isinstance(precision, str) or precision not in _PRECISIONS):
        shown = repr(precision) if isinstance(precision, str) else show(precision)
        raise ValueError(
            f"{method}: precision={shown}, expected 'fast' (GPU kernels may use approximate instructions) or 'exact'."
        )
    if fast_math is not None and not isinstance(fast_math, bool):
        raise TypeError(
            f"{method}: use_fast_math={show(fast_math)}, expected True (precision='fast') or False (precision='exact')."
        )
    if None not in (precision, fast_math) and (precision == "fast") != fast_math:
        raise ValueError(
            f"{method}: precision={precision!r} and use_fast_math={fast_math} contradict each other; give one."
        )
    return "exact" if precision == "exact" or fast_math is False else "fast"


def _accumulation(dtype: Any, double: Any, scheme: Any, method: str, reduction: Any) -> Accumulation:
    if not isinstance(double, bool):
        raise TypeError(f"{method}: use_double_acc={show(double)}, expected True or False.")
    if scheme not in _SCHEMES:
        raise ValueError(f"{method}: sum_scheme={scheme!r}, expected one of {', '.join(map(repr, _SCHEMES))}.")
    if scheme != "auto" and not isinstance(reduction, SUMS):
        raise ValueError(
            f"{method}: sum_scheme={scheme!r} is not available; it is an option of sum, mean, matvec, rmatvec, "
            "logsumexp and sumsoftmaxweight. Leave it out."
        )
    name = dtype
    if not isinstance(dtype, str) or dtype not in ("auto", *_ACCUMULATORS):
        try:
            name = np.dtype(dtype).name
        except TypeError:
            name = None
    if name not in ("auto", *_ACCUMULATORS):
        raise ValueError(
            f"{method}: dtype_acc={dtype if isinstance(dtype, str) else show(dtype)}, expected 'auto' or one of "
            f"{', '.join(map(repr, _ACCUMULATORS))}."
        )
    if double and name == "float32":
        raise ValueError(f"{method}: use_double_acc=True and dtype_acc='float32' contradict each other; give one.")
    name = "float64" if double else name
    if name == "float64" and not jax.config.jax_enable_x64:  # type: ignore[attr-defined]
        raise ValueError(
            f"{method}: {'use_double_acc=True' if double else 'dtype_acc=float64'} needs float64, which JAX has "
            "switched off. Call jax.config.update('jax_enable_x64', True) first, or take sum_scheme='kahan_scheme', "
            "which is as accurate in float32."
        )
    if name == "auto" or isinstance(reduction, Selection | Extremum):
        return Accumulation(None, scheme)  # what is selected does not depend on how it is stored
    if not isinstance(reduction, (*SUMS, Variance, Product)):
        raise ValueError(
            f"{method}: {'use_double_acc' if double else 'dtype_acc'} is not available. The reduction itself chooses "
            "the dtype of its accumulator, in `init` and `lift`."
        )
    return Accumulation(name, scheme)


def check_accumulator(accumulation: Accumulation, dtypes: list[Any], method: str) -> None:
    """An accumulator must be able to hold the values."""
    for dtype in dtypes:
        wide = accumulation.dtype
        if wide and jnp.issubdtype(dtype, jnp.inexact) and jnp.finfo(dtype).bits > jnp.finfo(wide).bits:
            raise ValueError(
                f"{method}: dtype_acc={wide!r} is narrower than the values of the formula, which are {dtype}. Leave it "
                "out, or convert the data."
            )
