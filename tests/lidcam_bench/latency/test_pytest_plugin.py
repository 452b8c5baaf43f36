"""The fixture `localizer_benchmark`, as a user's own tests use it. Bounds here hold or break whatever the speed."""

from __future__ import annotations

import json
import math

import artifacts
import numpy as np
import pytest
from lidcam_bench.latency.facts import Accuracy
from lidcam_bench.latency.statistics import summarize
from lidcam_bench.pytest_plugin import LocalizerBenchmark, Measured, Scored

pytestmark = pytest.mark.slow  # not in make quick

pytest_plugins = "pytester"
pytest.importorskip("pytest_benchmark")


@pytest.fixture
def project(pytester, model, monkeypatch):
    """A user's project: an artifact, labelled photos, and tests to come."""
    for name in ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT", "PYTEST_ADDOPTS"):
        monkeypatch.delenv(name, raising=False)  # this very suite may run in parallel
    (pytester.path / "model.onnx").symlink_to(model)
    artifacts.data_set(pytester.path / "photos", 4)
    pytester.makeini("[pytest]\naddopts = -p no:cacheprovider -p no:xdist -p no:hypothesispytest")

    def run(body: str, *options: str):
        pytester.makepyfile(test_it=body)
        return pytester.runpytest_subprocess(*options)

    run.path = pytester.path
    return run


def test_bounds_that_hold_and_what_pytest_benchmark_keeps(project):
    result = project(
        """
        def test_latency(localizer_benchmark):
            measured = localizer_benchmark("model.onnx", "photos", refine="psa", rounds=30, warm_up=2)
            measured.hold(p50_ms=1e9, mean_ms=1e9, crf_ms=1e9)
            assert measured.latency.n == 30
            assert [s.name for s in measured.stages] == [
                "decode", "preprocess", "network", "maps", "boxes", "crf", "rest"]
        """,
        "--benchmark-json=out.json",
    )
    result.assert_outcomes(passed=1)
    entry = json.loads((project.path / "out.json").read_text())["benchmarks"][0]
    assert entry["stats"]["rounds"] == 30
    assert entry["extra_info"]["target"] == "model.onnx, CRF psa" and "crf" in entry["extra_info"]["stage_median_ms"]


def test_a_bound_that_breaks_says_where_the_time_goes(project):
    result = project(
        """
        def test_latency(localizer_benchmark):
            localizer_benchmark("model.onnx", "photos", rounds=20).hold(p50_ms=1e-9)
        """
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*model.onnx: p50_ms is *, the bound is 1e-09; median ms of the stages: decode *"])


def test_too_few_calls_for_a_percentile_and_unknown_bounds(project):
    result = project(
        """
        import pytest

        def test_latency(localizer_benchmark):
            measured = localizer_benchmark("model.onnx", ["photos/images"], rounds=20)
            with pytest.raises(AssertionError, match="20 calls are too few to bound the p99"):
                measured.hold(p99_ms=1e9)
            with pytest.raises(ValueError, match="no bound speed: there are p50_ms, .*decode_ms"):
                measured.hold(speed=1)
        """
    )
    result.assert_outcomes(passed=1)


def test_two_targets_in_one_test(project):
    result = project(
        """
        def test_ratio(localizer_benchmark):
            plain = localizer_benchmark("model.onnx", "photos", rounds=20)
            refined = localizer_benchmark("model.onnx", "photos", refine="psa", rounds=20)
            ratio = plain.times_faster_than(refined)
            assert ratio.low <= ratio.value <= ratio.high
        """,
        "--benchmark-json=out.json",
    )
    result.assert_outcomes(passed=1)
    (entry,) = json.loads((project.path / "out.json").read_text())["benchmarks"]
    assert entry["extra_info"]["target"] == "model.onnx"  # the first is what pytest-benchmark reports


def test_disabled_it_runs_once_and_holds_nothing(project):
    result = project(
        """
        def test_latency(localizer_benchmark):
            measured = localizer_benchmark("model.onnx", "photos")
            assert measured.latency.n == 1 and not measured.enabled
            measured.hold(p50_ms=1e-9, p99_ms=1e-9)
            assert measured.times_faster_than(measured).low > 1000
        """,
        "--benchmark-disable",
    )
    result.assert_outcomes(passed=1)


PARALLEL = """
    import pytest

    def test_latency(localizer_benchmark):
        measured = localizer_benchmark("model.onnx", "photos")
        measured.hold(p50_ms=1e-9)
"""


def test_in_parallel_nothing_is_held_over_a_single_call(project):
    pytest.importorskip("xdist")
    project.path.joinpath("tox.ini").write_text("[pytest]\naddopts = -p no:cacheprovider -p no:hypothesispytest\n")
    result = project(PARALLEL, "-n", "1")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*pytest-benchmark disabled itself, *under pytest-xdist*pytest -n 0*--benchmark-dis*"])
    project(PARALLEL, "-n", "1", "--benchmark-disable").assert_outcomes(passed=1)
    result = project(PARALLEL, "-n", "0", "--benchmark-disable", "--benchmark-enable")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*model.onnx: p50_ms is *, the bound is 1e-09*"])


def test_accuracy_is_held(project):
    result = project(
        """
        import pytest

        def test_accuracy(localizer_benchmark):
            scored = localizer_benchmark.accuracy("model.onnx", "photos", reference="model.onnx")
            scored.hold(miou=0.5, top1_cls=100, mask_iou_mean=1, flipped_percent=0)
            with pytest.raises(AssertionError, match="model.onnx: miou is .*, at least 1.5 is wanted .4 pictures."):
                scored.hold(miou=1.5)
            with pytest.raises(ValueError, match="no score beauty: there are .*miou"):
                scored.hold(beauty=1)
        """
    )
    result.assert_outcomes(passed=1)


@pytest.mark.parametrize("options", [(), ("--benchmark-disable",)])
def test_wrong_calls_fail_and_say_why(project, options):
    result = project(
        """
        from pathlib import Path

        import pytest
        from lidcam_rt.errors import LidcamError

        def test_files(localizer_benchmark):
            with pytest.raises(LidcamError, match="none.onnx"):
                localizer_benchmark("none.onnx", "photos")
            with pytest.raises(LidcamError, match="nowhere"):
                localizer_benchmark("model.onnx", "nowhere")
            with pytest.raises(LidcamError, match="none.onnx"):
                localizer_benchmark.accuracy("none.onnx", "photos")
            with pytest.raises(ValueError, match="rounds must be at least 1"):
                localizer_benchmark("model.onnx", "photos", rounds=0)

        def test_nothing_to_score(localizer_benchmark):
            with pytest.raises(ValueError, match="nothing to score against"):
                localizer_benchmark.accuracy("model.onnx", images="photos")
            with pytest.raises(ValueError, match="a reference alone needs pictures"):
                localizer_benchmark.accuracy("model.onnx", reference="model.onnx")

        def test_paths(localizer_benchmark):
            localizer_benchmark.accuracy(Path("model.onnx"), Path("photos")).hold(miou=0.5)
        """,
        *options,
    )
    result.assert_outcomes(passed=3)
    unused = [line for line in result.outlines if line.startswith("test_it.py::test_paths")]
    assert not unused  # no warning of pytest-benchmark's, that its fixture was not used


def test_what_is_no_number_keeps_no_bound():
    scored = Scored("m", Accuracy.model_construct(images=1, scores={"miou": math.nan}, agreement={}))
    with pytest.raises(AssertionError, match="miou is nan"):
        scored.hold(miou=0.5)
    samples = np.full(400, 10_000_000)
    measured = Measured("m", summarize(samples), (), samples)
    with pytest.raises(AssertionError, match="the bound is nan"):
        measured.hold(p50_ms=math.nan)


def test_without_pytest_benchmark_it_says_what_to_install(project):
    result = project("def test_latency(localizer_benchmark): ...", "-p", "no:benchmark")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*needs pytest-benchmark: pip install 'lidcam-rt?bench?'*"])


def test_the_plugin_loads_nothing_heavy(project):
    result = project(
        """
        import sys

        def test_modules():
            assert not {"numpy", "lidcam_rt", "mlperf_loadgen"} & set(sys.modules)
        """,
        "-p", "no:hypothesispytest", "-p", "no:benchmark",
    )  # fmt: skip
    result.assert_outcomes(passed=1)


def test_the_ratio_is_that_of_the_medians():
    def of(scale):
        values = (np.random.default_rng(0).normal(scale, 0.02, 300) * 1e6).astype(np.int64)
        return Measured("m", summarize(values), (), values)

    ratio = of(10).times_faster_than(of(20))
    assert ratio.value == pytest.approx(2, rel=0.01) and ratio.low > 1.98


def test_the_fixture_in_this_very_process(benchmark, model, tmp_path):
    """As above, where coverage and debuggers see it."""
    data = artifacts.data_set(tmp_path / "photos", 4)
    fixture = LocalizerBenchmark(lambda: benchmark, disabled=benchmark.disabled)
    measured = fixture(model, data / "images", rounds=3, warm_up=1)
    measured.hold(mean_ms=1e9)
