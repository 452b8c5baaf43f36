"""Pixel average precision (PxAP)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from lidcam_rt.metrics.base import Accumulator, histogram

__all__ = ["PixelAveragePrecision"]


class PixelAveragePrecision(Accumulator):
    """PxAP: area under the precision-recall curve of all pixels of the set, 0 to 100.

    Source: Choe et al., Evaluating Weakly Supervised Object Localization Methods Right, CVPR 2020, and its
    evaluator clovaai/wsolevaluation. PxAP = 100 sum_i precision[i] (recall[i] - recall[i-1]), steps and
    not trapezoids, thresholds from high to low, pixels of all images in one pool, map >= threshold. Here
    the thresholds are the 256 values of a uint8 map (the public evaluator: 1000 bins of the float map),
    and the first step, from recall 0, is counted; the public code starts one (always empty) bin above,
    which is the same. On uint8 maps it equals scikit-learn's average_precision_score.

    Ignored pixels (mask 255) are the ignore region without the foreground.

    What it is not: a mean over images, or a score at a threshold. Base rate is the share of foreground
    pixels: a random map scores that, not 50.

    Args:
        replicates: bootstrap copies, see `Accumulator`.
    """

    def __init__(self, *, replicates: int = 0) -> None:
        super().__init__(replicates)
        self.options = {}
        self._allocate(counts=(2, 256))

    def update(
        self, map8: npt.NDArray[np.uint8], mask: npt.NDArray[Any], *, key: str | None = None
    ) -> float | None:
        """Count one image; arguments and errors as in `IoUCurve.update`.

        Returns:
            The PxAP of this image alone; None where its mask has no foreground.
        """
        return self.update_counts(histogram(map8, mask), key=key)

    def update_counts(self, counts: npt.NDArray[np.int64], *, key: str | None = None) -> float | None:
        """As `update`, from the counts of `histogram`."""
        self._add(key, counts=counts)
        return _average_precision(counts)

    def compute(self) -> float | None:
        """PxAP, 0 to 100; None while no foreground pixel was counted."""
        return _average_precision(self.state["counts"])

    def _scores(self, state: dict[str, npt.NDArray[np.int64]]) -> dict[str, float | None]:
        counts = state["counts"]
        total = int(counts.sum())
        return {
            "pxap": _average_precision(counts),
            "foreground_percent": 100 * int(counts[1].sum()) / total if total else None,
        }


def _average_precision(counts: npt.NDArray[np.int64]) -> float | None:
    true = np.cumsum(counts[1][::-1])
    if true[-1] == 0:
        return None
    predicted = true + np.cumsum(counts[0][::-1])
    precision = true / np.maximum(predicted, 1)
    return float(100 * np.sum(precision * counts[1][::-1]) / true[-1])
