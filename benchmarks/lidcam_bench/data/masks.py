"""Ground truth per pixel: where it comes from, and the one reader of mask files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from lidcam_bench.data.mask_forms import IGNORED, MaskForm, decode_mask, listed, stored_size
from lidcam_rt import image
from lidcam_rt.errors import DataError, ImageError

__all__ = ["IGNORED", "MaskFile", "MaskForm", "MaskSource", "upright_size"]

_LABEL_MAP = "a label map has class index + 1, 0 for the background, 255 for pixels that are left out"


class MaskSource(Protocol):
    """What a record's `mask` is: something that can draw the truth of each pixel."""

    @property
    def by_class(self) -> bool:
        """Whether the pixels tell classes apart: class index + 1; else 1 is the object, of whatever class."""

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that are read, for the fingerprint."""

    @property
    def shapes(self) -> tuple[Any, ...]:
        """What is drawn, for the fingerprint."""

    def read(self, image: Path, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
        """The pixels, uint8 [height, width]: 0 background, 255 ignored, else as `by_class` says.

        Args:
            image: the picture's file, for messages.
            size: (width, height) of the upright picture.

        Raises:
            DataError: it cannot be read, is not understood, or is of another size than the picture.
        """


@dataclass(frozen=True)
class MaskFile:
    """A mask in a picture file.

    Attributes:
        path: the file.
        form: how its values are read, for example what `mask_forms.common_form` says of all masks of a data set.
        ignore: a second mask, of pixels that are ignored where they are not the object, or None.
        transposed: if its size does not fit, it is stored with width and height swapped.
        classes: number of classes of a label map, which bounds its values; None: unknown.
        labels: of a label map, the picture's classes, of which it must show one; empty: it need not.
    """

    path: Path
    form: MaskForm = MaskForm.GREY
    ignore: Path | None = None
    transposed: bool = False
    classes: int | None = None
    labels: tuple[int, ...] = ()

    @property
    def by_class(self) -> bool:
        """See `MaskSource`."""
        return self.form in (MaskForm.LABELS, MaskForm.PALETTE)

    @property
    def files(self) -> tuple[Path, ...]:
        """See `MaskSource`."""
        return (self.path,) if self.ignore is None else (self.path, self.ignore)

    @property
    def shapes(self) -> tuple[Any, ...]:
        """See `MaskSource`."""
        return ()

    def read(self, image: Path, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
        """See `MaskSource`."""
        stored = stored_size(self.path)
        _check_size(self.path, stored, image, size, transposed=self.transposed)
        pixels = decode_mask(self.path, self.form)
        if stored != size:
            pixels = np.ascontiguousarray(pixels.T)
        if self.by_class:
            self._check_classes(pixels)
        if self.ignore is not None:
            _check_size(self.ignore, stored_size(self.ignore), image, size)
            pixels[(decode_mask(self.ignore, None) > 0) & (pixels == 0)] = IGNORED
        return pixels

    def _check_classes(self, pixels: npt.NDArray[np.uint8]) -> None:
        """Raise DataError where a label map cannot be one of these classes."""
        values = [int(v) for v in np.flatnonzero(np.bincount(pixels.ravel(), minlength=256)) if 0 < v < IGNORED]
        if self.classes is not None and values and values[-1] > self.classes:
            raise DataError(
                f"label map {self.path} holds {listed(values)}, there are {self.classes} classes: {_LABEL_MAP}"
            )
        if self.labels and values and not {label + 1 for label in self.labels} & set(values):
            raise DataError(
                f"label map {self.path} holds {listed(values)}, but its picture is labelled {listed(self.labels)}: "
                f"{_LABEL_MAP}"
            )


def _check_size(
    path: Path, stored: tuple[int, int], image: Path, size: tuple[int, int], *, transposed: bool = False
) -> None:
    """Raise DataError where a mask is not of its picture's size."""
    if stored == size or (transposed and stored == size[::-1]):
        return
    hint = ""
    if stored == size[::-1]:
        hint = (
            ". They are swapped: EXIF orientation is applied to pictures; the LID Track 3 masks whose ids end in 17615 "
            "and 18903 are stored swapped (the reader lid-track3:DIR turns them)"
        )
    raise DataError(
        f"{image}: picture has (height, width) {size[::-1]}, its mask {path} {stored[::-1]}: they must be equal{hint}"
    )


def upright_size(path: Path) -> tuple[int, int]:
    """(width, height) of a picture with its EXIF orientation applied, without decoding it.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return image.upright_size(path)
    except ImageError as error:
        raise DataError(str(error)) from None
