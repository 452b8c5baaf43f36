"""What a training method may change: the classifier, its layers while training, and the loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lidcam_training.methods.options import MethodOptions
from lidcam_training.models import Classifier

__all__ = ["Loss", "Method", "class_map"]

#: logits [N, K] and target to the mean loss
Loss = Callable[[Tensor, Tensor], Tensor]


class Method:
    """Plain training; each method of the literature overrides what it changes."""

    def check(self, options: MethodOptions, epochs: int) -> None:
        """Raise InputError if the options do not fit a run of this many epochs."""

    def spec(self, options: MethodOptions) -> dict[str, Any]:
        """Fields of `ClassifierSpec` that the method sets."""
        return {}

    def attach(self, model: Classifier, options: MethodOptions) -> None:
        """Add layers to the classifier, once, before training."""

    def loss(self, model: Classifier, options: MethodOptions, images: Tensor, target: Tensor, loss: Loss) -> Tensor:
        """Loss of a batch.

        Args:
            model: in training mode, built with the fields of `spec`.
            options: of the recipe.
            images: normalised, float [N, 3, H, W].
            target: int64 [N], or float [N, K] for several labels per picture: 1 present, 0 absent, -1 unknown.
            loss: of logits and target.

        Returns:
            A scalar.
        """
        return loss(model(images), target)


def class_map(maps: Tensor, target: Tensor) -> Tensor:
    """Maps [N, K, h, w] of the true classes: [N, h, w], without gradient, the sum where there are several."""
    if target.ndim == 2:
        return (maps.detach() * target.clamp(min=0)[:, :, None, None].to(maps.dtype)).sum(1)
    return maps.detach()[torch.arange(len(maps), device=maps.device), target]
