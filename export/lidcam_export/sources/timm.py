"""`timm:NAME`, a network of timm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import timm
from lidcam_training.models.state_dict import class_count, load_into, read_state_dict

from lidcam_export.sources.network import LoadedNetwork, Request, Settings, source_spec
from lidcam_rt.errors import ExportError

__all__ = ["load"]


def load(name: str, request: Request) -> LoadedNetwork:
    """Build the network and load its weights.

    Raises:
        ExportError: timm has no such model.
        InputError: the weights cannot be read or do not fit.
    """
    if not timm.is_model(name):
        near = ", ".join(timm.list_models(f"*{name.split('_')[0]}*")[:5])
        raise ExportError(f"timm has no model {name!r}" + (f"; near it: {near}" if near else ""))
    model = timm.create_model(name, pretrained=False)
    config = dict(cast(Mapping[str, Any], model.pretrained_cfg))
    if request.weights:
        state = read_state_dict(request.weights)
        head = config.get("classifier", ())
        classes = class_count(state, model, (head,) if isinstance(head, str) else head)
        if classes and classes != model.num_classes:
            model = timm.create_model(name, pretrained=False, num_classes=classes)
        load_into(model, state, request.weights)
    return LoadedNetwork(model, source_spec(f"timm:{name}", request.weights), _settings(config))


def _settings(config: Mapping[str, Any]) -> Settings:
    """From timm's pretrained_cfg, whose mean and std are in units of 0 to 1."""

    def bytes_of(shares: tuple[float, float, float]) -> tuple[float, float, float]:
        red, green, blue = shares
        return 255.0 * red, 255.0 * green, 255.0 * blue

    _, height, width = config.get("input_size", (3, 224, 224))
    return Settings(
        size=(int(height), int(width)),
        mean=bytes_of(config.get("mean", (0.485, 0.456, 0.406))),
        std=bytes_of(config.get("std", (0.229, 0.224, 0.225))),
        interpolation="bicubic" if config.get("interpolation") == "bicubic" else "bilinear",
    )
