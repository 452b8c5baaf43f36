"""What a segmentation network is made of: the options of a recipe, and the complete description in a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lidcam_rt.errors import InputError

__all__ = ["Architecture", "NetworkOptions", "NetworkSpec"]

Architecture = Literal["deeplabv3plus", "unet", "fpn", "torchvision_deeplabv3"]


@dataclass(frozen=True)
class NetworkOptions:
    """Options of the network, the section `network` of a recipe.

    Attributes:
        architecture: deeplabv3plus (Chen et al., ECCV 2018), unet, fpn: of segmentation_models_pytorch.
            torchvision_deeplabv3: torchvision's DeepLabV3, where that package is not installed.
        encoder: a timm name; for torchvision_deeplabv3 resnet50, resnet101 or mobilenet_v3_large.
        channels: of the decoder.
        pretrained: start from timm's published weights (needs the hub or its cache).
        weights: a local state dict of the encoder, package:MODULE, or checkpoint:FOLDER for the backbone of a trained
            classifier, instead of `pretrained`.
    """

    architecture: Architecture = "deeplabv3plus"
    encoder: str = "seresnet50"
    channels: int = 256
    pretrained: bool = False
    weights: str | None = None

    def __post_init__(self) -> None:
        if self.channels < 32 or self.channels % 32:
            raise InputError(f"network.channels {self.channels}: give a multiple of 32")


@dataclass(frozen=True)
class NetworkSpec(NetworkOptions):
    """Everything that is needed to build a network again.

    Attributes:
        num_labels: classes with the background.
    """

    num_labels: int = 2
