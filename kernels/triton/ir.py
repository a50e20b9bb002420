"""GPU kernels written as Triton's IR, as text, and given to XLA by its custom call: no Pallas between.

The second emitter beside `pallas`, behind the same contract.  It runs where it is asked for by name, as a
measure of that contract, and as the way on should Pallas lose its Triton backend.  The name of the custom call has no
guarantee of stability.  One program owns BM rows of one problem, walks through j in blocks of BN, and merges its
(BM, BN) accumulator along j when all is read.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import scalarize
from ..cost import operations
from ..description import Description, traced_of
from ..reduction import TracedReduction, tree_merge
from ..scalarize import evaluate, tiles
from .complex import in_parts, real_of, run_in_parts
from .merge import in_one_order
from .text import DTYPES, Text, Value, refusal, type_of

name = "triton-ir"
TARGET = "__gpu$xla.gpu.triton"
# Registers that the pairs of a thread may take, and what each takes beside its accumulators, by what was compiled.
REGISTERS, BETWEEN = 224, 20


@dataclasses.dataclass(frozen=True)
class TritonIrPlan:
    """Tiles of the kernel: `block_i` by `block_j` pairs for each program of `warps` warps."""

    block_i: int
    block_j: int
    warps: int = 4


THREADS = 32 * TritonIrPlan.warps


def supports(desc: Description, platform: str) -> str | None:
    """None, or why this description cannot be written."""
    if isinstance(cost := operations(desc), str):
        return cost
    if desc.ranges is not None:
        return "it walks through all pairs, not through ranges of them"
    if platform != "cuda":
        return f"it is for cuda, not {platform}"
    if not all(isinstance(s, int) for s in (desc.m, desc.n, *desc.batch)):
        return "its grid needs sizes that are known when it is compiled, not symbolic ones"
    if math.prod(desc.batch) > 65535:
        return f"{math.prod(desc.batch)} problems are more than the 65535 programs along the second axis of a grid"
    lead = {"i": desc.m, "j": desc.n, "p": 1}
    sizes = [math.prod((*desc.batch, lead[r], *a.shape)) for a, r in zip(desc.pair.in_avals, desc.roles, strict=True)]
    if max([*sizes, *(math.prod(o.shape) for o in desc.outputs)]) > np.iinfo(np.int32).max:
        return "an array of more than 2**31 elements is beyond the 32-bit offsets of its loads"
    if isinstance(own := real_of(desc), str):
        return own
    desc, traced = own, traced_of(own)
    for closed in (desc.pair.jaxpr, traced.fold(1), traced.merge, traced.finalize):
        if (reason := refusal(closed)) is not None:
            return reason
    try:
        _Kernel(desc, TritonIrPlan(16, 16), [desc.batch] * len(desc.roles)).text()
    except (NotImplementedError, scalarize.Unsupported) as error:
        return f"it does not write {error} in Triton's IR"
    return None


def plan(desc: Description, platform: str) -> TritonIrPlan:
    """32 by 32 pairs, eight to a thread, and fewer where their numbers would not fit its registers."""
    accs = traced_of(in_parts(desc)).acc_avals
    words = sum(math.prod(a.shape) * max(1, np.dtype(a.dtype).itemsize // 4) for a in accs)
    block_i = block_j = 32
    while block_i * block_j // THREADS * (words + BETWEEN) > REGISTERS and block_i > 16:
        block_i, block_j = (block_i, block_j // 2) if block_j >= block_i else (block_i // 2, block_j)
    return TritonIrPlan(block_i, block_j)


def lower(desc: Description, plan: TritonIrPlan) -> Callable[..., Sequence[jax.Array]]:
    """One call of XLA's custom call."""
    own = in_parts(desc)
    return run_in_parts(desc, _call(own, plan))


def _call(desc: Description, plan: TritonIrPlan) -> Callable[[Sequence[jax.Array]], Sequence[jax.Array]]:
    """One call, on real arrays."""
    traced, programs = traced_of(desc), -(-desc.m // plan.block_i)

    def run(args: Sequence[jax.Array]) -> Sequence[jax.Array]:
        text, outputs = _Kernel(desc, plan, [x.shape[: len(desc.batch)] for x in args]).text()
        call = jax.ffi.ffi_call(TARGET, outputs)
        given = [x.astype(jnp.int32) if x.dtype == bool else x for x in args if x.size]
        grid = {"grid_x": programs, "grid_y": math.prod(desc.batch), "grid_z": 1}
        sizes = {k: np.int32(v) for k, v in {**grid, "num_warps": plan.warps, "num_stages": 1}.items()}
        found = list(call(*given, name="lazyjax", ir=text, debug=False, **sizes))
        if desc.over == "ij":
            return _merged(traced, desc, found)
        results = []
        for aval, o in zip(traced.out_avals, desc.outputs, strict=True):
            size = math.prod(aval.shape)
            results.append(found.pop(0).astype(o.dtype).reshape(o.shape) if size else jnp.zeros(o.shape, o.dtype))
        return results

    return run


def _merged(traced: TracedReduction, desc: Description, parts: Sequence[jax.Array]) -> list[jax.Array]:
    """The accumulators of all programs, (problems, programs) each, merged by XLA."""
    cuts = np.cumsum([0, *(math.prod(a.shape) for a in traced.acc_avals)])

    def tiled(flat: Sequence[jax.Array]) -> list[scalarize.Tiles]:
        return [tiles(a.shape, list(flat[lo:hi])) for a, lo, hi in zip(traced.acc_avals, cuts, cuts[1:], strict=False)]

    def merge(a: Sequence[jax.Array], b: Sequence[jax.Array]) -> list[jax.Array]:
        return [t for r in evaluate(traced.merge, [*tiled(a), *tiled(b)]) for t in r.ravel()]

    total = tree_merge(merge, [p.swapaxes(0, 1) for p in parts])
    results = evaluate(traced.finalize, tiled(total))
    out = []
    for r, o in zip(results, desc.outputs, strict=True):
        columns = [jnp.broadcast_to(jnp.asarray(t, o.dtype), (math.prod(desc.batch),)) for t in r.ravel()]
        out.append(jnp.stack(columns, -1).reshape(o.shape) if columns else jnp.zeros(o.shape, o.dtype))
    return out


class _Kernel:
    """One kernel as it is written; `batches`: the batch dims of each argument, those of the description or 1."""

    def __init__(self, desc: Description, plan: TritonIrPlan, batches: Sequence[tuple[int, ...]]):
        self.desc, self.plan, self.batches, self.traced = desc, plan, batches, traced_of(desc)
        self.write = Text()
        self.tile = (plan.block_i, plan.block_j)
        sizes = [math.prod(a.shape) for a in self.traced.acc_avals]
        self.cuts = np.cumsum([0, *sizes])
        self.acc_dtypes = [
            np.dtype(a.dtype) for a, size in zip(self.traced.acc_avals, sizes, strict=True) for _ in range(size)
        ]
        problems, programs = math.prod(desc.batch), -(-desc.m // plan.block_i)
        if desc.over == "ij":
            self.outputs = [jax.ShapeDtypeStruct((problems, programs), stored(d)) for d in self.acc_dtypes]
        else:
            self.outputs = [
                jax.ShapeDtypeStruct((problems, desc.m, math.prod(a.shape)), stored(a.dtype))
                for a in self.traced.out_avals
                if math.prod(a.shape)
            ]

    def tiled(self, flat: Sequence[Any]) -> list[scalarize.Tiles]:
        avals = self.traced.acc_avals
        return [tiles(a.shape, list(flat[lo:hi])) for a, lo, hi in zip(avals, self.cuts, self.cuts[1:], strict=False)]

    def flat(self, arrays: Sequence[scalarize.Tiles], shape: tuple[int, ...]) -> list[Value]:
        return [self.write.broadcast(t, shape) for a in arrays for t in a.ravel()]

    def text(self) -> tuple[str, list[jax.ShapeDtypeStruct]]:
        """The text of the kernel, and the flat arrays that it writes."""
        desc, write = self.desc, self.write
        stored_args = [a for a in desc.pair.in_avals if math.prod(a.shape)]
        elements = [DTYPES[stored(a.dtype).name] for a in [*stored_args, *self.outputs]]
        pointers = [f"%arg{k}" for k in range(len(elements))]
        self.elements = dict(zip(pointers, elements, strict=True))
        inputs, outputs = iter(pointers[: len(stored_args)]), pointers[len(stored_args) :]
        self.pointers = [next(inputs) if math.prod(a.shape) else "" for a in desc.pair.in_avals]
        self.program = write.emit("tt.get_program_id x : i32", (), np.int32)
        self.problem = write.emit("tt.get_program_id y : i32", (), np.int32)
        self.starts = [self.start(k) for k in range(len(self.pointers))]
        rows, columns = self.tile
        i = self.range(self.scaled(self.program, rows), rows)
        here = self.below(i, desc.m)
        fixed = [None if r == "j" else self.load(k, i, here) for k, r in enumerate(desc.roles)]
        acc = self.loop(fixed, columns)
        if desc.over == "ij":
            neutral = self.flat(evaluate(self.traced.init, [], write), self.tile)
            mask = write.broadcast(self.expand(here, 1), self.tile)
            acc = [write.primitive("select_n", {}, (mask, e, a), a.dtype) for a, e in zip(acc, neutral, strict=True)]
            for pointer, value in zip(outputs, self.reduce(self.reduce(acc, 1), 0), strict=True):
                at = self.plus(self.scaled(self.problem, -(-desc.m // rows)), self.program)
                self.store(pointer, write.broadcast(at, value.shape), value, None)
        else:
            results = evaluate(self.traced.finalize, self.tiled(self.reduce(acc, 1)), write)
            targets = iter(outputs)
            for array, aval in zip(results, self.traced.out_avals, strict=True):
                if array.size:
                    target, size = next(targets), array.size
                    first = self.scaled(self.problem, desc.m * size)
                    for k, value in enumerate(array.ravel()):
                        at = self.plus(self.scaled(i, size), self.plus(first, write.constant(np.int32(k))))
                        value = write.converted(write.broadcast(value, (rows,)), np.dtype(aval.dtype))
                        self.store(target, at, value, here)
        arguments = ", ".join(f"{p}: !tt.ptr<{e}> {{tt.divisibility = 16 : i32}}" for p, e in self.elements.items())
        body = "\n    ".join(write.lines)
        return (
            f"module {{\n  tt.func public @lazyjax({arguments}) {{\n    {body}\n    tt.return\n  }}\n}}\n",
            self.outputs,
        )

    # Where things are

    def scaled(self, value: Value, by: int) -> Value:
        return self.write.primitive("mul", {}, (value, self.write.constant(np.int32(by), value.shape)), np.int32)

    def plus(self, a: Value, b: Value) -> Value:
        return self.write.primitive("add", {}, (a, self.write.broadcast(b, a.shape)), np.int32)

    def range(self, first: Value, size: int) -> Value:
        text = f"tt.make_range {{end = {size} : i32, start = 0 : i32}} : %t"
        return self.plus(self.write.emit(text, (size,), np.int32), first)

    def below(self, value: Value, limit: int) -> Value:
        return self.write.primitive("lt", {}, (value, self.write.constant(np.int32(limit), value.shape)), np.bool_)

    def expand(self, value: Value, axis: int) -> Value:
        shape = (*value.shape[:axis], 1, *value.shape[axis:])
        text = f"tt.expand_dims {value.name} {{axis = {axis} : i32}} : {value.type} -> %t"
        return self.write.emit(text, shape, value.dtype)

    def start(self, k: int) -> Value:
        """The element at which the own problem begins in an argument, whose batch dims are those or 1."""
        desc, write = self.desc, self.write
        role, aval = desc.roles[k], desc.pair.in_avals[k]
        stride = {"i": desc.m, "j": desc.n, "p": 1}[role] * math.prod(aval.shape)
        at, rest = write.constant(np.int32(0)), self.problem
        for axis in reversed(range(len(desc.batch))):
            size = write.constant(np.int32(desc.batch[axis]))
            own = write.emit(f"arith.remsi {rest.name}, {size.name} : i32", (), np.int32)
            rest = write.emit(f"arith.divsi {rest.name}, {size.name} : i32", (), np.int32)
            if self.batches[k][axis] > 1:
                at = self.plus(at, self.scaled(own, stride))
                stride *= desc.batch[axis]
        return at

    # Memory

    def pointer(self, name: str, at: Value) -> tuple[str, str]:
        element = f"!tt.ptr<{self.elements[name]}>"
        kind = type_of(at.shape, element)
        if at.shape:
            whole = self.write.name()
            self.write.line(f"{whole} = tt.splat {name} : {element} -> {kind}")
            name = whole
        moved = self.write.name()
        self.write.line(f"{moved} = tt.addptr {name}, {at.name} : {kind}, {at.type}")
        return moved, kind

    def load(self, k: int, at: Value, mask: Value) -> scalarize.Tiles:
        """The features of an argument: columns of i, rows of j, or scalars."""
        write, role, aval = self.write, self.desc.roles[k], self.desc.pair.in_avals[k]
        items, features, dtype = [], math.prod(aval.shape), stored(aval.dtype)
        for f in range(features):
            own = self.plus(self.starts[k], write.constant(np.int32(f)))
            if role == "p":
                pointer, kind = self.pointer(self.pointers[k], own)
                value = write.emit(f"tt.load {pointer} : {kind}", (), dtype)
            else:
                pointer, kind = self.pointer(self.pointers[k], self.plus(self.scaled(at, features), own))
                other = write.constant(dtype.type(0), at.shape)
                value = write.emit(f"tt.load {pointer}, {mask.name}, {other.name} : {kind}", at.shape, dtype)
                value = self.expand(value, 1 if role == "i" else 0)
            items.append(write.converted(value, np.dtype(aval.dtype)))
        return tiles(aval.shape, items)

    def store(self, pointer: str, at: Value, value: Value, mask: Value | None) -> None:
        value = self.write.converted(value, stored(value.dtype))
        moved, kind = self.pointer(pointer, at)
        masked = f", {mask.name}" if mask is not None else ""
        self.write.line(f"tt.store {moved}, {value.name}{masked} : {kind}")

    # The loop and the merge

    def loop(self, fixed: Sequence[Any], columns: int) -> list[Value]:
        """From the last block of j to the first, as `fold` wants it."""
        desc, write = self.desc, self.write
        blocks = -(-desc.n // columns)
        start = self.flat(evaluate(self.traced.init, [], write), self.tile)
        start = [write.converted(s, d) for s, d in zip(start, self.acc_dtypes, strict=True)]
        low, high, step = (write.constant(np.int32(n)) for n in (0, blocks, 1))
        last = write.constant(np.int32(blocks - 1))
        inner = [Value(write.name(), s.shape, s.dtype) for s in start]
        counter, result = write.name(), write.name()
        types = ", ".join(s.type for s in start)
        carried = ", ".join(f"{a.name} = {s.name}" for a, s in zip(inner, start, strict=True))
        write.line(
            f"{result}:{len(start)} = scf.for {counter} = {low.name} to {high.name} step {step.name} "
            f"iter_args({carried}) -> ({types}) : i32 {{"
        )
        with write.block():
            block = write.primitive("sub", {}, (last, Value(counter, (), np.dtype(np.int32))), np.int32)
            j = self.range(self.scaled(block, columns), columns)
            inside = self.below(j, desc.n)
            own = [self.load(k, j, inside) if f is None else f for k, f in enumerate(fixed)]
            values = [v[None] for v in evaluate(desc.pair.jaxpr, own, write)]
            index = write.converted(self.expand(j, 0), desc.index_dtype)
            new = self.flat(
                evaluate(self.traced.fold(1), [*self.tiled(inner), *values, tiles((1,), [index])], write), self.tile
            )
            keep = write.broadcast(self.expand(inside, 0), self.tile)
            new = [write.primitive("select_n", {}, (keep, a, n), a.dtype) for a, n in zip(inner, new, strict=True)]
            write.line(f"scf.yield {', '.join(n.name for n in new)} : {types}")
        write.line("}")
        return [Value(f"{result}#{k}", s.shape, s.dtype) for k, s in enumerate(start)]

    def reduce(self, acc: Sequence[Value], axis: int) -> list[Value]:
        """All accumulators along an axis, by one reduction of Triton (see `merge`)."""
        write, shape = self.write, (*acc[0].shape[:axis], *acc[0].shape[axis + 1 :])
        first, second = ([Value(write.name(), (), a.dtype) for a in acc] for _ in range(2))
        out = write.name()
        results = [Value(f"{out}#{k}", shape, a.dtype) for k, a in enumerate(acc)]
        types = [", ".join(v.type for v in own) for own in (acc, results)]
        names = ", ".join(a.name for a in acc)
        parameters = ", ".join(f"{v.name}: {v.type}" for v in (*first, *second))
        write.line(f'{out}:{len(acc)} = "tt.reduce"({names}) <{{axis = {axis} : i32}}> ({{')
        write.line(f"^bb0({parameters}):")
        with write.block(constants=False):
            if self.desc.reduction.rounds and not self.desc.reduction.adds:
                avals = [[jax.ShapeDtypeStruct((), v.dtype) for v in first]] * 2
                ordered = write.run(jax.make_jaxpr(in_one_order(lambda a, b: [*a, *b]))(*avals), [*first, *second], ())
                first, second = ordered[: len(acc)], ordered[len(acc) :]
            merged = self.flat(evaluate(self.traced.merge, [*self.tiled(first), *self.tiled(second)], write), ())
            merged = [write.converted(m, a.dtype) for m, a in zip(merged, acc, strict=True)]
            write.line(f"tt.reduce.return {', '.join(m.name for m in merged)} : {', '.join(m.type for m in merged)}")
        write.line(f"}}) : ({types[0]}) -> ({types[1]})")
        return results


def stored(dtype: Any) -> np.dtype:
    """Booleans are stored as 32-bit integers."""
    return np.dtype(np.int32) if np.dtype(dtype) == bool else np.dtype(dtype)
