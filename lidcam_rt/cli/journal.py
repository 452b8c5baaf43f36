"""The folder of a run: its settings, its results line by line, and what a later run may skip.

`run.json` holds the settings; `results.jsonl` gets a line after all files of a picture are complete; a
lock keeps a
second process out. A process killed at any point leaves complete files, and at most a part of a line and
hidden temporary files, which the next run removes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any

from lidcam_rt.artifact import safe_name
from lidcam_rt.drawing import make_folder, write_atomically
from lidcam_rt.errors import OutputError
from lidcam_rt.locks import lock_folder, remove_leftovers

__all__ = ["Journal"]

_RUN, _LINES, _RESULTS = "run.json", "results.jsonl", "results.json"


def _stamp(path: str) -> list[int] | None:
    try:
        status = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):
        return None
    return [status.st_size, status.st_mtime_ns]


class Journal:
    """An output folder, opened for one run. A context manager.

    Args:
        folder: made if it is not there; a run with the same settings is resumed.
        settings: what results depend on. A folder of other settings is refused.

    Raises:
        OutputError: the folder cannot be written, belongs to another run, or is in use.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder = folder
        self._settings = settings
        self._lock: int | None = None
        self._lines: int | None = None
        self.records: dict[str, dict[str, Any]] = {}
        self._names: dict[str, str] = {}

    def __enter__(self) -> Journal:
        make_folder(self.folder)
        try:
            self._lock = lock_folder(self.folder)
            self._check_settings()
            remove_leftovers(self.folder)
            self._read_lines()
        except OSError as error:
            self._release()
            if isinstance(error, OutputError):
                raise
            raise OutputError(
                f"{self.folder}: cannot be written ({error.strerror or error}). "
                "Choose a folder that you may write to"
            ) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Ctrl-C may come between the making of a temporary file and the knowing of its name.
        with contextlib.suppress(OSError):
            remove_leftovers(self.folder)
        self._release()

    def _release(self) -> None:
        for handle in (self._lines, self._lock):
            if handle is not None:
                with contextlib.suppress(OSError):
                    os.close(handle)
        self._lines = self._lock = None

    def _check_settings(self) -> None:
        path = self.folder / _RUN
        if not path.exists():
            if (self.folder / _LINES).exists() or (self.folder / _RESULTS).exists():
                raise OutputError(f"{self.folder}: holds results of something else. Choose another folder")
            write_atomically(path, json.dumps(self._settings, indent=1).encode() + b"\n")
            return
        try:
            before = json.loads(path.read_bytes())
        except ValueError:
            before = None
        if not isinstance(before, dict):
            raise OutputError(
                f"{path}: is not the settings of a run. Choose another folder, or remove this one"
            )
        if before.get("artifact_sha256") != self._settings["artifact_sha256"]:
            raise OutputError(
                f"{self.folder}: holds results of another model ({before.get('artifact', 'unknown')}, "
                f"SHA-256 "
                f"{str(before.get('artifact_sha256'))[:12]}...). Choose another folder, or remove this one"
            )
        for key, value in self._settings.items():
            if key != "artifact" and before.get(key) != value:
                raise OutputError(
                    f"{self.folder}: holds results with {_difference(key, before.get(key), value)}. "
                    "Use the same options, or choose another folder"
                )

    def _read_lines(self) -> None:
        self._lines = os.open(self.folder / _LINES, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        complete = 0
        with open(self.folder / _LINES, "rb") as file:  # noqa: PTH123
            for line in file:
                if not line.endswith(b"\n"):
                    break
                complete += len(line)
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    record = json.loads(line)
                    self._remember(os.path.abspath(record["image"]), record)  # noqa: PTH100
        os.ftruncate(self._lines, complete)
        os.lseek(self._lines, complete, os.SEEK_SET)

    def _remember(self, key: str, record: dict[str, Any]) -> None:
        self.records[key] = record
        if isinstance(name := record.get("name"), str):
            self._names[name.lower()] = key

    def is_done(self, path: str) -> bool:
        """Whether a picture was localized before, has not changed since, and its files are there."""
        record = self.records.get(os.path.abspath(path))  # noqa: PTH100
        if record is None or "error" in record or record.get("stamp") != _stamp(path):
            return False
        files = record.get("files", {})
        return all((self.folder / name).is_file() for name in files.values())

    def name_for(self, path: str) -> str:
        """A stem for a picture's files that no other picture of this folder has, the same in every run."""
        key = os.path.abspath(path)  # noqa: PTH100
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
        """Append a picture's line; its files must be complete.

        Raises:
            OutputError: it cannot be written; no part of a line is left.
        """
        assert self._lines is not None
        record = {**record, "stamp": _stamp(path)}
        data = json.dumps(record).encode() + b"\n"
        start = os.lseek(self._lines, 0, os.SEEK_CUR)
        try:
            if os.write(self._lines, data) != len(data):
                raise OSError(28, "No space left on device")
        except BaseException as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._lines, start)
                os.lseek(self._lines, start, os.SEEK_SET)
            if not isinstance(error, OSError):
                raise
            raise OutputError(
                f"{self.folder / _LINES}: cannot be written ({error.strerror or error}). "
                "Free space and run the same command again: it goes on where it stopped"
            ) from None
        self._remember(os.path.abspath(path), record)  # noqa: PTH100
        return record

    def finish(self, paths: list[str], head: dict[str, Any]) -> None:
        """Write results.json: `head`, then results and failures of these pictures in their order."""
        records = [self.records.get(os.path.abspath(path)) for path in paths]  # noqa: PTH100
        known = [
            {k: v for k, v in record.items() if k != "stamp"} for record in records if record is not None
        ]
        document = {
            **head,
            "complete": len(known) == len(paths),
            "results": [record for record in known if "error" not in record],
            "failures": [record for record in known if "error" in record],
        }
        write_atomically(self.folder / _RESULTS, json.dumps(document, indent=1).encode() + b"\n")


def _difference(key: str, before: Any, now: Any) -> str:
    """What differs between two settings; of settings with parts only the parts that do."""
    if isinstance(before, dict) and isinstance(now, dict):
        names = sorted(k for k in before.keys() | now.keys() if before.get(k) != now.get(k))
        parts = [(f"{key} {name}", before.get(name), now.get(name)) for name in names]
    else:
        named = [v.get("preset") or "settings of its own" if isinstance(v, dict) else v for v in (before, now)]
        parts = [(key, named[0], named[1])]
    old = ", ".join(f"{name}={value!r}" for name, value, _ in parts)
    return f"{old}, this run has {', '.join(repr(value) for _, _, value in parts)}"
