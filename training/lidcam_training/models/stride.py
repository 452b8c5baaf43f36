"""The stride of a backbone: measured, and halved by removing the last stage's stride."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lidcam_rt.errors import InputError

__all__ = ["Features", "feature_stride", "set_stride"]

_PROBE = 128

#: float [N, 3, H, W], normalised, to the last feature map [N, C, h, w]
Features = Callable[[Tensor], Tensor]
Strided = nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d


def _map_width(features: Features) -> int:
    with torch.no_grad():
        return int(features(torch.zeros(1, 3, _PROBE, _PROBE)).shape[-1])


def feature_stride(backbone: nn.Module, features: Features) -> int:
    """Pixels of the input per cell of the map of `features`, which runs `backbone`."""
    was_training = backbone.training
    backbone.eval()
    try:
        return _PROBE // _map_width(features)
    finally:
        backbone.train(was_training)


def set_stride(backbone: nn.Module, stride: int, name: str, features: Features) -> None:
    """Remove the stride of the last stages until the map has the wanted stride; weights stay as they are.

    Every convolution and max pooling that makes the smallest size gets stride 1 (no dilation, as in the
    released VGG16 and in the WSOL ResNets); an average pooling of a shortcut and a 2x2 max pooling become
    the identity.

    Args:
        backbone: the network; changed in place.
        stride: wanted, for example 16.
        name: of the backbone, for messages.
        features: float [N, 3, H, W] to the map.

    Raises:
        InputError: the backbone cannot have that stride.
    """
    current = feature_stride(backbone, features)
    possible = [current >> i for i in range(current.bit_length())]
    if stride not in possible:
        raise InputError(
            f"{name} has stride {current}: `stride` can be {', '.join(map(str, possible[:3]))} or a smaller power of "
            f"two, not {stride}"
        )
    was_training = backbone.training
    backbone.eval()
    while current > stride:
        for path, layer in _halving_layers(backbone, _PROBE // current, features):
            kernel = layer.kernel_size if isinstance(layer.kernel_size, int) else layer.kernel_size[0]
            if isinstance(layer, nn.Conv2d):
                layer.stride = (1, 1)
            elif isinstance(layer, nn.AvgPool2d) or kernel == 2:
                backbone.set_submodule(path, nn.Identity())
            else:
                layer.stride = 1
        after = _PROBE // _map_width(features)
        if after != current // 2:
            raise InputError(f"{name}: the stride {current} of its last stage cannot be removed; leave `stride` out")
        current = after
    backbone.train(was_training)


def _halving_layers(backbone: nn.Module, width: int, features: Features) -> list[tuple[str, Strided]]:
    """Path and layer of all that make a map of `width` columns out of one of twice as many."""
    halving: list[tuple[str, Strided]] = []

    def watch(path: str, layer: Strided) -> torch.utils.hooks.RemovableHandle:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if output.shape[-1] == width and inputs[0].shape[-1] == 2 * width:
                halving.append((path, layer))

        return layer.register_forward_hook(hook)

    handles = [watch(path, m) for path, m in backbone.named_modules() if isinstance(m, Strided)]
    _map_width(features)
    for handle in handles:
        handle.remove()
    return halving
