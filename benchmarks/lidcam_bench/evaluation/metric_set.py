"""The accumulators of one row of an evaluation: all metrics of one kind of map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lidcam_bench.metrics.base import Accumulator
from lidcam_bench.metrics.registry import METRICS
from lidcam_bench.metrics.sample import Sample

__all__ = ["MetricSet", "differences"]


class MetricSet:
    """The metrics of one row.

    Args:
        groups: of `lidcam_bench.metrics.registry.GROUPS`.
        replicates: bootstrap copies.
        classes: number of classes with the background, for track1.

    Attributes:
        metrics: accumulators by name, in the order of the report.
    """

    def __init__(self, groups: Sequence[str], replicates: int, classes: int) -> None:
        self.metrics: dict[str, Accumulator] = {
            name: metric.make(replicates, classes) for name, metric in METRICS.items() if metric.group in groups
        }

    def count(self, sample: Sample) -> dict[str, Any]:
        """Count a picture in every metric whose inputs it has; returns the picture's own numbers by name."""
        row: dict[str, Any] = {}
        for metric in self.metrics.values():
            row |= metric.count(sample)
        return row

    def arrays(self) -> dict[str, npt.NDArray[np.int64]]:
        """The state of all metrics."""
        return {f"{name}/{k}": v for name, metric in self.metrics.items() for k, v in metric.arrays().items()}

    def restore(self, arrays: dict[str, npt.NDArray[np.int64]]) -> None:
        """Restore what `arrays` returned."""
        for name, metric in self.metrics.items():
            metric.restore({k.split("/", 1)[1]: v for k, v in arrays.items() if k.split("/", 1)[0] == name})

    def merge(self, other: MetricSet) -> None:
        """Add the images of another set of the same metrics; exact."""
        for name, metric in self.metrics.items():
            metric.merge(other.metrics[name])

    def to_dict(self) -> dict[str, Any]:
        """The metrics that counted a picture, with what they mean."""
        return {
            name: {"meaning": METRICS[name].meaning, "not": METRICS[name].is_not, **metric.to_dict()}
            for name, metric in self.metrics.items()
            if metric.images
        }


def differences(row: MetricSet, base: MetricSet, *, leave_out: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """How far a row's headline numbers are above another's, on the same images.

    The 95% interval is that of the paired bootstrap: copy i of both rows drew the same images.

    Returns:
        Per metric `score`, `difference` and `interval_95` (None without replicates). Left out are the metrics of
        `leave_out`, and those that did not count the same number of images in both.
    """
    result: dict[str, dict[str, Any]] = {}
    for name, metric in METRICS.items():
        mine, theirs = row.metrics.get(name), base.metrics.get(name)
        if not metric.against_blob or name in leave_out or mine is None or theirs is None:
            continue
        score = metric.headline
        a, b = mine.scores()[score], theirs.scores()[score]
        if mine.images != theirs.images or a is None or b is None:
            continue
        pairs = [(x[score], y[score]) for x, y in zip(mine.replicate_scores(), theirs.replicate_scores(), strict=True)]
        drawn = [x - y for x, y in pairs if x is not None and y is not None]
        ends = [float(v) for v in np.percentile(drawn, [2.5, 97.5])] if len(drawn) > 1 and mine.images > 1 else None
        result[name] = {"score": score, "difference": a - b, "interval_95": ends}
    return result
