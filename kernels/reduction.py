"""What a reduction is: a commutative monoid on the values of one pair.

Every method is plain JAX on the features of *one* row, without any axis for the pairs; the kernels
decide how many pairs they hold at once.  A subclass is a frozen dataclass (two equal instances are the
same reduction) that defines `init`, `lift`, `merge` and `finalize`; `fold` and `block` only make it
faster, `tangent` makes it differentiable.
"""

from __future__ import annotations

import abc
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import ClosedJaxpr

Values = Sequence[Any]
Accumulator = Any


class Reduction(abc.ABC):
    """A commutative monoid with a map before it (`lift`) and a map after it (`finalize`): a reduction of your own.

    `merge(init, a) == a`, and `merge` is associative and commutative: kernels split the reduced axis
    and merge the parts in any order.  The index of a pair, an integer, is what breaks ties.

    A subclass is a frozen dataclass: two equal instances are the same reduction, and compile once.  It defines
    `init`, `lift`, `merge` and `finalize`; with `tangent` it is differentiable.  Its methods see the features of one
    row: `values` holds an array (D,) for the formula, and a second one for a weight; accumulators are arrays or
    pytrees of them, whose shapes and dtypes `lift` decides and `merge` keeps.  They are traced, so they are plain
    JAX.

    Attributes:
        rounds: whether merging rounds (the default): long chains of merges are then cut into groups.
        adds: whether the accumulator is the sum of the values, so that kernels may use matrix products.

    Example:
        >>> import dataclasses
        >>> import jax, jax.numpy as jnp
        >>> from lazyjax import Reduction, Sum, Vi, Vj
        >>> @dataclasses.dataclass(frozen=True)
        ... class Norm(Reduction):  # (sum_j f_ij^2)^(1/2), for every feature
        ...     def init(self, values):
        ...         return jnp.zeros(values[0].shape, values[0].dtype)
        ...
        ...     def lift(self, values, index):
        ...         return values[0] ** 2
        ...
        ...     def merge(self, a, b):
        ...         return a + b
        ...
        ...     def finalize(self, acc, values):
        ...         return (jnp.sqrt(acc),)
        ...
        ...     def tangent(self, call):
        ...         (norm,) = call.reduce(self)
        ...         return (norm,), call.sum(Sum(), slope, norm)
        >>> def slope(values, dvalues, norm):  # d norm_i = sum_j f_ij df_ij / norm_i
        ...     return [values[0] * dvalues[0] / norm]
        >>> def norms(x):
        ...     (norm,) = (Vi(x) - Vj([[0.0], [-1.0]])).reduction(Norm(), axis=1)
        ...     return norm.sum()
        >>> x = jnp.array([[3.0]])  # f is 3 and 4
        >>> norms(x).item(), round(jax.grad(norms)(x).item(), 4), round(jax.hessian(norms)(x).item(), 4)
        (5.0, 1.4, 0.008)
    """

    # Whether merging rounds: long chains of merges are then cut into groups, so that errors do not grow with them.
    rounds = True

    # Whether the accumulator is the sum of the values, so that kernels may use matrix products.
    adds = False

    @abc.abstractmethod
    def init(self, values: Values) -> Accumulator:
        """The neutral element: `merge(init, a) == a`.

        Args:
            values: for each value of a pair something with its `shape` and `dtype`, and no data.

        Returns:
            An accumulator: an array, or a pytree of arrays, of the shapes that `lift` gives. Plain numbers will do
            for arrays of shape (); dtypes are those of `lift`.
        """

    @abc.abstractmethod
    def lift(self, values: Values, index: jax.Array) -> Accumulator:
        """The accumulator of a single pair.

        Args:
            values: an array of its features, (D,), for each value of the pair: the formula, and the weight if there
                is one.
            index: the number of the pair along the reduced axis, an integer ().

        Returns:
            An accumulator.
        """

    @abc.abstractmethod
    def merge(self, a: Accumulator, b: Accumulator) -> Accumulator:
        """The accumulator of two disjoint sets of pairs: associative and commutative, up to rounding.

        Returns:
            An accumulator of the shapes and dtypes of a and of b.
        """

    @abc.abstractmethod
    def finalize(self, acc: Accumulator, values: Values) -> tuple[Any, ...]:
        """The results of one row.

        Args:
            acc: the accumulator of all its pairs; `init` where there are none.
            values: as in `init`.

        Returns:
            A tuple of arrays, of any shapes and dtypes: each becomes an array (*B, R, ...).
        """

    def fold(self, acc: Accumulator, values: Values, indices: jax.Array) -> Accumulator:
        """Absorb a short chunk of pairs, lower than those in acc: optional, to be faster than one `merge` for each.

        Kernels that fold walk through the pairs from the last to the first, so that the lowest index wins a tie by a
        comparison of values alone.

        Args:
            acc: an accumulator.
            values: arrays (U, D), one for each value.
            indices: (U,), ascending, all lower than any in acc.

        Returns:
            An accumulator.
        """
        for u in reversed(range(indices.shape[0])):
            acc = self.merge(self.lift([v[u] for v in values], indices[u]), acc)
        return acc

    def block(self, values: Values, indices: jax.Array, valid: jax.Array) -> Accumulator:
        """The accumulator of a long block of pairs: optional, to be faster than one `merge` for each.

        Args:
            values: arrays (T, D), one for each value.
            indices: (T,).
            valid: (T,), booleans; the other pairs are padding, whose values may be anything.

        Returns:
            An accumulator.
        """
        lifted = jax.vmap(self.lift)(tuple(values), indices)
        neutral = self.init([jax.ShapeDtypeStruct(v.shape[1:], v.dtype) for v in values])

        def masked(x: Any, e: Any) -> Any:
            e = jnp.asarray(e, x.dtype)
            return jnp.where(valid.reshape(valid.shape + (1,) * e.ndim), x, e)

        return tree_merge(jax.vmap(self.merge), jax.tree.map(masked, lifted, neutral))

    def ignored(self, values: Values) -> Sequence[Any] | None:
        """Values, in the dtypes of `values`, that `fold` absorbs without any effect; None where there are none.

        A short chunk is masked by them, before `fold`; otherwise `block` masks it.
        """
        return None

    def tangent(self, call: Any) -> tuple[Sequence[Any], Sequence[Any]]:
        """The results and their tangents, written with other reductions: optional, needed to differentiate.

        Args:
            call: what is differentiated. `call.reduce(reduction)` reduces the same pairs by another reduction.
                `call.sum(Sum(), combine, *rows)` sums `combine(values, dvalues, *rows)` over the pairs, for a
                function that is linear in the tangents dvalues; rows are arrays (*B, R, ...), of which it sees the
                row of its pair. `call.at(Sum(), indices)` is the tangent of the value at the pairs (i, indices[i]).

        Returns:
            (results, tangents): as many of each as `finalize` returns. A tangent has the shape and dtype of its
            result, or is None where that is an integer.

        Raises:
            TypeError: where it is not defined.
        """
        raise TypeError(
            f"{type(self).__name__} was differentiated, but it defines no derivative. "
            f"Define {type(self).__name__}.tangent(self, call), or keep the data that is "
            "differentiated out of this reduction with jax.lax.stop_gradient."
        )

    def narrow(self, used: Sequence[bool], count: int) -> tuple[Reduction, Sequence[bool]]:
        """A cheaper reduction where only some of the results are wanted: optional, the default computes everything.

        Args:
            used: for each result, whether it is wanted.
            count: how many values a pair has.

        Returns:
            The reduction whose results are just those, or self; and for each value whether it still needs it.
        """
        return self, [True] * count

    def out_avals(self, values: Values, index_dtype: Any) -> list[jax.ShapeDtypeStruct]:
        """Shape and dtype of the results of one row."""
        return trace(self, tuple((v.shape, v.dtype) for v in values), index_dtype).out_avals


class Selection(Reduction):
    """A reduction that keeps the k best of many values, or says where they are.

    `group_reduction` summarises a group of pairs by its best value, so that `best_groups`, or the reduction `indices`,
    can name k groups that contain the k best values (see `xla.groups` and `triton.groups`).
    """

    k: int

    @abc.abstractmethod
    def group_reduction(self) -> Reduction | None:
        """The reduction to the best value alone, NaN skipped; None where that is this reduction itself."""

    @abc.abstractmethod
    def indices(self) -> Selection:
        """The reduction to the indices of the k best alone: one result, (k, *F) or (*F,), -1 where there is none."""

    @abc.abstractmethod
    def best_groups(self, values: jax.Array, k: int) -> jax.Array:
        """Positions of the k best along the last axis; the lowest position first among equals."""


class ShiftedSum(Reduction):
    """Sums of exponentials of a score, shifted by the largest one: kernels may find that first (see `xla.passes`)."""

    @abc.abstractmethod
    def score(self, values: Values) -> jax.Array:
        """What is exponentiated, in the dtype of the accumulator."""

    @abc.abstractmethod
    def maximum(self) -> Reduction:
        """The reduction to the largest score, NaN skipped."""

    @abc.abstractmethod
    def sums(self) -> Reduction:
        """The reduction that adds the terms."""

    @abc.abstractmethod
    def terms(self, values: Values, maximum: jax.Array) -> Values:
        """What is summed."""

    @abc.abstractmethod
    def assemble(self, maximum: jax.Array, sums: Sequence[jax.Array]) -> Accumulator:
        """The accumulator that these passes amount to."""


def tree_merge(merge: Callable[[Any, Any], Any], acc: Any, axis: int = 0) -> Any:
    """Merge along an axis of every leaf by halving it; the axis must not be empty."""
    size = jax.tree.leaves(acc)[0].shape[axis]

    def cut(acc: Any, first: int, last: int) -> Any:
        return jax.tree.map(lambda x: lax.slice_in_dim(x, first, last, axis=axis), acc)

    while size > 1:
        half = size // 2
        merged = merge(cut(acc, 0, half), cut(acc, half, 2 * half))
        if size % 2:
            merged = jax.tree.map(lambda x, y: lax.concatenate([x, y], axis), merged, cut(acc, size - 1, size))
        acc, size = merged, half + size % 2
    return jax.tree.map(lambda x: lax.squeeze(x, (axis,)), acc)


class TracedReduction:
    """The methods of a reduction as jaxprs on flat accumulators, for given value shapes and dtypes."""

    def __init__(self, reduction: Reduction, values: Values, index_dtype: Any):
        self.reduction = reduction
        self.values = values = [jax.ShapeDtypeStruct(s, d) for s, d in values]
        self.index_dtype = index_dtype

        def flat(fn: Callable[..., Any]) -> Callable[..., Any]:
            return lambda *args: [jnp.asarray(x) for x in jax.tree.leaves(fn(*args))]

        index = jax.ShapeDtypeStruct((), index_dtype)
        init = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, reduction.init(values)))
        lifted = jax.eval_shape(lambda v, k: jax.tree.map(jnp.asarray, reduction.lift(v, k)), values, index)
        self._check("lift", lifted, "init", init, dtypes=False)  # init may be written with plain numbers
        merged = jax.eval_shape(lambda a, b: jax.tree.map(jnp.asarray, reduction.merge(a, b)), lifted, lifted)
        self._check("merge", merged, "lift", lifted)
        self.treedef = jax.tree.structure(lifted)
        self.acc_avals = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in jax.tree.leaves(lifted)]
        k = len(self.acc_avals)

        def typed(leaves: Sequence[Any]) -> list[Any]:
            return [jnp.asarray(x, a.dtype) for x, a in zip(leaves, self.acc_avals, strict=True)]

        unflatten = self.treedef.unflatten
        self.init: ClosedJaxpr = jax.make_jaxpr(lambda: typed(flat(reduction.init)(values)))()
        self.merge: ClosedJaxpr = jax.make_jaxpr(
            lambda *ab: typed(flat(reduction.merge)(unflatten(ab[:k]), unflatten(ab[k:])))
        )(*self.acc_avals, *self.acc_avals)
        self.finalize: ClosedJaxpr = jax.make_jaxpr(
            lambda *a: flat(lambda acc: reduction.finalize(acc, values))(unflatten(a))
        )(*self.acc_avals)
        self.out_avals = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in self.finalize.out_avals]
        self._typed = typed

    def _check(self, method: str, got: Any, other: str, expected: Any, dtypes: bool = True) -> None:
        def kinds(tree: Any) -> list[Any]:
            return [(a.shape, str(a.dtype) if dtypes else "") for a in jax.tree.leaves(tree)]

        if jax.tree.structure(got) == jax.tree.structure(expected) and kinds(got) == kinds(expected):
            return
        raise TypeError(
            f"{type(self.reduction).__name__}.{method} gives an accumulator {_describe(got)}, but {other} gives "
            f"{_describe(expected)}. All of init, lift and merge must give the same structure, shapes and dtypes."
        )

    @functools.lru_cache(maxsize=8)  # noqa: B019  (instances live in a bounded cache themselves)
    def fold(self, length: int) -> ClosedJaxpr:
        """(accumulator, values of `length` pairs, their indices) -> accumulator."""
        k = len(self.acc_avals)

        def fold(*args: Any) -> list[Any]:
            acc = self.treedef.unflatten(args[:k])
            folded = jax.tree.map(jnp.asarray, self.reduction.fold(acc, args[k:-1], args[-1]))
            self._check("fold", folded, "lift", self.treedef.unflatten(self.acc_avals), dtypes=False)
            return self._typed(jax.tree.leaves(folded))

        stacked = [jax.ShapeDtypeStruct((length, *v.shape), v.dtype) for v in self.values]
        index = jax.ShapeDtypeStruct((length,), self.index_dtype)
        return jax.make_jaxpr(fold)(*self.acc_avals, *stacked, index)

    @functools.lru_cache(maxsize=8)  # noqa: B019
    def block(self, length: int) -> ClosedJaxpr:
        """(values of `length` pairs, their indices, which of them are valid) -> accumulator."""

        def block(*args: Any) -> list[Any]:
            return self._typed(jax.tree.leaves(self.reduction.block(args[:-2], *args[-2:])))

        stacked = [jax.ShapeDtypeStruct((length, *v.shape), v.dtype) for v in self.values]
        return jax.make_jaxpr(block)(
            *stacked, jax.ShapeDtypeStruct((length,), self.index_dtype), jax.ShapeDtypeStruct((length,), bool)
        )


def _describe(tree: Any) -> str:
    return str(jax.tree.map(lambda a: f"{a.dtype}{list(a.shape)}", tree))


@functools.lru_cache(maxsize=512)
def _trace(reduction: Reduction, values: Any, index_dtype: Any, context: Any) -> TracedReduction:
    del context
    return TracedReduction(reduction, values, index_dtype)


def config_key() -> Any:
    """Tracing a constant depends on these switches: jaxprs made under one must not serve another."""
    config: Any = jax.config
    return config.jax_enable_x64, config.jax_numpy_dtype_promotion


def trace(reduction: Reduction, values: Any, index_dtype: Any) -> TracedReduction:
    """Trace a reduction once for each shape, dtype and numeric configuration."""
    return _trace(reduction, values, index_dtype, config_key())
