"""Attention-based dropout layer (Choe and Shim, CVPR 2019, section 3)."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["attention_dropout"]


def attention_dropout(features: Tensor, drop_rate: float, threshold: float) -> Tensor:
    """Multiply with the drop mask or with the importance map of the channel-wise mean, one at random per
    batch.

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
