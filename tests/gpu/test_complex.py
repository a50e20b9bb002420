"""Complex formulas in the GPU kernels: functions on pairs of real numbers, and descriptions made of them.

Functions are compared with the C library's in extended precision (`numpy.clongdouble`), signs on branch cuts with JAX.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from lazyjax import LazyTensor, Vi, Vj, explain, lift
from lazyjax.kernels import Description, dense
from lazyjax.kernels.triton.arithmetic import complex_functions as functions
from lazyjax.kernels.triton.complex import evaluate, in_parts, run_in_parts

from .. import test_complex
from ..dense import close, trees_close
from ..kernels_of import on_pallas, run_on
from ..test_complex import ELEMENTWISE, U, u, v
from ..unoptimised import UNOPTIMISED
from .lowering import kernel_calls, lowered_for


def _log1p(z: Any) -> Any:
    """NumPy's own is log(1 + z), which is wrong near 0."""
    x, y = z.real, z.imag
    near = 0.5 * np.log1p(np.maximum(x * (2 + x) + y * y, -0.9)) + 1j * np.arctan2(y, 1 + x)
    return np.where(np.abs(z) < 0.5, near, np.log(1 + z))


REFERENCES: dict[str, Callable[..., Any]] = {
    **{name: getattr(np, name) for name in
       ("sqrt", "exp2", "expm1", "log", "sinh", "cosh", "tanh", "sin", "cos", "tan")},
    **{f"a{name}": getattr(np, f"arc{name}") for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh")},
    "sign": lambda z: z / np.abs(z),
    "rsqrt": lambda z: 1 / np.sqrt(z),
    "log1p": _log1p,
    "logistic": lambda z: 1 / (1 + np.exp(-z)),
}  # fmt: skip
ALL: dict[str, Callable[[functions.Pair], Any]] = {
    **functions.FUNCTIONS,
    "exp": functions.exponential,
    "abs": lambda z: (functions.modulus(z), jnp.zeros_like(z[0])),
    "1 / z": lambda z: functions.quotient((jnp.ones_like(z[0]), None), z),
    "z / (1 + 2j)": lambda z: functions.quotient(z, (jnp.ones_like(z[0]), jnp.full_like(z[0], 2))),
    "z / z*": lambda z: functions.quotient(z, functions.conjugate(z)),
    "2 / z": lambda z: functions.quotient((jnp.full_like(z[0], 2), None), z),
    "z / 3": lambda z: functions.quotient(z, (jnp.full_like(z[0], 3), None)),
    "z / 3j": lambda z: functions.quotient(z, (None, jnp.full_like(z[0], 3))),
    "z^-3": lambda z: functions.integer_power(z, -3),
}
REFERENCES |= {
    "exp": np.exp, "abs": np.abs, "1 / z": lambda z: 1 / z, "z / (1 + 2j)": lambda z: z / np.clongdouble(1 + 2j),
    "z / z*": lambda z: z / z.conj(), "2 / z": lambda z: 2 / z, "z / 3": lambda z: z / 3, "z / 3j": lambda z: z / 3j,
    "z^-3": lambda z: 1 / z**3,
}  # fmt: skip
# Those that overflow, or turn many times, where |z| is large.
BOUNDED = ["exp", "exp2", "expm1", "logistic", "sinh", "cosh", "tanh", "sin", "cos", "tan", "z^-3"]


def _samples(real: Any, wide: bool) -> np.ndarray:
    """Normal numbers, numbers close to 1, -1, i and -i, small ones; and of every size, up to the largest."""
    r = np.random.default_rng(0)
    n = 2000
    turned = lambda size: size * np.exp(1j * r.uniform(-np.pi, np.pi, n))  # noqa: E731
    parts = [turned(r.normal(size=n)), *(at + turned(np.exp(r.uniform(-12, 0, n))) for at in (1, -1, 1j, -1j, 0))]
    if wide:
        least, most = (-85.0, 88.0) if real == np.float32 else (-700.0, 709.0)
        parts += [turned(np.exp(r.uniform(least, most, n)))]
        parts += [np.exp(r.uniform(least, most, n)) + 1j * np.exp(r.uniform(least, most, n))]  # of two sizes
    return np.concatenate(parts).astype("complex64" if real == np.float32 else "complex128")


@pytest.fixture
def libdevice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Real functions within 1 unit in the last place, as those of libdevice; XLA's on the CPU err by more."""
    names = {"atan2": "arctan2"} | {n: n for n in "exp exp2 expm1 log log1p sin cos sinh cosh sqrt".split()}

    def exact(name: str) -> Any:
        return lambda *x: jnp.asarray(getattr(np, name)(*(np.asarray(a, np.float64) for a in x)), x[0].dtype)

    own = {name: exact(fn) for name, fn in names.items()}
    monkeypatch.setattr(functions, "lax", types.SimpleNamespace(**{**vars(lax), **own}))


@pytest.mark.parametrize("real", [np.float32, np.float64])
def test_error_in_the_last_place(real: Any, libdevice: None) -> None:
    """Of |f(z)|, in units in the last place of 1."""
    narrow, wide = _samples(real, False), _samples(real, True)
    where = {name: narrow if name in BOUNDED else wide for name in ALL}
    parts = {name: (z.real, z.imag) for name, z in where.items()}
    worst = {}
    for name, fn in ALL.items():
        with np.errstate(all="ignore"):
            x, y = functions.filled(fn(tuple(map(jnp.asarray, parts[name]))))
        want = REFERENCES[name](where[name].astype(np.clongdouble))
        error = np.hypot(np.asarray(x, np.longdouble) - want.real, np.asarray(y, np.longdouble) - want.imag)
        size = np.maximum(np.abs(want), np.finfo(real).tiny / np.finfo(real).eps)
        worst[name] = float(np.max(error / size) / np.finfo(real).eps)
    assert max(worst.values()) < 3, worst


# Zeros of both signs, infinities, and both sides of every branch cut.
SPECIAL = np.array(
    [complex(x, y) for x in (0.0, -0.0, 1, -2, np.inf, -np.inf) for y in (0.0, -0.0, 1, -2, np.inf)], "complex64"
)
AS_JAX = ["abs", "exp", "log", "log1p", "sqrt", "sign", "sin", "cos", "asin", "acos", "asinh", "acosh", "atanh"]


def _in_parts(fn: Callable[..., Any], *zs: Any) -> Any:
    """fn(*zs) by `evaluate`, complex where it is."""
    closed, out = jax.make_jaxpr(fn, return_shape=True)(*zs)
    parts = evaluate(closed, [p for z in zs for p in (jnp.real(z), jnp.imag(z))])
    return lax.complex(*parts) if jnp.iscomplexobj(out) else parts[0]


def _identical(a: Any, b: Any, name: str) -> None:
    for x, y in ((np.real(a), np.real(b)), (np.imag(a), np.imag(b))):
        np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-6, err_msg=name)
        np.testing.assert_array_equal(np.signbit(x)[~np.isnan(x)], np.signbit(y)[~np.isnan(y)], err_msg=name)


def test_signs_and_infinities_are_those_of_jax() -> None:
    fns = {name: getattr(lax, name) for name in AS_JAX}
    got = jax.jit(lambda z: {k: _in_parts(f, z) for k, f in fns.items()})(SPECIAL)
    want = jax.jit(lambda z: {k: f(z) for k, f in fns.items()})(SPECIAL)
    for name in fns:
        _identical(got[name], want[name], name)


def test_arithmetic_before_a_branch_cut() -> None:
    """Real factors and terms keep an imaginary part 0 there: signs of zeros are those of JAX."""
    z = SPECIAL[np.isfinite(SPECIAL)]
    w, x = np.repeat(z, len(z)), np.tile(z, len(z))

    def sides(z: Any, w: Any) -> list[Any]:
        real = jnp.real(w).astype(z.dtype)
        made = [z + w, z - w, z * w, 2.0 * z, -2.0 * z, 1 - z, 1 + z, 1j * z, real * z, real + z, real]
        return [jnp.imag(jnp.log(jnp.where(jnp.abs(m) == 0, 1, m))) for m in made]

    closed = jax.make_jaxpr(sides)(w, x)
    run = lambda z, w: evaluate(closed, [jnp.real(z), jnp.imag(z), jnp.real(w), jnp.imag(w)])  # noqa: E731
    for k, (a, b) in enumerate(zip(run(w, x), sides(w, x), strict=True)):  # XLA would take 0 + x for x
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6, err_msg=str(k))


def _on_parts(desc: Description, args: Sequence[jax.Array]) -> Sequence[jax.Array]:
    """The description without complex numbers, run by the reference."""
    own = in_parts(desc)
    assert not any(jnp.issubdtype(a.dtype, jnp.complexfloating) for a in [*own.pair.in_avals, *own.outputs])
    return run_in_parts(desc, lambda args: dense.lower(own, None)(*args))(*args)


def _every_operation(u: Any, v: Any) -> dict[tuple[str, ...], Any]:
    """Sums of formulas of one dtype, a few in each kernel; by their names."""
    forms = {name: ours(Vi(u) + Vj(v)) for name, (ours, _) in ELEMENTWISE.items()}
    kinds = [[n for n, f in forms.items() if f.dtype.kind == k] for k in "cfb"]
    groups = [tuple(names[k : k + 12]) for names in kinds for k in range(0, len(names), 12)]
    return {names: LazyTensor.cat([forms[n] for n in names]).sum(axis=1) for names in groups}


def test_every_operation() -> None:
    run = lambda u, v: list(run_on(_every_operation, _on_parts, u, v).items())  # noqa: E731
    found: list[Any] = []
    out = jax.jit(lambda u, v: [found.append(k) or x for k, x in run(u, v)], compiler_options=UNOPTIMISED)(u, v[:1])
    for names, got in zip(found, out, strict=True):
        with np.errstate(all="ignore"):
            want = [ELEMENTWISE[n][1](U + v[:1]).sum(1) for n in names]
        ends = np.cumsum([w.shape[-1] for w in want])
        for name, own, each in zip(names, np.split(got, ends[:-1], axis=1), want, strict=True):
            close(own, each, 1e-9, name)


def test_every_operation_lowers() -> None:
    narrow = [a.astype("complex64") for a in (u, v)]
    run = lambda *a: list(_every_operation(*a).values())  # noqa: E731
    for platform in ("cuda", "rocm"):
        assert kernel_calls(lowered_for(platform, run, *narrow)) == len(jax.eval_shape(run, *narrow))


def test_derivatives_and_batches() -> None:
    """Of a function that is not holomorphic."""
    args = (u, v, np.asarray(0.3 + 0.2j))
    directions = (2 * u - 1j, 1j * v + 1, np.asarray(0.7 - 0.1j))

    def results(f: Any) -> dict[str, Any]:
        slope = jax.grad(lambda *a: jnp.sum(jnp.abs(f(*a)) ** 2) ** 0.5, (0, 1, 2))
        return {
            "gradient": slope(*args),
            "forward over reverse": jax.jvp(slope, args, directions)[1],
            "batches": jax.vmap(f, (0, None, None))(np.stack([u, 2 * u]), *args[1:]),
        }

    lazy = lambda *_: results(test_complex.lazy)  # noqa: E731
    got = jax.jit(lambda *a: run_on(lazy, _on_parts, *a), compiler_options=UNOPTIMISED)(*args)
    trees_close(got, jax.jit(lambda: results(test_complex.dense))(), 1e-9)


def test_kernel() -> None:
    """Interpreted, in tiles that divide nothing: complex arguments, accumulators and results of every role, a score
    that is complex, a batch, a gradient with respect to a parameter, and long features."""
    r = np.random.default_rng(0)
    z, w, c = (r.normal(size=s) + 1j * r.normal(size=s) for s in ((21, 2), (37, 2), (37, 1)))
    p, q = (0.2 * (r.normal(size=s) + 1j * r.normal(size=s)) for s in ((5, 36), (9, 36)))

    def ours(z: Any, w: Any, c: Any, s: Any) -> list[Any]:
        scores = Vi(z) | Vj(w)
        total = lambda s: (scores * s).exp() @ c  # noqa: E731
        return [
            total(s), jnp.exp(scores.logsumexp(axis=1)), scores.T.mean(axis=0),
            jax.vmap(lambda z: (Vi(z) - Vj(w)).abs().sum(axis="ij"))(jnp.stack([z, 1j * z])),
            jax.grad(lambda s: jnp.sum(jnp.abs(total(s))))(s),
        ]  # fmt: skip

    def reference(z: Any, w: Any, c: Any, s: Any) -> list[Any]:
        scores = z @ w.T
        total = lambda s: jnp.exp(scores * s) @ c  # noqa: E731
        return [
            total(s), jnp.exp(scores).sum(1)[:, None], scores.mean(1)[:, None],
            jnp.stack([jnp.abs(z[:, None] - w).sum((0, 1)), jnp.abs(1j * z[:, None] - w).sum((0, 1))]),
            jax.grad(lambda s: jnp.sum(jnp.abs(total(s))))(s),
        ]  # fmt: skip

    run = on_pallas(block_i=16, block_j=8, unroll=2, group=1, splits=2)
    args = (z, w, c, 0.3 - 0.2j)
    got = jax.jit(lambda *a: run_on(ours, run, *a), compiler_options=UNOPTIMISED)(*args)
    trees_close(got, reference(*args), 1e-9)
    walked = on_pallas(block_i=4, block_j=4, features=4)
    distances = lambda p, q: ((Vi(p) - Vj(q)).sqnorm2() * (Vi(p) | Vj(q)).exp()).sum(axis=1)  # noqa: E731
    want = ((np.abs(p[:, None] - q) ** 2).sum(-1) * np.exp(p @ q.T)).sum(1)[:, None]
    close(jax.jit(lambda *a: run_on(distances, walked, *a), compiler_options=UNOPTIMISED)(p, q), want, 1e-9)


def test_plans_and_refusals() -> None:
    z = jax.ShapeDtypeStruct((1000, 3), "complex64")
    (found,) = explain(lambda z: (Vi(z) | Vj(z)).exp().sum(axis=1), z, platform="cuda")
    assert found.plan.kernel == "pallas-triton"
    f = lambda z, backend=None: lift(lambda a, b: lax.cumprod(a * b))(Vi(z), Vj(z)).sum(axis=1, backend=backend)  # noqa: E731
    (found,) = explain(f, z, platform="cuda")
    reason = "cumprod of complex numbers is not written in real arithmetic"
    assert found.plan.kernel == "xla" and dict(found.plan.refused)["pallas-triton"] == reason
    with pytest.raises(ValueError, match=f"backend='triton-ir' cannot run this reduction on cuda: {reason}"):
        explain(lambda z: f(z, "triton-ir"), z, platform="cuda")


def test_the_second_emitter() -> None:
    z = jnp.asarray(u, "complex64")
    f = lambda z: (Vi(z) | Vj(z)).sqrt().exp().sum(axis=1, backend="triton-ir")  # noqa: E731
    assert kernel_calls(lowered_for("cuda", f, z)) == 1
