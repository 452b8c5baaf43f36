"""`lidcam eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["evaluate"]


def evaluate(
    model: Annotated[Path, typer.Argument(help="An artifact (.onnx).")],
    data: Annotated[
        str,
        typer.Option(
            help="DIR with images/ and masks/, labels.csv or labels.json; coco:FILE.json[,IMAGES_DIR]; "
            "or NAME:DIR of a data set that a package brings, as clutter-fashion:DIR."
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for the results; a killed run goes on there.")
    ],
    split: Annotated[str, typer.Option(help="Split, for NAME:DIR.")] = "test",
    metrics: Annotated[str, typer.Option(help="Some of track3, wsol, track1, with commas.")] = "track3,wsol",
    gt_known: Annotated[bool, typer.Option("--gt-known", help="Score the true class's map too.")] = False,
    limit: Annotated[int | None, typer.Option(help="The first pictures only.")] = None,
    replicates: Annotated[int, typer.Option(help="Bootstrap copies for the intervals; 0: none.")] = 200,
    batch_size: Annotated[int, typer.Option(help="Pictures per network call.")] = 4,
    backend: Annotated[str, typer.Option(help="Engine.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:INDEX.")] = "auto",
    cases: Annotated[int, typer.Option(help="Best and worst pictures in the report.")] = 6,
) -> None:
    """Score an artifact on a data set; write results.json, images.csv, curves and report.html."""
    from rich.console import Console
    from rich.table import Table

    from lidcam_rt.cli.console import progress
    from lidcam_rt.evaluation.data import open_data
    from lidcam_rt.evaluation.report import curve_plots, write_report
    from lidcam_rt.evaluation.runner import EvalOptions, write_atomically
    from lidcam_rt.evaluation.runner import evaluate as run
    from lidcam_rt.predictor import load

    options = EvalOptions(
        metrics=tuple(name.strip() for name in metrics.split(",") if name.strip()),
        gt_known=gt_known,
        replicates=replicates,
        limit=limit,
        batch_size=batch_size,
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
        write_report(out / "report.html", results, _cases(localizer, images, out, cases), plots)
    table = Table("map", "measure", "value", "95% interval")
    for row, entries in results["rows"].items():
        for metric, entry in entries.items():
            for name, value in entry["scores"].items():
                span = entry["intervals_95"][name]
                shown = "not counted" if value is None else f"{value:.4g}"
                table.add_row(
                    row, f"{metric} {name}", shown, f"{span[0]:.4g} to {span[1]:.4g}" if span else ""
                )
    console = Console()
    console.print(table)
    for note in results["notes"]:
        console.print(f"Note: {note}", style="dim")
    console.print(f"{out / 'report.html'}")


def _cases(localizer: Any, data: Any, out: Path, number: int) -> list[tuple[str, str, bytes]]:
    """The worst and best pictures by the IoU of the model's mask, drawn with mask outline and box."""
    import csv
    import io

    from PIL import Image

    with (out / "images.csv").open(newline="") as file:
        rows = [(float(r["mask_iou"]), i, r) for i, r in enumerate(csv.DictReader(file)) if r.get("mask_iou")]
    rows.sort(key=lambda entry: entry[:2])
    number = min(number, len(rows) // 2)
    groups = {"Worst": rows[:number], "Best": rows[::-1][:number]}
    drawn = []
    for name, chosen in groups.items():
        for iou, index, row in chosen:
            picture = Image.fromarray(localizer(data.records[index].image).overlay())
            picture.thumbnail((480, 480))
            buffer = io.BytesIO()
            picture.save(buffer, "JPEG", quality=85)
            caption = f"{row['file']}: {row['class']} ({float(row['score']):.2f}), mask IoU {iou:.2f}"
            drawn.append((f"{name} masks of the predicted class", caption, buffer.getvalue()))
    return drawn
