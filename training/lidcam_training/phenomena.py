"""The phenomena of the talk as numbers: P1 activation area, P2 signs of the weights, P3 sorted map values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from lidcam_training.models import Classifier

__all__ = ["Phenomena", "crf_gain", "measure_phenomena"]


@dataclass(frozen=True, eq=False)
class Phenomena:
    """Measurements of one picture and one class.

    Attributes:
        area: float [C], share of pixels with F_c above the TAP threshold (0.05 for gap).
        pooled: float [C], the value that the head sees.
        weight: float [C], w[k, c].
        positive_ioa: share of the area of the positive-weight map (above half its maximum) that lies in the
            mask; nan without a mask.
        negative_ioa: the same for the negative-weight map.
        values: float [h * w], the map's values, largest first.
        percentile_threshold: theta * percentile of the map.
        maximum_threshold: theta * maximum of the map.
        maps: float [2, h, w], the maps of the positive and of the negative weights.
        object_share: share of the picture that the object covers; nan without a mask.
    """

    area: npt.NDArray[np.float32]
    pooled: npt.NDArray[np.float32]
    weight: npt.NDArray[np.float32]
    positive_ioa: float
    negative_ioa: float
    values: npt.NDArray[np.float32]
    percentile_threshold: float
    maximum_threshold: float
    maps: npt.NDArray[np.float32]
    object_share: float = float("nan")

    @property
    def area_spread(self) -> float:
        """P1: standard deviation of the active area over its mean, over active channels; nan for fewer than three."""
        active = self.area[self.area > 0]
        return float(active.std() / active.mean()) if active.size >= 3 else float("nan")

    @property
    def area_weight_correlation(self) -> float:
        """P1: Spearman's rank correlation of active area and weight, over active channels of positive weight.

        nan for fewer than three of them, or where all are alike.
        """
        from scipy.stats import rankdata

        chosen = (self.area > 0) & (self.weight > 0)
        if chosen.sum() < 3:
            return float("nan")
        ranks = [rankdata(values[chosen]) for values in (self.area, self.weight)]
        if min(float(np.ptp(entry)) for entry in ranks) == 0:
            return float("nan")
        return float(np.corrcoef(*ranks)[0, 1])

    @property
    def negative_overlap(self) -> float:
        """P2 without a mask: share of the negative map's area in the positive one's, minus the latter's share.

        Areas are those above half the maximum; nan where one map is empty.
        """
        if min(float(entry.max()) for entry in self.maps) <= 0:
            return float("nan")
        positive, negative = (entry > 0.5 * entry.max() for entry in self.maps)
        return float(positive[negative].mean() - positive.mean())

    @property
    def peak(self) -> float:
        """P3: maximum of the map over its 98th percentile; nan where that is 0."""
        standard = float(np.percentile(self.values, 98))
        return float(self.values[0]) / standard if standard > 0 else float("nan")


def _inside(values: npt.NDArray[np.float32], mask: npt.NDArray[np.uint8] | None) -> float:
    """Share of the map's area (above half its maximum) inside the mask (intersection over area)."""
    if mask is None or values.max() <= 0:
        return float("nan")
    import cv2

    large = cv2.resize(values, mask.shape[::-1], interpolation=cv2.INTER_LINEAR)
    area = large > 0.5 * large.max()
    counted = area & (mask != 255)
    return float((mask[counted] == 1).mean()) if counted.any() else float("nan")


@torch.no_grad()
def measure_phenomena(
    model: Classifier,
    image: torch.Tensor,
    label: int | None = None,
    *,
    mask: npt.NDArray[np.uint8] | None = None,
    percentile: float = 98.0,
    theta: float = 0.35,
) -> Phenomena:
    """Measure one picture.

    Args:
        model: in eval mode.
        image: normalised, [1, 3, H, W].
        label: class; None for the predicted one.
        mask: uint8 [height, width], 1 the object.
        percentile: of PaS, 0 to 100.
        theta: of PaS, 0 to 1.
    """
    features = model.forward_features(image)
    if label is None:
        label = int(model.pool_and_classify(features).argmax())
    pooled = features.mean((2, 3)) if model.pool is None else model.pool(features)
    limit = (model.tap_threshold if model.tap_threshold is not None else 0.05) * features.amax(
        (2, 3), keepdim=True
    )
    weight = model.head_weight[label].numpy()
    planes = features[0].numpy()
    positive = np.tensordot(np.maximum(weight, 0), planes, 1)
    negative = np.tensordot(np.maximum(-weight, 0), planes, 1)
    values = np.sort(positive.ravel())[::-1]
    return Phenomena(
        area=(features > limit).float().mean((2, 3))[0].numpy(),
        pooled=pooled[0].numpy(),
        weight=weight,
        positive_ioa=_inside(positive, mask),
        negative_ioa=_inside(negative, mask),
        values=values,
        percentile_threshold=float(theta * np.percentile(positive, percentile)),
        maximum_threshold=float(theta * values[0]),
        maps=np.stack([positive, negative]),
        object_share=float("nan") if mask is None else float((mask == 1).sum() / max(int((mask != 255).sum()), 1)),
    )


def crf_gain(
    phenomena: Phenomena,
    picture: npt.NDArray[np.uint8],
    mask: npt.NDArray[np.uint8],
    *,
    percentile: float = 98.0,
    theta: float = 0.35,
) -> float:
    """Mask IoU that the dense CRF (preset psa, at the network's size) adds to the mask of the positive weights' map.

    Args:
        phenomena: of the picture.
        picture: uint8 [H, W, 3] RGB, at the network's size.
        mask: uint8 [height, width], 1 the object, 255 ignored.
        percentile: of PaS, 0 to 100.
        theta: of PaS, 0 to 1.
    """
    import cv2

    from lidcam_rt.crf import Refine
    from lidcam_rt.pas import PasOptions, pas

    size = (picture.shape[0], picture.shape[1])
    made = pas(phenomena.maps[0][None, None], size, PasOptions(percentile, theta))
    map8, level = made.map[0, 0], int(made.threshold[0, 0])
    refined = Refine("psa-fast").apply(picture, map8, level)
    ious = []
    for values, above in ((map8, level), (refined, Refine.level)):
        large = cv2.resize(values, mask.shape[::-1], interpolation=cv2.INTER_LINEAR) > above
        union = int(((large | (mask == 1)) & (mask != 255)).sum())
        ious.append(int((large & (mask == 1)).sum()) / union if union else 1.0)
    return ious[1] - ious[0]
