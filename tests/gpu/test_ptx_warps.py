"""Threads that part and meet: branches, loops, barriers, shuffles, votes, calls; and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from .ptx import DivergenceError, PtxError, parse, run
from .small import compute, kernel

LANES = np.arange(32, dtype=np.uint32)
STORE = "mul.wide.u32 %d2, %r0, 4; add.s64 %d3, %d0, %d2; st.global.b32 [%d3], %r6;"


def threads(body: str, count: int = 32) -> np.ndarray:
    """%r6 of every thread."""
    (got,) = run(kernel(body + STORE, 1, count), (1,), [], [np.empty(count, np.int32)])
    return got


@pytest.mark.parametrize("mode", ["up", "down", "bfly", "idx"])
@pytest.mark.parametrize("segments", [32, 8])
def test_shuffles(mode: str, segments: int) -> None:
    """Against NumPy's own movements of rows of lanes; out of range, a lane keeps its value."""
    rows = (LANES + 100).reshape(-1, segments)
    k = np.arange(segments)
    source = {"up": k - 3, "down": k + 3, "bfly": k ^ 3, "idx": np.full(segments, 3)}[mode]
    inside = (source >= 0) & (source < segments)
    want = rows[:, np.where(inside, source, k)].ravel()
    bound = ((32 - segments) << 8) | (0 if mode == "up" else 31)
    got = compute(f"shfl.sync.{mode}.b32 out|%p1, a, 3, {bound}, -1;", [LANES + 100], np.uint32)
    np.testing.assert_array_equal(got, want)
    flags = compute(f"shfl.sync.{mode}.b32 %r25|%p1, a, 3, {bound}, -1; selp.b32 out, 1, 0, %p1;", [LANES], np.int32)
    np.testing.assert_array_equal(flags.reshape(-1, segments), np.broadcast_to(inside, rows.shape))


def test_votes_and_reductions() -> None:
    x = np.random.default_rng(0).integers(-100, 100, 32).astype(np.int32)
    ballot = compute("setp.gt.s32 %p1, a, 0; vote.sync.ballot.b32 out, %p1, -1;", [x], np.uint32)
    assert (ballot == sum(1 << k for k in range(32) if x[k] > 0)).all()
    for mode, want in (("any", (x > 90).any()), ("all", (x > 90).all())):
        body = f"setp.gt.s32 %p1, a, 90; vote.sync.{mode}.pred %p2, %p1, -1; selp.b32 out, 1, 0, %p2;"
        assert (compute(body, [x], np.int32) == want).all()
    for name, want in (("add", x.sum()), ("min", x.min()), ("max", x.max())):
        assert (compute(f"redux.sync.{name}.s32 out, a, -1;", [x], np.int32) == want).all()


def test_branches_part_and_meet() -> None:
    body = (
        "and.b32 %r2, %r0, 3; setp.eq.s32 %p1, %r2, 0; @%p1 bra $quarter; add.s32 %r6, %r0, 100; bra $end; "
        "$quarter: sub.s32 %r6, 0, %r0; $end: shfl.sync.bfly.b32 %r6, %r6, 1, 31, -1;"
    )
    k = np.arange(32)
    np.testing.assert_array_equal(threads(body), np.where(k % 4 == 0, -k, k + 100)[k ^ 1])


def test_loops_of_different_lengths() -> None:
    """Thread t adds 0 + 1 + ... + t."""
    body = (
        "mov.b32 %r6, 0; mov.b32 %r2, 0; $again: add.s32 %r6, %r6, %r2; add.s32 %r2, %r2, 1; "
        "setp.le.s32 %p1, %r2, %r0; @%p1 bra $again;"
    )
    k = np.arange(64)
    np.testing.assert_array_equal(threads(body, 64), k * (k + 1) // 2)


@pytest.mark.parametrize(
    "body, message",
    [
        (
            "@%p1 bra $x; shfl.sync.bfly.b32 %r6, %r0, 1, 31, -1; $x: ",
            "a shuffle with a thread that is not there: the warp has diverged",
        ),
        ("@%p1 shfl.sync.bfly.b32 %r6, %r0, 1, 31, -1;", "a shuffle with a thread that is not there"),
        ("@%p1 bra $x; bar.warp.sync -1; $x: ", "a barrier of a warp with a thread that is not there"),
        ("@%p1 bra $x; bar.sync 0; $x: ", "threads of a program wait at different barriers, or for one that has left"),
        ("@%p1 ret; bar.sync 0;", "threads of a program wait at different barriers, or for one that has left"),
        ("@%p1 bra $x; bar.sync 0; bra $y; $x: bar.sync 0; $y: ", "threads of a program wait at different barriers"),
        ("@%p1 bra.uni $x; $x: ", "threads part at a branch that is said to be uniform"),
    ],
)
def test_divergence(body: str, message: str) -> None:
    with pytest.raises(DivergenceError, match=message):
        threads("setp.eq.s32 %p1, %r0, 5; mov.b32 %r6, 0; " + body)


def test_a_barrier_waits_for_threads_on_other_ways() -> None:
    """Half the threads take a detour before the barrier that all share."""
    body = (
        "mov.b32 %r6, 1; setp.lt.s32 %p1, %r0, 40; @%p1 bra $x; mov.b32 %r6, 2; bra $y; "
        "$x: mov.b32 %r6, 3; $y: bar.sync 0;"
    )
    np.testing.assert_array_equal(threads(body, 64), np.where(np.arange(64) < 40, 3, 2))


def test_calls_of_functions() -> None:
    square = (
        ".func (.param .b32 back) square(.param .b32 given)\n{ .reg .b32 %r<3>; ld.param.b32 %r1, [given]; "
        "mul.lo.s32 %r2, %r1, %r1; st.param.b32 [back], %r2; ret; }"
    )
    body = (
        "{ .param .b32 given; st.param.b32 [given], %r0; .param .b32 back; call.uni (back), square, (given); "
        "ld.param.b32 %r6, [back]; }"
    )
    (got,) = run(kernel(body + STORE, 1, 32, square), (1,), [], [np.empty(32, np.int32)])
    np.testing.assert_array_equal(got, np.arange(32) ** 2)


def test_inner_blocks_have_registers_of_their_own() -> None:
    body = (
        "mov.b32 %r6, 1; { .reg .b32 tmp; mov.b32 tmp, 5; { .reg .b32 %r6; mov.b32 %r6, tmp; } } add.s32 %r6, %r6, %r0;"
    )
    np.testing.assert_array_equal(threads(body), np.arange(32) + 1)


def test_tables_in_constant_memory() -> None:
    table = ".global .align 4 .b32 table[4] = {10, 20, -30, 0x28};"
    body = (
        "and.b32 %r2, %r0, 3; mul.wide.u32 %d4, %r2, 4; mov.b64 %d5, table; add.s64 %d5, %d5, %d4; "
        "ld.global.nc.b32 %r6, [%d5];"
    )
    (got,) = run(kernel(body + STORE, 1, 32, table), (1,), [], [np.empty(32, np.int32)])
    np.testing.assert_array_equal(got, np.array([10, 20, -30, 40])[np.arange(32) % 4])


@pytest.mark.parametrize(
    "body, message",
    [
        ("mbarrier.init.shared.b64 [%d0], 1;", "unknown instruction mbarrier.init"),
        ("ld.global.v3.b32 %r6, [%d0];", "unknown instruction ld.global.v3.b32"),
        ("atom.global.add.u32 %r6, [%d0], 1;", "unknown instruction atom.global.add.u32"),
        ("mov.u32 %r6, %clock;", "no register %clock"),
        ("mov.b32 %r6, %d0;", "a register of 64 bits read as b32"),
        ("add.s64 %r6, %d0, %d0;", "%r6, declared b32, takes a result of s64"),
        ("add.s32 %r6, %p0, 1;", "read before it is written"),
        ("add.f32 %r6, %r0, 1;", "the integer 1 where f32 was due"),
        ("mov.b32 %r99, 0;", "no register %r99"),
        ("bra $nowhere;", "no label"),
        ("bar.sync 1;", "only barrier 0 is supported"),
        ("bar.sync 0, 16;", "only barriers of the whole program are supported"),
        ("setp.lo.s32 %p1, %r0, %r0;", "unknown instruction setp.lo.s32"),
        ("add.s32 %r6, %r0 %r0;", "',' expected"),
        (".magic %r6;", "unknown instruction .magic"),
        ("add.s32 %r6, %r0, #;", "cannot read"),
    ],
)
def test_what_is_refused(body: str, message: str) -> None:
    with pytest.raises(PtxError, match=message):
        threads("mov.b32 %r6, 0; " + body)


def test_directives_that_are_not_known_are_refused() -> None:
    for text in (".version 8.8 .target sm_90 .address_size 64 .magic", ".version 8.8 .target sm_90 .address_size 32"):
        with pytest.raises(PtxError, match=r"unknown directive, at '\.magic'|'64' expected, at '32'"):
            parse(text)
