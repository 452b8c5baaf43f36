"""The training loss of each method on a batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lidcam_training.methods.adl import attention_dropout
from lidcam_training.methods.erasing import erase_features, erase_regions
from lidcam_training.methods.has import hide_patches
from lidcam_training.models.classifier import Classifier
from lidcam_training.models.fused import ErasingChain, FusedClassifier
from lidcam_training.recipe import MethodOptions

__all__ = ["objective"]

Loss = Callable[[Tensor, Tensor], Tensor]


def class_map(maps: Tensor, target: Tensor) -> Tensor:
    """Maps [N, K, h, w] of the true classes: [N, h, w], without gradient, the sum where there are several."""
    if target.ndim == 2:
        return (maps.detach() * target[:, :, None, None].to(maps.dtype)).sum(1)
    return maps.detach()[torch.arange(len(maps), device=maps.device), target]


def _complementary(model: FusedClassifier, images: Tensor, target: Tensor, loss: Loss, erase: float) -> Tensor:
    shared = model.shared_features(images)
    first = model.branch_a(shared)
    second = model.branch_b(erase_features(shared, class_map(first, target), erase))
    return loss(first.mean((2, 3)), target) + loss(second.mean((2, 3)), target)


def _erased(chain: ErasingChain, images: Tensor, target: Tensor) -> Tensor:
    """The pictures without what the finished classifiers of the chain find for the true classes."""
    with torch.no_grad():
        for step in list(chain.steps)[: chain.active - 1]:
            step.eval()
            maps = chain.maps(step, step.forward_features(images))
            images = erase_regions(images, class_map(maps.float(), target), chain.spec.erase)
    return images


def objective(model: Classifier, method: MethodOptions, images: Tensor, target: Tensor, loss: Loss) -> Tensor:
    """Loss of a batch.

    Args:
        model: in training mode; what the method needs, see `Recipe.classifier`.
        method: of the recipe.
        images: normalised, [N, 3, H, W].
        target: int64 [N], or float [N, K] for several labels.
        loss: of logits and target.
    """
    if isinstance(model, FusedClassifier):
        return _complementary(model, images, target, loss, method.threshold)
    if isinstance(model, ErasingChain):
        images = _erased(model, images, target)
        model = list(model.steps)[model.active - 1]  # type: ignore[assignment]
    if method.name == "has":
        images = hide_patches(images, method.grid, method.hide)
    features = model.forward_features(images)
    if method.name == "adl":
        features = attention_dropout(features, method.drop_rate, method.threshold)
    return loss(model.pool_and_classify(features), target)
