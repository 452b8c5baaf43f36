"""Segmentation scores from a confusion matrix: the LID Track 1 measures."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from lidcam_bench.metrics.base import Accumulator, Metric, Score
from lidcam_bench.metrics.checks import check_whole
from lidcam_bench.metrics.sample import Sample
from lidcam_rt.errors import InputError

__all__ = ["METRICS", "SegmentationScores"]

IGNORED = 255


class SegmentationScores(Accumulator):
    """Mean IoU, mean accuracy, pixel accuracy and per-class IoU of label maps, in percent.

    Source: LID Track 1 (201 classes with background); Long et al., CVPR 2015 for the definitions. One
    confusion matrix over the set, pixels of true label 255 left out: IoU_c = n_cc / (t_c + p_c - n_cc),
    accuracy_c = n_cc / t_c, pixel accuracy = sum n_cc / sum t_c. The means leave out classes that
    occur nowhere (IoU: neither in truth nor prediction; accuracy: not in the truth).

    What it is not: a mean of per-image IoUs. A predicted 255 is refused, not ignored.

    Args:
        classes: number of classes with the background, 1 to 255.
        replicates: bootstrap copies (of the per-class sums), see `Accumulator`.
    """

    def __init__(self, classes: int, *, replicates: int = 0) -> None:
        super().__init__(replicates)
        classes = self.classes = check_whole("classes", classes, 1, 255)
        self.options = {"classes": classes}
        self.confusion = np.zeros((classes, classes), np.int64)
        self._allocate(hits=(classes,), truth=(classes,), predicted=(classes,))

    def update(self, predicted: npt.NDArray[Any], truth: npt.NDArray[Any], *, key: str | None = None) -> float | None:
        """Count one image.

        Args:
            predicted: uint8 [height, width] class indices.
            truth: uint8 [height, width] class indices, 255 ignored.
            key: name of the image, for the bootstrap.

        Returns:
            Mean IoU over the classes of this image, in percent; None where all is ignored.

        Raises:
            InputError: shapes or types differ, or an index is out of range.
        """
        for name, array in (("prediction", predicted), ("truth", truth)):
            if not isinstance(array, np.ndarray) or array.dtype != np.uint8 or array.ndim != 2:
                raise InputError(f"a label map is a uint8 array [height, width]; the {name} is not")
        if predicted.shape != truth.shape:
            raise InputError(f"label maps differ in (height, width): {predicted.shape} and {truth.shape}")
        pairs = np.bincount(truth.ravel().astype(np.intp) * 256 + predicted.ravel(), minlength=65536)
        table = pairs.reshape(256, 256)
        if table[:, self.classes :].any() or table[self.classes : IGNORED].any():
            raise InputError(f"a label map holds an index outside 0 to {self.classes - 1} (255 only in the truth)")
        confusion = table[: self.classes, : self.classes].astype(np.int64)
        sums = {"hits": np.diag(confusion).copy(), "truth": confusion.sum(1), "predicted": confusion.sum(0)}
        self._add(key, **sums)
        self.confusion += confusion
        return self._scores(sums)["mean_iou"]

    def count(self, sample: Sample) -> dict[str, Any]:
        """See `Accumulator.count`."""
        if sample.labels is None or sample.true_labels is None:
            return {}
        return {"image_mean_iou": self.update(sample.labels, sample.true_labels, key=sample.key)}

    def merge(self, other: SegmentationScores) -> SegmentationScores:
        """As the base class."""
        super().merge(other)
        self.confusion += other.confusion
        return self

    def arrays(self) -> dict[str, npt.NDArray[np.int64]]:
        """As the base class, with the confusion matrix."""
        return {**super().arrays(), "confusion": self.confusion}

    def restore(self, arrays: dict[str, npt.NDArray[np.int64]]) -> None:
        """As the base class."""
        super().restore(arrays)
        self.confusion[...] = arrays["confusion"]

    def compute(self) -> dict[str, float | None]:
        """`mean_iou`, `mean_accuracy` and `pixel_accuracy` in percent; None before the first counted pixel."""
        return self.scores()

    def per_class(self) -> npt.NDArray[np.float64]:
        """IoU of each class in percent, float64 [classes]; NaN for those that occur nowhere."""
        return _iou(self.state)

    def _scores(self, state: dict[str, npt.NDArray[np.int64]]) -> dict[str, float | None]:
        total = int(state["truth"].sum())
        if not total:
            return dict.fromkeys(("mean_iou", "mean_accuracy", "pixel_accuracy"))
        present = state["truth"] > 0
        return {
            "mean_iou": float(np.nanmean(_iou(state))),
            "mean_accuracy": float(100 * (state["hits"][present] / state["truth"][present]).mean()),
            "pixel_accuracy": 100 * int(state["hits"].sum()) / total,
        }

    def to_dict(self) -> dict[str, Any]:
        """As the base class, with the IoU per class (None: occurs nowhere)."""
        return {
            **super().to_dict(),
            "per_class_iou": [None if np.isnan(v) else float(v) for v in self.per_class()],
        }


def _iou(state: dict[str, npt.NDArray[np.int64]]) -> npt.NDArray[np.float64]:
    union = state["truth"] + state["predicted"] - state["hits"]
    iou: npt.NDArray[np.float64] = np.where(union > 0, 100 * state["hits"] / np.maximum(union, 1), np.nan)
    return iou


METRICS = (
    Metric(
        "track1",
        "track1",
        "Track 1 label maps",
        "Label maps (a class or background for each pixel) against the true ones: one confusion matrix over all "
        "pictures, pixels of label 255 left out; IoU and accuracy per class, then the mean over the classes that "
        "occur, background included, in percent.",
        "a mean over pictures; the blob is given the true class and knows nothing of the picture",
        lambda replicates, classes: SegmentationScores(classes, replicates=replicates),
        (
            Score("mean_iou", "mean IoU, %"),
            Score("mean_accuracy", "mean accuracy, %"),
            Score("pixel_accuracy", "pixel accuracy, %"),
        ),
        ("mean_iou",),
    ),
)
