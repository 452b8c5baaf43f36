"""Localization scores for validation, on counts that can be summed over processes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from lidcam_bench.metrics import IoUCurve, PixelAveragePrecision, histogram, to_map8

__all__ = ["PixelHistogram"]


class PixelHistogram:
    """Accumulates 256-bin histograms over a set; the scores are those of `lidcam_bench.metrics`.

    Attributes:
        counts: int64 [2, 256], values at background and at object pixels.
    """

    def __init__(self) -> None:
        self.counts = np.zeros((2, 256), np.int64)

    def add(self, values: npt.NDArray[np.float32], mask: npt.NDArray[np.uint8]) -> None:
        """Add a picture.

        Args:
            values: map [H, W]; scaled to 0..255 by its minimum and maximum.
            mask: uint8 [H, W], 1 object, 0 background, 255 ignored.
        """
        self.counts += histogram(to_map8(values), mask)

    def pxap(self) -> float:
        """Pixel average precision in percent; see `lidcam_bench.metrics.PixelAveragePrecision`."""
        score = PixelAveragePrecision()
        score.update_counts(self.counts)
        return float(score.compute() or 0.0)

    def peak_iou(self) -> tuple[float, int]:
        """Best IoU of `value >= threshold` accumulated over the set, and its threshold."""
        curve = IoUCurve("dataset")
        curve.update_counts(self.counts)
        peak, threshold, _ = curve.compute()
        return float(peak), int(threshold)
