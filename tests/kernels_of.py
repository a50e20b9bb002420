"""Run the reductions of a function on a kernel of the test's choice."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import Literal

from lazyjax.kernels import Description, Selection, dense
from lazyjax.kernels.triton import pallas
from lazyjax.kernels.triton.plan import TritonPlan
from lazyjax.kernels.xla import kernel as xla
from lazyjax.kernels.xla import plan as planning
from lazyjax.kernels.xla.plan import XlaPlan

from .unoptimised import UNOPTIMISED

Run = Callable[[Description, Sequence[jax.Array]], Sequence[jax.Array]]


def run_on(f: Callable[..., Any], run: Run, *args: jax.Array) -> Any:
    """f(*args), every `map_reduce` equation of its jaxpr being run by `run(description, arrays)`."""
    closed, shape = jax.make_jaxpr(f, return_shape=True)(*args)
    outs = _evaluate(closed.jaxpr, closed.consts, args, run)
    return jax.tree.unflatten(jax.tree.structure(shape), outs)


def agree(
    formulas: Mapping[str, tuple[Callable[..., Any], Callable[..., Any]]], run: Run, args: Sequence[jax.Array]
) -> None:
    """Every formula on a kernel gives the numbers of the dense one beside it, in float64; compiled as one program."""

    def all_of(which: int) -> Callable[..., Any]:
        values = lambda f, a: run_on(f, run, *a) if which == 0 else f(*a)  # noqa: E731
        return jax.jit(lambda *a: {k: values(f[which], a) for k, f in formulas.items()}, compiler_options=UNOPTIMISED)

    got, want = all_of(0)(*args), all_of(1)(*args)
    for name in want:
        for a, b in zip(jax.tree.leaves(got[name]), jax.tree.leaves(want[name]), strict=True):
            assert a.shape == b.shape and a.dtype == b.dtype, name
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10 * float(jnp.max(jnp.abs(b))), err_msg=name)


def _evaluate(jaxpr: Any, consts: Any, args: Any, run: Run) -> list[Any]:
    env = dict(zip(jaxpr.constvars, consts, strict=True)) | dict(zip(jaxpr.invars, args, strict=True))
    read = lambda v: jnp.asarray(v.val, v.aval.dtype) if isinstance(v, Literal) else env[v]  # noqa: E731
    for eqn in jaxpr.eqns:
        values = [read(v) for v in eqn.invars]
        inner = eqn.params.get("jaxpr")
        if eqn.primitive.name == "map_reduce":
            out = run(eqn.params["desc"], values)
        elif eqn.primitive.name in ("jit", "pjit") and any(e.primitive.name == "map_reduce" for e in inner.jaxpr.eqns):
            out = _evaluate(inner.jaxpr, inner.consts, values, run)
        else:
            out = eqn.primitive.bind(*values, **eqn.params)
        env.update(zip(eqn.outvars, out if eqn.primitive.multiple_results else [out], strict=True))
    return [read(v) for v in jaxpr.outvars]


def on_xla(plan: XlaPlan) -> Run:
    return lambda desc, args: xla.lower(desc, plan)(*args)


def on_pallas(**tiles: int) -> Run:
    """The GPU kernel, interpreted on the CPU."""

    def run(desc: Description, args: Sequence[jax.Array]) -> Sequence[jax.Array]:
        assert pallas.supports(desc, "cuda") is None
        return pallas.lower(desc, TritonPlan(interpret=True, **tiles))(*args)

    return run


def on_selections(shape: Any, **tiles: int) -> Run:
    """A shape of selections of scalar values, where the planner may choose it; lanes for the rest."""

    def run(desc: Description, args: Sequence[jax.Array]) -> Sequence[jax.Array]:
        reduction = desc.reduction
        selects = isinstance(reduction, Selection) and reduction.group_reduction() is not None
        selects = selects and all(v.size == 1 for v in desc.pair.out_avals)
        plan = XlaPlan(shape, tile_i=16, unroll=4, **tiles)  # type: ignore[arg-type]
        return xla.lower(desc, plan if selects else XlaPlan("lanes", tile_i=16))(*args)

    return run


def on_planned(desc: Description, args: Sequence[jax.Array]) -> Sequence[jax.Array]:
    """What the planner would do for many pairs (computing first what is shared, two passes), in small tiles."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "LARGE", 0)
        chosen = xla.plan(desc, "cpu")
    return xla.lower(desc, _small(chosen))(*args)


def _small(plan: XlaPlan) -> XlaPlan:
    tiles = {} if plan.shape == "block" else {"unroll": 4}
    return dataclasses.replace(plan, tile_i=16, group=3, passes=tuple(map(_small, plan.passes)), **tiles)


RUNS: dict[str, Run] = {
    "dense": lambda desc, args: dense.lower(desc, None)(*args),
    "lanes": on_xla(XlaPlan("lanes", tile_i=16, unroll=4, group=3)),
    "lanes, j cut": on_xla(XlaPlan("lanes", tile_i=64, unroll=2, segments=4, group=2)),
    "lanes, short i, few problems together": on_xla(XlaPlan("lanes", tile_i=4, unroll=2, segments=6, problems=2)),
    "block": on_xla(XlaPlan("block", tile_i=16, tile_j=8, problems=1)),
    "block, whole": on_xla(XlaPlan("block", tile_i=64, tile_j=64)),
    "groups": on_selections("groups", tile_j=5, problems=1),
    "groups, sorted lists": on_selections("groups", tile_j=6, inserted=2, problems=1),
    "sorted lists": on_selections("sorted lists", inserted=2, problems=2),
    "as planned for many pairs": on_planned,
    "pallas-triton, interpreted": on_pallas(block_i=16, block_j=16),
}
