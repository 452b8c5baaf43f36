"""`lidcam scale`."""

from __future__ import annotations

from typing import Annotated

import typer

from lidcam_cli.options import (
    MAX_PIXELS,
    Augment,
    Backend,
    BatchSize,
    Device,
    Gpus,
    MaxPixels,
    Precision,
    Processes,
    Ray,
    RefinePreset,
    Strict,
    Workers,
)

__all__ = ["scale"]

#: Exit status of a run in which some pictures could not be localized.
SOME_FAILED = 8


def scale(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Artifact made by `lidcam export`: a path, or a URL for fsspec.")
    ],
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGES",
            help="Files, folders (to any depth), quoted patterns, URLs, or - for a list on standard input.",
        ),
    ],
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="PLACE",
            help="Folder or URL (s3://bucket/place) for the parts; the same command, run again, resumes there.",
        ),
    ],
    processes: Processes = None,
    ray: Ray = None,
    spark: Annotated[
        str | None,
        typer.Option(metavar="MASTER", help="Run on Spark: `local[2]`, `yarn`, spark://HOST:PORT."),
    ] = None,
    workers: Workers = None,
    num_gpus: Gpus = 0.0,
    shard_size: Annotated[
        int | None,
        typer.Option(min=1, metavar="COUNT", help="Pictures per part. [default: 1000, fewer for short lists]"),
    ] = None,
    mask: Annotated[bool, typer.Option(help="Write masks, as COCO run lengths.")] = True,
    batch_size: BatchSize = None,
    backend: Backend = "auto",
    device: Device = "auto",
    precision: Precision = "auto",
    max_pixels: MaxPixels = MAX_PIXELS,
    strict: Strict = True,
    refine: RefinePreset = None,
    augment: Augment = None,
) -> None:
    """Localize many pictures into Parquet: one row per picture.

    In processes on this machine, on Ray or on Spark. Run the same
    command again to do what is left.

    Exit status: 0 all went well, 8 some rows have an error, 2 wrong
    arguments, 3 the artifact, 5 the engine or the workers, 6 the output,
    130 interrupted.
    """
    from lidcam_cli.console import note, print_error, progress, say
    from lidcam_scale.choose import executor_of
    from lidcam_scale.job import Job
    from lidcam_scale.listing import list_pictures
    from lidcam_scale.run import scale as run

    executor = executor_of(processes=processes, ray=ray, spark=spark, workers=workers, num_gpus=num_gpus)
    job = Job(
        model,
        mask=mask,
        batch_size=batch_size,
        backend=backend,
        device=device,
        precision=precision,
        refine=refine,
        augment=augment,
        max_pixels=max_pixels,
        strict=strict,
    )
    with progress() as bar:
        task = bar.add_task("scale", total=None)

        def advance(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        summary = run(job, list_pictures(images), output, executor=executor, shard_size=shard_size, progress=advance)
    if summary.resumed:
        note(f"{summary.resumed} of {summary.pictures} pictures were already done")
    say(f"{summary.pictures - summary.failed} localized, {summary.failed} failed")
    say(summary.output)
    if summary.failed:
        shown = [f"  {error}" for error in summary.errors[:20]]
        more = summary.failed - len(shown)
        if more > 0:
            shown.append(f"  and {more} more: rows whose error is not null")
        print_error(f"{summary.failed} of {summary.pictures} pictures failed", "\n".join(shown))
        raise typer.Exit(SOME_FAILED)
