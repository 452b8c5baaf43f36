"""One row of an evaluation: the accumulators that one kind of map is scored with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lidcam_rt.errors import DataError
from lidcam_rt.metrics import (
    Accumulator,
    BoxAccuracy,
    IoUCurve,
    LocalizationAccuracy,
    PixelAveragePrecision,
    SegmentationScores,
    histogram,
)

__all__ = ["GROUPS", "MEANING", "Board", "blob", "evaluator_box", "truth_boxes"]

GROUPS = ("track3", "wsol", "track1")

# ruff: noqa: E501
#: What each number says, for the report.
MEANING = {
    "track3": "IoU of {map >= t} with the mask, pixels summed over all images; the peak over the 256 thresholds, chosen "
    "on these images. Higher is better, 1 is perfect. Not the challenge server's own script.",
    "track3_per_image": "The same IoU averaged over images instead of summed over pixels.",
    "pxap": "Area under the pixel precision-recall curve of all images together, 0 to 100. A random map scores the "
    "share of foreground pixels, given beside it.",
    "max_box_acc": "Percent of images whose box (largest contour) has IoU >= 0.5 with a true box, at the best map "
    "threshold of the set. No classification in it.",
    "max_box_acc_v2": "As MaxBoxAcc, mean over IoU 0.3, 0.5 and 0.7, any contour counts (borders of holes too). "
    "Lenient: one right contour among many is enough.",
    "localization": "Percent right at the model's own box and threshold: class alone (cls), or class and box with "
    "IoU >= 0.5 (loc).",
    "track1": "Label map (one class over its mask, else background) against the true label map, one confusion matrix "
    "over the set, percent.",
}


def truth_boxes(
    boxes: Sequence[Sequence[int]], mask: npt.NDArray[np.uint8] | None, size: tuple[int, int]
) -> list[list[int]]:
    """Ground-truth boxes in the evaluator's convention; without boxes the one around the mask's foreground."""
    if not boxes and mask is not None and ((mask > 0) & (mask < 255)).any():
        ys, xs = np.nonzero((mask > 0) & (mask < 255))
        boxes = [(int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1)]
    return [evaluator_box(box, size) for box in boxes]


def evaluator_box(box: Sequence[int], size: tuple[int, int]) -> list[int]:
    """A half-open box as the public evaluator writes its own: x1 = min(x + w, W - 1), y1 likewise."""
    return [int(box[0]), int(box[1]), min(int(box[2]), size[0] - 1), min(int(box[3]), size[1] - 1)]


def blob(size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """The map without a model: a centred Gaussian, sigma a quarter of width and height, uint8 [height, width]."""
    width, height = size
    x = (np.arange(width) + 0.5) / width - 0.5
    y = (np.arange(height) + 0.5) / height - 0.5
    out: npt.NDArray[np.uint8] = np.rint(255 * np.exp(-8 * (y[:, None] ** 2 + x[None] ** 2))).astype(np.uint8)
    return out


class Board:
    """The accumulators of one row.

    Args:
        groups: of `GROUPS`.
        replicates: bootstrap copies.
        classes: classes with background, for track1.
    """

    def __init__(self, groups: Sequence[str], replicates: int, classes: int) -> None:
        self.groups = tuple(groups)
        self.metrics: dict[str, Accumulator] = {}
        if "track3" in groups:
            self.metrics["track3"] = IoUCurve(replicates=replicates)
            self.metrics["track3_per_image"] = IoUCurve("per_image", replicates=replicates)
        if "wsol" in groups:
            self.metrics["pxap"] = PixelAveragePrecision(replicates=replicates)
            self.metrics["max_box_acc"] = BoxAccuracy((0.5,), "largest", replicates=replicates)
            self.metrics["max_box_acc_v2"] = BoxAccuracy(replicates=replicates)
            self.metrics["localization"] = LocalizationAccuracy(replicates=replicates)
        if "track1" in groups:
            self.metrics["track1"] = SegmentationScores(classes, replicates=replicates)

    def update(
        self,
        key: str,
        map8: npt.NDArray[np.uint8],
        mask: npt.NDArray[np.uint8] | None,
        boxes: Any,
        labels: npt.NDArray[np.uint8] | None,
    ) -> dict[str, Any]:
        """Count one map; returns the image's own numbers."""
        row: dict[str, Any] = {}
        if mask is not None and mask.shape != map8.shape:
            raise DataError(
                f"{key}: picture has (height, width) {map8.shape}, its mask {mask.shape}: they must be equal"
            )
        if mask is not None and {"track3", "wsol"} & set(self.groups):
            counts = histogram(map8, np.where((mask > 0) & (mask < 255), 1, mask).astype(np.uint8))
            for name in ("track3", "track3_per_image"):
                if isinstance(metric := self.metrics.get(name), IoUCurve):
                    own = metric.update_counts(counts, key=key)
                    row["peak_iou"], row["peak_threshold"] = float(own.max()), int(np.argmax(own))
            if isinstance(metric := self.metrics.get("pxap"), PixelAveragePrecision):
                row["pxap"] = metric.update_counts(counts, key=key)
        first, second = self.metrics.get("max_box_acc"), self.metrics.get("max_box_acc_v2")
        if boxes and isinstance(first, BoxAccuracy) and isinstance(second, BoxAccuracy):
            found = first.find(map8, boxes)
            row["best_box_iou"] = float(first.update_found(found, key=key).max())
            second.update_found(found, key=key)
        metric = self.metrics.get("track1")
        if labels is not None and mask is not None and isinstance(metric, SegmentationScores):
            row["image_mean_iou"] = metric.update(labels, mask, key=key)
        return row

    def arrays(self) -> dict[str, npt.NDArray[np.int64]]:
        """The state of all metrics."""
        return {f"{name}/{k}": v for name, metric in self.metrics.items() for k, v in metric.arrays().items()}

    def restore(self, arrays: dict[str, npt.NDArray[np.int64]]) -> None:
        """Take back what `arrays` gave."""
        for name, metric in self.metrics.items():
            own = {k.split("/", 1)[1]: v for k, v in arrays.items() if k.split("/", 1)[0] == name}
            metric.restore(own)

    def to_dict(self) -> dict[str, Any]:
        """Metrics that counted an image, with what they mean."""
        return {
            name: {"meaning": MEANING[name], **metric.to_dict()}
            for name, metric in self.metrics.items()
            if metric.images
        }
