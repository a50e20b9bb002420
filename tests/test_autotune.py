"""autotune remembers what a timer preferred, by machine, and nothing is used unless it is asked for."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lazyjax
from lazyjax import Vi, Vj, explain
from lazyjax.kernels import tuning
from lazyjax.kernels.xla.plan import candidates


def _f(x: Any) -> Any:
    return (-Vi(x).sqdist(Vj(x))).exp().sum(axis=1)


X = jnp.asarray(np.random.default_rng(0).normal(size=(60, 3)))


class Prefers:
    """A timer to which the k-th call is the fastest."""

    def __init__(self, k: int):
        self.k, self.calls = k, 0

    def __call__(self, run: Any) -> float:
        self.calls += 1
        return 1.0 if self.calls - 1 == self.k else 2.0


def _tiles(f: Any = _f) -> Any:
    (one,) = explain(f, X)
    return one.plan.tiles


@pytest.fixture(scope="module")
def plans(tmp_path_factory: Any) -> pathlib.Path:
    """A file in which the second candidate won."""
    file = tmp_path_factory.mktemp("cache") / "deep" / "plans.json"
    timer = Prefers(1)
    table = lazyjax.autotune(_f, X, path=file, timer=timer)
    (one,) = explain(_f, X)
    assert timer.calls == len(candidates(one.description, "cpu")) > 2
    assert len(table) == 1
    return file


def test_a_measured_plan_is_used_inside_tuned_alone(plans: pathlib.Path) -> None:
    own = _tiles()
    want = np.exp(-((X[:, None] - X[None]) ** 2).sum(-1)).sum(1)[:, None]
    compiled = jax.jit(lambda x: (_f(x), _tiles().tile_i))
    before = compiled(X)
    with lazyjax.tuned(plans):
        measured = _tiles()
        assert (measured.tile_i, measured.reason) == (own.tile_i // 2, "measured by autotune")
        assert "measured by autotune" in str(explain(_f, X))
        inside = compiled(X)
        with lazyjax.tuned(False):
            assert _tiles() == own
    assert _tiles() == own
    assert (int(before[1]), int(inside[1])) == (own.tile_i, own.tile_i // 2)  # neither compilation served the other
    for out in (before[0], inside[0]):
        np.testing.assert_allclose(out, want, rtol=1e-12)


def test_every_candidate_gives_the_same(plans: pathlib.Path) -> None:
    f = lambda x, y: Vi(x).sqdist(Vj(y)).min(axis=1)  # noqa: E731
    x, y = (jnp.asarray(a) for a in np.random.default_rng(0).normal(size=(2, 150, 3)))
    (one,) = explain(f, x, y)
    for choice in candidates(one.description, "cpu"):
        with lazyjax.tuned(tuning.Table(((tuning.key(one.description, "cpu"), choice),))):
            np.testing.assert_allclose(f(x, y), ((x[:, None] - y[None]) ** 2).sum(-1).min(1)[:, None], rtol=1e-12)


def test_keys_do_not_depend_on_the_process(plans: pathlib.Path) -> None:
    """The key of a formula written anew is the same; another dtype, size or formula has another."""

    def key(f: Any, *args: Any) -> str:
        (one,) = explain(f, *args)
        return tuning.key(one.description, "cpu")

    same = lambda x: (-Vi(x).sqdist(Vj(x))).exp().sum(axis=1)  # noqa: E731
    assert key(_f, X) == key(same, X) == key(_f, X[:33])  # sizes count by powers of two
    other = lambda x: (-Vi(x).sqdist(Vj(x))).sin().sum(axis=1)  # noqa: E731
    keys = {key(_f, X), key(other, X), key(_f, X.astype("f4")), key(_f, X[:9]), key(_f, X[:, :2])}
    assert len(keys) == 5
    assert key(_f, X) in json.loads(plans.read_text())["machines"][tuning.machine()]
    assert "0x" not in key(_f, X)


def test_tables_are_added_to(plans: pathlib.Path, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "plans.json"
    content = json.loads(plans.read_text())
    content["machines"]["another machine"] = {"a key": {"tile_i": 7}}
    file.write_text(json.dumps(content))
    table = lazyjax.autotune(lambda x: Vi(x).sqdist(Vj(x)).sum(axis=1), X, path=file, timer=Prefers(0))
    assert len(table) == 2
    after = json.loads(file.read_text())["machines"]
    assert after["another machine"] == {"a key": {"tile_i": 7}} and len(after[tuning.machine()]) == 2


@pytest.mark.parametrize("text", ["", "{", "[]", '{"machines": 3}', '{"machines": {"a": 3}}', "{}"])
def test_a_broken_file_is_left_aside(text: str, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "plans.json"
    file.write_text(text)
    own = _tiles()
    with pytest.warns(UserWarning, match="cannot be read.*call lazyjax.autotune again"), lazyjax.tuned(file):
        assert _tiles() == own


@pytest.mark.parametrize("entry", [3, {"tile_i": 0}, {"tile_i": True}, {"tile_i": 1 << 40}, {"tile_i": "8"},
                                   {"shape": "dense"}, {"fast": 1}])  # fmt: skip
def test_a_plan_that_makes_no_sense_is_left_aside(entry: Any, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "plans.json"
    (one,) = explain(_f, X)
    content = {"machines": {tuning.machine(): {tuning.key(one.description, "cpu"): entry}}}
    file.write_text(json.dumps(content))
    with lazyjax.tuned(file) as table:
        assert table is None and _tiles() == one.plan.tiles


def test_plans_of_another_machine_are_not_used(plans: pathlib.Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(tuning, "machine", lambda: "another machine")
    with lazyjax.tuned(plans) as table:
        assert table is None


def test_the_default_file(tmp_path: pathlib.Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with lazyjax.tuned() as table:
        assert table is None  # no file: no plans, no warning
    lazyjax.autotune(_f, X, timer=Prefers(0))
    assert (tmp_path / "lazyjax" / "plans.json").exists()
    with lazyjax.tuned() as table:
        assert table is not None and len(table) == 1


def test_errors() -> None:
    number: Any = 3
    with pytest.raises(RuntimeError, match=r"called while JAX traces a function.*outside of jit, grad, vmap and scan"):
        jax.jit(lambda x: lazyjax.autotune(_f, x))(X)
    with pytest.raises(RuntimeError, match="called while JAX traces"):
        jax.vmap(lambda x: lazyjax.autotune(_f, x))(X[None])
    with pytest.raises(TypeError, match="got int, expected a table from autotune, a path, True"), lazyjax.tuned(number):
        pass
