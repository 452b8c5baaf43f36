"""Sources: what `lidcam export` takes, loaded and taken apart into features, pooling and head."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from lidcam_training.models.state_dict import AVERAGED
from lidcam_training.models.stride import set_stride
from torch import nn

from lidcam_export.options import HeadName
from lidcam_export.sources.kinds import KINDS, check_name, kind_of
from lidcam_export.sources.network import LoadedNetwork, Request, Settings
from lidcam_export.structure import Structure, Tail, find_structure, find_tail
from lidcam_rt.artifact import SourceSpec
from lidcam_rt.errors import ExportError

__all__ = ["Source", "load_source"]


@dataclass(frozen=True)
class Source:
    """A classifier taken apart.

    Attributes:
        module: holds the parameters of `structure.features`, in eval mode.
        structure: feature map and classifying layer, or all that follows the feature map.
        class_names: in the order of the logits.
        spec: for the manifest.
        settings: what the source knows; options of the export take precedence.
    """

    module: nn.Module
    structure: Structure | Tail
    class_names: tuple[str, ...]
    spec: SourceSpec
    settings: Settings

    @property
    def head(self) -> HeadName:
        """Name of the head that forms the maps."""
        return "linear" if isinstance(self.structure, Structure) else "linearized"


def load_source(
    text: str,
    request: Request | None = None,
    *,
    head: HeadName = "linear",
    note: Callable[[str], None] = lambda _: None,
) -> Source:
    """Load what `lidcam export` was given.

    Args:
        text: a checkpoint folder of our training, a weights file, or one of `KINDS`, such as timm:resnet50.
        request: the weights, stride and size wanted.
        head: `linear` refuses networks whose map is not exact; `linearized` takes them too.
        note: called with a message for each step.

    Raises:
        ExportError: unknown source, no weights, or no exact class activation map.
        InputError: weights that cannot be read or do not fit, or an impossible stride.
    """
    request = request or Request()
    network = _load(text, request)
    module = network.module.eval().requires_grad_(False)
    _check_weights(module, network.spec.name)
    if network.spec.random_weights:
        note("random weights: the maps mean nothing, this artifact is for trying the export")
    elif network.spec.weights:
        note(f"weights: {network.spec.weights}" + _entry(network.spec, request))
    note("looking for the last feature map and the head")
    structure = network.structure or _find(network, request, head)
    if isinstance(structure, Structure) and not structure.weight.any() and not network.spec.random_weights:
        raise ExportError(
            f"{network.spec.name}: all weights of its classifying layer {structure.head!r} are 0, so that its maps "
            "would be empty: give trained weights with --weights FILE"
        )
    names = network.class_names or tuple(f"class {i}" for i in range(structure.classes))
    return Source(module, structure, names, network.spec, network.settings)


def _entry(spec: SourceSpec, request: Request) -> str:
    """Which weights were used from a file that holds several."""
    if spec.weights_entry is None:
        return ""
    averaged = spec.weights_entry in AVERAGED
    other = " (averaged; --no-ema takes the others)" if averaged and request.ema is None else ""
    return f", {spec.weights_entry}{other}"


def _load(text: str, request: Request) -> LoadedNetwork:
    check_name(text)
    split = kind_of(text)
    if split is not None:
        kind, name = split
        loaded: LoadedNetwork = importlib.import_module(KINDS[kind].module).load(name, request)
        return loaded
    if Path(text).is_dir():
        from lidcam_export.sources import checkpoint

        return checkpoint.load(text, request)
    from lidcam_export.sources import file

    return file.load(text, request)


def _check_weights(module: nn.Module, name: str) -> None:
    """Raise ExportError for weights that are not finite: their maps would silently be empty."""
    for key, value in module.state_dict().items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise ExportError(
                f"{name}: its weights {key} hold NaN or infinite values: the training diverged. Take an earlier "
                "checkpoint"
            )


def _find(network: LoadedNetwork, request: Request, head: HeadName) -> Structure | Tail:
    module, name = network.module, network.spec.name
    size = request.size or network.settings.size
    structure: Structure | Tail
    try:
        structure = find_structure(module, name, size=size)
    except ExportError:
        if head == "linear":
            raise
        structure = find_tail(module, name, size=size)
    if request.stride is not None:
        set_stride(module, request.stride, name, structure.features, size=size)
    return structure
