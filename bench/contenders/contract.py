"""What a contender makes of a case."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable
from typing import Any


class Refused(Exception):
    """The contender cannot run this case; the text says why, and is shown in its place."""


@dataclasses.dataclass
class Run:
    """A case made ready, its data where the contender wants them.

    `call` computes and waits for the result. `compile` is called once before it and is a part of the first call: it
    returns what the compiler says about memory in bytes, where it says so.
    """

    call: Callable[[], Any]
    compile: Callable[[], dict[str, int]] = dict


def not_installed(*packages: str) -> str | None:
    """Why a contender is not there, None if it is."""
    absent = [p for p in packages if importlib.util.find_spec(p) is None]
    return f"{', '.join(absent)} not installed" if absent else None


def problem(problems: dict[str, Any], case: Any, name: str) -> Any:
    """A contender's own form of a problem."""
    if case.problem not in problems:
        raise Refused(f"{name} has no such computation here")
    return problems[case.problem]
