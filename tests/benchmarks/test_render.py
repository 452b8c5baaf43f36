"""benchmarks/README.md shows the committed results, and the exponents of growth are those of a power."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_the_page_is_made_of_the_results():
    command = [sys.executable, str(BENCHMARKS / "render.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    page = (BENCHMARKS / "README.md").read_text()
    assert all(f"results/{path.name}" in page for path in (BENCHMARKS / "results").glob("*.json"))


@pytest.mark.parametrize("power", [0.5, 1, 2])
def test_the_exponent_of_a_power(power, monkeypatch):
    pytest.importorskip("pydensecrf")
    monkeypatch.syspath_prepend(str(BENCHMARKS / "suites"))
    import bench_growth

    sizes = [1, 2, 8, 32]
    slope, error = bench_growth.exponent(sizes, [3 * size**power for size in sizes])
    assert slope == pytest.approx(power) and error < 1e-9
    noisy = np.array([3 * size**power for size in sizes]) * [1, 1.1, 0.9, 1]
    (want, _), covariance = np.polyfit(np.log(sizes), np.log(noisy), 1, cov="unscaled")
    slope, error = bench_growth.exponent(sizes, noisy.tolist())
    residual = np.log(noisy) - np.polyval(np.polyfit(np.log(sizes), np.log(noisy), 1), np.log(sizes))
    assert slope == pytest.approx(want)
    assert error == pytest.approx(np.sqrt(covariance[0, 0] * (residual**2).sum() / 2))
