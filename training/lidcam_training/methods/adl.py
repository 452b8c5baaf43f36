"""Attention-based dropout layer (Choe and Shim, CVPR 2019, section 3)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lidcam_rt.errors import InputError
from lidcam_training.methods.method import Loss, Method
from lidcam_training.methods.options import MethodOptions
from lidcam_training.models import Classifier

__all__ = ["AttentionDropout", "attach_attention_dropout", "attention_dropout"]


def attention_dropout(features: Tensor, drop_rate: float, threshold: float) -> Tensor:
    """Multiply by the drop mask or by the importance map of the channel-wise mean, one at random per batch.

    Args:
        features: [N, C, h, w].
        drop_rate: probability of the drop mask.
        threshold: the drop mask is 0 where the mean is above this share of its maximum.

    Returns:
        [N, C, h, w].
    """
    attention = features.mean(dim=1, keepdim=True)
    if torch.rand(()) < drop_rate:
        limit = threshold * attention.amax(dim=(2, 3), keepdim=True)
        return features * (attention < limit).to(features.dtype)
    return features * torch.sigmoid(attention)


def _stages(backbone: nn.Module) -> list[str]:
    """Names of the modules that end the backbone's stages (timm's feature_info), in order."""
    info: Any = getattr(backbone, "feature_info", None) or []
    entries = info.info if hasattr(info, "info") else info
    known = {name for name, _ in backbone.named_modules()}
    return [str(entry["module"]) for entry in entries if entry["module"] in known]


def attach_attention_dropout(
    backbone: nn.Module, layers: tuple[str, ...] | None, drop_rate: float, threshold: float
) -> tuple[str, ...]:
    """Apply the layer to outputs inside a backbone too, while it trains; in eval mode nothing changes.

    The paper puts it after several stages (pool3, pool4 and conv5-3 of VGG).

    Args:
        backbone: its named modules get a forward hook.
        layers: names of modules, for example layer2, layer3; None takes the two stages before the last.
        drop_rate: see `attention_dropout`.
        threshold: see `attention_dropout`.

    Returns:
        The names.

    Raises:
        InputError: no such module.
    """
    known = dict(backbone.named_modules())
    names = tuple(_stages(backbone)[:-1][-2:]) if layers is None else tuple(layers)
    for name in names:
        if not name or name not in known:
            near = ", ".join(_stages(backbone) or [key for key, _ in backbone.named_children()])
            raise InputError(f"method.layers: the backbone has no module {name!r}; stages: {near}")

        def hook(module: nn.Module, _: object, output: Tensor) -> Tensor | None:
            return attention_dropout(output, drop_rate, threshold) if module.training else None

        known[name].register_forward_hook(hook)
    return names


class AttentionDropout(Method):
    """The layer after stages of the backbone and after the last feature map."""

    def attach(self, model: Classifier, options: MethodOptions) -> None:
        """Add the layer to stages of the backbone."""
        attach_attention_dropout(model.backbone, options.layers, options.drop_rate, options.threshold)

    def loss(self, model: Classifier, options: MethodOptions, images: Tensor, target: Tensor, loss: Loss) -> Tensor:
        """Loss with the layer on the last feature map."""
        features = attention_dropout(model.forward_features(images), options.drop_rate, options.threshold)
        return loss(model.pool_and_classify(features), target)
