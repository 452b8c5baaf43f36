"""Segmentation networks by name, all of one form: pictures to logits at the decoder's own stride."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lidcam_rt.errors import InputError, MissingExtraError
from lidcam_training.models.backbone import build_backbone
from lidcam_training.models.spec import ModelOptions
from lidcam_training.segmentation.spec import NetworkSpec

__all__ = ["SegmentationNetwork", "build_network"]


class SegmentationNetwork(nn.Module):
    """A network with logits for the background and every class.

    Attributes:
        spec: what it was made of.
        stride: pixels of the picture per cell of the logits.
    """

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        self.body = _from_torchvision(spec) if spec.architecture == "torchvision_deeplabv3" else _from_smp(spec)
        self.eval()
        with torch.no_grad():
            self.stride = 64 // int(self(torch.zeros(1, 3, 64, 64)).shape[2])
        self.train()

    def forward(self, x: Tensor) -> Tensor:
        """Float [N, 3, H, W], normalised, sides multiples of 32, to logits [N, labels, H / stride, W / stride]."""
        out: Tensor = self.body(x)
        return out


class _Smp(nn.Module):
    """A model of segmentation_models_pytorch without the upsampling at its end."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.encoder, self.decoder, self.head = model.encoder, model.decoder, model.segmentation_head[0]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.decoder(self.encoder(x)))
        return out


class _Torchvision(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.backbone, self.classifier = model.backbone, model.classifier

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.classifier(self.backbone(x)["out"])
        return out


def _from_smp(spec: NetworkSpec) -> nn.Module:
    try:
        import segmentation_models_pytorch as smp
    except ImportError as error:
        raise MissingExtraError(f"network.architecture={spec.architecture}", "train", (str(error.name),)) from None
    channels = spec.channels
    options: dict[str, object] = {"encoder_weights": None, "classes": spec.num_labels}
    try:
        if spec.architecture == "deeplabv3plus":
            model = smp.DeepLabV3Plus(f"tu-{spec.encoder}", decoder_channels=channels, **options)
        elif spec.architecture == "fpn":
            half = max(32, channels // 64 * 32)  # its normalisation has groups of 32
            options |= {"decoder_pyramid_channels": channels, "decoder_segmentation_channels": half}
            model = smp.FPN(f"tu-{spec.encoder}", **options)
        else:
            widths = tuple(max(16, channels >> step) for step in range(5))
            model = smp.Unet(f"tu-{spec.encoder}", decoder_channels=widths, **options)
    except Exception as error:
        raise InputError(f"network.encoder {spec.encoder!r} does not work with {spec.architecture}: {error}") from None
    if spec.weights or spec.pretrained:
        _load_encoder(model.encoder.model, spec)
    return _Smp(model)


def _from_torchvision(spec: NetworkSpec) -> nn.Module:
    from torchvision.models import segmentation

    build = getattr(segmentation, f"deeplabv3_{spec.encoder}", None)
    if build is None:
        raise InputError(
            f"network.encoder {spec.encoder!r}: torchvision's DeepLabV3 has resnet50, resnet101, mobilenet_v3_large"
        )
    if spec.weights:
        raise InputError("network.weights: torchvision_deeplabv3 takes pretrained=true or no weights")
    weights = "IMAGENET1K_V1" if spec.pretrained else None
    return _Torchvision(build(weights=None, weights_backbone=weights, num_classes=spec.num_labels, aux_loss=None))


def _load_encoder(encoder: nn.Module, spec: NetworkSpec) -> None:
    """The weights of a classifier's backbone of the same name; layers that the encoder leaves out are dropped."""
    text = spec.weights or ""
    if text.startswith("checkpoint:"):
        from lidcam_training.checkpoint import load_checkpoint

        checkpoint = load_checkpoint(Path(text.removeprefix("checkpoint:")))
        if checkpoint.meta.classifier.backbone != spec.encoder:
            backbone = checkpoint.meta.classifier.backbone
            raise InputError(f"network.weights {text}: its backbone is {backbone}, the encoder {spec.encoder}")
        given = checkpoint.model.backbone.state_dict()
    else:
        options = ModelOptions(backbone=spec.encoder, pretrained=spec.pretrained, weights=spec.weights)
        given = build_backbone(options).state_dict()
    wanted = encoder.state_dict()
    missing = [name for name in wanted if name not in given or given[name].shape != wanted[name].shape]
    if missing:
        raise InputError(f"network.weights: {len(missing)} tensors of the encoder are missing, such as {missing[0]}")
    encoder.load_state_dict({name: given[name] for name in wanted})


def build_network(spec: NetworkSpec, *, with_weights: bool = True) -> SegmentationNetwork:
    """Build the network that a spec describes.

    Args:
        spec: the description.
        with_weights: load the weights that it names, to start training from.

    Raises:
        InputError: unknown encoder, or weights that do not fit.
        MissingExtraError: segmentation_models_pytorch is not installed.
    """
    return SegmentationNetwork(spec if with_weights else dataclasses.replace(spec, weights=None, pretrained=False))
