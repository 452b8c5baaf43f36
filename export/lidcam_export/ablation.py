"""The talk's ablation (slide 21): CAM, +TAP, +NWC, +PaS, +CRF, each chosen on one split and scored on "
"another.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from lidcam_training.checkpoint import Checkpoint
from lidcam_training.data import ImageSet
from lidcam_training.data.loader import read_picture
from lidcam_training.models.classifier import activation_maps

from lidcam_rt.errors import DataError, MissingExtraError
from lidcam_rt.metrics import PixelAveragePrecision
from lidcam_rt.metrics.base import to_map8
from lidcam_rt.pas.reference import resize_reference

__all__ = ["AblationRow", "Maps", "ablate_checkpoint", "blob_row", "checkpoint_maps", "summarize"]

THETAS = tuple(np.round(np.arange(0.05, 0.96, 0.05), 2))
PERCENTILES = (98.0, 95.0, 90.0, 80.0)
#: sxy of the bilateral kernel in shares of the picture's side, srgb, compat
CRF_SETTINGS = tuple(itertools.product((0.08, 0.2), (5.0, 13.0), (4.0, 10.0)))
_CRF_CHOICE = 150


@dataclass(frozen=True, eq=False)
class Maps:
    """What a network says about a split.

    Attributes:
        images: uint8 [n, H, W, 3].
        masks: uint8 [n, H, W], 1 object, 0 background, 255 ignored.
        plain: float32 [n, H, W], CAM of the true class with signed weights, resized, minimum subtracted.
        nwc: the same with negative weights clamped.
        accuracy: share of pictures whose best logit is the true class.
    """

    images: npt.NDArray[np.uint8]
    masks: npt.NDArray[np.uint8]
    plain: npt.NDArray[np.float32]
    nwc: npt.NDArray[np.float32]
    accuracy: float


@dataclass(frozen=True)
class AblationRow:
    """Scores of one stage of one checkpoint on the scored split.

    Attributes:
        stage: for example `TAP +NWC`.
        iou: mean over pictures of the mask's IoU with the object, true class given.
        box: share of pictures whose mask's bounding box (largest component) has IoU >= 0.5 with the object's.
        pxap: of the map, percent; None where the stage gives only a mask.
        settings: what was chosen on the other split.
    """

    stage: str
    iou: float
    box: float
    pxap: float | None
    settings: dict[str, float]


@torch.no_grad()
def checkpoint_maps(checkpoint: Checkpoint, images: ImageSet, *, batch: int = 64) -> Maps:
    """Run a checkpoint over a split with masks.

    Raises:
        DataError: a picture cannot be read or has no mask; the classes are not the checkpoint's.
    """
    meta, model = checkpoint.meta, checkpoint.model
    if images.class_names != meta.class_names:
        raise DataError(
            f"{images.name} has other classes than {checkpoint.path}: evaluate on the data it was made for"
        )
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (meta.mean, meta.std))
    pictures, masks = [], []
    for record in images.records:
        picture, mask = read_picture(record, meta.size[0], meta.interpolation), record.read_mask()
        if picture is None or mask is None:
            raise DataError(f"{record.image}: unreadable or without a mask; the ablation needs both")
        if mask.shape != picture.shape[:2]:
            raise DataError(f"{record.image}: is {mask.shape}, the ablation takes pictures of {meta.size}")
        pictures.append(picture)
        masks.append(mask)
    labels = torch.tensor([record.labels[0] for record in images.records])
    resized: dict[bool, list[npt.NDArray[np.float32]]] = {False: [], True: []}
    right = 0
    for start in range(0, len(pictures), batch):
        part = np.stack(pictures[start : start + batch]).transpose(0, 3, 1, 2)
        features = model.forward_features((torch.from_numpy(part.copy()).float() - mean) / std)
        truth = labels[start : start + batch]
        right += int((model.pool_and_classify(features).argmax(1) == truth).sum())
        for nwc, rows in resized.items():
            for cam in activation_maps(features, model.head_weight, truth, nwc=nwc).numpy():
                large = resize_reference(cam, meta.size, "cubic")
                rows.append(large - large.min())
    return Maps(
        np.stack(pictures),
        np.stack(masks),
        np.stack(resized[False]),
        np.stack(resized[True]),
        right / len(pictures),
    )


def _ious(found: npt.NDArray[np.bool_], masks: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    counted, truth = masks != 255, masks == 1
    both = (found & truth).sum((1, 2))
    either = ((found | truth) & counted).sum((1, 2))
    return both / np.maximum(either, 1)


def _box(mask: npt.NDArray[np.bool_]) -> tuple[int, int, int, int] | None:
    import cv2

    count, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    if count < 2:
        return None
    x, y, width, height, _ = stats[1 + int(stats[1:, 4].argmax())]
    return int(x), int(y), int(x + width), int(y + height)


def _box_accuracy(found: npt.NDArray[np.bool_], masks: npt.NDArray[np.uint8]) -> float:
    hits = 0
    for mask, truth in zip(found, masks == 1, strict=True):
        a, rows, columns = _box(mask), np.flatnonzero(truth.any(1)), np.flatnonzero(truth.any(0))
        if a is None or not rows.size:
            continue
        b = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
        both = max(width, 0) * max(height, 0)
        either = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both
        hits += both / either >= 0.5
    return hits / len(found)


def _standard(maps: npt.NDArray[np.float32], percentile: float) -> npt.NDArray[np.float32]:
    return np.percentile(maps, percentile, axis=(1, 2), keepdims=True).astype(np.float32)


def _choose(
    maps: npt.NDArray[np.float32], masks: npt.NDArray[np.uint8], percentiles: Sequence[float]
) -> tuple[float, float]:
    """(percentile, theta) with the best mean IoU."""
    best, chosen = -1.0, (100.0, 0.5)
    for percentile in percentiles:
        standard = _standard(maps, percentile)
        for theta in THETAS:
            score = float(_ious(maps > theta * standard, masks).mean())
            if score > best:
                best, chosen = score, (percentile, float(theta))
    return chosen


def _pxap(maps: npt.NDArray[np.float32], masks: npt.NDArray[np.uint8]) -> float | None:
    score = PixelAveragePrecision()
    for values, mask in zip(maps, masks, strict=True):
        score.update(to_map8(values), mask)
    return score.compute()


def _crf(
    image: npt.NDArray[np.uint8], mask: npt.NDArray[np.bool_], setting: tuple[float, float, float]
) -> npt.NDArray[np.bool_]:
    try:
        from pydensecrf import densecrf, utils
    except ImportError as error:
        raise MissingExtraError("lidcam ablate with CRF", "crf-oracle", ("pydensecrf",)) from error
    sxy, srgb, compat = setting
    height, width = mask.shape
    field = densecrf.DenseCRF2D(width, height, 2)
    field.setUnaryEnergy(utils.unary_from_labels(mask.astype(np.int32), 2, gt_prob=0.7, zero_unsure=False))
    field.addPairwiseGaussian(sxy=max(1.0, 0.01 * width), compat=3)
    field.addPairwiseBilateral(sxy=sxy * width, srgb=srgb, rgbim=np.ascontiguousarray(image), compat=compat)
    return np.asarray(field.inference(10)).argmax(0).reshape(height, width) == 1


def _refined(
    images: npt.NDArray[np.uint8], found: npt.NDArray[np.bool_], setting: tuple[float, float, float]
) -> npt.NDArray[np.bool_]:
    return np.stack([_crf(image, mask, setting) for image, mask in zip(images, found, strict=True)])


def blob_row(choose: Maps, score: Maps) -> AblationRow:
    """A centred Gaussian blob, sigma a quarter of the side: a score that it reaches is no score."""
    height, width = score.masks.shape[1:]
    y, x = np.mgrid[:height, :width]
    blob = np.exp(-8 * (((y + 0.5) / height - 0.5) ** 2 + ((x + 0.5) / width - 0.5) ** 2)).astype(np.float32)
    few = np.broadcast_to(blob - blob.min(), choose.masks.shape)
    many = np.broadcast_to(blob - blob.min(), score.masks.shape)
    _, theta = _choose(few, choose.masks, (100.0,))
    found = many > theta * many.max()
    return AblationRow(
        "blob",
        float(_ious(found, score.masks).mean()),
        _box_accuracy(found, score.masks),
        _pxap(many, score.masks),
        {"theta": theta},
    )


def ablate_checkpoint(
    pooling: str, choose: Maps, score: Maps, *, crf: bool = True, note: Callable[[str], None] = lambda _: None
) -> list[AblationRow]:
    """Rows of one checkpoint: its CAM, +NWC, +PaS, +CRF.

    Args:
        pooling: `gap` or `tap`, names the rows.
        choose: the split on which theta, percentile and the CRF's settings are chosen.
        score: the split that is scored.
        crf: whether to end with the dense CRF.
        note: told what goes on.
    """
    first = "CAM" if pooling == "gap" else "CAM +TAP"
    rows = []

    def add(stage: str, found: npt.NDArray[np.bool_], pxap: float | None, settings: dict[str, float]) -> None:
        note(stage)
        iou = float(_ious(found, score.masks).mean())
        rows.append(AblationRow(stage, iou, _box_accuracy(found, score.masks), pxap, settings))

    for stage, few, many in ((first, choose.plain, score.plain), (f"{first} +NWC", choose.nwc, score.nwc)):
        _, theta = _choose(few, choose.masks, (100.0,))
        add(stage, many > theta * _standard(many, 100.0), _pxap(many, score.masks), {"theta": theta})
    percentile, theta = _choose(choose.nwc, choose.masks, PERCENTILES)
    standard = _standard(score.nwc, percentile)
    found = score.nwc > theta * standard
    saturated = np.clip(score.nwc / np.maximum(standard, 1e-12), 0, 1)
    settings = {"theta": theta, "percentile": percentile}
    add(f"{first} +NWC +PaS", found, _pxap(saturated, score.masks), settings)
    if crf:
        part = slice(0, _CRF_CHOICE)
        few = choose.nwc[part]
        coarse = few > theta * _standard(few, percentile)
        scores = [
            _ious(_refined(choose.images[part], coarse, s), choose.masks[part]).mean() for s in CRF_SETTINGS
        ]
        setting = CRF_SETTINGS[int(np.argmax(scores))]
        names = dict(zip(("bilateral_sxy_share", "srgb", "compat"), setting, strict=True))
        add(f"{first} +NWC +PaS +CRF", _refined(score.images, found, setting), None, {**settings, **names})
    return rows


def summarize(runs: list[list[AblationRow]]) -> list[dict[str, Any]]:
    """Mean and sample standard deviation over checkpoints, stage by stage, in order of appearance."""
    stages = list(dict.fromkeys(row.stage for rows in runs for row in rows))
    out = []
    for stage in stages:
        rows = [row for run in runs for row in run if row.stage == stage]
        entry: dict[str, Any] = {
            "stage": stage,
            "runs": len(rows),
            "settings": [row.settings for row in rows],
        }
        for key in ("iou", "box", "pxap"):
            values = [getattr(row, key) for row in rows if getattr(row, key) is not None]
            entry[key] = float(np.mean(values)) if values else None
            entry[f"{key}_spread"] = float(np.std(values, ddof=1)) if len(values) > 1 else None
        out.append(entry)
    return out


def write_plot(summary: list[dict[str, Any]], file: Path) -> None:
    """Bars of the mean IoU with the spread."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 0.45 * len(summary) + 1), layout="constrained")
    axis = figure.subplots()
    names = [row["stage"] for row in summary]
    axis.barh(names, [row["iou"] for row in summary], xerr=[row["iou_spread"] or 0 for row in summary])
    axis.invert_yaxis()
    axis.set_xlabel("mean mask IoU")
    figure.savefig(file, dpi=100)
