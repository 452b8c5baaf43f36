"""What a loader is given and what it returns: a network with what is known of it, before it is taken apart."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lidcam_training.models.state_dict import StateDict, read_state_dict
from torch import nn

from lidcam_export.structure import Structure
from lidcam_rt.artifact import SourceSpec
from lidcam_rt.errors import ExportError
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
        random_weights: use the network as it is initialised, to try an export.
        ema: averaged weights of a file: True requires them, False ignores them, None uses them if there are any.
        stride: pixels per cell of the map; None leaves the network's.
        size: (height, width) of the input; None: the network's.
    """

    weights: Path | None = None
    random_weights: bool = False
    ema: bool | None = None
    stride: int | None = None
    size: tuple[int, int] | None = None

    def read_weights(self) -> StateDict | None:
        """The weights file, or None where none was given.

        Raises:
            InputError: it cannot be read.
        """
        return read_state_dict(self.weights, ema=self.ema) if self.weights else None

    def need_weights(self, source: str) -> StateDict | None:
        """The weights file; None with `random_weights`.

        Raises:
            ExportError: neither was given.
        """
        if self.weights is None and not self.random_weights:
            raise ExportError(
                f"{source} comes without weights: give --weights FILE, or try the export with --random-weights"
            )
        return self.read_weights()


@dataclass(frozen=True)
class Settings:
    """Settings that a source knows; options of the export take precedence.

    Attributes:
        size: (height, width) of the input in pixels.
        mean: per channel, 0 to 255.
        std: per channel, 0 to 255.
        interpolation: how pictures are resized to the input.
        task: `localization` (softmax) or `multilabel` (sigmoid); None: as the network ends.
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
    task: Literal["localization", "multilabel"] | None = None
    pooling: Literal["gap", "tap"] = "gap"
    tap_threshold: float | None = None
    nwc: bool = True
    percentile: float = 98.0
    theta: float = 0.35
    weights_license: str | None = None


@dataclass(frozen=True)
class LoadedNetwork:
    """A network as a source returns it.

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


def source_spec(source: str, weights: StateDict | None, *, random: bool = False) -> SourceSpec:
    """The manifest's entry for a source and its weights file.

    Args:
        source: as the user wrote it.
        weights: the file, or None.
        random: whether the weights are as the network is initialised.
    """
    if weights is None:
        return SourceSpec(name=source, random_weights=random)
    return SourceSpec(
        name=source,
        weights=weights.path.name,
        weights_sha256=file_sha256(weights.path),
        weights_entry=weights.key or None,
    )
