"""`lidcam data`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lidcam_rt.cli.options import Split

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Make data sets with exact masks, and look into data sets."
)


class Made(StrEnum):
    """Data sets that can be made."""

    clutter_fashion = "clutter-fashion"
    stamps = "stamps"


@app.command()
def make(
    name: Annotated[Made, typer.Argument(metavar="NAME", help="clutter-fashion or stamps.")],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="New or empty folder.")],
    seed: Annotated[int, typer.Option(metavar="SEED", help="The same seed gives the same files.")] = 0,
    train: Annotated[int | None, typer.Option(min=1, metavar="COUNT", help="Pictures for training.")] = None,
    val: Annotated[int | None, typer.Option(min=1, metavar="COUNT", help="Pictures for choosing thresholds.")] = None,
    test: Annotated[int | None, typer.Option(min=1, metavar="COUNT", help="Pictures for scores.")] = None,
    size: Annotated[int | None, typer.Option(min=32, max=1024, metavar="PIXELS", help="Side of the pictures.")] = None,
    source: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder of the objects. [default: those of a package]")
    ] = None,
    backgrounds: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder of photos. [default: those of packages]")
    ] = None,
) -> None:
    """Make a data set from packages or your own photos.

    It has image labels for training and exact masks for scores.
    """
    from lidcam_rt.cli.console import say
    from lidcam_training.data.clutter import make_clutter_fashion
    from lidcam_training.data.stamps import make_stamps

    given = {key: value for key, value in (("train", train), ("val", val), ("test", test), ("size", size)) if value}
    maker = make_clutter_fashion if name is Made.clutter_fashion else make_stamps
    maker(folder, seed=seed, source=source, backgrounds=backgrounds, **given)
    say(f"{name.value}: written to {folder}")


@app.command()
def info(
    source: Annotated[str, typer.Argument(metavar="DATA", help="A folder, coco:FILE.json[,IMAGES], or NAME:DIR.")],
    split: Split = "train",
) -> None:
    """Count the pictures, labels, boxes and masks of a data set."""
    from lidcam_bench.data import open_data

    from lidcam_rt.cli.console import out

    images = open_data(source, split)
    boxes = sum(len(record.boxes) for record in images.records)
    masks = sum(record.mask is not None for record in images.records)
    out.print(
        f"{images.name}: {len(images)} pictures, {len(images.class_names)} classes, {boxes} boxes, {masks} masks",
        soft_wrap=True,
    )
