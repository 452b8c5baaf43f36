"""The plain folder form.

    images/            pictures, sub-folders allowed
    masks/             optional: the object of each picture
    ignore/            optional: pixels that are left out
    labelmaps/         instead of masks/ and ignore/: 8 bits, class index + 1, 0 background, 255 left out
    classes.txt        optional: a class name per line
    labels.csv         optional: columns file, label, and for boxes x0, y0, x1, y1; a row per box
    labels.json        instead of labels.csv: [{"file", "labels": [...], "boxes": [[x0, y0, x1, y1], ...]}, ...]

A mask has its picture's name, or that and `_mask`, with any suffix of a picture format. Masks are of 0 and 255, of 0
and 1, cut out by an alpha channel, or label maps with a palette (`lidcam_bench.data.mask_forms`); all alike. Labels are
indices or names of classes.txt; without that file the names in the table are the classes, sorted. Boxes are in pixels,
x1 and y1 one past the last. A set with splits has all this in DIR/SPLIT.
"""

from __future__ import annotations

import logging
from pathlib import Path, PurePosixPath
from unicodedata import normalize

from lidcam_bench.data.labels import Labels, read_labels
from lidcam_bench.data.mask_forms import MaskForm, common_form, require_object
from lidcam_bench.data.masks import MaskFile
from lidcam_bench.data.records import ImageSet, Record
from lidcam_cli.folders import find_pictures
from lidcam_rt.errors import DataError

__all__ = ["masks_by_picture", "read_folder"]

_LOSSY = (".jpg", ".jpeg", ".jpe", ".jfif")

_log = logging.getLogger("lidcam_bench")


def read_folder(folder: Path, split: str) -> ImageSet:
    """Read a plain folder.

    Args:
        folder: see the module's text.
        split: the sub-folder that is read where `folder` itself has no images/.

    Raises:
        DataError: a file is missing, damaged or not understood, or a label or mask belongs to no picture.
    """
    name = folder.resolve().name
    if not (folder / "images").is_dir() and (folder / split / "images").is_dir():
        folder, name = folder / split, f"{name}/{split}"
    images = folder / "images"
    if not images.is_dir():
        hint = "; for a made data set give its name, as stamps:DIR" if (folder / "dataset.json").is_file() else ""
        raise DataError(
            f"{folder}: no folder images/ in it{hint}. The layout is images/, and optionally masks/ (or labelmaps/), "
            "labels.csv and classes.txt: see docs/evaluation.md"
        )
    classes, labels = read_labels(folder)
    pictures = find_pictures(images)
    if pictures.skipped:
        _log.warning("%s: not read: %s", images, pictures.left_out())
    files = {_name(path, images): path for path in sorted(Path(path) for path in pictures.paths)}
    unknown = set(labels) - set(files)
    if unknown:
        raise DataError(f"{folder}: labels for {sorted(unknown)[0]!r}, which is not in images/")
    masks, form = _masks(folder, files)
    ignore = masks_by_picture(folder / "ignore", files) if (folder / "ignore").is_dir() else {}
    if ignore and form in (MaskForm.LABELS, MaskForm.PALETTE):
        raise DataError(f"{folder}: ignore/ goes with masks of one object; label maps mark ignored pixels by 255")
    records = []
    for key, path in files.items():
        known = labels.get(key, Labels())
        mask = masks.get(key)
        source = None
        if mask is not None and form in (MaskForm.LABELS, MaskForm.PALETTE):
            source = MaskFile(mask, form, classes=len(classes) or None, labels=known.classes)
        elif mask is not None:
            source = MaskFile(mask, form, ignore.get(key))
        records.append(Record(path, known.classes, known.boxes, source))
    several = any(len(record.labels) > 1 for record in records)
    return ImageSet(name, classes, tuple(records), multilabel=several)


def _masks(folder: Path, files: dict[str, Path]) -> tuple[dict[str, Path], MaskForm]:
    """The masks or label maps of a folder by picture, and their form."""
    if (folder / "masks").is_dir() and (folder / "labelmaps").is_dir():
        raise DataError(f"{folder}: both masks/ and labelmaps/; keep one of them")
    if (folder / "labelmaps").is_dir():
        label_maps = masks_by_picture(folder / "labelmaps", files)
        lossy = next((path for path in label_maps.values() if path.suffix.lower() in _LOSSY), None)
        if lossy is not None:
            raise DataError(f"label map {lossy}: JPEG changes the class indices; save label maps as PNG")
        require_object(list(label_maps.values()))
        return label_maps, MaskForm.LABELS
    if (folder / "masks").is_dir():
        masks = masks_by_picture(folder / "masks", files)
        return masks, common_form(list(masks.values()))
    return {}, MaskForm.GREY


def masks_by_picture(folder: Path, pictures: dict[str, Path]) -> dict[str, Path]:
    """The mask files of a folder by the picture that they belong to.

    Args:
        folder: of the masks.
        pictures: file by name relative to the pictures' folder, with slashes.

    Raises:
        DataError: it has no mask, one belongs to no picture, or two belong to the same one.
    """
    by_stem: dict[str, list[str]] = {}
    for name in pictures:
        by_stem.setdefault(str(PurePosixPath(name).with_suffix("")), []).append(name)
    masks: dict[str, Path] = {}
    try:
        files = sorted(Path(path) for path in find_pictures(folder).paths)
    except DataError as error:
        raise DataError(f"{error}; a mask is a picture file with its picture's name") from None
    for path in files:
        stem = str(PurePosixPath(_name(path, folder)).with_suffix(""))
        names = by_stem.get(stem) or by_stem.get(stem.removesuffix("_mask"))
        if names is None:
            raise DataError(
                f"{path}: no picture of that name in images/, which has {next(iter(pictures), 'none')!r}: a mask has "
                "the name of its picture, or that and _mask"
            )
        for name in names:
            if name in masks:
                raise DataError(f"{path} and {masks[name]} are both masks of {pictures[name]}: keep one of them")
            masks[name] = path
    return masks


def _name(path: Path, folder: Path) -> str:
    """How a table names a picture; tables and disks differ in the Unicode form of names."""
    return normalize("NFC", path.relative_to(folder).as_posix())
