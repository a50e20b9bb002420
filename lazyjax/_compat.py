"""The only file that touches private modules of JAX, each with its reason; everything else uses public API.

Supported: jax 0.10.2 (Python 3.11) to jax 0.12 (Python 3.13), both tested.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax

# Shapes, shardings and manual axes of abstract values: `jax.core.ShapedArray` is public, but the types
# of manual axes (what `shard_map(check_vma=True)` tracks) are only reachable here.
# `auto_insert_reshard` is what every built-in primitive calls before `bind`, so that replicated and sharded
# operands may meet inside shard_map.
# `trace_state_clean` says whether a function is being traced, where nothing can be timed.
from jax._src.core import ShapedArray, auto_insert_reshard, trace_state_clean
from jax.extend.core import ClosedJaxpr, Primitive
from jax.interpreters import ad, batching, mlir
from jax.interpreters import partial_eval as pe

__all__ = [
    "Primitive",
    "ShapedArray",
    "ad",
    "align_manual_axes",
    "as_single_primitive",
    "batching",
    "dce",
    "inner_jaxprs",
    "lower_without_manual_axes",
    "mlir",
    "out_aval",
    "register_dce",
    "trace_context",
    "trace_state_clean",
]  # fmt: skip

align_manual_axes = auto_insert_reshard


def trace_context() -> tuple[Any, ...]:
    """The configuration that a traced jaxpr depends on."""
    c: Any = jax.config
    return (
        c.jax_enable_x64, c.jax_numpy_dtype_promotion, c.jax_default_matmul_precision, c.jax_numpy_rank_promotion,
    )  # fmt: skip


def dce(closed: Any, used_outputs: Sequence[bool]) -> tuple[Any, list[bool]]:
    """A closed jaxpr with only the outputs asked for, and which of its inputs are still read."""
    jaxpr, used = pe.dce_jaxpr(closed.jaxpr, list(used_outputs))
    return ClosedJaxpr(jaxpr, closed.consts), list(used)


def register_dce(primitive: Any, rule: Callable[..., Any]) -> None:
    """Register rule(used_outputs, eqn) -> (used_inputs, new equation or None)."""
    rules: Any = pe.dce_rules
    if len(inspect.signature(rules[jit_primitive()]).parameters) == 2:  # jax 0.10
        rules[primitive] = rule
    else:  # jax 0.12 also tells which mutable references are live; we have none
        rules[primitive] = lambda used, live, eqn: rule(used, eqn)


def jit_primitive() -> Any:
    """The primitive of a nested jit."""
    return jax.make_jaxpr(jax.jit(lambda x: x))(0.0).eqns[0].primitive


def inner_jaxprs(eqn: Any) -> list[Any]:
    """The jaxprs that the parameters of an equation hold: of loops, branches, nested jits, custom derivatives."""
    found = []
    for value in jax.tree.leaves(dict(eqn.params), is_leaf=lambda v: hasattr(v, "eqns") or hasattr(v, "jaxpr")):
        inner = getattr(value, "jaxpr", value)
        if hasattr(inner, "eqns"):
            found.append(inner)
    return found


def as_single_primitive(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a function that only binds one primitive: jax_debug_nans then does not run it again, step by step, to find
    which step made a NaN (the mark of `jax._src.dispatch.apply_primitive`)."""
    fn._apply_primitive = True  # type: ignore[attr-defined]
    return fn


def replace_equation(eqn: Any, invars: Sequence[Any], outvars: Sequence[Any], params: dict[str, Any]) -> Any:
    """An equation of the same primitive with other operands."""
    return eqn.replace(invars=list(invars), outvars=list(outvars), params=params)


def out_aval(shape: Sequence[Any], dtype: Any, avals: Sequence[Any], row_axis: tuple[Any, int, int] | None) -> Any:
    """The abstract value of a result: it varies over the manual axes of its operands, and keeps explicit sharding.

    `row_axis` is (operand, its axis, the axis of the result) where the rows of a result are those of an operand.
    """
    kwargs: dict[str, Any] = {}
    if avals:
        kwargs["manual_axis_type"] = avals[0].manual_axis_type
        mesh = avals[0].sharding.mesh
        if not mesh.empty and row_axis is not None:
            operand, axis, position = row_axis
            spec = [None] * len(shape)
            spec[position] = operand.sharding.spec[axis]
            kwargs["sharding"] = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*spec))
        elif not mesh.empty:
            kwargs["sharding"] = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*[None] * len(shape)))
    return ShapedArray(tuple(shape), dtype, **kwargs)


def lower_without_manual_axes(fn: Callable[..., Any]) -> Callable[..., Any]:
    """`mlir.lower_fun`, traced as if there were no mesh: a kernel is the same on every shard.

    Otherwise the loop carries of a kernel, which begin as constants, would have to be marked by hand as varying
    over the manual axes of the shard_map around them.
    """

    def rule(ctx: Any, *args: Any, **params: Any) -> Any:
        plain = [ShapedArray(a.shape, a.dtype, a.weak_type) for a in ctx.avals_in]
        with jax.sharding.use_abstract_mesh(_no_mesh()):
            return mlir.lower_fun(fn)(ctx.replace(avals_in=plain), *args, **params)

    return rule


def _no_mesh() -> Any:
    mesh = jax.sharding.get_abstract_mesh()
    if not mesh.axis_names:
        return mesh
    device = {"abstract_device": mesh.abstract_device} if getattr(mesh, "abstract_device", None) else {}
    return jax.sharding.AbstractMesh((), (), **device)
