"""Adversarial complementary learning, ACoL (Zhang et al., CVPR 2018)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lidcam_training.methods.method import Loss, Method, class_map
from lidcam_training.methods.options import MethodOptions
from lidcam_training.models import Classifier
from lidcam_training.models.acol import ComplementaryClassifier
from lidcam_training.models.erasing import erase_features

__all__ = ["ComplementaryLearning"]


class ComplementaryLearning(Method):
    """The second branch learns on features without the region to which the first responds."""

    def spec(self, options: MethodOptions) -> dict[str, Any]:
        """Two branches."""
        return {"branches": 2}

    def loss(self, model: Classifier, options: MethodOptions, images: Tensor, target: Tensor, loss: Loss) -> Tensor:
        """Sum of the losses of both branches."""
        assert isinstance(model, ComplementaryClassifier)
        shared = model.shared_features(images)
        first = model.branch_a(shared)
        second = model.branch_b(erase_features(shared, class_map(first, target), options.threshold))
        return loss(first.mean((2, 3)), target) + loss(second.mean((2, 3)), target)
