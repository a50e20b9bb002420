"""Methods of a LazyTensor on its features: indexing, joining, norms, and what has arguments to be checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ._errors import show, static_int


class Features:
    """Operations on the last axis, which is in memory pair by pair."""

    __slots__ = ()

    if TYPE_CHECKING:  # what LazyTensor has
        _record: Any
        _lift: Any
        _shape: Any
        norm2: Any

        def __sub__(self, other: Any) -> Any: ...

    def __getitem__(self, key: Any) -> Any:
        """Features by an int or a slice: x[..., k], x[..., a:b:c], x[:, :, k]; also x[k]."""
        if isinstance(key, tuple) or key is Ellipsis:
            key = self._feature_key(key if isinstance(key, tuple) else (key,))
        size = self._shape[-1]
        if isinstance(key, slice):
            for part, value in (("start", key.start), ("stop", key.stop), ("step", key.step)):
                if value is not None:
                    static_int(value, part, "indexing")
            start, stop, step = key.indices(size)
            if len(range(start, stop, step)) == 0:
                raise IndexError(
                    f"x[..., {key.start}:{key.stop}:{key.step}] is empty: the features are 0 to {size - 1}."
                )
        else:
            k = static_int(key, "the index", "indexing")
            if not -size <= k < size:
                raise IndexError(f"x[..., {k}]: index {k} is out of range for {size} features.")
            start, stop, step = k % size, k % size + 1, 1
        return self._record("take", start=start, stop=stop, step=step)

    def _feature_key(self, key: tuple[Any, ...]) -> Any:
        full = len(self._shape)
        if Ellipsis in [k for k in key if k is Ellipsis]:
            at = next(i for i, k in enumerate(key) if k is Ellipsis)
            key = (*key[:at], *[slice(None)] * (full - len(key) + 1), *key[at + 1 :])
        if len(key) != full or any(not (isinstance(k, slice) and k == slice(None)) for k in key[:-1]):
            raise IndexError(
                f"x[{', '.join(map(_show_index, key))}] on shape {self._shape}: only the last axis, the features, can "
                "be indexed; the axes of a LazyTensor's pairs are not in memory. Index the data before."
            )
        return key[-1]

    def elem(self, i: Any) -> Any:
        """Feature i, as a scalar."""
        i = static_int(i, "i", "elem")
        if not 0 <= i < self._shape[-1]:
            raise IndexError(f"elem({i}): index {i} is out of range for {self._shape[-1]} features.")
        return self[i]

    def extract(self, i: Any, d: Any) -> Any:
        """Features i to i + d."""
        i, d, size = static_int(i, "i", "extract"), static_int(d, "d", "extract"), self._shape[-1]
        if not (0 <= i < size and 1 <= d <= size - i):
            raise IndexError(f"extract({i}, {d}): features {i} to {i + d} are out of range for {size} features.")
        return self[i : i + d]

    def concat(self, other: Any) -> Any:
        """The features of self, then those of other."""
        return self._record("concat", other)

    @staticmethod
    def concatenate(tensors: Sequence[Any], axis: Any = -1) -> Any:
        """The features of several LazyTensors, one after the other; `axis` must be the last one."""
        tensors = list(tensors)
        if not tensors or not any(isinstance(t, Features) for t in tensors):
            raise ValueError(f"concatenate: expected a sequence with at least one LazyTensor, got {show(tensors)}.")
        first = next(t for t in tensors if isinstance(t, Features))
        if static_int(axis, "axis", "concatenate") not in (-1, len(first._shape) - 1):
            raise ValueError(f"concatenate: axis={axis}, expected -1: only features can be concatenated.")
        head, *rest = [first._lift(t, "concatenate") for t in tensors]
        return head._record("concat", *rest) if rest else head

    @staticmethod
    def cat(tensors: Sequence[Any], dim: Any = -1) -> Any:
        """`concatenate` under PyTorch's name."""
        return Features.concatenate(tensors, dim)

    # Methods with arguments that need a check.

    def norm(self, dim: Any = -1) -> Any:
        """The Euclidean norm over the features."""
        if static_int(dim, "dim", "norm") not in (-1, len(self._shape) - 1):
            raise ValueError(f"norm: dim={dim}, expected -1: a norm is over the features.")
        return self.norm2()

    def round(self, decimals: Any = 0) -> Any:
        """Round to `decimals` places, half away from zero."""
        return self._record("round", decimals=static_int(decimals, "decimals", "round"))

    def mod(self, modulus: Any, offset: Any = 0) -> Any:
        """x modulo `modulus`, in [offset, offset + modulus)."""
        return self._record("mod", modulus, offset)

    def weightedsqnorm(self, s: Any) -> Any:
        """s |x|^2 for a scalar s, sum_k s_k x_k^2 for D weights, x^T S x for D*D weights."""
        s = self._lift(s, "weightedsqnorm", "s")
        d, size = self._shape[-1], s._shape[-1]
        if size not in (1, d, d * d):
            raise ValueError(f"weightedsqnorm: s has {size} features, expected 1, D = {d} or D * D = {d * d}.")
        return self._record("weightedsqnorm", s)

    def weightedsqdist(self, y: Any, s: Any) -> Any:
        """`(x - y).weightedsqnorm(s)`."""
        return (self - y).weightedsqnorm(s)


def _show_index(k: Any) -> str:
    return ":" if isinstance(k, slice) and k == slice(None) else str(k)
