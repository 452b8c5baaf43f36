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

from pathlib import Path

from lidcam_bench.data.labels import read_labels
from lidcam_bench.data.masks import MaskFile
from lidcam_bench.data.records import ImageSet, Record
from lidcam_rt.errors import DataError
from lidcam_rt.image import SUFFIXES

__all__ = ["read_folder"]


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
    files = sorted(p for p in images.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    unknown = set(labels_of) - {p.relative_to(images).as_posix() for p in files}
    if unknown:
        raise DataError(f"{folder}: labels for {sorted(unknown)[0]!r}, which is not in images/")
    if (folder / "masks").is_dir() and (folder / "labelmaps").is_dir():
        raise DataError(f"{folder}: both masks/ and labelmaps/; keep one of them")
    by_class = (folder / "labelmaps").is_dir()
    masks = folder / ("labelmaps" if by_class else "masks")
    stray = _stray(masks, {p.relative_to(images).with_suffix(".png") for p in files})
    if stray is not None:
        raise DataError(f"{masks / stray}: no picture of that name in images/")
    records = []
    for path in files:
        inside = path.relative_to(images)
        labels, boxes = labels_of.get(inside.as_posix(), ((), ()))
        mask, ignore = (part / inside.with_suffix(".png") for part in (masks, folder / "ignore"))
        source = MaskFile(mask, by_class, ignore if ignore.is_file() and not by_class else None)
        records.append(Record(path, labels, boxes, source if mask.is_file() else None))
    several = any(len(record.labels) > 1 for record in records)
    return ImageSet(folder.resolve().name, classes, tuple(records), multilabel=several)


def _stray(folder: Path, known: set[Path]) -> Path | None:
    """A mask that is of no picture: most often a wrong name, which would silently count nothing."""
    if not folder.is_dir():
        return None
    return next((p for f in sorted(folder.rglob("*.png")) if (p := f.relative_to(folder)) not in known), None)
