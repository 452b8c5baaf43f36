"""The classifier: a backbone's last feature map, pooling, and the head whose weights form the map."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lidcam_rt.errors import InputError
from lidcam_training.models.backbone import build_backbone, features_of
from lidcam_training.models.spec import ClassifierSpec
from lidcam_training.models.stride import feature_stride, set_stride
from lidcam_training.models.tap import ThresholdedAveragePooling

__all__ = ["Classifier", "activation_maps"]


class Classifier(nn.Module):
    """Backbone, pooling and a CAM head.

    Attributes:
        spec: what it was made of.
        head: nn.Linear(C, K) or a 1x1 nn.Conv2d.
        pooling: `gap` or `tap`.
        tap_threshold: for tap, else None.
        stride: pixels per cell of the map.
    """

    head: nn.Linear | nn.Conv2d

    def __init__(self, spec: ClassifierSpec) -> None:
        super().__init__()
        self.spec = spec
        self.backbone = build_backbone(spec)
        features = features_of(self.backbone.eval())
        try:
            self.stride = feature_stride(features)
        except (AssertionError, RuntimeError, AttributeError, IndexError) as error:
            raise InputError(
                f"backbone {spec.backbone!r} returns no feature map ({error}): a class activation map needs a "
                "convolutional backbone, [N, C, h, w]"
            ) from error
        if spec.stride is not None:
            set_stride(self.backbone, spec.stride, spec.backbone, features)
            self.stride = spec.stride
        with torch.no_grad():
            channels = features(torch.zeros(1, 3, 64, 64)).shape[1]
        self.backbone.train()
        width = 1024 if spec.conv_channels is None and spec.backbone.startswith("vgg") else spec.conv_channels
        self.neck: nn.Module = nn.Identity()
        if width:
            self.neck = nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True))
            channels = width
        self.pooling = spec.pooling
        self.tap_threshold = spec.tap_threshold if spec.pooling == "tap" else None
        self.pool = ThresholdedAveragePooling(spec.tap_threshold) if spec.pooling == "tap" else None
        linear = nn.Linear(channels, spec.num_classes)
        self.head = linear if spec.head == "linear" else nn.Conv2d(channels, spec.num_classes, 1)
        nn.init.normal_(self.head.weight, std=0.01)
        assert self.head.bias is not None
        nn.init.zeros_(self.head.bias)

    def forward_features(self, x: Tensor) -> Tensor:
        """Float [N, 3, H, W], normalised, to F [N, C, h, w]."""
        features: Tensor = self.neck(features_of(self.backbone)(x))
        return features

    def pool_and_classify(self, features: Tensor) -> Tensor:
        """F [N, C, h, w] to logits [N, K], with signed weights and bias."""
        pooled: Tensor = features.mean(dim=(2, 3)) if self.pool is None else self.pool(features)
        logits: Tensor = self.head(pooled[:, :, None, None] if isinstance(self.head, nn.Conv2d) else pooled)
        return logits.flatten(1) * self.spec.logit_scale

    def forward(self, x: Tensor) -> Tensor:
        """Float [N, 3, H, W], normalised, to logits [N, K]."""
        return self.pool_and_classify(self.forward_features(x))

    @property
    def head_weight(self) -> Tensor:
        """The weights w [K, C] that form the maps, with the scale of the logits in them."""
        return self.head.weight.flatten(1) * self.spec.logit_scale

    @property
    def head_bias(self) -> Tensor:
        """The bias b [K], with the scale of the logits in it."""
        bias = self.head.bias
        return torch.zeros(self.spec.num_classes) if bias is None else bias * self.spec.logit_scale


def activation_maps(features: Tensor, weight: Tensor, labels: Tensor, *, nwc: bool) -> Tensor:
    """M_k = sum_c w[k, c] F_c of chosen classes, no bias; with `nwc` negative weights count as 0.

    Args:
        features: [N, C, h, w].
        weight: [K, C].
        labels: int64 [N], one class per picture.
        nwc: negative weight clamping.

    Returns:
        [N, h, w].
    """
    rows = weight[labels]
    return torch.einsum("nchw,nc->nhw", features, rows.clamp(min=0) if nwc else rows)
