"""Metrics of weakly supervised localization and segmentation, streaming and exactly mergeable.

from lidcam_rt.metrics import BoxAccuracy, IoUCurve
curve, boxes = IoUCurve(), BoxAccuracy()
for result, mask, truth in ...:
    curve.update(result.map, mask)
    boxes.update(result.map, truth)
peak, threshold, _ = curve.compute()
"""

from lidcam_rt.metrics.base import Accumulator, histogram, to_map8
from lidcam_rt.metrics.box_accuracy import BoxAccuracy, LevelBoxes, box_iou, level_boxes
from lidcam_rt.metrics.iou_curve import IoUCurve
from lidcam_rt.metrics.localization import LocalizationAccuracy
from lidcam_rt.metrics.pxap import PixelAveragePrecision
from lidcam_rt.metrics.segmentation import SegmentationScores

__all__ = [
    "Accumulator",
    "BoxAccuracy",
    "IoUCurve",
    "LevelBoxes",
    "LocalizationAccuracy",
    "PixelAveragePrecision",
    "SegmentationScores",
    "box_iou",
    "histogram",
    "level_boxes",
    "to_map8",
]
