"""IoU against the threshold: the LID Track 3 measure."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from lidcam_bench.metrics.base import Accumulator, Metric, Score
from lidcam_bench.metrics.checks import check_counts
from lidcam_bench.metrics.histogram import histogram
from lidcam_bench.metrics.sample import Sample
from lidcam_rt.errors import InputError

__all__ = ["METRICS", "IoUCurve"]

VARIANTS = ("dataset", "per_image", "fg_bg")
#: Per-image IoUs are summed in units of 2^-40, so that the sum of any split in any order is the same.
_UNIT = float(2**40)


class IoUCurve(Accumulator):
    """IoU of {map >= t} with the mask, for t = 0..255; its peak and the threshold of the peak.

    Variants:
        `dataset` (default; MsterDC/SPA2Net utils/val_mask): TP, FP, FN in pixels summed over all images, then
            IoU[t] = TP / (TP + FP + FN). Large images and objects count for more.
        `per_image`: IoU[t] of each image, then the mean over images, each rounded to 2^-40. An image
            whose union is empty at t counts 1.
        `fg_bg`: mean of the foreground's and the background's IoU, both from data-set sums.

    Conventions: `>=`, so t = 0 is the whole image; the map is uint8 at the original size; pixels of mask
    value 255 are left out; the peak threshold is the lowest that reaches the peak.

    What it is not: the score of any threshold one could have chosen beforehand. The peak is taken on the very
    images it is reported for, with one threshold for all. The challenge's page does not say which variant
    its server used; equality with its official script is not claimed.

    Args:
        variant: one of the above.
        replicates: bootstrap copies, see `Accumulator`.
    """

    def __init__(self, variant: str = "dataset", *, replicates: int = 0) -> None:
        super().__init__(replicates)
        if variant not in VARIANTS:
            raise InputError(f"variant must be one of {', '.join(VARIANTS)}, got {variant!r}")
        self.options = {"variant": variant}
        self.variant = variant
        if variant == "per_image":
            self._allocate(sum=(256,), number=(1,))
        else:
            self._allocate(counts=(2, 256))

    def update(
        self, map8: npt.NDArray[np.uint8], mask: npt.NDArray[Any], *, key: str | None = None
    ) -> npt.NDArray[np.float64]:
        """Count one image.

        Args:
            map8: uint8 [height, width] at the mask's size.
            mask: bool or uint8 [height, width]: 1 foreground, 0 background, 255 ignored.
            key: name of the image, for the bootstrap.

        Returns:
            This image's own IoU per threshold, float64 [256].

        Raises:
            InputError: map or mask are not like that.
        """
        return self.update_counts(histogram(map8, mask), key=key)

    def update_counts(self, counts: npt.NDArray[np.int64], *, key: str | None = None) -> npt.NDArray[np.float64]:
        """As `update`, from the counts of `histogram` (so that several metrics share one pass).

        Raises:
            InputError: they are not int64 [2, 256], or negative.
        """
        counts = check_counts(counts, (2, 256))
        curve = _foreground(counts)
        if self.variant == "per_image":
            self._add(key, sum=np.rint(curve * _UNIT).astype(np.int64), number=np.ones(1, np.int64))
        else:
            self._add(key, counts=counts)
        return curve

    def count(self, sample: Sample) -> dict[str, Any]:
        """See `Accumulator.count`."""
        if sample.counts is None:
            return {}
        curve = self.update_counts(sample.counts, key=sample.key)
        return {"peak_iou": float(curve.max()), "peak_threshold": int(np.argmax(curve))}

    def curve(self, state: dict[str, npt.NDArray[np.int64]] | None = None) -> npt.NDArray[np.float64]:
        """IoU per threshold, float64 [256], 0 to 1; NaN before the first image."""
        state = self.state if state is None else state
        if self.variant == "per_image":
            number = int(state["number"][0])
            return state["sum"] / _UNIT / number if number else np.full(256, np.nan)
        counts = state["counts"]
        if not counts.any():
            return np.full(256, np.nan)
        curve = _foreground(counts)
        if self.variant == "fg_bg":
            below = np.concatenate([[0], np.cumsum(counts[0])[:-1]])  # background at map < t
            wrong = np.concatenate([[0], np.cumsum(counts[1])[:-1]])  # foreground at map < t
            curve = (curve + _ratio(below, counts[0].sum() + wrong)) / 2
        return curve

    def compute(self) -> tuple[float, int, npt.NDArray[np.float64]]:
        """(peak IoU 0 to 1, peak threshold 0 to 255, curve float64 [256]).

        Raises:
            InputError: no image was counted.
        """
        curve = self.curve()
        if np.isnan(curve).any():
            raise InputError("no pixel was counted yet: call update first")
        peak = int(np.argmax(curve))
        return float(curve[peak]), peak, curve

    def _scores(self, state: dict[str, npt.NDArray[np.int64]]) -> dict[str, float | None]:
        curve = self.curve(state)
        if np.isnan(curve).any():
            return {"peak_iou": None, "peak_threshold": None}
        peak = int(np.argmax(curve))
        return {"peak_iou": float(curve[peak]), "peak_threshold": float(peak)}

    def to_dict(self) -> dict[str, Any]:
        """As the base class, with the curve."""
        return {**super().to_dict(), "curve": [None if np.isnan(v) else float(v) for v in self.curve()]}


def _ratio(part: npt.NDArray[np.int64], whole: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Part over whole, 1 where both are 0."""
    ratio: npt.NDArray[np.float64] = np.where(whole > 0, part / np.maximum(whole, 1), 1.0)
    return ratio


def _foreground(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    true = np.cumsum(counts[1][::-1])[::-1]
    false = np.cumsum(counts[0][::-1])[::-1]
    return _ratio(true, counts[1].sum() + false)


METRICS = (
    Metric(
        "track3",
        "track3",
        "Track 3 peak IoU",
        "IoU of {map >= t} with the object's mask; intersections and unions are summed over the pixels of all "
        "pictures, so large pictures and objects count for more. The number is the peak over the 256 thresholds t.",
        "the score of a threshold chosen beforehand (the peak is chosen on these very pictures), a mean over "
        "pictures, or the output of the challenge server's own script",
        lambda replicates, _: IoUCurve(replicates=replicates),
        (Score("peak_iou", "Track 3 peak IoU", 3), Score("peak_threshold", "at threshold", 0)),
        ("peak_iou",),
    ),
    Metric(
        "track3_per_image",
        "track3",
        "Peak IoU, mean of pictures",
        "The same IoU, of each picture, then averaged over pictures, one threshold t for all.",
        "the mean of each picture's own best IoU (that would be higher)",
        lambda replicates, _: IoUCurve("per_image", replicates=replicates),
        (Score("peak_iou", "Peak IoU, mean of pictures", 3), Score("peak_threshold", "at threshold", 0)),
        ("peak_iou",),
    ),
)
