"""Plans that were measured: a table from the key of a description to the plan that ran fastest on this machine.

Nothing is measured here, and nothing is read unless a table is pinned (`pinned`): see `lazyjax.autotune`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import os
import platform as host
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from .description import Description

# What a table may say of a plan: fields of `xla.plan.XlaPlan` and the largest value that makes sense.
FIELDS = {"tile_i": 1 << 16, "tile_j": 1 << 16, "unroll": 64, "features": 64}
SHAPES = ("lanes", "block", "long", "long products")

Choice = tuple[tuple[str, Any], ...]  # sorted (field, value) pairs


@dataclasses.dataclass(frozen=True)
class Table:
    """Measured plans of one machine: immutable, so that what was compiled under it stays right."""

    entries: tuple[tuple[str, Choice], ...] = ()

    @functools.cached_property
    def _found(self) -> dict[str, Choice]:
        return dict(self.entries)

    def get(self, key: str) -> Choice | None:
        return self._found.get(key)

    def __len__(self) -> int:
        return len(self.entries)

    def with_entries(self, more: Mapping[str, Choice]) -> Table:
        """This table with some entries added or replaced."""
        return Table(tuple(sorted({**self._found, **more}.items())))


# Part of the key of every jit cache: what was compiled under one table is not used under another.
_pinned = jax.make_user_context(default_value=None)


@contextlib.contextmanager
def pinned(table: Table | None) -> Iterator[None]:
    """Plans come from this table where it has them; from the planner alone with None."""
    with _pinned(table):
        yield


def current() -> Table | None:
    """The table that is pinned."""
    return _pinned.value


def choice(desc: Description, platform: str) -> Choice | None:
    """What the pinned table says of a description."""
    table: Table | None = _pinned.value
    return None if table is None else table.get(key(desc, platform))


def checked(entry: Any) -> Choice | None:
    """An entry of a file as a choice; None where it says anything that a plan does not have."""
    if not isinstance(entry, dict):
        return None
    for field, value in entry.items():
        good = value in SHAPES if field == "shape" else type(value) is int and 1 <= value <= FIELDS.get(field, 0)
        if not good:
            return None
    return tuple(sorted(entry.items()))


def machine() -> str:
    """The machine, as far as plans depend on it."""
    return f"{host.machine()}, {host.processor() or 'cpu'}, {os.cpu_count()} cores, jax {jax.__version__}"


def key(desc: Description, platform: str) -> str:
    """What names a description in every process: platform, reduction, sizes by powers of two, roles, and a hash of the
    pair function as text, which holds the shapes and dtypes of its features."""
    bucket = [s.bit_length() if isinstance(s, int) else str(s) for s in (desc.m, desc.n, *desc.batch)]
    closed = desc.pair.jaxpr
    consts = [np.asarray(c).tobytes() for c in closed.consts]
    text = "\n".join([str(closed.jaxpr), *(str(hashlib.sha256(c).hexdigest()) for c in consts)])
    code = hashlib.sha256(text.encode()).hexdigest()[:16]
    return f"{platform} | {desc.reduction} | {desc.over} {''.join(desc.roles)} | {bucket} | {code}"
