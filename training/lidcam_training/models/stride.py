"""The stride of a backbone: measured, and halved by removing the last stage's stride."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lidcam_rt.errors import InputError

__all__ = ["feature_stride", "set_stride"]

_PROBE = 128


Features = Callable[[Tensor], Tensor]


def _forward_size(features: Features, size: int = _PROBE) -> int:
    with torch.no_grad():
        return int(features(torch.zeros(1, 3, size, size)).shape[-1])


def feature_stride(backbone: nn.Module, features: Features | None = None) -> int:
    """Pixels of the input per cell of the map of `features`, by default `backbone.forward_features`."""
    was_training = backbone.training
    backbone.eval()
    try:
        return _PROBE // _forward_size(features or backbone.forward_features)  # type: ignore[arg-type]
    finally:
        backbone.train(was_training)


def set_stride(backbone: nn.Module, stride: int, name: str, *, features: Features | None = None) -> None:
    """Remove the stride of the last stages until the map has the wanted stride; weights stay as they are.

    Every convolution and max pooling that makes the smallest size gets stride 1 (no dilation, as in the
    released VGG16 and in the WSOL ResNets); an average pooling of a shortcut and a 2x2 max pooling become
    the identity.

    Args:
        backbone: the network; changed in place.
        stride: wanted, for example 16.
        name: of the backbone, for messages.
        features: float [N, 3, H, W] to the map; by default `backbone.forward_features`.

    Raises:
        InputError: the backbone cannot have that stride.
    """
    run: Features = features or backbone.forward_features  # type: ignore[assignment]
    have = feature_stride(backbone, run)
    possible = [have >> i for i in range(have.bit_length())]
    if stride not in possible:
        raise InputError(
            f"{name} has stride {have}: `stride` can be {', '.join(map(str, possible[:3]))} or a smaller power of two, "
            f"not {stride}"
        )
    was_training = backbone.training
    backbone.eval()
    while have > stride:
        target = _PROBE // have
        found: list[tuple[str, nn.Module]] = []
        hooks = []
        for path, module in backbone.named_modules():
            if isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
                # type: ignore[no-untyped-def]
                def hook(module, inputs, output, path=path, target=target, found=found):
                    if output.shape[-1] == target and inputs[0].shape[-1] == 2 * target:
                        found.append((path, module))

                hooks.append(module.register_forward_hook(hook))
        _forward_size(run)
        for handle in hooks:
            handle.remove()
        for path, module in found:
            kernel = module.kernel_size if isinstance(module.kernel_size, int) else module.kernel_size[0]
            if isinstance(module, nn.AvgPool2d) or (isinstance(module, nn.MaxPool2d) and kernel == 2):
                backbone.set_submodule(path, nn.Identity())
            else:
                module.stride = (1, 1) if isinstance(module, nn.Conv2d) else 1
        now = _PROBE // _forward_size(run)
        if now != have // 2:
            raise InputError(
                f"{name}: the stride {have} of its last stage cannot be removed; leave `stride` out"
            )
        have = now
    backbone.train(was_training)
