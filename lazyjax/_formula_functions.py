"""The operations of KeOps' formula strings, by their names there, as functions of LazyTensors.

Names, order of arguments and meaning are those of `keopscore.formulas` 2.3. A comparison is a number, 0 or 1; complex
numbers are pairs of features, real and imaginary part in turn.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

from ._lazytensor import LazyTensor


def number(condition: LazyTensor) -> LazyTensor:
    """A condition as 0 or 1."""
    return condition.where(1.0, 0.0)


def _zeros(dim: int) -> list[Any]:
    return [0.0] * dim


def _join(*parts: Any) -> LazyTensor:
    """Features one after the other, numbers among them."""
    if not any(isinstance(p, LazyTensor) for p in parts):
        parts = (LazyTensor(parts[0]), *parts[1:])
    return LazyTensor.concatenate(parts)


def _size(f: LazyTensor) -> int:
    return f._shape[-1]


def _one_feature(f: LazyTensor, name: str) -> None:
    if _size(f) != 1:
        raise ValueError(f"{name}: f has {_size(f)} features, expected 1.")


def _repeat(f: LazyTensor, dim: int) -> LazyTensor:
    """SumT: a scalar as a vector of dim equal features."""
    _one_feature(f, "SumT")
    return _join(*[f] * dim)


def _place(f: LazyTensor, start: int, dim: int) -> LazyTensor:
    """ExtractT: the features of f from place `start` on among dim ones, zero elsewhere."""
    after = dim - start - _size(f)
    if start < 0 or after < 0:
        raise IndexError(f"features {start} to {start + _size(f)} are out of range for {dim} features.")
    return _join(*_zeros(start), f, *_zeros(after))


def _place_one(f: LazyTensor, n: int, m: int) -> LazyTensor:
    _one_feature(f, "ElemT")
    return _place(f, m, n)


def _tensordot(
    f: Any, g: Any, dimsf: list[int], dimsg: list[int], contf: list[int], contg: list[int], permute: Any = None
) -> Any:
    return f.keops_tensordot(g, dimsf, dimsg, contf, contg, *([] if permute is None else [permute]))


# Complex numbers as pairs of features.


def _parts(z: LazyTensor) -> tuple[LazyTensor, LazyTensor]:
    if _size(z) % 2:
        raise ValueError(f"{_size(z)} features, expected an even number: real and imaginary parts in turn.")
    return z[..., ::2], z[..., 1::2]


def _complex(real: Any, imag: Any) -> LazyTensor:
    size = max(_size(p) for p in (real, imag) if isinstance(p, LazyTensor))
    part = lambda p, k: p[..., k if _size(p) > 1 else 0] if isinstance(p, LazyTensor) else p  # noqa: E731
    return _join(*(part(p, k) for k in range(size) for p in (real, imag)))


def _complex_product(f: LazyTensor, g: LazyTensor) -> LazyTensor:
    (a, b), (c, d) = _parts(f), _parts(g)
    return _complex(a * c - b * d, a * d + b * c)


def _conjugate(z: LazyTensor) -> LazyTensor:
    a, b = _parts(z)
    return _complex(a, -b)


def _square_modulus(z: LazyTensor) -> LazyTensor:
    a, b = _parts(z)
    return a.square() + b.square()


def _complex_quotient(f: LazyTensor, g: LazyTensor) -> LazyTensor:
    a, b = _parts(_complex_product(f, _conjugate(g)))
    scale = _square_modulus(g)
    return _complex(a / scale, b / scale)


def _complex_exp(z: LazyTensor) -> LazyTensor:
    a, b = _parts(z)
    return _complex(a.exp() * b.cos(), a.exp() * b.sin())


def _scaled(f: LazyTensor, g: LazyTensor) -> LazyTensor:
    """Real numbers f, one or one for each, times complex ones g."""
    a, b = _parts(g)
    return _complex(f * a, f * b)


def _complex_repeat(f: LazyTensor, dim: int) -> LazyTensor:
    if _size(f) != 2 or dim % 2:
        raise ValueError(f"f has {_size(f)} features and dim is {dim}, expected 2 and an even number.")
    return _join(*[f] * (dim // 2))


_TENSORS = {"f", "g", "h", "v", "e", "s", "z", "knots", "gamma"}

# Arguments of these names are LazyTensors; dims..., cont... and permute are lists of numbers; all others are integers.
_TABLE: dict[str, Callable[..., Any]] = {
    # Constants. IntCst and RatCst are numbers of the floating type of the data, as in KeOps.
    "IntCst": lambda n: LazyTensor(float(n)),
    "RatCst": lambda p, q: LazyTensor(p / q),
    "IntInv": lambda n: LazyTensor(1 / n),
    "Zero": lambda dim: _join(*_zeros(dim)),
    # Arithmetic.
    "Add": lambda f, g: f + g,
    "Subtract": lambda f, g: f - g,
    "Mult": lambda f, g: f * g,
    "Divide": lambda f, g: f / g,
    "Minus": lambda f: -f,
    "Inv": lambda f: 1 / f,
    "Square": lambda f: f.square(),
    "Pow": lambda f, m: f**m,
    "Powf": lambda f, g: f**g,
    "Scalprod": lambda f, g: f | g,
    # Comparisons.
    "Equal": lambda f, g: number(f == g),
    "NotEqual": lambda f, g: number(f != g),
    "LessThan": lambda f, g: number(f < g),
    "LessOrEqual": lambda f, g: number(f <= g),
    # Element-wise.
    "Abs": lambda f: f.abs(),
    "Acos": lambda f: f.acos(),
    "Asin": lambda f: f.asin(),
    "Atan": lambda f: f.atan(),
    "Atan2": lambda f, g: f.atan2(g),
    "Clamp": lambda f, g, h: f.clamp(g, h),
    "ClampInt": lambda f, low, high: f.clamp(low, high),
    "Cos": lambda f: f.cos(),
    "DiffClampInt": lambda f, low, high: number((f >= low) & (f <= high)),
    "Exp": lambda f: f.exp(),
    "Floor": lambda f: f.floor(),
    "IfElse": lambda f, g, h: f.ifelse(g, h),
    "Log": lambda f: f.log(),
    "Mod": lambda f, g, h: f.mod(g, h),
    "ReLU": lambda f: f.relu(),
    "Round": lambda f, d: f.round(d),
    "Rsqrt": lambda f: f.rsqrt(),
    "Sign": lambda f: f.sign(),
    "Sin": lambda f: f.sin(),
    "SinXDivX": lambda f: f.sinxdivx(),
    "Sqrt": lambda f: f.sqrt(),
    "Step": lambda f: f.step(),
    "XLogX": lambda f: f.xlogx(),
    # Over the features.
    "ArgMax": lambda f: f.argmax(-1),
    "ArgMin": lambda f: f.argmin(-1),
    "Max": lambda f: f.max(-1),
    "Min": lambda f: f.min(-1),
    "Norm2": lambda f: f.norm2(),
    "Normalize": lambda f: f.normalize(),
    "SqDist": lambda f, g: f.sqdist(g),
    "SqNorm2": lambda f: f.sqnorm2(),
    "SqNormDiag": lambda s, f: (s * f.square()).sum(-1),
    "SqNormIso": lambda s, f: s * f.sqnorm2(),
    "Sum": lambda f: f.sum(-1),
    "SumT": _repeat,
    "SymSqNorm": lambda s, f: f.weightedsqnorm(s),
    "WeightedSqDist": lambda s, f, g: f.weightedsqdist(g, s),
    "WeightedSqNorm": lambda s, f: f.weightedsqnorm(s),
    "SoftDTW_SqDist": lambda f, g, gamma: f.softdtw_sqdist(g, gamma),
    # Index and build.
    "BSpline": lambda knots, f, k: knots.bspline(f, k),
    "Concat": lambda f, g: f.concat(g),
    "DifferenceMatrix": lambda f, g: f.difference_matrix(g),
    "Elem": lambda f, m: f.elem(m),
    "ElemT": _place_one,
    "Extract": lambda f, start, dim: f.extract(start, dim),
    "ExtractT": _place,
    "OneHot": lambda f, dim: f.one_hot(dim),
    # Small matrices and tensors.
    "Kron": lambda f, g, dimsf, dimsg: f.keops_kron(g, dimsf, dimsg),
    "MatVecMult": lambda f, g: f.matvecmult(g),
    "TensorDot": _tensordot,
    "TensorProd": lambda f, g: f.tensorprod(g),
    "VecMatMult": lambda f, g: f.vecmatmult(g),
    # Symbolic calculus.
    "AutoFactorize": lambda f: f.auto_factorize(),
    "Diff": lambda f, v, e: f.diff(v, e),
    "Divergence": lambda f, v: f.divergence(v),
    "Factorize": lambda f, g: f.factorize(g),
    "Grad": lambda f, v, e: f.grad(v, e),
    "GradMatrix": lambda f, v: f.grad_matrix(v),
    "Laplacian": lambda f, v: f.laplacian(v),
    "TraceOperator": lambda f, v: f.trace_operator(v),
    # Complex numbers.
    "ComplexAbs": lambda f: _square_modulus(f).sqrt(),
    "ComplexAdd": lambda f, g: f + g,
    "ComplexAngle": lambda f: _parts(f)[1].atan2(_parts(f)[0]),
    "ComplexDivide": _complex_quotient,
    "ComplexExp": _complex_exp,
    "ComplexExp1j": lambda f: _complex(f.cos(), f.sin()),
    "ComplexImag": lambda f: _parts(f)[1],
    "ComplexMult": _complex_product,
    "ComplexReal": lambda f: _parts(f)[0],
    "ComplexRealScal": _scaled,
    "ComplexSquareAbs": _square_modulus,
    "ComplexSubtract": lambda f, g: f - g,
    "ComplexSum": lambda f: _complex(*(p.sum(-1) for p in _parts(f))),
    "ComplexSumT": _complex_repeat,
    "Conj": _conjugate,
    "Imag2Complex": lambda f: _complex(0.0, f),
    "Real2Complex": lambda f: _complex(f, 0.0),
}


@dataclasses.dataclass(frozen=True)
class Function:
    """One operation. kinds: for each argument "tensor", "int" or "list"; the last `optional` may be left out."""

    name: str
    fn: Callable[..., Any]
    arguments: tuple[str, ...]
    kinds: tuple[str, ...]
    optional: int

    @property
    def signature(self) -> str:
        """How it is written."""
        required = ", ".join(self.arguments[: len(self.arguments) - self.optional])
        return f"{self.name}({required}{f'[, {self.arguments[-1]}]' if self.optional else ''})"


def _function(name: str, fn: Callable[..., Any]) -> Function:
    parameters = inspect.signature(fn).parameters.values()
    names = tuple(p.name for p in parameters)
    kinds = tuple(
        "tensor" if n in _TENSORS else "list" if n.startswith(("dims", "cont", "permute")) else "int" for n in names
    )
    return Function(name, fn, names, kinds, sum(p.default is not p.empty for p in parameters))


FUNCTIONS = {name: _function(name, fn) for name, fn in _TABLE.items()}
