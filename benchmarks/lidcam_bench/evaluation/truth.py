"""Whether a data set has a ground truth to score against."""

from __future__ import annotations

from lidcam_bench.data.records import ImageSet
from lidcam_bench.evaluation.metric_set import MetricSet
from lidcam_bench.evaluation.options import EvalOptions
from lidcam_bench.metrics import IoUCurve, PixelAveragePrecision
from lidcam_rt.errors import DataError

__all__ = ["require_object", "require_truth"]


def require_truth(data: ImageSet, options: EvalOptions, classes: tuple[int, ...] | None) -> None:
    """Check, before anything is run, that the data set has what one of the metrics needs.

    Args:
        data: the data set.
        options: of the run.
        classes: of `class_map`.

    Raises:
        DataError: it has nothing to score against.
    """
    records = data.records[: options.limit]
    masks, boxes = (any(getattr(record, name) for record in records) for name in ("mask", "boxes"))
    labels = classes is not None and any(record.labels for record in records)
    if masks or ("wsol" in options.metrics and (boxes or labels)):
        return
    has = ", ".join(name for name, there in (("boxes", boxes), ("labels of the model's classes", labels)) if there)
    raise DataError(
        f"{data.name}: there is nothing to score: {', '.join(options.metrics)} needs masks or label maps"
        f"{', boxes, or labels of classes that the model has' if 'wsol' in options.metrics else ''}; none of its "
        f"{len(records)} pictures has {f'one, only {has}' if has else 'any'}"
    )


def require_object(data: ImageSet, row: MetricSet) -> None:
    """Check, when all is counted, that the masks showed an object.

    Args:
        data: the data set.
        row: what was counted.

    Raises:
        DataError: masks were counted, and none had a pixel of an object.
    """
    for metric in row.metrics.values():
        by_pixel = isinstance(metric, PixelAveragePrecision) or (
            isinstance(metric, IoUCurve) and metric.variant == "dataset"
        )
        if by_pixel and metric.images and not metric.state["counts"][1].any():
            raise DataError(f"{data.name}: none of the {metric.images} masks shows an object; nothing can be scored")
