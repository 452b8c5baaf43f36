"""`torchvision:NAME`, a network of torchvision, with its pretrained weights or a file."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

from lidcam_training.models.state_dict import class_count, load_into
from torch import nn
from torchvision import models

from lidcam_export.sources.hub import unreachable
from lidcam_export.sources.imagenet import is_published
from lidcam_export.sources.kinds import check_name
from lidcam_export.sources.network import LoadedNetwork, Request, Settings, source_spec
from lidcam_rt.artifact import SourceSpec
from lidcam_rt.errors import ExportError

__all__ = ["load"]


def load(name: str, request: Request) -> LoadedNetwork:
    """Build the network and load its weights.

    Args:
        name: of the network, or NAME.TAG for one of its published weights, such as resnet50.IMAGENET1K_V1.
        request: what is wanted.

    Raises:
        ExportError: torchvision has no such model or weights, or they cannot be downloaded.
        InputError: the weights file cannot be read or does not fit.
    """
    source = f"torchvision:{name}"
    check_name(source)
    architecture, _, tag = name.partition(".")
    published: Any = _published(architecture, tag, source)
    weights = request.read_weights()
    settings = _settings(published)
    if weights is None and not request.random_weights:
        if published is None:
            raise ExportError(
                f"{source}: torchvision publishes no weights for it: give --weights FILE, or try the export with "
                "--random-weights"
            )
        try:
            with contextlib.redirect_stdout(sys.stderr):  # torch.hub announces its download there
                model = models.get_model(architecture, weights=published)
        except Exception as error:
            raise unreachable(source, error) from None
        spec = SourceSpec(name=source, weights=str(published.url).rpartition("/")[2])
        return LoadedNetwork(model, spec, settings, tuple(published.meta["categories"]))
    options: dict[str, Any] = {"weights": None}
    if architecture in ("inception_v3", "googlenet"):  # their published weights were trained with other pixels
        official = weights is not None and is_published(weights.path)
        options |= {"init_weights": False, "transform_input": official}
    model = models.get_model(architecture, **options)
    names = None
    if weights is not None:
        classes = class_count(weights.tensors, model, _heads(model))
        if classes and classes != 1000:
            model = models.get_model(architecture, num_classes=classes, **options)
        load_into(model, weights)
        if classes == 1000 and published is not None and is_published(weights.path):
            names = tuple(published.meta["categories"])
    return LoadedNetwork(model, source_spec(source, weights, random=weights is None), settings, names)


def _published(architecture: str, tag: str, source: str) -> Any:
    """The entry of torchvision's table of weights; None where it has none."""
    table: Any = models.get_model_weights(architecture)
    if tag and tag not in table.__members__:
        raise ExportError(f"{source}: unknown weights; there are {', '.join(table.__members__)}")
    return table[tag] if tag else table.DEFAULT if len(table) else None


def _settings(published: Any) -> Settings:
    if published is None:
        return Settings()
    transform = published.transforms()
    side = int(transform.crop_size[0])
    (mr, mg, mb), (sr, sg, sb) = ([255.0 * v for v in values] for values in (transform.mean, transform.std))
    cubic = transform.interpolation.value == "bicubic"
    return Settings((side, side), (mr, mg, mb), (sr, sg, sb), "bicubic" if cubic else "bilinear")


def _heads(model: nn.Module) -> list[str]:
    """Names of the layers with 1000 outputs, the last first."""
    names = [
        name
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d) and layer.weight.shape[0] == 1000
    ]
    return [name for name in reversed(names) if not name.lower().startswith("aux")]
