"""Masks that are drawn: the polygons and run lengths of COCO.

Polygons are filled by pycocotools, so that their pixels are COCO's own. Run lengths are decoded here, since pycocotools
reads past the end of damaged ones and leaves pixels that none covers uninitialised.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lidcam_bench.data.masks import IGNORED
from lidcam_rt.errors import DataError, MissingExtraError

__all__ = ["Shapes", "draw_shapes", "has_area"]

#: A run length of compressed form has at most this many characters: five bits each, and no picture has 2^60 pixels.
_LONGEST = 12
#: Pixels that a corner may lie outside, beside the picture's own size.
_MARGIN = 16


@dataclass(frozen=True)
class Shapes:
    """A mask made of the segmentations of a COCO picture; a `lidcam_bench.data.masks.MaskSource`.

    Attributes:
        shapes: (segmentation, label) per annotation: label is class index + 1, 255 for crowds.
        by_class: whether the pixels tell classes apart; where a class index is above 253 they cannot, and every label
            is 1.
    """

    shapes: tuple[tuple[Any, int], ...] = field(repr=False)
    by_class: bool = True

    @property
    def files(self) -> tuple[Path, ...]:
        """See `MaskSource`."""
        return ()

    def read(self, image: Path, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
        """See `MaskSource`."""
        return draw_shapes(self.shapes, size, str(image))


def has_area(segmentation: Any) -> bool:
    """Whether a segmentation may cover a pixel: `[]`, `[[]]`, points and lines do not."""
    if isinstance(segmentation, list):
        return any(len(p) >= 6 for p in segmentation if isinstance(p, list)) or _is_damaged(segmentation)
    return segmentation is not None


def _is_damaged(segmentation: list[Any]) -> bool:
    """Whether it holds anything but lists: `draw_shapes` then reports what is wrong."""
    return any(not isinstance(polygon, list) for polygon in segmentation)


def draw_shapes(shapes: Sequence[tuple[Any, int]], size: tuple[int, int], name: str) -> npt.NDArray[np.uint8]:
    """The shapes as a mask: uint8 [height, width], 0 where there is none.

    Crowds come first, so that an object is drawn over them; of objects the later over the earlier. Polygons of fewer
    than three corners have no area and are left out.

    Args:
        shapes: (segmentation, label): polygons [[x, y, ...], ...], or {"size": [h, w], "counts": list or str}; labels
            1 to 255.
        size: (width, height).
        name: the picture, for messages.

    Raises:
        DataError: a shape is none of these, reaches far out of the picture, or is of another size.
        MissingExtraError: polygons need pycocotools, which is not installed.
    """
    width, height = size
    mask = np.zeros((height, width), np.uint8)
    for shape, label in sorted(shapes, key=lambda s: s[1] != IGNORED):
        if isinstance(shape, list):
            region = _fill(shape, size, name)
        elif isinstance(shape, dict) and "counts" in shape:
            region = _decode(shape, size, name)
        else:
            raise DataError(f"{name}: a segmentation is neither polygons nor run lengths: {shape!r:.80}")
        mask[region] = label
    return mask


def _fill(polygons: list[Any], size: tuple[int, int], name: str) -> npt.NDArray[np.bool_]:
    """The union of polygons, bool [height, width], by pycocotools."""
    width, height = size
    outlines = []
    for polygon in polygons:
        numbers = isinstance(polygon, list) and all(type(v) in (int, float) for v in polygon)
        if not numbers or len(polygon) % 2:
            raise DataError(
                f"{name}: a segmentation is neither polygons nor run lengths; a polygon is a list x, y, x, y, ..., got "
                f"{polygon!r:.80}"
            )
        for value, side in zip(polygon, (width, height) * (len(polygon) // 2), strict=True):
            # This also keeps the outline short and within 32 bits in pycocotools.
            if not -side - _MARGIN <= value <= 2 * side + _MARGIN:  # NaN fails it too
                raise DataError(f"{name}: a polygon's corner at {value} lies far outside of {width}x{height} pixels")
        if len(polygon) >= 6:
            outlines.append([float(v) for v in polygon])
    if not outlines:
        return np.zeros((height, width), np.bool_)
    try:
        from pycocotools import mask as coco
    except ImportError as error:
        raise MissingExtraError("drawing the polygons of a COCO file", "eval", (error.name or "pycocotools",)) from None
    region: npt.NDArray[np.uint8] = coco.decode(coco.merge(coco.frPyObjects(outlines, height, width)))
    return region.view(np.bool_)


def _decode(shape: dict[str, Any], size: tuple[int, int], name: str) -> npt.NDArray[np.bool_]:
    """Run lengths, down the columns, background first: bool [height, width]."""
    width, height = size
    stated, counts = shape.get("size", [height, width]), shape["counts"]
    if stated != [height, width]:
        raise DataError(f"{name}: its run lengths are of (height, width) {stated}, the picture has {[height, width]}")
    if isinstance(counts, str):
        counts = _decompress(counts, name)
    if not isinstance(counts, list) or not all(type(v) is int and v >= 0 for v in counts):
        raise DataError(f"{name}: a segmentation is neither polygons nor run lengths: counts {counts!r:.80}")
    if sum(counts) != width * height:
        raise DataError(f"{name}: its run lengths give {sum(counts)} pixels, the picture has {width * height}")
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(width, height).T


def _decompress(text: str, name: str) -> list[int]:
    """Run lengths of COCO's compressed form.

    Each number is written in groups of five bits, lowest first, as characters from '0' (48) on; bit 5 says that another
    group follows, bit 4 of the last group is the sign. From the third number on it is the difference to the number two
    before (cocoapi, common/maskApi.c, rleFrString).
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        group = ord(character) - 48
        if not 0 <= group < 64 or shift >= 5 * _LONGEST:
            raise DataError(f"{name}: a segmentation is neither polygons nor run lengths: counts {text!r:.80}")
        value |= (group & 31) << shift
        shift += 5
        if group & 32:
            continue
        if group & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    if shift:
        raise DataError(f"{name}: a segmentation is neither polygons nor run lengths: counts that end {text[-20:]!r}")
    return counts
