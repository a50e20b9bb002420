"""The tour: its functions against dense NumPy, and the command on few pixels."""

import importlib.util
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist
from scipy.special import logsumexp, softmax

from lazyjax import tour
from lazyjax.tour import computations, steps

M, N = 300, 500


@pytest.fixture(scope="module")
def colours() -> tuple[np.ndarray, np.ndarray]:
    source, target = computations.photographs()
    assert source.shape == target.shape == (427, 640, 3)
    assert source.dtype == np.float32 and source.min() >= 0 and source.max() <= 1
    return np.asarray(computations.sample(source, M, seed=0)), np.asarray(computations.sample(target, N, seed=1))


def test_a_sample_holds_distinct_pixels():
    photograph = np.arange(60, dtype=np.float32).reshape(4, 5, 3)
    drawn = np.asarray(computations.sample(photograph, 20, seed=0))
    assert sorted(map(tuple, drawn)) == sorted(map(tuple, photograph.reshape(-1, 3)))


def test_nearest(colours):
    x, y = colours
    index = np.asarray(computations.nearest(jnp.asarray(x), jnp.asarray(y)))
    assert index.shape == (M,)
    found = np.linalg.norm(x.astype(float) - y[index], axis=-1)
    np.testing.assert_allclose(found, cKDTree(y).query(x)[0], rtol=1e-5)


def test_kernel_product_and_gradient(colours):
    x, y = colours
    b = np.random.default_rng(2).normal(size=(N, 4)).astype(np.float32)
    offsets = x[:, None].astype(float) - y
    distance = np.linalg.norm(offsets, axis=-1)
    kernel = np.exp(-distance / 0.3)
    product = kernel @ b
    np.testing.assert_allclose(computations.kernel_product(x, y, b, 0.3), product, rtol=1e-4, atol=1e-4)
    weights = -kernel / 0.3 * (2 * product @ b.T) / np.maximum(distance, 1e-300)
    gradient = (weights[..., None] * offsets).sum(1)
    got = jax.grad(computations.kernel_energy)(jnp.asarray(x), jnp.asarray(y), jnp.asarray(b), 0.3)
    np.testing.assert_allclose(got, gradient, atol=1e-5 * np.abs(gradient).max())


def test_log_density(colours):
    x, y = colours
    expected = logsumexp(-cdist(x, y, "sqeuclidean") / (2 * 0.1**2), axis=1) - np.log(N)
    np.testing.assert_allclose(computations.log_density(x, y, 0.1), expected, rtol=1e-4, atol=1e-4)


def test_transport_is_balanced(colours):
    x, y = map(jnp.asarray, colours)
    epsilon = 0.05
    g = np.asarray(computations.potential(x, y, epsilon, sweeps=100), float)
    plan = softmax((g - cdist(x, y, "sqeuclidean")) / epsilon, axis=1)
    # Rows sum to one by construction; each colour of y then receives its share, M / N.
    np.testing.assert_allclose(plan.sum(0), M / N, rtol=0.02)
    got = computations.recolour(x, y, jnp.asarray(g, jnp.float32), epsilon)
    np.testing.assert_allclose(got, plan @ np.asarray(y, float), atol=1e-5)
    np.testing.assert_allclose(got.mean(0), y.mean(0), atol=5e-3)


def test_a_wrong_result_is_noticed():
    expected = np.arange(10.0)
    assert steps.discrepancy(jnp.asarray(expected), np.array([1, 9]), lambda i: expected[i]) == 0
    assert steps.discrepancy(jnp.asarray(expected) + 0.9, np.array([1, 9]), lambda i: expected[i]) == pytest.approx(0.1)


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    image = tmp_path / "tour.png"
    assert tour.main(["--pixels-i", "2000", "--pixels-j", "3000", "--output", str(image)]) == 0
    printed = capsys.readouterr().out

    assert image.read_bytes().startswith(b"\x89PNG\r\n")
    source, target = computations.photographs()
    x, y = computations.sample(source, 2000, seed=0), computations.sample(target, 3000, seed=1)
    distance = cKDTree(np.asarray(y)).query(np.asarray(x))[0]
    said = re.search(r"nearest colour ([\d.]+), largest ([\d.]+)", printed)
    assert said is not None, printed
    assert float(said[1]) == pytest.approx(distance.mean(), abs=2e-6)
    assert float(said[2]) == pytest.approx(distance.max(), abs=2e-6)

    for name in steps.STEPS:  # time, pairs/s, dense matrix, error, peak
        row = re.search(rf"^ +{name} +[\d.]+ s +\S+ +[\d.]+ GB +(\S+) +[\d.]+ GiB *$", printed, re.MULTILINE)
        assert row is not None, printed
        assert float(row[1]) < 1e-4
    assert "0.024 GB" in printed  # 2000 x 3000 float32


def test_arguments(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stop:
        tour.main(["--pixels-i", "0"])
    assert stop.value.code == 2
    assert "--pixels-i 0: the photograph has 273280 pixels" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        tour.main(["--help"])
    assert stop.value.code == 0
    assert "--output" in capsys.readouterr().out


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *args: None if name == "rich" else found(name, *args))
    assert tour.main([]) == 1
    assert capsys.readouterr().err == 'The tour needs rich: pip install "lazyjax[tour]"\n'
