from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="extra scale is not installed")
sys.path.insert(0, str(Path(__file__).parent))
from scale_photos import make_photos


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> Path:
    """40 pictures and one whose name is not UTF-8."""
    return make_photos(tmp_path_factory.mktemp("photos") / "photos", 40)


@pytest.fixture(scope="session")
def many(tmp_path_factory) -> Path:
    """500 made pictures and one more, a tenth of which cannot be read."""
    return make_photos(tmp_path_factory.mktemp("many") / "photos", 500)
