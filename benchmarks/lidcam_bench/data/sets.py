"""Data sets for the evaluation: the plain folder form, COCO JSON, and those that other packages bring."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from lidcam_bench.data.coco import draw_shapes, read_coco
from lidcam_bench.data.labels import read_labels
from lidcam_rt.errors import DataError, MissingExtraError
from lidcam_rt.image import SUFFIXES

__all__ = ["EvalRecord", "EvalSet", "FileRecord", "FileSet", "fingerprint", "label_truth", "open_data"]

_Box = tuple[int, int, int, int]


class EvalRecord(Protocol):
    """One picture: its file, classes, boxes (half-open pixels) and mask."""

    @property
    def image(self) -> Path:
        """The file."""

    @property
    def labels(self) -> tuple[int, ...]:
        """Class indices; empty where unknown."""

    @property
    def boxes(self) -> tuple[_Box, ...]:
        """x0, y0, x1, y1 in pixels, x1 and y1 one past the last pixel."""

    def read_mask(self) -> npt.NDArray[np.uint8] | None:
        """uint8 [height, width]: 1 object (or class index + 1), 0 background, 255 ignored; None: no mask.

        A record may say which by an attribute `mask_values`: `classes`, or `foreground` or `nonzero` (1 is the
        object, of whatever class). Without it 1 is the object where the picture has one label.
        """


class EvalSet(Protocol):
    """A split of a data set, as readers of the entry-point group `lidcam.datasets` return it."""

    @property
    def name(self) -> str:
        """For reports."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """In the order of the class indices; may be empty."""

    @property
    def records(self) -> Sequence[EvalRecord]:
        """Its pictures."""


@dataclass(frozen=True)
class FileRecord:
    """A record of the plain folder form or of a COCO file; see `EvalRecord`."""

    image: Path
    labels: tuple[int, ...] = ()
    boxes: tuple[_Box, ...] = ()
    mask: Path | None = None
    ignore: Path | None = None
    shapes: tuple[Any, ...] = field(default=(), repr=False)
    size: tuple[int, int] = (0, 0)
    mask_values: str = "foreground"

    def read_mask(self) -> npt.NDArray[np.uint8] | None:
        """As `EvalRecord.read_mask`."""
        if self.shapes:
            return draw_shapes(self.shapes, self.size, str(self.image))
        if self.mask is None:
            return None
        if self.mask_values == "classes":
            return _indices(self.mask)
        out = (_grey(self.mask) > 127).astype(np.uint8)
        if self.ignore is not None:
            ignored = _grey(self.ignore)
            if ignored.shape != out.shape:
                raise DataError(f"{self.ignore} has (height, width) {ignored.shape}, {self.mask} {out.shape}")
            out[(ignored > 127) & (out == 0)] = 255
        return out


@dataclass(frozen=True)
class FileSet:
    """See `EvalSet`."""

    name: str
    class_names: tuple[str, ...]
    records: tuple[FileRecord, ...] = field(repr=False)


def open_data(spec: str, split: str = "test") -> EvalSet:
    """Open a data set.

    Args:
        spec: `DIR`: the plain folder form: `images/` (sub-folders allowed), and as they are there
            `masks/` (same name, .png; above 127 is the object), `ignore/` (above 127 is left out), or instead of
            them `labelmaps/` (8-bit class index + 1, 0 background, 255 left out); `classes.txt` (a name per line);
            `labels.csv` (columns file and label, and x0, y0, x1, y1 if there are boxes; a row per box) or
            `labels.json` ([{"file", "labels": [..], "boxes": [[x0, y0, x1, y1], ..]}, ..]). Labels are indices or
            names of classes.txt; without that file the names in the table are the classes, sorted. x1 and y1
            are one past the last pixel.
            `coco:FILE.json` or `coco:FILE.json,IMAGES_DIR`: COCO instances; crowds are ignored pixels.
            `NAME:DIR`: a reader of the entry-point group `lidcam.datasets`, called as reader(Path,
            split).
        split: for `NAME:DIR`.

    Raises:
        DataError: nothing of that name, a file is missing or damaged, or there is no picture.
    """
    name, colon, rest = spec.partition(":")
    readers: dict[str, Callable[[], Callable[[Path, str], EvalSet]]] = {
        entry.name: entry.load for entry in entry_points(group="lidcam.datasets")
    }
    data: EvalSet
    if Path(spec).expanduser().is_dir():
        data = _read_folder(Path(spec).expanduser())
    elif colon and name == "coco":
        data = _read_coco(rest)
    elif colon and name in readers:
        folder = Path(rest).expanduser()
        if not folder.is_dir():
            raise DataError(f"data {spec!r}: the folder {folder} is not there")
        try:
            reader = readers[name]()
        except ImportError as error:
            raise MissingExtraError(f"reading data {spec!r}", "train", (error.name or str(error),)) from None
        data = reader(folder, split)
    else:
        known = ", ".join(["coco", *sorted(readers)])
        raise DataError(f"data {spec!r}: neither a folder nor NAME:PATH with NAME one of {known}")
    if not data.records:
        raise DataError(f"data {spec!r}: no picture in it")
    return data


def fingerprint(data: EvalSet) -> str:
    """SHA-256 over class names, and name, size in bytes, labels, boxes and the mask's size of every picture."""
    digest = hashlib.sha256("\n".join(data.class_names).encode())
    for record in data.records:
        sizes = [_bytes(record.image), *(_bytes(p) for n in ("mask", "ignore") if (p := getattr(record, n, None)))]
        digest.update(f"{record.image.name} {sizes} {record.labels} {record.boxes}\n".encode())
        for shape in getattr(record, "shapes", ()):
            digest.update(repr(shape).encode())
    return digest.hexdigest()


def label_truth(record: EvalRecord, mask: npt.NDArray[np.uint8] | None) -> npt.NDArray[np.uint8] | None:
    """The true label map of a record's mask (class index + 1, 0 background, 255 ignored); None: it has none."""
    if mask is None:
        return None
    values = getattr(record, "mask_values", None)
    if values is None:
        values = "foreground" if len(record.labels) == 1 and np.isin(mask, (0, 1, 255)).all() else "classes"
    if values == "classes":
        return mask
    if len(record.labels) != 1 or record.labels[0] >= 254:
        return None
    return np.where(mask == 1, np.uint8(record.labels[0] + 1), mask).astype(np.uint8)


def _bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _grey(path: Path) -> npt.NDArray[np.uint8]:
    from PIL import Image

    try:
        with Image.open(path) as file:
            if file.mode in ("I", "F") or file.mode.startswith("I;"):
                raise DataError(f"mask {path}: {file.mode} pixels, a mask has 8 bits per pixel (or 1)")
            return np.asarray(file.convert("L"))
    except (OSError, SyntaxError) as error:  # Pillow raises SyntaxError for broken PNG chunks
        if isinstance(error, DataError):
            raise
        raise DataError(f"mask {path} cannot be read: {error}") from None


def _indices(path: Path) -> npt.NDArray[np.uint8]:
    from PIL import Image

    try:
        with Image.open(path) as file:
            if file.mode not in ("L", "P"):
                raise DataError(f"label map {path}: mode {file.mode}, a label map is 8-bit grey or palette")
            return np.asarray(file, dtype=np.uint8)
    except (OSError, SyntaxError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"label map {path} cannot be read: {error}") from None


def _read_folder(folder: Path) -> FileSet:
    images = folder / "images"
    if not images.is_dir():
        hint = "; for a made data set give its name, as stamps:DIR" if (folder / "dataset.json").is_file() else ""
        raise DataError(
            f"{folder}: no folder images/ in it{hint}. The layout is images/, and masks/ (or labelmaps/), labels.csv, "
            "classes.txt as they are there: see docs/evaluation.md"
        )
    classes, notes = read_labels(folder)
    files = sorted(p for p in images.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    unknown = set(notes) - {p.relative_to(images).as_posix() for p in files}
    if unknown:
        raise DataError(f"{folder}: labels for {sorted(unknown)[0]!r}, which is not in images/")
    if (folder / "masks").is_dir() and (folder / "labelmaps").is_dir():
        raise DataError(f"{folder}: both masks/ and labelmaps/; keep one of them")
    values, kind = ("classes", "labelmaps") if (folder / "labelmaps").is_dir() else ("foreground", "masks")
    stray = _stray(folder / kind, {p.relative_to(images).with_suffix(".png") for p in files})
    if stray is not None:
        raise DataError(f"{folder / kind / stray}: no picture of that name in images/")
    records = []
    for path in files:
        inside = path.relative_to(images)
        labels, boxes = notes.get(inside.as_posix(), ((), ()))
        mask, ignore = (folder / part / inside.with_suffix(".png") for part in (kind, "ignore"))
        records.append(
            FileRecord(
                path,
                labels,
                boxes,
                mask if mask.is_file() else None,
                ignore if ignore.is_file() else None,
                mask_values=values,
            )
        )
    return FileSet(folder.resolve().name, classes, tuple(records))


def _stray(folder: Path, known: set[Path]) -> Path | None:
    """A mask that is of no picture: most often a wrong name, which would silently count nothing."""
    if not folder.is_dir():
        return None
    return next((p for f in sorted(folder.rglob("*.png")) if (p := f.relative_to(folder)) not in known), None)


def _read_coco(rest: str) -> FileSet:
    name, _, images = rest.partition(",")
    path = Path(name).expanduser()
    classes, entries = read_coco(path, Path(images).expanduser() if images else path.parent)
    records = tuple(
        FileRecord(e.image, e.labels, e.boxes, shapes=e.shapes, size=e.size, mask_values="classes") for e in entries
    )
    return FileSet(path.stem, classes, records)
