"""`lidcam data`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lidcam_cli.options import Split

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Make data sets with exact masks, and inspect data sets."
)


class Made(StrEnum):
    """Data sets that can be made."""

    clutter_fashion = "clutter-fashion"
    crest = "crest"
    stamps = "stamps"
    scenes = "scenes"
    scenes_stamps = "scenes-stamps"


@app.command("make")
def make(
    name: Annotated[
        Made, typer.Argument(metavar="NAME", help="clutter-fashion, crest, stamps, scenes or scenes-stamps.")
    ],
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

    It has image labels for training and exact masks for scores: one object per picture (clutter-fashion,
    stamps; crest, whose class a small mark decides), or one to four of several classes with label maps (scenes,
    scenes-stamps).
    """
    from lidcam_cli.console import say
    from lidcam_training.data.clutter import make_clutter_fashion
    from lidcam_training.data.crest import make_crest
    from lidcam_training.data.scenes import make_scenes, make_stamp_scenes
    from lidcam_training.data.stamps import make_stamps

    given = {key: value for key, value in (("train", train), ("val", val), ("test", test), ("size", size)) if value}
    makers = {
        Made.clutter_fashion: make_clutter_fashion,
        Made.crest: make_crest,
        Made.stamps: make_stamps,
        Made.scenes: make_scenes,
        Made.scenes_stamps: make_stamp_scenes,
    }
    makers[name](folder, seed=seed, source=source, backgrounds=backgrounds, **given)
    say(f"{name.value}: written to {folder}")


@app.command("info")
def info(
    source: Annotated[str, typer.Argument(metavar="DATA", help="A folder, coco:FILE.json[,IMAGES], or NAME:DIR.")],
    split: Split = "train",
) -> None:
    """Count the pictures, labels, boxes and masks of a data set, and read one mask.

    For a data set with several labels per picture it also prints how many pictures each class has.
    """
    import numpy as np
    from lidcam_bench.data import open_data

    from lidcam_cli.console import out

    images = open_data(source, split)
    boxes = sum(len(record.boxes) for record in images.records)
    masks = [record for record in images.records if record.mask is not None]
    out.print(
        f"{images.name}: {len(images)} pictures, {len(images.class_names)} classes, {boxes} boxes, {len(masks)} masks",
        soft_wrap=True,
    )
    if masks:
        masks[0].truth()  # raises where it does not fit its picture
    if not images.multilabel:
        return
    counts, unknown = (
        np.bincount([i for record in images.records for i in getattr(record, field)], minlength=len(images.class_names))
        for field in ("labels", "unknown")
    )
    per_picture = np.bincount([len(record.labels) for record in images.records]).tolist()
    out.print(
        "labels per picture: " + ", ".join(f"{count} with {n}" for n, count in enumerate(per_picture) if count),
        soft_wrap=True,
    )
    for name, count, doubt in zip(images.class_names, counts, unknown, strict=True):
        out.print(f"  {name}: {count}" + (f" ({doubt} unknown)" if doubt else ""), soft_wrap=True, markup=False)
