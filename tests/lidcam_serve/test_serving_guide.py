"""Runs the blocks of docs/serving.md and docs/web.md."""

from __future__ import annotations

import io
import json
import shutil
import socket
from contextlib import ExitStack, suppress

import artifacts
import pytest
import snippets
from PIL import Image

pytestmark = pytest.mark.slow  # not in make quick: servers and a browser


@pytest.fixture(autouse=True)
def taken():
    """The ports of the guide are, as by another run of these tests."""
    with ExitStack() as stack:
        for port in (8321, 8322, 8331):
            holder = stack.enter_context(socket.socket())
            with suppress(OSError):  # then it is taken already
                holder.bind(("127.0.0.1", port))
        yield


@pytest.fixture
def folder(tmp_path, model):
    (tmp_path / "model.onnx").symlink_to(model)
    Image.fromarray(artifacts.picture("red")).save(tmp_path / "photo.jpg", quality=95)
    return tmp_path


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
def test_the_commands(folder):
    for block in snippets.blocks("docs/serving.md"):
        if block.language == "sh":
            block.run(folder)
    assert (folder / "repository" / "model" / "config.pbtxt").exists()
    assert json.loads((folder / "result.json").read_text())["class_name"] == "red"
    assert "unrefined" in json.loads((folder / "refined.json").read_text())
    assert Image.open(io.BytesIO((folder / "overlay.png").read_bytes())).size == (160, 96)
    assert [entry["class_name"] for entry in json.loads((folder / "labels.json").read_text())["classes"]] == ["red"]
    assert "lidcam_request_seconds" in (folder / "metrics.txt").read_text()


def test_the_client(folder):
    pytest.importorskip("tritonclient.http", reason="tritonclient is not installed")
    assert "b'red'" in snippets.joined("docs/serving.md").run(folder)


@pytest.mark.skipif(shutil.which("npm") is None, reason="no npm")
def test_the_site(folder, ort_web):
    (folder / "onnxruntime-web-1.30.0.tgz").symlink_to(ort_web)
    for block in snippets.blocks("docs/web.md"):
        block.run(folder)
    webgpu = "static/ort/ort.webgpu.min.mjs"
    assert (folder / "site" / webgpu).exists() and not (folder / "small" / webgpu).exists()
    assert (folder / "site" / "model.onnx").read_bytes() == (folder / "model.onnx").read_bytes()
