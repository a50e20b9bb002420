"""The GPU kernel, interpreted on the CPU, and its planner.  Nothing here runs on a GPU."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lazyjax import Vi, Vj, explain
from lazyjax.kernels.triton.plan import TritonPlan

from ..cases import CASES, arguments
from ..kernels_of import on_pallas, run_on
from ..unoptimised import UNOPTIMISED

M, N = 21, 37
# Every kind of accumulator: sums, extrema with indices, the K smallest, rescaled sums, compensated ones, a user's.
LOOPED = [
    "K @ b", "sum over both", "argmin", "Kmin", "logsumexp with weight", "sumsoftmaxweight", "var", "any",
    "compensated sum", "a user's monoid",
]  # fmt: skip


def test_steps_groups_and_parts_of_j() -> None:
    """37 columns: two parts of whole steps of two blocks each, summed by groups of one step, and blocks left over."""
    args = arguments(M, N)
    cases = [c for c in CASES if c.name in LOOPED]
    assert len(cases) == len(LOOPED)
    run = on_pallas(block_i=16, block_j=4, unroll=2, group=1, splits=2)
    got = jax.jit(lambda *a: [run_on(c.ours, run, *a) for c in cases], compiler_options=UNOPTIMISED)(*args)
    for case, a in zip(cases, got, strict=True):
        b = case.dense(*args)
        assert a.shape == b.shape and a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9 * float(jnp.max(jnp.abs(b))), err_msg=case.name)


@pytest.mark.parametrize("tiles", [{"warps": 3}, {"warps": 64}, {"block_i": 48}, {"block_i": 2048, "block_j": 1024}])
def test_what_would_end_the_process_is_refused(tiles: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"TritonPlan: .*expected"):
        TritonPlan(**({"block_i": 16, "block_j": 32} | tiles))


def _plan(m: int, n: int) -> TritonPlan:
    x, y = jax.ShapeDtypeStruct((m, 3), "float32"), jax.ShapeDtypeStruct((n, 3), "float32")
    return explain(lambda x, y: Vi(x).sqdist(Vj(y)).argmin(axis=1), x, y, platform="cuda")[0].plan.tiles


@pytest.mark.parametrize("m, n", [(1, 1_000_000), (1000, 1_000_000), (1_000_000, 1000), (100_000, 100_000)])
def test_programs_fill_a_gpu(m: int, n: int) -> None:
    tiles = _plan(m, n)
    programs = -(-m // tiles.block_i) * tiles.splits
    assert programs >= 2 * 108  # multiprocessors
    if tiles.splits > 1:
        assert n // tiles.splits >= tiles.block_j * tiles.unroll  # every part has a step
        assert tiles.splits * m <= 2**20  # what is stored before it is merged


@pytest.mark.parametrize(
    "dtype, n, tile", [("float64", 150, (2, 128)), ("float32", 150, (4, 32)), ("float64", 60, (4, 64))]
)
def test_few_pairs_that_call_subroutines_stand_along_j(dtype: str, n: int, tile: tuple[int, int]) -> None:
    x, y = jax.ShapeDtypeStruct((100, 3), dtype), jax.ShapeDtypeStruct((n, 3), dtype)
    (own,) = explain(lambda x, y: Vi(x).sqdist(Vj(y)).sqrt().sum(axis=1), x, y, platform="cuda")
    assert (own.plan.tiles.block_i, own.plan.tiles.block_j) == tile


def test_explain_shows_the_model_and_the_precision() -> None:
    x = jax.ShapeDtypeStruct((1000, 3), "float32")
    f = lambda x, fast: (-Vi(x).sqdist(Vj(x))).exp().sum(axis=1, use_fast_math=fast)  # noqa: E731
    fast, exact = (explain(lambda x, k=k: f(x, k), x, platform="cuda")[0] for k in (True, False))
    assert "precision  fast" in str(fast) and "precision  exact" in str(exact)
    assert "registers" in str(fast) and "at most on" in str(fast) and "nothing was measured" in str(fast)
    assert fast.plan.tiles.instructions < exact.plan.tiles.instructions
    (gradient, *_) = explain(jax.grad(lambda x: jnp.sum(f(x, False))), x, platform="cuda")
    assert gradient.description.precision == "exact"


@pytest.mark.parametrize("precision", ["fast", "exact"])
def test_rearranged_arithmetic(precision: str) -> None:
    """Factors, quotients, powers, roots and logarithms, each in more than one place of a formula, in float32."""
    r = np.random.default_rng(0)
    x, y = (r.uniform(0.5, 1.5, s).astype("f4") for s in ((20, 3), (30, 3)))

    def ours(x: jax.Array, y: jax.Array) -> jax.Array:
        s, k = Vi(x).sqdist(Vj(y)), {"axis": 1, "precision": precision}
        return jnp.concatenate(
            [
                (-3 * s / (2 * Vi(x[:, :1]))).exp().sum(**k),
                ((-s) - (-2 * s) * 3 - (s - 1)).sum(**k),
                (s / (1 + s).sqrt() + (1 + s).rsqrt() * (2 * s)).sum(**k),
                (((1 + s).log() * -2 + 1) ** 3 - (1 + s) ** -2).sum(**k),
                (s.sigmoid() - (2 ** (-s)) / 3).sum(**k),
                s.sinc().sum(**k),
                (-2 * s).max(**k),
                (1 - s).logsumexp(**k),
            ],
            axis=1,
        )

    s = ((x[:, None].astype("f8") - y[None]) ** 2).sum(-1)
    want = [
        np.exp(-3 * s / (2 * x[:, :1])), -s + 6 * s - (s - 1), s / np.sqrt(1 + s) + 2 * s / np.sqrt(1 + s),
        (1 - 2 * np.log1p(s)) ** 3 - (1 + s) ** -2.0, 1 / (1 + np.exp(-s)) - 2**-s / 3,
        np.sinc(s),
    ]  # fmt: skip
    want = np.stack([*(w.sum(1) for w in want), (-2 * s).max(1), np.log(np.exp(1 - s).sum(1))], 1)
    run = on_pallas(block_i=16, block_j=8)
    got = jax.jit(lambda x, y: run_on(ours, run, x, y), compiler_options=UNOPTIMISED)(x, y)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
