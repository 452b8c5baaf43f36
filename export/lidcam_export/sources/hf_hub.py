"""`hf_hub:OWNER/NAME`, a network of timm whose weights and configuration are on the Hugging Face hub."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import timm

from lidcam_export.sources.hub import check_hub, unreachable
from lidcam_export.sources.network import LoadedNetwork, Request
from lidcam_export.sources.timm import config_of, from_config, names_of
from lidcam_rt.artifact import SourceSpec
from lidcam_rt.errors import ExportError

__all__ = ["load"]


def load(name: str, request: Request) -> LoadedNetwork:
    """Download the network, or take it from the hub's cache.

    Raises:
        ExportError: no such repository, or the hub cannot be reached.
    """
    source = f"hf_hub:{name}"
    if request.weights or request.random_weights:
        raise ExportError(f"{source} has its own weights: leave --weights and --random-weights out, or use timm:NAME")
    if name.count("/") != 1:
        raise ExportError(f"{source}: give hf_hub:OWNER/NAME")
    check_hub(source, name)
    try:
        model = timm.create_model(source, pretrained=True)
    except Exception as error:
        raise unreachable(source, error) from None
    config = config_of(model)
    labelled = config.get("label_names") or name.startswith("timm/")
    names = names_of(config, cast(int, model.num_classes)) if labelled else None
    settings = replace(from_config(config), weights_license=config.get("license"))
    return LoadedNetwork(model, SourceSpec(name=source, weights=name), settings, names)
