"""The benchmarks: that they compute what they say, report it whole, and judge it rightly. Nothing here is timed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from bench import cases, measure, on_gpu, plots, readme, reference, report, run
from bench.__main__ import arguments, main
from bench.contenders import Refused, c_loops, contenders
from lazyjax import Vi, Vj

ROOT = Path(__file__).parent.parent


def case_of(problem: str, **sizes: int) -> cases.Case:
    return cases.Case(problem, problem, sizes.pop("m", 70), sizes.pop("n", 90), sizes.pop("d", 3), **sizes)  # type: ignore[arg-type]


def test_a_quick_run(tmp_path, capsys):
    wanted = [
        "--only",
        "Gaussian sum, D = 3",
        "argmin, D = 3",
        "eager",
        "--contenders",
        "lazyjax",
        "dense",
        "C",
        "cKDTree",
    ]
    main([*wanted, "--quick", "--no-memory", "--repeats", "3", "--output", str(tmp_path)])
    found = json.loads((tmp_path / "results.json").read_text())
    machine = found["machine"]
    assert machine["cores"] >= 1 and machine["cpu"]["model"] and "jax" in machine["versions"]
    assert machine["command"].startswith("python -m bench --only 'Gaussian sum, D = 3'")
    assert str(tmp_path) not in machine["command"]
    by_name = {c["name"]: c["results"] for c in found["cases"]}
    assert list(by_name) == ["Gaussian sum, D = 3", "argmin, D = 3", "eager Gaussian sum, new data"]
    for name in by_name:
        for contender in ("lazyjax", "dense"):
            result = by_name[name][contender]
            assert result["error"] < 1e-5 and result["runs"] >= 3
            assert result["quartiles"][0] <= result["median"] <= result["quartiles"][1] and result["first_call"] > 0
    assert by_name["Gaussian sum, D = 3"]["lazyjax"]["compiler_memory"]["output"] == 500 * 4
    assert by_name["Gaussian sum, D = 3"]["cKDTree"] == {"refused": "compared for nearest neighbours only"}
    assert by_name["argmin, D = 3"]["cKDTree"]["error"] < 1e-5
    text = (tmp_path / "results.md").read_text()
    assert "| Gaussian sum, D = 3 | KeOps | 10 |  | no figure |" in text
    assert "| cKDTree | compared for nearest neighbours only |" in text
    assert "targets are for full ones" in text
    assert "written:" in capsys.readouterr().out


def test_sizes_that_fill_a_gpu():
    square = case_of("gaussian", m=16384, n=16384)
    assert (on_gpu.larger(square).m, on_gpu.larger(square).n) == (65536, 65536)
    for kept in (
        case_of("eager", m=100, n=100),
        case_of("gaussian", m=1, n=10**6),
        case_of("gaussian", m=10**5, n=10**5),
    ):
        assert on_gpu.larger(kept) == kept


def test_a_peer_that_fails_is_reported_and_lazyjax_failing_ends_the_run(monkeypatch):
    def fails(case: cases.Case, data: cases.Data) -> None:
        raise ValueError("no such thing\nand more")

    modules = {name: contenders()[name] for name in ("lazyjax", "dense")}
    monkeypatch.setattr(modules["dense"], "prepare", fails)
    results = measure.measure(case_of("gaussian"), modules, 1, lambda what: None)
    assert results["dense"] == {"refused": "failed: ValueError: no such thing"} and results["lazyjax"]["median"] > 0
    monkeypatch.setattr(modules["lazyjax"], "prepare", fails)
    with pytest.raises(ValueError, match="no such thing"):
        measure.measure(case_of("gaussian"), modules, 1, lambda what: None)


def test_a_run_on_a_gpu(tmp_path, monkeypatch, capsys):
    """The way of such a run, with a CPU in the place of the GPU."""
    only = ["--gpu", "--quick", "--only", "argmin, D = 3", "--output", str(tmp_path)]
    with pytest.raises(SystemExit, match=r"--gpu: JAX computes on cpu here, expected a GPU\. Install JAX for it"):
        main(only)
    monkeypatch.setattr(on_gpu, "device", lambda: "a chip of the test")
    (case,) = main(only)["cases"]
    assert case["results"].keys() == set(on_gpu.CONTENDERS) and case["results"]["lazyjax"]["error"] == 0
    assert not case["bars"] and "memory" not in case["results"]["lazyjax"]
    assert "a chip of the test; beside it" in (tmp_path / "results.md").read_text()
    lazy = contenders()["lazyjax"]
    monkeypatch.setattr(lazy, "_distance", lambda x, y: -Vi(x).sqdist(Vj(y)))  # the farthest instead of the nearest
    capsys.readouterr()
    with pytest.raises(
        SystemExit, match=r"lazyjax is wrong on this GPU.*argmin, D = 3 \(500 x 600.*expected at most 1e-05"
    ):
        main(only)
    assert "written" not in capsys.readouterr().out
    with pytest.raises(SystemExit, match="has an error of nan"):
        on_gpu.judge_all(case_of("gaussian"), {"lazyjax": {"error": float("nan")}})


def test_table_names_what_exists():
    table = cases.table()
    names = [c.name for c in table]
    assert len(set(names)) == len(names)
    for case in table:
        assert case.problem in reference.ERRORS
        for bar in case.bars:
            assert bar.against in (names if bar.kind == "rate" else contenders())
            assert bar.kind == "rate" or not case.beside or bar.against in case.beside
        assert set(case.beside) <= set(contenders())


def test_references_are_those_of_scipy():
    """The yardstick itself: right results have no error, wrong ones have."""
    case = case_of("gaussian")
    a = {name: array.astype(np.float64) for name, array in cases.data(case).items()}
    d = cdist(a["x"], a["y"], "sqeuclidean")
    sums = np.exp(-d) @ a["b"]
    assert reference.error(case, a, sums) < 1e-14
    assert reference.error(case, a, sums * 1.01) == pytest.approx(0.01)
    nearest = d.argmin(1)[:, None]
    for_argmin = {"x": a["x"], "y": a["y"]}
    assert reference.error(case_of("argmin"), for_argmin, nearest) == 0
    assert reference.error(case_of("argmin"), for_argmin, d.argmax(1)[:, None]) > 1
    assert reference.error(case_of("argkmin"), for_argmin, np.argsort(d, 1)[:, :4]) == 0
    lse = np.log(np.exp(-d).sum(1, keepdims=True))
    assert reference.error(case_of("logsumexp"), for_argmin, lse) < 1e-14
    with pytest.raises(AssertionError, match="instead of"):
        reference.error(case, a, sums[:, 0])


@pytest.mark.parametrize("problem", ["gradient_x", "gradients", "hvp", "matern"])
def test_references_of_derivatives_are_finite_differences(problem):
    case = dataclasses.replace(case_of(problem, m=5, n=6), dtype="float64")
    a = cases.data(case)

    def value(x, y, b):
        d = cdist(x, y)
        kernel = (1 + d) * np.exp(-d) if problem == "matern" else np.exp(-(d**2))
        return kernel @ b

    def scalar(x, y, b):
        return (value(x, y, b) * a.get("g", 1)).sum()

    def slope(f, at, step=1e-5):
        out = np.zeros_like(at)
        for index in np.ndindex(*at.shape):
            e = np.zeros_like(at)
            e[index] = step
            out[index] = (f(at + e) - f(at - e)) / (2 * step)
        return out

    x, y, b = a["x"], a["y"], a["b"]
    in_x = slope(lambda x: scalar(x, y, b), x)
    outs = {
        "gradient_x": lambda: in_x,
        "matern": lambda: (value(x, y, b), in_x),
        "gradients": lambda: (in_x, slope(lambda y: scalar(x, y, b), y), slope(lambda b: scalar(x, y, b), b)),
        "hvp": lambda: sum(
            s * slope(lambda x: scalar(x, y, b), x + s * 1e-4 * a["t"]) for s in (1, -1)
        ) / 2e-4,
    }  # fmt: skip
    assert reference.error(case, a, outs[problem]()) < 1e-5


@pytest.mark.parametrize("problem", ["gaussian", "gradient_x", "argmin"])
def test_loops_in_c(problem):
    case = case_of(problem, m=77, n=301)  # not a multiple of any vector
    data = cases.data(case)
    if c_loops.missing() is None:
        assert reference.error(case, data, c_loops.prepare(case, data).call()) < 1e-6
    else:
        assert c_loops.missing() == "no C compiler found"
    with pytest.raises(Refused, match="D = 3"):
        c_loops.prepare(dataclasses.replace(case, d=10), data)


def test_bars():
    def results(**seconds):
        return {n: {"median": s, "first_call": s, "pairs_per_second": 1e6 / s} for n, s in seconds.items()}

    one = dataclasses.replace(
        case_of("gaussian"), name="one", bars=cases.bars(KeOps=10, dense=5, C=0.6, scikit_learn=2)
    )
    two = dataclasses.replace(one, name="two", bars=(cases.Bar("rate", "one", 0.5), cases.Bar("first", "KeOps", 10)))
    found = [
        report.record(one, results(lazyjax=1.0, KeOps=12.0, dense=4.0, C=0.6)),
        report.record(two, results(lazyjax=3.0, KeOps=60.0)),
    ]
    run = {"machine": {"load_before": 0.1, "cores": 2}, "cases": found}
    report.judge({**run, "quick": False})
    judged = {(b["kind"], b["against"]): (b["measured"], b["met"]) for c in found for b in c["bars"]}
    assert judged == {
        ("time", "KeOps"): (12.0, True),
        ("time", "dense"): (4.0, False),
        ("time", "C"): (0.6, True),
        ("time", "scikit-learn"): (None, None),
        ("rate", "one"): (pytest.approx(1 / 3), False),
        ("first", "KeOps"): (20.0, True),
    }
    report.judge({**run, "quick": True})
    assert {b["met"] for c in found for b in c["bars"]} == {None}
    for name, seconds in {"lazyjax": 2.0, "KeOps": 30.0}.items():
        found[0]["results"][name]["cpu_seconds"] = seconds
    report.judge({**run, "machine": {"load_before": 9.0, "cores": 2}, "quick": False})  # busy: by processor time
    assert found[0]["bars"][0]["measured"] == 15 and found[0]["bars"][1]["measured"] is None


def test_plots(tmp_path):
    names = {c.problem for curve in plots.curves() for c in curve.points}
    assert names <= set(reference.ERRORS)
    points = [{"size": 10.0**k, "seconds": 1.0, "pairs_per_second": 10.0**k} for k in range(3)]
    measured = [{"title": "a", "over": over, "contenders": {"lazyjax": points}} for over in "NND"]
    written = plots.draw(measured, tmp_path)
    assert [p.name for p in written] == ["speed_over_N.png", "speed_over_D.png"]
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in written)


def test_unknown_names_are_refused():
    with pytest.raises(SystemExit, match="no case has such a name"):
        run.chosen_cases(["gauss cube"], quick=False)
    with pytest.raises(SystemExit, match="there are lazyjax, lazyjax-512, KeOps"):
        run.chosen_contenders(["keops"])
    assert [c.name for c in run.chosen_cases(["argmin, D = 3"], quick=False)] == ["argmin, D = 3"]
    assert arguments().parse_args(["--only", "a", "b"]).only == ["a", "b"]


def test_readme_shows_the_results():
    text = (ROOT / "README.md").read_text()
    assert readme.rewrite(text, json.loads(readme.RESULTS.read_text())) == text
