"""`lidcam submit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["submit"]


def submit(
    images: Annotated[Path, typer.Argument(help="Folder of the pictures.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The zip to write, or to check.")],
    model: Annotated[
        Path | None, typer.Option(help="An artifact (.onnx); without it the zip is only checked.")
    ] = None,
    track: Annotated[int, typer.Option(help="3: 8-bit maps. 1: 8-bit class indices.")] = 3,
    classes: Annotated[
        int | None, typer.Option(help="Track 1: classes with the background; default the model's, or 201.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Pictures per network call.")] = 4,
) -> None:
    """Write a LID Track 3 or Track 1 submission and check it, or check one that is there."""
    from lidcam_rt.cli.console import progress
    from lidcam_rt.errors import DataError
    from lidcam_rt.evaluation.submission import check_submission, write_submission
    from lidcam_rt.predictor import load

    kinds = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
    if not images.is_dir():
        raise DataError(f"{images} is not a folder")
    files = sorted(p for p in images.rglob("*") if p.suffix.lower() in kinds)
    if model is not None:
        with load(model) as localizer, progress() as bar:
            task = bar.add_task("submit", total=None)
            write_submission(
                localizer,
                files,
                out,
                track=track,
                batch_size=batch_size,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
            classes = classes or len(localizer.class_names) + 1
    faults = check_submission(out, files, track=track, classes=classes or 201)
    if faults:
        shown = "\n".join(f"  {fault}" for fault in faults[:20])
        more = f"\n  and {len(faults) - 20} more" if len(faults) > 20 else ""
        raise DataError(f"{out} is not a valid Track {track} submission:\n{shown}{more}")
    typer.echo(f"{out}: a valid Track {track} submission of {len(files)} pictures")
