"""`lidcam eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lidcam_rt.cli.crf import Crf, CrfSize

__all__ = ["evaluate"]


def evaluate(
    model: Annotated[Path, typer.Argument(help="An artifact (.onnx), or an engine.")],
    data: Annotated[
        str,
        typer.Option(
            help="DIR with images/ and masks/ or labelmaps/, labels.csv or labels.json; "
            "coco:FILE.json[,IMAGES_DIR]; or NAME:DIR of a data set that a package brings, as clutter-fashion:DIR."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results; a killed run goes on there.")],
    split: Annotated[str, typer.Option(help="Split, for NAME:DIR.")] = "test",
    metrics: Annotated[str, typer.Option(help="Some of track3, wsol, track1, with commas.")] = "track3,wsol",
    gt_known: Annotated[bool, typer.Option("--gt-known", help="Score the true class's map too.")] = False,
    limit: Annotated[int | None, typer.Option(help="The first pictures only.")] = None,
    replicates: Annotated[int, typer.Option(help="Bootstrap copies for the intervals; 0: none.")] = 200,
    batch_size: Annotated[
        int | None, typer.Option(help="Pictures per network call; by default 1 on the CPU, 8 on a GPU.")
    ] = None,
    backend: Annotated[str, typer.Option(help="Engine.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:INDEX.")] = "auto",
    score: Annotated[float, typer.Option(help="track1: least score of a class that is drawn.")] = 0.5,
    background: Annotated[
        str, typer.Option(help="track1: what a class has to beat: mask, constant or power.")
    ] = "mask",
    crf: Crf = None,
    crf_size: CrfSize = "network",
    cases: Annotated[int, typer.Option(min=0, help="Best and worst pictures in the report.")] = 6,
) -> None:
    """Score an artifact on a data set; write results.json, images.csv, curves and report.html."""
    from lidcam_bench.data.sets import open_data
    from lidcam_bench.evaluation.runner import EvalOptions
    from lidcam_bench.evaluation.runner import evaluate as run
    from lidcam_bench.report.cases import draw_cases
    from lidcam_bench.report.html import write_report
    from lidcam_bench.report.plots import curve_plots
    from lidcam_rt.cli.console import progress
    from lidcam_rt.files import write_atomically
    from lidcam_rt.localizer import load
    from lidcam_rt.segmenter import SegmentOptions

    options = EvalOptions(
        metrics=tuple(dict.fromkeys(name.strip() for name in metrics.split(",") if name.strip())),
        gt_known=gt_known,
        replicates=replicates,
        limit=limit,
        batch_size=batch_size,
        segment=SegmentOptions(score=score, background=background, crf=crf),  # type: ignore[arg-type]
        crf=crf,
        crf_size=crf_size,
    )
    images = open_data(data, split)
    with load(model, backend=backend, device=device) as localizer:
        with progress() as bar:
            task = bar.add_task("eval", total=None)
            results = run(
                localizer,
                images,
                out,
                options,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
        plots = curve_plots(results)
        for name, png in plots.items():
            write_atomically(out / f"{name}.png", png)
        write_report(out / "report.html", results, draw_cases(localizer, images, out, cases, options), plots)
    _print(results, out)


def _print(results: dict[str, Any], out: Path) -> None:
    from rich.table import Table

    from lidcam_bench.report.html import score_name
    from lidcam_rt.cli.console import out as console

    for row, entries in results["rows"].items():
        table = Table(box=None, pad_edge=False, header_style="bold", title=row, title_justify="left")
        table.add_column("measure", width=34)
        table.add_column("value", justify="right", width=11)
        table.add_column("95% interval", justify="right", width=16)
        for metric, entry in entries.items():
            for name, value in entry["scores"].items():
                if name == "max_box_acc@0.5" and metric == "max_box_acc":
                    continue
                span = entry["intervals_95"][name]
                digits = 0 if name == "peak_threshold" else 3 if name == "peak_iou" else 1
                shown = "not counted" if value is None else f"{value:.{digits}f}"
                if value is None and name in ("top5_loc", "gt_known_loc"):
                    shown = "--gt-known"
                label = score_name(metric, name)
                if name in ("peak_threshold", "foreground_percent") or "@" in name:
                    label = f"  {label}"
                elif metric == "track1":
                    label = f"Track 1 {label}"
                table.add_row(label, shown, f"{span[0]:.{digits}f} to {span[1]:.{digits}f}" if span else "")
        console.print(table)
        console.print()
    for note in results["notes"]:
        console.print(f"Note: {note}", style="dim")
    for failure in results["failures"][:5]:
        console.print(f"Not read: {failure['error']}", style="yellow", markup=False)
    console.print(str(out / "report.html"), soft_wrap=True, markup=False)
