from __future__ import annotations

import fcntl
import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import artifacts


@pytest.fixture(scope="session")
def resnet10(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small real network as an artifact, 224x224, any size, random weights (needs torch). Made once per run."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # that of the run, which its processes share
    path = folder / "resnet10t.onnx"
    with (folder / "resnet10t.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            import torch
            from lidcam_export.exporter import export_artifact
            from lidcam_export.options import ExportOptions

            torch.manual_seed(0)
            export_artifact("timm:resnet10t", path, ExportOptions(size=(224, 224)))
    return path


@pytest.fixture(scope="session")
def library() -> Path:
    """The operator library for ONNX Runtime."""
    from lidcam_rt.pas import ops_library

    found = ops_library()
    if found is None:
        if os.environ.get("LIDCAM_REQUIRE_OPS"):
            pytest.fail("the operator library was not built")
        pytest.skip("the operator library was not built: ONNX Runtime's headers were missing")
    return found


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny artifact with top_k 2."""
    return artifacts.build(tmp_path_factory.mktemp("artifact") / "tiny.onnx", top_k=2)


@pytest.fixture(scope="session")
def localizer(model: Path):
    import lidcam_rt

    with lidcam_rt.load(model) as opened:
        yield opened
