"""How far two ways to run one model differ: artifact against artifact, engine, or PyTorch."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from lidcam_bench.data.records import Record
from lidcam_bench.evaluation.metric_set import MetricSet
from lidcam_bench.metrics.sample import Sample
from lidcam_cli.loading import load_localizer
from lidcam_rt.errors import DataError, ImageError, InputError, LidcamError, MissingExtraError
from lidcam_rt.localizer import Localizer
from lidcam_rt.pipeline import OUTPUTS
from lidcam_rt.results import Localization

__all__ = [
    "Comparison", "Runner", "Tolerance", "beyond", "compare", "compared", "largest", "open_runner",
    "require_same_classes",
]  # fmt: skip


class _Named(Protocol):
    @property
    def class_names(self) -> tuple[str, ...]: ...


class Runner(Protocol):
    """One way to run a model. Third parties add theirs through the entry-point group `lidcam.runners`."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """In the order of the logits."""

    def __call__(self, image: Path) -> tuple[Localization, npt.NDArray[Any], npt.NDArray[Any] | None]:
        """Localization, logits [classes] and the raw activation map [h, w] (None if unavailable)."""


class _LocalizerRunner:
    """A Localizer with its raw outputs."""

    def __init__(self, localizer: Localizer) -> None:
        self.localizer = localizer
        self.class_names = localizer.class_names
        self.name = localizer.pipeline.engine

    def __call__(self, image: Path) -> tuple[Localization, npt.NDArray[Any], npt.NDArray[Any] | None]:
        pipeline = self.localizer.pipeline
        prepared = pipeline.prepare(image, keep_image=False)
        has_cam = any(entry["name"] == "cam" for entry in pipeline.backend.outputs)  # an engine may be built without
        outputs = pipeline.run([prepared], outputs=(*OUTPUTS, "cam") if has_cam else OUTPUTS)
        cam = outputs["cam"][0, 0] if has_cam else None
        return pipeline.finish(prepared, outputs), outputs["logits"][0], cam


def open_runner(path: str | os.PathLike[str], *, backend: str = "auto", device: str = "auto") -> Runner:
    """Open what is to be compared.

    An entry point of the group `lidcam.runners` is named by the suffix it opens, without the dot (`pt`, `ckpt`,
    `safetensors`), or `checkpoint` for a folder; called with the path, it returns a Runner or a Localizer. Everything
    else is loaded with `lidcam_rt.load`.

    Args:
        path: an artifact, an engine, or a checkpoint.
        backend: as for `load`.
        device: as for `load`.

    Raises:
        LidcamError: the opener failed.
    """
    folder = Path(path).is_dir()
    suffix = "checkpoint" if folder else Path(path).suffix.lower().lstrip(".")
    for entry in entry_points(group="lidcam.runners"):
        if entry.name == suffix:
            try:
                opener: Callable[[Path], Runner | Localizer] = entry.load()
            except ImportError as error:
                raise MissingExtraError(
                    f"running {path} as {entry.name}", "export", (error.name or str(error),)
                ) from None
            opened = opener(Path(path))
            return _LocalizerRunner(opened) if isinstance(opened, Localizer) else opened
    if suffix in ("pt", "pth", "ckpt", "safetensors"):
        raise InputError(
            f"{path}: no package here runs .{suffix} files in PyTorch; install one that adds an entry point "
            "lidcam.runners, or export it and compare the artifact"
        )
    return _LocalizerRunner(load_localizer(path, backend=backend, device=device))


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far two runners may differ.

    Attributes:
        top1: smallest share of pictures with the same first class, percent.
        mask_iou: smallest mean IoU of the two masks, 0 to 1.
        flipped: largest share of pixels whose mask differs, or whose label does, percent.
        metric: largest absolute difference of a metric, in its own unit (IoU 0 to 1; others 0 to 100).
        label_iou: segmentation: smallest mean IoU of the two label maps, 0 to 1.
    """

    top1: float = 99.0
    mask_iou: float = 0.99
    flipped: float = 0.5
    metric: float = 0.5
    label_iou: float = 0.99

    def __post_init__(self) -> None:
        for name, limit in (
            ("top1", 100), ("mask_iou", 1), ("flipped", 100), ("metric", 100), ("label_iou", 1)
        ):
            if not 0 <= getattr(self, name) <= limit:
                raise InputError(f"the tolerance {name} must be in 0..{limit}, got {getattr(self, name)}")


@dataclass(frozen=True)
class Comparison:
    """The result of `compare`.

    Attributes:
        rows: per picture: file, classes, logits and CAM differences, mask_iou, flipped pixels, and with ground truth
            the differences of the picture's peak IoU, PxAP and best box IoU (b minus a).
        total: over all pictures, by name.
        faults: what is beyond the tolerance, in words; empty if nothing is.
    """

    rows: list[dict[str, Any]]
    total: dict[str, float | None]
    faults: list[str]

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {"total": self.total, "faults": self.faults, "images": self.rows}


def compare(
    a: Runner,
    b: Runner,
    records: Sequence[Record],
    tolerance: Tolerance | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Comparison:
    """Run both on every picture and compare the results. `a` is the reference.

    Where the two predict different classes, their maps are of different classes, and mask and CAM differences are
    counted all the same, since that is what a user gets; `mask_iou_mean_same_class` leaves those pictures out.
    Differences of the CAM are relative to the reference map's range.

    Raises:
        InputError: the two have different classes.
        DataError: no picture could be read by both, or a mask or box does not fit its picture.
    """
    limits = tolerance or Tolerance()
    require_same_classes(a, b)
    metrics = [MetricSet(("track3", "wsol"), 0, 1) for _ in range(2)]
    rows: list[dict[str, Any]] = []
    pixels = flipped = 0
    for number, record in enumerate(records):
        if progress:
            progress(number, len(records))
        try:
            (one, logits_a, cam_a), (two, logits_b, cam_b) = a(record.image), b(record.image)
        except ImageError as error:
            rows.append({"file": record.image.name, "error": str(error)})
            continue
        union = int(np.count_nonzero(one.mask | two.mask))
        differ = int(np.count_nonzero(one.mask ^ two.mask))
        pixels, flipped = pixels + one.mask.size, flipped + differ
        row = {
            "file": record.image.name,
            "class_a": one.class_name,
            "class_b": two.class_name,
            "same_class": one.class_id == two.class_id,
            "logits_max_abs": largest(logits_a, logits_b),
            "cam_max_relative": None if cam_a is None or cam_b is None else _relative(cam_a, cam_b),
            "map_max_levels": largest(one.map, two.map),
            "mask_iou": 1 - differ / union if union else 1.0,
            "flipped_percent": 100 * differ / one.mask.size,
        }
        truth = record.truth(one.size)
        mask, boxes = truth.object_mask(), truth.object_boxes()
        numbers = [
            metric_set.count(Sample(str(number), one.size, result.map, mask, boxes))
            for metric_set, result in zip(metrics, (one, two), strict=True)
        ]
        for name in ("peak_iou", "pxap", "best_box_iou"):
            if numbers[0].get(name) is not None and numbers[1].get(name) is not None:
                row[f"delta_{name}"] = numbers[1][name] - numbers[0][name]
        rows.append(row)
    if progress:
        progress(len(records), len(records))
    good = compared(rows)
    cams = [row["cam_max_relative"] for row in good if row["cam_max_relative"] is not None]
    alike = [row["mask_iou"] for row in good if row["same_class"]]
    total: dict[str, float | None] = {
        "pictures": float(len(good)),
        "unreadable": float(len(rows) - len(good)),
        "top1_agreement_percent": 100 * sum(row["same_class"] for row in good) / len(good),
        "logits_max_abs": max(row["logits_max_abs"] for row in good),
        "cam_max_relative": max(cams) if cams else None,
        "mask_iou_mean": sum(row["mask_iou"] for row in good) / len(good),
        "mask_iou_mean_same_class": sum(alike) / len(alike) if alike else None,
        "mask_iou_least": min(row["mask_iou"] for row in good),
        "flipped_percent": 100 * flipped / pixels,
    }
    total |= _deltas(*metrics)
    return Comparison(rows, total, beyond(total, limits))


def _deltas(a: MetricSet, b: MetricSet) -> dict[str, float | None]:
    deltas: dict[str, float | None] = {}
    for name, metric in a.metrics.items():
        other = b.metrics[name].scores()
        for score, value in metric.scores().items():
            theirs = other[score]
            if value is not None and theirs is not None and score in ("peak_iou", "pxap", "max_box_acc"):
                deltas[f"delta {name} {score}"] = theirs - value
    return deltas


def require_same_classes(a: _Named, b: _Named) -> None:
    """Refuse to compare two whose classes differ.

    Raises:
        InputError: they have different classes, or the same ones in another order.
    """
    if a.class_names != b.class_names:
        raise InputError(
            f"the two have different classes ({len(a.class_names)} and {len(b.class_names)}, or different names): "
            "compare two forms of one network"
        )


def compared(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of pictures that both could read.

    Raises:
        DataError: there is none.
    """
    good = [row for row in rows if "error" not in row]
    if not good:
        raise DataError(f"none of the {len(rows)} pictures could be compared: {rows[0]['error'] if rows else ''}")
    return good


def beyond(total: dict[str, float | None], limits: Tolerance) -> list[str]:
    """Which totals of a comparison are beyond the tolerance, in words; empty: none."""
    faults = []
    for name, bound, at_least in (
        ("top1_agreement_percent", limits.top1, True),
        ("mask_iou_mean", limits.mask_iou, True),
        ("label_iou", limits.label_iou, True),
        ("flipped_percent", limits.flipped, False),
    ):
        if name not in total:
            continue
        value = total[name]
        if value is None or not (value >= bound if at_least else value <= bound):
            faults.append(f"{name} is {value:.6g}, the limit is {'at least' if at_least else 'at most'} {bound:g}")
    for name, value in total.items():
        bound = limits.metric / 100 if name.endswith("peak_iou") else limits.metric
        if name.startswith("delta") and value is not None and not abs(value) <= bound:
            faults.append(f"{name} is {value:+.6g}, the limit is {bound:g}")
    if total["unreadable"]:
        faults.append(f"{total['unreadable']:.0f} pictures could not be compared")
    return faults


def largest(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    """The largest absolute difference of two arrays of one shape."""
    if a.shape != b.shape:
        raise LidcamError(f"outputs differ in shape: {a.shape} and {b.shape}")
    return float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max(initial=0))


def _relative(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float | None:
    if a.shape != b.shape:
        return None
    span = float(a.astype(np.float64).max() - a.astype(np.float64).min())
    return largest(a, b) / span if span > 0 else largest(a, b)
