"""`lidcam pipeline`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lidcam_cli.options import OutputFolder

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Run all steps from data to a table.")


@app.callback()
def _root() -> None:
    """Run all steps from data to a table."""


@app.command("track1")
def track1(
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="scenes or scenes-stamps (both are made), or data with label maps.")
    ],
    output: OutputFolder,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Options of the recipes, such as cam.epochs=2 or segment.epochs=2."),
    ] = None,
    seeds: Annotated[str, typer.Option(metavar="NUMBERS", help="Seeds of the training runs.")] = "0",
    sizes: Annotated[
        str | None, typer.Option(metavar="TRAIN,VAL,TEST", help="Pictures of made data. [default: 2000,300,500]")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="COUNT", help="Label maps of the first COUNT training pictures only.")
    ] = None,
    source: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Objects of made data.")] = None,
    backgrounds: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Photographs of made data.")] = None,
    cam_recipe: Annotated[str, typer.Option(metavar="RECIPE", help="Recipe of the CAM network.")] = "scenes_lite0",
    segment_recipe: Annotated[
        str, typer.Option(metavar="RECIPE", help="Recipe of the segmentation networks.")
    ] = "scenes_segment",
) -> None:
    """Weakly supervised segmentation: data, CAM network, pseudo labels, segmentation networks, artifacts, table.

    Repeat the command to resume where it stopped.
    """
    from lidcam_cli.console import note, say
    from lidcam_export.track1.options import Track1Options
    from lidcam_export.track1.pipeline import run_track1
    from lidcam_rt.errors import InputError

    try:
        numbers = tuple(int(part) for part in seeds.split(","))
        counts = None if sizes is None else tuple(int(part) for part in sizes.split(","))
    except ValueError:
        raise InputError("--seeds and --sizes must be whole numbers separated by commas") from None
    if counts is not None and (len(counts) != 3 or min(counts) < 1):
        raise InputError(f"--sizes {sizes}: give TRAIN,VAL,TEST")
    options = Track1Options(
        data=data,
        seeds=numbers,
        sizes=counts,
        source=source,
        backgrounds=backgrounds,
        cam_recipe=cam_recipe,
        segment_recipe=segment_recipe,
        overrides=tuple(overrides or ()),
        limit=limit,
    )
    run_track1(output, options, note=note)
    say((output / "track1.md").read_text())
    say(str(output / "track1.md"))
