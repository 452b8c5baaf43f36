"""Sources: what `lidcam export` takes, loaded and taken apart into features, pooling and head."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path

from lidcam_training.models.stride import set_stride
from torch import nn

from lidcam_export.sources.network import LoadedNetwork, Request, Settings
from lidcam_export.structure import Structure, find_structure
from lidcam_rt.artifact import SourceSpec
from lidcam_rt.errors import ExportError

__all__ = ["KINDS", "Source", "load_source"]

#: Text before the colon, and the module whose `load(name, request)` gives the network.
KINDS = {
    "timm": "lidcam_export.sources.timm",
    "cam": "lidcam_export.sources.cam_vgg",
    "python": "lidcam_export.sources.python",
    "zoo": "lidcam_export.sources.zoo",
}


@dataclass(frozen=True)
class Source:
    """A classifier taken apart.

    Attributes:
        module: holds the parameters of `structure.features`, in eval mode.
        structure: feature map and classifying layer.
        class_names: in the order of the logits.
        spec: for the manifest.
        settings: what the source knows; options of the export take precedence.
    """

    module: nn.Module
    structure: Structure
    class_names: tuple[str, ...]
    spec: SourceSpec
    settings: Settings


def load_source(text: str, *, weights: Path | None = None, stride: int | None = None) -> Source:
    """Load what `lidcam export` was given.

    Args:
        text: `timm:NAME`; `cam:vgg16` (with the CAM head of the released code); `python:PACKAGE.MODULE:FUNCTION`, which
            returns a network; `zoo:efficientnet_lite0`; or the folder of a checkpoint of our own training.
        weights: state dict for the first three; without it timm's weights are random.
        stride: pixels per cell of the map; None leaves the network's.

    Raises:
        ExportError: unknown source, or no exact class activation map.
        InputError: weights that cannot be read or do not fit, or an impossible stride.
    """
    network = _load(text, Request(weights, stride))
    module = network.module.eval()
    structure = network.structure
    if structure is None:
        structure = find_structure(module, network.spec.name, size=network.settings.size[0])
        if stride is not None:
            set_stride(module, stride, network.spec.name, structure.features)
    names = network.class_names or tuple(f"class {i}" for i in range(len(structure.weight)))
    return Source(module, structure, names, network.spec, network.settings)


def _load(text: str, request: Request) -> LoadedNetwork:
    kind, colon, name = text.partition(":")
    if colon and kind in KINDS:
        loaded: LoadedNetwork = importlib.import_module(KINDS[kind]).load(name, request)
        return loaded
    if Path(text).exists():
        from lidcam_export.sources import checkpoint

        return checkpoint.load(text, request)
    raise ExportError(
        f"{text}: no such checkpoint. SOURCE is a checkpoint folder of `lidcam train`, timm:NAME, "
        "cam:vgg16, python:PACKAGE.MODULE:FUNCTION or zoo:efficientnet_lite0"
    )
