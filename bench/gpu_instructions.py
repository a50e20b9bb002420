"""Machine instructions of GPU kernels for each pair (and feature or column), counted without a GPU:

    JAX_PLATFORMS=cpu python -m bench.gpu_instructions

Every formula is compiled ahead of time by XLA's own compiler for a chip that is only described, and assembled; what is
counted is the inner loop of the machine code; of the K smallest those of three kernels, the second and third for as
many numbers as they look at.  What merges accumulators after a loop is not counted.  Beside it stands KeOps: its
generated CUDA, compiled by nvcc 13 with fast math for sm_90.  A count is no time: nothing here runs on a GPU.

Needs the packages of the extra gpu-checks and the CUDA plugin of JAX (see pyproject.toml), and a clone: the compiler's
side of it is that of the tests, `tests.gpu`.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from lazyjax import Vi, Vj, explain
from lazyjax.kernels.triton.inner_products import FEATURES, padded

if TYPE_CHECKING:
    from tests.gpu.chips import Chip
    from tests.gpu.compiling import Assembled, Kernel, Loop

M = N = 1 << 16


def gaussian(x: Any, y: Any, b: Any) -> Any:
    return (-Vi(x).sqdist(Vj(y))).exp() @ b


def gradient(x: Any, y: Any, b: Any, cotangent: Any) -> Any:
    return jax.vjp(lambda x: gaussian(x, y, b), x)[1](cotangent)[0]


def attention(q: Any, k: Any, v: Any) -> Any:
    return ((Vi(q) | Vj(k)) / 8).sumsoftmaxweight(Vj(v), axis=1)


def attention_of_points(x: Any, y: Any, v: Any) -> Any:
    return (-Vi(x).sqdist(Vj(y))).sumsoftmaxweight(Vj(jnp.tile(v, (1, 21))), axis=1)


def exponential(x: Any, y: Any, b: Any) -> Any:
    return ((Vi(x) | Vj(y)) / 8).exp() @ b


def columns(count: int) -> Callable[..., Any]:
    """A sum with many columns, of which the bench gives the first."""
    return lambda x, y, b: gaussian(x, y, jnp.tile(b, (1, count)))


# Name: formula, its features, which other arguments it has (of j, of i, complex of j, of j with as many features),
# KeOps' count.
FORMULAS: dict[str, tuple[Callable[..., Any], int, str, float | None]] = {
    "Gaussian sum, D = 3": (gaussian, 3, "j", 11.5),
    "Gaussian sum, D = 10": (gaussian, 10, "j", 29.4),
    "Laplacian sum, D = 3": (lambda x, y, b: (-Vi(x).sqdist(Vj(y)).sqrt()).exp() @ b, 3, "j", 12.5),
    "x-gradient of the Gaussian sum, D = 3": (gradient, 3, "ji", 20.5),
    "logsumexp of -sqdist, D = 3": (lambda x, y: (-Vi(x).sqdist(Vj(y))).logsumexp(axis=1), 3, "", 19.5),
    "Gaussian sum of complex b, D = 3": (gaussian, 3, "c", None),
    "argmin of sqdist, D = 3": (lambda x, y: Vi(x).sqdist(Vj(y)).argmin(axis=1), 3, "", None),
    "argKmin(10) of sqdist, D = 3": (lambda x, y: Vi(x).sqdist(Vj(y)).argKmin(10, axis=1), 3, "", None),
    "Kmin(32) of sqdist, D = 3": (lambda x, y: Vi(x).sqdist(Vj(y)).Kmin(32, axis=1), 3, "", None),
    "Gaussian sum, D = 1000, for each feature": (gaussian, 1000, "j", None),
    "Gaussian sum, D = 3, 16 columns, for each column": (columns(16), 3, "j", None),
    "Gaussian sum, D = 3, 24 columns, for each column": (columns(24), 3, "j", None),
    "sum of exp of inner products, D = 64, for each feature": (exponential, 64, "j", None),
    "argmin of sqdist in product form, D = 64, for each feature": (
        lambda x, y: Vi(x).sqdist(Vj(y), form="product").argmin(axis=1),
        64,
        "",
        None,
    ),
    "logsumexp of inner products, D = 64, for each feature": (
        lambda x, y: ((Vi(x) | Vj(y)) / 8).logsumexp(axis=1),
        64,
        "",
        None,
    ),
    "Gaussian sum, D = 3, 64 columns, for each column": (columns(64), 3, "j", None),
    "Gaussian sum, D = 3, 300 columns, for each column": (columns(300), 3, "j", None),
    "attention, D = 64, 64 columns, for each column": (attention, 64, "v", None),
    "attention of points, D = 3, 63 columns, for each column": (attention_of_points, 3, "v", None),
    "x-gradient of the Gaussian sum, D = 200, for each column": (gradient, 200, "ji", None),
    "x-gradient of the Gaussian sum, D = 1000, for each column": (gradient, 1000, "ji", None),
}


@dataclasses.dataclass(frozen=True)
class Selecting:
    """A kernel that follows, which looks at some numbers or pairs."""

    kernel: Kernel
    loads: int  # for each number that it looks at
    share: float  # of these numbers, of all pairs

    @property
    def loop(self) -> Loop:
        return self.kernel.assembled.inner

    @property
    def instructions(self) -> float:
        """Of each pair of the problem."""
        return len(self.loop) / (self.loop.count("LDG") / self.loads) * self.share


@dataclasses.dataclass(frozen=True)
class Counted:
    """The inner loop of a formula in machine code."""

    kernel: Kernel
    tiles: Any  # the plan
    loop: Loop
    then: tuple[Selecting, ...] = ()
    columns: int = 1
    features: int = 1  # of inner products by tensor cores

    @property
    def instructions(self) -> float:
        """Of each pair; where features are long, of each of them: the inner loop is the one over features; where there
        are columns, of each of these, blocks of columns that are not full and steps of inner products among them.  Of
        inner products by tensor cores it is the loop over j, with all steps over features."""
        if self.tiles.columns:
            blocks = -(-self.columns // self.tiles.columns)
            return blocks * len(self.loop) / self.tiles.pairs / self.columns
        if self.tiles.products:
            return len(self.loop) / self.tiles.pairs / self.features
        then = sum(s.instructions for s in self.then)
        return len(self.loop) / self.tiles.pairs / max(1, self.tiles.features) + then

    @property
    def assembled(self) -> list[Assembled]:
        return [self.kernel.assembled, *(s.kernel.assembled for s in self.then)]


def count(name: str, chip: Chip) -> Counted:
    """Compile one of FORMULAS for a chip, and find its inner loop."""
    from tests.gpu.compiling import compile_for, lower_for

    f, d, others, _ = FORMULAS[name]
    rows = {"i": (M, 1), "j": (N, 1), "c": (N, 1), "v": (N, d)}
    args = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((M, d), (N, d))]
    args += [jax.ShapeDtypeStruct(rows[role], jnp.complex64 if role == "c" else jnp.float32) for role in others]
    explained = _explained(f, args, chip)
    tiles = explained.plan.tiles
    if tiles.members:
        return _by_groups(f, args, chip)
    kernels = compile_for(chip, lower_for(chip, f, *args)).kernels
    kernel = [k for k in kernels if "lazyjax" in k.name][-1]  # XLA makes some with Triton, too
    *outer, inner = kernel.assembled.loops  # the shortest loop, which no other is in
    if (tiles.columns or tiles.products) and d > FEATURES:
        # It takes some features of a contraction or of an inner product, and is in the one over j.
        steps = d // tiles.features if tiles.columns and tiles.features else padded(d) // FEATURES
        again = Counter({o: (steps - 1) * k for o, k in inner.opcodes.items()})
        inner = dataclasses.replace(outer[-1], opcodes=outer[-1].opcodes + again)
    widest = math.prod(explained.description.outputs[0].shape[1:])
    return Counted(kernel, tiles, inner, columns=widest, features=d)


def _explained(f: Callable[..., Any], args: Sequence[Any], chip: Chip) -> Any:
    """The last reduction of a formula and the plan of it that is compiled for a chip."""
    from tests.gpu.lowering import abstract_gpu

    with abstract_gpu(chip):
        return explain(f, *args, platform="cuda")[-1]


def _by_groups(f: Callable[..., Any], args: Sequence[Any], chip: Chip) -> Counted:
    """Three kernels: minima of groups, a selection of groups, which loads one number for each, and one of their pairs,
    which loads the features of j."""
    from tests.gpu.compiling import compile_for, lower_for

    explained = _explained(f, args, chip)
    tiles, selection = explained.plan.tiles, explained.description.reduction
    compiled = compile_for(chip, lower_for(chip, f, *args)).kernels
    minima, choice, again = (k for k in compiled if "lazyjax" in k.name)
    groups = -(-N // (tiles.block_j * tiles.members)) * tiles.block_j
    features = sum(a.shape[-1] for a in args[1:])
    then = (Selecting(choice, 1, groups / N), Selecting(again, features, selection.k * tiles.members / N))
    return Counted(minima, tiles, minima.assembled.inner, then)


def main() -> None:
    from tests.gpu.chips import CHIPS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="count the formulas whose name contains this")
    parser.add_argument("--opcodes", action="store_true", help="print what the instructions are")
    options = parser.parse_args()
    print(f"jax {jax.__version__}, float32, M = N = {N}\n")
    print("| formula | chip | instructions per pair | KeOps, sm_90 | registers | predicted | bytes spilled |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for name, (*_, keops) in FORMULAS.items():
        if options.only not in name:
            continue
        for chip in CHIPS:
            found = count(name, chip)
            row = [
                name, chip.name, f"{found.instructions:.2f}", "" if keops is None else f"{keops:g}",
                max(a.registers for a in found.assembled), found.tiles.registers,
                sum(a.spilled for a in found.assembled),
            ]  # fmt: skip
            print("| " + " | ".join(map(str, row)) + " |", flush=True)
            if options.opcodes:
                opcodes = found.loop.opcodes.most_common()
                print(", ".join(f"{o} {n / found.tiles.pairs:.2f}" for o, n in opcodes), flush=True)
                for s in found.then:
                    print(f"then {s.instructions:.2f}:", ", ".join(f"{o} {n}" for o, n in s.loop.opcodes.most_common()))


if __name__ == "__main__":
    main()
