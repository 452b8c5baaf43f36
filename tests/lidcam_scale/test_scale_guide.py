"""Runs the blocks of docs/scale.md; those of Ray and Spark where these are installed."""

from __future__ import annotations

import shutil

import artifacts
import pytest
import snippets
from PIL import Image
from scale_tables import rows_of

pytestmark = pytest.mark.slow
BLOCKS = snippets.blocks("docs/scale.md")


@pytest.fixture
def folder(tmp_path, model):
    """The files that the page names."""
    (tmp_path / "model.onnx").symlink_to(model)
    (tmp_path / "photos").mkdir()
    for colour in artifacts.CLASSES:
        Image.fromarray(artifacts.picture(colour)).save(tmp_path / "photos" / f"{colour}.jpg")
    artifacts.data_set(tmp_path / "set", 6)
    return tmp_path


def kind(block: snippets.Block) -> str:
    return next((name for name in ("ray", "spark") if name in block.text), "")


def test_on_one_machine(folder):
    pytest.importorskip("matplotlib", reason="extra eval is not installed")
    outputs = [block.run(folder) for block in BLOCKS if not kind(block)]
    assert outputs[1].strip() == "4 pictures, 0 could not be read" and outputs[-1].strip() == "4 0 0"


def test_on_ray(folder):
    pytest.importorskip("ray.data", reason="extra ray is not installed")
    blocks = [block for block in BLOCKS if kind(block) == "ray"]
    assert len(blocks) == 2
    for block in blocks:
        block.run(folder)
    assert sorted(row["class"] for row in rows_of(folder / "rows-ray")) == sorted(artifacts.CLASSES)
    assert sorted(row["class"] for row in rows_of(folder / "rows-ray-data")) == sorted(artifacts.CLASSES)


@pytest.mark.skipif(shutil.which("java") is None, reason="no Java")
def test_on_spark(folder):
    pytest.importorskip("pyspark", reason="extra spark is not installed")
    command, program = (block for block in BLOCKS if kind(block) == "spark")
    command.run(folder)
    assert sorted(row["class"] for row in rows_of(folder / "rows-spark")) == sorted(artifacts.CLASSES)
    assert program.run(folder).split()[-2:] == ["4", "localized"]
