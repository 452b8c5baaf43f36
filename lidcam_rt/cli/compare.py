"""`lidcam compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["compare"]


def compare(
    a: Annotated[Path, typer.Argument(help="The reference: an artifact, an engine, or a checkpoint.")],
    b: Annotated[Path, typer.Argument(help="What is held against it.")],
    data: Annotated[str, typer.Option(help="As for `lidcam eval`.")],
    split: Annotated[str, typer.Option(help="Split, for NAME:DIR.")] = "test",
    limit: Annotated[int | None, typer.Option(help="The first pictures only.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="JSON file, with a row per picture.")
    ] = None,
    top1: Annotated[float, typer.Option(help="Least agreement of the first class, percent.")] = 99.0,
    mask_iou: Annotated[float, typer.Option(help="Least mean IoU of the masks.")] = 0.99,
    flipped: Annotated[float, typer.Option(help="Largest share of mask pixels that differ, percent.")] = 0.5,
    metric: Annotated[float, typer.Option(help="Largest difference of a metric, in points of 100.")] = 0.5,
    backend_a: Annotated[str, typer.Option(help="Engine of the first.")] = "auto",
    backend_b: Annotated[str, typer.Option(help="Engine of the second.")] = "auto",
) -> None:
    """Compare two ways to run a model on pictures. Exit status 1: beyond the tolerance."""
    import json

    from rich.console import Console
    from rich.table import Table

    from lidcam_rt.cli.console import progress
    from lidcam_rt.evaluation.compare import Tolerance, open_runner
    from lidcam_rt.evaluation.compare import compare as run
    from lidcam_rt.evaluation.data import open_data
    from lidcam_rt.evaluation.runner import write_atomically

    images = open_data(data, split)
    first, second = open_runner(a, backend=backend_a), open_runner(b, backend=backend_b)
    with progress() as bar:
        task = bar.add_task("compare", total=None)
        found = run(
            first,
            second,
            list(images.records)[:limit],
            Tolerance(top1, mask_iou, flipped, metric),
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    table = Table("measure", "value")
    for name, value in found.total.items():
        table.add_row(name, "not to be had" if value is None else f"{value:.6g}")
    console = Console()
    console.print(table)
    if out is not None:
        content = json.dumps(found.to_dict(), indent=1, sort_keys=True) + "\n"
        write_atomically(out, content.encode())
    for fault in found.faults:
        console.print(f"Beyond the tolerance: {fault}", style="red")
    if found.faults:
        raise typer.Exit(1)
    console.print("Within the tolerance.")
