"""`lidcam submit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lidcam_cli.options import Backend, Background, BatchSize, Deadline, Device, Precision, RefinePreset, Score

__all__ = ["submit"]

_SHOWN = 20


def submit(
    images: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of the pictures.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE.zip", help="The zip to write, or to check.")],
    model: Annotated[
        Path | None, typer.Option(metavar="MODEL", help="Artifact or engine; without it the zip is only checked.")
    ] = None,
    track: Annotated[int, typer.Option(metavar="3|1", help="3: 8-bit maps. 1: 8-bit class indices.")] = 3,
    classes: Annotated[
        int | None,
        typer.Option(
            min=2, max=256, metavar="COUNT",
            help="Track 1: classes with the background. [default: the model's, or 201]",
        ),
    ] = None,
    score: Score = 0.5,
    background: Background = "mask",
    refine: RefinePreset = None,
    deadline: Deadline = None,
    batch_size: BatchSize = None,
    backend: Backend = "auto",
    device: Device = "auto",
    precision: Precision = "auto",
) -> None:
    """Write and check a LID Track 3 or Track 1 submission.

    Without --model an existing zip is checked.
    """
    from lidcam_bench.evaluation.submission import check_submission, write_submission
    from lidcam_cli.console import progress, say
    from lidcam_cli.sources import find_images
    from lidcam_rt.errors import DataError, InputError
    from lidcam_rt.loading import load
    from lidcam_rt.segmenter import SegmentOptions

    if not images.is_dir():
        raise DataError(f"{images} is not a folder: give the folder of the pictures")
    if output.suffix.lower() != ".zip":
        raise InputError(f"--output must name the zip file, such as track{track}.zip, got {output}")
    found = find_images([str(images)])
    files = [Path(path) for path in found.paths]
    if model is not None:
        with (
            load(model, backend=backend, device=device, precision=precision, deadline=deadline) as localizer,
            progress() as bar,
        ):
            task = bar.add_task("submit", total=None)
            write_submission(
                localizer,
                files,
                output,
                track=track,
                segment=SegmentOptions(
                    score=score, background=background, refine=None if refine == "none" else refine,  # type: ignore[arg-type]
                ),
                refine=refine,
                batch_size=batch_size,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
            classes = min(len(localizer.class_names) + 1, 256) if classes is None else classes
    faults = check_submission(output, files, track=track, classes=201 if classes is None else classes)
    if faults:
        shown = "\n".join(f"  {fault}" for fault in faults[:_SHOWN])
        more = f"\n  and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise DataError(f"{output} is not a valid Track {track} submission:\n{shown}{more}")
    if found.skipped:
        say(f"not read: {found.left_out()}")
    say(f"{output}: a valid Track {track} submission of {len(files)} pictures")
