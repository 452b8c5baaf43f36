"""The worst and the best pictures of an evaluation, drawn with the truth."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lidcam_bench.data.records import ImageSet
from lidcam_bench.evaluation.options import PREDICTED, EvalOptions, class_map
from lidcam_rt.localizer import Localizer
from lidcam_rt.results import Localization

__all__ = ["Case", "draw_cases"]

_TRUTH = (255, 0, 200)
_SIDE = 480


@dataclass(frozen=True)
class Case:
    """A picture of the report.

    Attributes:
        heading: group it belongs to.
        about: what the colours in the group mean.
        caption: file, answer and score.
        jpeg: the picture.
    """

    heading: str
    about: str
    caption: str
    jpeg: bytes


def draw_cases(
    localizer: Localizer, data: ImageSet, folder: Path, number: int, options: EvalOptions | None = None
) -> list[Case]:
    """The worst and best pictures by mask IoU, and for track1 by the picture's own mean IoU.

    Args:
        localizer: the artifact that was scored.
        data: the data set that was scored.
        folder: output of `evaluate`, with images.csv.
        number: pictures per group.
        options: of that evaluation.
    """
    options = options or EvalOptions()
    with (folder / "images.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = list(csv.DictReader(file))
    cases: list[Case] = []
    if {"track3", "wsol"} & set(options.metrics):
        about = (
            "Magenta: outline of the true object. White: the model's mask at its own threshold. Green: its box. The "
            "warmer the colour, the higher the map."
        )
        for heading, i in _ends(rows, "mask_iou", number, "masks of the predicted class"):
            row = rows[i]
            wrong = {"True": ", class right", "False": ", class wrong"}.get(row.get("top1_cls", ""), "")
            answer = f"{row['class']} ({float(row['score']):.2f}{wrong})"
            caption = f"{row['file']}: {answer}, mask IoU {float(row['mask_iou']):.2f}"
            localized = localizer(data.records[i].image, refine=options.refine)
            large, mask = _enlarged(localized, data.records[i].truth(localized.size).object_mask())
            cases.append(Case(heading, about, caption, _jpeg(_outline(large.overlay(), mask))))
    if "track1" in options.metrics and (classes := class_map(localizer.class_names, data.class_names)) is not None:
        from lidcam_rt.segmenter import CamSegmenter, Segmentation

        segmenter = CamSegmenter(localizer, options.segment, classes=classes)
        about = "Left: the model's label map. Right: the true one. A colour is a class; ignored pixels are not shown."
        column = f"{PREDICTED}: image_mean_iou"
        for heading, i in _ends(rows, column, number, "label maps of the predicted classes"):
            result = segmenter(data.records[i].image)
            truth = data.records[i].truth().label_map()
            if truth is None or result.image is None:
                continue
            shown = np.where(truth == 255, 0, truth).astype(np.uint8)
            right = Segmentation(shown, (), (), None, result.image).overlay()
            gap = np.full((right.shape[0], max(2, right.shape[1] // 60), 3), 255, np.uint8)
            names = ", ".join(entry.class_name for entry in result.classes) or "nothing"
            true = ", ".join(data.class_names[label] for label in data.records[i].labels) or "unknown"
            iou = f"mean IoU of this picture {float(rows[i][column]):.0f}%"
            caption = f"{rows[i]['file']}: {names}; truth: {true}; {iou}"
            cases.append(Case(heading, about, caption, _jpeg(np.hstack([result.overlay(), gap, right]))))
    return cases


def _ends(rows: list[dict[str, str]], column: str, number: int, what: str) -> list[tuple[str, int]]:
    """Indices of the rows with the lowest, then the highest values; no row is in both."""
    ranked = sorted((float(row[column]), i) for i, row in enumerate(rows) if row.get(column))
    number = min(number, len(ranked) // 2)
    worst, best = ranked[:number], ranked[::-1][:number]
    return [(f"Worst {what}", i) for _, i in worst] + [(f"Best {what}", i) for _, i in best]


def _enlarged(
    result: Localization, mask: npt.NDArray[np.uint8] | None
) -> tuple[Localization, npt.NDArray[np.uint8] | None]:
    """A small picture's localization and mask in whole multiples of their pixels, for outlines that hide less."""
    import cv2

    times = _SIDE // max(result.size)
    if times < 2 or result.image is None:
        return result, mask

    def grow(pixels: npt.NDArray[np.uint8], how: int = cv2.INTER_NEAREST) -> npt.NDArray[np.uint8]:
        return np.asarray(cv2.resize(pixels, None, fx=times, fy=times, interpolation=how), np.uint8)

    box = None
    if result.box is not None:
        x0, y0, x1, y1 = result.box
        box = times * x0, times * y0, times * x1, times * y1
    large = replace(
        result,
        image=grow(result.image),
        map=grow(result.map, cv2.INTER_LINEAR),
        mask=grow(result.mask.view(np.uint8)).view(np.bool_),
        box=box,
    )
    return large, None if mask is None else grow(mask)


def _outline(picture: npt.NDArray[np.uint8], mask: npt.NDArray[np.uint8] | None) -> npt.NDArray[np.uint8]:
    import cv2

    if mask is None:
        return picture
    object_: Any = (mask == 1).astype(np.uint8)
    line = max(1, round(min(picture.shape[:2]) / 160))
    contours, _ = cv2.findContours(object_, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, contours, -1, _TRUTH, line, cv2.LINE_AA)
    return picture


def _jpeg(pixels: npt.NDArray[np.uint8]) -> bytes:
    from PIL import Image

    picture = Image.fromarray(pixels)
    # Small pictures are enlarged, so that outlines and labels of one pixel can be seen.
    scale = _SIDE / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    buffer = io.BytesIO()
    picture.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST).save(
        buffer, "JPEG", quality=86
    )
    return buffer.getvalue()
