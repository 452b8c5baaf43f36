"""The rows of the Track 1 table that are made of activation maps: settings chosen on val, scored on other splits."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from lidcam_bench.data import ImageSet, Record
from lidcam_bench.evaluation.baseline import blob
from lidcam_bench.metrics import SegmentationScores
from lidcam_training.pseudo.maps import SplitMaps
from lidcam_training.pseudo.network import CheckpointNetwork
from lidcam_training.pseudo.options import PseudoOptions
from lidcam_training.pseudo.search import LEVELS, PERCENTILES, best_options, score_options

__all__ = ["ROWS", "MapRow", "SplitRows", "blob_scores", "choose", "score_row", "scored"]

SINGLE = PseudoOptions(scales=(1.0,), flip=False, nwc=False, percentile=100.0, crf=None)
MULTI = dataclasses.replace(SINGLE, scales=PseudoOptions().scales, flip=True)


@dataclass(frozen=True)
class MapRow:
    """A row: what is fixed, and whether the percentile is chosen too (the background level always is).

    Attributes:
        name: in the table.
        base: options without percentile and level.
        pas: choose the percentile; else it is the maximum.
    """

    name: str
    base: PseudoOptions
    pas: bool = False

    @property
    def percentiles(self) -> tuple[float, ...]:
        """Candidates."""
        return PERCENTILES if self.pas else (100.0,)


def _with(base: PseudoOptions, **changes: Any) -> PseudoOptions:
    return dataclasses.replace(base, **changes)


#: In the order of the table; rows with a CRF are candidates for the training labels.
ROWS = (
    MapRow("CAM, maximum, one scale", SINGLE),
    MapRow("CAM, maximum", MULTI),
    MapRow("CAM, PaS", MULTI, pas=True),
    MapRow("NWC, maximum", _with(MULTI, nwc=True)),
    MapRow("NWC, PaS", _with(MULTI, nwc=True), pas=True),
    MapRow("CAM, maximum, CRF", _with(MULTI, crf="psa")),
    MapRow("CAM, PaS, CRF", _with(MULTI, crf="psa"), pas=True),
    MapRow("NWC, maximum, CRF", _with(MULTI, nwc=True, crf="psa")),
    MapRow("NWC, PaS, CRF", _with(MULTI, nwc=True, crf="psa"), pas=True),
    MapRow("NWC, PaS, random walk", _with(MULTI, nwc=True, walk="colours"), pas=True),
    MapRow("NWC, PaS, random walk, CRF", _with(MULTI, nwc=True, walk="colours", crf="psa"), pas=True),
)


class _BothKinds(CheckpointNetwork):
    """Maps with all weights and with the clamped ones, [2K, h, w], from one run of the network."""

    @torch.inference_mode()
    def cams(
        self, batch: npt.NDArray[np.uint8], classes: Sequence[Sequence[int]], *, nwc: bool | None
    ) -> list[npt.NDArray[np.float32]]:
        """As the base class, both kinds one after the other whatever `nwc` says."""
        features, weight = self.features(batch).float(), self.model.head_weight.float()
        both = (weight, weight.clamp(min=0))
        return [
            np.concatenate([torch.einsum("chw,kc->khw", entry, rows[list(ids)]).numpy() for rows in both])
            for entry, ids in zip(features, classes, strict=True)
        ]


class SplitRows:
    """The maps of a split, made when a row first needs them.

    Args:
        checkpoint: of the CAM network.
        images: the split, with true label maps.
        limit: the first pictures only.
    """

    def __init__(self, checkpoint: Path, images: ImageSet, *, limit: int | None = None) -> None:
        self._network = _BothKinds(checkpoint)
        self.images, self._limit = images, limit
        self._kept: dict[tuple[Any, ...], SplitMaps] = {}

    def maps(self, options: PseudoOptions) -> SplitMaps:
        """The maps for the pictures' image labels, with the options' views and NWC."""
        views = (options.scales, options.flip)
        if (*views, options.nwc) not in self._kept:
            both = SplitMaps.run(self._network, self.images, options, limit=self._limit)
            self._kept[(*views, False)], self._kept[(*views, True)] = _kinds(both)
        return self._kept[(*views, options.nwc)]

    def predicted(self, options: PseudoOptions) -> tuple[SplitMaps, SplitMaps]:
        """The maps of the predicted classes, and those of the image labels, from one run of the network."""
        chosen: list[Sequence[int]] = []

        def either(record: Record, picture: npt.NDArray[np.uint8]) -> Sequence[int]:
            chosen.append(self._classes(picture))
            return tuple(dict.fromkeys((*record.labels, *chosen[-1])))

        every = SplitMaps.run(self._network, self.images, options, classes=either, limit=self._limit)
        maps = _kinds(every)[bool(options.nwc)]
        true = [record.labels for record in self.images.records[: self._limit]]
        return _of_classes(maps, chosen), _of_classes(maps, true)

    def _classes(self, picture: npt.NDArray[np.uint8]) -> Sequence[int]:
        """The classes of probability 0.5 or more, at least the best."""
        from lidcam_rt.image import network_input

        array: Any = network_input(picture, self._network.spec)
        p = self._network.probabilities(array[None])[0]
        found = np.flatnonzero(p >= 0.5)
        return [int(i) for i in found] if found.size else [int(p.argmax())]


def _kinds(both: SplitMaps) -> tuple[SplitMaps, SplitMaps]:
    """Maps of `_BothKinds` with all weights, and with the clamped ones."""
    plain, clamped = (
        [cam[part * len(ids) : (part + 1) * len(ids)] for cam, ids in zip(both.cams, both.classes, strict=True)]
        for part in (0, 1)
    )
    return dataclasses.replace(both, cams=plain), dataclasses.replace(both, cams=clamped)


def _of_classes(maps: SplitMaps, wanted: Sequence[Sequence[int]]) -> SplitMaps:
    """The maps of some of the classes that each picture has maps of."""
    cams = [
        cam[[list(ids).index(k) for k in chosen]]
        for cam, ids, chosen in zip(maps.cams, maps.classes, wanted, strict=True)
    ]
    return dataclasses.replace(maps, cams=cams, classes=list(wanted))


def scored(metric: SegmentationScores) -> dict[str, Any]:
    """Mean IoU of a metric, and of each bootstrap copy."""
    return {
        "mean_iou": metric.compute()["mean_iou"],
        "replicates": [round(copy["mean_iou"] or 0.0, 4) for copy in metric.replicate_scores()],
        "pictures": metric.images,
    }


def choose(row: MapRow, val: SplitRows) -> tuple[PseudoOptions, dict[str, Any]]:
    """The options of a row, chosen on val."""
    return best_options(val.maps(row.base), row.base, percentiles=row.percentiles, levels=LEVELS)


def score_row(options: PseudoOptions, maps: SplitMaps, replicates: int) -> dict[str, Any]:
    """A row's score on a split."""
    return scored(score_options(maps, [options], replicates=replicates)[0])


def blob_scores(images: ImageSet, replicates: int, limit: int | None = None) -> dict[str, Any]:
    """The centred blob, of the picture's first class: a score without a model."""
    metric = SegmentationScores(len(images.class_names) + 1, replicates=replicates)
    for record in images.records[:limit]:
        true = record.truth().label_map()
        if true is not None and record.labels:
            found = np.where(blob((true.shape[1], true.shape[0])) >= 128, np.uint8(record.labels[0] + 1), np.uint8(0))
            metric.update(found, true, key=f"{record.image.parent.name}/{record.image.name}")
    return scored(metric)
