"""The plain folder form.

    images/            pictures, sub-folders allowed
    masks/             optional: same names, .png, above 127 is the object
    ignore/            optional: same names, .png, above 127 is left out
    labelmaps/         instead of masks/ and ignore/: 8 bits, class index + 1, 0 background, 255 left out
    classes.txt        optional: a class name per line
    labels.csv         optional: columns file, label, and for boxes x0, y0, x1, y1; a row per box
    labels.json        instead of labels.csv: [{"file", "labels": [...], "boxes": [[x0, y0, x1, y1], ...]}, ...]

Labels are indices or names of classes.txt; without that file the names in the table are the classes, sorted. Boxes are
in pixels, x1 and y1 one past the last.
"""

from __future__ import annotations

import logging
from pathlib import Path
from unicodedata import normalize

from lidcam_bench.data.labels import read_labels
from lidcam_bench.data.masks import MaskFile
from lidcam_bench.data.records import ImageSet, Record
from lidcam_rt.errors import DataError
from lidcam_rt.image.folders import find_pictures
from lidcam_rt.image.sources import on_disk

__all__ = ["read_folder"]

_log = logging.getLogger("lidcam_bench")


def read_folder(folder: Path) -> ImageSet:
    """Read a plain folder.

    Args:
        folder: see the module's text.

    Raises:
        DataError: a file is missing or damaged, or a label or mask is of no picture.
    """
    images = folder / "images"
    if not images.is_dir():
        hint = "; for a made data set give its name, as stamps:DIR" if (folder / "dataset.json").is_file() else ""
        raise DataError(
            f"{folder}: no folder images/ in it{hint}. The layout is images/, and optionally masks/ (or labelmaps/), "
            "labels.csv and classes.txt: see docs/evaluation.md"
        )
    classes, labels_of = read_labels(folder)
    found = find_pictures(images)
    if found.skipped:
        _log.warning("%s: not read: %s", images, found.left_out())
    files = sorted(Path(path) for path in found.paths)
    labels_of = {normalize("NFC", name): labels for name, labels in labels_of.items()}
    unknown = set(labels_of) - {_name(path, images) for path in files}
    if unknown:
        raise DataError(f"{folder}: labels for {sorted(unknown)[0]!r}, which is not in images/")
    if (folder / "masks").is_dir() and (folder / "labelmaps").is_dir():
        raise DataError(f"{folder}: both masks/ and labelmaps/; keep one of them")
    by_class = (folder / "labelmaps").is_dir()
    masks = folder / ("labelmaps" if by_class else "masks")
    stray = _stray(masks, {normalize("NFC", str(p.relative_to(images).with_suffix(".png"))) for p in files})
    if stray is not None:
        raise DataError(f"{masks / stray}: no picture of that name in images/")
    records = []
    for path in files:
        inside = path.relative_to(images)
        labels, boxes = labels_of.get(_name(path, images), ((), ()))
        mask, ignore = (Path(on_disk(str(p / inside.with_suffix(".png")))) for p in (masks, folder / "ignore"))
        source = MaskFile(mask, by_class, ignore if ignore.is_file() and not by_class else None)
        records.append(Record(path, labels, boxes, source if mask.is_file() else None))
    several = any(len(record.labels) > 1 for record in records)
    return ImageSet(folder.resolve().name, classes, tuple(records), multilabel=several)


def _name(path: Path, folder: Path) -> str:
    """How a table names a picture; tables and disks differ in the Unicode form of names."""
    return normalize("NFC", path.relative_to(folder).as_posix())


def _stray(folder: Path, known: set[str]) -> Path | None:
    """A mask that is of no picture: most often a wrong name, which would silently count nothing."""
    if not folder.is_dir():
        return None
    masks = (file.relative_to(folder) for file in sorted(folder.rglob("*.png")))
    return next((mask for mask in masks if normalize("NFC", str(mask)) not in known), None)
