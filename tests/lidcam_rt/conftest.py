from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
import artifacts


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny artifact with top_k 2."""
    return artifacts.build(tmp_path_factory.mktemp("artifact") / "tiny.onnx", top_k=2)


@pytest.fixture(scope="session")
def localizer(model: Path):
    import lidcam_rt

    with lidcam_rt.load(model) as opened:
        yield opened
