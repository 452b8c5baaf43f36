"""Pixel average precision (PxAP)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from lidcam_bench.metrics.base import Accumulator, Metric, Score
from lidcam_bench.metrics.checks import check_counts, check_mask, check_whole
from lidcam_bench.metrics.histogram import histogram
from lidcam_bench.metrics.sample import Sample
from lidcam_rt.errors import InputError

__all__ = ["METRICS", "PixelAveragePrecision"]

_LEVELS = 256


class PixelAveragePrecision(Accumulator):
    """PxAP: area under the precision-recall curve of all pixels of the set, 0 to 100.

    Source: Choe et al., Evaluating Weakly Supervised Object Localization Methods Right, CVPR 2020, and its
    evaluator clovaai/wsolevaluation. PxAP = 100 sum_i precision[i] (recall[i] - recall[i-1]), steps and
    not trapezoids, thresholds from high to low, pixels of all images in one pool, map >= threshold. The
    first step, from recall 0, is counted; the public code starts one (always empty) bin above, which is
    the same. On uint8 maps it equals scikit-learn's average_precision_score, on float maps it
    approaches that with finer bins.

    Ignored pixels (mask 255) are the ignore region without the foreground.

    What it is not: a mean over images, or a score at a threshold. Base rate is the share of foreground
    pixels: a random map scores that, not 50.

    Args:
        bins: None: maps are uint8 and each of their 256 values is a threshold. A number: maps are float in
            0..1 and the value v falls into bin floor(v * bins), with 1.0 in a bin of its own; 1000 is the
            public evaluator's choice.
        replicates: bootstrap copies, see `Accumulator`.
    """

    def __init__(self, bins: int | None = None, *, replicates: int = 0) -> None:
        super().__init__(replicates)
        self.bins = None if bins is None else check_whole("bins", bins, 1, 2**20)
        self.options = {"bins": self.bins}
        self._allocate(counts=(2, _LEVELS if self.bins is None else self.bins + 1))

    def update(self, scores: npt.NDArray[Any], mask: npt.NDArray[Any], *, key: str | None = None) -> float | None:
        """Count one image.

        Args:
            scores: uint8 [height, width], or with `bins` float [height, width] in 0..1.
            mask: bool or uint8 [height, width]: 1 foreground, 0 background, 255 ignored.
            key: name of the image, for the bootstrap.

        Returns:
            The PxAP of this image alone; None where its mask has no foreground.

        Raises:
            InputError: map or mask are not like that, or the map holds NaN.
        """
        counts = histogram(scores, mask) if self.bins is None else _float_histogram(scores, mask, self.bins)
        return self.update_counts(counts, key=key)

    def update_counts(self, counts: npt.NDArray[np.int64], *, key: str | None = None) -> float | None:
        """As `update`, from the counts of `histogram`: int64 [2, 256] (with `bins`: [2, bins + 1]).

        Raises:
            InputError: they are not of that form, or negative.
        """
        counts = check_counts(counts, self.state["counts"].shape)
        self._add(key, counts=counts)
        return _average_precision(counts)

    def count(self, sample: Sample) -> dict[str, Any]:
        """See `Accumulator.count`."""
        return {} if sample.counts is None else {"pxap": self.update_counts(sample.counts, key=sample.key)}

    def compute(self) -> float | None:
        """PxAP, 0 to 100; None while no foreground pixel was counted."""
        return _average_precision(self.state["counts"])

    def curve(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Precision and recall of {map >= t}, float64 [thresholds], t ascending, 0 to 1.

        Precision is 1 where nothing is above t; recall is NaN while no foreground pixel was counted.
        """
        true, predicted = (np.cumsum(row[::-1])[::-1] for row in (self.state["counts"][1], self.state["counts"].sum(0)))
        precision = np.where(predicted > 0, true / np.maximum(predicted, 1), 1.0)
        return precision, true / true[0] if true[0] else np.full(true.shape, np.nan)

    def _scores(self, state: dict[str, npt.NDArray[np.int64]]) -> dict[str, float | None]:
        counts = state["counts"]
        total = int(counts.sum())
        return {
            "pxap": _average_precision(counts),
            "foreground_percent": 100 * int(counts[1].sum()) / total if total else None,
        }

    def to_dict(self) -> dict[str, Any]:
        """As the base class, with precision and recall per threshold."""
        precision, recall = self.curve()
        counted = not np.isnan(recall).any()
        return {
            **super().to_dict(),
            "precision": precision.tolist() if counted else None,
            "recall": recall.tolist() if counted else None,
        }


def _average_precision(counts: npt.NDArray[np.int64]) -> float | None:
    true = np.cumsum(counts[1][::-1])
    if true[-1] == 0:
        return None
    predicted = true + np.cumsum(counts[0][::-1])
    precision = true / np.maximum(predicted, 1)
    return float(100 * np.sum(precision * counts[1][::-1]) / true[-1])


def _float_histogram(scores: npt.NDArray[Any], mask: npt.NDArray[Any], bins: int) -> npt.NDArray[np.int64]:
    if not isinstance(scores, np.ndarray) or scores.dtype.kind != "f" or scores.ndim != 2 or scores.size == 0:
        kind = f"{scores.dtype} {scores.shape}" if isinstance(scores, np.ndarray) else type(scores).__name__
        raise InputError(f"with bins a map is a float array [height, width], got {kind}")
    if not (scores.min() >= 0 and scores.max() <= 1):  # false for NaN too
        raise InputError("with bins a map must be in 0..1, without NaN: normalise it, for example by min and max")
    checked = check_mask(mask, scores.shape)
    if not np.isin(checked, (0, 1, 255)).all():
        raise InputError("a mask holds 1 foreground, 0 background, 255 ignored, and nothing else")
    index = np.minimum(scores.astype(np.float64) * bins, bins).astype(np.intp)
    return np.stack([np.bincount(index[checked == row], minlength=bins + 1) for row in (0, 1)]).astype(np.int64)


METRICS = (
    Metric(
        "pxap",
        "wsol",
        "PxAP",
        "Area under the precision-recall curve of the pixels of all pictures together, 0 to 100.",
        "a score at a threshold, or a mean over pictures. A map of noise scores the share of object pixels, given "
        "beside it, not 50",
        lambda replicates, _: PixelAveragePrecision(replicates=replicates),
        (Score("pxap", "PxAP"), Score("foreground_percent", "object pixels, %")),
        ("pxap",),
    ),
)
