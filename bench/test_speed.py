"""The cases under pytest-benchmark: `pytest bench -k "argmin and lazyjax"`. `python -m bench` compares and judges."""

from __future__ import annotations

from typing import Any

import pytest

from bench.cases import Case, data, table
from bench.contenders import Refused, contenders
from bench.reference import error

pytest.importorskip("pytest_benchmark")


@pytest.mark.filterwarnings("default")  # of other libraries
@pytest.mark.parametrize("contender", list(contenders()))
@pytest.mark.parametrize("case", table(), ids=lambda c: c.name)
def test_speed(benchmark: Any, case: Case, contender: str) -> None:
    module, arrays = contenders()[contender], data(case)
    try:
        if (reason := module.missing()) is not None:
            raise Refused(reason)
        run = module.prepare(case, arrays)
        run.compile()
    except Refused as refused:
        pytest.skip(str(refused))
    assert error(case, arrays, run.call()) < (1e-10 if case.dtype == "float64" else 1e-3)
    benchmark(run.call)
