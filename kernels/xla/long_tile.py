"""The long features of a chunk of j's beside the lanes of i, and the numbers of pairs that they are contracted to.

An inner product of i- and j-features is a matrix product.  Any other chain is a loop over its features, a few at a
time, each step one fused kernel over the array of all pairs of what has been contracted so far.  See `long_features`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core

from ..long_features import CONTRACTIONS, Node, Split, apply, is_long, passes_on, size
from ..scalarize import Arithmetic, Tiles, broadcast_tile, run_equation, tiles
from .fusion import apart


class Tile:
    """What a chunk of j's and the lanes of i compute together, each part when it is first asked for.

    args: i-arguments (*F, lanes), j-arguments (*F, chunk), parameters (*F,).  features: how many a step of a loop
    takes.  leading: which of the two comes first where both do, "j" for (chunk, lanes).
    A value is an array with its rows last; or, where it reads both axes, an array of tiles or a `Node`.
    """

    def __init__(
        self, parts: Split, args: Sequence[Any], step: Any, length: int, lanes: int, features: int,
        arithmetic: Arithmetic, leading: Literal["i", "j"] = "j",
    ):  # fmt: skip
        self.parts, self.step, self.length, self.lanes, self.leading = parts, step, length, lanes, leading
        self.pair = (length, lanes) if leading == "j" else (lanes, length)
        self.features, self.arithmetic = features, arithmetic
        jaxpr = parts.jaxpr.jaxpr
        self.env: dict[Any, Any] = dict(zip(jaxpr.invars, args, strict=False))
        self.env |= {v: jnp.asarray(c) for v, c in zip(jaxpr.constvars, parts.jaxpr.consts, strict=True)}
        self._makes = {v: eqn for eqn in parts.first for v in eqn.outvars}
        self._leaves: dict[Any, Node] = {}
        self._side_by_side: dict[Any, list[jax.Array]] = {}

    def value(self, v: Any) -> Any:
        """A variable of the pair function."""
        if isinstance(v, core.Literal):
            return v.val
        if v not in self.env:
            self._run(self._makes[v])
        return self.env[v]

    def _run(self, eqn: Any) -> None:
        reads = self.parts.reads[eqn.outvars[0]]
        if len(reads) < 2:
            mapped = [self._reads(v) for v in eqn.invars]
            fn = functools.partial(apply, eqn)
            if reads:
                fn = jax.vmap(fn, tuple(-1 if r else None for r in mapped), -1)
            out = fn(*map(self.value, eqn.invars))
            self.env.update(zip(eqn.outvars, out, strict=True))
            return
        (out,) = eqn.outvars[:1]
        if not any(map(is_long, [*eqn.invars, *eqn.outvars])):
            results = run_equation(eqn, [self.tiled(v) for v in eqn.invars], self.arithmetic)
            self.env.update(zip(eqn.outvars, results, strict=True))
        elif is_long(out):
            operands = [self._node(v) for v in eqn.invars]
            self.env[out] = operands[0] if passes_on(eqn) else Node(eqn, operands)
        else:
            self.env[out] = tiles(out.aval.shape, [self._contracted(eqn)])

    def _reads(self, v: Any) -> frozenset[str]:
        return frozenset() if isinstance(v, core.Literal) else self.parts.reads[v]

    def axis(self, v: Any) -> str:
        """What a variable reads: "", "i", "j" or "ij"."""
        return "".join(sorted(self._reads(v)))

    def tiled(self, v: Any) -> Tiles:
        """A short variable as tiles that broadcast to `pair`."""
        if isinstance(v, core.Literal):
            literal: Any = v.aval
            return tiles((), [np.asarray(v.val, literal.dtype)[()]])
        value, axis = self.value(v), self.axis(v)
        if axis == "ij":
            return value
        items = value.reshape(size(v), *value.shape[len(v.aval.shape) :])
        items = [lax.index_in_dim(items, k, 0, keepdims=False) for k in range(size(v))]
        if axis == self.leading:
            items = [x[:, None] for x in items]
        elif axis == "j":  # vectors run along j: its numbers are copied side by side, once
            if v not in self._side_by_side:
                self._side_by_side[v] = apart(self.step, lambda: items)
            items = self._side_by_side[v]
        return tiles(v.aval.shape, items)

    def _node(self, v: Any) -> Node:
        """A variable as what a chain reads; one object for each, so that what it reads twice is cut out once."""
        value = self.value(v)
        if isinstance(value, Node):
            return value
        if isinstance(v, core.Literal):
            return Node(value=self.tiled(v).item(), reads="number")
        if v not in self._leaves:
            if size(v) == 1:
                node = Node(value=self.tiled(v).item(), reads="number")
            else:
                node = Node(value=value.reshape(size(v), *value.shape[len(v.aval.shape) :]), reads=self.axis(v))
            self._leaves[v] = node
        return self._leaves[v]

    def _contracted(self, eqn: Any) -> Any:
        """A number for every pair."""
        name, node = eqn.primitive.name, self._node(eqn.invars[0])
        if name == "reduce_sum" and (parts := node.factors()) is not None:
            found = self._inner_product(parts, eqn.outvars[0].aval.dtype)
            if found is not None:
                return found
        return self._loop(node, *CONTRACTIONS[name], size(eqn.invars[0]), eqn.outvars[0].aval.dtype)

    def _inner_product(self, parts: Sequence[Node], dtype: Any) -> Any:
        """sum_k a_k(i) b_k(j) as a matrix product, where the factors are of this kind."""
        rows = [f for f in parts if f.is_row]
        of_i, of_j = ([f for f in rows if f.reads == r] for r in "ij")
        if not (of_i and of_j and jnp.issubdtype(dtype, jnp.inexact)):
            return None
        of_p = [f.value[:, None] for f in rows if not f.reads]
        a = functools.reduce(lax.mul, (f.value.astype(dtype) for f in of_i))
        b = functools.reduce(jnp.multiply, (*(f.value.astype(dtype) for f in of_j), *of_p))
        first, second = (b, a) if self.leading == "j" else (a, b)
        total = lax.dot_general(first, second, (((0,), (0,)), ((), ())), precision=lax.Precision.HIGHEST).astype(dtype)
        for f in parts:
            if f.is_number:
                total = self.arithmetic.apply("mul", lax.mul, lax.convert_element_type(f.value, dtype), total)
        return total

    def _loop(self, node: Node, combine: Any, neutral: Any, length: int, dtype: Any) -> Any:
        """A chain contracted by a loop over its features, some at a time.

        What a step reads is copied out first: XLA would take the place of a slice anew for every element.
        """
        leaves = node.leaves()
        rows = [f for f in leaves if f.is_row]
        numbers = {id(f): f.value for f in leaves if f.is_number}
        step = max(1, min(self.features // max(1, sum(f.reads == "j" for f in rows)), length))

        def absorb(acc: Any, values: Sequence[Any], count: int) -> Any:
            for q in range(count):
                given = dict(numbers)
                for f, x in zip(rows, values, strict=True):
                    given[id(f)] = x[q][:, None] if f.reads == self.leading else x[q]
                acc = self.arithmetic.apply(combine.__name__, combine, acc, self._feature(node, given))
            return acc

        def cut(start: Any, count: int) -> list[Any]:
            return [lax.dynamic_slice_in_dim(f.value, start, count) for f in rows]

        def body(k: Any, acc: Any) -> Any:
            return absorb(acc, apart(k, lambda: cut(k * step, step)), step)

        first = jnp.full(self.pair, neutral(np.dtype(dtype)), dtype)
        full = length // step
        acc = lax.fori_loop(0, full, body, first)
        if length % step:
            acc = absorb(acc, apart(self.step, lambda: cut(full * step, length % step)), length % step)
        return acc

    def _feature(self, node: Node, given: dict[int, Any]) -> Any:
        """One feature of a chain, from the tiles of its leaves."""
        done = dict(given)

        def tile_of(n: Node) -> Any:
            if id(n) not in done:
                operands = [tiles((), [tile_of(o)]) for o in n.operands]
                done[id(n)] = run_equation(n.eqn, operands, self.arithmetic)[0].item()
            return done[id(n)]

        return tile_of(node)

    # Long results.

    def summed(self, v: Any, dtype: Any) -> Any:
        """The sum over the chunk of a long result, (L, lanes), or (lanes, L) where lanes lead."""
        return self._summed(self._node(v), size(v), dtype)

    def _summed(self, node: Node, length: int, dtype: Any) -> Any:
        exact = node.eqn is not None and not jnp.issubdtype(node.eqn.outvars[0].aval.dtype, jnp.inexact)
        if exact:  # small integers wrap around in products, which a wider product would not
            return self._summed_by_loop(node, length, dtype)
        parts = node.factors()
        if parts is None and node.is_sum:
            # Terms are rounded already when they are added: adding their sums instead loses nothing more.
            a, b = (self._summed(term, length, dtype) for term in node.operands)
            return a - b if node.is_difference else a + b
        if parts is None:
            return self._summed_by_loop(node, length, dtype)
        cast = lambda x: lax.convert_element_type(x, dtype)  # noqa: E731
        weight = jnp.ones(self.pair, dtype)
        for f in parts:
            if f.is_number:
                weight = self.arithmetic.apply("mul", lax.mul, weight, cast(f.value))
        of_i, of_j, of_p = ([cast(f.value) for f in parts if f.is_row and f.reads == r] for r in ("i", "j", ""))
        if of_j:
            matrix = functools.reduce(jnp.multiply, [*of_j, *(x[:, None] for x in of_p)])
            first, second, axis = (matrix, weight, 0) if self.leading == "j" else (weight, matrix, 1)
            dimensions = (((1,), (axis,)), ((), ()))
            total = lax.dot_general(first, second, dimensions, precision=lax.Precision.HIGHEST).astype(dtype)
        elif self.leading == "j":
            total = functools.reduce(jnp.multiply, [weight.sum(0), *(x[:, None] for x in of_p)])
        else:
            total = functools.reduce(jnp.multiply, [self.over_chunk(weight)[:, None], *of_p])
        if self.leading == "i":
            return jnp.broadcast_to(functools.reduce(jnp.multiply, [total, *(x.T for x in of_i)]), (self.lanes, length))
        return jnp.broadcast_to(functools.reduce(jnp.multiply, [total, *of_i]), (length, self.lanes))

    def holds(self, v: Any) -> bool:
        """Whether a short variable has been computed for every pair, as a factor of what `summed` took."""
        node = None if isinstance(v, core.Literal) else self._leaves.get(v)
        return node is not None and node.is_number and np.shape(node.value) == self.pair

    def total(self, v: Any, dtype: Any) -> jax.Array:
        """The sum over the chunk of what it `holds`, (lanes,): as a product, into which XLA fuses nothing anew."""
        return self.over_chunk(lax.convert_element_type(self._leaves[v].value, dtype))

    def over_chunk(self, values: jax.Array) -> jax.Array:
        """The sum over the chunk of a number for every pair, as a product."""
        ones = jnp.ones(self.length, values.dtype)
        operands = (ones, values) if self.leading == "j" else (values, ones)
        return lax.dot(*operands, precision=lax.Precision.HIGHEST)

    def _summed_by_loop(self, node: Node, length: int, dtype: Any) -> Any:
        """(L, lanes), some j's at a time; where lanes lead, all long results are products (`sums_of_products`)."""
        assert self.leading == "j"
        leaves = node.leaves()
        moving = [f for f in leaves if "j" in f.reads or f.is_number]
        step = min(self.length, self.features)
        fixed = {id(f): f.value[:, None] if f.reads == "" else f.value for f in leaves if f.is_row and f.reads != "j"}

        def cut(start: Any, count: int) -> list[Any]:
            outs = []
            for f in moving:
                if f.is_row:
                    outs.append(lax.dynamic_slice_in_dim(f.value, start, count, 1))
                else:
                    shape = np.shape(f.value)
                    rows = len(shape) == 2 and shape[0] == self.length
                    outs.append(lax.dynamic_slice_in_dim(f.value, start, count) if rows else f.value)
            return outs

        def absorb(acc: Any, values: Sequence[Any], count: int) -> Any:
            for u in range(count):
                given = dict(fixed)
                for f, x in zip(moving, values, strict=True):
                    rows = f.is_number and np.ndim(x) == 2
                    given[id(f)] = x[:, u : u + 1] if f.is_row else x[u] if rows else x
                value = broadcast_tile(self._feature(node, given), (length, self.lanes))
                acc = acc + lax.convert_element_type(value, dtype)
            return acc

        def body(k: Any, acc: Any) -> Any:
            return absorb(acc, apart(k, lambda: cut(k * step, step)), step)

        acc = jnp.zeros((length, self.lanes), dtype)
        full = self.length // step
        acc = lax.fori_loop(0, full, body, acc)
        rest = self.length % step
        return absorb(acc, apart(self.step, lambda: cut(full * step, rest)), rest) if rest else acc
