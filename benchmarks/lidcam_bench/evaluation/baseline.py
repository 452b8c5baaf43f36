"""The map without a model, with which every score is compared."""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

__all__ = ["blob"]

#: Blobs of up to this many pixels are kept: data sets have a few sizes.
_KEPT = 1 << 19


def blob(size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """A centred Gaussian, sigma a quarter of width and height, uint8 [height, width].

    Args:
        size: (width, height) in pixels.
    """
    return _blob(size) if size[0] * size[1] <= _KEPT else _blob.__wrapped__(size)


@functools.lru_cache(maxsize=16)
def _blob(size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    width, height = size
    x, y = (np.exp(-8 * ((np.arange(n) + 0.5) / n - 0.5) ** 2) for n in (width, height))
    pixels: npt.NDArray[np.uint8] = np.rint(255 * np.outer(y, x)).astype(np.uint8)
    pixels.setflags(write=False)
    return pixels
