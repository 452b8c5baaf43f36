"""The network of ACoL (Zhang et al., Adversarial Complementary Learning, CVPR 2018)."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn
from torch.nn import functional

from lidcam_rt.errors import InputError
from lidcam_training.models.classifier import Classifier
from lidcam_training.models.erasing import scaled
from lidcam_training.models.fusion import fused_features, fusing_head
from lidcam_training.models.spec import ClassifierSpec

__all__ = ["ComplementaryClassifier"]


class _Branch(nn.Module):
    """Two 3x3 convolutions and the maps of the classes (Zhang et al., section 3.3)."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        width = min(channels, 1024)
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.map = nn.Conv2d(width, classes, 1)
        nn.init.normal_(self.map.weight, std=0.01)
        assert self.map.bias is not None
        nn.init.zeros_(self.map.bias)

    def forward(self, features: Tensor) -> Tensor:
        maps: Tensor = self.map(functional.relu(self.conv2(functional.relu(self.conv1(features)))))
        return maps


class ComplementaryClassifier(Classifier):
    """Two complementary branches A and B on one backbone.

    The class is that of branch A; the map is the maximum of both maps, each scaled to 0..1. In training, B sees
    the features with the region that A responds to erased. GAP only.
    """

    def __init__(self, spec: ClassifierSpec) -> None:
        if spec.pooling != "gap":
            raise InputError("method acol averages its two maps: set model.pooling=gap")
        super().__init__(dataclasses.replace(spec, head="linear"))
        self.spec = spec
        channels, classes = self.head_weight.shape[1], spec.num_classes
        self.branch_a, self.branch_b = _Branch(channels, classes), _Branch(channels, classes)
        self.head = fusing_head(classes)

    def shared_features(self, x: Tensor) -> Tensor:
        """The input of both branches, [N, C, h, w]."""
        return super().forward_features(x)

    def forward_features(self, x: Tensor) -> Tensor:
        """Float [N, 3, H, W], normalised, to [N, 2K, h, w], see `fused_features`."""
        shared = self.shared_features(x)
        first, second = self.branch_a(shared), self.branch_b(shared)
        return fused_features(torch.maximum(scaled(first), scaled(second)), first, first.mean((2, 3)))
