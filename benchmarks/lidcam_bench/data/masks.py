"""Ground truth per pixel: where it comes from, and the one reader of mask files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from lidcam_rt import image
from lidcam_rt.errors import DataError, ImageError

__all__ = ["IGNORED", "MaskFile", "MaskSource", "upright_size"]

#: Value of pixels that are left out of every count.
IGNORED = 255


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
        by_class: the file is a label map (8 bits: class index + 1, 0 background, 255 ignored); else values above 127
            are the object.
        ignore: a second file whose values above 127 are ignored where they are not the object, or None.
        transposed: where its size does not fit, it is stored with width and height swapped.
    """

    path: Path
    by_class: bool = False
    ignore: Path | None = None
    transposed: bool = False

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
        pixels = _indices(self.path) if self.by_class else (_grey(self.path) > 127).astype(np.uint8)
        if self.transposed and pixels.shape != size[::-1]:
            pixels = np.ascontiguousarray(pixels.T)
        if pixels.shape != size[::-1]:
            raise DataError(
                f"{image}: picture has (height, width) {size[::-1]}, its mask {self.path} {pixels.shape}: they must be "
                f"equal{_swapped_hint(pixels.shape, size)}"
            )
        if self.ignore is not None:
            ignored = _grey(self.ignore)
            if ignored.shape != pixels.shape:
                raise DataError(f"{self.ignore} has (height, width) {ignored.shape}, {self.path} {pixels.shape}")
            pixels[(ignored > 127) & (pixels == 0)] = IGNORED
        return pixels


def _swapped_hint(shape: tuple[int, ...], size: tuple[int, int]) -> str:
    """What to say of a mask that has its picture's sides swapped; empty for others."""
    if shape != size:
        return ""
    return (
        ". They are swapped: EXIF orientation is applied to pictures; the LID Track 3 masks whose ids end in 17615 and "
        "18903 are stored swapped (the reader lid-track3:DIR turns them)"
    )


def _grey(path: Path) -> npt.NDArray[np.uint8]:
    try:
        with Image.open(path) as file:
            if file.mode in ("I", "F") or file.mode.startswith("I;"):
                raise DataError(f"mask {path}: {file.mode} pixels, a mask has 8 bits per pixel (or 1)")
            return np.asarray(file.convert("L"))
    except (OSError, SyntaxError) as error:  # Pillow raises SyntaxError for broken PNG chunks
        if isinstance(error, DataError):
            raise
        raise DataError(f"mask {path} cannot be read: {error}") from None


def _indices(path: Path) -> npt.NDArray[np.uint8]:
    try:
        with Image.open(path) as file:
            if file.mode not in ("L", "P"):
                raise DataError(f"label map {path}: mode {file.mode}, a label map is 8-bit grey or palette")
            return np.array(file, dtype=np.uint8)
    except (OSError, SyntaxError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"label map {path} cannot be read: {error}") from None


def upright_size(path: Path) -> tuple[int, int]:
    """(width, height) of a picture with its EXIF orientation applied, without decoding it.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return image.upright_size(path)
    except ImageError as error:
        raise DataError(str(error)) from None
