"""The K smallest of all j by group minima, in three kernels of `pallas`: K accumulators for every pair cost too much.

As on the CPU (see `xla.groups`, which says why it is exact), a first kernel keeps only the minimum of every group of
consecutive columns; a second one selects the K groups of the smallest minima; a third one computes their pairs again,
by the same instructions, and selects among them.  The kernels that select are the slow one that they replace, over few
numbers: a lane has its own K accumulators, so there are few lanes for a row.

Each lane of the first kernel owns a group: its accumulator is the minimum, stored after the last column of the group,
so nothing is exchanged between threads.  Columns are laid out before so that lanes read beside one another.

A minimum starts as NaN, which the instruction skips: groups of nothing but NaN stay NaN, and are never selected.  That
of an integer starts as its neutral number; groups beyond the last column come after their equals.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..description import Description, PairFunction, trace_pair
from ..pairs import batched, by_rows, pad_leading
from ..reduction import Selection
from .body import Fold, computing
from .pallas import Kernel
from .plan import TritonPlan


def by_groups(desc: Description, plan: TritonPlan) -> Callable[..., Sequence[jax.Array]]:
    """The three kernels, over as many rows and problems at once as `plan` holds minima of."""
    step = plan.block_i
    rows = min(desc.m, -(-desc.m // (-(-desc.m // plan.rows) * step)) * step)  # tiles of about one size
    own = desc.replace(m=rows, batch=())
    problem = by_rows(desc, rows, lambda args: _selected(own, plan, args))
    return lambda *args: batched(problem, desc, args, together=max(1, plan.rows // rows))


def _selected(desc: Description, plan: TritonPlan, args: Sequence[jax.Array]) -> Sequence[jax.Array]:
    minima = GroupMinima(desc, plan)
    chosen = GroupChoice(desc, plan, minima.groups)(minima(args))
    return LookAgain(desc, plan).call(args, chosen)


def minimum_of(desc: Description) -> Description:
    """The reduction to the best value alone."""
    assert isinstance(desc.reduction, Selection)  # the planner chooses this way for nothing else
    group_reduction = desc.reduction.group_reduction()
    assert group_reduction is not None
    return desc.replace(reduction=group_reduction)


def among_groups(desc: Description, groups: int) -> Description:
    """The selection of groups, a minimum being the value of a row and a group."""
    assert isinstance(desc.reduction, Selection)
    (value,) = desc.pair.out_avals
    held = jax.ShapeDtypeStruct(value.shape, computing(value.dtype))
    roles: Any = ("ij",)
    return desc.replace(pair=_identity(held), roles=roles, reduction=desc.reduction.indices(), n=groups)


def _identity(value: jax.ShapeDtypeStruct) -> PairFunction:
    return trace_pair(lambda x: (x,), [value])


def selecting(plan: TritonPlan) -> TritonPlan:
    """The tiles of the kernels that select, of those of the first one."""
    rows, lanes = plan.selecting
    return dataclasses.replace(plan, block_i=rows, block_j=lanes, unroll=2, splits=1)


class GroupMinima(Kernel):
    """The minimum of every group of each row: (rows of all programs, groups).

    A stretch of columns is a group for each of the BN lanes.
    """

    def __init__(self, desc: Description, plan: TritonPlan):
        self.stretches = -(-desc.n // (plan.block_j * plan.members))
        super().__init__(minimum_of(desc), plan)
        self.blocks = self.stretches * plan.members
        self.groups = self.stretches * plan.block_j

    def _splits(self) -> int:
        return max(1, min(self.plan.splits, self.stretches))

    def _written(self) -> list[jax.ShapeDtypeStruct]:
        (value,) = self.traced.acc_avals
        return [jax.ShapeDtypeStruct((self.programs * self.plan.block_i * self.groups,), computing(value.dtype))]

    def _results(self, outs: list[jax.Array]) -> Sequence[jax.Array]:
        return [outs[0].reshape(-1, self.groups)]

    def _array(self, role: str, aval: Any, x: jax.Array) -> jax.Array:
        if role == "j":
            lanes, size = self.plan.block_j, self.plan.members
            x = pad_leading(x, self.blocks * lanes - self.desc.n).reshape(self.stretches, lanes, size, -1)
            x = jnp.swapaxes(x, 1, 2)
            if math.prod(aval.shape) > 1:
                x = jnp.swapaxes(x, 2, 3)
            role = "laid out"
        return super()._array(role, aval, x)

    def _columns(self, start: Any, lane: Any) -> Any:
        """Of a block: where the columns that its lanes read stood before they were laid out."""
        lanes, size = self.plan.block_j, self.plan.members
        block = lax.div(jnp.asarray(start, jnp.int32), jnp.int32(lanes))
        stretch = lax.div(block, jnp.int32(size))
        return stretch * (lanes * size) + lane * size + (block - stretch * size)

    def _run(self, blocks_of: Any, fixed: Any, table: Sequence[Any], outs: list[Any], shape: tuple[int, int]) -> None:
        from jax.experimental import pallas as pl
        from jax.experimental.pallas import triton as plt

        desc, plan, lanes, size = self.desc, self.plan, self.plan.block_j, self.plan.members
        fold = Fold(desc, self.traced, 1, plan.assembly)
        before = fold.before(fixed)
        row = self._own_rows(table)[0] + lax.broadcasted_iota(jnp.int32, (shape[0], 1), 0)
        lane = lax.broadcasted_iota(jnp.int32, (1, lanes), 1)
        together = math.gcd(size, plan.unroll)

        def stretch(k: Any, steps: int, end: Any) -> None:
            def step(s: Any, acc: list[jax.Array]) -> list[jax.Array]:
                for u in range(size // steps):
                    start = (k * size + s * (size // steps) + u) * lanes
                    acc = blocks_of(fold, before, start, end, acc)
                return acc

            (minima,) = lax.fori_loop(0, steps, step, self._nothing(shape))
            plt.store(outs[0].at[row * self.groups + (k * lanes + lane)], minima)

        whole = lambda k, _: stretch(k, size // together, None)  # noqa: E731
        masked = lambda k, _: stretch(k, size, desc.n)  # noqa: E731
        complete = desc.n // (lanes * size)
        per = -(-self.stretches // self.splits)
        first = pl.program_id(1) * per
        end = jnp.minimum(first + per, self.stretches)
        if complete:
            lax.fori_loop(first, jnp.minimum(end, complete), whole, None)
        if complete < self.stretches:
            lax.fori_loop(jnp.maximum(first, complete), end, masked, None)

    def _nothing(self, shape: tuple[int, int]) -> list[jax.Array]:
        (neutral,) = self.monoid.neutral(shape)
        return [jnp.full(shape, np.nan, neutral.dtype) if jnp.issubdtype(neutral.dtype, jnp.floating) else neutral]


class GroupChoice(Kernel):
    """The numbers of the K best groups of each row, ascending, (rows K,); -1 stands for none."""

    def __init__(self, desc: Description, plan: TritonPlan, groups: int):
        super().__init__(among_groups(desc, groups), selecting(plan))

    def __call__(self, args: Sequence[jax.Array]) -> Sequence[jax.Array]:
        (chosen,) = super().__call__(args)
        return [jnp.sort(chosen.reshape(self.desc.m, -1), 1).reshape(-1)]

    def _address(self, row: Any, start: Any, lane: Any, features: int) -> tuple[Any, int]:
        """Rows of the array of minima are those of all programs of the first kernel: no access needs a mask."""
        return row * self.desc.n + (start + lane), 0


class LookAgain(Kernel):
    """The results, from the columns of the groups that were chosen, whose numbers are the table of each row."""

    tables = 1

    def __init__(self, desc: Description, plan: TritonPlan):
        super().__init__(desc, selecting(plan))
        self.size = plan.members

    def _splits(self) -> int:
        return 1

    def _array(self, role: str, aval: Any, x: jax.Array) -> jax.Array:
        return super()._array("i", aval, x)  # every row reads columns of its own: all stays where it is

    def _address(self, row: Any, start: Any, lane: Any, features: int) -> tuple[Any, int]:
        return (start + lane) * features, 1

    def _over_j(self, blocks_of: Any, fixed: Any, table: Sequence[Any], shape: tuple[int, int]) -> list[jax.Array]:
        from jax.experimental.pallas import triton as plt

        desc, plan = self.desc, self.plan
        assert isinstance(desc.reduction, Selection)
        masked = desc.reduction.ignored(desc.pair.out_avals) is not None
        fold = Fold(desc, self.traced, 1, plan.assembly, masked=masked)
        before = fold.before(fixed)
        first_row, last_row = self._own_rows(table)
        row = first_row + lax.broadcasted_iota(jnp.int32, (shape[0], 1), 0)
        k, blocks = desc.reduction.k, -(-self.size // shape[1])
        together = math.gcd(blocks, plan.unroll)

        # From the last group and column to the first (see `Reduction.fold`).
        def group(g: Any, acc: list[jax.Array]) -> list[jax.Array]:
            number = plt.load(table[0].at[row * k + (k - 1 - g)], mask=row < last_row, other=0)
            start = jnp.where(number < 0, desc.n, number * self.size)
            end = jnp.minimum(start + self.size, desc.n)

            def step(b: Any, acc: list[jax.Array]) -> list[jax.Array]:
                for u in range(together):
                    acc = blocks_of(fold, before, start + (blocks - 1 - b * together - u) * shape[1], end, acc)
                return acc

            return lax.fori_loop(0, blocks // together, step, acc)

        return lax.fori_loop(0, k, group, self.monoid.neutral(shape))
