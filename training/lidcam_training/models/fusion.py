"""Two maps fused by their maximum, in the form of one classifier that exports like any other.

ACoL (Zhang et al., CVPR 2018) and AE (Wei et al., CVPR 2017) scale their maps to 0..1 before they fuse them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["fused_features", "fusing_head"]


def fused_features(fused: Tensor, first: Tensor, logits: Tensor) -> Tensor:
    """Features of a classifier whose clamped map is `fused` and whose logits are `logits`.

    With the head [I, -I] over [S, S - A'], A' = A - mean A + logits: the mean over the pixels gives the logits; the
    map with negative weights clamped is S, the fused one; without clamping it is A', the map of the first
    classifier up to a constant.

    Args:
        fused: S, [N, K, h, w].
        first: A, [N, K, h, w].
        logits: [N, K].

    Returns:
        [N, 2K, h, w].
    """
    shifted = first - first.mean((2, 3), keepdim=True) + logits[:, :, None, None]
    return torch.cat([fused, fused - shifted], dim=1)


def fusing_head(classes: int) -> nn.Linear:
    """The fixed head [I, -I] of `fused_features`, without a bias to learn."""
    head = nn.Linear(2 * classes, classes)
    with torch.no_grad():
        head.weight.copy_(torch.cat([torch.eye(classes), -torch.eye(classes)], dim=1))
        assert head.bias is not None
        head.bias.zero_()
    return head.requires_grad_(False)
