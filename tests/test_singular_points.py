"""The conventions at singular points, by every way to a derivative.

The table is that of tests/test_operations.py, which takes it through forward and reverse mode in float64; here it goes
through symbolic calculus and float32, and whole vectors of zeros are added.
"""

import jax.numpy as jnp
import numpy as np
import pytest

from lazyjax import Genred, LazyTensor, Vi

from .dense import close
from .test_operations import SINGULAR

# 1e45, and what is far beyond the range of float32, stay in float64.
SHORT = {k: v for k, v in SINGULAR.items() if "1e-12" not in k and k != "erfc(10)"}


def values(rows, derivative, dtype):
    """One derivative of every row at its own point."""
    points = np.asarray([[row[1]] for row in rows.values()], dtype)
    out = []
    for row, point in zip(rows.values(), points, strict=True):
        v = Vi(jnp.asarray(point[None]))
        out.append(derivative(row[0](v), v))
    return LazyTensor.cat(out).sum(axis=1)[0]


DERIVATIVES = {
    "value": (0, lambda f, v: f * 1.0),
    "grad": (1, lambda f, v: f.grad(v, 1)),
    "diff": (1, lambda f, v: f.diff(v, 1)),
    "grad of grad": (2, lambda f, v: f.grad(v, 1).grad(v, 1)),
    "laplacian": (2, lambda f, v: f.laplacian(v)),
}


@pytest.mark.parametrize("name", DERIVATIVES)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 1e-5)])
def test_symbolic_derivatives(name, dtype, tolerance):
    order, derivative = DERIVATIVES[name]
    rows = SINGULAR if dtype == "float64" else SHORT
    got = values(rows, derivative, dtype)
    assert got.dtype == dtype
    for k, (text, row) in enumerate(rows.items()):
        expected = row[2 + order]
        if expected is not None:
            scale = max(1.0, abs(expected)) if np.isfinite(expected) else 1.0
            close(np.float64(got[k]) / scale, np.float64(expected) / scale, tolerance, f"{text}, {name}")


def test_vectors_of_zeros():
    v = Vi(np.zeros((1, 3)))
    e = np.asarray([1.0, -2.0, 0.5])
    for f in (v.norm2(), v.normalize(), (v - v).norm2(), v.sqnorm2().sqrt(), v.sqnorm2().rsqrt()):
        assert np.all(np.isfinite(f.grad_matrix(v).sum(axis=1)))
        close(f.diff(v, e).sum(axis=1), np.zeros((1, f._shape[-1])))
    close(Genred("Grad(Norm2(x), x, IntCst(1))", ["x = Vi(3)"], axis=1)(np.zeros((1, 3))), np.zeros((1, 3)))
    close(Genred("Grad(SinXDivX(x), x, x)", ["x = Vi(3)"], axis=1)(np.zeros((1, 3))), np.zeros((1, 3)))
