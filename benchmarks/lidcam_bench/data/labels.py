"""The label tables of the plain folder form: classes.txt, and labels.csv or labels.json."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lidcam_rt.errors import DataError

__all__ = ["read_labels", "whole_box"]

_Box = tuple[int, int, int, int]
_CORNERS = ("x0", "y0", "x1", "y1")
_Notes = dict[str, tuple[tuple[int, ...], tuple[_Box, ...]]]


def read_labels(folder: Path) -> tuple[tuple[str, ...], _Notes]:
    """Class names, and per file (relative to images/) its class indices and boxes.

    Raises:
        DataError: a file is damaged, a column is missing, or a label or box is none.
    """
    text = folder / "classes.txt"
    try:
        lines = text.read_text(encoding="utf-8-sig").splitlines() if text.is_file() else []
    except (OSError, ValueError) as error:
        raise DataError(f"{text} cannot be read: {error}") from None
    classes = tuple(line.strip() for line in lines if line.strip())
    if len(set(classes)) != len(classes):
        raise DataError(f"{text}: {next(c for c in classes if classes.count(c) > 1)!r} is there twice")
    table, listing = folder / "labels.csv", folder / "labels.json"
    if table.is_file():
        rows = list(_table(table))
    elif listing.is_file():
        rows = list(_listing(listing))
    else:
        rows = []
    if not classes:
        names = {label for _, _, labels, _ in rows for label in labels}
        if not all(_is_whole(label) for label in names):
            classes = tuple(sorted(str(label) for label in names))
    index = {name: i for i, name in enumerate(classes)}
    notes: _Notes = {}
    for where, name, labels, boxes in rows:
        ids, known = notes.get(name, ((), ()))
        new = tuple(_class(where, label, index) for label in labels)
        notes[name] = (tuple(dict.fromkeys(ids + new)), known + tuple(whole_box(where, box) for box in boxes))
    return classes, notes


def _table(path: Path) -> Iterator[tuple[str, str, list[Any], list[Any]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or []
            if "file" not in columns or not {"label", "x0"} & set(columns):
                raise DataError(
                    f"{path}: its columns are {', '.join(columns) or 'none'}; it needs file and label, and for boxes "
                    f"{', '.join(_CORNERS)}"
                )
            if 0 < len(set(_CORNERS) & set(columns)) < 4:
                raise DataError(f"{path}: for boxes it needs all of {', '.join(_CORNERS)}, it has {', '.join(columns)}")
            for row in reader:
                corners = [row[k] for k in _CORNERS if row.get(k) not in (None, "")]
                label = (row.get("label") or "").strip()
                where = f"{path}, line {reader.line_num}"
                if not row["file"]:
                    raise DataError(f"{where}: no file name")
                yield where, row["file"], [label] * bool(label), [corners] * bool(corners)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} cannot be read as CSV in UTF-8: {error}") from None


def _listing(path: Path) -> Iterator[tuple[str, str, list[Any], list[Any]]]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(entries, list):
        raise DataError(f"{path}: a list of pictures is needed, got {type(entries).__name__}")
    for number, entry in enumerate(entries):
        where = f"{path}, entry {number}"
        if not isinstance(entry, dict) or not isinstance(entry.get("file"), str):
            raise DataError(f'{where}: needs {{"file": NAME, "labels": [...], "boxes": [...]}}, got {entry!r:.80}')
        labels, boxes = entry.get("labels", []), entry.get("boxes", [])
        if not isinstance(labels, list) or not isinstance(boxes, list):
            raise DataError(f"{where}: labels and boxes are lists, got {entry!r:.80}")
        yield where, entry["file"], labels, boxes


def _is_whole(label: Any) -> bool:
    try:
        int(label)
    except (TypeError, ValueError):
        return False
    return not isinstance(label, bool)


def _class(where: str, label: Any, index: dict[str, int]) -> int:
    if isinstance(label, str) and label in index:
        return index[label]
    if not _is_whole(label):
        raise DataError(f"{where}: class {label!r} is neither a number nor in classes.txt")
    number = int(label)
    if number < 0 or (index and number >= len(index)):
        raise DataError(f"{where}: class {number} is out of range, there are classes 0 to {len(index) - 1}")
    return number


def whole_box(where: str, values: Any) -> _Box:
    """A box as whole pixels.

    Raises:
        DataError: not four numbers, or not 0 <= x0 < x1 and 0 <= y0 < y1.
    """
    try:
        x0, y0, x1, y1 = (round(float(v)) for v in values)
    except (TypeError, ValueError, OverflowError):
        raise DataError(f"{where}: a box is x0, y0, x1, y1, got {values!r}") from None
    if not (0 <= x0 < x1 and 0 <= y0 < y1):
        raise DataError(f"{where}: a box has 0 <= x0 < x1 and 0 <= y0 < y1, got {values!r}")
    return x0, y0, x1, y1
