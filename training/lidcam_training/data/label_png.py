"""Label maps as files: 8-bit PNG with the palette of PASCAL VOC."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image

from lidcam_rt.drawing import palette

__all__ = ["label_png"]


def label_png(labels: npt.NDArray[np.uint8]) -> bytes:
    """A label map as a PNG whose bytes are the labels; the palette only colours it for people.

    Args:
        labels: uint8 [height, width]: 0 background, class index + 1, 255 ignored.
    """
    picture = Image.fromarray(labels, "L")
    picture.putpalette(palette().tobytes())
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=6)
    return file.getvalue()
