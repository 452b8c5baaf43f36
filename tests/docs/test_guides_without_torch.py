"""The guides of embedders and measurers, in an environment that needs no torch."""

import artifacts
import numpy as np
import pytest
import snippets
from PIL import Image

pytestmark = pytest.mark.slow  # not in make quick


@pytest.fixture
def folder(tmp_path, model):
    """The files that docs/runtime.md and docs/evaluation.md name."""
    (tmp_path / "model.onnx").symlink_to(model)
    Image.fromarray(artifacts.picture("red")).save(tmp_path / "photo.jpg")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    photos = tmp_path / "photos"
    for part in ("images", "masks"):
        (photos / part).mkdir(parents=True)
    (photos / "classes.txt").write_text("\n".join(artifacts.CLASSES))
    rows = ["file,label"]
    for i, colour in enumerate(artifacts.CLASSES):
        Image.fromarray(artifacts.picture(colour)).save(photos / "images" / f"{i}.png")
        mask = np.zeros((96, 160), np.uint8)
        mask[24:72, 40:104] = 255
        Image.fromarray(mask).save(photos / "masks" / f"{i}.png")
        rows.append(f"{i}.png,{colour}")
    (photos / "labels.csv").write_text("\n".join(rows))
    return tmp_path


def test_runtime_in_python(folder):
    output = snippets.joined("docs/runtime.md").run(folder)
    assert "left out: broken.jpg" in output and "['json', 'map', 'mask', 'overlay']" in output


def test_runtime_on_the_command_line(folder):
    for block in snippets.blocks("docs/runtime.md"):
        if block.language == "sh":
            block.run(folder)
    assert (folder / "out-one" / "results.json").exists() and (folder / "out-list" / "results.jsonl").exists()


def test_operator(tmp_path):
    snippets.joined("docs/operator.md", until="\n## CUDA").run(tmp_path)


def test_evaluation(folder):
    pytest.importorskip("matplotlib")
    for block in snippets.blocks("docs/evaluation.md"):
        block.run(folder)
    assert (folder / "out" / "report.html").stat().st_size > 10000
    assert {path.suffix for path in (folder / "labels").iterdir()} == {".png", ".json"}
