"""Hide-and-Seek (Singh and Lee, ICCV 2017, section 3.1)."""

from __future__ import annotations

import torch
from torch import Tensor

from lidcam_training.methods.method import Loss, Method
from lidcam_training.methods.options import MethodOptions
from lidcam_training.models import Classifier

__all__ = ["HideAndSeek", "hide_patches"]


def hide_patches(images: Tensor, grid: int, probability: float) -> Tensor:
    """Hide random patches of every picture; a hidden patch gets the data mean, 0 after normalisation.

    Args:
        images: normalised, [N, 3, H, W].
        grid: patches per side.
        probability: that a patch is hidden.

    Returns:
        [N, 3, H, W].
    """
    n, _, height, width = images.shape
    keep = (torch.rand(n, 1, grid, grid, device=images.device) >= probability).to(images.dtype)
    rows = torch.arange(height, device=images.device) * grid // height
    columns = torch.arange(width, device=images.device) * grid // width
    return images * keep[:, :, rows][:, :, :, columns]


class HideAndSeek(Method):
    """The classifier sees pictures with random patches hidden."""

    def loss(self, model: Classifier, options: MethodOptions, images: Tensor, target: Tensor, loss: Loss) -> Tensor:
        """Loss of the pictures with hidden patches."""
        return loss(model(hide_patches(images, options.grid, options.hide)), target)
