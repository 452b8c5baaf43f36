"""Runs every snippet of docs/runtime.md, in order, in a folder with the files that it names."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import artifacts
import pytest
from PIL import Image

PAGE = (Path(__file__).parents[2] / "docs" / "runtime.md").read_text()
SNIPPETS = re.findall(r"^```(python|sh)\n(.*?)^```$", PAGE, re.M | re.S)


@pytest.fixture
def folder(tmp_path):
    artifacts.build(tmp_path / "model.onnx", top_k=2)
    Image.fromarray(artifacts.picture("red")).save(tmp_path / "photo.jpg")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    return tmp_path


def test_there_are_snippets():
    assert len(SNIPPETS) >= 8


def test_python_snippets(folder):
    code = "\n".join(text for language, text in SNIPPETS if language == "python")
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "left out: broken.jpg" in done.stdout and "['json', 'map', 'mask', 'overlay']" in done.stdout


@pytest.mark.parametrize("text", [text for language, text in SNIPPETS if language == "sh"])
def test_shell_snippets(folder, text):
    (folder / "bin").mkdir()
    lidcam = folder / "bin" / "lidcam"
    lidcam.write_text(f"#!{sys.executable}\nfrom lidcam_rt.cli.main import main\nmain()\n")
    lidcam.chmod(0o755)
    path = f"{folder / 'bin'}:{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-ec", text], cwd=folder, capture_output=True, text=True, env={**os.environ, "PATH": path}
    )
    assert done.returncode == 0, done.stderr
    assert (folder / "out-one" / "results.json").exists() and (folder / "out-list" / "results.jsonl").exists()
