"""The accuracy pass: the same target over labelled pictures, or compared with a reference; nothing is timed."""

from __future__ import annotations

import csv
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lidcam_bench.data import ImageSet, Record, open_data
from lidcam_bench.evaluation.compare import compare, require_same_classes
from lidcam_bench.evaluation.options import NO_CLASS, PREDICTED, EvalOptions, class_map
from lidcam_bench.evaluation.runner import evaluate
from lidcam_bench.evaluation.segmentation import evaluate_segmenter
from lidcam_bench.latency.facts import Accuracy
from lidcam_bench.latency.job import AccuracyJob
from lidcam_bench.latency.target import Target, open_target, same_network
from lidcam_bench.metrics.registry import METRICS
from lidcam_rt.crf import Refine
from lidcam_rt.defaults import views
from lidcam_rt.localizer import Localizer
from lidcam_rt.results import Localization
from lidcam_rt.segmentation import Segmenter
from lidcam_rt.segmenter import SegmentOptions

__all__ = ["has_truth", "measure_accuracy"]

_AGREEMENT = ("mask_iou_mean", "mask_iou_least", "flipped_percent", "top1_agreement_percent", "logits_max_abs")


def has_truth(data: ImageSet) -> bool:
    """Whether a data set has any ground truth to compare a result with."""
    return any(record.labels or record.boxes or record.mask is not None for record in data.records)


def measure_accuracy(localizer: Localizer | Segmenter, target: Target, job: AccuracyJob) -> Accuracy:
    """Score an open target.

    Args:
        localizer: the target.
        target: how it is run.
        job: data, reference, or both.

    Raises:
        DataError: the data cannot be read or do not fit the pictures.
        InputError: the reference has other classes.
    """
    scores: dict[str, float] = {}
    notes: tuple[str, ...] = ()
    warning = ""
    data: ImageSet | None = None
    if job.data is not None:
        data = open_data(job.data, job.split)
        scores, notes = _scores(localizer, target, data, job.limit)
        warning = _misfit(localizer, data)
    agreement: dict[str, float] = {}
    images = len(list(data.records)[: job.limit]) if data is not None else 0
    held: str | None = None
    if job.reference is not None:
        records = list(data.records) if data is not None else [Record(image=path) for path in job.images]
        records = records[: job.limit]
        images = len(records)
        held, agreement, found = _agreement_with_the_first(localizer, target, job, records)
        notes += found
    reason = "" if scores or agreement else "there are no labels, masks or boxes, and no reference"
    return Accuracy(
        data="" if data is None else data.name,
        images=images,
        scores=scores,
        reference=held,
        agreement=agreement,
        reason=reason,
        notes=notes,
        warning=warning,
    )


def _misfit(localizer: Localizer | Segmenter, data: ImageSet) -> str:
    """What is wrong between the classes of the model and of the data, or nothing."""
    classes = class_map(localizer.class_names, data.class_names)
    if classes is None:
        return "the model's classes are not those of the data: nothing about classification is scored"
    missing = sum(number == NO_CLASS for number in classes)
    return f"{missing} of the data's {len(classes)} classes are missing from the model" if missing else ""


def _scores(
    localizer: Localizer | Segmenter, target: Target, data: ImageSet, limit: int | None
) -> tuple[dict[str, float], tuple[str, ...]]:
    """The headline numbers of `lidcam eval`, by the names of the metrics, the mean IoU of the masks as `miou`; notes.

    A score that is not a number, because there was nothing to count, is left out.
    """
    track1 = target.pipeline == "track1" or isinstance(localizer, Segmenter)
    if isinstance(localizer, Segmenter) and not any(record.mask for record in data.records[:limit]):
        return {}, ()
    options = EvalOptions(
        metrics=("track1",) if track1 else ("track3", "wsol"),
        replicates=0,
        limit=limit,
        segment=SegmentOptions(refine=target.refine),
        refine="none" if track1 else target.refine or "none",
    )
    with tempfile.TemporaryDirectory(prefix="lidcam-accuracy-") as folder:
        if isinstance(localizer, Segmenter):
            results = evaluate_segmenter(localizer, data, folder, options)
        else:
            results = evaluate(localizer, data, folder, options)
        with (Path(folder) / "images.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            ious = [float(row["mask_iou"]) for row in csv.DictReader(file) if row.get("mask_iou")]
    out: dict[str, float] = {}
    for name, entry in results["rows"][PREDICTED].items():
        for score in (METRICS[name].headline, *METRICS[name].glance):
            value = entry["scores"].get(score)
            if value is not None and math.isfinite(value):
                out[name if score == METRICS[name].headline and name != "localization" else score] = float(value)
    if track1 and "track1" in out:
        out["miou"] = out.pop("track1") / 100
    elif ious:
        out["miou"] = sum(ious) / len(ious)
    return out, tuple(results["notes"])


class _Runner:
    """A Localizer in the form that `compare` needs, with the CRF that is measured."""

    def __init__(self, localizer: Localizer, refine: str | None) -> None:
        self._pipeline = localizer.pipeline
        self._refine = Refine.of(refine)
        self._views = views(localizer.manifest, None)
        self.class_names = localizer.class_names

    def __call__(self, image: Path) -> tuple[Localization, npt.NDArray[Any], npt.NDArray[Any] | None]:
        prepared = self._pipeline.prepare(image, keep_image=False, refine=self._refine, augment=self._views)
        outputs = self._pipeline.run([prepared])
        result = self._pipeline.finish(prepared, outputs, refine=self._refine)
        return result, np.asarray(outputs["logits"][0]), None


def _agreement_with_the_first(
    localizer: Localizer | Segmenter, target: Target, job: AccuracyJob, records: Sequence[Record]
) -> tuple[str | None, dict[str, float], tuple[str, ...]]:
    """The reference's name, the agreement with it, and notes where there is none.

    It is the job's reference, or the first of the others if that one is of another kind or has other classes.
    """
    assert job.reference is not None
    first = job.reference.key
    for candidate in (job.reference, *job.others):
        if candidate in job.others and same_network(candidate, target):
            note = f"Not compared with {first}, which has other classes or is of another kind."
            return None, {}, (note,)  # it is the reference of those after it
        with open_target(candidate) as reference:
            if job.others and reference.class_names != localizer.class_names:
                continue
            if isinstance(localizer, Segmenter) and isinstance(reference, Segmenter):
                return candidate.key, _label_agreement(reference, localizer, target.refine, records), ()
            if isinstance(localizer, Localizer) and isinstance(reference, Localizer):
                return candidate.key, _agreement(reference, localizer, target.refine, records), ()
    note = (
        f"Not compared with {first}: a segmentation network and a classifier have nothing to compare. Give a "
        "--reference of the same kind."
    )
    return first, {}, (note,)


def _agreement(
    reference: Localizer, localizer: Localizer, refine: str | None, records: Sequence[Record]
) -> dict[str, float]:
    total = compare(_Runner(reference, refine), _Runner(localizer, refine), records).total
    return {
        name: float(value) for name in _AGREEMENT
        if (value := total.get(name)) is not None and math.isfinite(value)
    }  # fmt: skip


def _label_agreement(
    reference: Segmenter, segmenter: Segmenter, refine: str | None, records: Sequence[Record]
) -> dict[str, float]:
    """The share of pixels whose label differs."""
    require_same_classes(reference, segmenter)
    pixels = flipped = 0
    for record in records:
        one, other = (
            entry(record.image, keep_image=False, refine=Refine.of(refine)).labels for entry in (reference, segmenter)
        )
        pixels, flipped = pixels + one.size, flipped + int((one != other).sum())
    return {"flipped_percent": 100 * flipped / pixels} if pixels else {}
