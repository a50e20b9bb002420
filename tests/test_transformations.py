"""Every reduction through every transformation, in float64, against dense JAX.

Programs are not optimised: what is tested is JAX's rules. `test_kernels.py` runs the same cases as users' programs are
compiled, their gradients and batches too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from .cases import CASES, SMOOTH, TANGENTS, Case, arguments, marked
from .full import FULL
from .transformations import FIRST, HIGHER, VALUES, hessian_vector
from .unoptimised import unoptimised


def compare(case: Case, group: list[Callable[..., Any]]) -> None:
    """One compiled program for all the transformations of a group."""
    args = arguments()

    def run(f: Callable[..., Any]) -> dict[str, Any]:
        return unoptimised(lambda *a: {t.__name__: t(f, a) for t in group})(*args)

    ours, dense = run(case.ours), run(case.dense)
    for name in dense:
        got, want = jax.tree.leaves(ours[name]), jax.tree.leaves(dense[name])
        assert len(got) == len(want), name
        for a, b in zip(got, want, strict=True):
            assert a.shape == b.shape and a.dtype == b.dtype, (name, a.shape, b.shape, a.dtype, b.dtype)
            scale = float(jnp.max(jnp.abs(b))) if b.size else 0.0
            np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-8 * scale + 1e-14, err_msg=f"{case}: {name}")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_values(case: Case) -> None:
    compare(case, VALUES)


@pytest.mark.parametrize("case", marked(SMOOTH), ids=str)
def test_first_derivatives(case: Case) -> None:
    compare(case, FIRST)


@pytest.mark.parametrize("case", SMOOTH if FULL else TANGENTS, ids=str)
def test_higher_derivatives(case: Case) -> None:
    compare(case, [hessian_vector] if case.costly and not FULL else HIGHER)


@pytest.mark.parametrize("case", SMOOTH if FULL else SMOOTH[:1], ids=str)
def test_check_grads(case: Case) -> None:
    """Coarser than the comparisons above, but JAX's own."""
    check_grads(jax.jit(case.ours), arguments(), order=2, modes=("fwd", "rev"), atol=1e-4, rtol=1e-4)
