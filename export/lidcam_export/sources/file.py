"""A weights file alone: the architecture as the file states it, or recognised by names and shapes of its tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import timm
import torch
from lidcam_training.models.state_dict import StateDict, fit_names, read_state_dict
from torch import Tensor, nn
from torchvision import models

from lidcam_export.sources.kinds import KINDS
from lidcam_export.sources.network import LoadedNetwork, Request
from lidcam_rt.errors import ExportError

__all__ = ["load"]

#: Tensors that identify a family, and its members. Both packages name ResNets and DenseNets alike; timm's come first.
_FAMILIES: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (
        ("layer1.0.se.fc1.weight",),
        ("timm:seresnet50", "timm:seresnet18", "timm:seresnet34", "timm:seresnet101", "timm:seresnext50_32x4d"),
    ),
    (("layer0.conv1.weight",), ("timm:legacy_seresnet50", "timm:legacy_seresnet18", "timm:legacy_seresnet101")),
    (
        ("layer1.0.conv1.weight", "conv1.weight"),
        (
            "timm:resnet18", "timm:resnet34", "timm:resnet50", "timm:resnet101", "timm:resnet152",
            "timm:wide_resnet50_2", "timm:wide_resnet101_2", "timm:resnext50_32x4d", "timm:resnext101_32x8d",
        ),
    ),
    (
        ("features.denseblock1.denselayer1.norm1.weight",),
        ("timm:densenet121", "timm:densenet161", "timm:densenet169", "timm:densenet201"),
    ),
    (
        ("features.0.weight", "pre_logits.fc1.weight"),
        ("timm:vgg11", "timm:vgg13", "timm:vgg16", "timm:vgg19", "timm:vgg11_bn", "timm:vgg16_bn", "timm:vgg19_bn"),
    ),
    (
        ("features.0.weight", "classifier.0.weight"),
        (
            "torchvision:vgg11", "torchvision:vgg13", "torchvision:vgg16", "torchvision:vgg19",
            "torchvision:vgg11_bn", "torchvision:vgg16_bn", "torchvision:vgg19_bn",
        ),
    ),
    (
        ("conv_stem.weight", "blocks.0.0.conv_dw.weight"),
        (
            *(f"timm:{tf}efficientnet_b{i}" for tf in ("", "tf_") for i in range(5)),
            *(f"timm:{tf}efficientnet_lite{i}" for tf in ("", "tf_") for i in range(3)),
            "timm:mobilenetv2_100", "timm:mobilenetv3_large_100", "timm:tf_mobilenetv3_large_100",
            "timm:mobilenetv3_small_100", "timm:tf_mobilenetv3_small_100",
        ),
    ),
    (
        ("conv_stem.weight", "blocks.0.0.conv.weight"),
        ("timm:mobilenetv4_conv_small", "timm:mobilenetv4_conv_medium", "timm:mobilenetv4_conv_large"),
    ),
    (
        ("stem.0.weight", "stages.0.blocks.0.conv_dw.weight"),
        ("timm:convnext_tiny", "timm:convnext_small", "timm:convnext_base", "timm:convnextv2_tiny"),
    ),
    (
        ("patch_embed.proj.weight", "layers.0.blocks.0.attn.qkv.weight"),
        (
            "timm:swin_tiny_patch4_window7_224", "timm:swin_small_patch4_window7_224",
            "timm:swin_base_patch4_window7_224",
        ),
    ),
    (
        ("features.0.0.weight", "features.1.0.attn.qkv.weight"),
        ("torchvision:swin_t", "torchvision:swin_s", "torchvision:swin_b"),
    ),
    (
        ("features.0.0.weight", "features.1.0.layer_scale"),
        ("torchvision:convnext_tiny", "torchvision:convnext_small", "torchvision:convnext_base"),
    ),
    (
        ("features.0.0.weight",),
        (
            "torchvision:mobilenet_v2", "torchvision:mobilenet_v3_large", "torchvision:mobilenet_v3_small",
            *(f"torchvision:efficientnet_b{i}" for i in range(5)), "torchvision:efficientnet_v2_s",
        ),
    ),
)  # fmt: skip


def load(path: str, request: Request) -> LoadedNetwork:
    """Build the network that the weights belong to, and load them.

    Raises:
        ExportError: the architecture is not recognised, or several fit.
        InputError: the file cannot be read.
    """
    if request.weights or request.random_weights:
        raise ExportError(f"{path} is a weights file: leave --weights and --random-weights out")
    file = Path(path)
    weights = read_state_dict(file, ema=request.ema)
    fitting = list(_candidates(weights))
    if len(fitting) == 1:
        kind, _, name = fitting[0].partition(":")
        loaded: LoadedNetwork = import_module(KINDS[kind].module).load(name, replace(request, weights=file))
        return loaded
    if fitting:
        raise ExportError(
            f"{path}: fits {' and '.join(fitting)}, which have the same tensors but compute differently: say which, "
            f"lidcam export {fitting[0]} --weights {file}"
        )
    first = ", ".join(list(weights.tensors)[:3])
    stated = f" (the file states {weights.architecture!r})" if weights.architecture else ""
    raise ExportError(
        f"{path}: the architecture of its {len(weights.tensors)} tensors ({first} ...) is not recognised{stated}. Name "
        f"it: lidcam export timm:NAME --weights {file}, or torchvision:NAME, or python:PACKAGE.MODULE:FUNCTION"
    )


def _candidates(weights: StateDict) -> Iterator[str]:
    """Sources whose tensors have the names and shapes of the file; the classifying layer may have other classes."""
    stated = (weights.architecture or "").removeprefix("timm:")
    for source in (f"timm:{stated}", f"torchvision:{stated}"):
        if stated and _fits(source, weights.tensors):
            yield source
            return
    for keys, members in _FAMILIES:
        if all(any(name.endswith(key) for name in weights.tensors) for key in keys):
            yield from (source for source in members if _fits(source, weights.tensors))
            return


def _fits(source: str, state: Mapping[str, Tensor]) -> bool:
    model = _empty(source)
    if model is None:
        return False
    wanted = {name: value for name, value in model.state_dict().items() if not name.endswith("num_batches_tracked")}
    bare = fit_names(state, wanted)
    different = [name for name, value in wanted.items() if name not in bare or bare[name].shape != value.shape]
    return all(name in bare and bare[name].shape[1:] == wanted[name].shape[1:] for name in different) and {
        name.rpartition(".")[0] for name in different
    } <= {_head(wanted)}


def _head(wanted: Mapping[str, Tensor]) -> str:
    """Name of the last layer with 1000 outputs."""
    names = [name for name, value in wanted.items() if value.ndim and len(value) == 1000]
    return names[-1].rpartition(".")[0] if names else ""


def _empty(source: str) -> nn.Module | None:
    """The network without memory for its weights; None where there is no such network."""
    kind, _, name = source.partition(":")
    with torch.device("meta"):
        if kind == "timm":
            return timm.create_model(name, pretrained=False) if timm.is_model(name) else None
        return models.get_model(name, weights=None) if name in models.list_models() else None
