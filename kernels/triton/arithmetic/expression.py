"""The arithmetic of one pair as an expression: recorded, rearranged to fewer instructions, then emitted.

`Recorder` is an `Arithmetic` whose tiles are nodes.  While it records it

- carries constant factors along (-2 x y is one product and a factor) and multiplies them into what is cheapest: a
  number of i alone, which is computed before the loop, or the factor of a product that is there anyway;
- writes exp as exp2, the constant log2(e) being one more such factor, and with `approximate` logarithms, square
  roots and quotients of float32 as the instructions of the machine (`instructions`);
- shares whatever is computed twice.

`emit` then writes sums of products as chains of fused multiply-adds, which XLA does not do by itself.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax import lax

from ...scalarize import Arithmetic, broadcast_tile
from . import composites, instructions

# What a node reads, as a mask: neither i nor j (constants and parameters) is 0.
READS = {"p": 0, "i": 1, "j": 2, "ij": 3}
J, PAIR = 2, 3
# Terms that are added one after the other: longer sums are cut, so that errors and chains stay short.
CHAIN = 16

_FLOAT32, _FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
_FLOATS = (_FLOAT32, _FLOAT64)
# Instructions of the machine, where there are more than one (those of libdevice's functions for float32).
WEIGHTS = {
    "neg": 0, "exp": 8, "exp2 of libdevice": 4, "log": 14, "log2 of libdevice": 15, "sqrt of libdevice": 8,
    "rsqrt of libdevice": 4, "div": 10, "pow": 40, "sin": 30, "cos": 30, "tan": 40, "tanh": 18, "expm1": 14,
    "log1p": 20, "logistic": 20, "asin": 20, "acos": 20, "atan": 18, "atan2": 30, "sinh": 25, "cosh": 18, "asinh": 30,
    "acosh": 30, "atanh": 25, "cbrt": 20, "rem": 30, "erf_inv": 30, "nextafter": 10, "sign": 4, "erf": 60,
    "erfc": 60, "lgamma": 150, "digamma": 100, "round": 8,
}  # fmt: skip
# From so many on, a function holds several numbers at once.
CALL = 14
_BOOLEAN = frozenset("eq ne lt le gt ge is_finite beats".split())
_FOLDED: dict[str, Callable[..., Any]] = {
    "add": np.add, "add_any": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "neg": np.negative,
    "sqrt": np.sqrt, "exp": np.exp, "log": np.log, "square": np.square,
}  # fmt: skip


class Node:
    """One value of the pair.  `fn` computes it from its operands where `name` is none that `emit` knows."""

    __slots__ = ("dtype", "fn", "name", "operands", "place", "reads")

    def __init__(self, place: int, name: str, operands: tuple[Any, ...], dtype: np.dtype, reads: int, fn: Any = None):
        self.place, self.name, self.operands, self.dtype, self.reads, self.fn = place, name, operands, dtype, reads, fn

    def __repr__(self) -> str:
        return f"{self.name} {self.place}"


def _constant(x: Any) -> bool:
    return not isinstance(x, Node)


def _reads(x: Any) -> int:
    return x.reads if isinstance(x, Node) else 0


class Recorder(Arithmetic):
    """Records; with `approximate`, functions of float32 become approximate instructions of the machine."""

    def __init__(self, dtype: Callable[[Any], np.dtype], approximate: bool):
        super().__init__(dtype)
        self.approximate = approximate
        self.known: dict[Any, Node] = {}
        self.count = 0
        self.moved: dict[tuple[int, float], Any] = {}

    # Nodes.

    def argument(self, dtype: Any, reads: int) -> Node:
        self.count += 1
        return Node(self.count, "argument", (), np.dtype(dtype), reads)

    def node(self, name: str, operands: Sequence[Any], dtype: np.dtype, fn: Any = None, key: Any = ()) -> Node:
        """A node; the same one for the same name, operands and key, unless the key is None."""
        full = None
        if name in ("add", "mul"):  # one of the two orders, so that both are the same node; constants come last
            operands = sorted(operands, key=lambda x: x.place if isinstance(x, Node) else math.inf)
        if key is not None:
            full = (name, key, dtype, *((x.place if isinstance(x, Node) else (x.dtype, x.tobytes())) for x in operands))
            if full in self.known:
                return self.known[full]
        self.count += 1
        reads = functools.reduce(int.__or__, map(_reads, operands), 0)
        out = Node(self.count, name, tuple(operands), dtype, reads, fn)
        if full is not None:
            self.known[full] = out
        return out

    # Factors: a node of the name "scaled" is a number times its only operand, and never reaches `emit`.

    def may_move(self, c: Any) -> bool:
        """Whether a factor may be multiplied in elsewhere: exactly, or approximately where that is allowed."""
        if not math.isfinite(c) or c == 0 or not 1e-30 < abs(c) < 1e30:
            return False
        return self.approximate or math.frexp(c)[0] in (0.5, -0.5)

    def split(self, x: Any) -> tuple[float, Any]:
        """x = factor * rest; the rest of a constant is None."""
        if isinstance(x, Node):
            return (x.operands[1], x.operands[0]) if x.name == "scaled" else (1.0, x)
        return (float(x), None) if self.may_move(float(x)) else (1.0, x)

    def scaled(self, factor: float, x: Any, dtype: np.dtype) -> Any:
        """factor * x, for later."""
        if x is None:
            return dtype.type(factor)
        if not isinstance(x, Node):
            return dtype.type(factor * float(x))
        own, rest = self.split(x)
        factor = factor * own
        if factor == 1:
            return rest
        if not self.may_move(factor):
            return self.node("mul", (self.plain(x), dtype.type(factor / own)), dtype)
        self.count += 1
        return Node(self.count, "scaled", (rest, factor), dtype, rest.reads)

    def plain(self, x: Any) -> Any:
        """x with its factor multiplied in, where that costs least."""
        if not isinstance(x, Node) or x.name != "scaled":
            return x
        return self.multiplied(x.operands[0], x.operands[1])

    def multiplied(self, x: Any, factor: float) -> Any:
        if _constant(x):
            return x.dtype.type(factor * float(x))
        if factor == 1:
            return x
        if (x.place, factor) not in self.moved:
            self.moved[x.place, factor] = self._multiplied(x, factor)
        return self.moved[x.place, factor]

    def _multiplied(self, x: Node, factor: float) -> Any:
        if x.name == "mul":
            a, b = x.operands
            if _constant(b) and self.may_move(float(b) * factor):
                return self.multiplied(a, float(b) * factor)
            first, second = (a, b) if _price(a) <= _price(b) else (b, a)
            if _price(first) == 0:
                return self.node("mul", (self.multiplied(first, factor), second), x.dtype)
        if factor == -1:
            return self.node("neg", (x,), x.dtype)
        return self.node("mul", (x, x.dtype.type(factor)), x.dtype)

    # Rules.

    def apply(self, name: str, fn: Callable[..., Any], *operands: Any) -> Any:
        params = getattr(fn, "keywords", {})
        dtype = self._dtype(name, params, operands)
        if all(map(_constant, operands)):
            with np.errstate(all="ignore"), jax.ensure_compile_time_eval():
                return np.asarray(_FOLDED.get(name, fn)(*operands)).astype(dtype)[()]
        rule = _RULES.get(name)
        if rule is not None and dtype in _FLOATS and all(_dtype(x) == dtype for x in operands):
            return rule(self, dtype, params, *operands)
        return self._other(name, fn, params, dtype, operands)

    def _dtype(self, name: str, params: Mapping[str, Any], operands: Sequence[Any]) -> np.dtype:
        if name in _BOOLEAN:
            return np.dtype(bool)
        if name == "convert_element_type":
            return np.dtype(params["new_dtype"])
        return _dtype(operands[1] if name == "select_n" else operands[0])

    def _other(self, name: str, fn: Any, params: Mapping[str, Any], dtype: np.dtype, operands: Sequence[Any]) -> Any:
        operands = [self.plain(x) for x in operands]
        if name == "convert_element_type" and _dtype(operands[0]) == dtype:
            return operands[0]
        if name == "select_n" and dtype in _FLOATS and (found := self._extreme(dtype, operands)) is not None:
            return found
        fn = composites.replaced(name, fn)
        own = isinstance(fn, functools.partial) or name in ("select_n", "beats")
        return self.node(name, operands, dtype, fn, repr(sorted(params.items())) if own else None)

    def _extreme(self, dtype: np.dtype, operands: Sequence[Any]) -> Any:
        """where(v < best, v, best): one instruction that skips a NaN in v."""
        if len(operands) != 3 or not isinstance(operands[0], Node):
            return None
        which, best, v = operands
        name = {"lt": "minimum", "gt": "maximum"}.get(which.name)
        if name is None or len(which.operands) != 2 or which.operands[0] is not v or which.operands[1] is not best:
            return None
        return self.node(name, (best, v), dtype)

    def total(self, name: str, fn: Callable[[Any, Any], Any], items: Sequence[Any]) -> Any:
        dtype = _dtype(items[0])
        if name not in ("add", "max", "min") or dtype not in _FLOATS:
            return super().total(name, fn, items)
        factors = {self.split(x)[0] for x in items}
        if len(factors) == 1 and all(isinstance(x, Node) for x in items):
            (factor,) = factors
            rest = [self.split(x)[1] for x in items]
            if name == "add" and any(_price(x) for x in rest):
                return self.scaled(factor, self._sum(dtype, rest), dtype)
            if factor == -1 and name != "add":
                name, fn = ("min", lax.min) if name == "max" else ("max", lax.max)
                return self.scaled(-1.0, super().total(name, fn, rest), dtype)
        if name != "add":
            return super().total(name, fn, items)
        return self._sum(dtype, [self.plain(x) for x in items])

    def _sum(self, dtype: np.dtype, terms: Sequence[Any]) -> Any:
        while len(terms) > CHAIN:
            parts = -(-len(terms) // CHAIN)
            terms = [self._sum(dtype, terms[k::parts]) for k in range(parts)]
        return terms[0] if len(terms) == 1 else self.node("sum", terms, dtype)

    def _add(self, dtype: np.dtype, params: Any, a: Any, b: Any) -> Any:
        (p, x), (q, y) = self.split(a), self.split(b)
        if x is y and isinstance(x, Node) and self.may_move(p + q):
            return self.scaled(p + q, x, dtype)
        if p == q == -1 and isinstance(x, Node) and isinstance(y, Node):
            return self.scaled(-1.0, self.node("add", (x, y), dtype), dtype)
        if q == -1 and isinstance(y, Node):
            return self.node("sub", (self.plain(a), y), dtype)
        if p == -1 and isinstance(x, Node):
            return self.node("sub", (self.plain(b), x), dtype)
        return self.node("add", (self.plain(a), self.plain(b)), dtype)

    def _sub(self, dtype: np.dtype, params: Any, a: Any, b: Any) -> Any:
        (p, x), (q, y) = self.split(a), self.split(b)
        if q == -1 and isinstance(y, Node):
            if p == -1 and isinstance(x, Node):
                return self.node("sub", (y, x), dtype)
            return self.node("add", (self.plain(a), y), dtype)
        if p == -1 and isinstance(x, Node):
            return self.scaled(-1.0, self.node("add", (x, self.plain(b)), dtype), dtype)
        return self.node("sub", (self.plain(a), self.plain(b)), dtype)

    def _mul(self, dtype: np.dtype, params: Any, a: Any, b: Any) -> Any:
        (p, x), (q, y) = self.split(a), self.split(b)
        if x is None or y is None:
            return self.scaled(p * q, y if x is None else x, dtype)
        return self.scaled(p * q, self.node("mul", (x, y), dtype), dtype)

    def _div(self, dtype: np.dtype, params: Any, a: Any, b: Any) -> Any:
        q, y = self.split(b)
        if y is None and self.may_move(1 / q):
            return self.scaled(1 / q, a, dtype)
        if not (self.approximate and dtype == _FLOAT32):
            return self.node("div", (self.plain(a), self.plain(b)), dtype, lax.div)
        return self._mul(dtype, params, a, self.scaled(1 / q, self.node("reciprocal", (y,), dtype), dtype))

    def _power(self, dtype: np.dtype, params: Any, x: Any) -> Any:
        n = params.get("y", 2)
        if n == 0:
            return dtype.type(1)
        out, square, k = None, x, abs(n)
        while k:
            if k & 1:
                out = square if out is None else self._mul(dtype, params, out, square)
            k >>= 1
            square = self._mul(dtype, params, square, square) if k else square
        return out if n > 0 else self._div(dtype, params, dtype.type(1), out)

    def _exp(self, dtype: np.dtype, params: Any, x: Any, base: float = math.log2(math.e)) -> Any:
        if not (self.approximate and dtype == _FLOAT32):
            name, fn = ("exp", lax.exp) if base != 1 else ("exp2 of libdevice", lax.exp2)
            return self.node(name, (self.plain(x),), dtype, fn)
        return self.node("exp2", (self._exponent(dtype, x, base),), dtype)

    def _exponent(self, dtype: np.dtype, x: Any, base: float) -> Any:
        """x * base; the factor goes into both terms of a sum where one of them is not a number of the pair."""
        factor, rest = self.split(x)
        if isinstance(rest, Node) and rest.name in ("add", "sub") and min(map(_price, rest.operands)) == 0:
            return self.node(rest.name, [self.multiplied(y, factor * base) for y in rest.operands], dtype)
        return self.plain(self.scaled(base, x, dtype))

    def _log(self, dtype: np.dtype, params: Any, x: Any, base: float = math.log(2)) -> Any:
        if not (self.approximate and dtype == _FLOAT32):
            name, fn = ("log", lax.log) if base != 1 else ("log2 of libdevice", instructions.log2)
            return self.node(name, (self.plain(x),), dtype, fn)
        return self.scaled(base, self.node("log2", (self.plain(x),), dtype), dtype)

    def _root(self, dtype: np.dtype, params: Any, x: Any, name: str = "sqrt") -> Any:
        if not (self.approximate and dtype == _FLOAT32):
            fn = {"sqrt": lax.sqrt, "rsqrt": lax.rsqrt}[name]
            return self.node(f"{name} of libdevice", (self.plain(x),), dtype, fn)
        return self.node(name, (self.plain(x),), dtype)

    def _logistic(self, dtype: np.dtype, params: Any, x: Any) -> Any:
        one = dtype.type(1)
        e = self._exp(dtype, params, self.scaled(-1.0, x, dtype))
        return self._div(dtype, params, one, self._add(dtype, params, e, one))


def _dtype(x: Any) -> np.dtype:
    return np.dtype(x.dtype)


def _price(x: Any) -> int:
    """What multiplying a number into x costs for every pair: nothing where it is not a number of the pair."""
    if _reads(x) != PAIR:
        return 0
    return min(map(_price, x.operands)) if x.name == "mul" else 1


_RULES: dict[str, Callable[..., Any]] = {
    "add": Recorder._add,
    "add_any": Recorder._add,
    "sub": Recorder._sub,
    "mul": Recorder._mul,
    "neg": lambda self, dtype, params, x: self.scaled(-1.0, x, dtype),
    "div": Recorder._div,
    "square": Recorder._power,
    "integer_pow": Recorder._power,
    "exp": Recorder._exp,
    "exp2": functools.partial(Recorder._exp, base=1.0),
    "log": Recorder._log,
    "log2": functools.partial(Recorder._log, base=1.0),
    "sqrt": Recorder._root,
    "rsqrt": functools.partial(Recorder._root, name="rsqrt"),
    "logistic": Recorder._logistic,
}


class Program:
    """What computes some nodes, in order: which products end in fused multiply-adds, and what comes before the loop."""

    def __init__(self, outputs: Sequence[Any], assembly: bool):
        self.outputs, self.assembly = list(outputs), assembly
        nodes = _ordered(outputs)
        self.uses: dict[int, int] = {}
        for x in [y for n in nodes for y in n.operands] + self.outputs:
            if isinstance(x, Node):
                self.uses[x.place] = self.uses.get(x.place, 0) + 1
        self.merged: set[int] = set()  # nodes that another one computes along
        self.terms: dict[int, list[Any]] = {}
        for n in reversed(nodes):  # what uses a node comes before it
            if n.name in ("sum", "add", "sub") and n.dtype in _FLOATS and n.place not in self.merged:
                self.terms[n.place] = self._terms(n)
        self.nodes = [n for n in nodes if n.place not in self.merged]

    def _single(self, x: Any, *names: str) -> bool:
        return isinstance(x, Node) and x.name in names and self.uses[x.place] == 1

    def _terms(self, n: Node) -> list[tuple[bool, Any]]:
        """(whether it is subtracted, term); the first one is what the others are added to."""
        terms = [(n.name == "sub" and k == 1, x) for k, x in enumerate(n.operands)]
        if n.name == "add":  # to add a sum is to add its terms
            for k, (_, x) in enumerate(terms):
                if self._single(x, "sum") and not self._single(terms[1 - k][1], "sum"):
                    self.merged.add(x.place)
                    terms = [terms[1 - k], *((False, y) for y in x.operands)]
                    break
        signed = []
        for minus, x in terms:
            if self._single(x, "neg") and self._single(x.operands[0], "mul"):
                self.merged.add(x.place)
                minus, x = not minus, x.operands[0]
            signed.append((minus, x))
        products = [self._single(x, "mul") for _, x in signed]
        if all(products):
            # The first product is rounded by itself, unless it is the one that is subtracted from.
            first = next((k for k, (minus, _) in enumerate(signed) if not minus), 0)
        else:
            first = next((k for k, p in enumerate(products) if not p and not signed[k][0]), products.index(False))
        for k, (_, x) in enumerate(signed):
            if products[k] and k != first:
                self.merged.add(x.place)
        return [signed[first], *(t for k, t in enumerate(signed) if k != first)]

    def run(self, values: Mapping[int, Any], wanted: Callable[[Node], bool]) -> dict[int, Any]:
        """The tiles of all nodes that are wanted and not given, by place."""
        out = dict(values)
        for n in self.nodes:
            if n.place not in out and wanted(n):
                out[n.place] = self._emit(n, out)
        return out

    def cost(self) -> tuple[float, float, float]:
        """Instructions: those of every pair, those of them that are no arithmetic of floats, those of every j."""
        pair = special = column = 0.0
        for n in self.nodes:
            if n.name == "argument" or not n.reads & J:
                continue
            own: float = WEIGHTS.get(n.name, 1)
            if n.place in self.terms:
                own = len(self.terms[n.place]) - 1
            if n.reads == PAIR:
                pair += own
                special += n.name in instructions.APPROXIMATE
            else:
                column += own
        return pair, special, column

    def words(self) -> tuple[int, int]:
        """32-bit words that a row keeps in the loop, and the most that one pair holds at once beside them."""
        kept = {
            x.place: x
            for n in self.nodes
            if n.reads & J
            for x in n.operands
            if isinstance(x, Node) and not x.reads & J and x.reads
        }
        return sum(_words(x) for x in kept.values()), self._width()

    def calls(self) -> bool:
        """Whether a pair takes a function of many instructions, which needs registers of its own."""
        return any(n.reads == PAIR and WEIGHTS.get(n.name, 1) >= CALL for n in self.nodes)

    def _width(self) -> int:
        """The most numbers of one pair that are alive at once, when every operand is computed when it is needed."""
        left = dict(self.uses)
        alive = most = 0
        done: set[int] = set()
        stack: list[tuple[Any, bool]] = [(x, False) for x in reversed(self.outputs)]
        while stack:
            n, ready = stack.pop()
            if not isinstance(n, Node) or (n.place in done and not ready) or n.name == "argument":
                continue
            if not ready:
                done.add(n.place)
                stack.append((n, True))
                stack.extend((x, False) for x in reversed(n.operands))
                continue
            for x in n.operands:
                if isinstance(x, Node) and x.reads == PAIR and x.name != "argument":
                    left[x.place] -= 1
                    alive -= _words(x) if left[x.place] == 0 else 0
            if n.reads == PAIR and n.place not in self.merged:
                alive += _words(n)
                most = max(most, alive)
        return most

    def before(self, values: Mapping[int, Any]) -> dict[int, Any]:
        """What does not change in the loop."""
        return self.run(values, lambda n: not n.reads & J)

    def results(self, values: Mapping[int, Any]) -> list[Any]:
        out = self.run(values, lambda n: True)
        return [_value(x, out) for x in self.outputs]

    def _emit(self, n: Node, values: Mapping[int, Any]) -> Any:
        if n.place in self.terms:
            return self._chain(self.terms[n.place], values)
        operands = [_value(x, values) for x in n.operands]
        if n.name in instructions.INSTRUCTIONS:
            if n.name == "reciprocal" and self._single(n.operands[0], "sqrt"):
                return instructions.emit("rsqrt", (_value(n.operands[0].operands[0], values),), self.assembly)
            return instructions.emit(n.name, tuple(operands), self.assembly)
        fn = {"mul": lax.mul, "add": lax.add, "sub": lax.sub, "neg": lax.neg}.get(n.name, n.fn)
        return _broadcast(fn, *operands)

    def _chain(self, terms: Sequence[tuple[bool, Any]], values: Mapping[int, Any]) -> Any:
        (minus, first), *others = terms
        total = _value(first, values)
        total = _negated(total) if minus else total
        for minus, x in others:
            if isinstance(x, Node) and x.place in self.merged:
                a, b = (_value(y, values) for y in x.operands)
                total = instructions.emit("fma", (_negated(a) if minus else a, b, total), self.assembly)
            else:
                total = _broadcast(lax.sub if minus else lax.add, total, _value(x, values))
        return total


def _words(n: Node) -> int:
    return 2 if n.dtype.itemsize == 8 else 1


def _value(x: Any, values: Mapping[int, Any]) -> Any:
    return values[x.place] if isinstance(x, Node) else x


def _negated(x: Any) -> Any:
    return np.negative(x) if isinstance(x, np.generic) else lax.neg(x)  # Pallas-Triton has no rule for a constant


def _broadcast(fn: Callable[..., Any], *operands: Any) -> Any:
    shape = np.broadcast_shapes(*(np.shape(t) for t in operands))
    return fn(*(broadcast_tile(t, shape) for t in operands))


def _ordered(outputs: Iterable[Any]) -> list[Node]:
    """Every node that the outputs need, operands first."""
    found: dict[int, Node] = {}
    stack = [x for x in outputs if isinstance(x, Node)]
    while stack:
        n = stack.pop()
        if n.place not in found:
            found[n.place] = n
            stack.extend(x for x in n.operands if isinstance(x, Node))
    return [found[k] for k in sorted(found)]
