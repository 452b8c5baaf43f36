"""Scores of a part of a data set, per picture, so that two settings can be compared picture by picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from lidcam_bench.data import ImageSet, Record, Truth
from lidcam_bench.evaluation.options import NO_CLASS, class_map
from lidcam_bench.metrics import PixelAveragePrecision, box_iou, evaluator_box, histogram

from lidcam_export.tuning.settings import METRICS, MetricName
from lidcam_rt.errors import DataError
from lidcam_rt.results import Box

__all__ = ["Part", "Scores", "average_precision", "difference_interval", "open_part", "score_picture"]

_REPLICATES = 1000


@dataclass(frozen=True)
class Part:
    """Pictures with their ground truth.

    Attributes:
        images: the pictures.
        labels: per picture the model's class whose map is scored; None: the predicted one, where the data's class is
            not one of the model's.
    """

    images: ImageSet
    labels: tuple[int | None, ...]

    def truth(self, index: int, size: tuple[int, int] | None = None) -> tuple[Truth, npt.NDArray[np.uint8]]:
        """The ground truth of a picture, and its mask uint8 [H, W]: 1 object, 0 background, 255 ignored.

        Raises:
            DataError: there is no mask, or no object in it.
        """
        record = self.images.records[index]
        truth = record.truth(size)
        mask = truth.object_mask(_own(record))
        if mask is None or not (mask == 1).any():
            raise DataError(f"{record.image} has no mask that shows an object: settings are chosen by masks")
        return truth, mask


def _own(record: Record) -> int | None:
    """The class whose objects are the truth: of a picture with several classes, the first."""
    return record.labels[0] if len(record.labels) > 1 else None


def open_part(images: ImageSet, class_names: tuple[str, ...], *, labels_input: bool) -> Part:
    """The pictures with the model's classes.

    Raises:
        DataError: too few pictures, or one has no mask.
    """
    if len(images) < 2:
        raise DataError(f"{images.name}: {len(images)} picture is too few to choose settings on")
    for record in images.records:
        if record.mask is None:
            raise DataError(f"{record.image} has no mask: settings are chosen by masks")
    classes = class_map(class_names, images.class_names) if labels_input else None
    labels = []
    for record in images.records:
        own = record.labels[0] if record.labels and classes is not None else None
        label = NO_CLASS if own is None or classes is None else classes[own]
        labels.append(None if label == NO_CLASS else label)
    return Part(images, tuple(labels))


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of pictures, in order.

    Attributes:
        iou: float64 [n], IoU of the mask with the object.
        hit: bool [n], the box has IoU >= 0.5 with an object's.
        counts: int64 [n, 2, 256], `histogram` of the map at the picture's size.
    """

    iou: npt.NDArray[np.float64]
    hit: npt.NDArray[np.bool_]
    counts: npt.NDArray[np.int64]

    @classmethod
    def of(cls, rows: list[dict[str, Any]]) -> Scores:
        """From what `score_picture` returned."""
        return cls(
            np.array([row["iou"] for row in rows], np.float64),
            np.array([row["hit"] for row in rows], np.bool_),
            np.array([row["counts"] for row in rows], np.int64),
        )

    def value(self, metric: MetricName) -> float:
        """A metric over all pictures; shares as 0 to 1, PxAP as percent."""
        if metric == "pxap":
            return average_precision(self.counts.sum(0))
        return float((self.iou if metric == "mask-iou" else self.hit).mean())

    def to_dict(self) -> dict[str, float]:
        """All metrics."""
        return {metric: self.value(metric) for metric in METRICS}


def average_precision(counts: npt.NDArray[np.int64]) -> float:
    """PxAP of pooled counts int64 [2, 256], percent."""
    metric = PixelAveragePrecision()
    metric.update_counts(counts)
    return float(metric.compute() or 0.0)


def score_picture(
    truth: Truth,
    true_mask: npt.NDArray[np.uint8],
    label: int | None,
    mask: npt.NDArray[np.bool_],
    map8: npt.NDArray[np.uint8],
    box: Box | None,
) -> dict[str, Any]:
    """The scores of a localization at the picture's size: iou, hit and counts, as JSON values."""
    wanted, counted = true_mask == 1, true_mask != 255
    iou = float((mask & wanted).sum() / max(int(((mask | wanted) & counted).sum()), 1))
    return {"iou": iou, "hit": hits(truth, label, box), "counts": histogram(map8, true_mask).tolist()}


def hits(truth: Truth, label: int | None, box: Box | None) -> bool:
    """Whether a box has IoU >= 0.5 with an object's, in the public evaluator's convention."""
    boxes = [evaluator_box(b, truth.size) for b in truth.object_boxes(label)]
    return box is not None and bool(boxes) and bool((box_iou([evaluator_box(box, truth.size)], boxes) >= 0.5).any())


def difference_interval(before: Scores, after: Scores, metric: MetricName) -> tuple[float, float]:
    """95% interval of the metric's difference: bootstrap over pictures, both scored on the same copies of them."""
    rng = np.random.default_rng(0)
    n = len(before.iou)
    weights = rng.multinomial(n, np.full(n, 1 / n), _REPLICATES)
    if metric == "pxap":
        copies = weights[:200]
        pairs = [
            tuple(average_precision(np.tensordot(row, scores.counts, 1)) for scores in (before, after))
            for row in copies
        ]
        differences = np.array([b - a for a, b in pairs])
    else:
        name = "iou" if metric == "mask-iou" else "hit"
        change = getattr(after, name).astype(np.float64) - getattr(before, name).astype(np.float64)
        differences = weights @ change / n
    low, high = np.percentile(differences, (2.5, 97.5))
    return float(low), float(high)
