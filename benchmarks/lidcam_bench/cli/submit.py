"""`lidcam submit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lidcam_rt.cli.crf import Crf, CrfSize

__all__ = ["submit"]

_SHOWN = 20


def submit(
    images: Annotated[Path, typer.Argument(help="Folder of the pictures.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The zip to write, or to check.")],
    model: Annotated[
        Path | None, typer.Option(help="An artifact (.onnx) or engine; without it the zip is only checked.")
    ] = None,
    track: Annotated[int, typer.Option(help="3: 8-bit maps. 1: 8-bit class indices.")] = 3,
    classes: Annotated[
        int | None, typer.Option(help="Track 1: classes with the background; default the model's, or 201.")
    ] = None,
    score: Annotated[float, typer.Option(help="Track 1: least score of a class that is drawn.")] = 0.5,
    background: Annotated[
        str, typer.Option(help="Track 1: what a class has to beat: mask, constant or power.")
    ] = "mask",
    crf: Crf = None,
    crf_size: CrfSize = "network",
    batch_size: Annotated[
        int | None, typer.Option(help="Pictures per network call; by default 1 on the CPU, 8 on a GPU.")
    ] = None,
    backend: Annotated[str, typer.Option(help="Engine.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:INDEX.")] = "auto",
) -> None:
    """Write a LID Track 3 or Track 1 submission and check it, or check one that is there."""
    from lidcam_bench.evaluation.submission import check_submission, write_submission
    from lidcam_rt.cli.console import out as console
    from lidcam_rt.cli.console import progress
    from lidcam_rt.cli.sources import find_images
    from lidcam_rt.errors import DataError, InputError
    from lidcam_rt.localizer import load
    from lidcam_rt.segmenter import SegmentOptions

    if not images.is_dir():
        raise DataError(f"{images} is not a folder: give the folder of the pictures")
    if out.suffix.lower() != ".zip":
        raise InputError(f"--out is the zip file, as track{track}.zip, got {out}")
    files = [Path(p) for p in find_images([str(images)])]
    if model is not None:
        with load(model, backend=backend, device=device) as localizer, progress() as bar:
            task = bar.add_task("submit", total=None)
            write_submission(
                localizer,
                files,
                out,
                track=track,
                segment=SegmentOptions(score=score, background=background, crf=crf),  # type: ignore[arg-type]
                crf=crf,
                crf_size=crf_size,
                batch_size=batch_size,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
            classes = classes or len(localizer.class_names) + 1
    faults = check_submission(out, files, track=track, classes=classes or 201)
    if faults:
        shown = "\n".join(f"  {fault}" for fault in faults[:_SHOWN])
        more = f"\n  and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise DataError(f"{out} is not a valid Track {track} submission:\n{shown}{more}")
    console.print(f"{out}: a valid Track {track} submission of {len(files)} pictures", soft_wrap=True, markup=False)
