"""What the artifact's graph needs from a head."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from lidcam_export.structure import Structure, Tail
from lidcam_rt.artifact import Manifest

__all__ = ["Head"]


class Head(nn.Module, ABC):
    """Logits and activation maps of a classifier; traced into the artifact.

    Args:
        structure: the classifier taken apart.
        manifest: of the artifact.
    """

    @abstractmethod
    def __init__(self, structure: Structure | Tail, manifest: Manifest) -> None:
        super().__init__()

    @abstractmethod
    def classify(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised pictures, float [N, 3, H, W], to features [N, C, h, w] and logits [N, K]."""

    @abstractmethod
    def maps(self, features: Tensor, class_ids: Tensor) -> Tensor:
        """Features [N, C, h, w] and classes int64 [N, k] to activation maps [N, k, h, w]."""

    @abstractmethod
    def identity_error(self, pixels: Tensor) -> float:
        """Largest difference between a logit and `mean of its signed map + offset`, over the largest logit."""
