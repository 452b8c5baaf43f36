"""What every data set is here: a list of records; and how one is opened by name."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from lidcam_rt.errors import DataError

__all__ = ["ImageSet", "Record", "dataset_readers", "expect", "open_dataset"]

#: x0, y0, x1, y1 in pixels, x1 and y1 one past the last pixel
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Record:
    """One picture of a data set.

    Attributes:
        image: file.
        labels: class indices; one for a single-label set, any number for a multi-label one.
        boxes: ground truth in pixels of the picture, x1 and y1 one past the last pixel.
        mask: file of the mask, or None.
        mask_values: how the mask is read: `foreground` (above 127 is the object), `nonzero`, or `classes`
            (class index + 1, 0 background, 255 ignored).
        transpose_mask: the mask is stored with width and height swapped.
    """

    image: Path
    labels: tuple[int, ...]
    boxes: tuple[Box, ...] = ()
    mask: Path | None = None
    mask_values: str = "foreground"
    transpose_mask: bool = False

    def read_mask(self) -> npt.NDArray[np.uint8] | None:
        """uint8 [height, width]: 1 the object (or class index + 1), 0 background, 255 ignored; None without
        one.

        Raises:
            DataError: the mask is missing, unreadable or of another size than the picture.
        """
        if self.mask is None:
            return None
        try:
            with Image.open(self.mask) as file:
                values = np.asarray(file if file.mode in ("L", "P") else file.convert("L"))
            with Image.open(self.image) as file:
                size = (file.height, file.width)
        except OSError as error:
            raise DataError(f"mask {self.mask} of {self.image} cannot be read: {error}") from error
        if self.transpose_mask and values.shape != size:
            values = values.T
        if values.shape != size:
            raise DataError(
                f"mask {self.mask} has (height, width) {values.shape}, its picture {self.image} has {size}: "
                "they must be equal"
            )
        if self.mask_values == "classes":
            return values.astype(np.uint8)
        ignored = (values == 255) & (self.mask_values == "nonzero")
        return np.where(ignored, 255, values > (127 if self.mask_values == "foreground" else 0)).astype(
            np.uint8
        )


@dataclass(frozen=True)
class ImageSet:
    """A split of a data set.

    Attributes:
        name: for messages and reports, for example `clutter-fashion/test`.
        class_names: in the order of the label indices.
        records: its pictures.
        multilabel: whether a picture may have several labels.
    """

    name: str
    class_names: tuple[str, ...]
    records: tuple[Record, ...] = field(repr=False)
    multilabel: bool = False

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(self.records)

    def fingerprint(self) -> str:
        """SHA-256 over names, sizes in bytes and labels of the pictures, and the class names."""
        digest = hashlib.sha256("\n".join(self.class_names).encode())
        for record in self.records:
            size = record.image.stat().st_size if record.image.exists() else -1
            digest.update(f"{record.image.name} {size} {record.labels}\n".encode())
        return digest.hexdigest()


def expect(path: Path, layout: str) -> Path:
    """The path, if it is there.

    Raises:
        DataError: it is not; the message gives the path and the layout expected.
    """
    if not path.exists():
        raise DataError(f"{path} is missing. Expected layout:\n{layout.strip()}")
    return path


def dataset_readers() -> dict[str, Callable[[Path, str], ImageSet]]:
    """Readers by name, from the entry points of the group `lidcam.datasets`, loaded when called."""

    def lazy(entry: EntryPoint) -> Callable[[Path, str], ImageSet]:
        return lambda folder, split: entry.load()(folder, split)

    return {entry.name: lazy(entry) for entry in entry_points(group="lidcam.datasets")}


def open_dataset(source: str, split: str) -> ImageSet:
    """Open a split of a data set.

    Args:
        source: `NAME:DIR`, for example `cub:/data/CUB_200_2011`.
        split: `train`, `val` or `test`, as the set has them.

    Raises:
        DataError: unknown name, missing folder or file, empty split.
    """
    name, found, folder = source.partition(":")
    readers = dataset_readers()
    if not found or name not in readers:
        raise DataError(
            f"data {source!r}: give NAME:DIR with NAME one of {', '.join(sorted(readers))}, for example "
            "clutter-fashion:data/clutter"
        )
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise DataError(f"data {source!r}: the folder {path} is not there")
    images = readers[name](path, split)
    if not images.records:
        raise DataError(f"data {source!r}: the split {split!r} has no picture")
    return images
