"""Masks that are drawn: the polygons and run lengths of COCO."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lidcam_bench.data.masks import IGNORED
from lidcam_rt.errors import DataError

__all__ = ["Shapes", "draw_shapes"]


@dataclass(frozen=True)
class Shapes:
    """A mask made of the segmentations of a COCO picture; a `lidcam_bench.data.masks.MaskSource`.

    Attributes:
        shapes: (segmentation, label) per annotation, label 255 for crowds.
        size: (width, height) that the file states.
    """

    shapes: tuple[tuple[Any, int], ...] = field(repr=False)
    size: tuple[int, int]

    @property
    def by_class(self) -> bool:
        """See `MaskSource`."""
        return True

    @property
    def files(self) -> tuple[Path, ...]:
        """See `MaskSource`."""
        return ()

    def read(self, image: Path, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
        """See `MaskSource`."""
        if size != self.size:
            raise DataError(
                f"{image}: picture has (width, height) {size}, the COCO file says {self.size}: they must be equal"
            )
        return draw_shapes(self.shapes, size, str(image))


def draw_shapes(shapes: Sequence[tuple[Any, int]], size: tuple[int, int], name: str) -> npt.NDArray[np.uint8]:
    """The shapes as a mask: uint8 [height, width], 0 where there is none, labels above 254 as 254.

    Crowds come first, so that an object is drawn over them; of objects the later over the earlier. Polygons are
    filled with their corners rounded to pixels, borders included (pycocotools differs by a pixel at borders); run
    lengths are exact.

    Args:
        shapes: (segmentation, label): polygons [[x, y, ...], ...], or {"size": [h, w], "counts": list or str}.
        size: (width, height).
        name: the picture, for messages.

    Raises:
        DataError: a shape is none of these, or of another size.
    """
    import cv2

    width, height = size
    mask = np.zeros((height, width), np.uint8)
    for shape, label in sorted(shapes, key=lambda s: s[1] != IGNORED):
        region = np.zeros_like(mask)
        try:
            if isinstance(shape, list):
                for polygon in shape:
                    points = np.rint(np.asarray(polygon, np.float64).reshape(-1, 2)).astype(np.int32)
                    cv2.fillPoly(region, [points], 1)
            else:
                counts = shape["counts"]
                counts = _decompress(counts) if isinstance(counts, (str, bytes)) else counts
                flat = np.repeat(np.arange(len(counts)) % 2, counts).astype(np.uint8)
                if flat.size != mask.size:
                    raise DataError(f"{name}: its run lengths give {flat.size} pixels, it has {mask.size}")
                region = flat.reshape(width, height).T
        except (KeyError, TypeError, ValueError, IndexError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{name}: a segmentation is neither polygons nor run lengths ({error!r})") from None
        mask[region > 0] = label if label == IGNORED else min(label, IGNORED - 1)
    return mask


def _decompress(text: str | bytes) -> list[int]:
    """Run lengths of COCO's compressed form.

    Each number is written in groups of five bits, lowest first, as characters from '0' (48) on; bit 5 says that another
    group follows, bit 4 of the last group is the sign. From the third number on it is the difference to the number two
    before (cocoapi, common/maskApi.c, rleFrString).
    """
    data = text.encode() if isinstance(text, str) else text
    counts: list[int] = []
    at = 0
    while at < len(data):
        value = shift = 0
        more = True
        while more:
            group = data[at] - 48
            value |= (group & 31) << shift
            shift += 5
            more = bool(group & 32)
            at += 1
        if group & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
    return counts
