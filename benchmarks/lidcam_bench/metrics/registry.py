"""The metrics of an evaluation: the one place where a metric is registered.

A new metric is one file in this package: an `Accumulator`, and a tuple `METRICS` of entries that say how it is made,
what its numbers are called and mean, and what they are not. Its module is then named in `_MODULES` here. The
evaluation counts it, results.json holds it, and the report shows it; nothing else needs to change.
"""

from __future__ import annotations

from lidcam_bench.metrics import box_accuracy, iou_curve, localization, pxap, segmentation
from lidcam_bench.metrics.base import Metric

__all__ = ["GROUPS", "METRICS"]

_MODULES = (iou_curve, pxap, box_accuracy, localization, segmentation)

#: The metrics by name, in the order of the report.
METRICS: dict[str, Metric] = {metric.name: metric for module in _MODULES for metric in module.METRICS}
#: What `--metrics` takes.
GROUPS: tuple[str, ...] = tuple(dict.fromkeys(metric.group for metric in METRICS.values()))
