"""benchmarks/README.md shows the committed results, and the exponents of growth are those of a power."""

import re
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


def test_make_bench_has_every_level_and_ends_at_a_suite_that_fails():
    lines = (BENCHMARKS.parent / "Makefile").read_text()
    (suites,) = re.findall(r"^SUITES := (.*)$", lines, re.M)
    (recipe,) = re.findall(r"^bench: .*\n((?:\t.*\n)+)", lines, re.M)
    named = set(re.findall(r"bench_\w+", suites + recipe))
    assert named >= {
        "bench_pas", "bench_crf", "bench_growth",  # kernels
        "bench_cam",  # a stage
        "bench_track3", "bench_stream", "bench_track1", "bench_serve",
    }  # fmt: skip
    assert all((BENCHMARKS / "suites" / f"{name}.py").exists() for name in named)
    assert "set -e; for suite" in recipe and "lidcam-rt[peers]" in recipe and recipe.endswith("render.py\n")


def test_growth_over_threads_and_two_sizes(monkeypatch):
    pytest.importorskip("pydensecrf")
    monkeypatch.syspath_prepend(str(BENCHMARKS / "suites"))
    import bench_growth

    monkeypatch.setattr(bench_growth, "usable_cores", lambda: 4)
    found = bench_growth.experiments()
    grown = {name.rpartition(", ")[2] for name in found}
    assert grown == {"batch", "classes", "side", "labels", "threads"}
    assert list(found["PaS, threads"]) == list(found["dense CRF, threads"]) == [1, 2, 4]
    for name in ("PaS, threads", "dense CRF, threads"):
        one, four = (np.asarray(found[name][n]["lidcam_rt"]()[0]) for n in (1, 4))
        assert (one == four).all()
    assert bench_growth.exponent([1, 2], [8.0, 4.0]) == (pytest.approx(-1), None)


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
