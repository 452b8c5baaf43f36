"""What a source gives: a network with its manifest entries, before its structure is looked into."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from torch import nn

from lidcam_export.structure import Structure
from lidcam_rt.artifact import SourceSpec
from lidcam_rt.files import file_sha256

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "LoadedNetwork", "Request", "Settings", "source_spec"]

Triple = tuple[float, float, float]

#: Per channel, in units of 0 to 255.
IMAGENET_MEAN: Triple = (123.675, 116.28, 103.53)
IMAGENET_STD: Triple = (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class Request:
    """What the caller of a loader wants.

    Attributes:
        weights: state dict to load, or None.
        stride: pixels per cell of the map; None leaves the network's.
    """

    weights: Path | None = None
    stride: int | None = None


@dataclass(frozen=True)
class Settings:
    """Settings that a source knows; options of the export take precedence.

    Attributes:
        size: (height, width) of the input in pixels.
        mean: per channel, 0 to 255.
        std: per channel, 0 to 255.
        interpolation: how pictures are resized to the input.
        task: `localization` (softmax) or `multilabel` (sigmoid).
        pooling: `gap` or `tap`.
        tap_threshold: for tap, share of a channel's maximum.
        nwc: whether negative weights are clamped for the map.
        percentile: of PaS, 0 to 100.
        theta: of PaS, 0 to 1.
        weights_license: licence of the weights, or None.
    """

    size: tuple[int, int] = (224, 224)
    mean: Triple = IMAGENET_MEAN
    std: Triple = IMAGENET_STD
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    task: Literal["localization", "multilabel"] = "localization"
    pooling: Literal["gap", "tap"] = "gap"
    tap_threshold: float | None = None
    nwc: bool = True
    percentile: float = 98.0
    theta: float = 0.35
    weights_license: str | None = None


@dataclass(frozen=True)
class LoadedNetwork:
    """A network as a source gives it.

    Attributes:
        module: float32 [N, 3, H, W], normalised, to logits [N, K].
        spec: for the manifest.
        settings: what the source knows.
        class_names: in the order of the logits; None where the source has none.
        structure: where the source knows it; None: to be found by running the network.
    """

    module: nn.Module
    spec: SourceSpec
    settings: Settings = field(default_factory=Settings)
    class_names: tuple[str, ...] | None = None
    structure: Structure | None = None


def source_spec(label: str, weights: Path | None) -> SourceSpec:
    """The manifest's entry for a source and its weights file."""
    return SourceSpec(
        name=label,
        weights=weights.name if weights else None,
        weights_sha256=file_sha256(weights) if weights else None,
    )
