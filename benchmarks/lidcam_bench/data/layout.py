"""Files of a published layout: what is missing is named with the layout expected."""

from __future__ import annotations

from pathlib import Path

from lidcam_rt.errors import DataError

__all__ = ["expect", "read_lines"]


def expect(path: Path, layout: str) -> Path:
    """The path, if it exists.

    Raises:
        DataError: it does not; the message gives the path and the layout expected.
    """
    if not path.exists():
        raise DataError(f"{path} is missing. Expected layout:\n{layout.strip()}")
    return path


def read_lines(file: Path, columns: int) -> list[list[str]]:
    """Fields of the lines of a text table; blank lines are left out.

    Raises:
        DataError: a line has fewer fields.
    """
    rows = []
    for number, line in enumerate(file.read_text().splitlines(), start=1):
        fields = line.split(maxsplit=columns - 1)
        if not fields:
            continue
        if len(fields) < columns:
            raise DataError(f"{file}, line {number}: expected {columns} fields, got {line!r}")
        rows.append(fields)
    return rows
