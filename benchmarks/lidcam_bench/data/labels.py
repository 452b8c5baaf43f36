"""The label tables of the plain folder form: classes.txt, and labels.csv or labels.json."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lidcam_bench.data.text import read_class_names, read_json, read_text
from lidcam_rt.errors import DataError
from lidcam_rt.results import Box

__all__ = ["Labels", "read_labels", "whole_box"]

_CORNERS = ("x0", "y0", "x1", "y1")
_NUMBER = re.compile(r"-?[0-9]+(\.0*)?")
#: Labels of this form are numbers and name no class; those that are not whole are refused.
_FRACTION = re.compile(r"-?[0-9]*\.?[0-9]*(e-?[0-9]+)?", re.IGNORECASE)


@dataclass(frozen=True)
class Labels:
    """What the tables say of one picture: class indices, and boxes."""

    classes: tuple[int, ...] = ()
    boxes: tuple[Box, ...] = ()


@dataclass(frozen=True)
class _Row:
    where: str
    file: str
    labels: list[Any]
    boxes: list[Any]


def read_labels(folder: Path) -> tuple[tuple[str, ...], dict[str, Labels]]:
    """Class names, and the labels of each file (relative to images/, with slashes, Unicode in NFC).

    Raises:
        DataError: a file is damaged, a column is missing or unknown, or a label or box is invalid.
    """
    text, table, listing = folder / "classes.txt", folder / "labels.csv", folder / "labels.json"
    classes = read_class_names(text) if text.is_file() else ()
    if len(set(classes)) != len(classes):
        raise DataError(f"{text}: {next(c for c in classes if classes.count(c) > 1)!r} occurs twice")
    if table.is_file() and listing.is_file():
        raise DataError(f"{folder}: both labels.csv and labels.json; keep one of them")
    rows = list(_table(table)) if table.is_file() else list(_listing(listing)) if listing.is_file() else []
    if not classes:
        names = {label for row in rows for label in row.labels if isinstance(label, str)}
        if not all(_FRACTION.fullmatch(name) for name in names):
            classes = tuple(sorted(names))
    index = {name: i for i, name in enumerate(classes)}
    labels: dict[str, Labels] = {}
    for row in rows:
        former = labels.get(row.file, Labels())
        ids = tuple(_class(row.where, label, index) for label in row.labels)
        boxes = tuple(whole_box(row.where, box) for box in row.boxes)
        labels[row.file] = Labels(tuple(dict.fromkeys(former.classes + ids)), former.boxes + boxes)
    return classes, labels


def _table(path: Path) -> Iterator[_Row]:
    try:
        reader = csv.DictReader(io.StringIO(read_text(path)), restkey="more", restval="", strict=True)
        columns = [name.strip() for name in reader.fieldnames or []]
        reader.fieldnames = columns
        if "file" not in columns or not {"label", "x0"} & set(columns):
            raise DataError(
                f"{path}: its columns are {', '.join(columns) or 'none'}; it needs file and label, and for boxes "
                f"{', '.join(_CORNERS)}"
            )
        if 0 < len(set(_CORNERS) & set(columns)) < 4:
            raise DataError(f"{path}: for boxes it needs all of {', '.join(_CORNERS)}, it has {', '.join(columns)}")
        unknown = [name for name in columns if name not in ("file", "label", *_CORNERS)]
        if unknown or len(set(columns)) != len(columns):
            raise DataError(
                f"{path}: column {(unknown or columns)[0]!r} is unknown or occurs twice; the columns are file, label, "
                f"{', '.join(_CORNERS)}, and a picture with several classes has a row for each"
            )
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            if "more" in row:
                raise DataError(f"{where}: more fields than the {len(columns)} columns; names with a comma are quoted")
            label, corners = row.get("label", "").strip(), [row[k] for k in _CORNERS if row.get(k, "").strip()]
            yield _Row(where, _file(where, row["file"].strip()), [label] * bool(label), [corners] * bool(corners))
    except csv.Error as error:
        raise DataError(f"{path} cannot be read as CSV: {error}") from None


def _listing(path: Path) -> Iterator[_Row]:
    entries = read_json(path)
    if not isinstance(entries, list):
        raise DataError(f"{path}: must be a list of pictures, got {type(entries).__name__}")
    for number, entry in enumerate(entries):
        where = f"{path}, entry {number}"
        if not isinstance(entry, dict) or not isinstance(entry.get("file"), str):
            raise DataError(f'{where}: needs {{"file": NAME, "labels": [...], "boxes": [...]}}, got {entry!r:.80}')
        unknown = set(entry) - {"file", "labels", "boxes"}
        if unknown:
            raise DataError(f"{where}: {sorted(unknown)[0]!r} is unknown; an entry has file, labels and boxes")
        labels, boxes = entry.get("labels", []), entry.get("boxes", [])
        if not isinstance(labels, list) or not isinstance(boxes, list):
            raise DataError(f"{where}: labels and boxes must be lists, got {entry!r:.80}")
        yield _Row(where, _file(where, entry["file"]), labels, boxes)


def _file(where: str, name: str) -> str:
    if not name:
        raise DataError(f"{where}: no file name")
    return unicodedata.normalize("NFC", name)


def _number(label: Any) -> int | None:
    """A class index that is written as a number or its text; None for anything else, fractions too."""
    if isinstance(label, str):
        return int(label.partition(".")[0]) if _NUMBER.fullmatch(label) and len(label) < 20 else None
    if type(label) is float and label.is_integer():
        return int(label)
    return label if type(label) is int else None


def _class(where: str, label: Any, index: dict[str, int]) -> int:
    if isinstance(label, str):
        label = unicodedata.normalize("NFC", label.strip())
        if label in index:
            return index[label]
    number = _number(label)
    if number is None:
        raise DataError(f"{where}: class {label!r} is neither a whole number nor one of the class names")
    if number < 0 or (index and number >= len(index)):
        raise DataError(f"{where}: class {number} is out of range, there are classes 0 to {len(index) - 1}")
    return number


def whole_box(where: str, values: Any) -> Box:
    """A box rounded to whole pixels.

    Raises:
        DataError: not four numbers, not 0 <= x0 < x1 and 0 <= y0 < y1, or shares of the picture's sides.
    """
    try:
        if len(values) != 4 or any(isinstance(v, bool) for v in values):
            raise ValueError
        corners = [float(v) for v in values]
        x0, y0, x1, y1 = (round(v) for v in corners)
    except (TypeError, ValueError, OverflowError):
        raise DataError(f"{where}: a box is x0, y0, x1, y1, got {values!r:.80}") from None
    if all(0 <= v <= 1 for v in corners):
        raise DataError(
            f"{where}: box {values!r:.80} lies within the first pixel. If these are shares of width and height (0 to "
            "1), multiply them: boxes are x0, y0, x1, y1 in pixels"
        )
    if not (0 <= x0 < x1 and 0 <= y0 < y1):
        raise DataError(f"{where}: a box has 0 <= x0 < x1 and 0 <= y0 < y1, got {values!r:.80}")
    return x0, y0, x1, y1
