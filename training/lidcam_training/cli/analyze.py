"""`lidcam analyze`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["analyze"]


def analyze(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="Folder that `lidcam train` wrote.")],
    images: Annotated[
        list[Path], typer.Option("--images", metavar="PATH", help="A picture or a folder; may be given several times.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Folder for the plots.")] = Path(
        "analysis"
    ),
    masks: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder of masks with the same names (PNG).")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, metavar="COUNT", help="Use the first COUNT pictures only.")] = 20,
) -> None:
    """Draw the phenomena P1 to P3 of the talk.

    These are the activation area, the signs of the weights, and the sorted values of the map.
    """
    import json

    import numpy as np
    import torch
    from lidcam_bench.data import MaskFile, MaskForm, Record
    from lidcam_bench.data.mask_forms import common_form

    from lidcam_cli.console import note, say
    from lidcam_cli.folders import find_pictures
    from lidcam_rt.errors import DataError, ImageError
    from lidcam_rt.files import output_folder, write_atomically
    from lidcam_training.checkpoint import load_checkpoint
    from lidcam_training.data.loader import read_picture
    from lidcam_training.phenomena import measure_phenomena
    from lidcam_training.plots import draw_phenomena

    read = load_checkpoint(checkpoint)
    files: list[Path] = []
    for place in images:
        if place.is_dir():
            files += map(Path, find_pictures(place).paths)
        elif place.is_file():
            files.append(place)
        else:
            raise ImageError(f"{place} does not exist")
    if not files:
        raise DataError(f"no picture in {', '.join(map(str, images))}")
    meta = read.meta
    mean = torch.tensor(meta.mean).view(1, 3, 1, 1)
    std = torch.tensor(meta.std).view(1, 3, 1, 1)
    places = {file: masks / f"{file.stem}.png" for file in files[:limit]} if masks else {}
    mask_files = {file: path for file, path in places.items() if path.exists()}
    form = common_form(list(mask_files.values())) if mask_files else MaskForm.GREY
    rows = []
    with output_folder(output):
        for file in files[:limit]:
            picture = read_picture(Record(file), meta.size[0], meta.interpolation)
            if picture is None:
                note(f"skipped, unreadable: {file}")
                continue
            source = MaskFile(mask_files[file], form) if file in mask_files else None
            mask = Record(file, mask=source).truth().object_mask()
            tensor = (torch.from_numpy(picture.transpose(2, 0, 1).copy())[None].float() - mean) / std
            with torch.no_grad():
                label = int(read.model(tensor).argmax())
            phenomena = measure_phenomena(
                read.model, tensor, label, mask=mask, percentile=meta.percentile, theta=meta.theta
            )
            write_atomically(output / f"{file.stem}.png", draw_phenomena(phenomena, picture, meta.class_names[label]))
            rows.append(
                {
                    "image": str(file),
                    "class": meta.class_names[label],
                    "area_pooled_correlation": float(np.corrcoef(phenomena.area, phenomena.pooled)[0, 1]),
                    "negative_weights": float((phenomena.weight < 0).mean()),
                    "positive_ioa": phenomena.positive_ioa,
                    "negative_ioa": phenomena.negative_ioa,
                    "percentile_threshold": phenomena.percentile_threshold,
                    "maximum_threshold": phenomena.maximum_threshold,
                }
            )
        write_atomically(output / "analysis.json", json.dumps(rows, indent=1).encode())
    say(f"{len(rows)} pictures: {output}")
