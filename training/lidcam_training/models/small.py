"""A squeeze-and-excitation ResNet small enough to train on two CPU cores in minutes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["SmallSEResNet"]


class _Block(nn.Module):
    """Two 3x3 convolutions, squeeze and excitation (Hu et al., CVPR 2018), and the shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.se1 = nn.Conv2d(outputs, max(outputs // 8, 4), 1)
        self.se2 = nn.Conv2d(max(outputs // 8, 4), outputs, 1)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        gate = torch.sigmoid(self.se2(functional.relu(self.se1(out.mean((2, 3), keepdim=True)))))
        return functional.relu(out * gate + self.shortcut(x))


class SmallSEResNet(nn.Module):
    """Stem at stride 2, then three stages at strides 1, 2, 1: a 64x64 picture gives a 16x16 map.

    Args:
        widths: channels of the three stages.
        blocks: blocks of the three stages.
    """

    def __init__(
        self, widths: tuple[int, int, int] = (24, 48, 64), blocks: tuple[int, int, int] = (1, 2, 2)
    ) -> None:
        super().__init__()
        self.num_features = widths[-1]
        self.stem = nn.Sequential(
            nn.Conv2d(3, widths[0], 3, 2, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU(inplace=True)
        )
        layers: list[nn.Module] = []
        channels = widths[0]
        for width, count, stride in zip(widths, blocks, (1, 2, 1), strict=True):
            for index in range(count):
                layers.append(_Block(channels, width, stride if index == 0 else 1))
                channels = width
        self.stages = nn.Sequential(*layers)
        ends = (blocks[0] - 1, sum(blocks[:2]) - 1, sum(blocks) - 1)
        self.feature_info = [{"module": f"stages.{end}"} for end in ends]

    def forward_features(self, x: Tensor) -> Tensor:
        """[N, 3, H, W] to [N, widths[-1], H/4, W/4]."""
        features: Tensor = self.stages(self.stem(x))
        return features
