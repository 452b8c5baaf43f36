"""BatchNorm folded into the convolutions before it, for inference in PyTorch."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from lidcam_training.models.classifier import Classifier

__all__ = ["folded"]

_Norm = nn.BatchNorm1d | nn.BatchNorm2d
#: Largest change of a feature, in shares of the largest feature.
_ROUNDING = 1e-3


def folded(network: Classifier) -> Classifier:
    """A copy in eval mode, with each BatchNorm that alone reads a convolution's output folded into that convolution.

    The same function up to the order of float32 sums. Which module follows which is observed in a run; if the features
    change by more than rounding, because something else reads a convolution's output too, nothing is folded.

    Args:
        network: with a `forward_features`; stays as it is.
    """
    plain = copy.deepcopy(network).eval()
    network = copy.deepcopy(plain)
    picture = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    made: dict[int, list[nn.Conv2d]] = {}
    readers: dict[int, list[nn.Module]] = {}
    kept: list[Tensor] = []  # so that no other tensor gets its id
    calls: dict[nn.Module, int] = {}

    def after(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        calls[module] = calls.get(module, 0) + 1
        kept.extend(value for value in (*inputs, output) if isinstance(value, Tensor))
        if isinstance(module, _Norm) or not any(module.children()):
            for value in inputs:
                if isinstance(value, Tensor):
                    readers.setdefault(id(value), []).append(module)
        if isinstance(module, nn.Conv2d):
            made.setdefault(id(output), []).append(module)

    handles = [module.register_forward_hook(after) for module in network.modules()]
    with torch.no_grad():
        wanted = network.forward_features(picture)
    for handle in handles:
        handle.remove()
    names = {module: name for name, module in network.named_modules()}
    for key, convolutions in made.items():
        convolution, follow = convolutions[0], readers.get(key, [])
        norm = follow[0] if len(follow) == 1 else None
        if not isinstance(norm, _Norm) or norm.running_mean is None or norm.running_var is None:
            continue
        if calls[convolution] != 1 or calls[norm] != 1:
            continue
        weight, bias = fuse_conv_bn_weights(
            convolution.weight, convolution.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )
        convolution.weight, convolution.bias = nn.Parameter(weight.detach()), nn.Parameter(bias.detach())
        # timm's BatchNormAct2d has its activation inside
        rest = [part for part in (getattr(norm, "drop", None), getattr(norm, "act", None)) if part is not None]
        network.set_submodule(names[norm], nn.Sequential(*rest) if rest else nn.Identity())
    with torch.no_grad():
        error = (network.forward_features(picture) - wanted).abs().max()
    return network if error <= _ROUNDING * wanted.abs().max() else plain
