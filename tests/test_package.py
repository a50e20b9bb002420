"""The package as it is installed: version, typing marker, and what importing it costs."""

import importlib.metadata
import importlib.resources
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import lazyjax
import lazyjax.kernels

ROOT = Path(__file__).parent.parent


def _python(code: str, *arguments: str, cwd: Path | None = None) -> str:
    done = subprocess.run(
        [sys.executable, *arguments, "-c", code], capture_output=True, text=True, check=False, cwd=cwd or ROOT
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_version():
    assert re.fullmatch(r"\d+\.\d+\.\d+([a-z]+\d+)?", lazyjax.__version__)
    assert f"## {lazyjax.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_installed_version():
    try:
        installed = importlib.metadata.version("lazyjax")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("lazyjax runs from its clone and is not installed")
    assert installed == lazyjax.__version__


def test_typed():
    assert importlib.resources.files(lazyjax).joinpath("py.typed").is_file()


def test_every_package_is_listed():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    package = Path(lazyjax.__file__).parent
    found = [
        Path(d).relative_to(package.parent)
        for d, _, files in os.walk(package, followlinks=True)
        if "__init__.py" in files
    ]
    assert sorted(listed) == sorted(".".join(p.parts) for p in found)


def test_kernels_are_a_part_of_the_package():
    assert lazyjax.kernels.__name__ == "lazyjax.kernels"
    assert "kernels" not in sys.modules


def test_import_is_light():
    optional = ["jax.experimental.pallas", "matplotlib", "sklearn", "scipy.spatial", "rich", "triton", "lazyjax.tour"]
    code = f"import sys, lazyjax; print([name for name in {optional} if name in sys.modules])"
    assert _python(code).strip() == "[]"


def test_import_starts_no_device():
    code = "import lazyjax; from jax._src import xla_bridge; print(xla_bridge.backends_are_initialized())"
    assert _python(code).strip() == "False"


def test_import_warns_of_nothing():
    _python("import lazyjax", "-W", "error::DeprecationWarning:lazyjax", "-W", "error::FutureWarning:lazyjax")


def test_readme_example():
    text = (ROOT / "README.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict = {}
    exec(compile(example.replace("20_000", "200"), "README.md", "exec"), names)
    assert names["nearest"].shape == (200, 1)
    assert names["a"].shape == (200, 4)
