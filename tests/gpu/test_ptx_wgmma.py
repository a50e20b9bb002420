"""Matrix products of warpgroups against NumPy: where descriptors say that operands stand, fragments, and what must be
waited for, fenced or left alone meanwhile."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
import pytest

from .ptx import DivergenceError, MemoryFault, PtxError, RaceError, run
from .small import kernel

THREAD = np.arange(128)
WARP, G, P = THREAD // 32, THREAD % 32 // 4, THREAD % 4
WIDTH = {"tf32": 4, "bf16": 2, "f16": 2}
LENGTH = 128  # bytes of k: four steps of 32


@dataclasses.dataclass(frozen=True)
class Layout:
    """Of a matrix (rows, k) in shared memory."""

    swizzle: int  # bytes; 16: none
    transposed: bool = False  # rows are next to each other

    def pattern(self, rows: int, width: int) -> tuple[int, int, list[int], int]:
        """Leading and stride offsets, where each step of 32 bytes of k starts, and bytes in all; all with gaps."""
        span = self.swizzle
        if self.transposed:
            pieces, blocks = -(-rows * width // span), LENGTH // width // 8  # of rows, of eight k
            if span == 16:  # next to each other: eight k; then rows, then blocks of k
                leading, stride = 128 * pieces + 128, 128
                return leading, stride, [2 * s * leading for s in range(4)], blocks * leading
            stride = 8 * span * (pieces + 1)
            return 8 * span, stride, [2 * s * stride for s in range(4)], blocks * stride
        if span == 16:
            leading, stride = 128, 128 * (LENGTH // 16 + 1)
            return leading, stride, [2 * s * leading for s in range(4)], rows // 8 * stride
        stride = 16 * span  # twice what eight rows take
        of_span = rows // 8 * stride
        starts = [32 * s // span * of_span + 32 * s % span for s in range(4)]
        return 1, stride, starts, LENGTH // span * of_span

    def place(self, row: int, byte: int, rows: int, width: int) -> int:
        """Of the first of 16 bytes: `byte` along k, or along rows if transposed, in which case `row` is of k."""
        span = self.swizzle
        leading, stride, _, _ = self.pattern(rows, width)
        line, block, chunk = row % 8, row // 8, byte % span // 16
        if span == 16:
            at = 16 * line + (block * leading + byte // 16 * stride if self.transposed else block * stride + byte * 8)
            return at
        chunk ^= line // (128 // span)  # rows of 128 bytes take the eight chunks in eight orders
        at = block * stride + line * span + 16 * chunk
        return at + byte // span * (leading if self.transposed else rows // 8 * stride)

    def image(self, matrix: Any) -> Any:
        """The bytes of shared memory that hold a matrix."""
        rows, width = len(matrix), matrix.itemsize
        out = np.full(self.pattern(rows, width)[3], 0x77, np.uint8)
        lines = np.ascontiguousarray(matrix.T if self.transposed else matrix).view(np.uint8)
        for row, line in enumerate(lines):
            for byte in range(0, len(line), 16):
                at = self.place(row, byte, rows, width)
                assert (out[at : at + 16] == 0x77).all()  # nothing stands on anything else
                out[at : at + 16] = line[byte : byte + 16]
        return out

    def descriptors(self, start: int, rows: int, width: int) -> list[int]:
        """Of each step."""
        leading, stride, steps, _ = self.pattern(rows, width)
        mode = {16: 0, 128: 1, 64: 2, 32: 3}[self.swizzle]
        return [(start + s) >> 4 | leading >> 4 << 16 | stride >> 4 << 32 | mode << 62 for s in steps]


def bits_of(x: Any, kind: str) -> Any:
    if kind == "f16":
        return x.astype(np.float16).view(np.uint16)
    bits = x.astype(np.float32).view(np.uint32)
    return bits if kind == "tf32" else (bits >> 16).astype(np.uint16)


def matrices(kind: str, n: int) -> tuple[Any, Any, Any]:
    """a (64, k), b (n, k) and c (64, n), of few bits."""
    r, k = np.random.default_rng(0), LENGTH // WIDTH[kind]
    return tuple(r.integers(-40, 40, s) / 8 for s in ((64, k), (n, k), (64, n)))  # type: ignore[return-value]


def sums(matrix: Any) -> Any:
    """What each thread holds of a result, (registers, threads)."""
    columns = range(0, matrix.shape[1], 8)
    return np.stack([matrix[16 * WARP + G + 8 * h, c + 2 * P + q] for c in columns for h in (0, 1) for q in (0, 1)])


def factors(matrix: Any, kind: str) -> Any:
    """What each thread holds of a: four registers for each step."""
    bits, row, found = bits_of(matrix, kind), 16 * WARP + G, []
    for k in range(0, matrix.shape[1], 32 // WIDTH[kind]):
        for half in (0, 1):
            for h in (0, 1):
                if kind == "tf32":
                    found.append(bits[row + 8 * h, k + P + 4 * half])
                else:
                    low, high = (bits[row + 8 * h, k + 2 * P + 8 * half + e].astype(np.uint32) for e in (0, 1))
                    found.append(low | high << np.uint32(16))
    return np.stack(found)


FENCE = "fence.proxy.async.shared::cta;"
WHOLE = f"{FENCE} bar.sync 0; wgmma.fence.sync.aligned; PRODUCTS wgmma.commit_group.sync.aligned; "
WHOLE += "wgmma.wait_group.sync.aligned 0;"


def multiply(
    kind: str, n: int, a: Layout | None, b: Layout, body: str = WHOLE, adding: str = "1", signs: str = "1, 1",
    error: float = 0.0, change: int = 0, below: int = 0, after: str = "",
) -> tuple[Any, Any]:  # fmt: skip
    """a b + c by a kernel of one warpgroup, and by NumPy; a in registers if there is no layout of it.

    The kernel brings operands to shared memory and registers, runs `body` and stores the result; `change`: bits of b's
    descriptors that are turned; `below`: bits of operands that nobody reads.
    """
    x, y, c = matrices(kind, n)
    width = WIDTH[kind]
    images = [m.image(bits_of(v, kind) | below) for m, v in ((a, x), (b, y)) if m is not None]
    start = [0, -(-images[0].size // 2048) * 2048][: len(images)]
    shared = np.zeros(-(-(start[-1] + images[-1].size) // 2048) * 2048, np.uint8)
    for image, at in zip(images, start, strict=True):
        shared[at : at + image.size] = image
    named = {"s": n // 2, "f": 16, "v": 4}
    text = ["{ .reg .b64 %da<4>; .reg .b64 %db<4>;", *(f".reg .b32 %{k}<{v}>;" for k, v in named.items())]
    text.append("mul.wide.u32 %d4, %r0, 16; add.s64 %d5, %d0, %d4; mov.b64 %d6, room; add.s64 %d6, %d6, %d4;")
    for at in range(0, shared.size, 2048):
        text.append(f"ld.global.v4.b32 {{%v0, %v1, %v2, %v3}}, [%d5+{at}];")
        text.append(f"st.shared.v4.b32 [%d6+{at}], {{%v0, %v1, %v2, %v3}};")
    text.append("mul.wide.u32 %d4, %r0, 4; add.s64 %d5, %d1, %d4; add.s64 %d6, %d2, %d4; add.s64 %d7, %d3, %d4;")
    text += [f"ld.global.b32 %s{k}, [%d5+{512 * k}];" for k in range(n // 2)]
    text += [f"ld.global.b32 %f{k}, [%d6+{512 * k}];" for k in range(16)]
    for which, layout, at, rows in (("a", a, 0, 64), ("b", b, start[-1], n)):
        if layout is not None:
            numbers = layout.descriptors(at, rows, width)
            turned = change if which == "b" else 0
            text.append("mov.b32 %r9, room; shr.u32 %r9, %r9, 4; cvt.u64.u32 %d8, %r9;")
            text += [f"add.s64 %d{which}{s}, %d8, {number ^ turned};" for s, number in enumerate(numbers)]
    majors = "" if kind == "tf32" else "".join(f", {int(m.transposed)}" for m in (a, b) if m is not None)
    held = ", ".join(f"%s{k}" for k in range(n // 2))
    products = []
    for s in range(4):
        own = f"%da{s}" if a is not None else "{" + ", ".join(f"%f{4 * s + k}" for k in range(4)) + "}"
        scale = adding if s == 0 else "1"
        opcode = f"wgmma.mma_async.sync.aligned.m64n{n}k{32 // width}.f32.{kind}.{kind}"
        products.append(f"{opcode} {{{held}}}, {own}, %db{s}, {scale}, {signs}{majors};")
    text += [body.replace("PRODUCTS", " ".join(products))]
    text += [f"st.global.b32 [%d7+{512 * k}], %s{k};" for k in range(n // 2)]
    declared = f".shared .align 1024 .b8 room[{shared.size}];"
    arrays = [shared, sums(c).astype(np.float32), factors(x, kind) | below]
    source = kernel("\n".join([*text, after, "}"]), 4, 128, declared)
    (got,) = run(source, (1,), arrays, [np.empty((n // 2, 128), np.float32)], error=error)
    one, two = (int(s) for s in signs.split(","))
    return got, sums(one * two * (x @ y.T) + (c if adding != "0" else 0))


CASES = [("tf32", s, False, False) for s in (16, 32, 64, 128)]
CASES += [("bf16", s, *majors) for s in (16, 32, 64, 128) for majors in ((False, False), (True, True))]
CASES += [("f16", 128, False, True), ("f16", 32, True, False)]


@pytest.mark.parametrize("kind, swizzle, a, b", CASES)
def test_operands_in_shared_memory(kind: str, swizzle: int, a: bool, b: bool) -> None:
    got, want = multiply(kind, 64, Layout(swizzle, a), Layout(swizzle, b))
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("kind, n, b", [("tf32", 32, False), ("bf16", 16, False), ("f16", 256, True)])
def test_one_operand_in_registers(kind: str, n: int, b: bool) -> None:
    got, want = multiply(kind, n, None, Layout(128, b))
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("n", [8, 24])
def test_narrow_results(n: int) -> None:
    got, want = multiply("bf16", n, Layout(64), Layout(32, n == 24))
    np.testing.assert_array_equal(got, want)


def test_signs_and_results_that_start_anew() -> None:
    for signs in ("-1, 1", "1, -1", "-1, -1"):
        got, want = multiply("bf16", 8, Layout(128), Layout(128), adding="0", signs=signs)
        np.testing.assert_array_equal(got, want)


def test_tf32_reads_nineteen_bits_and_errors_are_bounded() -> None:
    for a in (Layout(128), None):
        got, want = multiply("tf32", 8, a, Layout(128), below=0x1FFF)
        np.testing.assert_array_equal(got, want)
    for error in (1.0, -1.0):
        got, want = multiply("tf32", 8, Layout(128), Layout(128), error=error)
        assert 1e-8 * np.abs(want).max() < ((got - want) * error).max() < 64 * 2.0**-23 * np.abs(want).max()


def test_a_wrong_descriptor_gives_wrong_numbers_or_is_refused() -> None:
    for bit in (*range(0, 6), *range(37, 41), 62, 63):
        try:
            got, want = multiply("bf16", 64, Layout(64), Layout(64), change=1 << bit)
        except (MemoryFault, RaceError):
            continue
        assert np.abs(got - want).max() > 1
    for bit, message in ((14, "bits that mean nothing"), (55, "bits that mean nothing"), (49, "a base offset")):
        with pytest.raises(PtxError, match=message):
            multiply("bf16", 64, Layout(64), Layout(64), change=1 << bit)
    with pytest.raises(MemoryFault, match=r"a matrix product reads at \d+ of \d+ bytes of shared memory"):
        multiply("bf16", 64, Layout(64), Layout(64), change=1 << 44)


def without(part: str) -> str:
    assert part in WHOLE
    return WHOLE.replace(part, "", 1)


WAIT = "wgmma.wait_group.sync.aligned 0;"
RUNNING = WHOLE.replace(WAIT, f"TOUCH {WAIT}")
STORE = "mov.b32 %r9, room; st.shared.b32 [%r9], 5;"


@pytest.mark.parametrize(
    "body, error, message",
    [
        (without(WAIT), PtxError, "%s0.* belongs to a matrix product that was not waited for"),
        (WHOLE.replace(WAIT, WAIT.replace("0", "1")), PtxError, "%s0.* that was not waited for"),
        (without("wgmma.commit_group.sync.aligned;"), PtxError, "%s0.* that was not waited for"),
        (RUNNING.replace("TOUCH", "mov.b32 %s3, 0;"), PtxError, "%s3.* that was not waited for"),
        (RUNNING.replace("TOUCH", "add.s32 %r2, %s3, 1;"), PtxError, "%s3.* that was not waited for"),
        (RUNNING.replace("TOUCH", "mov.b32 %f3, 0;"), PtxError, "%f3.* that was not waited for"),
        (without("wgmma.fence.sync.aligned;"), PtxError, "no wgmma.fence before the first matrix product"),
        (WHOLE.replace("PRODUCTS", "add.s32 %s1, %s1, 0; PRODUCTS"), PtxError, "no wgmma.fence since %s1.* was read"),
        (WHOLE.replace("PRODUCTS", "add.s32 %f1, %f1, 0; PRODUCTS"), PtxError, "no wgmma.fence since %f1.* was read"),
        (without(FENCE), RaceError, "with no fence.proxy.async since it was written"),
        (without("bar.sync 0;"), RaceError, "a matrix product of shared memory that a thread wrote with no barrier"),
        (RUNNING.replace("TOUCH", STORE), RaceError, "store to shared memory that a matrix product reads which was"),
        (WHOLE + STORE, RaceError, "store to shared memory that another thread reads with no barrier between"),
        (f"setp.lt.s32 %p1, %r0, 32; @%p1 ret; {WHOLE}", DivergenceError, "with a warp that is not there|barrier"),
        ("bar.sync 0; setp.lt.s32 %p1, %r0, 32; @%p1 wgmma.fence.sync.aligned;", DivergenceError, "a warp that is not"),
        (WHOLE.replace("PRODUCTS", "cvt.u64.u32 %db0, %r0; PRODUCTS"), DivergenceError, "have different descriptors"),
        (WHOLE.replace(WAIT, "bra $end;"), PtxError, "threads return .* that were not waited for"),
    ],
)  # fmt: skip
def test_what_must_be_waited_for_and_fenced(body: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        multiply("bf16", 16, None, Layout(128), body, after="$end:")


def test_what_is_right() -> None:
    """A fence after the barrier and not before it, a store after a barrier, moves behind a fence, where compilers put
    them, and two groups one after the other."""
    bodies = [
        WHOLE.replace(f"{FENCE} bar.sync 0;", f"bar.sync 0; {FENCE}"),
        WHOLE + "bar.sync 0;" + STORE,
        WHOLE.replace("PRODUCTS", "mov.b32 %r9, %s1; mov.b32 %s1, %r9; PRODUCTS"),
        RUNNING.replace("TOUCH", "wgmma.commit_group.sync.aligned; wgmma.wait_group.sync.aligned 1;"),
    ]
    for body in bodies:
        got, want = multiply("bf16", 16, None, Layout(128), body)
        np.testing.assert_array_equal(got, want)


def test_other_products_leave_running_ones_alone() -> None:
    """Sums may go on in their registers, in products of the same shape alone; they are no factors."""
    (product, *_) = re.findall(r"wgmma.mma_async.*?;", _products())
    again, other = product.replace("n16", "n8"), re.sub(r"\{.*?\}, \{.*?\}", "{SUMS}, {%s0, %s1, %s2, %s3}", product)
    again = re.sub(r"\{.*?\}", "{%s0, %s1, %s2, %s3}", again, count=1)
    other = other.replace("SUMS", ", ".join(f"%r{k}" for k in range(20, 28)))
    for more in (again, other):
        with pytest.raises(PtxError, match=r"%s0.* belongs to another matrix product, which was not waited for"):
            multiply("bf16", 16, None, Layout(128), RUNNING.replace("TOUCH", more))


def _products() -> str:
    held = ", ".join(f"%s{k}" for k in range(8))
    opcode = "wgmma.mma_async.sync.aligned.m64n16k16.f32.bf16.bf16"
    return f"{opcode} {{{held}}}, {{%f0, %f1, %f2, %f3}}, %db0, 1, 1, 1, 0;"


@pytest.mark.parametrize(
    "opcode, message",
    [
        ("m64n12k16.f32.bf16.bf16", "unknown instruction"),
        ("m64n264k16.f32.bf16.bf16", "unknown instruction"),
        ("m64n16k8.f32.bf16.bf16", "unknown instruction"),
        ("m64n16k16.f16.f16.f16", "unknown instruction"),
        ("m64n16k16.f32.bf16.f16", "unknown instruction"),
        ("m64n24k16.f32.bf16.bf16", "8 operands of f32 where 12|8 operands where 12"),
        ("m64n16k8.f32.tf32.tf32", "7 operands are not those of a matrix product of tf32"),
    ],
)
def test_what_is_refused(opcode: str, message: str) -> None:
    body = WHOLE.replace("PRODUCTS", _products().replace("m64n16k16.f32.bf16.bf16", opcode))
    with pytest.raises(PtxError, match=message):
        multiply("bf16", 16, None, Layout(128), body)


def test_a_program_of_less_than_a_warpgroup() -> None:
    with pytest.raises(PtxError, match="a warpgroup has 128 threads, and the program has 64"):
        run(kernel("wgmma.fence.sync.aligned;", 0, 64), (1,), [], [])
    with pytest.raises(PtxError, match=r"-1 where 0 or 1 or .* or 7 was due"):
        run(kernel("wgmma.wait_group.sync.aligned -1;", 0, 128), (1,), [], [])
