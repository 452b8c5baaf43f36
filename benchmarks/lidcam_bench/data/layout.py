"""Files of a published layout: what is missing is named with the layout expected."""

from __future__ import annotations

from pathlib import Path

from lidcam_bench.data.text import read_lines
from lidcam_rt.errors import DataError

__all__ = ["expect", "read_map_det"]


def expect(path: Path, layout: str) -> Path:
    """The path, if it exists.

    Raises:
        DataError: it does not; the message gives the path and the layout expected.
    """
    try:
        there = path.exists()
    except (OSError, ValueError):  # a name that no file can have
        there = False
    if not there:
        raise DataError(f"{path} is missing. Expected layout:\n{layout.strip()}")
    return path


def read_map_det(file: Path) -> tuple[dict[str, int], tuple[str, ...]]:
    """ILSVRC DET's table of classes: (index of each WordNet id, names in the order of the indices).

    Raises:
        DataError: it cannot be read, or a class number is not a number.
    """
    rows = read_lines(file, 3)
    try:
        rows.sort(key=lambda row: int(row[1]))
    except ValueError as error:
        raise DataError(f"{file}: the second field of a line is the number of the class ({error})") from None
    return {wordnet: index for index, (wordnet, _, _) in enumerate(rows)}, tuple(name for _, _, name in rows)
