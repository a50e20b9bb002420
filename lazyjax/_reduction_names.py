"""Reductions by the names that KeOps has for them, which its formula strings and `K.reduction("Sum", ...)` use."""

from __future__ import annotations

from typing import Any

# The names of KeOps for reductions, and the methods of LazyTensor.
REDUCTIONS = {
    "Sum": "sum", "LogSumExp": "logsumexp", "LogSumExpWeight": "logsumexp", "SumSoftMaxWeight": "sumsoftmaxweight",
    "SoftMax": "sumsoftmaxweight", "Min": "min", "Max": "max", "ArgMin": "argmin", "ArgMax": "argmax",
    "Min_ArgMin": "min_argmin", "MinArgMin": "min_argmin", "Max_ArgMax": "max_argmax", "MaxArgMax": "max_argmax",
    "KMin": "Kmin", "ArgKMin": "argKmin", "KMin_ArgKMin": "Kmin_argKmin", "KMinArgKMin": "Kmin_argKmin",
}  # fmt: skip


def check_name(name: Any, argument: str, method: str) -> None:
    """Names that are none raise an error with those that are."""
    if name not in REDUCTIONS:
        raise ValueError(f"{method}: {argument}={name!r}, expected one of {', '.join(REDUCTIONS)}.")


def reduced(
    value: Any, name: str, axis: Any, weight: Any, opt_arg: Any, options: dict[str, Any], *,
    method: str, weight_name: str, weight_shown: str,
) -> Any:  # fmt: skip
    """`value` reduced by KeOps' name of a reduction; K and the weight are there where it needs them, and only there."""
    own = REDUCTIONS[name]
    arguments: dict[str, Any] = {}
    if own in ("Kmin", "argKmin", "Kmin_argKmin"):
        if opt_arg is None:
            raise TypeError(f"{method}: opt_arg is missing: how many values {name} returns.")
        arguments["K"] = opt_arg
    elif opt_arg is not None:
        raise TypeError(f"{method}: opt_arg={opt_arg!r} has no meaning for {name}.")
    needed = own == "sumsoftmaxweight" or name == "LogSumExpWeight"
    if (weight is not None and own not in ("logsumexp", "sumsoftmaxweight")) or (weight is None and needed):
        state = "is missing" if needed else "has no meaning"
        raise TypeError(f"{method}: {weight_name}={weight_shown}; the weight {state} for {name}.")
    if weight is not None:
        arguments["weight"] = weight
    return getattr(value, own)(**arguments, axis=axis, **options)
