"""Scores of a classifier over several labels per picture: average precision and F1 per class."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["LabelScores", "label_scores"]


@dataclass(frozen=True, eq=False)
class LabelScores:
    """Scores per class, float64 [K], in 0..1; NaN for a class that no picture is known to have.

    Attributes:
        average_precision: area under the precision-recall steps.
        f1: at probability 0.5.
        pictures: int64 [K], pictures that have the class.
    """

    average_precision: npt.NDArray[np.float64]
    f1: npt.NDArray[np.float64]
    pictures: npt.NDArray[np.int64]

    @property
    def mean(self) -> dict[str, float]:
        """`map` and `f1`, the means over the classes that occur; empty if none does."""
        if not self.pictures.any():
            return {}
        return {"map": float(np.nanmean(self.average_precision)), "f1": float(np.nanmean(self.f1))}

    def to_csv(self, class_names: tuple[str, ...]) -> bytes:
        """A row per class."""
        text = io.StringIO(newline="")
        table = csv.writer(text)
        table.writerow(("class", "pictures", "average_precision", "f1"))
        for name, count, ap, f1 in zip(class_names, self.pictures, self.average_precision, self.f1, strict=True):
            table.writerow((name, count, f"{ap:.4f}", f"{f1:.4f}"))
        return text.getvalue().encode("utf-8", "surrogateescape")


def label_scores(logits: npt.NDArray[np.float32], target: npt.NDArray[np.float32]) -> LabelScores:
    """Score the logits of a set.

    Average precision = sum over thresholds of (recall step) * precision, ties taken together, as in scikit-learn.

    Args:
        logits: float [N, K].
        target: [N, K]: 1 present, 0 absent, negative unknown (left out of that class).
    """
    classes = target.shape[1]
    ap, f1 = np.full(classes, np.nan), np.full(classes, np.nan)
    for k in range(classes):
        known = target[:, k] >= 0
        true, value = target[known, k] > 0, logits[known, k]
        if not true.any():
            continue
        order = np.argsort(-value, kind="stable")
        hits = np.cumsum(true[order])
        last = np.append(np.diff(value[order]) != 0, True)  # the last picture of each value
        precision, recall = (hits / np.arange(1, hits.size + 1))[last], hits[last] / hits[-1]
        ap[k] = float(np.sum(np.diff(recall, prepend=0.0) * precision))
        chosen = value > 0
        f1[k] = 2 * np.count_nonzero(chosen & true) / (np.count_nonzero(chosen) + np.count_nonzero(true))
    return LabelScores(ap, f1, np.count_nonzero(target > 0, axis=0).astype(np.int64))
