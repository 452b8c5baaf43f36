"""`lidcam ablate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["ablate"]


def ablate(
    checkpoints: Annotated[
        list[Path], typer.Argument(help="Folders that `lidcam train` wrote, gap and tap.")
    ],
    data: Annotated[str, typer.Option(help="NAME:DIR with masks.")],
    choose: Annotated[str, typer.Option(help="Split on which thresholds are chosen.")] = "val",
    score: Annotated[str, typer.Option(help="Split that is scored.")] = "test",
    crf: Annotated[bool, typer.Option(help="End with the dense CRF.")] = True,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for table, JSON and plot.")] = Path(
        "ablation"
    ),
) -> None:
    """Score CAM, +TAP, +NWC, +PaS, +CRF of checkpoints of several seeds beside a centred blob."""
    import dataclasses
    import json

    from lidcam_training.checkpoint import load_checkpoint
    from lidcam_training.data import open_dataset

    from lidcam_export.ablation import ablate_checkpoint, blob_row, checkpoint_maps, summarize, write_plot

    splits = [open_dataset(data, split) for split in (choose, score)]
    runs = []
    accuracy: dict[str, list[float]] = {}
    read = sorted((load_checkpoint(path) for path in checkpoints), key=lambda c: c.pooling)
    for checkpoint in read:
        few, many = (checkpoint_maps(checkpoint, images) for images in splits)
        if not runs:
            runs.append([blob_row(few, many)])
        accuracy.setdefault(checkpoint.pooling, []).append(many.accuracy)
        runs.append(ablate_checkpoint(checkpoint.pooling, few, many, crf=crf))
        typer.echo(f"{checkpoint.path}: accuracy {many.accuracy:.3f}")
    summary = summarize(runs)
    lines = ["| stage | runs | mask IoU | box IoU >= 0.5 | PxAP |", "|---|---|---|---|---|"]

    def cell(row: dict, key: str, digits: int) -> str:
        if row[key] is None:
            return ""
        spread = row[f"{key}_spread"]
        return f"{row[key]:.{digits}f}" + (f" ± {spread:.{digits}f}" if spread is not None else "")

    for row in summary:
        cells = (row["stage"], row["runs"], cell(row, "iou", 3), cell(row, "box", 3), cell(row, "pxap", 1))
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    output.mkdir(parents=True, exist_ok=True)
    record = {
        "data": data.partition(":")[0],
        "chosen_on": choose,
        "scored_on": score,
        "accuracy": accuracy,
        "summary": summary,
        "runs": [[dataclasses.asdict(row) for row in rows] for rows in runs],
    }
    (output / "ablation.json").write_text(json.dumps(record, indent=1))
    (output / "ablation.md").write_text("\n".join(lines) + "\n")
    write_plot(summary, output / "ablation.png")
    typer.echo("\n".join(lines))
