"""Find where a classifier's last feature map, pooling and classifying layer are, by running it once.

A class activation map is exact where logits = mean(F) W^T + b. Every layer's output is watched during one forward
pass; the last feature map F and the layer (W, b) for which that equation holds, in numbers, are the structure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from lidcam_rt.errors import ExportError

__all__ = ["Structure", "find_structure"]

_NEED = (
    "A class activation map needs a last feature map [N, C, h, w] that is averaged over its pixels and goes straight "
    "into one linear layer (or 1x1 convolution)"
)
_TAKE = "Take resnet50, seresnet50, mobilenetv2_100, efficientnet_b0 or cam:vgg16, or train one with `lidcam train`"


@dataclass(frozen=True)
class Structure:
    """A classifier taken apart.

    Attributes:
        features: float [N, 3, H, W] to F [N, C, h, w].
        weight: [K, C], signed.
        bias: [K], zeros where the layer has none.
        feature_layer: name of the module that gives F.
        head: name of the layer that gives the logits.
    """

    features: Callable[[Tensor], Tensor]
    weight: Tensor
    bias: Tensor
    feature_layer: str
    head: str


class _WatchedLayer:
    """Calls the whole network and gives what one of its modules put out."""

    def __init__(self, model: nn.Module, layer: str, relu: bool) -> None:
        self._model, self._relu = model, relu
        self._seen: list[Tensor] = []
        model.get_submodule(layer).register_forward_hook(lambda _m, _i, output: self._seen.append(output))

    def __call__(self, x: Tensor) -> Tensor:
        self._seen.clear()
        self._model(x)
        features = self._seen.pop()
        return functional.relu(features) if self._relu else features


def _watch(model: nn.Module, x: Tensor) -> tuple[Tensor, dict[str, Tensor], list[str]]:
    """Logits, the 4-D outputs by module name in order of their making, and the layers that may be the head."""
    maps: dict[str, Tensor] = {}
    heads: list[str] = []
    hooks = []

    def watcher(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2] * output.shape[3] > 1:
                maps.pop(name, None)
                maps[name] = output
            point = isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.groups == 1
            if isinstance(module, nn.Linear) or point:
                heads.append(name)

        return hook

    for name, module in model.named_modules():
        if name:
            hooks.append(module.register_forward_hook(watcher(name)))
    try:
        with torch.no_grad():
            logits = model(x)
    finally:
        for handle in hooks:
            handle.remove()
    return logits, maps, heads


def _layer(model: nn.Module, name: str) -> nn.Linear | nn.Conv2d:
    return cast(nn.Linear | nn.Conv2d, model.get_submodule(name))


def _probe(model: nn.Module, name: str, size: int) -> tuple[Tensor, Any]:
    x = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    try:
        return x, _watch(model, x)
    except (AssertionError, RuntimeError, ValueError, TypeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ExportError(f"{name} does not run on a picture of {size}x{size} ({reason}). {_NEED}") from None


def find_structure(model: nn.Module, name: str, *, size: int = 224) -> Structure:
    """Find the last feature map and the classifying layer.

    Args:
        model: in eval mode, float [N, 3, H, W] to logits [N, K].
        name: of the network, for messages.
        size: side of a picture that the network surely takes, pixels.

    Raises:
        ExportError: no feature map and layer give the logits exactly; the message says what was found.
    """
    x, (logits, maps, heads) = _probe(model, name, size)
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ExportError(f"{name} gives {shape} instead of logits [N, K]. {_NEED}")
    heads = [name for name in heads if _layer(model, name).weight.shape[0] == logits.shape[1]]
    if not heads:
        raise ExportError(
            f"{name}: no linear layer or 1x1 convolution has {logits.shape[1]} outputs, as the logits have. "
            f"{_NEED}. {_TAKE}"
        )
    head = heads[-1]
    layer = _layer(model, head)
    weight = layer.weight.detach().flatten(1)
    bias = layer.bias.detach() if layer.bias is not None else torch.zeros(len(weight))
    tolerance = 1e-3 * float((logits - bias).abs().max()) + 1e-6
    fitting = [n for n, value in maps.items() if value.shape[1] == weight.shape[1]]
    for candidate in reversed(fitting):
        for relu in (False, True):
            value = functional.relu(maps[candidate]) if relu else maps[candidate]
            if float((value.mean((2, 3)) @ weight.T + bias - logits).abs().max()) <= tolerance:
                return Structure(_callable(model, candidate, relu, x, value), weight, bias, candidate, head)
    if fitting:
        found = (
            f"its last feature map of {weight.shape[1]} channels ({fitting[-1]}) averaged over the pixels does not "
            "give the logits: another layer or another pooling stands between them"
        )
    else:
        last = next(reversed(maps), None)
        shapes = f"the last feature map {last} has {maps[last].shape[1]}" if last else "no layer gives a feature map"
        found = f"{head} takes {weight.shape[1]} channels, {shapes}"
    raise ExportError(
        f"{name} ends in {type(layer).__name__} {head!r}, but {found}, so that no activation map of it is exact. "
        f"{_NEED}. {_TAKE}"
    )


def _callable(model: nn.Module, layer: str, relu: bool, x: Tensor, value: Tensor) -> Callable[[Tensor], Tensor]:
    features: Callable[[Tensor], Tensor] | None = getattr(model, "forward_features", None)  # timm's: all before pooling
    if callable(features):
        with torch.no_grad():
            output = features(x)
        if isinstance(output, Tensor) and output.shape == value.shape and torch.allclose(output, value, atol=1e-5):
            return features
    return _WatchedLayer(model, layer, relu)
