"""Attention-based dropout layer (Choe and Shim, CVPR 2019, section 3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lidcam_rt.errors import InputError

__all__ = ["attach_attention_dropout", "attention_dropout"]


def attention_dropout(features: Tensor, drop_rate: float, threshold: float) -> Tensor:
    """Multiply with the drop mask or with the importance map of the channel-wise mean, one at random per batch.

    Args:
        features: [N, C, h, w].
        drop_rate: probability of the drop mask.
        threshold: the drop mask is 0 where the mean is above so much of its maximum.

    Returns:
        [N, C, h, w].
    """
    attention = features.mean(dim=1, keepdim=True)
    if torch.rand(()) < drop_rate:
        limit = threshold * attention.amax(dim=(2, 3), keepdim=True)
        return features * (attention < limit).to(features.dtype)
    return features * torch.sigmoid(attention)


def _stages(backbone: nn.Module) -> list[str]:
    """The modules that end the backbone's stages, by its own account (timm's feature_info), in order."""
    info = getattr(backbone, "feature_info", None) or []
    listed = info.info if hasattr(info, "info") else info
    return [str(entry["module"]) for entry in listed if dict(backbone.named_modules()).get(entry["module"])]


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
            near = ", ".join([*_stages(backbone)] or [key for key, _ in backbone.named_children()])
            raise InputError(f"method.layers: the backbone has no module {name!r}; stages: {near}")

        def hook(module: nn.Module, _: object, output: Tensor) -> Tensor | None:
            return attention_dropout(output, drop_rate, threshold) if module.training else None

        known[name].register_forward_hook(hook)
    return names
