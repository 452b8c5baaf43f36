"""Data sets that `lidcam data make` writes: objects pasted on photographs, with exact masks."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from lidcam_bench.data.layout import expect
from lidcam_bench.data.masks import MaskFile
from lidcam_bench.data.records import ImageSet, Record
from lidcam_bench.data.text import inside, read_json, read_text
from lidcam_rt.errors import DataError

__all__ = ["read_class_list", "read_composites"]

_LAYOUT = """
    dataset.json            name, class names, seed
    SPLIT.csv               file, label   (SPLIT: train, val, test)
    SPLIT/000000.png        the picture
    SPLIT/masks/000000.png  255 the object, 0 elsewhere
`lidcam data make NAME DIR` writes it"""


def read_class_list(file: Path) -> tuple[str, tuple[str, ...]]:
    """Name and class names of a made data set.

    Args:
        file: its dataset.json.

    Raises:
        DataError: it is damaged.
    """
    about = read_json(file)
    names = about.get("class_names") if isinstance(about, dict) else None
    classes = tuple(names) if isinstance(names, list) else ()
    if not classes or not all(isinstance(name, str) for name in classes):
        raise DataError(f"{file} is damaged: no class_names. Make the data set again")
    return str(about.get("name", file.parent.name)), classes


def read_composites(folder: Path, split: str) -> ImageSet:
    """Read a split of a made data set.

    Args:
        folder: as `lidcam data make` wrote it.
        split: train, val or test.

    Raises:
        DataError: a file is missing or damaged.
    """
    title, classes = read_class_list(expect(folder / "dataset.json", _LAYOUT))
    records = []
    table = expect(inside(folder, f"{split}.csv", f"split {split!r}"), _LAYOUT)
    for line, row in enumerate(csv.DictReader(io.StringIO(read_text(table))), start=2):
        where = f"{table}, line {line}"
        try:
            label, name = int(row["label"]), row["file"]
        except (KeyError, TypeError, ValueError):
            raise DataError(f"{where}: expected `file,label`, got {row}") from None
        if not 0 <= label < len(classes):
            raise DataError(f"{where}: label {label} is not one of the {len(classes)} classes")
        mask = MaskFile(inside(folder / split / "masks", name, where))
        records.append(Record(inside(folder / split, name, where), (label,), mask=mask))
    return ImageSet(f"{title}/{split}", classes, tuple(records))
