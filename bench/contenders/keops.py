"""KeOps on the CPU (pykeops.numpy), on NumPy arrays. It compiles each new formula with g++."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..cases import Case, Data
from .contract import Run, not_installed, problem

NAME = "KeOps"
_GAUSSIAN = "Exp(-SqDist(x,y))*b"
_MATERN = "(IntCst(1)+Sqrt(SqDist(x,y)))*Exp(-Sqrt(SqDist(x,y)))*b"


def missing() -> str | None:
    return not_installed("pykeops")


def _sum(formula: str, case: Case, axis: int = 1) -> Callable[..., Any]:
    """A sum of (x, y, b, g), in KeOps' formula strings, which is where it has gradients with NumPy arrays."""
    from pykeops.numpy import Genred  # type: ignore[import-not-found]

    variables = [f"x=Vi({case.d})", f"y=Vj({case.d})", f"b=Vj({case.e})", f"g=Vi({case.e})"]
    return Genred(formula, variables, reduction_op="Sum", axis=axis)


def prepare(case: Case, data: Data) -> Run:
    import pykeops  # type: ignore[import-not-found]
    from pykeops.numpy import LazyTensor, Vi, Vj  # type: ignore[import-not-found]

    pykeops.set_verbose(False)

    def distance(x: Any, y: Any) -> Any:
        return Vi(x).sqdist(Vj(y))

    def gaussian(x: Any, y: Any, b: Any) -> Any:
        return (-distance(x, y)).exp() @ b

    def gradients() -> Callable[..., Any]:
        each = [_sum(f"Grad({_GAUSSIAN},{v},g)", case, axis) for v, axis in (("x", 1), ("y", 0), ("b", 0))]
        return lambda *args: tuple(one(*args) for one in each)

    def matern() -> Callable[..., Any]:
        value, gradient = _sum(_MATERN, case), _sum(f"Grad({_MATERN},x,g)", case)
        return lambda *args: (value(*args), gradient(*args))

    def batched_distance(x: Any, y: Any) -> Any:
        return LazyTensor(x[:, :, None, :]).sqdist(LazyTensor(y[:, None, :, :]))

    def batched(x: Any, y: Any, b: Any) -> Any:
        return (-batched_distance(x, y)).exp() @ b

    def attention(q: Any, k: Any, v: Any) -> Any:
        return ((Vi(q) | Vj(k)) * case.d**-0.5).sumsoftmaxweight(Vj(v), axis=1)

    problems = {
        "gaussian": lambda: gaussian,
        "eager": lambda: gaussian,
        "gradient_x": lambda: _sum(f"Grad({_GAUSSIAN},x,g)", case),
        "gradients": gradients,
        "argmin": lambda: lambda x, y: distance(x, y).argmin(axis=1),
        "argkmin": lambda: lambda x, y: distance(x, y).argKmin(case.k, axis=1),
        "logsumexp": lambda: lambda x, y: (-distance(x, y)).logsumexp(axis=1),
        "attention": lambda: attention,
        "batched": lambda: batched,
        "batched_argkmin": lambda: lambda x, y: batched_distance(x, y).argKmin(case.k, axis=2),
        "matern": matern,
    }
    make, arrays = problem(problems, case, NAME), list(data.values())
    made: list[Callable[..., Any]] = []

    def compile() -> dict[str, int]:
        made.append(make())
        return {}

    return Run(lambda: made[0](*arrays), compile)
