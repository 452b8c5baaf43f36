"""Runs that resume: a folder with the identity of a run, and its records line by line.

`run.json` holds the identity, `results.jsonl` a JSON object per line. A line is added when everything it refers to is
complete, so that a process killed at any point leaves at most a part of a line, which the next run cuts off.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from lidcam_rt.errors import OutputError
from lidcam_rt.files import open_file, output_folder, read_file, write_atomically

__all__ = ["RunFolder", "differences"]

_RUN, _RECORDS, _RESULTS = "run.json", "results.jsonl", "results.json"
_OF_SCALE = "_run.json"  # of `lidcam scale`; readers of its output take every other file for Parquet


class RunFolder:
    """The output folder of one run, held by one process. A context manager.

    Args:
        folder: made if it is missing.
        identity: what the results depend on, as JSON values. A folder with another identity is refused.
        ignored: names in `identity` that are recorded for people and may differ.

    Attributes:
        folder: the folder.

    Raises:
        OutputError: on entering: the folder cannot be written, holds another run, or is in use.
    """

    def __init__(self, folder: Path, identity: dict[str, Any], *, ignored: tuple[str, ...] = ()) -> None:
        self.folder = folder
        self._identity: dict[str, Any] = json.loads(json.dumps(identity))
        self._ignored = ignored
        self._held = contextlib.ExitStack()
        self._file = -1

    def __enter__(self) -> RunFolder:
        with contextlib.ExitStack() as stack:
            stack.enter_context(output_folder(self.folder))
            self._check_identity()
            try:
                self._file = os.open(self.folder / _RECORDS, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
                stack.callback(os.close, self._file)
                self._cut(complete_lines=None)
            except OSError as error:
                raise self._full(error) from None
            self._held = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.close()

    def _check_identity(self) -> None:
        path = self.folder / _RUN
        try:
            before = json.loads(read_file(path))
        except FileNotFoundError:
            if any((self.folder / name).exists() for name in (_RECORDS, _RESULTS, _OF_SCALE)):
                raise OutputError(
                    f"{self.folder}: already holds other results. Choose another folder"
                ) from None
            write_atomically(path, json.dumps(self._identity, indent=1).encode() + b"\n")
            return
        except (OSError, ValueError, RecursionError):
            before = None
        if not isinstance(before, dict):
            raise OutputError(f"{path}: does not describe a run. Choose another folder, or remove this one")
        about = {name: before.get(name) for name in self._ignored}
        changes = differences(before, self._identity | about)
        if changes:
            names = ", ".join(str(value) for value in about.values())
            raise OutputError(
                f"{self.folder}: holds another run{f' ({names})' if names else ''}: {'; '.join(changes)}. Use the "
                "same model, data and options, or choose another folder"
            )

    def _cut(self, complete_lines: int | None) -> int:
        """Cut the records after so many complete lines (None: after the last); returns how many there are now."""
        length = count = 0
        with open_file(self.folder / _RECORDS) as file:
            for line in file:
                if count == complete_lines or not line.endswith(b"\n"):
                    break
                length, count = length + len(line), count + 1
        os.ftruncate(self._file, length)
        os.lseek(self._file, length, os.SEEK_SET)
        return count

    def records(self) -> Iterator[dict[str, Any]]:
        """The records in the order they were added, read one at a time. Damaged lines are left out."""
        with open_file(self.folder / _RECORDS) as file:
            for line in file:
                with contextlib.suppress(ValueError, RecursionError):
                    record = json.loads(line)
                    if isinstance(record, dict):
                        yield record

    def keep(self, count: int) -> None:
        """Forget the records after the first `count`.

        Raises:
            OutputError: there are fewer, or the file cannot be written.
        """
        try:
            complete = self._cut(count)
        except OSError as error:
            raise self._full(error) from None
        if complete < count:
            raise OutputError(
                f"{self.folder / _RECORDS} has {complete} records, but {count} were written: it was damaged. Remove "
                f"{self.folder} to start again"
            )

    def add(self, record: dict[str, Any]) -> None:
        """Append a record.

        Raises:
            OutputError: it cannot be written; no part of a line is left.
        """
        data = json.dumps(record).encode() + b"\n"
        start = os.lseek(self._file, 0, os.SEEK_CUR)
        try:
            if os.write(self._file, data) != len(data):
                raise OSError(28, "No space left on device")
        except BaseException as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, start)
                os.lseek(self._file, start, os.SEEK_SET)
            if not isinstance(error, OSError):
                raise
            raise self._full(error) from None

    def write(self, name: str, data: bytes) -> None:
        """Write a file of the folder, whole or not at all.

        Raises:
            OutputError: it cannot be written.
        """
        write_atomically(self.folder / name, data)

    def _full(self, error: OSError) -> OutputError:
        return OutputError(
            f"{self.folder / _RECORDS}: cannot be written ({error.strerror or error}). Free space and run the same "
            "command again: it resumes where it stopped"
        )


def differences(before: Any, now: Any, name: str = "") -> list[str]:
    """What differs between two JSON values, as texts like `top_k was 1, is 2`; objects are compared by their names."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = [*now, *(key for key in before if key not in now)]
        return [
            text
            for key in keys
            for text in differences(before.get(key), now.get(key), f"{name} {key}".strip())
        ]
    return [] if before == now else [f"{name} was {_shown(before)}, is {_shown(now)}"]


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return str(value.get("preset") or "{...}")
    if isinstance(value, str) and len(value) == 64:
        return f"{value[:12]}..."  # a SHA-256
    text = "none" if value is None else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
