"""The one data model: a record per picture, its decoded ground truth, and a set of records.

Boxes are half-open everywhere: x0, y0, x1, y1 in whole pixels of the upright picture, x1 and y1 one past the last
pixel. The metrics that follow another convention convert at their own border (`lidcam_bench.metrics.evaluator_box`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lidcam_bench.data.masks import IGNORED, MaskSource, upright_size
from lidcam_rt.errors import DataError
from lidcam_rt.results import Box
from lidcam_rt.text import encode_text

__all__ = ["ImageSet", "Record", "Truth"]


@dataclass(frozen=True, eq=False)
class Truth:
    """The ground truth of one picture, its mask decoded.

    Attributes:
        image: the picture's file, for messages.
        size: (width, height) of the picture in pixels.
        labels: class indices; empty where unknown.
        boxes: half-open boxes as annotated; may be empty.
        pixels: uint8 [height, width]: 0 background, 255 ignored, and else class index + 1 where `by_class`, 1 where
            not; None without a mask.
        by_class: whether `pixels` tells the classes apart.
    """

    image: Path
    size: tuple[int, int]
    labels: tuple[int, ...]
    boxes: tuple[Box, ...]
    pixels: npt.NDArray[np.uint8] | None = field(repr=False)
    by_class: bool

    def object_mask(self, label: int | None = None) -> npt.NDArray[np.uint8] | None:
        """The objects as a mask.

        Args:
            label: only the objects of this class, where the mask tells classes apart; None: all objects together.

        Returns:
            uint8 [height, width]: 1 object, 0 background, 255 ignored. None without a mask, or where a mask of
            classes has no pixel of `label`.
        """
        if self.pixels is None or not self.by_class:
            return self.pixels
        if label is None:
            return np.where((self.pixels > 0) & (self.pixels < IGNORED), 1, self.pixels).astype(np.uint8)
        mask = np.where(self.pixels == IGNORED, IGNORED, self.pixels == label + 1).astype(np.uint8)
        return mask if (mask == 1).any() else None

    def label_map(self) -> npt.NDArray[np.uint8] | None:
        """Class index + 1, 0 background, 255 ignored: uint8 [height, width].

        None without a mask, and where the mask does not tell which of several classes its object is.
        """
        if self.pixels is None or self.by_class:
            return self.pixels
        if len(self.labels) != 1 or self.labels[0] >= IGNORED - 1:
            return None
        return np.where(self.pixels == 1, np.uint8(self.labels[0] + 1), self.pixels).astype(np.uint8)

    def object_boxes(self, label: int | None = None) -> list[Box]:
        """The boxes as annotated; without any, the one around the mask's object.

        Args:
            label: of a picture with several classes, the box around this class's own pixels, where the mask tells
                them apart; None: all objects.

        Raises:
            DataError: an annotated box has no area or reaches out of the picture.
        """
        width, height = self.size
        for box in self.boxes:
            if not (0 <= box[0] < box[2] and 0 <= box[1] < box[3]):
                raise DataError(f"{self.image}: box {tuple(box)} is not 0 <= x0 < x1, 0 <= y0 < y1. Fix its file")
            if box[2] > width or box[3] > height:
                raise DataError(
                    f"{self.image}: box {tuple(box)} reaches beyond the picture, which has {width}x{height} pixels. "
                    "Boxes are x0, y0, x1, y1 in pixels of the upright picture, x1 and y1 one past the last pixel"
                )
        if label is not None and self.by_class and len(self.labels) > 1:
            mask = self.object_mask(label)
            return [] if mask is None else _around(mask)
        if self.boxes:
            return list(self.boxes)
        mask = self.object_mask()
        return [] if mask is None else _around(mask)


def _around(mask: npt.NDArray[np.uint8]) -> list[Box]:
    """The half-open box around the object's pixels; empty without any."""
    rows, columns = np.flatnonzero((mask == 1).any(1)), np.flatnonzero((mask == 1).any(0))
    return [(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)] if rows.size else []


@dataclass(frozen=True)
class Record:
    """One picture of a data set.

    Attributes:
        image: its file.
        labels: class indices: one for a single-label set, any number for a multi-label one, none where unknown.
        boxes: half-open ground-truth boxes in pixels of the upright picture.
        mask: the source of its ground truth per pixel, or None.
        size: (width, height) that the data set states and the picture must have, or None.
        unknown: class indices of which the data set does not say whether they are in the picture.
    """

    image: Path
    labels: tuple[int, ...] = ()
    boxes: tuple[Box, ...] = ()
    mask: MaskSource | None = None
    size: tuple[int, int] | None = None
    unknown: tuple[int, ...] = ()

    def truth(self, size: tuple[int, int] | None = None) -> Truth:
        """The ground truth, its mask decoded and checked.

        Args:
            size: (width, height) of the upright picture, if the caller knows it; else it is read from the file.

        Raises:
            DataError: the mask is missing, damaged, not of a form that is understood, or of another size than the
                picture; or the picture is not of the size that the data set states.
        """
        if size is None:
            size = upright_size(self.image)
        if self.size is not None and self.size != size:
            raise DataError(
                f"{self.image}: picture has {size[0]}x{size[1]} pixels, its data set says "
                f"{self.size[0]}x{self.size[1]}: boxes and masks are of another size"
            )
        pixels = None if self.mask is None else self.mask.read(self.image, size)
        return Truth(self.image, size, self.labels, self.boxes, pixels, self.mask is not None and self.mask.by_class)


@dataclass(frozen=True)
class ImageSet:
    """A split of a data set.

    Attributes:
        name: for messages and reports, for example `clutter-fashion/test`.
        class_names: in the order of the label indices; empty where unknown.
        records: its pictures.
        multilabel: whether a picture may have several labels.
    """

    name: str
    class_names: tuple[str, ...]
    records: tuple[Record, ...] = field(repr=False)
    multilabel: bool = False

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)

    def fingerprint(self) -> str:
        """SHA-256 over the class names, and over name, size in bytes, labels, boxes and mask of every picture."""
        digest = hashlib.sha256(encode_text("\n".join(self.class_names)))
        for record in self.records:
            files = (record.image, *(() if record.mask is None else record.mask.files))
            sizes = [_bytes(path) for path in files]
            digest.update(encode_text(f"{record.image.name} {sizes} {record.labels} {record.boxes}\n"))
            for shape in () if record.mask is None else record.mask.shapes:
                digest.update(repr(shape).encode())
            if record.unknown:
                digest.update(repr(record.unknown).encode())
        return digest.hexdigest()


def _bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
