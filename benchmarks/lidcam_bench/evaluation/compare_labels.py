"""How far two ways to run one segmentation network differ: artifact against artifact or engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lidcam_bench.data.records import ImageSet, Record
from lidcam_bench.evaluation.compare import Comparison, Tolerance, beyond, compared, largest, require_same_classes
from lidcam_bench.evaluation.options import class_map
from lidcam_bench.evaluation.segmentation import labels_of_data
from lidcam_bench.metrics.segmentation import SegmentationScores
from lidcam_rt.errors import ImageError
from lidcam_rt.segmentation import SEGMENT_OUTPUTS, Segmenter

__all__ = ["compare_segmenters"]


def compare_segmenters(
    a: Segmenter,
    b: Segmenter,
    data: ImageSet,
    tolerance: Tolerance | None = None,
    *,
    limit: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Comparison:
    """Run both on every picture and compare logits, and label maps at the size of the picture. `a` is the reference.

    Args:
        a: the reference.
        b: what is compared with it.
        data: pictures. True label maps count where network and data share a class name.
        tolerance: how far they may differ.
        limit: the first pictures only.
        progress: called with (done, all).

    Returns:
        The comparison; mean IoUs are over one confusion matrix of all pictures, in `rows` over each picture's own.

    Raises:
        InputError: the two have different classes.
        DataError: no picture could be read by both, or a label map does not fit its picture.
    """
    require_same_classes(a, b)
    records = data.records[:limit]
    classes = class_map(a.class_names, data.class_names)
    table = None if classes is None else labels_of_data(classes, len(a.class_names))
    between = SegmentationScores(1 + len(a.class_names))
    against = [SegmentationScores(min(1 + len(data.class_names), 255)) for _ in range(2)]
    rows: list[dict[str, Any]] = []
    for number, record in enumerate(records):
        if progress:
            progress(number, len(records))
        try:
            (one, logits_a), (two, logits_b) = _segmented(a, record.image), _segmented(b, record.image)
        except ImageError as error:
            rows.append({"file": record.image.name, "error": str(error)})
            continue
        iou = between.update(two, one)
        assert iou is not None
        row = {
            "file": record.image.name,
            "logits_max_abs": largest(logits_a, logits_b),
            "label_iou": iou / 100,
            "flipped_percent": 100 * float(np.mean(one != two)),
        }
        row |= _against_truth(record, table, against, (one, two))
        rows.append(row)
    if progress:
        progress(len(records), len(records))
    good = compared(rows)
    alike = between.compute()["mean_iou"]
    assert alike is not None
    pixels = int(between.state["truth"].sum())
    total: dict[str, float | None] = {
        "pictures": float(len(good)),
        "unreadable": float(len(rows) - len(good)),
        "logits_max_abs": max(row["logits_max_abs"] for row in good),
        "label_iou": alike / 100,
        "label_iou_least": min(row["label_iou"] for row in good),
        "flipped_percent": 100 * (1 - int(between.state["hits"].sum()) / pixels),
    }
    first, second = (score.compute()["mean_iou"] for score in against)
    if first is not None and second is not None:
        total["delta track1 mean_iou"] = second - first
    return Comparison(rows, total, beyond(total, tolerance or Tolerance()))


def _segmented(segmenter: Segmenter, image: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    prepared = segmenter.pipeline.prepare(image, keep_image=False)
    outputs = segmenter.pipeline.run([prepared], outputs=SEGMENT_OUTPUTS)
    return segmenter.finish(prepared, outputs).labels, outputs["logits"][0]


def _against_truth(
    record: Record,
    table: npt.NDArray[np.uint8] | None,
    scores: list[SegmentationScores],
    labels: tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]],
) -> dict[str, float]:
    """Count both against the picture's true label map; the difference of its mean IoU, b minus a, in percent."""
    if table is None:
        return {}
    true = record.truth((labels[0].shape[1], labels[0].shape[0])).label_map()
    if true is None:
        return {}
    first, second = (score.update(table[found], true) for score, found in zip(scores, labels, strict=True))
    return {} if first is None or second is None else {"delta_mean_iou": second - first}
