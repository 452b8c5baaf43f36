from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def resnet10(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small real network as an artifact, 224x224, any size, random weights (needs torch)."""
    import torch
    from lidcam_export.exporter import ExportOptions, export_artifact

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("resnet10") / "resnet10t.onnx"
    export_artifact("timm:resnet10t", path, ExportOptions(size=(224, 224)))
    return path
