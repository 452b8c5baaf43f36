"""Scenes that `lidcam data make` writes: several objects per picture, with exact label maps."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from lidcam_bench.data.layout import expect
from lidcam_bench.data.masks import MaskFile, MaskForm
from lidcam_bench.data.readers.composites import read_class_list
from lidcam_bench.data.records import ImageSet, Record
from lidcam_bench.data.text import inside, read_text
from lidcam_rt.errors import DataError

__all__ = ["read_scenes"]

_LAYOUT = """
    dataset.json             name, class names, seed
    SPLIT.csv                file, labels, unknown   (SPLIT: train, val, test; class indices separated by spaces)
    SPLIT/000000.png         the picture
    SPLIT/labels/000000.png  class index + 1, 0 the background, 255 around objects
`lidcam data make scenes DIR` writes it"""


def read_scenes(folder: Path, split: str) -> ImageSet:
    """Read a split of made scenes.

    Args:
        folder: as `lidcam data make` wrote it.
        split: train, val or test.

    Raises:
        DataError: a file is missing or damaged.
    """
    name, classes = read_class_list(expect(folder / "dataset.json", _LAYOUT))
    records = []
    table = expect(inside(folder, f"{split}.csv", f"split {split!r}"), _LAYOUT)
    for line, row in enumerate(csv.DictReader(io.StringIO(read_text(table))), start=2):
        where = f"{table}, line {line}"
        try:
            file, labels, unknown = row["file"], *(tuple(map(int, row[key].split())) for key in ("labels", "unknown"))
        except (AttributeError, KeyError, TypeError, ValueError):
            raise DataError(f"{where}: expected `file,labels,unknown`, got {row}") from None
        wrong = [label for label in (*labels, *unknown) if not 0 <= label < len(classes)]
        if wrong:
            raise DataError(f"{where}: label {wrong[0]} is not one of the {len(classes)} classes")
        mask = MaskFile(inside(folder / split / "labels", file, where), MaskForm.LABELS, classes=len(classes))
        records.append(Record(inside(folder / split, file, where), labels, mask=mask, unknown=unknown))
    return ImageSet(f"{name}/{split}", classes, tuple(records), multilabel=True)
