"""`lidcam analyze`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from lidcam_training.advice import Advice
    from lidcam_training.phenomena import Phenomena

__all__ = ["analyze"]

_SUMMARY = "phenomena"


def analyze(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="Folder written by `lidcam train`.")],
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
    """Measure the phenomena P1 to P3 of the talk, and advise.

    P1: the active area of channels against their weights. P2: the signs of
    the weights, and where their maps lie. P3: the sorted values of the map.
    Plots each picture and all together, and advises what to switch on for
    this data: TAP, NWC, PaS, CRF. Masks make the advice firmer.
    """
    import dataclasses
    import json

    import torch
    from lidcam_bench.data import MaskFile, MaskForm, Record
    from lidcam_bench.data.mask_forms import common_form
    from lidcam_bench.evaluation.notes import FEW

    from lidcam_cli.console import note, say
    from lidcam_cli.folders import find_pictures
    from lidcam_rt.errors import DataError, ImageError, InputError
    from lidcam_rt.files import output_folder, write_atomically
    from lidcam_training.advice import advise, summarize
    from lidcam_training.checkpoint import load_checkpoint
    from lidcam_training.data.loader import read_picture
    from lidcam_training.phenomena import crf_gain, measure_phenomena
    from lidcam_training.plots import draw_phenomena, draw_summary

    read = load_checkpoint(checkpoint)
    files: list[Path] = []
    for place in images:
        if place.is_dir():
            found = map(Path, find_pictures(place).paths)
            files += [file for file in found if masks is None or masks.resolve() not in file.resolve().parents]
        elif place.is_file():
            files.append(place)
        else:
            raise ImageError(f"{place} does not exist")
    if not files:
        raise DataError(f"no picture in {', '.join(map(str, images))}")
    files = files[:limit]
    names = {_SUMMARY: output / f"{_SUMMARY}.png"}
    for file in files:
        if (other := names.setdefault(file.stem.lower(), file)) is not file:
            raise InputError(f"{file} and {other} would both be {file.stem}.png: names must differ")
    meta = read.meta
    mean = torch.tensor(meta.mean).view(1, 3, 1, 1)
    std = torch.tensor(meta.std).view(1, 3, 1, 1)
    places = {file: masks / f"{file.stem}.png" for file in files} if masks else {}
    mask_files = {file: path for file, path in places.items() if path.exists()}
    if masks and not mask_files:
        wanted = places[files[0]].name
        raise DataError(f"{masks}: has no mask for any of the {len(files)} pictures; looked for {wanted}")
    if lacking := [file for file in places if file not in mask_files]:
        note(f"{len(lacking)} of {len(files)} pictures have no mask; the first is {lacking[0]}")
    form = common_form(list(mask_files.values())) if mask_files else MaskForm.GREY
    rows: list[dict[str, Any]] = []
    measured: list[Phenomena] = []
    gains: list[float] = []
    with output_folder(output):
        for file in files:
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
            measured.append(phenomena)
            if mask is not None:
                gains.append(crf_gain(phenomena, picture, mask, percentile=meta.percentile, theta=meta.theta))
            rows.append(
                {
                    "image": str(file),
                    "class": meta.class_names[label],
                    "area_spread": _number(phenomena.area_spread),
                    "area_weight_correlation": _number(phenomena.area_weight_correlation),
                    "negative_weights": float((phenomena.weight < 0).mean()),
                    "positive_ioa": _number(phenomena.positive_ioa),
                    "negative_ioa": _number(phenomena.negative_ioa),
                    "object_share": _number(phenomena.object_share),
                    "peak": _number(phenomena.peak),
                    "percentile_threshold": phenomena.percentile_threshold,
                    "maximum_threshold": phenomena.maximum_threshold,
                }
            )
        if not measured:
            raise DataError(f"none of the {len(files)} pictures can be read")
        summary = summarize(measured, "gap" if read.model.pool is None else "tap", gains)
        advice = advise(summary)
        write_atomically(output / f"{_SUMMARY}.png", draw_summary(measured, summary))
        content = {
            "pictures": rows,
            "summary": summary.to_dict(),
            "advice": [dataclasses.asdict(entry) for entry in advice],
        }
        write_atomically(output / "analysis.json", json.dumps(content, indent=1, allow_nan=False).encode() + b"\n")
    say(_table(advice))
    if len(rows) < FEW:
        note(f"The intervals are over {len(rows)} pictures, which is too few: below {FEW} they are mostly too narrow")
    say(f"{len(rows)} pictures: {output}")


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _table(advice: Sequence[Advice]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("component", width=9)
    table.add_column("switch", width=6)
    table.add_column("because", width=61)
    for entry in advice:
        table.add_row(entry.component, entry.verdict, entry.reason)
    return table
