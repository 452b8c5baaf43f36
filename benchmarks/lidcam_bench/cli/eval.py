"""`lidcam eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lidcam_cli.options import (
    Augment,
    Backend,
    Background,
    BatchSize,
    Data,
    Deadline,
    Device,
    Gpus,
    Limit,
    Model,
    OutputFolder,
    Precision,
    Processes,
    Ray,
    RefinePreset,
    Score,
    Split,
    Workers,
)

__all__ = ["evaluate"]


def evaluate(
    model: Model,
    data: Data,
    output: OutputFolder,
    split: Split = "test",
    metrics: Annotated[
        str, typer.Option(metavar="NAMES", help="Some of track3, wsol, track1, separated by commas.")
    ] = "track3,wsol",
    gt_known: Annotated[bool, typer.Option("--gt-known", help="Score the true class's map too.")] = False,
    limit: Limit = None,
    replicates: Annotated[
        int, typer.Option(min=0, metavar="COUNT", help="Bootstrap copies for the intervals; 0: none.")
    ] = 200,
    batch_size: BatchSize = None,
    backend: Backend = "auto",
    device: Device = "auto",
    precision: Precision = "auto",
    score: Score = 0.5,
    background: Background = "mask",
    refine: RefinePreset = None,
    augment: Augment = None,
    deadline: Deadline = None,
    cases: Annotated[int, typer.Option(min=0, metavar="COUNT", help="Best and worst pictures in the report.")] = 6,
    processes: Processes = None,
    ray: Ray = None,
    workers: Workers = None,
    num_gpus: Gpus = 0.0,
) -> None:
    """Score an artifact on a data set.

    Writes results.json, images.csv, curves and report.html. Repeat the command to resume a run that was stopped.
    """
    from lidcam_bench.data import open_data
    from lidcam_bench.evaluation.options import EvalOptions
    from lidcam_bench.evaluation.runner import evaluate as run
    from lidcam_bench.evaluation.segmentation import evaluate_segmenter
    from lidcam_bench.report.cases import draw_cases
    from lidcam_bench.report.html import write_report
    from lidcam_bench.report.plots import curve_plots
    from lidcam_cli.console import progress
    from lidcam_rt.errors import InputError
    from lidcam_rt.files import write_atomically
    from lidcam_rt.loading import load
    from lidcam_rt.segmentation import Segmenter
    from lidcam_rt.segmenter import SegmentOptions

    options = EvalOptions(
        metrics=tuple(dict.fromkeys(name.strip() for name in metrics.split(",") if name.strip())),
        gt_known=gt_known,
        replicates=replicates,
        limit=limit,
        batch_size=batch_size,
        segment=SegmentOptions(
            score=score, background=background, refine=None if refine == "none" else refine,  # type: ignore[arg-type]
        ),
        refine=refine,
        augment=augment,
    )
    executor = None
    if processes is not None or ray is not None or workers is not None or num_gpus:
        from lidcam_scale.choose import executor_of

        executor = executor_of(processes=processes, ray=ray, workers=workers, num_gpus=num_gpus)
    images = open_data(data, split)
    with load(model, backend=backend, device=device, precision=precision, deadline=deadline) as localizer:
        with progress() as bar:
            task = bar.add_task("eval", total=None)

            def advance(done: int, total: int) -> None:
                bar.update(task, completed=done, total=total)

            if isinstance(localizer, Segmenter):
                if executor is not None:
                    raise InputError(f"{model} is a segmentation network: leave --processes and --ray out")
                results = evaluate_segmenter(localizer, images, output, options, progress=advance)
            else:
                results = run(localizer, images, output, options, executor=executor, progress=advance)
        plots = curve_plots(results)
        for name, png in plots.items():
            write_atomically(output / f"{name}.png", png)
        drawn = [] if isinstance(localizer, Segmenter) else draw_cases(localizer, images, output, cases, options)
        write_report(output / "report.html", results, drawn, plots)
    _print(results, output)


def _print(results: dict[str, Any], output: Path) -> None:
    from rich.table import Table

    from lidcam_bench.metrics.registry import METRICS
    from lidcam_cli.console import say

    for row, entries in results["rows"].items():
        table = Table(box=None, pad_edge=False, header_style="bold", title=row, title_justify="left")
        table.add_column("measure", width=34)
        table.add_column("value", justify="right", width=11)
        table.add_column("95% interval", justify="right", width=16)
        for metric, entry in entries.items():
            for score in METRICS[metric].scores:
                name, digits = score.name, score.digits
                value, span = entry["scores"][name], entry["intervals_95"][name]
                shown = "not counted" if value is None else f"{value:.{digits}f}"
                if value is None and name in ("top5_loc", "gt_known_loc"):
                    shown = "--gt-known"
                label = score.title
                if name in ("peak_threshold", "foreground_percent") or "@" in name:
                    label = f"  {label}"
                elif metric == "track1":
                    label = f"Track 1 {label}"
                table.add_row(label, shown, f"{span[0]:.{digits}f} to {span[1]:.{digits}f}" if span else "")
        say(table)
        say()
    for note in results["notes"]:
        say(f"Note: {note}", style="dim", wrap=True)
    for failure in results["failures"][:5]:
        say(f"Not read: {failure['error']}", style="yellow")
    say(str(output / "report.html"))
