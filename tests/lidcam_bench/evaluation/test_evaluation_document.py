"""Every `sh` and `python` block of docs/evaluation.md, in order, with a tiny artifact and four pictures."""

import os
import re
import subprocess
import sys
from pathlib import Path

import artifacts
import numpy as np
import pytest
from PIL import Image

PAGE = Path(__file__).parents[3] / "docs" / "evaluation.md"
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```$", re.M | re.S)


@pytest.mark.slow
def test_every_block_runs(model, tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / "model.onnx").symlink_to(model)
    photos = tmp_path / "photos"
    for part in ("images", "masks", "../bin"):
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
    Image.fromarray(artifacts.picture("blue")).save(tmp_path / "photo.jpg")
    lidcam = tmp_path / "bin" / "lidcam"
    lidcam.write_text(f"#!{sys.executable}\nfrom lidcam_rt.cli.main import main\nmain()\n")
    lidcam.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "COLUMNS": "80"}
    blocks = BLOCK.findall(PAGE.read_text())
    assert len(blocks) >= 5
    for language, text in blocks:
        command = ["sh", "-ec", text] if language == "sh" else [sys.executable, "-c", text]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment, timeout=120)
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    assert (tmp_path / "out" / "report.html").stat().st_size > 10000
    assert {p.suffix for p in (tmp_path / "labels").iterdir()} == {".png", ".json"}
