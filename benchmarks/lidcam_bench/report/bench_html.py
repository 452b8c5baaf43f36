"""The reports of `lidcam bench`: results.md, and report.html, one file with its plots inside it."""

from __future__ import annotations

from pathlib import Path

from lidcam_bench.latency.results import Results, load_samples
from lidcam_bench.latency.statistics import Samples
from lidcam_bench.report.bench_plots import CAPTIONS, bench_plots
from lidcam_bench.report.bench_view import view
from lidcam_bench.report.page import render
from lidcam_rt.files import write_atomically

__all__ = ["write_bench_reports"]

_HEADINGS = {
    "distribution": "Latency",
    "stages": "Where the time goes",
    "throughput": "Throughput against latency",
    "accuracy": "Accuracy against latency",
    "batch": "Scaling over the batch",
    "threads": "Scaling over threads",
}


def write_bench_reports(folder: Path, results: Results) -> tuple[Path, Path]:
    """Write results.md and report.html.

    Args:
        folder: where results.json and the raw samples are.
        results: the content of results.json.

    Returns:
        The two files.

    Raises:
        MissingExtraError: matplotlib or Jinja2 is not installed.
        OutputError: a file cannot be written.
    """
    samples: dict[tuple[str, str], dict[str, Samples]] = {}
    for run in results.runs:
        for result in run.scenarios:
            if result.samples is not None and (folder / result.samples).exists():
                samples[run.variant.key, result.key] = load_samples(folder / result.samples)
    context = view(results)
    plots = [
        {"heading": _HEADINGS[name], "svg": svg, "caption": CAPTIONS[name]}
        for name, svg in bench_plots(results, samples).items()
    ]
    page, text = folder / "report.html", folder / "results.md"
    write_atomically(page, render("bench.html", "bench", plots=plots, **context))
    write_atomically(text, render("bench.md", "bench", **context))
    return text, page
