"""Adversarial erasing, AE (Wei et al., CVPR 2017)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lidcam_rt.errors import InputError
from lidcam_training.methods.method import Loss, Method, class_map
from lidcam_training.methods.options import MethodOptions
from lidcam_training.models import Classifier
from lidcam_training.models.ae import ErasingChain, class_maps
from lidcam_training.models.erasing import erase_regions

__all__ = ["AdversarialErasing"]


class AdversarialErasing(Method):
    """Each classifier of a chain learns on pictures without the regions to which those before it respond."""

    def check(self, options: MethodOptions, epochs: int) -> None:
        """Each classifier of the chain needs an epoch."""
        if not 1 <= options.rounds < epochs:
            raise InputError(
                f"recipe: method.rounds {options.rounds} must be 1 to epochs - 1 ({epochs - 1}): each "
                "classifier of the chain needs an epoch"
            )

    def spec(self, options: MethodOptions) -> dict[str, Any]:
        """Length of the chain, and the erasing threshold."""
        return {"rounds": options.rounds, "erase": options.threshold}

    def loss(self, model: Classifier, options: MethodOptions, images: Tensor, target: Tensor, loss: Loss) -> Tensor:
        """Loss of the classifier that is in training."""
        assert isinstance(model, ErasingChain)
        *finished, learning = model.classifiers[: model.active]
        with torch.no_grad():
            for classifier in finished:
                classifier.eval()
                maps = class_maps(classifier, classifier.forward_features(images))
                images = erase_regions(images, class_map(maps.float(), target), model.spec.erase)
        return loss(learning(images), target)
