"""KeOps' tutorial "A wrapper for NumPy and PyTorch arrays", at its full size, with time and peak memory of each step.

python -m bench.tutorial                 # M = 100,000, N = 200,000
python -m bench.tutorial --m 1000 --n 2000
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lazyjax import LazyTensor

A, B, D = 7, 3, 10


def steps(m: int, n: int, seed: int = 0) -> dict[str, tuple[int, Callable[[], Any]]]:
    """Name, number of pairs, and the computation of each step."""
    r = np.random.default_rng(seed)

    def cloud(*shape: int) -> jax.Array:
        return jnp.asarray(r.normal(size=shape), jnp.float32)

    def distances(x: Any, y: Any) -> LazyTensor:
        return ((LazyTensor(x[:, None, :]) - LazyTensor(y[None, :, :])) ** 2).sum(-1)

    flat_x, flat_y = jnp.asarray(r.uniform(size=(m, 2)), jnp.float32), jnp.asarray(r.uniform(size=(n, 2)), jnp.float32)
    x, y, b = cloud(m, D), cloud(n, D), cloud(n, 4)
    x3, y3 = cloud(m, 3), cloud(n, 3)

    def product(x: Any) -> jax.Array:
        return (-distances(x, y).sqrt()).exp() @ b

    def gradient(x: Any) -> jax.Array:
        return jax.grad(lambda x: (product(x) ** 2).sum())(x)

    def second(x: Any) -> jax.Array:
        return jax.grad(lambda x: jnp.exp(gradient(x) / (1 + jnp.abs(gradient(x)).max())).sum())(x)

    def nearest(x: Any) -> tuple[jax.Array, jax.Array]:
        lowest = distances(x, y3).min(axis=1)[:, 0]
        index = distances(x, y3).argmin(axis=1)[:, 0]
        return lowest, ((x - y3[index]) ** 2).sum(-1)

    def batch() -> tuple[LazyTensor, LazyTensor, LazyTensor, LazyTensor]:
        arrays = (jnp.abs(cloud(A, B, m, 1, D)), cloud(1, 1, m, 1, D), cloud(1, B, 1, n, D), cloud(A, 1, 1, 1, 1))
        x_i, l_i, y_j, s = map(LazyTensor, arrays)
        return x_i, l_i, y_j, s

    def kernel_sum() -> jax.Array:
        x_i, l_i, y_j, s = batch()
        k = -1.6 * ((l_i * x_i - y_j) ** 2).sum(-1) / (1 + s**2)
        return k.sum(dim=3)

    def formula_sum() -> jax.Array:
        x_i, l_i, y_j, s = batch()
        f = (x_i**1.5 + y_j / l_i).cos() - (x_i | y_j) + x_i[:, :, :, :, 2] * s.relu() * y_j
        return f.sum(dim=2)

    return {
        "nearest neighbour, 2-D": (m * n, lambda: distances(flat_x, flat_y).argmin(dim=1).ravel()),
        "exponential kernel, D = 10, 4 columns": (m * n, lambda: product(x)),
        "its gradient": (m * n, lambda: gradient(x)),
        "its second derivative": (m * n, lambda: second(x)),
        "min, and argmin with a gather": (2 * m * n, lambda: nearest(x3)),
        "gradient of min": (m * n, lambda: jax.grad(lambda x: distances(x, y3).min(axis=1).sum())(x3)),
        "batch 7 x 3, kernel summed over j": (A * B * m * n, kernel_sum),
        "batch 7 x 3, formula summed over i": (A * B * m * n, formula_sum),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--m", type=int, default=100_000)
    parser.add_argument("--n", type=int, default=200_000)
    parser.add_argument("--only", default="", help="run the steps whose name contains this")
    options = parser.parse_args()
    for name, (pairs, run) in steps(options.m, options.n).items():
        if options.only not in name:
            continue
        start = time.perf_counter()
        out = jax.block_until_ready(run())
        seconds = time.perf_counter() - start
        shapes = ", ".join(str(o.shape) for o in jax.tree.leaves(out))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"{name:38s} {seconds:8.1f} s  {pairs / seconds:9.3g} pairs/s  peak {peak:.2f} GiB  {shapes}", flush=True)


if __name__ == "__main__":
    main()
