"""Localization scores for validation: histograms of map values at object and background pixels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["PixelHistogram"]


class PixelHistogram:
    """Accumulates 256-bin histograms over a set; scores from them (Choe et al., CVPR 2020, for PxAP)."""

    def __init__(self) -> None:
        self.object = np.zeros(256, np.int64)
        self.background = np.zeros(256, np.int64)

    def add(self, values: npt.NDArray[np.float32], mask: npt.NDArray[np.uint8]) -> None:
        """Add a picture.

        Args:
            values: map [H, W]; scaled to 0..255 by its minimum and maximum.
            mask: uint8 [H, W], 1 object, 0 background, 255 ignored.
        """
        low, high = float(values.min()), float(values.max())
        bins = (255 * (values - low) / (high - low + 1e-10)).astype(np.uint8)
        self.object += np.bincount(bins[mask == 1], minlength=256)
        self.background += np.bincount(bins[mask == 0], minlength=256)

    def pxap(self) -> float:
        """Pixel average precision in percent: sum of precision times the step of recall."""
        found = self.object[::-1].cumsum()
        wrong = self.background[::-1].cumsum()
        precision = found / np.maximum(found + wrong, 1)
        recall = found / max(self.object.sum(), 1)
        return float(100 * (precision * np.diff(recall, prepend=0)).sum())

    def peak_iou(self) -> tuple[float, int]:
        """Best IoU of `value >= threshold` accumulated over the set, and its threshold."""
        found = self.object[::-1].cumsum()[::-1]
        wrong = self.background[::-1].cumsum()[::-1]
        iou = found / np.maximum(self.object.sum() + wrong, 1)
        return float(iou.max()), int(iou.argmax())
