"""What a classifier is made of: the options of a recipe, and the complete description kept in a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lidcam_rt.errors import InputError

__all__ = ["ClassifierSpec", "ModelOptions"]


@dataclass(frozen=True)
class ModelOptions:
    """Options of the classifier, the section `model` of a recipe.

    Attributes:
        backbone: a timm name (seresnet50, legacy_seresnet50, resnet50, vgg16, mobilenetv2_100,
            tf_efficientnet_lite0 ...) or lidcam_seresnet_small.
        num_classes: K; None: the number of classes of the data.
        pooling: `gap` (mean) or `tap` (thresholded average pooling).
        tap_threshold: share of a channel's maximum, for tap.
        head: `linear` or `conv` (1x1); the same function, the names of the weights differ.
        logit_scale: factor on the head's output, and so on logits and maps, also in the artifact. The
            mean over the active pixels (tap) is a few times the mean over all (gap); about 0.3 makes up for it.
        stride: pixels per cell of the map, reached by removing the last stage's stride; None leaves the
            backbone's.
        conv_channels: a 3x3 convolution + ReLU with this many channels before pooling (1024 for VGG16 in the
            released code); None for none. VGG16 without a value gets 1024.
        pretrained: start from timm's published weights (needs the hub or its cache).
        weights: a local state dict (.pth, .safetensors) of the backbone, or package:MODULE, instead of
            `pretrained`.
    """

    backbone: str = "seresnet50"
    num_classes: int | None = None
    pooling: Literal["gap", "tap"] = "tap"
    tap_threshold: float = 0.05
    head: Literal["linear", "conv"] = "linear"
    logit_scale: float = 1.0
    stride: int | None = None
    conv_channels: int | None = None
    pretrained: bool = False
    weights: str | None = None

    def __post_init__(self) -> None:
        if self.pooling not in ("gap", "tap"):
            raise InputError(f"pooling {self.pooling!r} is unknown: choose gap or tap")
        if self.head not in ("linear", "conv"):
            raise InputError(f"head {self.head!r} is unknown: choose linear or conv")
        if self.num_classes is not None and self.num_classes < 1:
            raise InputError(f"num_classes {self.num_classes}: a classifier needs at least 1 class")
        if not 0.0 <= self.tap_threshold <= 1.0:
            raise InputError(f"tap_threshold {self.tap_threshold} is a share of the channel's maximum: give 0 to 1")
        if not 1e-3 <= self.logit_scale <= 1e3:
            raise InputError(f"logit_scale {self.logit_scale}: give 0.001 to 1000")
        if self.stride is not None and not 1 <= self.stride <= 64:
            raise InputError(f"stride {self.stride}: give 1 to 64 pixels per cell of the map")
        if self.conv_channels is not None and not 1 <= self.conv_channels <= 16384:
            raise InputError(f"conv_channels {self.conv_channels}: give 1 to 16384")


@dataclass(frozen=True)
class ClassifierSpec(ModelOptions):
    """Everything that is needed to build a classifier again.

    Attributes:
        num_classes: K.
        branches: 2 for ACoL, whose maps are fused by the maximum.
        rounds: classifiers after the first, for AE.
        erase: AE: share of the map's maximum above which the picture is erased for the next classifier.
    """

    num_classes: int = 1000
    branches: int = 1
    rounds: int = 0
    erase: float = 0.8

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.branches not in (1, 2):
            raise InputError(f"branches {self.branches}: a classifier has 1, or 2 for ACoL")
        if not 0 <= self.rounds <= 15:
            raise InputError(f"rounds {self.rounds}: give 0 to 15 classifiers after the first")
        if self.logit_scale != 1.0 and (self.branches == 2 or self.rounds):
            raise InputError(f"logit_scale {self.logit_scale} is for one classifier: leave it out with ACoL and AE")
        if not 0.0 <= self.erase <= 1.0:
            raise InputError(f"erase {self.erase} is a share of the map's maximum: give 0 to 1")
