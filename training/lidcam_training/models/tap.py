"""Thresholded average pooling (Bae, Noh, Kim: Rethinking CAM for WSOL, ECCV 2020, section 3.1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lidcam_rt.errors import InputError

__all__ = ["ThresholdedAveragePooling", "thresholded_average_pool"]


def thresholded_average_pool(features: Tensor, threshold: float) -> Tensor:
    """Mean over the pixels of a channel that exceed a share of the channel's maximum.

    p_c = sum 1(F_c > t_c) F_c / sum 1(F_c > t_c), t_c = threshold * max F_c, per image and channel; a channel
    with no pixel above t_c gives 0. The count is of F > t_c, not of positive thresholded values as in the
    released
    code: the two differ where F is negative. The indicator and t_c carry no gradient.

    Args:
        features: float [N, C, h, w]. Half precision is summed in float32.
        threshold: share of the maximum, 0 to 1.

    Returns:
        [N, C] in the dtype of `features`.
    """
    wide = features.float() if features.dtype in (torch.float16, torch.bfloat16) else features
    limit = threshold * wide.detach().amax(dim=(2, 3), keepdim=True)
    active = wide > limit
    total = torch.where(active, wide, torch.zeros_like(wide)).sum(dim=(2, 3))
    count = active.to(wide.dtype).sum(dim=(2, 3)).clamp(min=1)
    return (total / count).to(features.dtype)


class ThresholdedAveragePooling(nn.Module):
    """`thresholded_average_pool` as a module.

    Args:
        threshold: share of a channel's maximum that a pixel must exceed, 0 to 1 (0.05 in the LID talk, 0.1
            for the VGG16 of the ECCV paper).

    Raises:
        InputError: the threshold is not within 0 to 1.
    """

    def __init__(self, threshold: float = 0.05) -> None:
        super().__init__()
        if not 0.0 <= threshold <= 1.0:
            raise InputError(f"tap_threshold {threshold} is a share of the channel's maximum: give 0 to 1")
        self.threshold = float(threshold)

    def forward(self, features: Tensor) -> Tensor:
        """[N, C, h, w] to [N, C]."""
        return thresholded_average_pool(features, self.threshold)

    def extra_repr(self) -> str:
        """The threshold, for print(model)."""
        return f"threshold={self.threshold}"
