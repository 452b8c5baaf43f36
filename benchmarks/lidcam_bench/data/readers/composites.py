"""Data sets that `lidcam data make` writes: objects pasted on photographs, with exact masks."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from lidcam_bench.data.layout import expect
from lidcam_bench.data.masks import MaskFile
from lidcam_bench.data.records import ImageSet, Record
from lidcam_rt.errors import DataError

__all__ = ["read_composites"]

_LAYOUT = """
    dataset.json            name, class names, seed
    SPLIT.csv               file, label   (SPLIT: train, val, test)
    SPLIT/000000.png        the picture
    SPLIT/masks/000000.png  255 the object, 0 elsewhere
`lidcam data make NAME DIR` writes it"""


def read_composites(folder: Path, split: str) -> ImageSet:
    """Read a split of a made data set.

    Args:
        folder: as `lidcam data make` wrote it.
        split: train, val or test.

    Raises:
        DataError: a file is missing or damaged.
    """
    try:
        about = json.loads(expect(folder / "dataset.json", _LAYOUT).read_text())
        classes = tuple(about["class_names"])
    except (ValueError, KeyError) as error:
        raise DataError(f"{folder / 'dataset.json'} is damaged: {error}. Make the data set again") from error
    records = []
    table = expect(folder / f"{split}.csv", _LAYOUT)
    with table.open(newline="") as file:
        for line, row in enumerate(csv.DictReader(file), start=2):
            try:
                label = int(row["label"])
                image = folder / split / row["file"]
            except (KeyError, TypeError, ValueError):
                raise DataError(f"{table}, line {line}: expected `file,label`, got {row}") from None
            if not 0 <= label < len(classes):
                raise DataError(f"{table}, line {line}: label {label} is not one of the {len(classes)} classes")
            records.append(Record(image, (label,), mask=MaskFile(folder / split / "masks" / row["file"])))
    return ImageSet(f"{about.get('name', folder.name)}/{split}", classes, tuple(records))
