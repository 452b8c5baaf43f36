"""The one opener of data sets, for evaluation, training and ablation."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

from lidcam_bench.data.readers.coco import read_coco
from lidcam_bench.data.readers.folder import read_folder
from lidcam_bench.data.records import ImageSet
from lidcam_rt.errors import DataError, MissingExtraError

__all__ = ["open_data"]

#: What an entry point of the group `lidcam.datasets` is: (folder, split) to a set.
_Reader = Callable[[Path, str], ImageSet]


def open_data(source: str, split: str = "test") -> ImageSet:
    """Open a data set.

    Args:
        source: `DIR`: the plain folder form, see `lidcam_bench.data.readers.folder`.
            `coco:FILE.json` or `coco:FILE.json,IMAGES_DIR`: COCO instances; `{split}` stands for the split.
            `NAME:DIR`: a reader of the entry-point group `lidcam.datasets`, see `lidcam_bench.data.readers`.
        split: train, val or test, as the data set has them. A plain folder or a COCO file may be one split alone,
            which is then opened whatever the split.

    Raises:
        DataError: nothing of that name, a file is missing or damaged, or there is no picture.
        MissingExtraError: the reader needs packages that are not installed.
    """
    name, colon, place = source.partition(":")
    readers = {entry.name: entry for entry in entry_points(group="lidcam.datasets")}
    if Path(source).expanduser().is_dir():
        images = read_folder(Path(source).expanduser(), split)
    elif colon and name == "coco":
        images = read_coco(place, split)
    elif colon and name in readers:
        folder = Path(place).expanduser()
        if not folder.is_dir():
            raise DataError(f"data {source!r}: the folder {folder} does not exist")
        try:
            reader: _Reader = readers[name].load()
        except ImportError as error:
            raise MissingExtraError(f"reading data {source!r}", "train", (error.name or str(error),)) from None
        images = reader(folder, split)
    else:
        known = ", ".join(["coco", *sorted(readers)])
        raise DataError(f"data {source!r}: neither a folder nor NAME:DIR with NAME one of {known}")
    if not images.records:
        raise DataError(f"data {source!r}: no picture in it (split {split!r})")
    return images
