"""A network of a second to export: SAME padding, BatchNorm, a squeeze-and-excitation block."""

import pytest
from lidcam_export.exporter import export_artifact
from lidcam_export.graph.localization import LocalizationGraph
from lidcam_export.options import ExportOptions
from lidcam_export.sources.source import load_source

NETWORK = """
from timm.layers import Conv2dSame, SEModule
from torch import nn


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(Conv2dSame(3, 8, 3, stride=2, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.deep = nn.Sequential(Conv2dSame(8, 16, 5, stride=2, bias=False), nn.BatchNorm2d(16), SEModule(16))
        self.act, self.pool, self.fc = nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Linear(16, 5)

    def forward(self, x):
        return self.fc(self.pool(self.act(self.deep(self.stem(x)))).flatten(1))


def tiny():
    import torch

    torch.manual_seed(0)
    network = Tiny()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_var, 0.5, 2)
            nn.init.normal_(layer.running_mean)
            nn.init.normal_(layer.bias)
    return network
"""
TINY_OPTIONS = ExportOptions(
    size=(48, 64), mean=(123.7, 116.3, 103.5), std=(58.4, 57.1, 57.4), class_names=tuple("abcde"), top_k=2
)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """The artifact, and the graph in PyTorch."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "tiny_network.py").write_text(NETWORK)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        manifest, _ = export_artifact("python:tiny_network:tiny", folder / "tiny.onnx", TINY_OPTIONS)
        graph = LocalizationGraph(load_source("python:tiny_network:tiny"), manifest).eval()
    return folder / "tiny.onnx", graph
