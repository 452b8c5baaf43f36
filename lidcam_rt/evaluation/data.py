"""Data sets for the evaluation: the plain folder form, COCO JSON, and those that other packages bring."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from lidcam_rt.errors import DataError

__all__ = ["EvalRecord", "EvalSet", "FileRecord", "FileSet", "fingerprint", "open_data"]

_Box = tuple[int, int, int, int]
_PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


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
        """uint8 [height, width]: 1 object (or class index + 1), 0 background, 255 ignored; None: no mask."""


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

    def read_mask(self) -> npt.NDArray[np.uint8] | None:
        """As `EvalRecord.read_mask`."""
        if self.shapes:
            return _draw(self.shapes, self.size, self.image)
        if self.mask is None:
            return None
        out = (_grey(self.mask) > 127).astype(np.uint8)
        if self.ignore is not None:
            out[(_grey(self.ignore) > 127) & (out == 0)] = 255
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
        `masks/` (same
            name, .png; above 127 is the object), `ignore/` (above 127 is left out), `classes.txt` (a name
            per line) and `labels.csv` (columns file and label, and x0, y0, x1, y1 if there are boxes; a
            row per box) or `labels.json` ([{"file", "labels": [..], "boxes": [[x0, y0, x1, y1], ..]},
            ..]). Labels are indices or names of classes.txt; x1 and y1 are one past the last pixel.
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
        data = readers[name]()(folder, split)
    else:
        known = ", ".join(["coco", *sorted(readers)])
        raise DataError(f"data {spec!r}: neither a folder nor NAME:PATH with NAME one of {known}")
    if not data.records:
        raise DataError(f"data {spec!r}: no picture in it")
    return data


def fingerprint(data: EvalSet) -> str:
    """SHA-256 over class names, and name, size in bytes, labels and boxes of every picture."""
    digest = hashlib.sha256("\n".join(data.class_names).encode())
    for record in data.records:
        try:
            size = record.image.stat().st_size
        except OSError:
            size = -1
        digest.update(f"{record.image.name} {size} {record.labels} {record.boxes}\n".encode())
    return digest.hexdigest()


def _grey(path: Path) -> npt.NDArray[np.uint8]:
    from PIL import Image

    try:
        with Image.open(path) as file:
            return np.asarray(file.convert("L"))
    except OSError as error:
        raise DataError(f"mask {path} cannot be read: {error}") from None


def _read_folder(folder: Path) -> FileSet:
    images = folder / "images"
    if not images.is_dir():
        raise DataError(f"{folder}: no folder images/ in it; see `lidcam eval --help` for the layout")
    text = folder / "classes.txt"
    classes = tuple(text.read_text().split("\n")) if text.is_file() else ()
    classes = tuple(line.strip() for line in classes if line.strip())
    notes = _annotations(folder, classes)
    files = sorted(p for p in images.rglob("*") if p.suffix.lower() in _PICTURES)
    unknown = set(notes) - {p.relative_to(images).as_posix() for p in files}
    if unknown:
        raise DataError(f"{folder}: labels for {sorted(unknown)[0]!r}, which is not in images/")
    records = []
    for path in files:
        inside = path.relative_to(images)
        labels, boxes = notes.get(inside.as_posix(), ((), ()))
        mask, ignore = (folder / kind / inside.with_suffix(".png") for kind in ("masks", "ignore"))
        records.append(
            FileRecord(
                path, labels, boxes, mask if mask.is_file() else None, ignore if ignore.is_file() else None
            )
        )
    return FileSet(folder.name, classes, tuple(records))


def _annotations(
    folder: Path, classes: tuple[str, ...]
) -> dict[str, tuple[tuple[int, ...], tuple[_Box, ...]]]:
    table, text = folder / "labels.csv", folder / "labels.json"
    rows: list[tuple[str, str, list[Any], list[Any]]] = []
    try:
        if table.is_file():
            with table.open(newline="") as file:
                for line, row in enumerate(csv.DictReader(file), start=2):
                    corner = [row[k] for k in ("x0", "y0", "x1", "y1") if row.get(k) not in (None, "")]
                    label = row.get("label") or ""
                    rows.append(
                        (f"{table}, line {line}", row["file"], [label] * bool(label), [corner] * bool(corner))
                    )
        elif text.is_file():
            for number, entry in enumerate(json.loads(text.read_text())):
                rows.append(
                    (
                        f"{text}, entry {number}",
                        entry["file"],
                        list(entry.get("labels", [])),
                        list(entry.get("boxes", [])),
                    )
                )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(f"{table if table.is_file() else text} is not as expected: {error!r}") from None
    notes: dict[str, tuple[tuple[int, ...], tuple[_Box, ...]]] = {}
    for where, name, labels, boxes in rows:
        old_labels, old_boxes = notes.get(name, ((), ()))
        ids = old_labels
        for label in labels:
            index = classes.index(label) if label in classes else label
            try:
                ids = ids if int(index) in ids else (*ids, int(index))
            except ValueError:
                raise DataError(f"{where}: class {label!r} is neither a number nor in classes.txt") from None
        notes[name] = (ids, old_boxes + tuple(_box(where, box) for box in boxes))
    return notes


def _box(where: str, values: Any) -> _Box:
    try:
        x0, y0, x1, y1 = (round(float(v)) for v in values)
    except (TypeError, ValueError):
        raise DataError(f"{where}: a box is x0, y0, x1, y1, got {values!r}") from None
    if not (0 <= x0 < x1 and 0 <= y0 < y1):
        raise DataError(f"{where}: a box has 0 <= x0 < x1 and 0 <= y0 < y1, got {values!r}")
    return x0, y0, x1, y1


def _read_coco(rest: str) -> FileSet:
    name, _, images = rest.partition(",")
    path = Path(name).expanduser()
    folder = Path(images).expanduser() if images else path.parent
    try:
        content = json.loads(path.read_text())
        order = sorted(content.get("categories", []), key=lambda c: c["id"])
        index = {c["id"]: i for i, c in enumerate(order)}
        by_image: dict[Any, list[Any]] = {}
        for note in content["annotations"]:
            by_image.setdefault(note["image_id"], []).append(note)
        records = []
        for image in content["images"]:
            notes = by_image.get(image["id"], [])
            own = [n for n in notes if not n.get("iscrowd")]
            labels = tuple(dict.fromkeys(index[n["category_id"]] for n in own))
            boxes = tuple(
                _box(f"{path}, annotation {n.get('id')}", (x, y, x + max(w, 1), y + max(h, 1)))
                for n in own
                for x, y, w, h in [n["bbox"]]
            )
            drawn = [n for n in notes if n.get("segmentation")]
            shapes = tuple((n["segmentation"], bool(n.get("iscrowd"))) for n in drawn)
            size = (int(image["width"]), int(image["height"]))
            records.append(FileRecord(folder / image["file_name"], labels, boxes, None, None, shapes, size))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is not COCO JSON (instances): {error!r}") from None
    return FileSet(path.stem, tuple(c["name"] for c in order), tuple(records))


def _draw(shapes: tuple[Any, ...], size: tuple[int, int], image: Path) -> npt.NDArray[np.uint8]:
    import cv2

    width, height = size
    mask = np.zeros((height, width), np.uint8)
    for shape, crowd in sorted(shapes, key=lambda s: not s[1]):  # crowds first: an object is drawn over them
        own = np.zeros_like(mask)
        if isinstance(shape, list):
            for polygon in shape:
                points = np.rint(np.asarray(polygon, np.float64).reshape(-1, 2)).astype(np.int32)
                cv2.fillPoly(own, [points], 1)
        elif isinstance(shape, dict) and isinstance(shape.get("counts"), list):
            values = np.arange(len(shape["counts"])) % 2
            flat = np.repeat(values, shape["counts"]).astype(np.uint8)
            if flat.size != mask.size:
                raise DataError(f"{image}: its run lengths give {flat.size} pixels, it has {mask.size}")
            own = flat.reshape(width, height).T
        else:
            raise DataError(f"{image}: compressed run lengths are not read; write them as polygons or counts")
        mask[own > 0] = 255 if crowd else 1
    return mask
