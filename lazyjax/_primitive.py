"""The `map_reduce` primitive: every reduction of the library is one call of it, and all calculus lives here.

One primitive with JVP and transpose rules, rather than `jax.custom_vjp` around a kernel: a custom_vjp function has no
forward mode and cannot be transposed, so `jacfwd`, `linearize`, `hessian` and conjugate gradients would fail.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from . import _compat
from ._calculus import Call, keep, pruned, transposed_pair
from ._compat import ad, batching, mlir, trace_context
from .kernels import Description, plan
from .kernels.planner import GPU
from .kernels.triton.pallas import quiet

map_reduce_p = _compat.Primitive("map_reduce")
map_reduce_p.multiple_results = True


def map_reduce(desc: Description, args: Sequence[Any]) -> list[jax.Array]:
    """Run a description on its arrays (shapes as in `Description`)."""
    used_outputs = (True,) * len(desc.pair.out_avals)
    pair, used = pruned(desc.pair, used_outputs, trace_context())
    if not all(used):
        own, ranges = desc.split(args)
        desc, args = desc.replace(pair=pair, roles=tuple(keep(desc.roles, used))), [*keep(own, used), *ranges]
    return _bind(desc, args)


def _bind(desc: Description, args: Sequence[Any]) -> list[jax.Array]:
    return map_reduce_p.bind(*_compat.align_manual_axes(*args), desc=desc)


@map_reduce_p.def_impl
def _impl(*args: Any, desc: Description) -> list[jax.Array]:
    with jax.disable_jit(False):  # a primitive is compiled even where jit is disabled, as JAX's own are
        return _compiled(desc)(*args)


@functools.lru_cache(maxsize=1024)
def _compiled(desc: Description) -> Any:
    def map_reduce(*args: Any) -> list[jax.Array]:
        return map_reduce_p.bind(*args, desc=desc)

    return jax.jit(_compat.as_single_primitive(map_reduce))


@map_reduce_p.def_abstract_eval
def _abstract_eval(*avals: Any, desc: Description) -> list[Any]:
    row = None
    if desc.over == "j":
        lead = len(desc.batch)
        row = next(((a, lead, lead) for a, r in zip(avals, desc.roles, strict=False) if r == "i"), None)
    return [_compat.out_aval(o.shape, o.dtype, avals, row) for o in desc.outputs]


def _jvp(primals: Sequence[Any], tangents: Sequence[Any], *, desc: Description) -> tuple[Any, Any]:
    own, ranges = desc.split(primals)
    call = Call(desc, own, desc.split(tangents)[0], ranges, map_reduce)
    outs, douts = desc.reduction.tangent(call)
    tangents_out = []
    for o, d in zip(outs, douts, strict=True):
        aval = jax.typeof(o).to_tangent_aval()
        tangents_out.append(ad.Zero(aval) if d is None or aval.dtype == jax.dtypes.float0 else d)
    return list(outs), tangents_out


ad.primitive_jvps[map_reduce_p] = _jvp


def _transpose(cotangents: Sequence[Any], *args: Any, desc: Description) -> list[Any]:
    """The rules of `_calculus`, one kernel for all the arguments of one role."""
    linear = tuple(ad.is_undefined_primal(a) for a in args)
    out: list[Any] = [None] * len(args)
    if all(isinstance(c, ad.Zero) for c in cotangents):
        return [ad.Zero(a.aval.to_ct_aval()) if lin else None for a, lin in zip(args, linear, strict=True)]
    cts = [ad.instantiate_zeros(c) for c in cotangents]
    own, ranges = desc.split(args)
    linear = linear[: len(own)]  # ranges are integers
    residuals = [a for a, lin in zip(own, linear, strict=True) if not lin]
    residual_roles = [r for r, lin in zip(desc.roles, linear, strict=True) if not lin]
    for role in ("i", "j", "p"):
        wanted = tuple(lin and r == role for lin, r in zip(linear, desc.roles, strict=True))
        if not any(wanted):
            continue
        pair, used = transposed_pair(desc.pair, linear, wanted, trace_context())
        roles = [*residual_roles, *["i" if desc.over == "j" else "p"] * len(cts)]
        new = desc.replace(pair=pair, roles=tuple(keep(roles, used)), over="ij" if role == "p" else "j")
        given = [*keep([*residuals, *cts], used), *ranges]
        if role == "j":
            new, given = new.exchanged(given)
        results = map_reduce(new, given)
        for k, ct in zip([k for k, w in enumerate(wanted) if w], results, strict=True):
            out[k] = _unbroadcast(ct, args[k].aval.shape, len(desc.batch))
    return out


def _unbroadcast(ct: jax.Array, shape: Sequence[int], nbatch: int) -> jax.Array:
    """Sum over the batch dims along which an argument was shared."""
    shared = [k for k in range(nbatch) if shape[k] != ct.shape[k]]
    return jnp.sum(ct, axis=shared, keepdims=True) if shared else ct


ad.primitive_transposes[map_reduce_p] = _transpose


def _batch(args: Sequence[Any], dims: Sequence[Any], *, desc: Description) -> tuple[Any, Any]:
    """A new leading batch dim; arguments that are not mapped keep size 1 there, and are never copied."""
    size = next(a.shape[d] for a, d in zip(args, dims, strict=True) if d is not None)
    moved = [jnp.expand_dims(a, 0) if d is None else jnp.moveaxis(a, d, 0) for a, d in zip(args, dims, strict=True)]
    outs = _bind(desc.replace(batch=(size, *desc.batch)), moved)
    return outs, [0] * len(outs)


batching.primitive_batchers[map_reduce_p] = _batch


def _dce(used_outputs: Sequence[bool], eqn: Any) -> tuple[list[bool], Any]:
    desc: Description = eqn.params["desc"]
    if not any(used_outputs):
        return [False] * len(eqn.invars), None
    reduction, values = desc.reduction.narrow(used_outputs, len(desc.pair.out_avals))
    pair, used = pruned(desc.pair, tuple(values), trace_context())
    if all(used_outputs) and all(used):
        return [True] * len(eqn.invars), eqn
    _, ranges = desc.split(eqn.invars)
    used = [*used, *[True] * len(ranges)]
    new = desc.replace(pair=pair, roles=tuple(keep(desc.roles, used[: len(desc.roles)])), reduction=reduction)
    if [(o.shape, o.dtype) for o in new.outputs] != [
        (v.aval.shape, v.aval.dtype) for v in keep(eqn.outvars, used_outputs)
    ]:
        return [True] * len(eqn.invars), eqn  # the reduction has no form that computes just these
    params = dict(eqn.params, desc=new)
    return list(used), _compat.replace_equation(eqn, keep(eqn.invars, used), keep(eqn.outvars, used_outputs), params)


_compat.register_dce(map_reduce_p, _dce)


def _emit(platform: str) -> Any:
    def run(*args: Any, desc: Description) -> Any:
        return tuple(plan(desc, platform).lower(desc)(*args))

    return run


def _register(platform: str | None) -> None:
    rule = _compat.lower_without_manual_axes(_emit(platform or "cpu"))

    def quiet_rule(ctx: Any, *args: Any, **params: Any) -> Any:
        with quiet():
            return rule(ctx, *args, **params)

    mlir.register_lowering(map_reduce_p, quiet_rule if platform in GPU else rule, platform=platform)


for _platform in (None, "cpu", "tpu", *GPU):
    _register(_platform)
