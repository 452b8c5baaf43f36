"""The chain of classifiers of AE (Wei et al., Object Region Mining with Adversarial Erasing, CVPR 2017)."""

from __future__ import annotations

import dataclasses
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from lidcam_training.models.classifier import Classifier
from lidcam_training.models.erasing import erase_regions, scaled
from lidcam_training.models.fusion import fused_features, fusing_head
from lidcam_training.models.spec import ClassifierSpec

__all__ = ["ErasingChain"]


def class_maps(classifier: Classifier, features: Tensor) -> Tensor:
    """The maps of all classes: F [N, C, h, w] to [N, K, h, w]."""
    return functional.conv2d(features, classifier.head_weight[:, :, None, None])


class ErasingChain(Classifier):
    """Classifiers that are each trained on pictures without the regions to which the earlier ones respond.

    The class is that of the first classifier. The map is the maximum of all maps, each scaled to 0..1 (the union of
    the regions at every threshold), where classifier i + 1 sees the picture with the regions erased that the first i
    found for the predicted class. The paper mines training pictures, whose classes are known.

    Attributes:
        active: number of classifiers that are trained or in training; the others are not run.
    """

    trained: Tensor

    def __init__(self, spec: ClassifierSpec) -> None:
        nn.Module.__init__(self)
        single = dataclasses.replace(spec, rounds=0)
        self.spec = spec
        self.steps = nn.ModuleList(Classifier(single) for _ in range(spec.rounds + 1))
        self.stride = self.classifiers[0].stride
        self.pooling, self.tap_threshold, self.pool = "gap", None, None
        self.head = fusing_head(spec.num_classes)
        self.active = 1
        self.register_buffer("trained", torch.tensor(1))
        register: Any = self.register_load_state_dict_post_hook
        register(lambda chain, _: chain.activate(int(chain.trained)))

    @property
    def classifiers(self) -> list[Classifier]:
        """All classifiers of the chain."""
        return [cast(Classifier, step) for step in self.steps]

    def activate(self, count: int) -> None:
        """Run the first `count` classifiers from now on."""
        self.active = count
        self.trained.fill_(count)

    def forward_features(self, x: Tensor) -> Tensor:
        """Float [N, 3, H, W], normalised, to [N, 2K, h, w], see `fused_features`."""
        first_classifier, *later = self.classifiers[: self.active]
        features = first_classifier.forward_features(x)
        first, logits = class_maps(first_classifier, features), first_classifier.pool_and_classify(features)
        label = logits.argmax(1)[:, None, None, None].expand(-1, -1, first.shape[2], first.shape[3])
        maps, fused = first, scaled(first)
        for classifier in later:
            x = erase_regions(x, maps.gather(1, label)[:, 0], self.spec.erase)
            maps = class_maps(classifier, classifier.forward_features(x))
            fused = torch.maximum(fused, scaled(maps))
        return fused_features(fused, first, logits)
