"""A sheet of pseudo labels: the best, the middle and the worst pictures beside their truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from lidcam_bench.data import Record
from PIL import Image

from lidcam_rt.drawing import encode, label_overlay
from lidcam_rt.image import read_image
from lidcam_training.pseudo.run import label_file, read_labels

__all__ = ["gallery_sheet"]

_SIDE = 160


def gallery_sheet(records: Sequence[Record], folder: Path, scores: Mapping[str, float], *, each: int = 4) -> bytes:
    """A PNG with a row per picture: the picture, its pseudo label and the true one.

    Args:
        records: of the split.
        folder: of the pseudo labels.
        scores: mean IoU of each file.
        each: how many each of the best, middle and worst pictures.
    """
    by_file = {label_file(record): record for record in records}
    ranked = sorted((file for file in scores if file in by_file), key=lambda file: (-scores[file], file))
    middle = max(0, len(ranked) // 2 - each // 2)
    chosen = dict.fromkeys([*ranked[:each], *ranked[middle : middle + each], *ranked[-each:]])
    rows = []
    for file in chosen:
        record = by_file[file]
        picture, true = read_image(record.image), record.truth().label_map()
        cells = [picture, label_overlay(picture, read_labels(folder / file), alpha=0.8)]
        cells.append(picture if true is None else label_overlay(picture, true, alpha=0.8))
        rows.append(np.hstack([_square(cell) for cell in cells]))
    return encode(np.vstack(rows), ".png")


def _square(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    scale = _SIDE / max(picture.shape[:2])
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    out = np.full((_SIDE + 4, _SIDE + 4, 3), 255, np.uint8)
    out[2 : 2 + size[1], 2 : 2 + size[0]] = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.NEAREST))
    return out
