"""The phenomena of the talk as numbers: P1 activation area, P2 signs of the weights, P3 sorted map values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from lidcam_training.models import Classifier

__all__ = ["Phenomena", "measure_phenomena"]


@dataclass(frozen=True, eq=False)
class Phenomena:
    """Of one picture and one class.

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


def _inside(values: npt.NDArray[np.float32], mask: npt.NDArray[np.uint8] | None) -> float:
    """Share of the map's area (above half its maximum) inside the mask (intersection over area)."""
    if mask is None or values.max() <= 0:
        return float("nan")
    import cv2

    large = cv2.resize(values, mask.shape[::-1], interpolation=cv2.INTER_LINEAR)
    area = large > 0.5 * large.max()
    return float((mask[area] == 1).mean())


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
    )
