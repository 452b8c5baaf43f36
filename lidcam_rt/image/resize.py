"""From a picture to the network's input, and from its maps back to the picture's size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from lidcam_rt.artifact import InputSpec
from lidcam_rt.errors import InputError
from lidcam_rt.image.sources import describe

__all__ = ["Placement", "RgbImage", "network_input", "network_pixels", "placement", "tiles", "to_original_size"]

#: uint8 [height, width, 3], RGB, upright.
RgbImage: TypeAlias = npt.NDArray[np.uint8]

#: Longer sides are shrunk in two steps; JPEG and most cameras stay within this.
_LONG = 65_535
_TILE = 1 << 20


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a picture lies in the network's input, in pixels from its upper left corner.

    Attributes:
        width: columns the picture takes.
        height: rows the picture takes.
    """

    width: int
    height: int


def placement(size: tuple[int, int], spec: InputSpec) -> Placement:
    """Where a picture of `size` (width, height) lies in the network's input (all of it for `stretch`)."""
    if spec.resize == "stretch":
        return Placement(spec.width, spec.height)
    scale = min(spec.width / size[0], spec.height / size[1])
    return Placement(
        max(1, min(spec.width, round(size[0] * scale))), max(1, min(spec.height, round(size[1] * scale)))
    )


def network_input(picture: RgbImage, spec: InputSpec) -> npt.NDArray[np.uint8] | npt.NDArray[np.float32]:
    """Resize (and for float32 artifacts normalise) a picture as the manifest says.

    The resampling is Pillow's, which smooths before it shrinks, as torchvision's and timm's evaluation do.

    Args:
        picture: uint8 [H, W, 3] RGB.
        spec: the manifest's input.

    Returns:
        uint8 [height, width, 3], or float32 [3, height, width] normalised.
    """
    from PIL import Image

    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        raise InputError(f"a uint8 picture [H, W, 3] is needed, got {describe(picture)}: use read_image")
    place = placement((picture.shape[1], picture.shape[0]), spec)
    size = (place.width, place.height)
    pixels: npt.NDArray[np.uint8] = picture
    if (picture.shape[1], picture.shape[0]) != size:
        resample = Image.Resampling.BICUBIC if spec.interpolation == "bicubic" else Image.Resampling.BILINEAR
        small, box = _shrunk(picture, size)
        pixels = np.asarray(Image.fromarray(small).resize(size, resample, box))
    if size != (spec.width, spec.height):
        fill = np.clip(np.rint(spec.mean), 0, 255).astype(np.uint8)
        canvas = np.empty((spec.height, spec.width, 3), np.uint8)
        canvas[:] = fill
        canvas[: place.height, : place.width] = pixels
        pixels = canvas
    if spec.dtype == "uint8":
        return pixels
    mean, std = np.asarray(spec.mean, np.float32), np.asarray(spec.std, np.float32)
    scaled: npt.NDArray[np.float32] = (pixels.astype(np.float32) - mean) / std
    return np.ascontiguousarray(scaled.transpose(2, 0, 1))


def _shrunk(
    picture: RgbImage, size: tuple[int, int]
) -> tuple[RgbImage, tuple[float, float, float, float] | None]:
    """A picture with a very long side reduced to block means, at least 32 per pixel of `size`; and its box.

    Pillow's tables for a long side would take more memory than the picture. Others are returned as they are.
    """
    from PIL import Image

    height, width = picture.shape[:2]
    steps = [side // (32 * wanted) if side > _LONG else 1 for side, wanted in zip((width, height), size, strict=True)]
    across, down = max(1, steps[0]), max(1, steps[1])
    if across == down == 1:
        return picture, None
    rows = max(1, _TILE // width // down) * down
    parts = [picture[top : top + rows] for top in range(0, height, rows)]
    small = np.concatenate([np.asarray(Image.fromarray(part).reduce((across, down))) for part in parts])
    return small, (0, 0, width / across, height / down)


def tiles(width: int, height: int) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of the parts, of up to a million pixels, in which a picture is processed to save memory."""
    columns = min(width, _TILE)
    rows = max(1, _TILE // columns)
    for top in range(0, height, rows):
        for left in range(0, width, columns):
            yield slice(top, min(top + rows, height)), slice(left, min(left + columns, width))


def network_pixels(
    array: npt.NDArray[np.uint8] | npt.NDArray[np.float32], spec: InputSpec
) -> npt.NDArray[np.uint8]:
    """The pixels of a network input, uint8 [height, width, 3]: undoes the normalisation of float32 artifacts."""
    if array.dtype == np.uint8:
        return np.asarray(array, np.uint8)
    mean, std = np.asarray(spec.mean, np.float32), np.asarray(spec.std, np.float32)
    pixels: npt.NDArray[np.float32] = np.rint(array.transpose(1, 2, 0) * std + mean)
    return np.clip(pixels, 0, 255).astype(np.uint8)


def to_original_size(
    map8: npt.NDArray[np.uint8], size: tuple[int, int], spec: InputSpec
) -> npt.NDArray[np.uint8]:
    """A map at the network's input size, resized bilinearly to the picture's size, as the public evaluators do.

    Args:
        map8: uint8 [height, width] of the artifact's output `map8`.
        size: (width, height) of the picture.
        spec: the manifest's input; the margin of a letterboxed map is cut off first.

    Returns:
        uint8 [H, W].
    """
    import cv2

    place = placement(size, spec)
    part = np.ascontiguousarray(map8[: place.height, : place.width])
    if (part.shape[1], part.shape[0]) == size:
        return part.copy() if part.base is not None else part
    return np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_LINEAR), dtype=np.uint8)
