"""Reductions of a LazyTensor: from a formula and an axis to one call of the primitive."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from ._errors import show, static_int
from ._ops import FEATURE_OPS
from ._options import read_options, reduce_axis
from ._primitive import map_reduce
from ._reductions import Extremum, KSmallest, LogSumExp, Sum, SumSoftmaxWeight
from ._symbolic_reduction import SymbolicReduction, unbound
from ._tape import Leaf, Tape, join, pair_function
from ._variables import canonical, checked_array, common_sizes, is_array, leaf_aval, leaf_sizes
from .kernels import Description, Reduction
from .kernels.description import Role

if TYPE_CHECKING:
    from ._lazytensor import LazyTensor


class Request(NamedTuple):
    """Everything about a reduction that is static: the key of the one jit cache."""

    tape: Tape
    nodes: tuple[int, ...]  # the values of a pair
    reduction: Reduction
    axis: str  # "i", "j" or "ij": what is reduced
    backend: str | None
    rank_one: bool  # the result drops a feature axis of size 1 (K smallest)


@functools.partial(jax.jit, static_argnums=0, inline=True)
def _run(request: Request, *data: Any) -> tuple[jax.Array, ...]:
    """All of a reduction in one jit, so that an eager call is one dispatch and is traced once."""
    desc, args = describe(request, data)
    outs = map_reduce(desc, args)
    return tuple(_result(request, desc, o) for o in outs)


def describe(request: Request, data: Sequence[Any]) -> tuple[Description, list[jax.Array]]:
    """The description of a request on given arrays, and the arrays as it wants them."""
    leaves = request.tape.leaves
    batch, m, n = (), None, None
    for leaf, x in zip(leaves, data, strict=True):
        own, rows = leaf_sizes(leaf, x)
        batch = jnp.broadcast_shapes(batch, own)
        m, n = (rows if leaf.role == "i" and m is None else m), (rows if leaf.role == "j" and n is None else n)
    args = [canonical(leaf, x, len(batch)) for leaf, x in zip(leaves, data, strict=True)]
    pair = pair_function(
        request.tape, request.nodes, [leaf_aval(leaf, x) for leaf, x in zip(leaves, data, strict=True)]
    )
    roles: list[Role] = [leaf.role for leaf in leaves]
    m, n = 1 if m is None else m, 1 if n is None else n
    if request.axis == "i":  # a reduction over i is one over j with the roles exchanged
        roles = [leaf.swapped().role for leaf in leaves]
        m, n = n, m
    over = "ij" if request.axis == "ij" else "j"
    return Description(pair, tuple(roles), request.reduction, m, n, tuple(batch), over, request.backend), args


def _result(request: Request, desc: Description, out: jax.Array) -> jax.Array:
    return out[..., 0] if request.rank_one and out.shape[-1] == 1 else out


def reduce_tensors(
    tensors: Sequence[LazyTensor], reduction: Reduction, axis: str, backend: str | None, pick: Callable[..., Any]
) -> Any:
    """One reduction of the values of one pair, given as LazyTensors that share their axes."""
    head = tensors[0]
    if len(tensors) == 1:
        tape, data, nodes = head._tape, head._data, (head._node,)
        _ = head._sizes  # mismatched axes raise here, before anything is traced
    else:
        sizes = head._sizes
        for t in tensors[1:]:
            sizes = common_sizes(sizes, t._sizes, type(reduction).__name__)
        leaves, code, data, numbers = join([t._operand() for t in tensors])
        tape, nodes = Tape(leaves, tuple(code)), tuple(numbers)
    rank_one = isinstance(reduction, KSmallest)
    outs = _run(Request(tape, nodes, reduction, axis, backend, rank_one), *data)
    return pick(outs)


def _first(outs: Sequence[Any]) -> Any:
    return outs[0]


def _all(outs: Sequence[Any]) -> Any:
    return tuple(outs)


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

    def _reduced(self, name: str, reduction: Any, axis: Any, dim: Any, options: dict[str, Any], pick: Any = _first,
                 default: Any = None, weight: Any = None) -> Any:  # fmt: skip
        which = reduce_axis(self, axis, dim, default, name)
        options = dict(options)
        call = options.pop("call", True)
        if not isinstance(call, bool):
            raise TypeError(f"{name}: call={show(call)}, expected True, or False for a function to be called later.")
        if which == "features":
            if name not in FEATURE_OPS:
                raise ValueError(f"{name}: the features cannot be reduced by it; give the i or the j axis.")
            if weight is not None:
                raise ValueError(f"{name}: a weight has no meaning over the features; give the i or the j axis.")
            if backend_option(options, name) is not None:
                raise TypeError(f"{name}: options {sorted(options)} have no meaning over the features.")
            return self._record(FEATURE_OPS[name], shown=name)
        if which == "ij" and not isinstance(reduction, Sum):
            raise ValueError(f"{name}: both axes at once are reduced only by sum; reduce one, then the result.")
        if isinstance(reduction, Extremum | KSmallest) and jnp.issubdtype(self.dtype, jnp.complexfloating):
            raise TypeError(
                f"{name}: the formula is {self.dtype}, and complex numbers have no order; reduce its real part, its "
                "imaginary part or its modulus abs(x)."
            )
        if weight is not None:
            common_sizes(self._sizes, weight._sizes, f"{name} of a formula and its weight")
        tensors = [self] if weight is None else [self, weight]
        if not call or any(map(unbound, tensors)):
            backend_option(options, name)  # a mistake is said now, not when the arrays come
            return SymbolicReduction(name, tensors, reduction, which, options, pick)
        return reduce_tensors(tensors, reduction, which, backend_option(options, name), pick)  # type: ignore[arg-type]

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
        return self._reduced("min_argmin", Extremum(False, "both"), axis, dim, options, _all)

    def max_argmax(self, axis: Any = None, *, dim: Any = None, **options: Any) -> Any:
        """(`max`, `argmax`) in one pass."""
        return self._reduced("max_argmax", Extremum(True, "both"), axis, dim, options, _all)

    def _k_smallest(self, name: str, K: Any, wanted: Any, axis: Any, dim: Any, options: Any, pick: Any = _first) -> Any:
        k = static_int(K, "K", name)
        if k < 1:
            raise ValueError(f"{name}: K={k}, expected at least 1.")
        return self._reduced(name, KSmallest(k, wanted), axis, dim, options, pick)

    def Kmin(self, K: Any, axis: Any = None, *, dim: Any = None, **options: Any) -> Any:
        """The K smallest values, ascending, differentiable: (*B, R, K), or (*B, R, K, D); inf follows where K > N."""
        return self._k_smallest("Kmin", K, "value", axis, dim, options)

    def argKmin(self, K: Any, axis: Any = None, *, dim: Any = None, **options: Any) -> Any:
        """The indices of the K smallest values: int32 (*B, R, K), or (*B, R, K, D); -1 follows where K > N."""
        return self._k_smallest("argKmin", K, "index", axis, dim, options)

    def Kmin_argKmin(self, K: Any, axis: Any = None, *, dim: Any = None, **options: Any) -> Any:
        """(`Kmin`, `argKmin`) in one pass."""
        return self._k_smallest("Kmin_argKmin", K, "both", axis, dim, options, _all)

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

    def prod(self, axis: Any = -1) -> Any:
        """The product over the features, lazily."""
        return self._over_features("prod", axis)

    def mean(self, axis: Any = -1) -> Any:
        """The mean over the features, lazily."""
        return self._over_features("mean", axis)

    def _over_features(self, name: str, axis: Any) -> Any:
        which = reduce_axis(self, axis, None, None, name)
        if which != "features":
            raise ValueError(f"{name}: axis={axis!r}; it is available over the features (axis=-1).")
        return self._record(f"{name}_features", shown=name)

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
        return self._reduced("reduction", reduction, axis, dim, options, _all, weight=weight)

    # Matrix products: the kernel matrix K (M, N) of a scalar formula.

    def __matmul__(self, b: Any) -> Any:
        return self._product(b, "K @ b", {})

    def __rmatmul__(self, b: Any) -> Any:
        """b @ K: b (M,) or (..., E, M)."""
        b = checked_array(b, "b @ K")
        if b.ndim >= 2:
            return self.T._product(jnp.swapaxes(b, -1, -2), "b @ K", {}, _transposed)
        return self.T._product(b, "b @ K", {})

    def matvec(self, b: Any, **options: Any) -> Any:
        """K @ b."""
        return self._product(b, "matvec", options)

    def rmatvec(self, b: Any, **options: Any) -> Any:
        """K.T @ b."""
        return self.T._product(b, "rmatvec", options)

    def _product(self, b: Any, name: str, options: dict[str, Any], pick: Any = _first) -> Any:
        from ._lazytensor import LazyTensor

        if isinstance(b, LazyTensor) or not (is_array(b) or isinstance(b, list | tuple)):
            raise TypeError(
                f"{name}: b is {show(b) if not isinstance(b, LazyTensor) else 'a LazyTensor'}, expected an array "
                "(N,) or (*B, N, E). For a sum against a formula write (K * f).sum(axis=1)."
            )
        batch, m, n = self._sizes
        features = math.prod(self._aval.shape)
        if features != 1:
            raise ValueError(
                f"{name}: K has {features} features, expected a scalar formula: (M, N) with one feature. "
                "Sum the features first, or write (K * Vj(b)).sum(axis=1)."
            )
        b = checked_array(b, name)
        if n is None and b.ndim and any(leaf.role == "j" for leaf in unbound(self)):
            n = b.shape[-1 if b.ndim == 1 else -2]  # not known yet: checked when the arrays come
        m, n = 1 if m is None else m, 1 if n is None else n
        if b.ndim == 0 or b.shape[-1 if b.ndim == 1 else -2] != n:
            raise ValueError(
                f"{name}: b is {show(b)}, expected ({n},) or (*B, {n}, E) for K of shape {(*batch, m, n)}."
            )
        vector = b.ndim == 1
        leaf = Leaf("j", 0 if vector else 1, "rows")
        product = self._record("multiply", LazyTensor._of_leaf(leaf, b), shown=name)
        return product._reduced(name, Sum(), "j", None, options, _squeezed if vector else pick)


def _squeezed(outs: Sequence[Any]) -> Any:
    return outs[0][..., 0]


def _transposed(outs: Sequence[Any]) -> Any:
    return jnp.swapaxes(outs[0], -1, -2)


def _attach_aliases() -> None:
    """`K.sum_reduction(axis=...)` and so on, as in KeOps."""
    for name in ("sum", "min", "max", "argmin", "argmax", "min_argmin", "max_argmax", "Kmin", "argKmin",
                 "Kmin_argKmin", "logsumexp", "sumsoftmaxweight"):  # fmt: skip
        method = getattr(Reductions, name)

        def alias(self: Any, *args: Any, _method: Any = method, _name: str = name, **kwargs: Any) -> Any:
            positional = 1 if _name in ("Kmin", "argKmin", "Kmin_argKmin", "sumsoftmaxweight") else 0
            given = kwargs.get("axis", kwargs.get("dim", args[positional] if len(args) > positional else None))
            if given is None:
                raise ValueError(f"{_name}_reduction: axis is missing; give the i or the j axis.")
            return _method(self, *args, **kwargs)

        alias.__name__ = f"{name}_reduction"
        alias.__doc__ = f"`{name}` under KeOps' other name; `axis` must be given."
        setattr(Reductions, f"{name}_reduction", alias)


_attach_aliases()

__all__ = ["Reductions", "Request", "describe"]
