"""Two classifiers whose maps are fused by the maximum, as one classifier that exports like any other.

ACoL (Zhang et al., CVPR 2018) and AE (Wei et al., CVPR 2017) scale their maps to 0..1 before they fuse them.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn
from torch.nn import functional

from lidcam_rt.errors import InputError
from lidcam_training.methods.erasing import erase_regions, scaled
from lidcam_training.models.classifier import Classifier, ClassifierSpec

__all__ = ["ErasingChain", "FusedClassifier"]


def fused_features(fused: Tensor, first: Tensor, logits: Tensor) -> Tensor:
    """Features of a classifier whose clamped map is `fused` and whose logits are `logits`.

    With the head [I, -I] over [S, S - A'], A' = A - mean A + logits: the mean over the pixels gives the logits; the
    map with negative weights clamped is S, the fused one; without clamping it is A', the first classifier's own
    map up to a constant.

    Args:
        fused: S, [N, K, h, w].
        first: A, [N, K, h, w].
        logits: [N, K].

    Returns:
        [N, 2K, h, w].
    """
    own = first - first.mean((2, 3), keepdim=True) + logits[:, :, None, None]
    return torch.cat([fused, fused - own], dim=1)


def fusing_head(classes: int) -> nn.Linear:
    """The fixed head [I, -I] of `fused_features`, without a bias to learn."""
    head = nn.Linear(2 * classes, classes)
    with torch.no_grad():
        head.weight.copy_(torch.cat([torch.eye(classes), -torch.eye(classes)], dim=1))
        head.bias.zero_()
    return head.requires_grad_(False)


class _Branch(nn.Module):
    """Two 3x3 convolutions and the maps of the classes (Zhang et al., section 3.3)."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        width = min(channels, 1024)
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.map = nn.Conv2d(width, classes, 1)
        nn.init.normal_(self.map.weight, std=0.01)
        nn.init.zeros_(self.map.bias)

    def forward(self, features: Tensor) -> Tensor:
        return self.map(functional.relu(self.conv2(functional.relu(self.conv1(features)))))


class FusedClassifier(Classifier):
    """ACoL: two complementary branches A and B on one backbone.

    The class is what branch A says; the map is the maximum of both maps, each scaled to 0..1. In training, B sees
    the features without the region that A found. GAP only.
    """

    def __init__(self, spec: ClassifierSpec) -> None:
        if spec.pooling != "gap":
            raise InputError("method acol averages its two maps: set model.pooling=gap")
        super().__init__(dataclasses.replace(spec, head="linear"))
        self.spec = spec
        channels, classes = self.head.weight.shape[1], spec.num_classes
        self.branch_a, self.branch_b = _Branch(channels, classes), _Branch(channels, classes)
        self.head = fusing_head(classes)

    def shared_features(self, x: Tensor) -> Tensor:
        """What both branches see: [N, C, h, w]."""
        return super().forward_features(x)

    def forward_features(self, x: Tensor) -> Tensor:
        """Float [N, 3, H, W], normalised, to [N, 2K, h, w], see `fused_features`."""
        shared = self.shared_features(x)
        first, second = self.branch_a(shared), self.branch_b(shared)
        return fused_features(torch.maximum(scaled(first), scaled(second)), first, first.mean((2, 3)))


class ErasingChain(Classifier):
    """AE: a chain of classifiers, each trained on pictures without what those before it found.

    The class is what the first says. Its map is the maximum of all maps, each scaled to 0..1 (the union of the
    regions at every threshold), where classifier i + 1 sees the picture with the regions erased that the i before it
    found for the predicted class. The paper mines training pictures, whose classes are known.

    Attributes:
        steps: the classifiers.
        active: how many are trained or in training; the others are not run.
    """

    def __init__(self, spec: ClassifierSpec) -> None:
        nn.Module.__init__(self)
        alone = dataclasses.replace(spec, rounds=0)
        self.spec = spec
        self.steps = nn.ModuleList(Classifier(alone) for _ in range(spec.rounds + 1))
        self.stride = self.steps[0].stride
        self.pooling, self.tap_threshold, self.pool = "gap", None, None
        self.head = fusing_head(spec.num_classes)
        self.active = 1
        self.register_buffer("trained", torch.tensor(1))
        self.register_load_state_dict_post_hook(lambda module, _: module.activate(int(module.trained)))

    def activate(self, count: int) -> None:
        """Run the first `count` classifiers from now on."""
        self.active = count
        self.trained.fill_(count)

    @staticmethod
    def maps(step: Classifier, features: Tensor) -> Tensor:
        """The maps of all classes: [N, K, h, w]."""
        return functional.conv2d(features, step.head_weight[:, :, None, None])

    def forward_features(self, x: Tensor) -> Tensor:
        """Float [N, 3, H, W], normalised, to [N, 2K, h, w], see `fused_features`."""
        features = self.steps[0].forward_features(x)
        first, logits = self.maps(self.steps[0], features), self.steps[0].pool_and_classify(features)
        label = logits.argmax(1)[:, None, None, None].expand(-1, -1, first.shape[2], first.shape[3])
        maps, fused = first, scaled(first)
        for step in list(self.steps)[1 : self.active]:
            x = erase_regions(x, maps.gather(1, label)[:, 0], self.spec.erase)
            maps = self.maps(step, step.forward_features(x))
            fused = torch.maximum(fused, scaled(maps))
        return fused_features(fused, first, logits)
