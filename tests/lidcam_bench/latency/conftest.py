"""Pictures of the benchmark's tests."""

from __future__ import annotations

from pathlib import Path

import artifacts
import pytest
from PIL import Image


@pytest.fixture(scope="module")
def labelled(tmp_path_factory) -> Path:
    return artifacts.data_set(tmp_path_factory.mktemp("data") / "photos", 4)


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("plain") / "photos"
    folder.mkdir()
    for colour in artifacts.CLASSES:
        Image.fromarray(artifacts.picture(colour)).save(folder / f"{colour}.png")
    return folder
