"""`timm:NAME`, a network of timm, with its pretrained weights or a file."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import timm
from lidcam_training.models.state_dict import StateDict, class_count, fit_names, load_into
from torch import nn

from lidcam_export.sources.hub import check_hub, unreachable
from lidcam_export.sources.imagenet import imagenet_names, is_published, short_names
from lidcam_export.sources.kinds import check_name
from lidcam_export.sources.network import LoadedNetwork, Request, Settings, source_spec
from lidcam_rt.artifact import SourceSpec
from lidcam_rt.errors import ExportError

__all__ = ["config_of", "from_config", "load"]


def load(name: str, request: Request) -> LoadedNetwork:
    """Build the network and load its weights.

    Raises:
        ExportError: timm has no such model, or its weights cannot be downloaded.
        InputError: the weights file cannot be read or does not fit.
    """
    source = f"timm:{name}"
    check_name(source)
    weights = request.read_weights()
    if weights is None and not request.random_weights:
        return _pretrained(name, source)
    model = timm.create_model(name, pretrained=False)
    config = config_of(model)
    names = None
    if weights is not None:
        weights = _converted(model, weights)
        head = config.get("classifier", ())
        classes = class_count(weights.tensors, model, (head,) if isinstance(head, str) else head)
        if classes and classes != model.num_classes:
            model = timm.create_model(name, pretrained=False, num_classes=classes)
        load_into(model, weights)
        names = imagenet_names() if model.num_classes == 1000 and is_published(weights.path) else None
    spec = source_spec(source, weights, random=weights is None)
    return LoadedNetwork(model, spec, from_config(config), names)


def _pretrained(name: str, source: str) -> LoadedNetwork:
    try:
        config = timm.models.get_pretrained_cfg(name)
    except RuntimeError:
        tags = ", ".join(timm.list_models(f"{name.split('.')[0]}.*", pretrained=True)[:8])
        raise ExportError(f"{source}: no such weights" + (f"; there are {tags}" if tags else "")) from None
    if config is None or not config.has_weights:
        raise ExportError(
            f"{source}: timm publishes no weights for it: give --weights FILE, or try the export with --random-weights"
        )
    if config.hf_hub_id:
        check_hub(source, config.hf_hub_id)
    try:
        model = timm.create_model(name, pretrained=True)
    except Exception as error:
        raise unreachable(source, error) from None
    facts = config_of(model)
    spec = SourceSpec(name=source, weights=config.hf_hub_id or str(config.url).rpartition("/")[2])
    names = names_of(facts, cast(int, model.num_classes))
    return LoadedNetwork(model, spec, replace(from_config(facts), weights_license=facts.get("license")), names)


def config_of(model: nn.Module) -> dict[str, Any]:
    """The pretrained_cfg that timm gives a network."""
    return dict(cast(Mapping[str, Any], model.pretrained_cfg))


def names_of(config: Mapping[str, Any], classes: int) -> tuple[str, ...] | None:
    """Class names of a pretrained network: from its configuration, or ImageNet's."""
    if labels := config.get("label_names"):
        descriptions = config.get("label_descriptions") or {}
        return short_names([str(descriptions.get(label, label)) for label in labels])
    return imagenet_names() if classes == 1000 else None


def from_config(config: Mapping[str, Any]) -> Settings:
    """Settings of timm's pretrained_cfg, whose mean and std are in units of 0 to 1."""

    def to_bytes(shares: tuple[float, float, float]) -> tuple[float, float, float]:
        red, green, blue = shares
        return 255.0 * red, 255.0 * green, 255.0 * blue

    _, height, width = config.get("input_size", (3, 224, 224))
    return Settings(
        size=(int(height), int(width)),
        mean=to_bytes(config.get("mean", (0.485, 0.456, 0.406))),
        std=to_bytes(config.get("std", (0.229, 0.224, 0.225))),
        interpolation="bicubic" if config.get("interpolation") == "bicubic" else "bilinear",
    )


def _converted(model: nn.Module, weights: StateDict) -> StateDict:
    """Weights under timm's names where timm knows how to rename them (the original ConvNeXt and Swin files)."""
    wanted = model.state_dict()
    state = fit_names(weights.tensors, wanted)
    rename = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if rename is None or all(name in state for name in wanted) or len(inspect.signature(rename).parameters) < 2:
        return weights
    try:
        renamed = rename(dict(state), model)
    except (KeyError, RuntimeError, ValueError, AttributeError):
        return weights
    fits = sum(name in wanted for name in renamed) > sum(name in wanted for name in state)
    return replace(weights, tensors=dict(renamed)) if fits else weights
