"""The maps of a picture under every choice that needs the network: views, and weights clamped or signed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from lidcam_export.tuning.rewrite import OTHER
from lidcam_export.tuning.settings import Settings
from lidcam_rt.augment import Augment
from lidcam_rt.backends.base import Stop
from lidcam_rt.errors import DataError, InputError
from lidcam_rt.image import to_original_size
from lidcam_rt.localizer import Localizer
from lidcam_rt.pas import pas
from lidcam_rt.prepared import Outputs, Prepared
from lidcam_rt.results import Localization

__all__ = ["MapSource", "PictureMaps"]


@dataclass(frozen=True, eq=False)
class PictureMaps:
    """What the network says about one picture.

    Attributes:
        prepared: the picture.
        logits: float32 [classes], of one view.
        class_id: whose maps these are.
        cams: per scale float32 [2, V, h, w]: upright and mirrored; as exported, and by the other weights if V is 2.
    """

    prepared: Prepared
    logits: npt.NDArray[np.float32]
    class_id: int
    cams: dict[float, npt.NDArray[np.float32]]

    def cam(self, other: bool, views: Augment) -> npt.NDArray[np.float32]:
        """The map float32 [h, w] of these views."""
        sides = slice(None) if views.flip else slice(1)
        parts = [self.cams[scale][sides, int(other)][:, None] for scale in views.scales]
        if views == Augment():
            return np.asarray(parts[0][0, 0], np.float32)
        return np.asarray(views.merge(parts)[0], np.float32)


class MapSource:
    """Runs an artifact of `both_maps` on pictures.

    Args:
        localizer: the artifact.
        other: whether it has the maps by the other weights.
        nwc: whether its own weights are clamped.
        views: all that will be requested.
    """

    def __init__(self, localizer: Localizer, *, other: bool, nwc: bool, views: Sequence[Augment]) -> None:
        self.pipeline = localizer.pipeline
        self.manifest = localizer.manifest
        self._names = ("logits", "class_ids", "cam", *((OTHER,) if other else ()))
        self._nwc = nwc
        scales = sorted({scale for entry in views for scale in entry.scales} | {1.0})
        self._all = Augment(tuple(scales), flip=any(entry.flip for entry in views))

    def of(self, image: Any, label: int | None) -> PictureMaps:
        """The maps of a picture.

        Raises:
            DataError: it cannot be read.
        """
        pipeline = self.pipeline
        try:
            entry = pipeline.prepare(image, augment=self._all)
        except InputError as error:
            raise DataError(f"{error}; settings are chosen on every picture") from error
        wanted, top_k = -1 if label is None else label, self.manifest.top_k
        cams: dict[float, npt.NDArray[np.float32]] = {}
        logits: npt.NDArray[np.float32] | None = None
        order = sorted(range(len(self._all.scales)), key=lambda i: self._all.scales[i] != 1.0)
        for place in order:  # one view first: its class is that of all
            array = entry.views[place]
            labels = np.full((len(array), top_k), -1, np.int64) if self.manifest.labels_input else None
            if labels is not None:
                labels[:, 0] = wanted
            found: Outputs = {}
            for side in range(len(array)):
                row = None if labels is None else labels[side : side + 1]
                part = pipeline.call(array[side : side + 1], row, self._names, Stop(), None)
                pipeline.check.values(part, row, 1)
                found = {name: np.concatenate([found[name], value]) if name in found else value
                         for name, value in part.items()}  # fmt: skip
                if logits is None:
                    logits, wanted = part["logits"][0], int(part["class_ids"][0, 0])
                    if labels is not None:
                        labels[:, 0] = wanted
            maps = [found[name][:, 0] for name in self._names[2:]]
            cams[self._all.scales[place]] = np.stack(maps, axis=1)
        assert logits is not None
        return PictureMaps(replace(entry, views=()), logits, wanted, cams)

    def map8(
        self, maps: PictureMaps, settings: Settings
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], float]:
        """The localization map at the network's size and at the picture's, and its threshold."""
        spec = self.manifest.input
        options = replace(self.manifest.pas, percentile=settings.percentile, theta=settings.theta)
        cam = maps.cam(settings.nwc != self._nwc, settings.views)
        made = pas(cam[None, None], (spec.height, spec.width), options)
        full = to_original_size(made.map[0, 0], maps.prepared.size, spec)
        return made.map[0, 0], full, float(made.threshold[0, 0])

    def localize(self, maps: PictureMaps, settings: Settings) -> Localization:
        """What an artifact with these settings would return."""
        from lidcam_rt.crf import Refine

        map8, _, threshold = self.map8(maps, settings)
        outputs: Outputs = {
            "logits": maps.logits[None],
            "class_ids": np.array([[maps.class_id]], np.int64),
            "map8": map8[None, None],
            "threshold": np.array([[threshold]], np.float32),
        }
        return self.pipeline.finish(maps.prepared, outputs, refine=Refine.of(settings.refine))
