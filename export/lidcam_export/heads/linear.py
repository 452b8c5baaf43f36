"""The class activation map (Zhou et al., CVPR 2016): M_k = sum_c w[k, c] F_c, exact after average pooling."""

from __future__ import annotations

import torch
from torch import Tensor

from lidcam_export.heads.head import Head
from lidcam_export.structure import Structure, Tail
from lidcam_rt.artifact import Manifest

__all__ = ["LinearHead"]


class LinearHead(Head):
    """Pooling and one linear layer.

    The clamped weights are a buffer, and so a constant of the graph; maps are formed for the chosen classes only.
    """

    weight: Tensor
    bias: Tensor
    map_weight: Tensor

    def __init__(self, structure: Structure | Tail, manifest: Manifest) -> None:
        super().__init__(structure, manifest)
        assert isinstance(structure, Structure)
        self._features = structure.features
        assert manifest.cam is not None
        self._tap_threshold = manifest.cam.tap_threshold
        weight = structure.weight.float()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", structure.bias.float())
        self.register_buffer("map_weight", weight.clamp(min=0) if manifest.cam.nwc else weight.clone())

    def classify(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Pooled by the mean (GAP) or over the active pixels (TAP)."""
        features = self._features(pixels).float()
        if self._tap_threshold is not None:
            limit = self._tap_threshold * features.amax(dim=(2, 3), keepdim=True)
            active = (features > limit).float()
            pooled = (features * active).sum(dim=(2, 3)) / active.sum(dim=(2, 3)).clamp(min=1)
        else:
            pooled = features.mean(dim=(2, 3))
        return features, pooled @ self.weight.t() + self.bias

    def maps(self, features: Tensor, class_ids: Tensor) -> Tensor:
        """Rows of the weights [N, k, C] times the features."""
        cam = torch.matmul(self.map_weight[class_ids], features.flatten(2))
        return torch.unflatten(cam, 2, (features.shape[2], features.shape[3]))

    @torch.no_grad()
    def identity_error(self, pixels: Tensor) -> float:
        """With GAP the offset is the bias. With TAP the mean is over the active pixels."""
        if self._tap_threshold is not None:
            return 0.0
        features, logits = self.classify(pixels)
        sums = torch.einsum("kc,nchw->nk", self.weight, features) / features[0, 0].numel()
        return float((sums + self.bias - logits).abs().max() / logits.abs().max().clamp(min=1e-12))
