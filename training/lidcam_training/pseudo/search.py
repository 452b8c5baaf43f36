"""Settings of pseudo labels, chosen on a split with true label maps other than the one that is scored."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
from lidcam_bench.data import ImageSet
from lidcam_bench.metrics import SegmentationScores

from lidcam_rt.backends.base import usable_cores
from lidcam_rt.errors import InputError
from lidcam_training.pseudo.labels import class_maps, label_map
from lidcam_training.pseudo.maps import SplitMaps
from lidcam_training.pseudo.network import CamNetwork
from lidcam_training.pseudo.options import PseudoOptions

__all__ = ["LEVELS", "PERCENTILES", "best_options", "choose_settings", "score_options"]

PERCENTILES = (99.0, 98.0, 95.0, 90.0)
LEVELS = tuple(float(v) for v in np.round(np.arange(0.1, 0.91, 0.1), 2))
#: Pictures on which a setting with a CRF is chosen.
_CRF_CHOICE = 300


def score_options(
    maps: SplitMaps, settings: Sequence[PseudoOptions], *, limit: int | None = None, replicates: int = 0
) -> list[SegmentationScores]:
    """Score settings that differ in the background only; each picture's maps are normalised, and walked, once.

    Args:
        maps: the split, with the views and NWC that the settings name.
        settings: all with one percentile, and all with or all without the walk.
        limit: the first pictures only.
        replicates: bootstrap copies.
    """
    metrics = [SegmentationScores(maps.labels, replicates=replicates) for _ in settings]

    def labels(i: int) -> list[npt.NDArray[np.uint8]]:
        entry = maps[i]
        ready = class_maps(entry.picture, entry.cams, settings[0], entry.features)
        return [label_map(entry.picture, ready, entry.classes, options) for options in settings]

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
        maps: the split on which they are chosen, with the views and NWC of `base`.
        base: everything else.
        percentiles: candidates.
        levels: candidates; those with a CRF are tried on the first 300 pictures.

    Returns:
        The options, and what was tried: split, pictures, and the mean IoU of each candidate.
    """
    tried: list[dict[str, float]] = []
    limit = None if base.crf is None else _CRF_CHOICE
    best: tuple[float, PseudoOptions] | None = None
    for percentile in percentiles:
        settings = [dataclasses.replace(base, percentile=percentile, level=level) for level in levels]
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
        base: everything else; an NWC setting in it is kept.

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
