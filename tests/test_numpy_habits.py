"""What a NumPy user tries: each habit works, or raises an error that says what to write."""

# ruff: noqa: PLW0108, C416  (a table: one habit on one line, spelled as a user would)

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lazyjax import LazyTensor, Pm, Vi, Vj

from .dense import close, gaussian, normal

M, N, D = 6, 5, 3
x, y = normal(0, M, D), normal(1, N, D)
b = normal(2, N)
K = (-Vi(x).sqdist(Vj(y))).exp()
V = Vi(x) * Vj(y)
G, W = gaussian(x, y), x[:, None] * y

# A habit, and its result in NumPy: of K or V in place of G or W.
WORKS: dict[str, tuple[Any, Any]] = {
    "K.shape": (lambda: K.shape, (M, N)),
    "V.shape": (lambda: V.shape, W.shape),
    "K.ndim": (lambda: K.ndim, 2),
    "K.size": (lambda: K.size, M * N),
    "V.size": (lambda: V.size, W.size),
    "len(K)": (lambda: len(K), M),
    "np.shape(K)": (lambda: np.shape(K), (M, N)),
    "np.ndim(K)": (lambda: np.ndim(V), 3),
    "np.size(K)": (lambda: np.size(V), W.size),
    "K.T": (lambda: K.T.dense(), G.T),
    "np.transpose(K)": (lambda: np.transpose(K).dense(), G.T),
    "np.exp(K)": (lambda: np.exp(K).dense(), np.exp(G)),
    "np.add(K, 1)": (lambda: np.add(1, K).dense(), 1 + G),
    "-K": (lambda: (-K).dense(), -G),
    "abs(K)": (lambda: abs(-K).dense(), G),
    "K.mean(axis=1)": (lambda: V.mean(axis=1), W.mean(1)),
    "K.std(axis=0)": (lambda: V.std(axis=0, ddof=1), W.std(0, ddof=1)),
    "K.any(axis=1)": (lambda: (V > 1).any(axis=1), (W > 1).any(1)),
    "np.sum(K, axis=1)": (lambda: np.sum(V, axis=1), W.sum(1)),
    "np.sum(K, 0)": (lambda: np.sum(V, 0), W.sum(0)),
    "np.sum(K, axis=(0, 1))": (lambda: np.sum(V, axis=(0, 1)), W.sum((0, 1))),
    "np.mean(K, axis=-1)": (lambda: np.mean(V, axis=-1).dense(), W.mean(-1)),
    "np.var(K, axis=0, ddof=1)": (lambda: np.var(V, axis=0, ddof=1), W.var(0, ddof=1)),
    "np.prod": (lambda: np.prod(V, axis=1), W.prod(1)),
    "np.min": (lambda: np.min(V, axis=1), W.min(1)),
    "np.max": (lambda: np.max(V, axis=0), W.max(0)),
    "np.argmin": (lambda: np.argmin(V, axis=1), W.argmin(1)),
    "np.argmax": (lambda: np.argmax(V, axis=1), W.argmax(1)),
    "np.any": (lambda: np.any(V > 1, axis=1), (W > 1).any(1)),
    "np.all": (lambda: np.all(V > -1, axis=1), (W > -1).all(1)),
    "np.count_nonzero": (lambda: np.count_nonzero(V > 0, axis=1), (W > 0).sum(1)),
    "np.where": (lambda: np.where(K > 0.1, K, 0).dense(), np.where(G > 0.1, G, 0)),
    "np.where of numbers": (lambda: np.where(K, 1, 0).dense(), np.ones_like(G)),
    "np.where, an array": (lambda: np.where(True, V, 0).dense(), W),
    "np.clip": (lambda: np.clip(K, 0.1, 0.5).dense(), G.clip(0.1, 0.5)),
    "np.round": (lambda: np.round(K, 2).dense(), G.round(2)),
    "np.concatenate": (lambda: np.concatenate([V, V], axis=-1).dense(), np.concatenate([W, W], -1)),
    "np.dot": (lambda: np.dot(K, b), G @ b),
    "np.matmul": (lambda: np.matmul(K, b), G @ b),
    "np.diagonal": (lambda: np.diagonal(K[:N, :]), np.diagonal(G[:N])),
    "K @ b": (lambda: K @ b, G @ b),
    "b @ K": (lambda: b @ K.T, b @ G.T),
    "K is None": (lambda: K is None, False),
    "isinstance": (lambda: isinstance(K, LazyTensor), True),
}

RAISES: dict[str, tuple[Any, str]] = {
    "bool(K)": (
        lambda: bool(K),
        r"truth value of a LazyTensor of shape \(6, 5\) is ambiguous.*\.any\(axis=1\).*& and \|",
    ),
    "K and K": (lambda: K and V, r"combine conditions with & and \|"),
    "float(K)": (lambda: float(K), r"float\(\) is not available.*float\(K\.sum\(axis='ij'\)\[0\]\)"),
    "int(K)": (lambda: int(K), r"int\(\) is not available.*Reduce it first"),
    "complex(K)": (lambda: complex(K), r"complex\(\) is not available.*Reduce it first"),
    "for row in K": (lambda: [row for row in K], r"cannot be iterated: its rows are not in memory"),
    "3 in K": (lambda: 3 in K, r"`in` is not available.*Write \(K == 3\)\.any\(axis=1\)"),
    "hash(K)": (lambda: hash(K), r"unhashable type: .*id\(K\).*not as a static one"),
    "{K}": (lambda: {K}, r"unhashable type"),
    "a static argument": (lambda: jax.jit(lambda K: 0, static_argnums=0)(K), r"unhashable type|[Nn]on-hashable"),
    "K == None": (lambda: K == None, r"==: other is NoneType None.*asked by `K is None`"),  # noqa: E711
    "K != None": (lambda: K != None, r"!=: other is NoneType None.*asked by `K is None`"),  # noqa: E711
    "np.asarray(K)": (lambda: np.asarray(K), r"is not an array.*\.sum\(axis=1\).*\.dense\(\)"),
    "np.array([K])": (lambda: np.array([K, K]), r"is not an array.*\.dense\(\)|cannot be iterated"),
    "jnp.asarray(K)": (lambda: jnp.asarray(K), r"is not an array.*\.dense\(\)"),
    "np.sum(K)": (lambda: np.sum(K), r"np\.sum of a LazyTensor needs an axis: write K\.sum\(axis='j'\), 'i', 'ij'"),
    "np.sum, dtype": (
        lambda: np.sum(K, axis=1, dtype=float),
        r"np\.sum is not available on a LazyTensor with axis, dtype",
    ),
    "np.median": (lambda: np.median(K, axis=1), r"np\.median is not available.*lazyjax\.lift.*K\.dense\(\)"),
    "np.linalg.inv": (lambda: np.linalg.inv(K), r"np\.inv is not available"),
    "np.einsum": (lambda: np.einsum("ij,j", K, b), r"np\.einsum is not available"),
    "np.sort": (lambda: np.sort(K), r"np\.sort is not available"),
    "np.add.reduce": (lambda: np.add.reduce(K), r"np\.add\.reduce is not available.*lazyjax\.lift"),
    "np.exp, out": (lambda: np.exp(K, out=np.ones((M, N))), r"np\.exp is not available on a LazyTensor with out"),
    "np.dot, out": (lambda: np.dot(K, b, out=b), r"np\.dot is not available on a LazyTensor"),
    "np.add.outer": (lambda: np.add.outer(K, K), r"np\.add\.outer is not available"),
    "b[K]": (lambda: b[K], r"is not an array|only integers|arrays used as indices"),
    "np.concatenate of rows": (lambda: np.concatenate([K, K]), r"concatenate: axis=0, expected -1"),
}


@pytest.mark.parametrize("habit", WORKS)
def test_works(habit):
    call, expected = WORKS[habit]
    got = call()
    if isinstance(expected, np.ndarray):
        close(got, expected)
    else:
        assert got == expected and type(got) is type(expected)


@pytest.mark.parametrize("habit", RAISES)
def test_raises(habit):
    call, message = RAISES[habit]
    with pytest.raises((TypeError, IndexError, ValueError)) as raised:
        call()
    assert re.search(message, str(raised.value), re.DOTALL), str(raised.value)


def test_nothing_is_computed_unawares():
    """Of 10^12 values, none: what does not reduce records, or refuses at once."""
    huge = Vi(np.ones((10**6, 1), np.float32)) - Vj(np.ones((10**6, 1), np.float32))
    assert np.where(np.exp(huge) > 1, huge, 0).shape == (10**6, 10**6)
    for call in (
        lambda: np.asarray(huge),
        lambda: huge.dense(),
        lambda: list(huge),
        lambda: repr(huge) and float(huge),
    ):
        with pytest.raises((TypeError, ValueError)):
            call()


# Printing.


def test_repr():
    assert repr(K) == "LazyTensor(exp(-sqdist(x0, y0)), shape=(6, 5), dtype=float64, lazy over i and j)"
    assert repr(Vi(x)) == "LazyTensor(x0, shape=(6, 1, 3), dtype=float64, lazy over i)"
    assert repr(Pm(2.0)) == "LazyTensor(2, shape=(1, 1), dtype=float64, the same for all pairs)"
    product = -((Vi(x) + 1) * (Vj(y) + 2)).exp() / 3
    assert repr(product).startswith("LazyTensor((-exp((x0 + 1) * (y0 + 2))) / 3, shape=(6, 5, 3), dtype=float64,")


def test_brackets_keep_the_meaning():
    """The printed formula, read as Python, is the formula."""
    x0, y0 = 3.0, 5.0
    i, j = Vi(np.full((1, 1), x0)), Vj(np.full((1, 1), y0))
    for f in (lambda x, y: -(x + y) * (x - y), lambda x, y: (x - (y - x)) / (x / y), lambda x, y: -((x + y) ** 3),
              lambda x, y: (x * y) % (x + 1) // 2, lambda x, y: (x + y) * (x + y) - (x * y) * (y - 1)):  # fmt: skip
        printed = repr(f(i, j)).removeprefix("LazyTensor(").split(", shape=")[0]
        assert eval(printed, {"x0": x0, "y0": y0, "square": np.square}) == f(x0, y0), printed


def test_long_formulas_are_cut_in_the_tree():
    chain, tree = Vi(x), Vi(x)
    for _ in range(300):
        chain = (chain + 1).sin()
    for _ in range(40):
        tree = tree * tree + tree
    for formula in (chain, tree):
        text = repr(formula)
        assert len(text) < 600 and "..." in text
        shown = text.removeprefix("LazyTensor(").split(", shape=")[0]
        assert shown.count("(") == shown.count(")")
        assert set(re.findall(r"[a-z0-9]+", shown)) <= {"sin", "x0", "1"}


def test_repr_html():
    html = (K < 1)._repr_html_()
    assert html.startswith("<code>LazyTensor((exp(-sqdist(x0, y0)) &lt; 1), shape=(6, 5), dtype=bool")
    assert html.endswith("an array of all values would take 30 B")
    huge = Vi(np.ones((10**6, 1), np.float32)) - Vj(np.ones((10**6, 1), np.float32))
    assert "would take 4 TB" in huge._repr_html_()
