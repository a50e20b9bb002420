"""The emulator catches what a correct kernel never does: in a sample written by hand, and in kernels of a few lines."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest

from .ptx import DivergenceError, MemoryFault, PtxError, RaceError, machine, run
from .small import kernel

SAMPLE = (pathlib.Path(__file__).parent / "samples" / "row_sums.ptx").read_text()


def row_sums(text: str) -> tuple[np.ndarray, np.ndarray]:
    """What the sample writes, and what it should."""
    a = np.random.default_rng(0).normal(size=(2, 3, 150)).astype(np.float32)
    (got,) = run(text, (3,), [a], [np.empty((2, 3), np.float32)])
    return got, a.astype(np.float64).sum(-1)


def test_the_sample() -> None:
    got, want = row_sums(SAMPLE)
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-5)


def without(part: str, nth: int = 0) -> str:
    """The sample without one occurrence of a part."""
    pieces = SAMPLE.split(part)
    return part.join(pieces[: nth + 1]) + part.join(pieces[nth + 1 :])


@pytest.mark.parametrize(
    "changed, error, message",
    [
        (
            without("bar.sync \t0;", 0),
            RaceError,
            "load of shared memory that another thread wrote with no barrier between",
        ),
        (
            without("bar.sync \t0;", 1),
            RaceError,
            "store to shared memory that another thread reads with no barrier between",
        ),
        (without("@%p1 "), MemoryFault, "load of 4 bytes out of bounds: offset 3600 in argument 0 of 3600 bytes"),
        (SAMPLE.replace("%p3, %r3, 0", "%p3, %r1, 0"), RaceError, "load of shared memory that nobody has written"),
        (
            SAMPLE.replace("add.s32 \t%r18, %r17, %r5", "mov.b32 %r18, %r17"),
            RaceError,
            "another thread wrote|different values",
        ),
        (
            SAMPLE.replace("%r23, %r22, %r2", "%r23, %r22, 0"),
            RaceError,
            "two programs write the same element of argument 1",
        ),
        (
            SAMPLE.replace("%r6, 2;", "%r6, 1;"),
            PtxError,
            "12 of the 24 bytes of argument 1, an output, are never written",
        ),
        (SAMPLE.replace("[%rd6]", "[%rd6+2]"), MemoryFault, "load of 4 bytes that is not aligned"),
        (SAMPLE.replace("[%rd8]", "[%rd6]"), MemoryFault, "store to argument 0, an input"),
        (SAMPLE.replace("partial[8]", "partial[4]"), MemoryFault, "of 4 bytes at 4 of 4 bytes of shared memory"),
        (SAMPLE.replace("16, 31, -1", "16, 31, 65535"), DivergenceError, "a thread that its mask leaves out"),
        (SAMPLE.replace("@%p2 bra", "bra"), PtxError, "no end after"),
        (
            SAMPLE.replace("setp.lt.s32 \t%p2", "setp.lt.and.s32 \t%p2"),
            PtxError,
            "3 operands where 4 were due|4 operands where",
        ),
        (SAMPLE.replace("add.rn.f32", "add.rn.magic.f32"), PtxError, "unknown instruction add.rn.magic.f32"),
        (SAMPLE.replace("mov.b32 \t%r9, %r1;", ""), PtxError, "%r9 is read before it is written"),
    ],
)
def test_mutations_of_the_sample(
    changed: str, error: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert changed != SAMPLE
    monkeypatch.setattr(machine, "STEPS", 2000)
    with pytest.raises(error, match=message):
        row_sums(changed)


@pytest.mark.parametrize("distance", [16, 8, 4, 2, 1])
def test_wrong_shuffles_give_wrong_sums(distance: int) -> None:
    """A wrong distance is no fault of its own: the values show it."""
    got, want = row_sums(SAMPLE.replace(f"%r8, {distance}, 31", f"%r8, {2 * distance % 31}, 31"))
    assert np.abs(got - want).min() > 1e-2


# Shared memory: what orders two accesses

SHARED = ".shared .align 16 .b8 room[512];"
OWN = "mov.b32 %r2, room; shl.b32 %r3, %r0, 2; add.s32 %r4, %r2, %r3; "  # a word of each thread
NEXT = (
    "add.s32 %r5, %r0, 1; and.b32 %r5, %r5, MASK; shl.b32 %r5, %r5, 2; add.s32 %r5, %r2, %r5; "  # and of its neighbour
)
STORE = "mul.wide.u32 %d2, %r0, 4; add.s64 %d3, %d0, %d2; st.global.b32 [%d3], %r6;"


def small(body: str, threads: int) -> np.ndarray:
    (got,) = run(kernel(body + STORE, 1, threads, SHARED), (1,), [], [np.empty(threads, np.int32)])
    return got


def rotated(between: str, threads: int, after: str = "") -> np.ndarray:
    """Each thread writes its number, then reads that of the next."""
    neighbour = NEXT.replace("MASK", str(threads - 1))
    return small(f"{OWN}{neighbour}st.shared.b32 [%r4], %r0; {between} ld.shared.b32 %r6, [%r5]; {after}", threads)


def test_barriers_order_shared_memory() -> None:
    everybody = np.roll(np.arange(64), -1)
    np.testing.assert_array_equal(rotated("bar.sync 0;", 64), everybody)
    np.testing.assert_array_equal(rotated("barrier.sync 0, 64;", 64), everybody)
    # Within a warp its own barrier is enough, between warps it is not.
    np.testing.assert_array_equal(rotated("bar.warp.sync -1;", 32), np.roll(np.arange(32), -1))
    with pytest.raises(RaceError, match=r"load of shared memory that another thread wrote .*: threads 31 and 32"):
        rotated("bar.warp.sync -1;", 64)
    with pytest.raises(RaceError, match=r"load of shared memory that another thread wrote .*: threads 0 and 1"):
        rotated("", 32)


@pytest.mark.parametrize("threads, between", [(64, "bar.sync 0;"), (32, "bar.warp.sync -1;")])
def test_what_was_read_may_be_overwritten_only_after_a_barrier(threads: int, between: str) -> None:
    again = "st.shared.b32 [%r4], 7;"
    rotated(between, threads, after=between + again)
    for too_little in ("", "bar.warp.sync -1;") if threads == 64 else ("",):
        with pytest.raises(RaceError, match="store to shared memory that another thread reads"):
            rotated(between, threads, after=too_little + again)


def test_a_word_that_many_read_is_still_watched() -> None:
    body = OWN + "st.shared.b32 [%r4], %r0; bar.sync 0; ld.shared.b32 %r6, [room+20]; st.shared.b32 [%r4], 9; "
    with pytest.raises(RaceError, match="store to shared memory that another thread reads"):
        small(body, 32)


def test_matrices_in_shared_memory() -> None:
    """Four 8 by 8 matrices of 16 bits, stored by a warp from its fragments and loaded transposed."""
    r = np.random.default_rng(0).integers(0, 2**16, (4, 8, 8)).astype(np.uint16)
    lane = np.arange(32)
    line, pair = lane // 4, 2 * (lane % 4)
    words = lambda a: np.ascontiguousarray(a).view(np.uint32)[..., 0].T.copy()  # noqa: E731  (4, 32, 2) to (32, 4)
    stored = words(np.stack([r[:, line, pair], r[:, line, pair + 1]], -1))
    text = kernel(
        "mul.wide.u32 %d2, %r0, 16; add.s64 %d3, %d0, %d2; add.s64 %d4, %d1, %d2; "
        "mov.b64 %d5, room; add.s64 %d5, %d5, %d2; "
        "ld.global.v4.b32 {%r2, %r3, %r4, %r5}, [%d3]; "
        "stmatrix.sync.aligned.m8n8.x4.shared.b16 [%d5], {%r2, %r3, %r4, %r5}; BETWEEN "
        "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%r6, %r7, %r8, %r9}, [%d5]; "
        "st.global.v4.b32 [%d4], {%r6, %r7, %r8, %r9};",
        *(2, 32, SHARED),
    )
    launch = lambda between: run(text.replace("BETWEEN", between), (1,), [stored], [np.empty((32, 4), np.uint32)])  # noqa: E731
    (got,) = launch("bar.warp.sync -1;")
    np.testing.assert_array_equal(got, words(np.stack([r[:, pair, line], r[:, pair + 1, line]], -1)))
    with pytest.raises(RaceError, match="another thread wrote"):
        launch("")
    with pytest.raises(DivergenceError, match="a matrix instruction with a thread that is not there"):
        launch("setp.eq.s32 %p1, %r0, 3; @%p1 ret;")


# Copies that run on by themselves

COPY = (
    OWN + NEXT.replace("MASK", "63") + "mul.wide.u32 %d2, %r0, 4; add.s64 %d3, %d0, %d2; add.s64 %d4, %d1, %d2; "
    "setp.lt.u32 %p1, %r0, 32; cp.async.ca.shared.global [%r4], [%d3], 4, SIZE; BODY st.global.b32 [%d4], %r6;"
)
COMMIT, WAIT, LOAD = "cp.async.commit_group; ", "cp.async.wait_group 0; ", "ld.shared.b32 %r6, [%r5]; "
WHOLE = COMMIT + WAIT + "bar.sync 0; " + LOAD


def copied(body: str, size: str = "4") -> np.ndarray:
    """Each thread copies a word to shared memory, and loads that of the next one."""
    text, words = COPY.replace("SIZE", size).replace("BODY", body), np.arange(64, dtype=np.int32) + 100
    (got,) = run(kernel(text, 2, 64, SHARED), (1,), [words], [np.empty(64, np.int32)])
    return got


def test_copies() -> None:
    everybody = np.roll(np.arange(64) + 100, -1)
    np.testing.assert_array_equal(copied(WHOLE), everybody)
    # Nothing is read, and zeros are written: by the number of bytes, or by a predicate.
    np.testing.assert_array_equal(copied(WHOLE, "0"), np.zeros(64))
    np.testing.assert_array_equal(copied(WHOLE, "%p1"), np.where(everybody < 132, 0, everybody))
    # Of two groups one may be pending, as long as nobody touches where it goes.
    again = "add.s32 %r7, %r4, 256; cp.async.ca.shared.global [%r7], [%d3], 4; "
    body = f"{COMMIT}{again}{COMMIT}cp.async.wait_group 1; bar.sync 0; {LOAD}{WAIT}"
    np.testing.assert_array_equal(copied(body), everybody)


@pytest.mark.parametrize(
    "body, error, message",
    [
        (WHOLE.replace(WAIT, ""), RaceError, "load of shared memory that a copy writes which was not waited for"),
        (WHOLE.replace(WAIT, "cp.async.wait_group 1; "), RaceError, "load of shared memory that a copy writes"),
        (WHOLE.replace(COMMIT, ""), RaceError, "load of shared memory that a copy writes which was not waited for"),
        (WHOLE.replace("bar.sync 0; ", ""), RaceError, "another thread wrote with no barrier between"),
        (COMMIT + "st.shared.b32 [%r4], 7; " + WAIT, RaceError, "store to shared memory that a copy writes"),
        ("cp.async.ca.shared.global [%r5], [%d3], 4; ", RaceError, "store to shared memory that a copy writes"),
        (COMMIT, PtxError, "threads return from a kernel with copies or matrix products that were not waited for"),
        ("cp.async.ca.shared.global [%r5], [%d3], 16; ", MemoryFault, "a copy of 16 bytes that is not aligned"),
        ("cp.async.cg.shared.global [%r5], [%d3], 4; ", PtxError, "a copy of 4 bytes"),
        ("cp.async.ca.shared.global [%r5], [%d3], 4, 2; ", PtxError, "a copy of a part of 4 bytes"),
        ("cp.async.ca.shared.global [%r5], [%d3+256], 4; ", MemoryFault, "load of 4 bytes out of bounds"),
        ("cp.async.ca.shared.global [%r4+512], [%d3], 4; ", MemoryFault, "copy of 4 bytes at 512 of 512 bytes"),
        ("cp.async.bulk.commit_group;", PtxError, "unknown instruction cp.async.bulk"),
    ],
)
def test_copies_that_are_not_waited_for(body: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        copied(body + "mov.b32 %r6, 0; ")


def test_copies_do_not_overwrite_what_is_read() -> None:
    """Without a barrier after the load; with one, they may."""
    again = "cp.async.ca.shared.global [%r4], [%d3], 4; " + COMMIT + WAIT
    copied(WHOLE + "bar.sync 0; " + again)
    with pytest.raises(RaceError, match="store to shared memory that another thread reads"):
        copied(WHOLE + again)
