"""Random formulas and reductions against a dense evaluation of the same tree: values, dtypes, gradients.

A tree is drawn, and read twice: as LazyTensors, and as jnp on arrays of all pairs (*B, M, N, D), in float64. Examples
on which the answer is not well conditioned (close to a kink or a tie, or large) are drawn again.
Two thousand examples with LAZYJAX_FULL=1; without it, a few, which are always the same.
"""

# ruff: noqa: E501  (a table: one operation on one line)

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from lazyjax import LazyTensor, Pm, Vi, Vj

from .full import FULL

EXAMPLES = 2000 if FULL else 0
M, N, B, K = 4, 5, 2, 3
DEPTH, LARGEST = 6, 100.0


@dataclasses.dataclass(frozen=True)
class Op:
    """lazy and dense functions of `arity` operands; gap: how far dense operands are from where the answer jumps.

    size: whether the operands must have equally many features (or 1), or any number of them.
    """

    name: str
    arity: int
    lazy: Callable[..., Any]
    dense: Callable[..., Any]
    gap: Callable[..., Any] | None = None
    size: str = "equal"


class _Either:
    """NumPy for arrays of NumPy, jnp where JAX traces: values need no compilation, gradients need JAX."""

    def __getattr__(self, name: str) -> Any:
        def function(*args: Any, **kwargs: Any) -> Any:
            traced = any(isinstance(a, jax.Array) for a in jax.tree.leaves(args))
            if name == "erf":
                return (jax.scipy.special if traced else scipy.special).erf(*args)
            return getattr(jnp if traced else np, name)(*args, **kwargs)

        return function


xp: Any = _Either()


def _float(x):
    """Integers as floats, as jnp.sqrt takes them."""
    return x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(jax.eval_shape(jnp.sqrt, x[:0]).dtype)


def _keep(f):
    return lambda x: f(x, axis=-1, keepdims=True)


def _integers(x):
    return xp.abs(x - xp.round(x))


def _half_integers(x):
    return xp.abs(x - xp.floor(x) - 0.5)


def _spread(x):
    """The distance of the features from each other: which is the smallest must be clear."""
    if x.shape[-1] == 1:
        return xp.ones(())
    return xp.diff(xp.sort(x, -1), axis=-1)


def _round_half_away(x):
    return x if jnp.issubdtype(x.dtype, jnp.integer) else xp.sign(x) * xp.floor(xp.abs(x) + 0.5)


def _sqnorm(x):
    return xp.sum(x * x, -1, keepdims=True)


def _outer(x, y):
    return (x[..., :, None] * y[..., None, :]).reshape(*x.shape[:-1], -1)


def _outer_difference(x, y):
    return (x[..., :, None] - y[..., None, :]).reshape(*x.shape[:-1], -1)


def _normalized(x):
    return x / xp.sqrt(_float(_sqnorm(x)))


OPS = [
    # Smooth everywhere.
    Op("neg", 1, lambda x: -x, lambda x: -x),
    Op("sin", 1, lambda x: x.sin(), xp.sin),
    Op("cos", 1, lambda x: x.cos(), xp.cos),
    Op("tanh", 1, lambda x: x.tanh(), xp.tanh),
    Op("atan", 1, lambda x: x.atan(), xp.arctan),
    Op("asinh", 1, lambda x: x.asinh(), xp.arcsinh),
    Op("sigmoid", 1, lambda x: x.sigmoid(), lambda x: 1 / (1 + xp.exp(-x))),
    Op("softplus", 1, lambda x: x.softplus(), lambda x: xp.logaddexp(x, 0)),
    Op("erf", 1, lambda x: x.erf(), lambda x: xp.erf(_float(x))),
    Op("square", 1, lambda x: x.square(), lambda x: x * x),
    Op("** 2", 1, lambda x: x**2, lambda x: x * x),
    Op("** 3", 1, lambda x: x**3, lambda x: x * x * x),
    Op("gauss", 1, lambda x: (-x.square()).exp(), lambda x: xp.exp(-(x * x))),
    Op("log1p", 1, lambda x: x.square().log1p(), lambda x: xp.log(1 + x * x)),
    Op("sqrt", 1, lambda x: (x**2 + 1).sqrt(), lambda x: xp.sqrt(_float(x * x + 1))),
    Op("rsqrt", 1, lambda x: (1 + x**2).rsqrt(), lambda x: 1 / xp.sqrt(_float(x * x + 1))),
    Op("inverse", 1, lambda x: 1 / (1 + x * x), lambda x: 1 / (1 + x * x)),
    Op("sinc", 1, lambda x: x.sinc(), xp.sinc, xp.abs),
    Op("/ 3", 1, lambda x: x / 3, lambda x: x / 3),
    Op("2.5 -", 1, lambda x: 2.5 - x, lambda x: 2.5 - x),
    # With kinks and jumps.
    Op("abs", 1, abs, xp.abs, xp.abs),
    Op("relu", 1, lambda x: x.relu(), lambda x: xp.maximum(x, 0), xp.abs),
    Op("sign", 1, lambda x: x.sign(), xp.sign, xp.abs),
    Op("step", 1, lambda x: x.step(), lambda x: xp.where(x >= 0, 1, 0).astype(x.dtype), xp.abs),
    Op("floor", 1, lambda x: x.floor(), xp.floor, _integers),
    Op("ceil", 1, lambda x: x.ceil(), xp.ceil, _integers),
    Op("round", 1, lambda x: x.round(), _round_half_away, _half_integers),
    Op("clamp", 1, lambda x: x.clamp(-1, 1), lambda x: xp.clip(x, -1, 1), lambda x: xp.abs(xp.abs(x) - 1)),
    Op("mod", 1, lambda x: x.mod(0.7, -0.3), lambda x: xp.mod(x + 0.3, 0.7) - 0.3, lambda x: _integers((x + 0.3) / 0.7)),
    Op("//", 1, lambda x: x // 0.7, lambda x: xp.floor(x / 0.7), lambda x: _integers(x / 0.7)),
    Op("log", 1, lambda x: (abs(x) + 0.5).log(), lambda x: xp.log(xp.abs(x) + 0.5), xp.abs),
    Op("xlogx", 1, lambda x: (abs(x) + 0.5).xlogx(), lambda x: (xp.abs(x) + 0.5) * xp.log(xp.abs(x) + 0.5), xp.abs),
    # Of two and three operands.
    Op("+", 2, lambda x, y: x + y, lambda x, y: x + y),
    Op("-", 2, lambda x, y: x - y, lambda x, y: x - y),
    Op("*", 2, lambda x, y: x * y, lambda x, y: x * y),
    Op("/", 2, lambda x, y: x / (y.square() + 1), lambda x, y: x / (y * y + 1)),
    Op("**", 2, lambda x, y: (x.square() + 1) ** y.tanh(), lambda x, y: xp.exp(xp.tanh(y) * xp.log(1 + x * x))),
    Op("atan2", 2, lambda x, y: x.atan2(y.square() + 1), lambda x, y: xp.arctan(x / (y * y + 1))),
    Op("|", 2, lambda x, y: x | y, lambda x, y: xp.sum(x * y, -1, keepdims=True)),
    Op("sqdist", 2, lambda x, y: x.sqdist(y), lambda x, y: _sqnorm(x - y)),
    Op("minimum", 2, lambda x, y: x.minimum(y), lambda x, y: xp.where(x < y, x, y), lambda x, y: xp.abs(x - y)),
    Op("maximum", 2, lambda x, y: x.maximum(y), lambda x, y: xp.where(x < y, y, x), lambda x, y: xp.abs(x - y)),
    Op("ifelse", 3, lambda c, x, y: c.ifelse(x, y), lambda c, x, y: xp.where(c >= 0, x, y), lambda c, x, y: xp.abs(c)),
    Op("where", 3, lambda c, x, y: (c < x).where(x, y), lambda c, x, y: xp.where(c < x, x, y), lambda c, x, y: xp.abs(c - x)),
    Op("where &", 3, lambda c, x, y: ((c > x) & (x <= y)).where(y, c), lambda c, x, y: xp.where((c > x) & (x <= y), y, c),
       lambda c, x, y: xp.minimum(xp.abs(c - x), xp.abs(x - y))),
    # Over the features.
    Op("sum", 1, lambda x: x.sum(-1), _keep(xp.sum)),
    Op("mean", 1, lambda x: x.mean(-1), _keep(xp.mean)),
    Op("prod", 1, lambda x: x.prod(-1), _keep(xp.prod)),
    Op("min", 1, lambda x: x.min(-1), _keep(xp.min), _spread),
    Op("max", 1, lambda x: x.max(-1), _keep(xp.max), _spread),
    Op("sqnorm2", 1, lambda x: x.sqnorm2(), _sqnorm),
    Op("norm2", 1, lambda x: x.norm2(), lambda x: xp.sqrt(_float(_sqnorm(x))), _sqnorm),
    Op("normalize", 1, lambda x: x.normalize(), _normalized, _sqnorm),
    Op("logsumexp", 1, lambda x: x.logsumexp(-1), lambda x: xp.log(_keep(xp.sum)(xp.exp(x)))),
    Op("softmax", 1, lambda x: x.softmax(-1), lambda x: xp.exp(x) / _keep(xp.sum)(xp.exp(x))),
    # Index and build.
    Op("[0]", 1, lambda x: x[..., 0], lambda x: x[..., :1]),
    Op("[-1:]", 1, lambda x: x[..., -1:], lambda x: x[..., -1:]),
    Op("[::-1]", 1, lambda x: x[..., ::-1], lambda x: x[..., ::-1]),
    Op("[::2]", 1, lambda x: x[..., ::2], lambda x: x[..., ::2]),
    Op("concat", 2, lambda x, y: LazyTensor.cat([x, y]), lambda x, y: xp.concatenate([x, y], -1), size="any"),
    Op("outer", 2, lambda x, y: x.tensorprod(y), _outer, size="any"),
    Op("differences", 2, lambda x, y: x.difference_matrix(y), _outer_difference, size="any"),
]  # fmt: skip


TAKES_NUMBERS = ("+", "-", "*", "minimum", "maximum", "ifelse", "where", "concat")


def _same_pairs(x, y):
    lead = xp.broadcast_shapes(x.shape[:-1], y.shape[:-1])
    return [xp.broadcast_to(v, (*lead, v.shape[-1])) for v in (x, y)]


@dataclasses.dataclass(frozen=True)
class Node:
    """A variable, a number, or an operation on earlier nodes of the same list."""

    op: Any
    children: tuple[int, ...] = ()
    size: int = 1


@dataclasses.dataclass(frozen=True)
class Variable:
    """role "i", "j" or "p"; size of its features; batch dims; dtype."""

    role: str
    size: int
    batch: tuple[int, ...]
    dtype: str

    def shape(self) -> tuple[int, ...]:
        return (*self.batch, *{"i": (M,), "j": (N,), "p": ()}[self.role], self.size)

    def lazy(self, x: Any) -> LazyTensor:
        return {"i": Vi, "j": Vj, "p": Pm}[self.role](x)

    def dense(self, x: Any) -> Any:
        """(*B, M or 1, N or 1, D)."""
        return {"i": lambda: x[..., :, None, :], "j": lambda: x[..., None, :, :], "p": lambda: x[..., None, None, :]}[
            self.role
        ]()


@st.composite
def trees(draw: Any) -> tuple[list[Variable], list[Node]]:
    """Variables, one i- and one j-variable at least, and the nodes of a formula of depth at most 6."""
    batches = draw(st.sampled_from([[()], [()], [(), (B,)], [(), (B,), (1,)], [(3, B), (B,), (3, 1), ()]]))
    dtypes = draw(
        st.sampled_from([["float64"], ["float64"], ["float32"], ["float32", "float64"], ["float64", "int32"]])
    )
    roles = ["i", "j", *draw(st.lists(st.sampled_from("ijp"), max_size=3))]
    one = st.builds(Variable, st.just("i"), st.sampled_from([1, 3]), st.sampled_from(batches), st.sampled_from(dtypes))
    variables = [dataclasses.replace(draw(one), role=r) for r in roles]
    nodes = [Node(k, size=v.size) for k, v in enumerate(variables)]
    depth = [0] * len(nodes)
    for value in draw(st.lists(st.sampled_from([2, -1.5, 0.3, np.float32(0.5)]), max_size=2)):
        nodes.append(Node(value))
        depth.append(0)
    for _ in range(draw(st.integers(1, 12))):
        op = draw(st.sampled_from(OPS))
        open_nodes = [k for k in range(len(nodes)) if depth[k] < DEPTH]
        recent = open_nodes[-4:]
        children = [draw(st.sampled_from(recent if n == 0 else open_nodes)) for n in range(op.arity)]
        for n, c in enumerate(children):  # a number only where an operand of any kind may stand
            if not isinstance(nodes[c].op, Op) and c >= len(variables) and (n == 0 or op.name not in TAKES_NUMBERS):
                children[n] = draw(st.integers(0, len(variables) - 1))
        sizes = [nodes[c].size for c in children]
        if op.size == "equal" and len(set(sizes) - {1}) > 1:
            continue
        size = _size_after(op.name, sizes)
        if size > 12:
            continue
        nodes.append(Node(op, tuple(children), size))
        depth.append(1 + max(depth[c] for c in children))
    assume(isinstance(nodes[-1].op, Op))
    return variables, nodes


def _size_after(name: str, sizes: list[int]) -> int:
    if name in ("outer", "differences"):
        return sizes[0] * sizes[1]
    if name == "concat":
        return sum(sizes)
    if name == "[::2]":
        return -(-sizes[0] // 2)
    scalar = ("|", "sqdist", "sum", "mean", "prod", "min", "max", "sqnorm2", "norm2", "logsumexp", "[0]", "[-1:]")
    return 1 if name in scalar else max(sizes)


def evaluate(nodes: list[Node], variables: list[Any], lazy: bool) -> list[Any]:
    """The value of every node."""
    values: list[Any] = []
    for k, node in enumerate(nodes):
        if isinstance(node.op, Op):
            children = [values[c] for c in node.children]
            if not lazy and node.op.size == "any":
                children = _same_pairs(*(xp.asarray(c).reshape(1) if xp.ndim(c) == 0 else c for c in children))
            values.append((node.op.lazy if lazy else node.op.dense)(*children))
        else:
            values.append(variables[k] if k < len(variables) else node.op)
    return values


def _gaps(nodes: list[Node], values: list[Any]) -> float:
    gaps = [np.inf]
    for node in nodes:
        if isinstance(node.op, Op) and node.op.gap is not None:
            gap = np.asarray(node.op.gap(*(np.asarray(values[c], float) for c in node.children)))
            gaps.append(gap.min() if gap.size else np.inf)
    return min(gaps)


# Reductions: of the lazy formula over an axis, and of dense values over their axis (-3 or -2).


@dataclasses.dataclass(frozen=True)
class Reduced:
    """kind: how the results are compared; scalar: only of formulas with one feature."""

    name: str
    lazy: Callable[..., Any]
    dense: Callable[..., Any]
    kind: str = "value"


def _sorted(v, a):
    return xp.moveaxis(xp.take(xp.sort(v, a), xp.arange(K), a), a, -2)


def _collapse(v):
    return v[..., 0] if v.shape[-1] == 1 else v


def _logsumexp(v, a):
    # Of integers it accumulates, and is returned, in the default float.
    v = v if jnp.issubdtype(v.dtype, jnp.inexact) else v.astype(jnp.result_type(float))
    return xp.log(xp.sum(xp.exp(v), a))


REDUCTIONS = [
    Reduced("sum", lambda F, a: F.sum(axis=a), lambda v, a: v.sum(a)),
    Reduced("mean", lambda F, a: F.mean(axis=a), lambda v, a: v.mean(a)),
    Reduced("var", lambda F, a: F.var(axis=a), lambda v, a: v.var(a)),
    Reduced("logsumexp", lambda F, a: F.logsumexp(axis=a), _logsumexp),
    Reduced("min", lambda F, a: F.min(axis=a), lambda v, a: v.min(a), "extremum"),
    Reduced("max", lambda F, a: F.max(axis=a), lambda v, a: v.max(a), "extremum"),
    Reduced("Kmin", lambda F, a: F.Kmin(K, axis=a), lambda v, a: _collapse(_sorted(v, a)), "extremum"),
    Reduced("argmin", lambda F, a: F.argmin(axis=a), lambda v, a: v.min(a), "index"),
    Reduced("argmax", lambda F, a: F.argmax(axis=a), lambda v, a: v.max(a), "index"),
]  # fmt: skip


@settings(
    max_examples=EXAMPLES or 25,
    derandomize=not EXAMPLES,
    database=None,
    deadline=None,
    print_blob=True,
    phases=[Phase.generate, *([Phase.shrink] if EXAMPLES else [])],
    suppress_health_check=list(HealthCheck),
)
@given(trees(), st.sampled_from(REDUCTIONS), st.sampled_from("ij"), st.integers(0, 3))
def test_random_formulas(tree, reduction, axis, seed):
    variables, nodes = tree
    rng = np.random.default_rng(seed)
    arrays = [rng.uniform(-1.7, 1.7, v.shape()).astype(v.dtype) for v in variables]
    exact = [a.astype(float) for a in arrays]
    batch = np.broadcast_shapes(*(v.batch for v in variables))
    # What is float32 somewhere, as functions of int32 and of np.float32 numbers are.
    short = any(v.dtype != "float64" for v in variables) or any(isinstance(n.op, np.float32) for n in nodes)

    def dense_values(*arrays):
        return evaluate(nodes, [v.dense(a) for v, a in zip(variables, arrays, strict=True)], False)

    def dense_pairs(*arrays):
        whole = 0 * sum(xp.sum(v.dense(a), -1, keepdims=True) for v, a in zip(variables, arrays, strict=True))
        value = dense_values(*arrays)[-1] + whole
        return xp.broadcast_to(value, (*batch, M, N, value.shape[-1]))

    def dense(*arrays):
        return reduction.dense(dense_pairs(*arrays), -3 if axis == "i" else -2)

    def ours(*arrays):
        formulas = evaluate(nodes, [v.lazy(a) for v, a in zip(variables, arrays, strict=True)], True)
        # Every variable is a part of the formula, so that it has all of the axes.
        whole = formulas[-1] + 0 * sum(v.lazy(a).sum(-1) for v, a in zip(variables, arrays, strict=True))
        return reduction.lazy(whole, axis)

    with np.errstate(all="ignore"):  # what is not finite is drawn again
        values = dense_values(*exact)
    assume(_gaps(nodes, values) > (1e-2 if short else 1e-5))
    assume(max(np.abs(np.asarray(v, float)).max() for v in values) < LARGEST)
    with np.errstate(all="ignore"):
        pairs, expected = dense_pairs(*exact), dense(*exact)
    kinds = {v.dtype for v in variables}
    moving = [k for k, v in enumerate(variables) if v.dtype == "float64"]
    differentiable = kinds <= {"float64", "int32"} and reduction.kind != "index" and moving
    if reduction.kind == "extremum" and differentiable:
        ties = np.diff(np.sort(pairs, -3 if axis == "i" else -2), axis=-3 if axis == "i" else -2)
        differentiable = bool(ties.min() > 1e-6)

    def scaled(f):
        cotangent = jnp.cos(jnp.arange(expected.size)).reshape(expected.shape)
        return lambda *moved: jnp.sum(cotangent * f(*_replaced(arrays, moving, moved)))

    @jax.jit
    def both(*arrays):
        given = [arrays[k] for k in moving]
        if not differentiable:
            return ours(*arrays), (), ()
        together = () if reduction.kind == "extremum" else jax.grad(scaled(dense), every)(*given)
        return ours(*arrays), jax.grad(scaled(ours), every)(*given), together

    every = range(len(moving))
    got, slopes, wanted = both(*arrays)
    if differentiable and reduction.kind == "extremum":
        # Step by step: XLA may compute a value and its minimum with other roundings, and then no value is the minimum.
        wanted = jax.grad(scaled(dense), every)(*(arrays[k] for k in moving))
    tolerance = 3e-4 if short else 1e-9
    if reduction.kind == "index":
        a = -3 if axis == "i" else -2
        assert got.shape == expected.shape
        chosen = np.take_along_axis(pairs, np.expand_dims(got, a), a).squeeze(a)
        _close(chosen, expected, tolerance, "the value at the index")
        return
    assert got.dtype == jax.eval_shape(dense, *arrays).dtype
    _close(got, expected, tolerance, "value")
    for k, a, b in zip(moving, slopes, wanted, strict=False):
        _close(a, b, 1e-3 if short else 1e-8, f"gradient of variable {k}")


def _replaced(arrays, moving, moved):
    new = list(arrays)
    for k, a in zip(moving, moved, strict=True):
        new[k] = a
    return new


def _close(got, expected, tolerance, what):
    got, expected = np.asarray(got, float), np.asarray(expected, float)
    assert got.shape == expected.shape, f"{what}: shape {got.shape}, expected {expected.shape}"
    scale = max(1.0, np.abs(expected).max(initial=0))
    np.testing.assert_allclose(got / scale, expected / scale, rtol=0, atol=tolerance, err_msg=what)
