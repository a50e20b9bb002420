"""GPU kernels written in Pallas for its Triton backend (CUDA and ROCm).

One program owns BM rows and walks through j in blocks of BN.  Features of i are (BM, 1) tiles in registers, features of
j (1, BN) tiles, and the accumulator is a (BM, BN) tile that is merged along j only after the loop: a merge inside
the loop would shuffle values between threads for every pair.  Pallas-Triton is deprecated in JAX; all that knows of
it stands in this file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from . import scalarize
from .description import Description
from .pairs import batched
from .reduction import trace, tree_merge
from .scalarize import Arithmetic, broadcast_tile, evaluate, tiles

name = "pallas-triton"

# What the Triton backend of Pallas lowers, on every version that we support, of what `scalarize` runs.
LOWERED = frozenset(
    """abs acos acosh add add_any and asin asinh atan atan2 atanh cbrt ceil clamp clz
    convert_element_type cos cosh div eq erf_inv exp exp2 expm1 floor ge gt integer_pow is_finite le log log1p
    logistic lt max min mul ne neg nextafter not or population_count pow rem rsqrt select_n shift_left
    shift_right_arithmetic shift_right_logical sign sin sinh sqrt square sub tan tanh xor""".split()
)
DTYPES = frozenset(["bool", "int32", "int64", "float16", "bfloat16", "float32", "float64"])
# Values that one program may hold in scalars before the compiler spills them.
FEATURES = 128
ACCUMULATORS = 128


@dataclasses.dataclass(frozen=True)
class TritonPlan:
    """Tiles of the kernel: `block_i` by `block_j` pairs for each program of `warps` warps."""

    block_i: int
    block_j: int
    warps: int = 4
    stages: int = 2
    interpret: bool = False  # run by XLA on the CPU, for tests


def computing(dtype: Any) -> np.dtype:
    """float16 and bfloat16 are computed in float32: most functions do not compile below it."""
    dtype = np.dtype(dtype)
    return np.dtype(np.float32) if dtype.itemsize == 2 and dtype.kind in "fV" else dtype


ARITHMETIC = Arithmetic(computing)


def _traced(desc: Description) -> Any:
    # Accumulators come from values in the dtype that the kernel computes in.
    return trace(desc.reduction, tuple((v.shape, v.dtype) for v in desc.pair.out_avals), desc.index_dtype)


def supports(desc: Description, platform: str) -> str | None:
    """None, or why Triton cannot run this description."""
    if platform == "tpu":
        return "it emits Triton, which TPUs do not run"
    if desc.ranges is not None:
        return "it walks through all pairs, not through ranges of them"
    if not (isinstance(desc.m, int) and isinstance(desc.n, int)):
        return "its grid needs sizes that are known when it is compiled, not symbolic ones"
    sizes = {"i": desc.m, "j": desc.n, "p": 1}
    largest = max([0, *(math.prod(a.shape) * sizes[r] for a, r in zip(desc.pair.in_avals, desc.roles, strict=True))])
    if max(largest, *(math.prod(o.shape[len(desc.batch) :]) for o in desc.outputs)) > np.iinfo(np.int32).max:
        return "an array of more than 2**31 elements is beyond the 32-bit offsets of its loads"
    traced = _traced(desc)
    features = sum(math.prod(a.shape) for a in desc.pair.in_avals)
    accumulators = sum(math.prod(a.shape) for a in traced.acc_avals)
    if features > FEATURES:
        return f"{features} features are more than the {FEATURES} that one program holds in registers"
    if accumulators > ACCUMULATORS:
        return f"{accumulators} accumulators are more than the {ACCUMULATORS} that one program holds in registers"
    for jaxpr in (desc.pair.jaxpr, traced.fold(1), traced.merge, traced.finalize):
        if (reason := _unsupported(jaxpr)) is not None:
            return reason
    return None


def _unsupported(closed: Any) -> str | None:
    for v in [*closed.jaxpr.invars, *closed.jaxpr.outvars, *(o for e in closed.jaxpr.eqns for o in e.outvars)]:
        if str(v.aval.dtype) not in DTYPES:
            return f"{v.aval.dtype} values are not available in Triton"
    for eqn in closed.jaxpr.eqns:
        op = eqn.primitive.name
        if (inner := scalarize.inner_jaxpr(eqn)) is not None:
            if (reason := _unsupported(inner)) is not None:
                return reason
        elif op in scalarize.ELEMENTWISE and op not in LOWERED:
            return f"Pallas-Triton has no rule for {op}"
        elif not (op in LOWERED or op in scalarize.STRUCTURAL or op in scalarize.REDUCING or op in scalarize.IDENTITY):
            return f"{op} acts on whole feature arrays"
    return None


def plan(desc: Description, interpret: bool = False) -> TritonPlan:
    """The largest tile whose accumulators take a quarter of the registers, 64 by 64 at most."""
    accs = _traced(desc).acc_avals
    words = sum(math.prod(a.shape) * max(1, np.dtype(computing(a.dtype)).itemsize // 4) for a in accs)
    block_i = block_j = 64
    while block_i * block_j * words > 64 * 64 * 2 and block_i > 16:
        block_i, block_j = (block_i, block_j // 2) if block_j >= block_i else (block_i // 2, block_j)
    return TritonPlan(block_i, block_j, interpret=interpret)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the one warning that says that Pallas-Triton is deprecated, while a kernel is lowered."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*[Tt]riton.*", category=DeprecationWarning)
        yield


def lower(desc: Description, plan: TritonPlan) -> Callable[..., Sequence[jax.Array]]:
    """One kernel call; batch dims become axes of its grid."""
    return lambda *args: batched(lambda own: _problem(desc, plan, own), desc, args)


def _problem(desc: Description, plan: TritonPlan, args: Sequence[jax.Array]) -> Sequence[jax.Array]:
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton as plt

    m, n = desc.m, desc.n
    rows, columns = plan.block_i, plan.block_j
    shape = (rows, columns)
    traced = _traced(desc)
    sizes = [math.prod(a.shape) for a in traced.acc_avals]
    cuts = np.cumsum([0, *sizes])
    out_sizes = [math.prod(a.shape) for a in traced.out_avals]
    programs = pl.cdiv(m, rows)

    flat: list[Any] = []
    avals, roles = [], []
    for role, aval, x in zip(desc.roles, desc.pair.in_avals, args, strict=True):
        if x.size:
            x = x.astype(jnp.int32) if x.dtype == bool else x  # Triton stores booleans as bytes of its own
            flat.append(x.reshape(-1))
        avals.append(aval)
        roles.append(role)

    def tiled(acc: Sequence[jax.Array]) -> list[scalarize.Tiles]:
        return [
            tiles(a.shape, list(acc[lo:hi])) for a, lo, hi in zip(traced.acc_avals, cuts[:-1], cuts[1:], strict=True)
        ]

    def flatten(arrays: Sequence[scalarize.Tiles], shape: tuple[int, ...]) -> list[jax.Array]:
        return [jnp.asarray(broadcast_tile(t, shape)) for a in arrays for t in a.ravel()]

    def merge(a: Sequence[jax.Array], b: Sequence[jax.Array]) -> list[jax.Array]:
        out = evaluate(traced.merge, [*tiled(a), *tiled(b)], ARITHMETIC)
        return flatten(out, np.shape(a[0]))

    def kernel(*refs: Any) -> None:
        ins, outs = list(refs[: len(flat)]), refs[len(flat) :]
        refs_of = [ins.pop(0) if math.prod(a.shape) else None for a in avals]
        i = pl.program_id(0) * rows + jnp.arange(rows, dtype=jnp.int32)
        here = i < m

        def load(role: str, aval: Any, ref: Any, at: Any = None, mask: Any = None) -> scalarize.Tiles:
            items, features = [], math.prod(aval.shape)
            for k in range(features):
                if role == "p":
                    x = plt.load(ref.at[jnp.full((1,), k, jnp.int32)])
                else:
                    x = plt.load(ref.at[at * features + k], mask=mask, other=0)
                x = lax.expand_dims(x, (1,) if role == "i" else (0,))
                items.append(x != 0 if aval.dtype == bool else x.astype(computing(aval.dtype)))
            return tiles(aval.shape, items)

        fixed: list[Any] = [
            None if r == "j" else load(r, a, ref, i, here) for r, a, ref in zip(roles, avals, refs_of, strict=True)
        ]
        blocks = pl.cdiv(n, columns)

        def body(k: Any, acc: list[jax.Array]) -> list[jax.Array]:
            j = (blocks - 1 - k) * columns + jnp.arange(columns, dtype=jnp.int32)
            inside = j < n
            own = [
                load(r, a, ref, j, inside) if r == "j" else f
                for r, a, ref, f in zip(roles, avals, refs_of, fixed, strict=True)
            ]
            values = [v[None] for v in evaluate(desc.pair.jaxpr, own, ARITHMETIC)]
            index = tiles((1,), [lax.expand_dims(j, (0,)).astype(desc.index_dtype)])
            new = flatten(evaluate(traced.fold(1), [*tiled(acc), *values, index], ARITHMETIC), shape)
            keep = lax.broadcast_in_dim(inside, shape, (1,))
            return [lax.select(keep, a, b) for a, b in zip(new, acc, strict=True)]

        neutral = flatten(evaluate(traced.init, [], ARITHMETIC), shape)
        acc = lax.fori_loop(0, blocks, body, neutral)
        if desc.over == "ij":
            keep = lax.broadcast_in_dim(here, shape, (0,))
            acc = [lax.select(keep, a, b) for a, b in zip(acc, neutral, strict=True)]
        acc = _merge_halves(merge, acc, 1)
        if desc.over == "ij":
            for ref, value in zip(outs, _merge_halves(merge, acc, 0), strict=True):
                plt.store(ref.at[pl.program_id(0)], value)
            return
        results = evaluate(traced.finalize, tiled(acc), ARITHMETIC)
        refs_out = list(outs)
        for array, aval in zip(results, traced.out_avals, strict=True):
            if array.size:
                ref = refs_out.pop(0)
                for k, value in enumerate(array.ravel()):
                    value = jnp.asarray(broadcast_tile(value, (rows,))).astype(aval.dtype)
                    plt.store(ref.at[i * array.size + k], value, mask=here)

    if desc.over == "ij":
        # One accumulator for each program, merged by XLA afterwards.
        out_shape = [
            jax.ShapeDtypeStruct((programs,), computing(a.dtype))
            for a, size in zip(traced.acc_avals, sizes, strict=True)
            for _ in range(size)
        ]
    else:
        out_shape = [
            jax.ShapeDtypeStruct((m * size,), a.dtype)
            for a, size in zip(traced.out_avals, out_sizes, strict=True)
            if size
        ]

    def whole(s: tuple[int, ...]) -> Any:
        return pl.BlockSpec(s, lambda _: (0,) * len(s))

    call = pl.pallas_call(
        kernel,
        out_shape=out_shape,
        grid=(programs,),
        in_specs=[whole(x.shape) for x in flat],
        out_specs=[whole(s.shape) for s in out_shape],
        compiler_params=plt.CompilerParams(num_warps=plan.warps, num_stages=plan.stages),
        interpret=plan.interpret,
        name="lazyjax",
    )
    outs = list(call(*flat))
    if desc.over == "ij":
        total = tree_merge(merge, [o[:, None] for o in outs])
        scalars = [t.reshape(()) for t in total]
        results = evaluate(traced.finalize, tiled(scalars), ARITHMETIC)
        return [
            jnp.asarray([jnp.asarray(t, a.dtype) for t in r.ravel()], a.dtype).reshape(a.shape)
            for r, a in zip(results, traced.out_avals, strict=True)
        ]
    return [
        outs.pop(0).reshape(m, *a.shape) if size else jnp.zeros((m, *a.shape), a.dtype)
        for a, size in zip(traced.out_avals, out_sizes, strict=True)
    ]


def _merge_halves(merge: Any, acc: list[jax.Array], axis: int) -> list[jax.Array]:
    """Merge along an axis of a tile; it halves because Triton splits tiles only in two."""
    size = acc[0].shape[axis]
    while size > 1:
        size //= 2
        parts = [lax.split(x, (size, size), axis) for x in acc]
        acc = merge([p[0] for p in parts], [p[1] for p in parts])
    return [lax.reshape(x, tuple(np.delete(x.shape, axis))) for x in acc]
