"""Every kernel, on ragged tiles, gives dense JAX's numbers for every reduction: values, gradients, batches."""

from __future__ import annotations

import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lazyjax import LazyTensor, Pm, Vi, Vj, explain

from .cases import CASES, TANGENTS, Case, arguments
from .full import FULL
from .kernels_of import RUNS, run_on
from .unoptimised import unoptimised

M, N = 21, 37


def _values(f: Any) -> Any:
    return f


def _batches(f: Any) -> Any:
    mapped = jax.vmap(f, in_axes=(None, 0, None, None))
    return lambda x, y, b, s: mapped(x, jnp.stack([y, 2 * y, y - 1]), b, s)


def _gradients(f: Any) -> Any:
    return jax.grad(lambda *a: jnp.sum(jnp.sin(f(*a))), (0, 1, 2, 3))


# Batches and gradients outside the full run: each way to write a tangent, and selections of indices.
SAMPLE = [*TANGENTS, *(case for case in CASES if case.name in ("argmin", "argKmin"))]
# The other shapes of the tiled loop differ in how they walk, which values alone show.
INTERPRETED = "pallas-triton, interpreted"
SELECTIONS = ("groups", "groups, sorted lists", "sorted lists")
WITH_GRADIENTS = ("lanes", "as planned for many pairs")
WITH_BATCHES = (*WITH_GRADIENTS, INTERPRETED, "block", "dense", "lanes, short i, few problems together", "sorted lists")


# Optimised as users' programs are; so are blocks in every other test. The other sizes show how the same loops walk,
# and what is interpreted stands in for another compiler's program.
OPTIMISED = ("lanes", "groups", "as planned for many pairs")


def _compiled(f: Any, kernel: str) -> Any:
    return jax.jit(f) if kernel in OPTIMISED else unoptimised(f)


def _programs(case: Case, kernel: str | None = None) -> dict[str, Any]:
    """What is compared: everything that any kernel is asked for, or what this one is."""
    programs = {"values": _values}
    if FULL or (case in SAMPLE and (kernel is None or kernel in WITH_BATCHES)):
        programs["batches"] = _batches
    if case.smooth and (FULL or (case in SAMPLE and (kernel is None or kernel in WITH_GRADIENTS))):
        programs["gradients"] = _gradients
    return programs


@functools.lru_cache(maxsize=2)
def _dense(case: Case) -> dict[str, Any]:
    """Dense JAX's results, which all kernels are compared with."""
    args = arguments(M, N)
    programs = _programs(case).items()
    return unoptimised(lambda *a: {k: make(case.dense)(*a) for k, make in programs})(*args)


def _worth(case: Case, kernel: str) -> bool:
    """Groups are lanes where nothing is selected, blocks are what small problems take in every other test, what is
    interpreted is compiled and emulated for every case (`tests/gpu/compiled`), and the second sizes of a shape show
    what they do on every fourth case."""
    if kernel in SELECTIONS:
        return any(part in case.name for part in ("min", "max"))
    if kernel == INTERPRETED:
        return case in SAMPLE
    second = kernel in ("dense", "block", "lanes, j cut", "lanes, short i, few problems together", "block, whole")
    return not second or CASES.index(case) % 4 == 0


ROWS = [(case, kernel) for case in CASES for kernel in RUNS if FULL or _worth(case, kernel)]


@pytest.mark.parametrize(("case", "kernel"), ROWS, ids=str)
def test_kernel(case: Case, kernel: str) -> None:
    def run(*args: Any) -> dict[str, Any]:
        return {name: run_on(make(case.ours), RUNS[kernel], *args) for name, make in _programs(case, kernel).items()}

    ours = _compiled(run, kernel)(*arguments(M, N))
    for name, got in ours.items():
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(_dense(case)[name]), strict=True):
            assert a.shape == b.shape and a.dtype == b.dtype
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9 * float(jnp.max(jnp.abs(b))), err_msg=name)


SIZES = [(1, 300), (300, 1), (65, 129), (1, 1), (2, 3), (64, 64)]


@pytest.mark.parametrize("m, n", SIZES if FULL else SIZES[:2])
@pytest.mark.parametrize("kernel", RUNS)
def test_sizes(kernel: str, m: int, n: int) -> None:
    """Sizes below, at and just above the tiles."""
    cases = [c for c in CASES if c.name in ("K @ b", "argmin", "logsumexp")]
    args = arguments(m, n)
    programs = {c.name: c for c in cases}
    ours = lambda *a: run_on(lambda *b: [c.ours(*b) for c in programs.values()], RUNS[kernel], *a)  # noqa: E731
    got = _compiled(ours, kernel)(*args)
    want = unoptimised(lambda *a: [c.dense(*a) for c in programs.values()])(*args)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


def test_one_loop_computes_what_results_share() -> None:
    """The three numbers of a gradient leave the same fused loop, one for each half of a chunk."""
    args = arguments(2048, 2048)[:2]
    slopes = jax.grad(lambda x, y: (-Vi(x).sqdist(Vj(y))).exp().sum(axis=1).sum())
    x, y = (jnp.concatenate([a, a[:, :1]], 1).astype(jnp.float32) for a in args)
    (found,) = explain(slopes, x, y)
    assert found.plan.tiles.joined
    text = jax.jit(slopes).lower(x, y).compile().as_text()
    assert len(re.findall(r"= \((s32\[2048\]\S*, ){2}s32\[2048\]\S*\) fusion\(", text)) == 2


@pytest.mark.parametrize("wide", [False, True])
def test_matrix_products_of_many_columns(wide: bool) -> None:
    x, y, _, _ = arguments(M, N)
    b = jnp.asarray(np.random.default_rng(0).normal(size=(N, 40 if wide else 9)))

    def program(f: Any) -> Any:
        batch = jax.vmap(f, (0, None, None))
        slopes = jax.grad(lambda x, y, b: jnp.sin(f(x, y, b)).sum(), 2)
        return lambda x, y, b: (f(x, y, b), f(x[:1], y, b), slopes(x, y, b), batch(jnp.stack([x, 1 - x]), y, b))

    ours, dense = (
        lambda x, y, b: (-Vi(x).sqdist(Vj(y))).exp() @ b,
        lambda x, y, b: jnp.exp(-((x[:, None] - y) ** 2).sum(-1)) @ b,
    )
    large = [jax.ShapeDtypeStruct((5000, *a.shape[1:]), a.dtype) for a in (x, y, b)]
    assert wide or explain(ours, *large)[0].plan.tiles.shape == "products"
    small = [jax.ShapeDtypeStruct((2000, *a.shape), a.dtype) for a in (x, y, b)]
    assert wide or explain(jax.vmap(ours), *small)[0].plan.tiles.shape == "products"
    got = jax.jit(lambda *a: run_on(program(ours), RUNS["as planned for many pairs"], *a))(x, y, b)
    for a, want in zip(got, program(dense)(x, y, b), strict=True):
        np.testing.assert_allclose(a, want, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("n", [19, 20, 21, 40, 43])
def test_groups_that_fill_a_stretch_exactly(n: int) -> None:
    """Five groups of four are one stretch: one group less, none left over, a rest of pairs, two stretches.  In sorted
    lists of three, six groups are all looked at, and of ten some."""
    case = next(c for c in CASES if c.name == "argKmin")
    args = arguments(5, n)
    ours = jax.jit(lambda *a: [run_on(case.ours, RUNS[kernel], *a) for kernel in SELECTIONS])
    for got in ours(*args):
        np.testing.assert_array_equal(got, case.dense(*args))


@pytest.mark.parametrize("method", ["argmin", "argKmin"])
def test_groups_of_nothing_but_nan(method: str) -> None:
    """They look as if they held infinity: the indices of the infinite values must be found all the same."""
    values = np.full(43, np.inf)
    values[:9] = np.nan  # two groups of four
    values[[20, 30]] = np.nan
    y = jnp.asarray(np.stack([values, np.full(43, np.nan), np.where(np.arange(43) == 25, 1.0, values)])[..., None])

    def ours(y: jax.Array) -> jax.Array:
        K = LazyTensor(jnp.zeros((5, 1, 1))) + Vj(y)
        return K.argmin(axis="j") if method == "argmin" else K.argKmin(3, axis="j")

    want = {"argmin": [[9], [-1], [25]], "argKmin": [[9, 10, 11], [-1, -1, -1], [25, 9, 10]]}[method]
    for got in jax.jit(lambda y: [run_on(ours, RUNS[kernel], y) for kernel in SELECTIONS])(y):
        np.testing.assert_array_equal(got, np.broadcast_to(np.asarray(want)[:, None], got.shape))


def test_what_is_computed_before_the_loop_keeps_its_dtype() -> None:
    """Numbers of j alone, of i alone and of parameters alone, real and complex, beside some that all results share."""
    x, y, _, s = arguments(M, N)
    x, y = x[:, :1], y[:, :2]

    def ours(x: Any, y: Any, s: Any) -> Any:
        real, turned = Vj(y).exp() * Vi(x).cosh(), (1j * Vj(y)).exp() * (1j * Pm(s)).exp()
        return (real * turned.imag * (Vi(x) | Vj(y[:, :1])).exp()).sum(axis=1)

    want = np.exp(y) * np.cosh(x)[:, None] * (np.exp(1j * y) * np.exp(1j * s)).imag * np.exp(x[:, None] * y[:, :1])
    for kernel in ("as planned for many pairs", "lanes"):
        got = jax.jit(lambda *a, kernel=kernel: run_on(ours, RUNS[kernel], *a))(x, y, s)
        np.testing.assert_allclose(got, want.sum(1), rtol=1e-11)
