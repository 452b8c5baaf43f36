"""The talk's ablation (slide 21): CAM, +TAP, +NWC, +PaS, +CRF, on exported artifacts in the runtime.

The network of each artifact runs once over a split, and its output `cam` (the map before resizing) and the predicted
classes are kept. Every stage then runs the runtime's own code on these maps: the PaS kernel, the components, the
dense CRF. Thresholds are chosen on one split and scored on another.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from lidcam_bench.data import ImageSet, Record, Truth
from lidcam_bench.metrics import IoUCurve, PixelAveragePrecision, box_iou, evaluator_box, histogram

from lidcam_rt import Localizer
from lidcam_rt.artifact import InputSpec
from lidcam_rt.backends.base import usable_cores
from lidcam_rt.boxes import largest_box
from lidcam_rt.crf import CrfOptions, DenseCRF
from lidcam_rt.errors import DataError, InputError
from lidcam_rt.image import read_image, to_original_size
from lidcam_rt.pas import PasOptions, pas
from lidcam_rt.pas.options import Mode

__all__ = ["AblationRow", "Maps", "ablate_artifacts", "blob_row", "run_maps"]

Mask = npt.NDArray[np.bool_]
Map8 = npt.NDArray[np.uint8]

THETAS = tuple(float(v) for v in np.round(np.arange(0.05, 0.96, 0.05), 2))
PERCENTILES = (98.0, 95.0, 90.0, 80.0)
#: sxy of the bilateral kernel in shares of the picture's side, srgb in grey levels, compat
CRF_SETTINGS = tuple(itertools.product((0.08, 0.2), (5.0, 13.0), (4.0, 10.0)))
_CRF_CHOICE = 150


@dataclass(frozen=True, eq=False)
class Maps:
    """What one artifact returned for one split.

    Attributes:
        records: pictures with masks.
        labels: int64 [n], the true class of each.
        spec: input of the artifact.
        cam: float32 [n, h, w], its output `cam` for the true class.
        ranked: int64 [n], the predicted class.
    """

    records: Sequence[Record]
    labels: npt.NDArray[np.int64]
    spec: InputSpec
    cam: npt.NDArray[np.float32]
    ranked: npt.NDArray[np.int64]

    @property
    def accuracy(self) -> float:
        """Share of pictures whose predicted class is the true one."""
        return float((self.ranked == self.labels).mean())


@dataclass(frozen=True)
class AblationRow:
    """Scores of one stage of one checkpoint on the scored split; the class is given unless stated otherwise.

    Attributes:
        stage: for example `CAM +TAP +NWC`.
        seed: of the checkpoint's recipe; -1 for the blob.
        iou: mean over pictures of the mask's IoU with the object.
        box: share of pictures whose box (largest component) has IoU >= 0.5 with the object's, both in the public
            evaluator's convention: GT-known Loc.
        top1: share of pictures where that holds and the predicted class is the true one: Top-1 Loc; None for the
            blob, which predicts nothing.
        pxap: pixel average precision of the map, percent.
        peak: peak IoU of the map under thresholds 0 to 255, accumulated over the split: Track 3.
        settings: what was chosen on the other split.
    """

    stage: str
    seed: int
    iou: float
    box: float
    top1: float | None
    pxap: float
    peak: float
    settings: dict[str, float]


def run_maps(localizer: Localizer, images: ImageSet, *, batch: int = 32) -> Maps:
    """Run an artifact over a split, once.

    Args:
        localizer: the artifact, exported with the input `labels`.
        images: pictures with one class and a mask each.
        batch: pictures per call of the network.

    Raises:
        DataError: a picture cannot be read, has no class or no mask, or the classes are not the artifact's.
    """
    if tuple(images.class_names) != tuple(localizer.class_names):
        raise DataError(f"{images.name} has other classes than the artifact: evaluate on the data it was made for")
    if not localizer.manifest.labels_input:
        raise InputError("the artifact takes no labels: export it with --labels-input")
    labels = np.array([record.labels[0] if record.labels else -1 for record in images.records], np.int64)
    if (labels < 0).any():
        raise DataError(f"{images.records[int(labels.argmin())].image} has no class; the ablation needs one")
    pipeline = localizer.pipeline
    cams, ranked = [], []
    for start in range(0, len(labels), batch):
        part = images.records[start : start + batch]
        try:
            prepared = [pipeline.prepare(record.image, keep_image=False) for record in part]
        except InputError as error:
            raise DataError(f"{error}; the ablation needs every picture") from error
        wanted = [pipeline.wanted(int(label)) for label in labels[start : start + batch]]
        outputs = pipeline.run(prepared, wanted, ("logits", "cam"))
        cams.append(outputs["cam"][:, 0])
        ranked.append(outputs["logits"].argmax(1))
    return Maps(images.records, labels, localizer.manifest.input, np.concatenate(cams), np.concatenate(ranked))


def _truth(record: Record, label: int) -> tuple[Truth, npt.NDArray[np.uint8]]:
    """The ground truth and its mask of the class, uint8 [H, W]: 1 object, 0 background, 255 ignored."""
    truth = record.truth()
    mask = truth.object_mask(label)
    if mask is None or not (mask == 1).any():
        raise DataError(f"{record.image} has no mask that shows an object of its class; the ablation needs one")
    return truth, mask


def _map(maps: Maps, index: int, size: tuple[int, int], percentile: float, mode: Mode) -> Map8:
    """The runtime's localization map uint8 [H, W] of a picture of (width, height) pixels."""
    inside = (maps.spec.height, maps.spec.width)
    made = pas(maps.cam[index][None, None], inside, PasOptions(percentile, mode=mode))
    return to_original_size(made.map[0, 0], size, maps.spec)


def _level(maps: Maps, index: int, percentile: float, theta: float) -> int:
    inside = (maps.spec.height, maps.spec.width)
    made = pas(maps.cam[index][None, None], inside, PasOptions(percentile, theta))
    return int(np.floor(made.threshold[0, 0]))


def _threaded(function: Callable[[int], Any], count: int) -> list[Any]:
    with ThreadPoolExecutor(usable_cores()) as pool:
        return list(pool.map(function, range(count)))


def choose_threshold(maps: Maps, percentiles: Iterable[float]) -> tuple[float, float]:
    """(percentile, theta) with the best mean IoU of the mask `map > theta * percentile`.

    The map depends on neither, so one histogram per picture gives the IoU at all 256 levels.
    """
    grid = [(percentile, theta) for percentile in percentiles for theta in THETAS]

    def one(index: int) -> npt.NDArray[np.float64]:
        truth, mask = _truth(maps.records[index], int(maps.labels[index]))
        map8 = _map(maps, index, truth.size, 100.0, "threshold")
        outside, inside = histogram(map8, mask)
        above = np.stack([outside, inside])[:, ::-1].cumsum(1)[:, ::-1] - (outside, inside)
        iou = above[1] / np.maximum(above[0] + inside.sum(), 1)
        levels = [_level(maps, index, *setting) for setting in grid]
        return np.asarray([iou[level] for level in levels])

    means = np.mean(_threaded(one, len(maps.records)), axis=0)
    return grid[int(means.argmax())]


def _iou(mask: Mask, truth: npt.NDArray[np.uint8]) -> float:
    wanted, counted = truth == 1, truth != 255
    return float((mask & wanted).sum() / max(((mask | wanted) & counted).sum(), 1))


def score(
    stage: str,
    seed: int,
    maps: Maps,
    make: Callable[[int, tuple[int, int]], tuple[Mask, Map8]],
    settings: dict[str, float],
    *,
    predicts: bool = True,
) -> AblationRow:
    """Score a stage: `make(index, (width, height))` gives its mask and its map at the picture's size."""
    pxap, curve = PixelAveragePrecision(), IoUCurve("dataset")

    def one(index: int) -> tuple[float, bool, npt.NDArray[np.int64]]:
        label = int(maps.labels[index])
        truth, true_mask = _truth(maps.records[index], label)
        mask, map8 = make(index, truth.size)
        box = largest_box(mask)
        boxes = [evaluator_box(b, truth.size) for b in truth.object_boxes(label)]
        hit = box is not None and bool(boxes) and bool((box_iou([evaluator_box(box, truth.size)], boxes) >= 0.5).any())
        return _iou(mask, true_mask), hit, histogram(map8, true_mask)

    results = _threaded(one, len(maps.records))
    for _, _, counts in results:
        pxap.update_counts(counts)
        curve.update_counts(counts)
    hits = np.array([hit for _, hit, _ in results])
    return AblationRow(
        stage=stage,
        seed=seed,
        iou=float(np.mean([iou for iou, _, _ in results])),
        box=float(hits.mean()),
        top1=float((hits & (maps.ranked == maps.labels)).mean()) if predicts else None,
        pxap=float(pxap.compute() or 0.0),
        peak=float(curve.compute()[0]),
        settings=settings,
    )


def _thresholded(maps: Maps, percentile: float, theta: float) -> Callable[[int, tuple[int, int]], tuple[Mask, Map8]]:
    """Mask of `threshold`, map of `normalize`: the two uses of PaS; percentile 100 is the plain maximum."""

    def make(index: int, size: tuple[int, int]) -> tuple[Mask, Map8]:
        level = _level(maps, index, percentile, theta)
        mask = _map(maps, index, size, percentile, "threshold").astype(np.int16) > level
        return mask, _map(maps, index, size, percentile, "normalize")

    return make


def _refined(
    maps: Maps, percentile: float, theta: float, setting: tuple[float, float, float]
) -> Callable[[int, tuple[int, int]], tuple[Mask, Map8]]:
    """Mask and map from the dense CRF, started from the mask with probability 0.7."""
    coarse = _thresholded(maps, percentile, theta)
    share, srgb, compat = setting

    def make(index: int, size: tuple[int, int]) -> tuple[Mask, Map8]:
        mask, _ = coarse(index, size)
        side = float(np.sqrt(size[0] * size[1]))
        options = CrfOptions(
            gaussian_sxy=max(1.0, 0.01 * side),
            bilateral_sxy=share * side,
            bilateral_srgb=srgb,
            bilateral_compat=compat,
        )
        object_ = np.where(mask, options.gt_prob, 1 - options.gt_prob).astype(np.float32)
        picture = read_image(maps.records[index].image)
        q = DenseCRF(options).refine(picture, np.stack([1 - object_, object_]))[1]
        return q > 0.5, np.rint(255 * q).astype(np.uint8)

    return make


def _choose_crf(maps: Maps, percentile: float, theta: float) -> tuple[float, float, float]:
    count = min(len(maps.records), _CRF_CHOICE)
    means = []
    for setting in CRF_SETTINGS:
        make = _refined(maps, percentile, theta, setting)

        def one(index: int, make: Callable[..., tuple[Mask, Map8]] = make) -> float:
            truth, mask = _truth(maps.records[index], int(maps.labels[index]))
            return _iou(make(index, truth.size)[0], mask)

        means.append(float(np.mean(_threaded(one, count))))
    return CRF_SETTINGS[int(np.argmax(means))]


def blob_row(choose: Maps, score_on: Maps) -> AblationRow:
    """A centred Gaussian blob (sigma a quarter of the side) in place of the map: a baseline that sees no picture."""
    height, width = score_on.spec.height, score_on.spec.width
    y, x = np.mgrid[:height, :width]
    blob = np.exp(-8 * (((y + 0.5) / height - 0.5) ** 2 + ((x + 0.5) / width - 0.5) ** 2)).astype(np.float32)

    def with_blob(maps: Maps) -> Maps:
        cam = np.broadcast_to(blob, (len(maps.labels), height, width))
        return Maps(maps.records, maps.labels, maps.spec, cam, maps.ranked)

    few, many = with_blob(choose), with_blob(score_on)
    _, theta = choose_threshold(few, (100.0,))
    return score("blob", -1, many, _thresholded(many, 100.0, theta), {"theta": theta}, predicts=False)


def ablate_artifacts(
    pooling: str,
    seed: int,
    signed: tuple[Maps, Maps],
    clamped: tuple[Maps, Maps],
    *,
    crf: bool = True,
    note: Callable[[str], None] = lambda _: None,
) -> list[AblationRow]:
    """Rows of one checkpoint: its CAM, +NWC, +PaS, +CRF.

    Args:
        pooling: `gap` or `tap`, names the rows.
        seed: of the checkpoint's recipe.
        signed: maps of the artifact exported without NWC, on the split for choosing and on the one for scores.
        clamped: the same of the artifact exported with NWC.
        crf: whether to end with the dense CRF.
        note: called with the name of the next stage.
    """
    first = "CAM" if pooling == "gap" else "CAM +TAP"
    rows = []
    for stage, (few, many) in ((first, signed), (f"{first} +NWC", clamped)):
        note(stage)
        _, theta = choose_threshold(few, (100.0,))
        rows.append(score(stage, seed, many, _thresholded(many, 100.0, theta), {"theta": theta}))
    few, many = clamped
    note(f"{first} +NWC +PaS")
    percentile, theta = choose_threshold(few, PERCENTILES)
    settings = {"theta": theta, "percentile": percentile}
    rows.append(score(f"{first} +NWC +PaS", seed, many, _thresholded(many, percentile, theta), settings))
    if crf:
        note(f"{first} +NWC +PaS +CRF")
        setting = _choose_crf(few, percentile, theta)
        names = dict(zip(("bilateral_sxy_share", "srgb", "compat"), setting, strict=True))
        make = _refined(many, percentile, theta, setting)
        rows.append(score(f"{first} +NWC +PaS +CRF", seed, many, make, {**settings, **names}))
    return rows
