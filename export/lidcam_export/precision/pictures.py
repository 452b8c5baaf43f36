"""The pictures that an artifact is calibrated and compared on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lidcam_bench.data import ImageSet, open_data
from lidcam_bench.data.records import Record

from lidcam_cli.folders import find_pictures

__all__ = ["read_pictures", "split"]


def read_pictures(folder: Path) -> ImageSet:
    """The pictures of a folder, with labels and label maps where it is a data set as for `lidcam eval`.

    Raises:
        DataError: there is none, or the data set cannot be read.
    """
    if (folder / "images").is_dir() or not folder.is_dir():
        return open_data(str(folder), "test")
    return ImageSet(folder.name, (), tuple(Record(image=Path(path)) for path in find_pictures(folder).paths))


def split(records: Sequence[Record], count: int) -> tuple[list[Record], list[Record]]:
    """Calibration and held-out pictures: `count` of them, evenly spread over the list, and at most half; the rest."""
    count = min(count, max(1, len(records) // 2))
    chosen = {round(i * len(records) / count) for i in range(count)}
    return (
        [record for i, record in enumerate(records) if i in chosen],
        [record for i, record in enumerate(records) if i not in chosen],
    )
