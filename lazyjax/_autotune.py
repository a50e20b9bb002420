"""autotune: measure a few plans for every reduction of a function, and remember the fastest of each on this machine."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ._compat import trace_state_clean
from ._explain import explain
from .kernels import Description, planner, tuning
from .kernels.xla.plan import candidates

Timer = Callable[[Callable[[], Any]], float]


def default_path() -> pathlib.Path:
    """`lazyjax/plans.json` under XDG_CACHE_HOME, or under ~/.cache where that is not set."""
    root = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(root) / "lazyjax" / "plans.json"


def autotune(
    fn: Callable[..., Any],
    *args: Any,
    path: str | os.PathLike[str] | None = None,
    timer: Timer | None = None,
) -> tuning.Table:
    """Measure a few plans for every reduction in `fn(*args)`, and remember the fastest of each.

    Nothing is measured, read or remembered unless this is called; and what it found is used only inside
    `lazyjax.tuned()`. For every reduction of `fn`, derivatives included, it runs the planner's own plan and some others
    (smaller and larger tiles, another shape of the loop) on random data of the same shapes, so it takes seconds.

    Args:
        fn: any traceable function that reduces LazyTensors.
        *args: its arguments, arrays or LazyTensors.
        path: the file of plans, JSON; see `lazyjax.tuned`.
        timer: seconds that a call of no arguments takes; by default the median of three calls.

    Returns:
        The table of this machine, to be given to `lazyjax.tuned`.

    Raises:
        RuntimeError: inside jit, grad or vmap, where time cannot be measured.

    Example:
        >>> import jax.numpy as jnp, lazyjax, tempfile
        >>> x = jnp.ones((300, 3))
        >>> f = lambda x: lazyjax.Vi(x).sqdist(lazyjax.Vj(x)).argmin(axis=1)
        >>> file = tempfile.mkdtemp() + "/plans.json"
        >>> table = lazyjax.autotune(f, x, path=file, timer=lambda run: 1.0)
        >>> len(table)
        1
        >>> with lazyjax.tuned(file):
        ...     nearest = f(x)
    """
    if not trace_state_clean() or any(isinstance(x, Tracer) for x in jax.tree.leaves(args)):
        raise RuntimeError(
            "autotune: called while JAX traces a function, where nothing runs and so nothing can be timed. Call "
            "autotune(fn, *args) outside of jit, grad, vmap and scan, on arrays."
        )
    timer = _median if timer is None else timer
    file = default_path() if path is None else pathlib.Path(path)
    platform = {"gpu": "cuda"}.get(jax.default_backend(), jax.default_backend())
    found: dict[str, tuning.Choice] = {}
    with tuning.pinned(None):
        for one in explain(fn, *args, platform=platform):
            desc, name = one.description, tuning.key(one.description, platform)
            if name in found or one.plan.kernel != "xla" or 0 in (desc.m, desc.n, *desc.batch):
                continue
            found[name] = _fastest(desc, platform, one.arguments, timer)
    table = (_read(file) or tuning.Table()).with_entries(found)
    _write(file, table)
    return table


def _fastest(desc: Description, platform: str, avals: Sequence[Any], timer: Timer) -> tuning.Choice:
    random = np.random.default_rng(0)
    arrays = [jnp.asarray(random.uniform(0, 1, a.shape), a.dtype) for a in avals]
    best: tuple[float, tuning.Choice] | None = None
    for choice in candidates(desc, platform):
        with tuning.pinned(tuning.Table(((tuning.key(desc, platform), choice),))):
            run = jax.jit(planner.plan(desc, platform).lower(desc))
            jax.block_until_ready(run(*arrays))  # compiles
            taken = timer(lambda run=run: jax.block_until_ready(run(*arrays)))
        if best is None or taken < best[0]:
            best = taken, choice
    assert best is not None  # the planner's own plan is the first candidate
    return best[1]


def _median(run: Callable[[], Any]) -> float:
    times = []
    for _ in range(3):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


@contextlib.contextmanager
def tuned(plans: tuning.Table | str | os.PathLike[str] | bool = True) -> Iterator[tuning.Table | None]:
    """Inside it, reductions run by the plans that `autotune` remembered, where it has measured them.

    Args:
        plans: a table from `autotune`; the path of a file of plans; True for the default file (`lazyjax/plans.json` in
            the user's cache directory); False for the planner alone. A file that is not there holds no plans; one that
            cannot be read is left aside with a warning. Plans of other machines and versions of JAX are not used.

    What was compiled inside is not used outside, nor the other way round.

    Returns:
        A context manager whose value is the table, None where there is none.

    Raises:
        TypeError: for anything else.

    Example:
        >>> import lazyjax
        >>> with lazyjax.tuned(False) as table:
        ...     print(table)
        None
    """
    if isinstance(plans, tuning.Table):
        table: tuning.Table | None = plans
    elif isinstance(plans, bool):
        table = _read(default_path()) if plans else None
    elif isinstance(plans, str | os.PathLike):
        table = _read(pathlib.Path(plans))
    else:
        raise TypeError(
            f"tuned: got {type(plans).__name__}, expected a table from autotune, a path, True for the default file or "
            "False for the planner alone."
        )
    with tuning.pinned(table):
        yield table


# The file: {"version": 1, "machines": {machine: {key: {field: value}}}}.


def _read(file: pathlib.Path) -> tuning.Table | None:
    """The plans of this machine; None where there are none."""
    machines = _machines(file)
    entries = machines.get(tuning.machine(), {})
    table = {k: c for k, v in entries.items() if (c := tuning.checked(v)) is not None}
    return tuning.Table().with_entries(table) if table else None


def _machines(file: pathlib.Path) -> dict[str, dict[str, Any]]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        machines = content["machines"]
        if not all(isinstance(entries, dict) for entries in machines.values()):
            raise TypeError("a machine is not an object")
        return machines
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        warnings.warn(
            f"lazyjax: the file of plans {file} cannot be read ({type(error).__name__}: {error}); it is left aside. "
            "Delete it, or call lazyjax.autotune again to write a new one.",
            stacklevel=4,
        )
        return {}


def _write(file: pathlib.Path, table: tuning.Table) -> None:
    machines = _machines(file)
    machines[tuning.machine()] = {k: dict(choice) for k, choice in table.entries}
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_name(f"{file.name}.{os.getpid()}")
    new.write_text(json.dumps({"version": 1, "machines": machines}, indent=1, sort_keys=True), encoding="utf-8")
    os.replace(new, file)  # at once, so that another process never reads half of it
