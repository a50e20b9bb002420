"""Functions that Triton lacks, written with those that it has: for float32 and float64, in plain arithmetic.

erf, erfc and lgamma are those of FreeBSD's libm (Sun Microsystems, 1993: s_erf.c and e_lgamma_r.c), every branch being
computed and one selected; digamma is its asymptotic series (DLMF 5.11.2) after the recurrence (5.5.2), and below 0
the reflection (5.5.4).  Errors are within 4 units in the last place of the result, or of 1 where the result is smaller
than 1 near a zero; below 0, of the larger of the two terms whose difference the reflection takes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax


def _where(condition: Any, yes: Any, no: Any) -> Any:
    shape = np.shape(condition)
    full = [jnp.broadcast_to(jnp.asarray(x, _float_of(yes, no)), shape) for x in (yes, no)]
    return lax.select(condition, *full)


def _float_of(*xs: Any) -> Any:
    return next(x.dtype for x in xs if hasattr(x, "dtype"))


def _polynomial(x: Any, coefficients: Sequence[float]) -> Any:
    """c0 + c1 x + c2 x^2 + ..."""
    *rest, out = coefficients
    total: Any = out
    for c in reversed(rest):
        total = total * x + c
    return total


# erf(x) = x + x P(x^2) / Q(x^2) below 0.84375, c + P(s) / Q(s) with s = |x| - 1 up to 1.25, and beyond
# erfc(x) = exp(-x^2 - 0.5625 + R(1 / x^2) / S(1 / x^2)) / x, with other R and S from 1 / 0.35 on.
_ERF_1 = 8.45062911510467529297e-01
_ERF_P = [1.28379167095512558561e-01, -3.25042107247001499370e-01, -2.84817495755985104766e-02,
          -5.77027029648944159157e-03, -2.37630166566501626084e-05]  # fmt: skip
_ERF_Q = [1.0, 3.97917223959155352819e-01, 6.50222499887672944485e-02, 5.08130628187576562776e-03,
          1.32494738004321644526e-04, -3.96022827877536812320e-06]  # fmt: skip
_ERF_PA = [-2.36211856075265944077e-03, 4.14856118683748331666e-01, -3.72207876035701323847e-01,
           3.18346619901161753674e-01, -1.10894694282396677476e-01, 3.54783043256182359371e-02,
           -2.16637559486879084300e-03]  # fmt: skip
_ERF_QA = [1.0, 1.06420880400844228286e-01, 5.40397917702171048937e-01, 7.18286544141962662868e-02,
           1.26171219808761642112e-01, 1.36370839120290507362e-02, 1.19844998467991074170e-02]  # fmt: skip
_ERF_RA = [-9.86494403484714822705e-03, -6.93858572707181764372e-01, -1.05586262253232909814e+01,
           -6.23753324503260060396e+01, -1.62396669462573470355e+02, -1.84605092906711035994e+02,
           -8.12874355063065934246e+01, -9.81432934416914548592e+00]  # fmt: skip
_ERF_SA = [1.0, 1.96512716674392571292e+01, 1.37657754143519042600e+02, 4.34565877475229228821e+02,
           6.45387271733267880336e+02, 4.29008140027567833386e+02, 1.08635005541779435134e+02,
           6.57024977031928170135e+00, -6.04244152148580987438e-02]  # fmt: skip
_ERF_RB = [-9.86494292470009928597e-03, -7.99283237680523006574e-01, -1.77579549177547519889e+01,
           -1.60636384855821916062e+02, -6.37566443368389627722e+02, -1.02509513161107724954e+03,
           -4.83519191608651397019e+02]  # fmt: skip
_ERF_SB = [1.0, 3.03380607434824582924e+01, 3.25792512996573918826e+02, 1.53672958608443695994e+03,
           3.19985821950859553908e+03, 2.55305040643316442583e+03, 4.74528541206955367215e+02,
           -2.24409524465858183362e+01]  # fmt: skip


def _erf_parts(x: Any) -> tuple[Any, Any, Any, Any]:
    """(|x|, (erf(x) - x) / x where it is small, erf(|x|) - c in the middle, erfc(|x|) where it is large)."""
    a = lax.abs(x)
    z = a * a
    small = _polynomial(z, _ERF_P) / _polynomial(z, _ERF_Q)
    s = a - 1.0
    middle = _polynomial(s, _ERF_PA) / _polynomial(s, _ERF_QA)
    # exp(-x^2) as exp(-h^2) exp((h - x) (h + x)), h being x with so few bits that its square is exact.
    a_far = lax.max(a, lax.full_like(a, 1.25))
    bits, mask = (np.int32, -(1 << 13)) if x.dtype == np.float32 else (np.int64, -(1 << 32))
    high = lax.bitcast_convert_type(a_far, bits)
    h = lax.bitcast_convert_type(lax.bitwise_and(high, lax.full_like(high, mask)), x.dtype)
    r = 1.0 / (a_far * a_far)
    near = _polynomial(r, _ERF_RA) / _polynomial(r, _ERF_SA)
    far = _polynomial(r, _ERF_RB) / _polynomial(r, _ERF_SB)
    ratio = _where(a_far < 1 / 0.35, near, far)
    large = lax.exp(-h * h - 0.5625) * lax.exp((h - a_far) * (h + a_far) + ratio) / a_far
    return a, small, middle, _where(a_far > 28.0, 0.0, large)


def erf(x: Any, **_: Any) -> Any:
    a, small, middle, large = _erf_parts(x)
    beyond = _where(a < 1.25, _ERF_1 + middle, 1.0 - large)
    return _where(a < 0.84375, x + x * small, _where(x < 0, -beyond, beyond))


def erfc(x: Any, **_: Any) -> Any:
    a, small, middle, large = _erf_parts(x)
    beyond = _where(a < 1.25, (1 - _ERF_1) - middle, large)
    mirrored = _where(a < 1.25, (1 + _ERF_1) + middle, 2.0 - large)
    r = 1.0 - (x + x * small)
    near = _where(x < 0.25, r, 0.5 - (x * small + (x - 0.5)))
    return _where(a < 0.84375, near, _where(x < 0, mirrored, beyond))


# lgamma(x) for x > 0: polynomials around 2, 1.46163 (where it is smallest) and 1 below 2, rational functions of x - 2
# from 2 to 8 after the recurrence, and Stirling's series.
_A = [7.72156649015328655494e-02, 3.22467033424113591611e-01, 6.73523010531292681824e-02, 2.05808084325167332806e-02,
      7.38555086081402883957e-03, 2.89051383673415629091e-03, 1.19270763183362067845e-03, 5.10069792153511336608e-04,
      2.20862790713908385557e-04, 1.08011567247583939954e-04, 2.52144565451257326939e-05,
      4.48640949618915160150e-05]  # fmt: skip
_TC, _TF = 1.46163214496836224576e00, -1.21486290535849611461e-01
_T = [4.83836122723810047042e-01, -1.47587722994593911752e-01, 6.46249402391333854778e-02, -3.27885410759859649565e-02,
      1.79706750811820387126e-02, -1.03142241298341437450e-02, 6.10053870246291332635e-03, -3.68452016781138256760e-03,
      2.25964780900612472250e-03, -1.40346469989232843813e-03, 8.81081882437654011382e-04, -5.38595305356740546715e-04,
      3.15632070903625950361e-04, -3.12754168375120860518e-04, 3.35529192635519073543e-04]  # fmt: skip
_U = [-7.72156649015328655494e-02, 6.32827064025093366517e-01, 1.45492250137234768737e+00, 9.77717527963372745603e-01,
      2.28963728064692451092e-01, 1.33810918536787660377e-02]  # fmt: skip
_V = [1.0, 2.45597793713041134822e+00, 2.12848976379893395361e+00, 7.69285150456672783825e-01,
      1.04222645593369134254e-01, 3.21709242282423911810e-03]  # fmt: skip
_S = [-7.72156649015328655494e-02, 2.14982415960608852501e-01, 3.25778796408930981787e-01, 1.46350472652464452805e-01,
      2.66422703033638609560e-02, 1.84028451407337715652e-03, 3.19475326584100867617e-05]  # fmt: skip
_R = [1.0, 1.39200533467621045958e+00, 7.21935547567138069525e-01, 1.71933865632803078993e-01,
      1.86459191715652901344e-02, 7.77942496381893596434e-04, 7.32668430744625636189e-06]  # fmt: skip
_W = [4.18938533204672725052e-01, 8.33333333333329678849e-02, -2.77777777728775536470e-03, 7.93650558643019558500e-04,
      -5.95187557450339963135e-04, 8.36339918996282139126e-04, -1.63092934096575273989e-03]  # fmt: skip


def _lgamma_below_2(x: Any) -> Any:
    """For 0 < x < 2: y counts from 2, from the minimum or from 1; below 0.9 lgamma(x) = lgamma(x + 1) - log(x)."""
    shifted = x < 0.9
    z = _where(shifted, x + 1.0, x)  # rounded: y below is made from x itself
    from_2, from_1 = z >= 1.7316, z < 1.2316
    y2 = _where(shifted, 1.0 - x, 2.0 - x)
    square = y2 * y2
    around_2 = y2 * _polynomial(square, _A[0::2]) + square * _polynomial(square, _A[1::2]) - 0.5 * y2
    yc = _where(shifted, x - (_TC - 1.0), x - _TC)
    around_c = _TF + yc * yc * _polynomial(yc, _T)
    y1 = _where(shifted, x, x - 1.0)
    around_1 = -0.5 * y1 + y1 * _polynomial(y1, _U) / _polynomial(y1, _V)
    value = _where(from_2, around_2, _where(from_1, around_1, around_c))
    return _where(shifted, value - lax.log(x), value)


def lgamma(x: Any, **_: Any) -> Any:
    a = lax.abs(x)
    positive = lax.max(a, lax.full_like(a, np.finfo(x.dtype).tiny))
    low = _lgamma_below_2(lax.min(positive, lax.full_like(a, 2)))
    # 2 <= x < 8: lgamma(y + n) = lgamma(y + 2) + log((y + 2) ... (y + n - 1)).
    between = lax.clamp(lax.full_like(a, 2), positive, lax.full_like(a, 8))
    n = lax.floor(between)
    y = between - n
    product = lax.full_like(a, 1)
    for k in range(2, 7):
        product = _where(n > k, product * (y + float(k)), product)
    middle = 0.5 * y + y * _polynomial(y, _S) / _polynomial(y, _R) + lax.log(product)
    large = lax.max(positive, lax.full_like(a, 8))
    r = 1.0 / large
    stirling = (large - 0.5) * (lax.log(large) - 1.0) + (_W[0] + r * _polynomial(r * r, _W[1:]))
    out = _where(positive < 2, low, _where(positive < 8, middle, stirling))
    # lgamma(-x) = log(pi / (x |sin(pi x)|)) - lgamma(x)
    turn = a - lax.floor(a)
    sine = lax.sin(np.pi * lax.min(turn, 1.0 - turn))
    reflected = lax.log(np.pi / (positive * sine)) - out
    reflected = _where(turn == 0, np.inf, reflected)
    out = _where(x < 0, reflected, out)
    out = _where(a < 1e-30 if x.dtype == np.float32 else a < 1e-300, -lax.log(a), out)
    return _where(a == np.inf, np.inf, _where(x != x, np.nan, out))


# B_2k / 2k
_DIGAMMA = [1 / 12, -1 / 120, 1 / 252, -1 / 240, 1 / 132, -691 / 32760, 1 / 12, -3617 / 8160, 43867 / 14364,
            -174611 / 6600, 77683 / 276]  # fmt: skip


def digamma(x: Any, **_: Any) -> Any:
    negative = x <= 0
    z = _where(negative, 1.0 - x, x)
    steps = 7 if x.dtype == np.float64 else 4
    # The terms of the recurrence fall, so what an addition loses is known (Dekker's fast two-sum).
    total, lost, y = lax.full_like(x, 0), lax.full_like(x, 0), z
    for _step in range(steps):
        low = y < steps
        term = 1.0 / y
        new = total + term
        lost = _where(low, lost + (term - (new - total)), lost)
        total, y = _where(low, new, total), _where(low, y + 1.0, y)
    r = 1.0 / (y * y)
    series = r * _polynomial(r, _DIGAMMA if x.dtype == np.float64 else _DIGAMMA[:6])
    out = (lax.log(y) - total) - ((0.5 / y + series) + lost)
    turn = x - lax.floor(x + 0.5)  # exact, from the nearest integer
    small = lax.abs(turn) < 0.25
    tangent = lax.tan(np.pi * _where(small, lax.abs(turn), 0.5 - lax.abs(turn)))
    cotangent = _where(small, 1.0 / tangent, tangent)
    out = _where(negative, out - np.pi * _where(turn < 0, -cotangent, cotangent), out)
    return _where(negative & (turn == 0), np.nan, _where(x == np.inf, np.inf, out))


def round_(x: Any, *, rounding_method: Any) -> Any:
    a = lax.abs(x)
    low = lax.floor(a)
    part = a - low
    if rounding_method == lax.RoundingMethod.AWAY_FROM_ZERO:
        up = part >= 0.5
    else:
        odd = low * 0.5 != lax.floor(low * 0.5)
        up = (part > 0.5) | ((part == 0.5) & odd)
    out = _where(up, low + 1.0, low)
    return _where(x < 0, -out, out)


def known(eqn: Any) -> bool:
    """Whether an equation is one of a function below, on a dtype that it is written for."""
    dtype = np.dtype(eqn.outvars[0].aval.dtype)
    narrow = dtype.itemsize == 2 and dtype.kind in "fV"  # computed in float32
    return eqn.primitive.name in COMPOSITES and (narrow or dtype in (np.float32, np.float64))


# By primitive, called with its parameters.
COMPOSITES: dict[str, Callable[..., Any]] = {
    "erf": erf,
    "erfc": erfc,
    "lgamma": lgamma,
    "digamma": digamma,
    "round": round_,
    "log2": lambda x, **_: lax.log(x) * (1 / np.log(2)),
    "one_minus_square": lambda x, **_: (1.0 - x) * (1.0 + x),
}


def replaced(name: str, fn: Callable[..., Any]) -> Callable[..., Any]:
    """What computes a primitive: the function above, with the parameters that `fn` carries, or `fn` itself."""
    if name not in COMPOSITES or not isinstance(fn, functools.partial):
        return fn
    return functools.partial(COMPOSITES[name], **fn.keywords)
