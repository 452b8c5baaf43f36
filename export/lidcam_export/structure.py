"""Find where a classifier's last feature map, pooling and classifying layer are, by running it.

A class activation map is exact where logits = mean(F) W^T + b. The outputs of all layers are watched during a forward
pass; the last feature map F and the layer (W, b) for which that equation holds, in numbers, are the structure. The
layer's weights are random while it is checked: those of a head that was initialised with zeros would fit anything.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from lidcam_rt.errors import ExportError

__all__ = ["Structure", "Tail", "find_structure", "find_tail", "run_with"]

_NEED = (
    "A class activation map needs a last feature map [N, C, h, w] that is averaged over its pixels and goes straight "
    "into one linear layer (or 1x1 convolution)"
)
_TAKE = (
    "Take resnet50, seresnet50, mobilenetv2_100, efficientnet_b0 or cam:vgg16, train one with `lidcam train`, or take "
    "the map of the linearized head with --head linearized"
)
Size = tuple[int, int]


@dataclass(frozen=True)
class Structure:
    """A classifier whose map is exact, taken apart.

    Attributes:
        features: float [N, 3, H, W] to F [N, C, h, w].
        weight: [K, C], signed.
        bias: [K], zeros where the layer has none.
        feature_layer: name of the module that gives F.
        head: name of the layer that gives the logits.
        activation: what the network applies to the logits before it returns them.
    """

    features: Callable[[Tensor], Tensor]
    weight: Tensor
    bias: Tensor
    feature_layer: str
    head: str
    activation: Literal["none", "sigmoid", "softmax"] = "none"

    @property
    def classes(self) -> int:
        """K."""
        return len(self.weight)


@dataclass(frozen=True)
class Tail:
    """A classifier whose last feature map goes through more than pooling and one linear layer.

    Attributes:
        model: float [N, 3, H, W] to logits [N, K].
        feature_layer: name of the module that gives F.
        channels_last: whether that module gives [N, h, w, C].
        classes: K.
    """

    model: nn.Module
    feature_layer: str
    channels_last: bool
    classes: int

    def features(self, x: Tensor) -> Tensor:
        """Float [N, 3, H, W] to F [N, C, h, w]."""
        return self.run(x)[0]

    def run(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Float [N, 3, H, W] to F [N, C, h, w] and logits [N, K]."""
        logits, features = run_with(self.model, self.feature_layer, x, lambda _: None)
        return features.permute(0, 3, 1, 2) if self.channels_last else features, logits

    def classify(self, features: Tensor, x: Tensor) -> Tensor:
        """Logits [N, K] of given features [N, C, h, w]; of the pictures x only the number matters."""
        given = features.permute(0, 2, 3, 1) if self.channels_last else features
        return run_with(self.model, self.feature_layer, x, lambda _: given)[0]


def run_with(
    model: nn.Module, layer: str, x: Tensor, replace: Callable[[Tensor], Tensor | None]
) -> tuple[Tensor, Tensor]:
    """Run a network; `replace` may give another output of one of its modules.

    Returns:
        The network's output, and the module's own.
    """
    outputs: list[Tensor] = []

    def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor | None:
        outputs.append(output)
        return replace(output)

    handle = model.get_submodule(layer).register_forward_hook(hook)
    try:
        result: Tensor = model(x)
    finally:
        handle.remove()
    return result, outputs[-1]


class _Watch:
    """A forward pass: output, 4-D outputs of modules in order of execution, and layers that may be the head."""

    def __init__(self, model: nn.Module, x: Tensor) -> None:
        self.maps: dict[str, Tensor] = {}
        self.layers: list[str] = []
        hooks = [m.register_forward_hook(self._watcher(name)) for name, m in model.named_modules() if name]
        try:
            with torch.no_grad():
                self.output = model(x)
        finally:
            for handle in hooks:
                handle.remove()

    def _watcher(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim == 4 and sum(side > 1 for side in output.shape[1:]) > 1:
                self.maps.pop(name, None)
                self.maps[name] = output
            point = isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.groups == 1
            if isinstance(module, nn.Linear) or point:
                self.layers.append(name)

        return hook


def _layer(model: nn.Module, name: str) -> nn.Linear | nn.Conv2d:
    return cast(nn.Linear | nn.Conv2d, model.get_submodule(name))


def _pictures(size: Size) -> Tensor:
    return torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))


def _watch(model: nn.Module, name: str, x: Tensor) -> _Watch:
    try:
        watch = _Watch(model, x)
    except (AssertionError, RuntimeError, ValueError, TypeError, IndexError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        size = f"{x.shape[2]}x{x.shape[3]}"
        raise ExportError(f"{name} does not run on a picture of {size} ({reason}). {_NEED}") from None
    if not isinstance(watch.output, Tensor) or watch.output.ndim != 2:
        output = watch.output
        shape = tuple(output.shape) if isinstance(output, Tensor) else f"a {type(output).__name__}"
        raise ExportError(f"{name} gives {shape} instead of logits [N, K]. {_NEED}")
    if not bool(torch.isfinite(watch.output).all()):
        raise ExportError(f"{name} gives NaN or infinite logits: its weights are damaged, or the training diverged")
    return watch


@contextlib.contextmanager
def _random_weights(layer: nn.Linear | nn.Conv2d) -> Iterator[None]:
    """Random weights in a layer until the block ends; logits of about 1, which no sigmoid flattens."""
    generator = torch.Generator().manual_seed(1)
    parameters = [p for p in (layer.weight, layer.bias) if p is not None]
    saved = [p.detach().clone() for p in parameters]
    try:
        with torch.no_grad():
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator) * saved[0][0].numel() ** -0.5)
            if layer.bias is not None:
                layer.bias.copy_(torch.randn(layer.bias.shape, generator=generator))
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(parameters, saved, strict=True):
                parameter.copy_(value)


def find_structure(model: nn.Module, name: str, *, size: Size = (224, 224)) -> Structure:
    """Find the last feature map and the classifying layer.

    Args:
        model: in eval mode, float [N, 3, H, W] to logits [N, K].
        name: of the network, for messages.
        size: (height, width) of pictures that the network takes, pixels.

    Raises:
        ExportError: no feature map and layer give the logits exactly; the message says what was seen.
    """
    x = _pictures(size)
    watch = _watch(model, name, x)
    classes = watch.output.shape[1]
    heads = [head for head in dict.fromkeys(reversed(watch.layers)) if len(_layer(model, head).weight) == classes]
    if not heads:
        raise ExportError(
            f"{name}: no linear layer or 1x1 convolution has {classes} outputs, as the logits have. {_NEED}. {_TAKE}"
        )
    for head in heads:
        layer = _layer(model, head)
        with _random_weights(layer):
            found = _matching_map(_watch(model, name, x), layer)
        if found is not None:
            feature_layer, relu, last, activation = found
            weight = layer.weight.detach().flatten(1)
            bias = torch.zeros(classes) if layer.bias is None else layer.bias.detach()
            features = _features(model, feature_layer, relu, last, x)
            return Structure(features, weight, bias, feature_layer, head, activation)
    if (structure := _affine_structure(model, name, watch, heads[0], size)) is not None:
        return structure
    raise ExportError(f"{name} {_what_stands_between(watch, heads[0], _layer(model, heads[0]))}. {_NEED}. {_TAKE}")


def _affine_structure(model: nn.Module, name: str, watch: _Watch, head: str, size: Size) -> Structure | None:
    """The structure of a head that is affine after the pooling without being one layer, such as two linear layers.

    Its weights are the gradients of the logits with respect to the pooled features, whatever the picture.
    """
    try:
        tail = find_tail(model, name, size=size)
    except ExportError:
        return None
    x = _pictures(size)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad(), _random_weights(_layer(model, head)):
        features = tail.features(x)
        first, second = (torch.randn(features.shape, generator=generator) for _ in range(2))
        flat = second.mean((2, 3), keepdim=True).expand_as(second)
        logits = [tail.classify(f, x) for f in (first, second, flat, 0.25 * first + 0.75 * second)]
    scale = max(float(value.abs().max()) for value in logits) * 1e-4 + 1e-6
    pooled = float((logits[1] - logits[2]).abs().max()) <= scale
    affine = float((logits[3] - 0.25 * logits[0] - 0.75 * logits[1]).abs().max()) <= scale
    if not (pooled and affine):
        return None
    x, zero = x[:1], torch.zeros(1, *features.shape[1:], requires_grad=True)
    at_zero = tail.classify(zero, x)
    rows = [torch.autograd.grad(logit, zero, retain_graph=True)[0].sum((0, 2, 3)) for logit in at_zero[0]]
    layers = " and ".join(watch.layers[-2:])
    return Structure(
        tail.features, torch.stack(rows), at_zero[0].detach(), tail.feature_layer, layers, "none"
    )


@torch.no_grad()
def _matching_map(
    watch: _Watch, layer: nn.Linear | nn.Conv2d
) -> tuple[str, bool, bool, Literal["none", "sigmoid", "softmax"]] | None:
    """The last map that gives the output: its layer, whether a ReLU follows, its layout, and the activation."""
    weight = layer.weight.flatten(1)
    channels = weight.shape[1]
    activations: dict[Literal["none", "sigmoid", "softmax"], Callable[[Tensor], Tensor]] = {
        "none": lambda logits: logits,
        "sigmoid": torch.sigmoid,
        "softmax": lambda logits: logits.softmax(1),
    }
    for name, output in reversed(watch.maps.items()):
        for last in (False, True):
            if output.shape[3 if last else 1] != channels:
                continue
            features = output.permute(0, 3, 1, 2) if last else output
            for relu in (False, True):
                value = functional.relu(features) if relu else features
                logits = functional.linear(value.mean((2, 3)), weight, layer.bias)
                for activation, function in activations.items():
                    error = float((function(logits) - watch.output).abs().max())
                    if error <= 1e-3 * float(watch.output.abs().max()) + 1e-6:
                        return name, relu, last, activation
    return None


def _what_stands_between(watch: _Watch, head: str, layer: nn.Linear | nn.Conv2d) -> str:
    channels = layer.weight.flatten(1).shape[1]
    fitting = [name for name, value in watch.maps.items() if channels in (value.shape[1], value.shape[3])]
    if fitting:
        seen = (
            f"its last feature map of {channels} channels ({fitting[-1]}) averaged over the pixels does not "
            "give the logits: another layer or another pooling stands between them"
        )
    else:
        last = next(reversed(watch.maps), None)
        shapes = (
            f"the last feature map {last} has {watch.maps[last].shape[1]}" if last else "no layer gives a feature map"
        )
        seen = f"{head} takes {channels} channels, {shapes}"
    return f"ends in {type(layer).__name__} {head!r}, but {seen}, so it has no exact activation map"


def _features(
    model: nn.Module, layer: str, relu: bool, channels_last: bool, x: Tensor
) -> Callable[[Tensor], Tensor]:
    """Pictures to the feature map: timm's `forward_features` where it is that, else the whole network, watched."""

    def watched(pixels: Tensor) -> Tensor:
        output = run_with(model, layer, pixels, lambda _: None)[1]
        return functional.relu(output) if relu else output

    def channels_first(run: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return (lambda pixels: run(pixels).permute(0, 3, 1, 2)) if channels_last else run

    shortcut: Callable[[Tensor], Tensor] | None = getattr(model, "forward_features", None)
    if callable(shortcut):  # it stops before the pooling
        with torch.no_grad():
            output, expected = shortcut(x), watched(x)
        same = isinstance(output, Tensor) and output.shape == expected.shape
        if same and torch.allclose(output, expected, atol=1e-5):
            return channels_first(shortcut)
    return channels_first(watched)


def find_tail(model: nn.Module, name: str, *, size: Size = (224, 224)) -> Tail:
    """Find the last feature map of a classifier whose head is not one linear layer.

    Args:
        model: in eval mode, float [N, 3, H, W] to logits [N, K].
        name: of the network, for messages.
        size: (height, width) of pictures that the network takes, pixels.

    Raises:
        ExportError: no layer gives a feature map, or the network returns probabilities.
    """
    watch = _watch(model, name, _pictures(size))
    output = watch.output
    if bool((output >= 0).all()) and bool((output <= 1).all()):
        raise ExportError(
            f"{name} returns values between 0 and 1, but the map of a linearized head needs logits. Let it return the "
            "values before its softmax or sigmoid"
        )
    maps = {n: m for n, m in watch.maps.items() if "Pool" not in type(model.get_submodule(n)).__name__}
    for layer, value in reversed(maps.items()):
        # square maps of square pictures: [N, C, s, s] or [N, s, s, C]
        sides = value.shape[1:]
        last = sides[0] == sides[1] != sides[2] if size[0] == size[1] else sides[2] > max(sides[:2])
        if min(sides[:2] if last else sides[1:]) > 1:
            return Tail(model, layer, last, output.shape[1])
    raise ExportError(f"{name}: no layer gives a feature map [N, C, h, w] of more than one pixel. {_NEED}")
