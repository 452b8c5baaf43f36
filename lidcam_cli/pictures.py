"""The pictures of a `lidcam localize` run: which are done, what their files are called, what the results are."""

from __future__ import annotations

import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any

from lidcam_cli.runs import RunFolder
from lidcam_rt.files import safe_name

__all__ = ["Pictures"]

#: Endings of a picture's files, by kind.
_ENDS = {"mask": "_mask.png", "map": "_map.png", "overlay": "_overlay.jpg", "labels": "_labels.png"}


def _stamp(path: str) -> list[int] | None:
    try:
        status = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):
        return None
    return [status.st_size, status.st_mtime_ns]


def _key(path: str) -> str:
    return os.path.abspath(path)  # noqa: PTH100


def _is_sound(record: dict[str, Any]) -> bool:
    """Whether a record can be used: it has the expected form, and its files are in the folder of the run."""
    if not isinstance(record.get("image"), str):
        return False
    if "error" in record:
        return isinstance(record["error"], str) and isinstance(record.get("message"), str)
    name, files, box = record.get("name"), record.get("files"), record.get("box")
    if not isinstance(name, str) or safe_name(name) != name or not isinstance(files, dict):
        return False
    if any(file != f"{name}{_ENDS.get(kind)}" for kind, file in files.items()):
        return False
    if "labels" in files:
        classes = record.get("classes")
        return isinstance(classes, list) and all(
            isinstance(entry, dict)
            and isinstance(entry.get("class_name"), str)
            and isinstance(score := entry.get("score"), float)
            and math.isfinite(score)
            for entry in classes
        )
    whole = isinstance(box, list) and len(box) == 4 and all(type(side) is int for side in box)
    if not whole and ("box" not in record or box is not None):
        return False
    score = record.get("score")
    return isinstance(record.get("class_name"), str) and isinstance(score, float) and math.isfinite(score)


class Pictures:
    """What a run knows about its pictures, by their absolute paths.

    Args:
        run: the open folder; its records are read. A record that names files outside the folder is left out, so that
            its picture is localized again.
    """

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self.records: dict[str, dict[str, Any]] = {}
        self._names: dict[str, str] = {}
        for record in run.records():
            if _is_sound(record):
                self._remember(record["image"], record)

    def _remember(self, path: str, record: dict[str, Any]) -> None:
        key = _key(path)
        self.records[key] = record
        if isinstance(name := record.get("name"), str):
            self._names[name.lower()] = key

    def __getitem__(self, path: str) -> dict[str, Any]:
        return self.records[_key(path)]

    def is_done(self, path: str) -> bool:
        """Whether a picture was localized before and has not changed since, and its files are there."""
        record = self.records.get(_key(path))
        if record is None or "error" in record or record.get("stamp") != _stamp(path):
            return False
        return all((self._run.folder / name).is_file() for name in record.get("files", {}).values())

    def name_for(self, path: str) -> str:
        """A stem for a picture's files that no other picture of this folder has, the same in every run."""
        key = _key(path)
        known = self.records.get(key, {}).get("name")
        if isinstance(known, str):
            return known
        stem = safe_name(Path(path).stem)[:120]
        taken = self._names.get(stem.lower())
        if taken is not None and taken != key:
            stem = f"{stem}-{hashlib.sha256(os.fsencode(key)).hexdigest()[:10]}"
        self._names[stem.lower()] = key
        return stem

    def add(self, path: str, record: dict[str, Any]) -> dict[str, Any]:
        """Add a picture's record; its files must be complete.

        Raises:
            OutputError: it cannot be written; no part of a line is left.
        """
        record = {**record, "stamp": _stamp(path)}
        self._run.add(record)
        self._remember(path, record)
        return record

    def finish(self, paths: list[str], head: dict[str, Any]) -> None:
        """Write results.json: `head`, then results and failures of these pictures in their order."""
        records = [self.records.get(_key(path)) for path in paths]
        known = [{k: v for k, v in record.items() if k != "stamp"} for record in records if record is not None]
        document = {
            **head,
            "complete": len(known) == len(paths),
            "results": [record for record in known if "error" not in record],
            "failures": [record for record in known if "error" in record],
        }
        self._run.write("results.json", json.dumps(document, indent=1).encode() + b"\n")
