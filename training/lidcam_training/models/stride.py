"""The stride of a backbone: measured, and halved by removing the last stage's stride."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lidcam_rt.errors import InputError

__all__ = ["Features", "feature_stride", "set_stride"]

#: float [N, 3, H, W], normalised, to the last feature map [N, C, h, w]
Features = Callable[[Tensor], Tensor]
Strided = nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d

_PROBE = (128, 128)
#: Pixels by which a picture is widened: a multiple of all usual strides, so that every stage gains whole cells.
_WIDER = 192


def _map_width(features: Features, height: int, width: int) -> int:
    with torch.no_grad():
        return int(features(torch.zeros(1, 3, height, width)).shape[-1])


def feature_stride(features: Features, size: tuple[int, int] = _PROBE) -> int:
    """Pixels of the input per cell of the map, of a network in eval mode.

    Measured by how many more cells a wider picture has, since convolutions without padding lose cells at the borders.

    Args:
        features: float [N, 3, H, W] to the map.
        size: (height, width) of a picture that the network takes, pixels.
    """
    height, width = size
    cells = _map_width(features, height, width)
    try:
        more = _map_width(features, height, width + _WIDER) - cells
    except (RuntimeError, AssertionError, ValueError, IndexError):  # a network with a fixed input size
        more = 0
    return max(1, round(_WIDER / more if more > 0 else width / cells))


def set_stride(
    backbone: nn.Module, stride: int, name: str, features: Features, *, size: tuple[int, int] = _PROBE
) -> None:
    """Remove the stride of the last stages until the map has the wanted stride; weights stay as they are.

    Every convolution and max pooling that makes the smallest size gets stride 1 (no dilation, as in the
    released VGG16 and in the WSOL ResNets); an average pooling of a shortcut and a 2x2 max pooling become
    the identity.

    Args:
        backbone: the network, in eval mode; changed in place.
        stride: wanted, for example 16.
        name: of the backbone, for messages.
        features: float [N, 3, H, W] to the map.
        size: (height, width) of a picture that the network takes, pixels.

    Raises:
        InputError: the backbone cannot have that stride.
    """
    current = feature_stride(features, size)
    possible = [current >> i for i in range(current.bit_length())]
    if stride not in possible:
        raise InputError(
            f"{name} has stride {current}: `stride` can be {', '.join(map(str, possible[:3]))} or a smaller power of "
            f"two, not {stride}"
        )
    while current > stride:
        for path, layer in _halving_layers(backbone, features, size):
            kernel = layer.kernel_size if isinstance(layer.kernel_size, int) else layer.kernel_size[0]
            if isinstance(layer, nn.Conv2d):
                layer.stride = (1, 1)
            elif isinstance(layer, nn.AvgPool2d) or kernel == 2:
                backbone.set_submodule(path, nn.Identity())
            else:
                layer.stride = 1
        if feature_stride(features, size) != current // 2:
            raise InputError(f"{name}: the stride {current} of its last stage cannot be removed; leave `stride` out")
        current //= 2


def _halving_layers(backbone: nn.Module, features: Features, size: tuple[int, int]) -> list[tuple[str, Strided]]:
    """Path and layer of all that make a map of the final width from one with at least twice as many columns."""
    width = _map_width(features, *size)
    halving: list[tuple[str, Strided]] = []

    def watch(path: str, layer: Strided) -> torch.utils.hooks.RemovableHandle:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if output.shape[-1] == width and inputs[0].shape[-1] >= 2 * width:
                halving.append((path, layer))

        return layer.register_forward_hook(hook)

    handles = [watch(path, m) for path, m in backbone.named_modules() if isinstance(m, Strided)]
    _map_width(features, *size)
    for handle in handles:
        handle.remove()
    return halving
