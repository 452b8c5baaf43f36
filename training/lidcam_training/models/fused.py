"""ACoL's two complementary branches as one classifier (Zhang et al., CVPR 2018), maps fused by the "
"maximum.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn
from torch.nn import functional

from lidcam_rt.errors import InputError
from lidcam_training.models.classifier import Classifier, ClassifierSpec

__all__ = ["FusedClassifier"]


class _Branch(nn.Module):
    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.map = nn.Conv2d(channels, classes, 1, bias=False)
        nn.init.normal_(self.map.weight, std=0.01)

    def forward(self, features: Tensor) -> Tensor:
        return self.map(functional.relu(self.conv(features)))


class FusedClassifier(Classifier):
    """Two branches of maps A and B; the map of a class is max(A, B), which is relu(A - B) + B.

    So `forward_features` gives [relu(A - B), B], 2K channels, and `head` is the fixed weight [I, I]: an
    exporter that forms head(F) forms the maximum exactly, and clamping negative weights changes nothing. The
    paper scales each map to 0..1 before the maximum; here the raw maps are compared, so that it is one graph
    for every class. GAP only.
    """

    def __init__(self, spec: ClassifierSpec) -> None:
        if spec.pooling != "gap":
            raise InputError("method acol averages its two maps: set model.pooling=gap")
        super().__init__(dataclasses.replace(spec, head="linear"))
        self.spec = spec
        channels, classes = self.head.weight.shape[1], spec.num_classes
        self.branch_a, self.branch_b = _Branch(channels, classes), _Branch(channels, classes)
        self.head = nn.Linear(2 * classes, classes)
        with torch.no_grad():
            self.head.weight.copy_(torch.eye(classes).repeat(1, 2))
            self.head.bias.zero_()
        self.head.weight.requires_grad_(False)

    def shared_features(self, x: Tensor) -> Tensor:
        """What both branches see: [N, C, h, w]."""
        return super().forward_features(x)

    def forward_features(self, x: Tensor) -> Tensor:
        """Float [N, 3, H, W], normalised, to [relu(A - B), B], [N, 2K, h, w]."""
        shared = self.shared_features(x)
        first, second = self.branch_a(shared), self.branch_b(shared)
        return torch.cat([functional.relu(first - second), second], dim=1)
