"""One row of an evaluation: the accumulators that one kind of map is scored with."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lidcam_bench.metrics import (
    Accumulator,
    BoxAccuracy,
    IoUCurve,
    LocalizationAccuracy,
    PixelAveragePrecision,
    SegmentationScores,
    histogram,
)
from lidcam_rt.errors import DataError

__all__ = ["GROUPS", "HEADLINE", "MEANING", "Board", "blob", "differences", "evaluator_box", "truth_boxes"]

GROUPS = ("track3", "wsol", "track1")

#: What each number says, and what it is not, for the report.
MEANING = {
    "track3": (
        "IoU of {map >= t} with the object's mask; intersections and unions are summed over the pixels of all "
        "pictures, so large pictures and objects count for more. The number is the peak over the 256 thresholds t.",
        "the score of a threshold chosen beforehand (the peak is chosen on these very pictures), a mean over "
        "pictures, or the output of the challenge server's own script",
    ),
    "track3_per_image": (
        "The same IoU, of each picture, then averaged over pictures, one threshold t for all.",
        "the mean of each picture's own best IoU (that would be higher)",
    ),
    "pxap": (
        "Area under the precision-recall curve of the pixels of all pictures together, 0 to 100.",
        "a score at a threshold, or a mean over pictures. A map of noise scores the share of object pixels, given "
        "beside it, not 50",
    ),
    "max_box_acc": (
        "Percent of pictures where the box of the map's largest contour has IoU >= 0.5 with a true box, at the one map "
        "threshold tau that is best for the set.",
        "Top-1 Loc: no classification is in it, and tau is chosen on these very pictures",
    ),
    "max_box_acc_v2": (
        "Mean of three such percentages, at IoU 0.3, 0.5 and 0.7, each at its own best tau; a picture is right if the "
        "box of any contour is.",
        "comparable with MaxBoxAcc (one right contour among many is enough, borders of holes too), or a detection "
        "measure",
    ),
    "localization": (
        "Percent of pictures that are right as the model answers them, with its own box and threshold. Cls: a true "
        "class is first (among the first five). Loc: class, and box with IoU >= 0.5. GT-known Loc: the box of the true "
        "class's map, whatever was predicted.",
        "MaxBoxAcc: no threshold is searched here",
    ),
    "track1": (
        "Label maps (a class or background for each pixel) against the true ones: one confusion matrix over all "
        "pictures, pixels of label 255 left out; IoU and accuracy per class, then the mean over the classes that are "
        "there, background too, in percent.",
        "a mean over pictures; the blob is given the true class and knows nothing of the picture",
    ),
}

#: Blobs of up to this many pixels are kept: data sets have a few sizes.
_KEPT = 1 << 19

#: The number of each metric that is held against the blob's.
HEADLINE = {
    "track3": "peak_iou", "track3_per_image": "peak_iou", "pxap": "pxap", "max_box_acc": "max_box_acc",
    "max_box_acc_v2": "max_box_acc", "track1": "mean_iou",
}  # fmt: skip


def truth_boxes(
    boxes: Sequence[Sequence[int]], mask: npt.NDArray[np.uint8] | None, size: tuple[int, int], name: str = "a picture"
) -> list[list[int]]:
    """Ground-truth boxes in the evaluator's convention; without boxes the one around the mask's foreground.

    Raises:
        DataError: a box reaches out of the picture.
    """
    for box in boxes:
        if box[2] > size[0] or box[3] > size[1]:
            raise DataError(
                f"{name}: box {tuple(box)} reaches out of the picture, which has {size[0]}x{size[1]} pixels. Boxes are "
                "x0, y0, x1, y1 in pixels of the upright picture, x1 and y1 one past the last pixel"
            )
    if not boxes and mask is not None and ((mask > 0) & (mask < 255)).any():
        ys, xs = np.nonzero((mask > 0) & (mask < 255))
        boxes = [(int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1)]
    return [evaluator_box(box, size) for box in boxes]


def evaluator_box(box: Sequence[int], size: tuple[int, int]) -> list[int]:
    """A half-open box as the public evaluator writes its own: x1 = min(x + w, W - 1), y1 likewise."""
    return [int(box[0]), int(box[1]), min(int(box[2]), size[0] - 1), min(int(box[3]), size[1] - 1)]


def blob(size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """The map without a model: a centred Gaussian, sigma a quarter of width and height, uint8 [height, width]."""
    return _blob(size) if size[0] * size[1] <= _KEPT else _blob.__wrapped__(size)


@functools.lru_cache(maxsize=16)
def _blob(size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    width, height = size
    x, y = (np.exp(-8 * ((np.arange(n) + 0.5) / n - 0.5) ** 2) for n in (width, height))
    out: npt.NDArray[np.uint8] = np.rint(255 * np.outer(y, x)).astype(np.uint8)
    out.setflags(write=False)
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
        self, key: str, map8: npt.NDArray[np.uint8], mask: npt.NDArray[np.uint8] | None, boxes: Any
    ) -> dict[str, Any]:
        """Count one map; returns the image's own numbers.

        Args:
            key: name of the image.
            map8: uint8 [height, width].
            mask: uint8 of that shape: 0 background, 255 ignored, else object; or None.
            boxes: ground truth of `truth_boxes`, may be empty.
        """
        row: dict[str, Any] = {}
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
        return row

    def update_labels(self, key: str, labels: npt.NDArray[np.uint8], truth: npt.NDArray[np.uint8]) -> float | None:
        """Count one label map (track1); returns the image's own mean IoU in percent."""
        metric = self.metrics["track1"]
        assert isinstance(metric, SegmentationScores)
        return metric.update(labels, truth, key=key)

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
            name: {"meaning": MEANING[name][0], "not": MEANING[name][1], **metric.to_dict()}
            for name, metric in self.metrics.items()
            if metric.images
        }


def differences(board: Board, base: Board, *, leave_out: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """How far a row's headline numbers are above another's, on the same images.

    The 95% interval is that of the paired bootstrap: copy i of both rows drew the same images.

    Returns:
        Per metric `score`, `difference` and `interval_95` (None without replicates); metrics that did not count the
        same number of images in both are left out, and those of `leave_out`.
    """
    out: dict[str, dict[str, Any]] = {}
    for name, score in HEADLINE.items():
        mine, theirs = board.metrics.get(name), base.metrics.get(name)
        if name in leave_out or mine is None or theirs is None or mine.images != theirs.images:
            continue
        a, b = mine.scores()[score], theirs.scores()[score]
        if a is None or b is None:
            continue
        pairs = [(x[score], y[score]) for x, y in zip(mine.replicate_scores(), theirs.replicate_scores(), strict=True)]
        drawn = [x - y for x, y in pairs if x is not None and y is not None]
        ends = [float(v) for v in np.percentile(drawn, [2.5, 97.5])] if len(drawn) > 1 and mine.images > 1 else None
        out[name] = {"score": score, "difference": a - b, "interval_95": ends}
    return out
