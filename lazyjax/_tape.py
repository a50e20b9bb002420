"""The recorded expression: a flat tape of instructions that name earlier ones by number.

A tape is flat, never nested nodes, because with shared parts the hash of a nested expression doubles with every level.
Equal tapes are the same object (hash-consed), so comparing two is free.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp

from ._compat import trace_context
from ._ops import OPS, Op
from .kernels import PairFunction, trace_pair
from .kernels.description import Role

Layout = Literal["rows", "rows,1", "1,rows", "1,1", ""]


class Leaf(NamedTuple):
    """How one data array is read; never its sizes or dtype, which are the array's own.

    role: i-variable, j-variable or parameter.  feature_ndim: how many trailing axes are features.
    layout: the axes between the batch dims and the features, as the user gave them.
    symbol: (index, D) of a symbolic variable, which has no data until the reduction is called.
    """

    role: Role
    feature_ndim: int
    layout: Layout
    symbol: tuple[int, int] | None = None

    @property
    def lead(self) -> int:
        """How many axes stand between the batch dims and the features."""
        return {"rows": 1, "": 0}.get(self.layout, 2)

    def swapped(self) -> Leaf:
        """The same data with i and j exchanged."""
        swap: dict[Role, Role] = {"i": "j", "j": "i", "p": "p"}
        return self._replace(role=swap[self.role])


class Instruction(NamedTuple):
    """One operation.  inputs: leaf k is -1 - k, instruction k is k; params: sorted (name, value) pairs."""

    op: str
    params: tuple[tuple[str, Any], ...]
    inputs: tuple[int, ...]


class Tape:
    """Leaves and instructions; interned, so that identity is equality."""

    __slots__ = ("__weakref__", "_hash", "code", "leaves")
    leaves: tuple[Leaf, ...]
    code: tuple[Instruction, ...]
    _hash: int

    _interned: ClassVar[weakref.WeakValueDictionary[Any, Tape]] = weakref.WeakValueDictionary()

    def __new__(cls, leaves: tuple[Leaf, ...], code: tuple[Instruction, ...]) -> Tape:
        key = (leaves, code)
        found = cls._interned.get(key)
        if found is None:
            found = super().__new__(cls)
            found.leaves, found.code = leaves, code
            found._hash = hash(key)
            cls._interned[key] = found
        return found

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> Any:
        lifted = [dict(i.params)["name"] for i in self.code if i.op == "lift"]
        if lifted:
            raise TypeError(
                f"A formula with lift({lifted[0]}) cannot be pickled, because the function was traced. Pickle the "
                "data, and write the formula again."
            )
        return Tape, (self.leaves, self.code)

    def __copy__(self) -> Tape:
        return self

    def __deepcopy__(self, memo: Any) -> Tape:
        return self  # immutable, and identity is equality


class Operand(NamedTuple):
    """A node of a tape and the data of the tape's leaves."""

    tape: Tape
    node: int
    data: tuple[Any, ...]


def join(operands: Sequence[Operand]) -> tuple[Tape, tuple[Any, ...], tuple[int, ...]]:
    """One tape for several operands: the same array is one leaf, the same operation one instruction.  Also returns the
    data of its leaves and the node of each operand."""
    first = operands[0]
    if all(o.tape is first.tape and o.data is first.data for o in operands):
        return first.tape, first.data, tuple(o.node for o in operands)
    data = [d for o in operands for d in o.data]
    place: dict[int, int] = {}
    same = tuple(place.setdefault(id(d), k) for k, d in enumerate(data))
    tape, kept, nodes = _joined(tuple((o.tape, o.node) for o in operands), same)
    return tape, tuple(data[k] for k in kept), nodes


# An eager call writes its formula anew; what does not depend on the data is remembered.
@functools.lru_cache(maxsize=2048)
def _joined(
    operands: tuple[tuple[Tape, int], ...], same: tuple[int, ...]
) -> tuple[Tape, tuple[int, ...], tuple[int, ...]]:
    """`join` of tapes and nodes.  same: of all their data one after the other, where each stands first.  Also returns
    which of the data are kept."""
    (tape, node), *others = operands
    leaves, code, nodes = list(tape.leaves), list(tape.code), [node]
    kept = list(range(len(leaves)))
    known_leaf = {(same[k], leaf): -1 - k for k, leaf in enumerate(leaves)}
    known = {instruction: k for k, instruction in enumerate(code)}
    place = len(leaves)
    for tape, node in others:
        number: dict[int, int] = {}
        for k, leaf in enumerate(tape.leaves):
            key = (same[place], leaf)
            if key not in known_leaf:
                leaves.append(leaf)
                kept.append(place)
                known_leaf[key] = -len(leaves)
            number[-1 - k] = known_leaf[key]
            place += 1
        for k, (op, params, inputs) in enumerate(tape.code):
            instruction = Instruction(op, params, tuple(number[n] for n in inputs))
            if instruction not in known:
                code.append(instruction)
                known[instruction] = len(code) - 1
            number[k] = known[instruction]
        nodes.append(number[node])
    return Tape(tuple(leaves), tuple(code)), tuple(kept), tuple(nodes)


@functools.lru_cache(maxsize=2048)
def append(tape: Tape, instruction: Instruction) -> tuple[Tape, int]:
    """The tape with one more instruction, unless it has it, and the node of that."""
    if instruction in tape.code:
        return tape, tape.code.index(instruction)
    return Tape(tape.leaves, (*tape.code, instruction)), len(tape.code)


def _run(instruction: Instruction, inputs: Sequence[Any]) -> Any:
    if instruction.op == "constant":
        return dict(instruction.params)["value"]  # a Python number: weakly typed, as in jnp
    if instruction.op == "lift":
        params = dict(instruction.params)
        function = params["function"]
        typed = [jnp.asarray(x, a.dtype) for x, a in zip(inputs, function.in_avals, strict=True)]
        return function(*typed)[params["output"]]
    if instruction.op == "derivative":
        return dict(instruction.params)["function"](*inputs)
    op: Op = OPS[instruction.op]
    return op.fn(*inputs, **dict(instruction.params))


def evaluate(tape: Tape, features: Sequence[Any]) -> list[Any]:
    """The value of every instruction on the features of one pair."""
    values: list[Any] = []
    for instruction in tape.code:
        values.append(_run(instruction, [features[-1 - n] if n < 0 else values[n] for n in instruction.inputs]))
    return values


@functools.lru_cache(maxsize=8192)
def _result_aval(instruction: Instruction, inputs: tuple[Any, ...], context: Any) -> Any:
    del context
    fn: Callable[..., Any] = lambda *args: jnp.asarray(_run(instruction, args))  # noqa: E731
    weak: list[bool] = []

    def probe(*args: Any) -> Any:
        out = fn(*args)
        weak.append(bool(getattr(out, "weak_type", False)))
        return out

    out = jax.eval_shape(probe, *inputs)
    return jax.ShapeDtypeStruct(out.shape, out.dtype, weak_type=weak[-1])


def result_aval(instruction: Instruction, inputs: Sequence[Any]) -> Any:
    """Shape and dtype of an instruction's result, by abstract evaluation, remembered."""
    return _result_aval(instruction, tuple(inputs), trace_context())


def node_avals(tape: Tape, leaf_avals: Sequence[Any]) -> list[Any]:
    """Feature shape and dtype of every instruction."""
    avals: list[Any] = []
    for instruction in tape.code:
        inputs = [leaf_avals[-1 - n] if n < 0 else avals[n] for n in instruction.inputs]
        avals.append(result_aval(instruction, inputs))
    return avals


@functools.lru_cache(maxsize=1024)
def _pair_function(tape: Tape, nodes: tuple[int, ...], avals: tuple[Any, ...], context: Any) -> PairFunction:
    del context

    def fn(*features: Any) -> list[Any]:
        values = evaluate(tape, features)
        outs = [features[-1 - n] if n < 0 else values[n] for n in nodes]
        return [jnp.reshape(o, (1,)) if jnp.ndim(o) == 0 else o for o in outs]

    return trace_pair(fn, avals)


def pair_function(tape: Tape, nodes: Sequence[int], avals: Sequence[Any]) -> PairFunction:
    """The function of one pair that computes some nodes; numbers become vectors of length 1.

    The same tape on the same dtypes gives the same object, so that nothing downstream is traced again.
    """
    return _pair_function(tape, tuple(nodes), tuple(avals), trace_context())
