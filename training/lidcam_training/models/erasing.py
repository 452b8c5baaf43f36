"""Erasing the region of a map (AE: Wei et al., CVPR 2017; ACoL: Zhang et al., CVPR 2018)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["erase_features", "erase_regions", "scaled"]


def scaled(maps: Tensor) -> Tensor:
    """Maps [..., h, w] scaled to 0..1 by their minimum and maximum; a constant map gives 0."""
    low, high = maps.amin((-2, -1), keepdim=True), maps.amax((-2, -1), keepdim=True)
    return (maps - low) / (high - low + 1e-10)


def _region(maps: Tensor, threshold: float) -> Tensor:
    """Where maps [N, h, w], scaled to 0..1, are above the threshold: bool [N, 1, h, w]."""
    return (scaled(maps) > threshold)[:, None]


def erase_features(features: Tensor, maps: Tensor, threshold: float) -> Tensor:
    """ACoL: features [N, C, h, w], 0 where the maps [N, h, w] of the first branch are above the threshold."""
    return features * (~_region(maps.detach(), threshold)).to(features.dtype)


def erase_regions(images: Tensor, maps: Tensor, threshold: float) -> Tensor:
    """AE: normalised pictures [N, 3, H, W], the data mean (0) where the maps are above the threshold."""
    large = functional.interpolate(maps.detach()[:, None], images.shape[-2:], mode="bilinear")[:, 0]
    return torch.where(_region(large, threshold), torch.zeros_like(images), images)
