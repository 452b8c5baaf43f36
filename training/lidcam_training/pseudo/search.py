"""Settings of pseudo labels, chosen on a split with true label maps that is not the one that is scored."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from lidcam_bench.data import ImageSet
from lidcam_bench.metrics import SegmentationScores

from lidcam_rt.backends.base import usable_cores
from lidcam_rt.errors import DataError, InputError
from lidcam_training.pseudo.labels import label_map, normalised
from lidcam_training.pseudo.network import CamNetwork
from lidcam_training.pseudo.options import PseudoOptions
from lidcam_training.pseudo.run import read_batches

__all__ = ["LEVELS", "PERCENTILES", "SplitMaps", "best_options", "choose_settings", "score_options"]

PERCENTILES = (98.0, 95.0, 90.0)
LEVELS = tuple(float(v) for v in np.round(np.arange(0.1, 0.91, 0.1), 2))
#: Pictures on which a setting with a CRF is chosen.
_CRF_CHOICE = 150


@dataclass(frozen=True, eq=False)
class SplitMaps:
    """A split with the averaged activation maps of its pictures.

    Attributes:
        name: of the split.
        labels: number of labels, background included.
        keys: names of the pictures, for the bootstrap.
        pictures: uint8 [H, W, 3] each.
        classes: class indices of each.
        cams: float16 [K, h, w] each.
        truth: uint8 [H, W] each.
    """

    name: str
    labels: int
    keys: list[str]
    pictures: list[npt.NDArray[np.uint8]]
    classes: list[Sequence[int]]
    cams: list[npt.NDArray[np.float16]]
    truth: list[npt.NDArray[np.uint8]]

    @classmethod
    def run(
        cls,
        network: CamNetwork,
        images: ImageSet,
        options: PseudoOptions,
        *,
        classes: Callable[..., Sequence[int]] | None = None,
        limit: int | None = None,
    ) -> SplitMaps:
        """Run a network over a split, once.

        Args:
            network: of `open_network`.
            images: with true label maps.
            options: views and NWC.
            classes: of a picture, called with its record and pixels; None: its image labels.
            limit: the first pictures only.

        Raises:
            DataError: a picture has no true label map, or cannot be read.
        """
        out = cls(images.name, len(images.class_names) + 1, [], [], [], [], [])
        records = images.records[:limit]
        chosen_of = classes or (lambda record, _: record.labels)
        for batch, pictures, ids, cams in read_batches(network, records, options, classes=chosen_of):
            for index, picture, chosen, cam in zip(batch, pictures, ids, cams, strict=True):
                record = records[index]
                true = None if record.mask is None else record.truth().label_map()
                if true is None:
                    raise DataError(f"{record.image} has no true label map: choose settings on a split that has them")
                out.keys.append(f"{record.image.parent.name}/{record.image.name}")
                out.pictures.append(picture)
                out.classes.append(chosen)
                out.cams.append(cam.astype(np.float16))
                out.truth.append(true)
        return out

    def __len__(self) -> int:
        return len(self.pictures)


def score_options(
    maps: SplitMaps, settings: Sequence[PseudoOptions], *, limit: int | None = None, replicates: int = 0
) -> list[SegmentationScores]:
    """Score several settings of one percentile on a split; each picture's maps are normalised once.

    Args:
        maps: the split, of the views and NWC that the settings name.
        settings: all of one percentile.
        limit: the first pictures only.
        replicates: bootstrap copies.
    """
    metrics = [SegmentationScores(maps.labels, replicates=replicates) for _ in settings]

    def labels(i: int) -> list[npt.NDArray[np.uint8]]:
        picture = maps.pictures[i]
        size = (picture.shape[1], picture.shape[0])
        ready = normalised(maps.cams[i].astype(np.float32), size, settings[0].percentile)
        return [label_map(picture, ready, maps.classes[i], options) for options in settings]

    with ThreadPoolExecutor(usable_cores()) as pool:
        for i, made in enumerate(pool.map(labels, range(min(len(maps), limit or len(maps))))):
            for metric, found in zip(metrics, made, strict=True):
                metric.update(found, maps.truth[i], key=maps.keys[i])
    return metrics


def best_options(
    maps: SplitMaps,
    base: PseudoOptions,
    *,
    percentiles: Iterable[float] = PERCENTILES,
    levels: Sequence[float] = LEVELS,
) -> tuple[PseudoOptions, dict[str, Any]]:
    """The percentile and background level with the highest mean IoU.

    Args:
        maps: the split on which it is chosen, of the views and NWC of `base`.
        base: everything else.
        percentiles: candidates.
        levels: candidates; with a CRF every second one, on the first 150 pictures.

    Returns:
        The options, and what was tried: split, pictures, and the mean IoU of each candidate.
    """
    tried: list[dict[str, float]] = []
    slow = base.crf is not None
    limit = _CRF_CHOICE if slow else None
    chosen = list(levels)[::2] if slow else list(levels)
    best: tuple[float, PseudoOptions] | None = None
    for percentile in percentiles:
        settings = [dataclasses.replace(base, percentile=percentile, level=level) for level in chosen]
        for options, metric in zip(settings, score_options(maps, settings, limit=limit), strict=True):
            iou = metric.compute()["mean_iou"] or 0.0
            tried.append({"percentile": percentile, "level": options.level, "mean_iou": round(iou, 3)})
            if best is None or iou > best[0]:
                best = iou, options
    assert best is not None
    return best[1], {"split": maps.name, "pictures": min(len(maps), limit or len(maps)), "tried": tried}


def choose_settings(
    network: CamNetwork, images: ImageSet, base: PseudoOptions
) -> tuple[PseudoOptions, dict[str, Any]]:
    """The percentile, the background level and, where the network can do both, NWC or not, chosen on a split.

    Args:
        network: of `open_network`.
        images: the split, with true label maps.
        base: everything else; an NWC that it names is kept.

    Returns:
        The options, and what was tried.
    """
    found: list[tuple[float, PseudoOptions, dict[str, Any]]] = []
    for nwc in (False, True) if base.nwc is None else (base.nwc,):
        try:
            network.signed(nwc)
        except InputError:  # an artifact has one kind of map
            continue
        options = dataclasses.replace(base, nwc=nwc)
        chosen, tried = best_options(SplitMaps.run(network, images, options), options)
        iou = max(entry["mean_iou"] for entry in tried["tried"])
        found.append((iou, chosen, {**tried, "nwc": nwc}))
    iou, chosen, _ = max(found, key=lambda entry: entry[0])
    return chosen, {"chosen": chosen.to_dict(), "mean_iou": iou, "tried": [entry[2] for entry in found]}
