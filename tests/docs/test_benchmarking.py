"""docs/benchmarking.md: its commands and its test module run, with durations cut."""

import re
import sys
from dataclasses import replace
from pathlib import Path

import artifacts
import pytest
import snippets

pytest.importorskip("mlperf_loadgen")
pytest.importorskip("pytest_benchmark")
PAGE = "docs/benchmarking.md"


@pytest.fixture
def folder(tmp_path, model):
    """The files that the page names."""
    (tmp_path / "model.onnx").symlink_to(model)
    artifacts.data_set(tmp_path / "photos", 4)
    return tmp_path


def short(block):
    """The block as it stands, but for how long it measures, for cold start and floor, and for bounds in percent."""
    text = re.sub(r"--(max-)?duration \d+", lambda m: f"--{m[1] or ''}duration {20 if m[1] else 0.05}", block.text)
    text = re.sub(r"^(lidcam bench model.*?)( -o )", r"\1 --cold-starts 0 --no-floor\2", text, flags=re.M)
    text = re.sub(r"(--fail \w+):\d+%", r"\1:1e9%", text)  # whether they hold is a matter of speed
    return replace(block, text=text.replace("--cold-starts 1 --no-floor --cold-starts 0", "--cold-starts 1"))


@pytest.mark.slow
def test_commands(folder):
    blocks = [block for block in snippets.blocks(PAGE) if block.language == "sh"]
    for block in blocks:
        short(block).run(folder)
    for out in ("out-quick", "out", "out-server", "before", "after"):
        assert (folder / out / "report.html").stat().st_size > 10000 and (folder / out / "results.md").exists()
        assert any((folder / out / "samples").glob("*.npz"))


@pytest.mark.slow
def test_the_example_of_a_test_module_passes(folder, monkeypatch):
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # this very suite may run in parallel
    (example,) = [block.text for block in snippets.blocks(PAGE) if block.language == "python"]
    # Whether a bound holds is a matter of speed: here only that the calls are right.
    example = re.sub(r"(_ms=)[\d.]+", r"\g<1>1e9", example).replace("low > 0.5", "low > 0")
    (folder / "test_model.py").write_text(example)
    command = f"{sys.executable} -m pytest -q -p no:cacheprovider test_model.py"
    assert "3 passed" in snippets.Block("sh", command).run(folder)


def test_every_finding_and_every_option_is_explained():
    text = (snippets.ROOT / PAGE).read_text(encoding="utf-8")
    source = (Path(__file__).parents[2] / "benchmarks/lidcam_bench/latency/diagnosis.py").read_text(encoding="utf-8")
    kinds = set(re.findall(r'kind="([^"]+)"', source)) | {"host-bound", "post-processing-bound", "unsteady machine"}
    assert {"throttled", "too few samples", "queueing"} <= kinds
    missing = [kind for kind in kinds if f"`{kind}`" not in text]
    assert not missing
    cli = (Path(__file__).parents[2] / "benchmarks/lidcam_bench/cli/bench.py").read_text(encoding="utf-8")
    names = re.findall(r"^    (\w+): (?:Annotated|Device|Refine|Split)", cli, re.M)
    known = {f"--{name.replace('_', '-')}" for name in names} | {"--benchmark-json", "--benchmark-disable"}
    assert set(re.findall(r"`(--[a-z-]+)", text)) <= known
