"""lazyjax beside dense JAX and, where it is installed, KeOps on the CPU: interleaved runs, medians and ratios.

    python -m bench                       # M = N = 16384, D = 3, float32
    python -m bench --size 4096 --repeats 9 --only argmin

First calls include compilation. Only the ratios of one run mean anything: machines are shared.
"""

from __future__ import annotations

import argparse
import importlib.util
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lazyjax import LazyTensor, Vi, Vj

Run = Callable[[], Any]
Contender = dict[str, Callable[..., Any]]


def ours() -> Contender:
    """Functions of (x, y, b), compiled."""

    def distance(x: Any, y: Any) -> LazyTensor:
        return Vi(x).sqdist(Vj(y))

    def gaussian(x: Any, y: Any, b: Any) -> Any:
        return (-distance(x, y)).exp() @ b

    return {
        "Gaussian sum": gaussian,
        "its x-gradient": jax.grad(lambda x, y, b: gaussian(x, y, b).sum()),
        "argmin": lambda x, y, b: distance(x, y).argmin(axis=1),
        "logsumexp": lambda x, y, b: (-distance(x, y)).logsumexp(axis=1),
        "argKmin 10": lambda x, y, b: distance(x, y).argKmin(10, axis=1),
    }


def dense() -> Contender:
    """The same with the array of all pairs, in the same direct form."""

    def distance(x: Any, y: Any) -> Any:
        return ((x[:, None] - y[None]) ** 2).sum(-1)

    def gaussian(x: Any, y: Any, b: Any) -> Any:
        return jnp.exp(-distance(x, y)) @ b

    return {
        "Gaussian sum": gaussian,
        "its x-gradient": jax.grad(lambda x, y, b: gaussian(x, y, b).sum()),
        "argmin": lambda x, y, b: distance(x, y).argmin(1),
        "logsumexp": lambda x, y, b: jax.nn.logsumexp(-distance(x, y), axis=1),
        "argKmin 10": lambda x, y, b: jax.lax.top_k(-distance(x, y), 10)[1],
    }


def keops() -> Contender:
    """pykeops.numpy, on NumPy arrays."""
    from pykeops.numpy import Genred  # type: ignore[import-not-found]
    from pykeops.numpy import Vi as KVi
    from pykeops.numpy import Vj as KVj

    variables = ["x=Vi(3)", "y=Vj(3)", "b=Vj(1)", "e=Vi(1)"]
    gradient = Genred("Grad(Exp(-SqDist(x,y))*b,x,e)", variables, reduction_op="Sum", axis=1)
    return {
        "Gaussian sum": lambda x, y, b: (-KVi(x).sqdist(KVj(y))).exp() @ b,
        "its x-gradient": lambda x, y, b: gradient(x, y, b, np.ones_like(x[:, :1])),
        "argmin": lambda x, y, b: KVi(x).sqdist(KVj(y)).argmin(axis=1),
        "logsumexp": lambda x, y, b: (-KVi(x).sqdist(KVj(y))).logsumexp(axis=1),
        "argKmin 10": lambda x, y, b: KVi(x).sqdist(KVj(y)).argKmin(10, axis=1),
    }


def contenders() -> dict[str, Contender]:
    found = {"lazyjax": ours(), "dense JAX": dense()}
    return found | {"KeOps": keops()} if importlib.util.find_spec("pykeops") else found


def ready(fn: Callable[..., Any], host: list[Any], device: list[Any], contender: str) -> Run:
    """A call on data that is where the contender wants it."""
    if contender == "KeOps":
        return lambda: fn(*host)
    compiled = jax.jit(fn)
    return lambda: jax.block_until_ready(compiled(*device))


def measure(runs: dict[str, Run], repeats: int) -> dict[str, tuple[float, float]]:
    """(first call, median of the others) in seconds, interleaved."""
    first, times = {}, {name: [] for name in runs}
    for name, run in runs.items():
        start = time.perf_counter()
        run()
        first[name] = time.perf_counter() - start
    for _ in range(repeats):
        for name, run in runs.items():
            run()  # its threads and caches, after those of the contender before it
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {name: (first[name], statistics.median(times[name])) for name in runs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=16384)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", default="", help="run the cases whose name contains this")
    options = parser.parse_args()
    r = np.random.default_rng(0)
    host = [r.normal(size=(options.size, d)).astype(np.float32) for d in (3, 3, 1)]
    device = [jnp.asarray(a) for a in host]
    versions = f"{platform.machine()}, Python {platform.python_version()}, jax {jax.__version__}"
    print(f"{versions}, M = N = {options.size}, D = 3\n")
    print("| case | contender | first call | median | pairs/s | times lazyjax |")
    print("|---|---|---:|---:|---:|---:|")
    found = contenders()
    for case in ours():
        if options.only not in case:
            continue
        runs = {name: ready(functions[case], host, device, name) for name, functions in found.items()}
        results = measure(runs, options.repeats)
        for name, (first, median) in results.items():
            ratio = median / results["lazyjax"][1]
            rate = options.size**2 / median
            print(f"| {case} | {name} | {first:.2f} s | {median * 1e3:.1f} ms | {rate:.2e} | {ratio:.1f} |", flush=True)


if __name__ == "__main__":
    main()
