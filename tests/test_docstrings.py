"""Every public name explains itself: a docstring with an example, and every example of the package runs."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lazyjax
import lazyjax.kernels
from lazyjax import LazyTensor, Vi
from lazyjax._op_docs import DTYPES
from lazyjax._ops import OPS

from .full import FULL

# JAX's protocol of pytrees, which calls them.
PLUMBING = {"tree_flatten", "tree_flatten_with_keys", "tree_unflatten"}
OPERATORS = ["__getitem__", "__matmul__", "__rmatmul__"]

MODULES = [
    lazyjax,
    *(importlib.import_module(m.name) for m in pkgutil.walk_packages(lazyjax.__path__, "lazyjax.")
      if not m.name.endswith("__main__") and not m.name.startswith("lazyjax.tour")),
]  # fmt: skip


def _collect() -> dict[str, list[doctest.DocTest]]:
    """The examples by module; those of methods that are attached to a class from another module by class."""
    finder, known, found = doctest.DocTestFinder(), set(), {}
    owners = [(m.__name__, m, None) for m in MODULES] + [(c.__name__, c, False) for c in LazyTensor.__mro__[:-1]]
    for name, owner, module in owners:
        # Without the names of the module: an example imports what it uses.
        tests = [t for t in finder.find(owner, name, module, globs={}) if t.examples and t.docstring not in known]
        known |= {t.docstring for t in tests}
        found |= {name: tests} if tests else {}
    return found


EXAMPLES = _collect()


def documentation(name: str, member: Any) -> str:
    """The docstring of a name; of a constant, that of the module that speaks of it."""
    if callable(member) or isinstance(member, property):
        return inspect.getdoc(member) or ""
    owners = [m for m in MODULES[1:] if vars(m).get(name) is member and f"`{name}`" in (m.__doc__ or "")]
    return "\n".join(inspect.getdoc(m) or "" for m in owners)


def complaints(name: str, member: Any) -> list[str]:
    """What the docstring of a public name lacks."""
    text = documentation(name, member)
    if not text:
        return ["no docstring"]
    found = [] if re.match(r".*?[.:](\n|$)", text) else ["no summary on the first line that ends with a full stop"]
    found += [] if doctest.DocTestParser().get_examples(text) else ["no example"]
    if inspect.isroutine(member):
        parameters = [p for p in inspect.signature(member).parameters if p != "self"]
        arguments = re.search(r"^Args:\n((?:    .*\n|\n)*)", text, re.MULTILINE)
        explained = re.findall(r"\w+", arguments[1]) if arguments else []
        found += [f"the argument {p} is not among Args" for p in parameters if p not in explained]
        found += [] if re.search(r"^Returns:\n    \S", text, re.MULTILINE) else ["no Returns"]
    code = member.fget if isinstance(member, property) else member
    if inspect.isfunction(code) and re.search(r"^\s+raise ", inspect.getsource(code), re.MULTILINE):
        found += [] if re.search(r"^Raises:\n    \S", text, re.MULTILINE) else ["no Raises"]
    return found


def public_names() -> dict[str, Any]:
    names = {name: getattr(lazyjax, name) for name in lazyjax.__all__}
    methods = [*(n for n in dir(LazyTensor) if not n.startswith("_") and n not in PLUMBING), *OPERATORS]
    names |= {f"cluster.{name}": getattr(lazyjax.cluster, name) for name in lazyjax.cluster.__all__}
    return names | {f"LazyTensor.{name}": inspect.getattr_static(LazyTensor, name) for name in methods}


def test_every_public_name_is_documented():
    names = public_names()
    assert len(names) > 150 and {"Vi", "LazyTensor.sqrt", "LazyTensor.T", "LazyTensor.sum_reduction"} < set(names)
    wrong = {name: found for name, member in names.items() if (found := complaints(name, _method(name, member)))}
    assert not wrong, "\n".join(f"{name}: {', '.join(found)}" for name, found in wrong.items())


def _method(name: str, member: Any) -> Any:
    """A method as a user sees it: one that overrides another may leave its docstring to that."""
    own = isinstance(member, property) or not name.startswith("LazyTensor.")
    return member if own else getattr(LazyTensor, name.split(".")[1])


def test_every_example_of_a_public_name_is_run():
    run = {inspect.cleandoc(test.docstring) for tests in EXAMPLES.values() for test in tests}
    missed = [n for n, member in public_names().items() if documentation(n, _method(n, member)) not in run]
    assert not missed


def test_the_other_public_classes_and_the_machine():
    """Docstrings without examples: of modules, of what `lazyjax.kernels` offers, and of the methods of its classes."""
    assert all(m.__doc__ for m in MODULES)
    offered = [getattr(m, name) for m in (lazyjax, lazyjax.kernels) for name in m.__all__]
    classes = [c for c in offered if inspect.isclass(c) and c is not LazyTensor]
    assert {lazyjax.Reduction, lazyjax.Genred, lazyjax.kernels.Plan} < set(classes)
    methods = [
        (f"{c.__name__}.{name}", getattr(c, name))
        for c in classes
        for name, member in vars(c).items()
        if not name.startswith("_") and (inspect.isfunction(member) or isinstance(member, property | staticmethod))
    ]
    assert "Reduction.tangent" in dict(methods)
    functions = [(x.__name__, x) for x in offered if inspect.isfunction(x)]
    missing = [n for n, x in [*((c.__name__, c) for c in classes), *functions, *methods] if not inspect.getdoc(x)]
    assert not missing


def bare(x):
    return x


def short(x):
    """Do something without a full stop"""
    if x is None:
        raise TypeError("x is None.")
    return x


def complete(x):
    """Something.

    Args:
        x: an array.

    Returns:
        x.

    Example:
        >>> 1 + 1
        2
    """
    return x


def test_the_check_finds_what_is_missing():
    assert complaints("bare", bare) == ["no docstring"]
    assert complaints("short", short) == [
        "no summary on the first line that ends with a full stop", "no example", "the argument x is not among Args",
        "no Returns", "no Raises",
    ]  # fmt: skip
    assert complaints("complete", complete) == []
    assert complaints("CONSTANT", (1, 2)) == ["no docstring"]


@pytest.mark.parametrize("x64", [False, True] if FULL else [False])  # JAX's own default in the samples of CI
@pytest.mark.parametrize("module", EXAMPLES)
def test_examples(module, x64):
    report: list[str] = []
    runner = doctest.DocTestRunner()
    with jax.enable_x64(x64):
        results = [runner.run(test, out=report.append) for test in EXAMPLES[module]]
    assert sum(r.attempted for r in results) > 0
    assert not sum(r.failed for r in results), "".join(report)


def _of_the_table() -> dict[str, Any]:
    methods = {name: getattr(LazyTensor, name, None) for name in OPS}
    return {name: OPS[name] for name, m in methods.items() if getattr(m, "__qualname__", "") == f"Operators.{name}"}


def _result(row: Any, dtype: Any) -> np.dtype | None:
    x = Vi(np.ones((2, 3), dtype))
    try:
        return getattr(x, row.name)(*[x] * (row.arity - 1)).dtype
    except TypeError:
        return None


def test_generated_docstrings_tell_the_truth_of_dtypes():
    rows = _of_the_table()
    assert len(rows) > 50 and {row.dtype for row in rows.values()} == set(DTYPES)
    for name, row in rows.items():
        text = getattr(LazyTensor, name).__doc__
        z, n, x = (_result(row, dtype) for dtype in ("complex64", "int8", "float32"))
        assert (z is None) == ("for complex numbers" in text), name
        assert (_result(row, bool) is None) == ("for booleans" in text), name
        assert x == (bool if row.dtype == "bool" else "float32"), name
        if row.dtype in ("float", "norm"):
            assert jnp.issubdtype(n, jnp.floating), name
        elif row.dtype not in ("bool", "sum"):
            assert n == "int8", name
        if z is not None and row.dtype != "bool":
            assert z == ("float32" if row.dtype in ("norm", "real", "sum") else "complex64"), name
