"""Metrics of weakly supervised localization and segmentation, streaming and exactly mergeable.

`registry.METRICS` lists what an evaluation counts, and says where a new metric goes. The accumulators work alone too:

from lidcam_bench.metrics import BoxAccuracy, IoUCurve
curve, boxes = IoUCurve(), BoxAccuracy()
for result, mask, truth in ...:
    curve.update(result.map, mask)
    boxes.update(result.map, truth)
peak, threshold, _ = curve.compute()
"""

from lidcam_bench.metrics.base import Accumulator
from lidcam_bench.metrics.box_accuracy import BoxAccuracy, LevelBoxes, box_iou, evaluator_box, level_boxes
from lidcam_bench.metrics.histogram import histogram, to_map8
from lidcam_bench.metrics.iou_curve import IoUCurve
from lidcam_bench.metrics.localization import LocalizationAccuracy
from lidcam_bench.metrics.pxap import PixelAveragePrecision
from lidcam_bench.metrics.registry import METRICS
from lidcam_bench.metrics.sample import Answer, Sample
from lidcam_bench.metrics.segmentation import SegmentationScores

__all__ = [
    "METRICS",
    "Accumulator",
    "Answer",
    "BoxAccuracy",
    "IoUCurve",
    "LevelBoxes",
    "LocalizationAccuracy",
    "PixelAveragePrecision",
    "Sample",
    "SegmentationScores",
    "box_iou",
    "evaluator_box",
    "histogram",
    "level_boxes",
    "to_map8",
]
