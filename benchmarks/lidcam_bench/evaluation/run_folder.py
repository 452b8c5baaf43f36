"""The folder of an evaluation: what was counted so far, in a form that a kill at any moment leaves usable.

`rows.jsonl` has a line per picture; `state.npz` has the sums over the first pictures and the number of bytes that
rows.jsonl had with them. A run that goes on cuts rows.jsonl there: pictures counted after the last saved state are
done again.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from lidcam_rt.drawing import make_folder, write_atomically
from lidcam_rt.errors import InputError, OutputError
from lidcam_rt.locks import lock_folder, remove_leftovers

__all__ = ["RunFolder"]

_STATE, _ROWS = "state.npz", "rows.jsonl"
#: Saving may take this share of the time.
_SHARE = 0.05

Arrays = dict[str, npt.NDArray[Any]]


class RunFolder:
    """The output folder of one evaluation, held by one process. A context manager.

    Args:
        folder: made if it is not there.
        identity: what the numbers depend on; a folder of another identity is refused.

    Attributes:
        done: pictures that are counted.

    Raises:
        InputError: it holds a run of another identity, or a damaged one.
        OutputError: it cannot be written, or is in use by another process.
    """

    def __init__(self, folder: Path, identity: dict[str, Any]) -> None:
        self.folder = folder
        self._identity = json.loads(json.dumps(identity))
        self._lock: int | None = None
        self._rows: Any = None
        self.done = 0
        self._saved_at, self._cost = time.monotonic(), 0.0

    def __enter__(self) -> RunFolder:
        make_folder(self.folder)
        try:
            self._lock = lock_folder(self.folder)
            remove_leftovers(self.folder)
        except OutputError:
            raise
        except OSError as error:
            self._release()
            raise OutputError(
                f"{self.folder}: cannot be written ({error.strerror or error}). Choose a folder that you may write to"
            ) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            remove_leftovers(self.folder)
        self._release()

    def _release(self) -> None:
        if self._rows is not None:
            with contextlib.suppress(OSError):
                self._rows.close()
        if self._lock is not None:
            os.close(self._lock)
        self._lock = self._rows = None

    def resume(self) -> Arrays:
        """The arrays saved last, empty for a new run; `done` is set and rows.jsonl cut to it."""
        path, rows = self.folder / _STATE, self.folder / _ROWS
        arrays: Arrays = {}
        length = 0
        if path.is_file():
            try:
                with np.load(path) as file:
                    arrays = {name: file[name] for name in file.files}
                about = json.loads(bytes(arrays.pop("about")).decode())
                identity, self.done, length = about["identity"], about["done"], about["bytes"]
            except Exception as error:  # a damaged archive raises nearly anything
                raise InputError(f"{path} is damaged ({error}): remove it to start again") from None
            differs = [k for k, v in self._identity.items() if identity.get(k) != v]
            if differs:
                shown = "; ".join(_change(k, identity.get(k), self._identity[k]) for k in differs)
                raise InputError(
                    f"{self.folder} holds a run with another {', '.join(differs)}: choose another --out, or "
                    f"remove it ({shown})"
                )
        elif (self.folder / "results.json").exists() or (self.folder / "run.json").exists():
            raise InputError(f"{self.folder} holds results of something else: choose another --out, or remove it")
        try:
            self._rows = rows.open("ab")
            if self._rows.tell() < length:
                raise InputError(f"{rows} is shorter than {path} says: remove {self.folder} to start again")
            self._rows.truncate(length)
            self._rows.seek(length)
        except OSError as error:
            if isinstance(error, InputError):
                raise
            raise self._full(rows, error) from None
        return arrays

    def add(self, row: dict[str, Any]) -> None:
        """Append a picture's numbers.

        Raises:
            OutputError: it cannot be written.
        """
        try:
            self._rows.write(json.dumps(row).encode() + b"\n")
        except OSError as error:
            raise self._full(self.folder / _ROWS, error) from None
        self.done += 1

    @property
    def save_is_due(self) -> bool:
        """Whether a save now would leave at least 95% of the time to the work."""
        return time.monotonic() - self._saved_at >= self._cost / _SHARE

    def save(self, arrays: Arrays) -> None:
        """Write the sums of the pictures added so far, whole or not at all.

        Raises:
            OutputError: it cannot be written; the state before is still there.
        """
        start = time.monotonic()
        try:
            self._rows.flush()
            length = self._rows.tell()
        except OSError as error:
            raise self._full(self.folder / _ROWS, error) from None
        about = json.dumps({"identity": self._identity, "done": self.done, "bytes": length}).encode()
        buffer = io.BytesIO()
        np.savez(buffer, **{"about": np.frombuffer(about, np.uint8), **arrays})  # type: ignore[arg-type]
        write_atomically(self.folder / _STATE, buffer.getvalue())
        self._saved_at = time.monotonic()
        self._cost = self._saved_at - start

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows that were added, one at a time."""
        self._rows.flush()
        with (self.folder / _ROWS).open("rb") as file:
            for line in file:
                yield json.loads(line)

    def _full(self, path: Path, error: OSError) -> OutputError:
        return OutputError(
            f"{path}: cannot be written ({error.strerror or error}). Free space and run the same command again: it "
            "goes on where it stopped"
        )


def _change(name: str, before: Any, now: Any) -> str:
    """What a run had and this one has, in words."""
    if isinstance(before, dict) and isinstance(now, dict):
        return "; ".join(_change(k, before.get(k), now.get(k)) for k in now if before.get(k) != now.get(k))
    texts = [v[:12] if isinstance(v, str) and len(v) == 64 else json.dumps(v) for v in (before, now)]
    return f"{name.replace('_', ' ')} was {texts[0]}, is {texts[1]}"
