"""Every kernel, on ragged tiles, gives dense JAX's numbers for every reduction: values, gradients, batches."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lazyjax import LazyTensor, Pm, Vi, Vj

from .cases import CASES, Case, arguments
from .full import FULL
from .kernels_of import RUNS, run_on

M, N = 21, 37


def _programs(f: Any, batched: bool, smooth: bool) -> Any:
    def values(x: Any, y: Any, b: Any, s: Any) -> Any:
        outs = [f(x, y, b, s)]
        if batched:
            outs.append(jax.vmap(f, in_axes=(None, 0, None, None))(x, jnp.stack([y, 2 * y, y - 1]), b, s))
        if smooth:
            outs.append(jax.grad(lambda *a: jnp.sum(jnp.sin(f(*a))), (0, 1, 2, 3))(x, y, b, s))
        return outs

    return values


# The other shapes of the tiled loop differ in how they walk, which values alone show.
WITH_GRADIENTS = ("lanes", "block", "as planned for many pairs", "pallas-triton, interpreted")
WITH_BATCHES = (*WITH_GRADIENTS, "dense", "lanes, short i, few problems together")
# One case of each way to write a tangent; the gradients of the others are the same sums.
TANGENTS = ("K @ b, sqrt", "sum over both", "min", "Kmin of vectors", "logsumexp with weight", "sumsoftmaxweight",
            "prod", "std over both", "a user's monoid")  # fmt: skip


def _worth(case: Case, kernel: str) -> bool:
    """Groups are lanes where nothing is selected; the second sizes of a shape show what they do on every other case."""
    if kernel == "groups":
        return any(part in case.name for part in ("min", "max"))
    return kernel not in ("lanes, j cut", "block, whole") or CASES.index(case) % 2 == 0


ROWS = [(case, kernel) for kernel in RUNS for case in CASES if FULL or _worth(case, kernel)]


@pytest.mark.parametrize(("case", "kernel"), ROWS, ids=str)
def test_kernel(case: Case, kernel: str) -> None:
    smooth = case.smooth and (FULL or case.name in TANGENTS) and kernel in WITH_GRADIENTS
    batched = FULL or kernel in WITH_BATCHES
    args = arguments(M, N)
    got = jax.jit(lambda *a: run_on(_programs(case.ours, batched, smooth), RUNS[kernel], *a))(*args)
    want = jax.jit(_programs(case.dense, batched, smooth))(*args)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9 * float(jnp.max(jnp.abs(b))))


@pytest.mark.parametrize("m, n", [(1, 1), (1, 300), (300, 1), (2, 3), (64, 64), (65, 129)])
@pytest.mark.parametrize("kernel", RUNS)
def test_sizes(kernel: str, m: int, n: int) -> None:
    """Sizes below, at and just above the tiles."""
    cases = [c for c in CASES if c.name in ("K @ b", "argmin", "sum over both", "logsumexp")]
    args = arguments(m, n)
    programs = {c.name: c for c in cases}
    got = jax.jit(lambda *a: run_on(lambda *b: [c.ours(*b) for c in programs.values()], RUNS[kernel], *a))(*args)
    want = jax.jit(lambda *a: [c.dense(*a) for c in programs.values()])(*args)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("n", [19, 20, 21, 40, 43])
def test_groups_that_fill_a_stretch_exactly(n: int) -> None:
    """Five groups of four are one stretch: one group less, none left over, a rest of pairs, two stretches."""
    case = next(c for c in CASES if c.name == "argKmin")
    args = arguments(5, n)
    np.testing.assert_array_equal(run_on(case.ours, RUNS["groups"], *args), case.dense(*args))


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

    got = run_on(ours, RUNS["groups"], y)
    want = {"argmin": [[9], [-1], [25]], "argKmin": [[9, 10, 11], [-1, -1, -1], [25, 9, 10]]}[method]
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
        np.testing.assert_allclose(run_on(ours, RUNS[kernel], x, y, s), want.sum(1), rtol=1e-11)
