"""Inner products of features of i and features of j as matrix products: what kernels of long features share.

A (BM, BN) tile of them is the sum of products of (BM, F) and (F, BN) pieces, F features at a time.  Rows stand one
after the other, filled up with zeros where features or rows do not fill a piece, so that no load needs a mask.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import lax

from ..long_features import size
from ..scalarize import Tiles, tiles
from ..weighted_sums import InnerProduct, WeightedSums
from .body import computing

if TYPE_CHECKING:
    from .long import StagedKernel

FEATURES = 32  # of an inner product at once
LEAST = 16  # rows, columns and numbers of j that a matrix product of Triton takes at least


def padded(features: int) -> int:
    """Features of an inner product, with zeros."""
    power = max(LEAST, 1 << (features - 1).bit_length())
    return power if power <= FEATURES else -(-features // FEATURES) * FEATURES


def multiplied(rows: Sequence[jax.Array]) -> jax.Array:
    """The product of rows; one alone stays what it is."""
    return rows[0] if len(rows) == 1 else functools.reduce(jnp.multiply, [x.astype(computing(x.dtype)) for x in rows])


def product(a: jax.Array, b: jax.Array, axis: int, tensor: bool) -> jax.Array:
    """A matrix product that contracts an axis of b, in full precision, or of float32 in tensor cores; in float32 at
    least.

    There a number is the sum of two of TF32, which has 11 bits, and what is left over of it, below 2^-22; of the four
    products the one of the two small parts, which is as small, is left out.
    """
    dimensions = (((1,), (axis,)), ((), ()))
    three = lax.DotAlgorithmPreset.TF32_TF32_F32_X3
    precision: Any = three if tensor and a.dtype == jnp.float32 else lax.Precision.HIGHEST
    return lax.dot_general(a, b, dimensions, precision=precision, preferred_element_type=computing(a.dtype))


# Which parts of a number of i and of j are multiplied; the first product is the largest.
PRODUCTS = ((0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (2, 0))


def split(x: jax.Array) -> list[jax.Array]:
    """float32 as the sum of three numbers of bfloat16, which have 8 bits each."""
    found: list[jax.Array] = []
    largest = jnp.asarray(jnp.finfo(jnp.bfloat16).max, x.dtype)
    for _ in range(3):
        part = lax.reduce_precision(x, exponent_bits=8, mantissa_bits=7)  # which XLA keeps, unlike conversions
        part = jnp.where(jnp.abs(x) < jnp.inf, lax.clamp(-largest, part, largest), part)
        found.append(part.astype(jnp.bfloat16))
        x = x - part
    return found


class InnerProducts:
    """Those of a kernel that owns `block_i` rows and walks through j in blocks of `block_j`.

    Where they are all that is multiplied (`plan.products`), a number of float32 is the sum of three of bfloat16, told
    apart before the kernel starts, and of the nine products of these the six that are not below 2^-24 of the whole are
    summed (Henry, Tang and Heinecke, "Leveraging the bfloat16 artificial intelligence datatype for higher-precision
    computations", 2019).  They take tensor cores as long as three products of TF32, without the instructions that tell
    parts apart for every pair, but more registers.  A product of two numbers of half precision is exact.
    """

    def __init__(self, kernel: StagedKernel, sums: WeightedSums):
        self.kernel, self.plan, self.sums = kernel, kernel.plan, sums
        self.parts = [self._parts(x) for x in sums.inner]
        self.sides = 2 * sum(self.parts)  # arrays that the kernel reads

    def _parts(self, inner: InnerProduct) -> int:
        """Of each number."""
        told_apart = self.plan.products and computing(inner.dtype) == jnp.float32 and not half(self.sums, inner)
        return 3 if told_apart else 1

    def arrays(self, args: Sequence[jax.Array]) -> list[jax.Array]:
        """Both sides of each, in parts."""
        found = []
        for inner, parts in zip(self.sums.inner, self.parts, strict=True):
            for role in "ij":
                x = self._features(inner, args, role)
                found += split(x.astype(computing(x.dtype))) if parts > 1 else [x]
        return found

    def _features(self, inner: InnerProduct, args: Sequence[jax.Array], role: str) -> jax.Array:
        """One side, row after row, with zeros where features or rows do not fill a tile."""
        rows = self.sums.rows(args, role, inner.of_i if role == "i" else inner.of_j, computing)
        rows += self.sums.rows(args, "p", inner.of_p, computing) if role == "j" else []
        x = multiplied(rows)
        kernel = self.kernel
        most = kernel.programs * self.plan.block_i if role == "i" else kernel.steps * kernel.columns
        extra = most - x.shape[0], padded(x.shape[1]) - x.shape[1]
        return jnp.pad(x, [(0, k) for k in extra]).reshape(-1)

    # In the kernel.

    def numbers(self, refs: Sequence[Any], program: Any, at: Any) -> dict[tuple[Any, int], Tiles]:
        """The inner products of a program and the blocks of a step, as the short numbers of the pair that they are."""
        left, found = iter(refs), {}
        arguments = self.sums.short.jaxpr.jaxpr.invars[len(self.sums.used) :]
        for v, inner, parts in zip(arguments, self.sums.inner, self.parts, strict=True):
            of_i, of_j = ([next(left) for _ in range(parts)] for _ in "ij")
            for block in range(self.plan.unroll):
                x = self._inner(inner, of_i, of_j, program, at * self.plan.unroll + block)
                found[v, block] = tiles(v.aval.shape, [x])
        return found

    def _inner(self, inner: InnerProduct, of_i: Sequence[Any], of_j: Sequence[Any], program: Any, at: Any) -> jax.Array:
        """An inner product, some features at a time."""
        from jax.experimental.pallas import triton as plt

        plan = self.plan
        kind, length = computing(inner.dtype), padded(size(inner.of_i[0]))
        halves = plan.products and half(self.sums, inner)
        step = min(length, FEATURES)
        across = lax.broadcasted_iota(jnp.int32, (1, step), 1)

        def side(refs: Sequence[Any], first: Any, rows: int, k: Any) -> list[Any]:
            down = first + lax.broadcasted_iota(jnp.int32, (rows, 1), 0)
            return [plt.load(ref.at[down * length + k * step + across]) for ref in refs]

        def body(k: Any, totals: Any) -> Any:
            a = side(of_i, program * plan.block_i, plan.block_i, k)
            b = side(of_j, at * plan.block_j, plan.block_j, k)
            if len(totals) == 1:
                own, other = (x if halves else x.astype(kind) for x in (a[0], b[0]))
                return [totals[0] + product(own, other, 1, plan.tensor)]
            total, small = totals
            for p, q in reversed(PRODUCTS[1:]):
                small = small + product(a[p], b[q], 1, plan.tensor)
            return [total + product(a[0], b[0], 1, plan.tensor), small]

        totals = [jnp.zeros((plan.block_i, plan.block_j), kind) for _ in of_i[:2]]
        totals = body(0, totals) if length == step else lax.fori_loop(0, length // step, body, totals)
        if len(totals) == 1:
            return totals[0]
        # Of an infinite number the smaller parts are none, and their products are left out.
        return totals[0] + lax.select(totals[1] != totals[1], jnp.zeros_like(totals[1]), totals[1])


def half(sums: WeightedSums, inner: InnerProduct) -> bool:
    """Whether both sides are arguments of one dtype of half precision, as they are."""
    own, given = (*inner.of_i, *inner.of_j, *inner.of_p), sums.whole.jaxpr.jaxpr.invars
    kinds = {v.aval.dtype for v in own}
    alike = len(own) == 2 and len(kinds) == 1 and all(v in given for v in own)
    return alike and all(computing(kind) != kind for kind in kinds)
