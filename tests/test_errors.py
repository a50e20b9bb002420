"""Every misuse raises at the call that is wrong, with what came, what was expected and what to do."""

# ruff: noqa: E501, PLW0108, RUF005  (a table: one misuse on one line, spelled as a user would)

import dataclasses
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lazyjax
from lazyjax import LazyTensor, Pm, Reduction, Vi, Vj

x, y = np.ones((6, 3)), np.ones((5, 3))
x_i, y_j = Vi(x), Vj(y)
K = ((x_i - y_j) ** 2).sum(-1)
z = Vi(x + 1j)
symbolic = ((Vi(0, 3) - Vj(1, 3)) ** 2).sum(-1)
BATCH = Vi(np.ones((2, 6, 3)))


@dataclasses.dataclass(frozen=True)
class Total(Reduction):
    """A sum, without a tangent."""

    def init(self, values):
        return jnp.zeros(values[0].shape, values[0].dtype)

    def lift(self, values, index):
        return values[0]

    def merge(self, a, b):
        return a + b

    def finalize(self, acc, values):
        return (acc,)


def traced(f):
    """f on a traced integer."""
    return lambda: jax.jit(f)(1)


def prints(a):
    jax.debug.print("{}", a)
    return a.sum()


def calls_back(a):
    return jax.pure_callback(lambda a: np.sum(a), jax.ShapeDtypeStruct((), a.dtype), a)


def in_a_mapped_axis(fn):
    return lambda: jax.vmap(lambda s: lazyjax.lift(fn)(x_i, s).sum(axis=0), axis_name="b")(np.ones((2, 3)))


SHAPES = {
    "2-D without axis": (lambda: LazyTensor(x), r"LazyTensor: f64\[6,3\] is a 2-D array, so axis is needed: axis=0 for an i-variable"),
    "neither i nor j": (lambda: LazyTensor(np.ones((6, 5, 3))), r"f64\[6,5,3\] has 6 at axis -3 and 5 at axis -2.*x\[\.\.\., :, None, :\]"),
    "axis with 3-D": (lambda: LazyTensor(x[:, None], axis=0), r"axis=0 was given with f64\[6,1,3\].*leave axis out"),
    "axis with a vector": (lambda: LazyTensor(x[0], axis=0), r"f64\[3\] with axis=0. A vector is a parameter.*x\[:, None\]"),
    "axis with a number": (lambda: LazyTensor(2.0, axis=1), r"a number is a parameter, so axis=1 must not be given"),
    "axis with a LazyTensor": (lambda: LazyTensor(x_i, axis=0), r"LazyTensor already, so axis=0 must not be given"),
    "axis=2": (lambda: LazyTensor(x, axis=2), r"axis=2, expected 0 \(i-variable\) or 1"),
    "axis=-1": (lambda: LazyTensor(x, axis=-1), r"axis=-1, expected 0"),
    "Vi of a vector": (lambda: Vi(x[0]), r"Vi: f64\[3\] is not an i-variable \(\*B, M, D\).*x\[:, None\]"),
    "Vj of a 0-D array": (lambda: Vj(np.float64(1)), r"Vj: f64\[\] is not a j-variable"),
    "Vi, two features missing": (lambda: Vi(x, feature_ndim=2), r"f64\[6,3\] is not an i-variable \(\*B, M, D1, D2\)"),
    "Pm, two features missing": (lambda: Pm(x[0], feature_ndim=2), r"f64\[3\] has fewer axes than feature_ndim=2"),
    "feature_ndim=0": (lambda: Vi(x, feature_ndim=0), r"feature_ndim=0, expected at least 1"),
    "symbolic feature_ndim": (lambda: Vi(0, 3, feature_ndim=2), r"feature_ndim=2, expected 1"),
    "negative symbolic index": (lambda: Vi(-1, 3), r"Vi\(-1, 3\): expected an index of at least 0"),
    "symbolic dim 0": (lambda: Vj(0, 0), r"Vj\(0, 0\).*a dim of at least 1"),
    "M differs": (lambda: x_i + Vi(x[:4]), r"\+: the i-variables of the operands have M = 6 and M = 4 rows"),
    "N differs": (lambda: x_i * y_j - Vj(y[:4]), r"-: the j-variables of the operands have N = 5 and N = 4 rows"),
    "batch differs": (lambda: BATCH * Vj(np.ones((4, 5, 3))), r"\*: batch dims \(2,\) and \(4,\) do not broadcast"),
    "D differs": (lambda: x_i - y_j[..., :2], r"-: operands have 3 and 2 features; their sizes must be equal, or 1"),
    "D of |": (lambda: x_i | y_j[..., :2], r"\|: operands have 3 and 2 features"),
    "D of **": (lambda: x_i ** y_j[..., :2], r"\*\*: operands have 3 and 2 features"),
    "D of sqdist": (lambda: x_i.sqdist(y_j[..., :2]), r"sqdist: operands have 3 and 2 features"),
    "D of where": (lambda: (x_i > 0).where(y_j[..., :2], 0), r"where: operands have 3 and 2 and 1 features"),
    "2-D operand": (lambda: x_i * x, r"\*: other is f64\[6,3\], a 2-D array.*Vi\(x\) for \(M, D\), Vj\(x\) for \(N, D\)"),
    "3-D operand": (lambda: x_i * np.ones((6, 5, 3)), r"\*: other: f64\[6,5,3\] has 6 at axis -3"),
    "weightedsqnorm": (lambda: x_i.weightedsqnorm(np.ones(4)), r"weightedsqnorm: s has 4 features, expected 1, D = 3 or D \* D = 9"),
    "empty concatenate": (lambda: LazyTensor.concatenate([]), r"concatenate: expected a sequence with at least one LazyTensor, got list \[\]"),
    "concatenate arrays": (lambda: LazyTensor.cat([x[0]]), r"concatenate: expected a sequence with at least one LazyTensor"),
    "concatenate rows": (lambda: LazyTensor.cat([x_i, y_j], dim=0), r"concatenate: axis=0, expected -1: only features"),
    "concatenate M": (lambda: LazyTensor.cat([x_i, Vi(x[:2])]), r"concat: the i-variables of the operands have M = 6 and M = 2"),
    "norm(0)": (lambda: x_i.norm(0), r"norm: dim=0, expected -1"),
    "softmax(0)": (lambda: x_i.softmax(0), r"softmax: only over the features \(axis=-1\).*sumsoftmaxweight"),
    "no axis": (lambda: K.min_argmin(), r"min_argmin: axis is missing, expected 0 or 'i' for the i axis, 1 or 'j' for the j axis"),
    "axis=3": (lambda: K.sum(axis=3), r"sum: axis=3 is not an axis to reduce, expected 0 or 'i'.*\(6, 5, 1\)"),
    "axis='k'": (lambda: K.sum(axis="k"), r"sum: axis='k', expected 0 or 'i' for the i axis"),
    "axis=(0, 0)": (lambda: K.sum(axis=(0, 0)), r"sum: axis=\(0, 0\), expected.*\('i', 'j'\) for both"),
    "axis and dim": (lambda: K.sum(axis=0, dim=1), r"sum: axis=0 and dim=1 are two names of the same thing"),
    "var without axis": (lambda: K.var_reduction(), r"var_reduction: axis is missing"),
    "a batch dim": (lambda: BATCH.sum(axis=0), r"sum: axis=0 is a batch dim of shape \(2, 6, 1, 3\). Reduce, then"),
    "argmin over both": (lambda: K.argmin(axis=(0, 1)), r"argmin: it cannot reduce both axes at once; reduce one, then the result. Over both go sum"),
    "Kmax over both": (lambda: K.Kmax(2, axis="ij"), r"Kmax: it cannot reduce both axes at once"),
    "no name of a reduction": (lambda: K.reduction("Summ", axis=1), r"reduction: reduction='Summ', expected one of Sum, LogSumExp"),
    "a monoid over both": (lambda: K.reduction(Total(), axis="ij"), r"reduction: it cannot reduce both axes at once"),
    "sum_scheme of no name": (lambda: K.sum(axis=1, sum_scheme="pairwise"), r"sum: sum_scheme='pairwise', expected one of 'auto', 'direct_sum', 'block_sum', 'kahan_scheme'"),
    "sum_scheme of a minimum": (lambda: K.min(axis=1, sum_scheme="kahan_scheme"), r"min: sum_scheme='kahan_scheme' is not available; it is an option of sum"),
    "sum_scheme of var": (lambda: K.var(axis=1, sum_scheme="block_sum"), r"var: sum_scheme='block_sum' is not available"),
    "dtype_acc of no name": (lambda: K.sum(axis=1, dtype_acc="float128x"), r"sum: dtype_acc=float128x, expected 'auto' or one of 'float32', 'float64'"),
    "dtype_acc is a list": (lambda: K.sum(axis=1, dtype_acc=[2]), r"sum: dtype_acc=list \[2\], expected 'auto'"),
    "dtype_acc is short": (lambda: K.sum(axis=1, dtype_acc="float16"), r"sum: dtype_acc=float16, expected 'auto'"),
    "dtype_acc is narrower": (lambda: K.sum(axis=1, dtype_acc="float32"), r"sum: dtype_acc='float32' is narrower than the values of the formula, which are float64"),
    "dtype_acc and use_double_acc": (lambda: K.sum(axis=1, dtype_acc="float32", use_double_acc=True), r"use_double_acc=True and dtype_acc='float32' contradict each other"),
    "dtype_acc of a monoid": (lambda: K.reduction(Total(), axis=1, dtype_acc="float64"), r"reduction: dtype_acc is not available. The reduction itself chooses"),
    "argKmin over D": (lambda: x_i.argKmin(2, axis=-1), r"argKmin: the features cannot be reduced by it; give the i or the j axis"),
    "K = 0": (lambda: K.Kmin(0, axis=1), r"Kmin: K=0, expected at least 1"),
    "alias without axis": (lambda: K.sum_reduction(), r"sum_reduction: axis is missing; give the i or the j axis"),
    "Kmin alias without axis": (lambda: K.Kmin_reduction(3), r"Kmin_reduction: axis is missing"),
    "logsumexp weight": (lambda: x_i.logsumexp(axis=0, weight=x[0]), r"logsumexp: with a weight the formula must be scalar, but it has 3 features"),
    "sumsoftmaxweight": (lambda: x_i.sumsoftmaxweight(x[0], axis=0), r"sumsoftmaxweight: with a weight the formula must be scalar"),
    "weight of other size": (lambda: K.logsumexp(axis=1, weight=Vj(y[:4])), r"logsumexp of a formula and its weight: the j-variables .* N = 5 and N = 4"),
    "weight is 2-D": (lambda: K.sumsoftmaxweight(y, axis=1), r"sumsoftmaxweight: weight is f64\[5,3\], a 2-D array.*Vj\(x\)"),
    "weight over D": (lambda: K.logsumexp(axis=-1, weight=y_j), r"logsumexp: a weight has no meaning over the features"),
    "unknown backend": (lambda: K.sum(axis=1, backend="GPU"), r"sum: backend='GPU', expected None or 'auto'.*jax.device_put"),
    "K @ b length": (lambda: K @ np.ones(4), r"K @ b: b is f64\[4\], expected \(5,\) or \(\*B, 5, E\) for K of shape \(6, 5\)"),
    "K @ b rows": (lambda: K @ np.ones((6, 2)), r"K @ b: b is f64\[6,2\], expected \(5,\)"),
    "K @ b 0-D": (lambda: K @ np.float64(1), r"K @ b: b is f64\[\], expected \(5,\)"),
    "b @ K length": (lambda: np.ones(5) @ K, r"b @ K: b is f64\[5\], expected \(6,\)"),
    "rmatvec length": (lambda: K.rmatvec(np.ones(5)), r"rmatvec: b is f64\[5\], expected \(6,\)"),
    "vector formula @ b": (lambda: x_i @ np.ones(6), r"K @ b: K has 3 features, expected a scalar formula.*\(K \* Vj\(b\)\)\.sum\(axis=1\)"),
    "batch_axes without batch": (lambda: lazyjax.batch_axes(K), r"batch_axes: the LazyTensor has shape \(6, 5\), without a batch dim"),
    "batch_axes of a size 1": (lambda: lazyjax.batch_axes(BATCH * Pm(np.ones((1, 3)))), r"batch_axes: f64\[1,3\] has size 1 along the first batch dim"),
    "symbolic, wrong D": (lambda: symbolic.sum(axis=1)(x, y[:, :2]), r"variable 1: f64\[5,2\] has 2 features, expected 3"),
    "symbolic, a vector": (lambda: symbolic.sum(axis=1)(x[0], y), r"variable 0: f64\[3\] is not an i-variable"),
    "symbolic, M differs": (lambda: (Vi(0, 3) - Vi(1, 3)).sum(axis=1)(x, y), r"the i-variables of the operands have M = 6 and M = 5"),
}  # fmt: skip

TYPES = {
    "None": (lambda: LazyTensor(None), r"LazyTensor: expected an array, got NoneType None"),
    "a string": (lambda: LazyTensor("x"), r"LazyTensor: expected an array, got str 'x'"),
    "ragged lists": (lambda: LazyTensor([[1.0], [1.0, 2.0]]), r"LazyTensor: expected an array, got list"),
    "an object": (lambda: Vi(object()), r"Vi: expected an array, got object"),
    "an abstract array": (lambda: Vi(jax.ShapeDtypeStruct((6, 3), np.float32)), r"Vi: expected an array, got f32\[6,3\]"),
    "a LazyTensor": (lambda: Vj(x_i), r"Vj: got a LazyTensor.*Use the LazyTensor as it is"),
    "Vi of a number": (lambda: Vi(3), r"Vi: got int 3 where an array \(\*B, M, D\) was expected.*Vi\(3, dim\)"),
    "strings": (lambda: Vi(np.array([["a"]])), r"Vi: dtype <U1 of .* is not one that a formula can hold. Use one of float16"),
    "objects": (lambda: Vi(np.array([[None]])), r"Vi: dtype object"),
    "structured": (lambda: Vi(np.zeros((2, 1), [("a", "f4")])), r"Vi: dtype \[\('a', '<f4'\)\]"),
    "dates": (lambda: Vi(np.zeros((2, 1), "M8[s]")), r"Vi: dtype datetime64\[s\]"),
    "long double": (lambda: Vi(np.zeros((2, 1), np.longdouble)), r"Vi: dtype float128"),
    "float8": (lambda: Vi(jnp.ones((2, 1), jnp.float8_e4m3fn)), r"Vi: dtype float8_e4m3fn of .*Use one of float16"),
    "int4": (lambda: Vi(jnp.ones((2, 1), jnp.int4)), r"Vi: dtype int4"),
    "random keys": (lambda: Vi(jax.random.split(jax.random.key(0), (2, 1))), r"Vi: dtype key<fry> of key<fry>\[2,1\]"),
    "a random key operand": (lambda: x_i + jax.random.key(0), r"\+: other: dtype key<fry>"),
    "axis='i'": (lambda: LazyTensor(x, axis="i"), r"LazyTensor: axis must be an int, got str 'i'"),
    "axis=True": (lambda: LazyTensor(x, axis=True), r"LazyTensor: axis must be an int, got bool True"),
    "axis is an array": (lambda: LazyTensor(x, axis=np.zeros(2)), r"LazyTensor: axis must be an int, got f64\[2\]"),
    "axis is traced": (traced(lambda k: LazyTensor(x, axis=k)), r"LazyTensor: axis is a traced value .*must be known.*static_argnums"),
    "feature_ndim=1.0": (lambda: Vi(x, feature_ndim=1.0), r"Vi: feature_ndim must be an int, got float 1\.0"),
    "dim is traced": (traced(lambda k: Vi(0, k)), r"Vi: dim is a traced value"),
    "index with dim is data": (lambda: Vi(x, 3), r"Vi: index must be an int, got f64\[6,3\]"),
    "+ None": (lambda: x_i + None, r"\+: other is NoneType None, expected a LazyTensor, an array or a number"),
    "== str": (lambda: x_i == "a", r"==: other is str 'a'"),
    "* dict": (lambda: x_i * {}, r"\*: other is dict \{\}"),
    "+ ragged": (lambda: x_i + [[1], [1, 2]], r"\+: other: expected an array, got list"),
    "concat None": (lambda: x_i.concat(None), r"concat: other is NoneType None"),
    "~ of a number": (lambda: ~x_i, r"~x: x is float64, expected bool. Write \(x == 0\)"),
    "& of numbers": (lambda: x_i & x_i, r"x & y: dtypes float64 and float64, expected bool and bool"),
    "too many operands": (lambda: x_i.exp(2), r"exp takes 0 more operands, got 1"),
    "too few operands": (lambda: x_i.clamp(0), r"clamp takes 2 more operands, got 1"),
    "bool()": (lambda: bool(K), r"truth value of a LazyTensor of shape \(6, 5\) is ambiguous.*combine conditions with & and \|"),
    "if": (lambda: 1 if x_i == y_j else 0, r"truth value of a LazyTensor"),
    "iteration": (lambda: list(x_i), r"cannot be iterated: its rows are not in memory. Index features"),
    "in": (lambda: 3 in x_i, r"`in` is not available on a LazyTensor of shape \(6, 1, 3\).*Write \(K == 3\)\.any\(axis=1\)"),
    "hash": (lambda: hash(x_i), r"unhashable type"),
    "np.asarray": (lambda: np.asarray(K), r"LazyTensor of shape \(6, 5\) is not an array: its values are not computed. Reduce it first"),
    "jnp.asarray": (lambda: jnp.asarray(K), r"LazyTensor of shape \(6, 5\) is not an array"),
    "jnp.exp": (lambda: jnp.exp(K), r"LazyTensor"),
    "np.sum": (lambda: np.sum(K), r"np\.sum of a LazyTensor needs an axis: write K\.sum\(axis='j'\)"),
    "np.median": (lambda: np.median(K), r"np\.median is not available on a LazyTensor.*Use its methods.*lazyjax\.lift.*K\.dense\(\)"),
    "np.where of one": (lambda: np.where(K), r"np\.where is not available on a LazyTensor"),
    "np.add.reduce": (lambda: np.add.reduce(K), r"np\.add\.reduce is not available on a LazyTensor.*lazyjax\.lift"),
    "np.gcd": (lambda: np.gcd(K, 2), r"np\.gcd is not available on a LazyTensor"),
    "out=": (lambda: np.exp(K, out=np.ones((6, 5))), r"np\.exp is not available on a LazyTensor with out"),
    "floor of complex": (lambda: z.floor(), r"floor is not defined for features c128\[3\]"),
    "complex < real": (lambda: z < 1, r"<: the features are complex128 and .*complex numbers have no order"),
    "relu of complex": (lambda: z.relu(), r"relu: the features are complex128.*no order"),
    "min of complex": (lambda: z.min(axis=0), r"min: the formula is complex128, and complex numbers have no order"),
    "max of complex features": (lambda: z.max(-1), r"max: the features are complex128"),
    "argKmin of complex": (lambda: z.argKmin(2, axis=0), r"argKmin: the formula is complex128"),
    "an index that is a float": (lambda: x_i[..., 1.0], r"indexing: the index must be an int, got float 1\.0"),
    "an index that is a list": (lambda: x_i[..., [0, 1]], r"indexing: the index must be an int, got list \[0, 1\]"),
    "an index that is a mask": (lambda: x_i[np.ones(3, bool)], r"indexing: the index must be an int, got bool\[3\]"),
    "a traced index": (traced(lambda k: x_i[..., k].sum(axis=0)), r"indexing: the index is a traced value"),
    "a traced slice": (traced(lambda k: x_i[..., :k].sum(axis=0)), r"indexing: stop is a traced value"),
    "a traced elem": (traced(lambda k: x_i.elem(k).sum(axis=0)), r"elem: i is a traced value"),
    "a traced extract": (traced(lambda k: x_i.extract(0, k).sum(axis=0)), r"extract: d is a traced value"),
    "round(0.5)": (lambda: x_i.round(0.5), r"round: decimals must be an int, got float 0\.5"),
    "axis=1.0": (lambda: K.sum(axis=1.0), r"sum: axis must be an int, got float 1\.0"),
    "axis is True": (lambda: K.sum(axis=True), r"sum: axis must be an int, got bool True"),
    "a traced axis": (traced(lambda k: K.sum(axis=k)), r"sum: axis is a traced value"),
    "K = 2.0": (lambda: K.Kmin(2.0, axis=1), r"Kmin: K must be an int, got float 2\.0"),
    "ddof is a string": (lambda: K.var(axis=1, ddof="1"), r"var: ddof=str '1', expected a number"),
    "a traced ddof": (traced(lambda k: K.std(axis=1, ddof=k)), r"std: ddof=.*known when the formula is written"),
    "keepdims=None": (lambda: K.sum(axis=1, keepdims=None), r"sum: keepdims=NoneType None, expected True"),
    "use_double_acc=1": (lambda: K.sum(axis=1, use_double_acc=1), r"sum: use_double_acc=int 1, expected True or False"),
    "Kmax of complex": (lambda: z.Kmax(2, axis=0), r"Kmax: the formula is complex128"),
    "a traced K": (traced(lambda k: K.argKmin(k, axis=1)), r"argKmin: K is a traced value .*static_argnums"),
    "K @ LazyTensor": (lambda: K @ y_j, r"K @ b: b is a LazyTensor, expected an array.*\(K \* f\)\.sum\(axis=1\)"),
    "K @ number": (lambda: K @ 2, r"K @ b: b is int 2, expected an array"),
    "K @ None": (lambda: K @ None, r"K @ b: b is NoneType None"),
    "K @ strings": (lambda: K @ np.array(["a"] * 5), r"K @ b: dtype <U1"),
    "symbolic, too few": (lambda: symbolic.sum(axis=1)(x), r"symbolic variables Vi\(0, 3\), Vj\(1, 3\), so it needs 2 arrays.*got 1"),
    "symbolic, too many": (lambda: symbolic.sum(axis=1)(x, y, y), r"needs 2 arrays.*got 3"),
    "no weight": (lambda: K.sumsoftmaxweight(None, axis=1), r"sumsoftmaxweight: weight is None, expected a LazyTensor or an array"),
    "not a reduction": (lambda: K.reduction(max, axis=1), r"reduction: got .*expected an instance of a subclass of lazyjax\.Reduction"),
    "opt_arg of a sum": (lambda: K.reduction("Sum", axis=1, opt_arg=2), r"reduction: opt_arg=2 has no meaning for Sum"),
    "opt_arg of a monoid": (lambda: K.reduction(Total(), axis=1, opt_arg=2), r"reduction: opt_arg=2 has no meaning for a monoid"),
    "no opt_arg": (lambda: K.reduction("KMin", axis=1), r"reduction: opt_arg is missing: how many values KMin returns"),
    "no weight of a name": (lambda: K.reduction("SumSoftMaxWeight", axis=1), r"reduction: weight=.*None.*is missing for SumSoftMaxWeight"),
    "a reduction's class": (lambda: K.reduction(Total, axis=1), r"reduction: got .*expected an instance"),
    "a reduction without tangent": (lambda: jax.grad(lambda x: Vi(x).reduction(Total(), axis=0)[0].sum())(x),
                                    r"Total was differentiated, but it defines no derivative. Define Total\.tangent.*stop_gradient"),
    "batch_axes of an array": (lambda: lazyjax.batch_axes(x), r"batch_axes: got f64\[6,3\], expected a LazyTensor"),
    "lift of no function": (lambda: lazyjax.lift(2), r"lift: expected a function of the features of one pair, got int 2"),
    "lift without arguments": (lambda: lazyjax.lift(jnp.sum)(), r"lift\(sum\): no arguments"),
    "lift of arrays": (lambda: lazyjax.lift(jnp.sum)(x), r"lift\(sum\): none of the 1 arguments is a LazyTensor; wrap one"),
    "lift of None": (lambda: lazyjax.lift(jnp.add)(x_i, None), r"lift\(add\): argument 1 is NoneType None"),
    "lift with effects": (lambda: lazyjax.lift(prints)(x_i), r"lift\(prints\): the function (has side effects|calls back)"),
    "lift with a callback": (lambda: lazyjax.lift(calls_back)(x_i), r"lift\(calls_back\): the function calls back to Python \(pure_callback\)"),
    "lift with a collective": (in_a_mapped_axis(lambda a, s: jax.lax.psum(a.sum() * s.sum(), "b")), r"communicates between devices \(psum"),
    "lift with an axis index": (in_a_mapped_axis(lambda a, s: a.sum() * s.sum() + jax.lax.axis_index("b")), r"communicates between devices \(axis_index\)"),
}  # fmt: skip

INDICES = {
    "x[..., 3]": (lambda: x_i[..., 3], r"x\[\.\.\., 3\]: index 3 is out of range for 3 features"),
    "x[..., -4]": (lambda: x_i[..., -4], r"index -4 is out of range for 3 features"),
    "x[..., 2:2]": (lambda: x_i[..., 2:2], r"is empty: the features are 0 to 2"),
    "rows": (lambda: x_i[0, :, :], r"the rows: got 0, which would drop the i axis, but a LazyTensor has both. Keep it with 0:1, or .*at_pairs"),
    "too many axes": (lambda: x_i[:, :, :, 0], r"on shape \(6, 1, 3\): only the last axis"),
    "two ellipses": (lambda: x_i[..., ..., 0], r"only the last axis"),
    "elem(3)": (lambda: x_i.elem(3), r"elem\(3\): index 3 is out of range for 3 features"),
    "elem(-1)": (lambda: x_i.elem(-1), r"elem\(-1\): index -1 is out of range"),
    "extract(1, 3)": (lambda: x_i.extract(1, 3), r"extract\(1, 3\): features 1 to 4 are out of range for 3 features"),
    "extract(0, 0)": (lambda: x_i.extract(0, 0), r"extract\(0, 0\).*out of range"),
}  # fmt: skip


@pytest.mark.parametrize("misuse", SHAPES)
def test_shapes_raise_valueerror(misuse):
    call, message = SHAPES[misuse]
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("misuse", TYPES)
def test_types_raise_typeerror(misuse):
    call, message = TYPES[misuse]
    with pytest.raises(TypeError, match=message):
        call()


@pytest.mark.parametrize("misuse", INDICES)
def test_indices_raise_indexerror(misuse):
    call, message = INDICES[misuse]
    with pytest.raises(IndexError, match=message):
        call()


# The options of KeOps.

REFUSED = {
    "device_id": (0, r"jax\.device_put\(x, jax\.devices\(\)\[k\]\)"),
    "out": (x, r"use the returned array"),
}


@pytest.mark.parametrize("option", REFUSED)
def test_options_are_refused(option):
    value, remedy = REFUSED[option]
    reductions = {
        "sum": K.sum, "min": K.min, "argmax": K.argmax, "logsumexp": K.logsumexp,
        "argKmin": lambda **kwargs: K.argKmin(2, **kwargs), "matvec": lambda axis, **kwargs: K.matvec(y[:, 0], **kwargs),
        "sumsoftmaxweight": lambda **kwargs: K.sumsoftmaxweight(y_j, **kwargs),
    }  # fmt: skip
    for name, reduce in reductions.items():
        with pytest.raises(TypeError, match=rf"{name}: the option {option}=.* is not available; .*{remedy}"):
            reduce(axis=1, **{option: value})


def test_unknown_options_are_refused():
    with pytest.raises(
        TypeError,
        match=r"sum: unknown option 'axes'; the options are axis, dim, backend, keepdims, call, ranges, dtype_acc",
    ):
        K.sum(axes=1)
    with pytest.raises(TypeError, match=r"matvec: unknown option 'axes'"):
        K.matvec(y[:, 0], axes=1)


def test_options_that_change_nothing_are_accepted():
    total = K.sum(axis=1)
    for options in ({"enable_chunks": False}, {"backend": "auto"}, {"backend": None}, {"out": None}, {"ranges": None},
                    {"device_id": None}, {"dtype_acc": "auto"}, {"use_double_acc": False}, {"sum_scheme": "auto"},
                    {"use_fast_math": True}, {"use_fast_math": False}, {"precision": "fast"},
                    {"precision": "exact"}, {"call": True}, {"keepdims": True}, {"sum_scheme": "block_sum"}):  # fmt: skip
        np.testing.assert_array_equal(K.sum(axis=1, **options), total)


def test_options_over_the_features_are_refused():
    with pytest.raises(TypeError, match=r"sum: options \['backend'\] have no meaning over the features"):
        K.sum(-1, backend="xla")
    for name in ("sum", "mean", "prod", "var", "std", "any", "all", "count_nonzero", "min"):
        with pytest.raises(TypeError, match=rf"{name}: options \['keepdims'\] have no meaning over the features"):
            getattr(x_i, name)(-1, keepdims=False)


def test_accumulators_in_double_need_x64():
    with jax.enable_x64(False):
        for options in ({"dtype_acc": "float64"}, {"dtype_acc": np.float64}, {"use_double_acc": True}):
            with pytest.raises(ValueError, match=r"needs float64.*jax_enable_x64.*sum_scheme='kahan_scheme'"):
                K.sum(axis=1, **options)


def test_precision_is_fast_or_exact():
    with pytest.raises(ValueError, match=r"sum: precision='high', expected 'fast' \(.*\) or 'exact'"):
        K.sum(axis=1, precision="high")
    with pytest.raises(TypeError, match=r"sum: use_fast_math=int 0, expected True \(precision='fast'\) or False"):
        K.sum(axis=1, use_fast_math=0)
    with pytest.raises(ValueError, match=r"precision='fast' and use_fast_math=False contradict each other; give one"):
        K.sum(axis=1, precision="fast", use_fast_math=False)


def test_a_lifted_function_cannot_be_pickled():
    with pytest.raises(TypeError, match=r"lift\(pair\) cannot be pickled.*write the formula again"):
        pickle.dumps(lazyjax.lift(pair)(x_i, y_j))


def pair(a, c):
    return (a * c).sum()
