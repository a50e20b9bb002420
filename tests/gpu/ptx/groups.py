"""What is begun and waited for later: copies of a thread, matrix products of a warpgroup (ISA 8.8, 9.7.9.25, 9.7.15).

Those that a unit (a thread, a warpgroup) begins are committed together as a group, and groups are waited for in the
order in which they were committed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from .values import Array


@dataclasses.dataclass
class Pending:
    group: Array  # for each unit: of its groups, the one that this is or will be in
    units: Array  # whether a unit has begun it, and not waited for it
    finish: Callable[[Array], None]  # of the units that have


class Groups:
    def __init__(self, units: int):
        self.committed = np.zeros(units, np.int64)  # groups of each unit so far
        self.pending: list[Pending] = []

    def begin(self, units: Array, finish: Callable[[Array], None]) -> None:
        """Some units begin an operation; `finish` is called with those that have waited for it."""
        self.pending.append(Pending(self.committed.copy(), units.copy(), finish))

    def commit(self, units: Array) -> None:
        self.committed[units] += 1

    def wait(self, units: Array, left: int) -> None:
        """Until no more than `left` groups are pending; what was not committed is not waited for."""
        for each in self.pending:
            done = each.units & units & (each.group < self.committed - left)
            if done.any():
                each.units &= ~done
                each.finish(done)
        self.pending = [each for each in self.pending if each.units.any()]
