"""XLA:GPU ahead of time, for a chip that is only described, down to PTX, registers and machine code.

Needs, beside jax, jax-cuda12-plugin and jax-cuda12-pjrt of its version (no GPU, no driver), ptxas and libdevice
(nvidia-cuda-nvcc-cu12), and nvdisasm (nvidia-cuda-nvdisasm).
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import pathlib
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
from jax.experimental import topologies

from .chips import Chip
from .lowering import abstract_gpu


@dataclasses.dataclass(frozen=True)
class Kernel:
    """One kernel of a compiled program."""

    name: str
    grid: tuple[int, int, int]
    threads: tuple[int, int, int]
    shared: int  # bytes of shared memory
    ptx: str

    @functools.cached_property
    def assembled(self) -> Assembled:
        return assemble(self.ptx, self.name)


@dataclasses.dataclass(frozen=True)
class Program:
    kernels: list[Kernel]  # those that Triton made
    memory: Any  # arguments, outputs and temporaries, in bytes


@dataclasses.dataclass(frozen=True)
class Assembled:
    registers: int
    spilled: int  # bytes, stores and loads together
    stack: int
    binary: bytes

    @functools.cached_property
    def loops(self) -> list[Loop]:
        """The loops of the machine code, the longest first."""
        return loops(disassemble(self.binary))

    @property
    def inner(self) -> Loop:
        """The longest of the loops that no other is in: what they leave over, if anything, is done by shorter ones."""
        return next(a for a in self.loops if not any(a.holds(b) for b in self.loops if b is not a))


def _tool(*path: str, wheel: str) -> pathlib.Path:
    """A program of CUDA's, in the wheel that brings it."""
    spec = importlib.util.find_spec("nvidia")
    for folder in (spec and spec.submodule_search_locations) or []:
        if (found := pathlib.Path(folder, *path)).exists():
            return found
    raise FileNotFoundError(f"no {path[-1]}: install {wheel}")


def ptxas() -> pathlib.Path:
    return _tool("cuda_nvcc", "bin", "ptxas", wheel="nvidia-cuda-nvcc-cu12")


@functools.cache
def _device(chip: Chip) -> Any:
    topology = topologies.get_topology_desc(
        platform="cuda", topology_name="", target_config=chip.description, topology="1x1x1"
    )
    return topology.devices[0]


def lower_for(chip: Chip, f: Callable[..., Any], *args: Any) -> Any:
    """f lowered for a chip and arguments of the shapes and dtypes of `args`."""
    sharding = jax.sharding.SingleDeviceSharding(_device(chip))
    shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding) for a in args]
    with abstract_gpu(chip):
        return jax.jit(f).lower(*shapes)


def compile_for(chip: Chip, lowered: Any) -> Program:
    """What `lower_for` gave, compiled."""
    with tempfile.TemporaryDirectory() as folder, abstract_gpu(chip):
        # On jax 0.12 PTX is written only when named; naming everything makes XLA crash now and then.
        options = {
            "xla_dump_to": folder,
            "xla_dump_emitter_re": "ptx",
            "xla_gpu_cuda_data_dir": str(ptxas().parents[1]),
        }
        compiled = lowered.compile(compiler_options=options)
        texts = [p.read_text() for p in sorted(pathlib.Path(folder).glob("*.ptx"))]
        launches = "\n".join(p.read_text() for p in pathlib.Path(folder).glob("*.thunk_sequence.txt"))
    kernels = []
    for line in launches.splitlines():
        if "kCustomKernel" in line:
            kernels.append(_kernel(line, texts))
    return Program(kernels, compiled.memory_analysis())


def _kernel(launch: str, texts: list[str]) -> Kernel:
    """A launch: `001: kCustomKernel [...] name grid: [2, 1, 1] threads: [128, 1, 1]  shared_memory: 64 bytes`."""
    match = re.search(r"\] (\S+) grid: \[(.*?)\] threads: \[(.*?)\]\s+shared_memory: (\d+) bytes", launch)
    assert match is not None, launch
    grid, threads = (tuple(int(n) for n in match[k].split(",")) for k in (2, 3))
    (ptx,) = (t for t in texts if re.search(rf"\.entry {re.escape(match[1])}\b", t))
    return Kernel(match[1], grid, threads, int(match[4]), ptx)


def assemble(ptx: str, name: str) -> Assembled:
    """What ptxas makes of it."""
    arch = re.findall(r"\.target (\w+)", ptx)[0]
    with tempfile.TemporaryDirectory() as folder:
        source, binary = pathlib.Path(folder) / "kernel.ptx", pathlib.Path(folder) / "kernel.cubin"
        source.write_text(ptx)
        command = [ptxas(), "-v", f"--gpu-name={arch}", source, "-o", binary]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr)
        frame = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", done.stderr)
        registers = re.findall(r"Used (\d+) registers", done.stderr)
        assert len(frame) >= 1 and len(registers) == 1, done.stderr
        spilled, stack = sum(int(f[1]) + int(f[2]) for f in frame), max(int(f[0]) for f in frame)
        return Assembled(int(registers[0]), spilled, stack, binary.read_bytes())


def disassemble(binary: bytes) -> str:
    tool = _tool("cu13", "bin", "nvdisasm", wheel="nvidia-cuda-nvdisasm")
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        return subprocess.run([tool, "-c", file.name], capture_output=True, text=True, check=True).stdout


@dataclasses.dataclass(frozen=True)
class Loop:
    """A loop in machine code."""

    opcodes: Counter[str]  # such as FADD, MUFU.EX2
    first: int  # of its instructions in the code, and its last one
    last: int

    def holds(self, other: Loop) -> bool:
        return self.first <= other.first and other.last <= self.last

    def __len__(self) -> int:
        return self.opcodes.total()

    def count(self, *families: str) -> int:
        return sum(n for opcode, n in self.opcodes.items() if opcode.split(".")[0] in families)


def loops(code: str) -> list[Loop]:
    """Every loop of a disassembled kernel, from a label to the branch back to it, the longest first."""
    labels: dict[str, int] = {}
    instructions: list[str] = []
    found = []
    for line in code.splitlines():
        if match := re.match(r"\s*(\.L_\w+):", line):
            labels[match[1]] = len(instructions)
        elif match := re.match(r"\s*/\*[0-9a-f]{4,}\*/\s+(.*?)\s*;", line):
            instructions.append(re.sub(r"^@!?U?P\w+\s+", "", match[1]))
    for at, text in enumerate(instructions):
        target = re.match(r"BRA\b.*?(\.L_\w+)", text)
        if target and labels.get(target[1], at + 1) < at:
            first = labels[target[1]]
            found.append(Loop(Counter(b.split()[0] for b in instructions[first : at + 1]), first, at))
    return sorted(found, key=len, reverse=True)
