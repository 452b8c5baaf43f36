"""TensorFlow's `same` padding, which ONNX has as an attribute of the convolution for free heights and widths."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["SamePadConv2d", "replace_same_convolutions"]


class SamePadConv2d(nn.Module):
    """A convolution with TensorFlow's `same` padding: total = reach - stride + (-n mod stride), the smaller half first.

    In an exported graph it is one node with `auto_pad` SAME_UPPER. A separate padding node before it would cost engines
    two changes of memory layout, and chains of nodes that compute its width.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        """Float [N, C, H, W] to [N, C', ceil(H / stride), ceil(W / stride)]."""
        conv = self.conv
        if torch.compiler.is_exporting():
            sides = [(x.shape[2 + axis] + conv.stride[axis] - 1) // conv.stride[axis] for axis in (0, 1)]
            inputs = (x, conv.weight) if conv.bias is None else (x, conv.weight, conv.bias)
            return torch.onnx.ops.symbolic(
                "Conv",
                inputs,
                {
                    "auto_pad": "SAME_UPPER",
                    "dilations": list(conv.dilation),
                    "group": conv.groups,
                    "kernel_shape": list(conv.kernel_size),
                    "strides": list(conv.stride),
                },
                dtype=x.dtype,
                shape=(x.shape[0], conv.out_channels, *sides),
            )
        pads = []
        for axis in (1, 0):
            reach = (conv.kernel_size[axis] - 1) * conv.dilation[axis] + 1
            stride = conv.stride[axis]
            total = reach - stride if stride == 1 else reach - stride + (-x.shape[2 + axis]) % stride
            pads += [total // 2, total - total // 2]
        return functional.conv2d(
            functional.pad(x, pads), conv.weight, conv.bias, conv.stride, 0, conv.dilation, conv.groups
        )


def replace_same_convolutions(module: nn.Module) -> None:
    """Put SamePadConv2d in the place of timm's Conv2dSame, where kernels reach at least their stride."""
    for name, child in list(module.named_children()):
        if isinstance(child, SamePadConv2d):
            continue
        if type(child).__name__ == "Conv2dSame" and all(
            (k - 1) * d + 1 >= s
            for k, d, s in zip(child.kernel_size, child.dilation, child.stride, strict=True)  # type: ignore[arg-type]
        ):
            setattr(module, name, SamePadConv2d(child))  # type: ignore[arg-type]
        else:
            replace_same_convolutions(child)
