"""explain: which kernel runs each reduction of a function, with which tiles, at which cost, and why not another."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from ._compat import dce, inner_jaxprs
from ._primitive import map_reduce_p
from .kernels import Description, Plan, plan

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


@dataclasses.dataclass(frozen=True)
class Explained:
    """One reduction: what it computes and how it will run."""

    description: Description
    plan: Plan
    arguments: tuple[Any, ...]  # shapes and dtypes of the arrays that it reads

    @property
    def pairs(self) -> int:
        """How many pairs are visited, over all batch dims; with ranges, at most so many."""
        d = self.description
        return math.prod(d.batch) * d.m * d.n

    @property
    def flops(self) -> int | None:
        """Scalar operations of the pair function and the reduction over all pairs (None: not countable)."""
        return None if self.plan.operations is None else self.plan.operations * self.pairs

    @property
    def bytes(self) -> int:
        """Arrays read and written once: the least that memory must move."""
        arrays = [*self.arguments, *self.description.outputs]
        return sum(math.prod(a.shape) * np.dtype(a.dtype).itemsize for a in arrays)

    @property
    def dense_bytes(self) -> int:
        """What the arrays of all values would take if they were stored."""
        values = sum(math.prod(v.shape) * np.dtype(v.dtype).itemsize for v in self.description.pair.out_avals)
        return self.pairs * values

    def __str__(self) -> str:
        d, p = self.description, self.plan
        over = {"j": f"{d.m} rows, each over {d.n} pairs", "ij": f"all {d.m} x {d.n} pairs into one"}[d.over]
        most = ""
        if d.ranges is not None:
            most, sparse = "at most ", f"{d.ranges.clusters} clusters with {d.ranges.ranges} ranges"
            over = {"j": f"{d.m} rows, each over at most {d.n} pairs", "ij": f"some of {d.m} x {d.n} pairs into one"}[
                d.over
            ]
            over = f"{over}, in {sparse}"
        batch = f", batch {d.batch}" if d.batch else ""
        arguments = ", ".join(f"{r}{list(a.shape)}" for r, a in zip(d.roles, d.pair.in_avals, strict=True))
        flops = "not counted" if self.flops is None else f"{most}{self.flops:.3g} ({p.operations} for each pair)"
        reason = getattr(p.tiles, "reason", "")
        lines = [
            f"{d.reduction}: {over}{batch}",
            f"  arguments  {arguments}",
            f"  kernel     {p.kernel} on {p.platform}" + (f" ({reason})" if reason else ""),
            *(f"  tiles      {t}" for t in _tiles(p.tiles)),
            *(f"  {line}" for line in _predicted(p.tiles, d.precision)),
            f"  flops      {flops}",
            f"  bytes      {self.bytes:.3g} read and written; all pairs would take {self.dense_bytes:.3g}",
        ]
        lines += [f"  refused    {kernel}: {why}" for kernel, why in p.refused]
        return "\n".join(lines)


# What a model says of a GPU kernel, which has never been measured.
_PREDICTED = ("registers", "instructions", "bound", "chip")


def _predicted(tiles: Any, precision: str) -> list[str]:
    if not getattr(tiles, "registers", 0):
        return []
    return [
        f"precision  {precision}",
        f"predicted  {tiles.registers} registers, {tiles.instructions} instructions for each pair",
        f"bound      {tiles.bound:.2g} pairs per second at most on {tiles.chip}, by the model: nothing was measured",
    ]


def _tiles(tiles: Any) -> list[str]:
    """A line for the tiles of a kernel, and one for each of its passes: what differs from the defaults."""
    if tiles is None:
        return ["none: all pairs at once"]
    passes = getattr(tiles, "passes", ())
    if passes:
        return [f"{tiles.shape}, {k}: {line}" for k, one in enumerate(passes, 1) for line in _tiles(one)]
    shown = {
        f.name: getattr(tiles, f.name)
        for f in dataclasses.fields(tiles)
        if f.name not in ("reason", "kept", *_PREDICTED) and getattr(tiles, f.name) != f.default
    }
    kept = getattr(tiles, "kept", None)
    counts = {f.name: len(getattr(kept, f.name)) for f in dataclasses.fields(kept)} if kept is not None else {}
    shown |= {f"kept_{name}": count for name, count in counts.items() if count}
    return [", ".join(f"{k}={v}" for k, v in shown.items())]


class Explanation(tuple[Explained, ...]):
    """The reductions of a function, in order; print it, or read `.plan` and `.description` of each."""

    __slots__ = ()

    def __str__(self) -> str:
        return "\n".join(map(str, self)) or "no reduction over pairs"

    __repr__ = __str__


def explain(fn: Callable[..., Any], *args: Any, platform: str | None = None) -> Explanation:
    """Say how every reduction in `fn(*args)` will run, without running it.

    Args:
        fn: any traceable function that reduces LazyTensors; derivatives and vmaps of one too.
        *args: its arguments, arrays or LazyTensors (or `jax.ShapeDtypeStruct`s in their place).
        platform: "cpu", "cuda", "rocm" or "tpu"; the default backend of JAX if None.

    Returns:
        An `Explanation`: prints kernel, tiles, flops, bytes, and the reasons of the kernels that were refused. Of each
        reduction, in order, `[k].plan` is the choice and `[k].description` what it is about.

    Raises:
        lazyjax.kernels.UnsupportedError: where a reduction asks for a `backend` that cannot run it on that platform.
        ValueError: for an unknown platform. TypeError: where fn is no function. What fn raises when it is traced.

    Example:
        >>> import jax.numpy as jnp, lazyjax
        >>> x = jnp.zeros((100, 3))
        >>> f = lambda x: (lazyjax.Vi(x) - lazyjax.Vj(x)).sqnorm2().argmin(axis=1)
        >>> lazyjax.explain(f, x, platform="cpu")[0].plan.kernel
        'xla'
    """
    platform = jax.default_backend() if platform is None else platform
    platform = {"gpu": "cuda"}.get(platform, platform)
    if platform not in PLATFORMS:
        raise ValueError(f"explain: platform={platform!r}, expected one of {', '.join(map(repr, PLATFORMS))}, or None.")
    closed = jax.make_jaxpr(fn)(*args)
    closed, _ = dce(closed, [True] * len(closed.out_avals))
    found = ((eqn.params["desc"], tuple(v.aval for v in eqn.invars)) for eqn in _reductions(closed.jaxpr))
    return Explanation(Explained(d, plan(d, platform), arguments) for d, arguments in found)


def _reductions(jaxpr: Any) -> Iterator[Any]:
    for eqn in jaxpr.eqns:
        if eqn.primitive is map_reduce_p:
            yield eqn
        for inner in inner_jaxprs(eqn):
            yield from _reductions(inner)
