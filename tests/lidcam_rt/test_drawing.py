from __future__ import annotations

import json
from pathlib import Path

import artifacts
import cv2
import numpy as np
import pytest

from lidcam_rt import files
from lidcam_rt.errors import InputError, OutputError


def test_save_writes_what_the_result_says(localizer, tmp_path):
    result = localizer(artifacts.picture("red"))
    files = result.save(tmp_path / "a" / "b", name="over/../here é")
    assert set(files) == {"overlay", "mask", "map", "json"} and all(
        f.parent == tmp_path / "a" / "b" for f in files.values()
    )
    mask = cv2.imread(str(files["mask"]), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(mask > 0, result.mask)
    np.testing.assert_array_equal(cv2.imread(str(files["map"]), cv2.IMREAD_UNCHANGED), result.map)
    assert json.loads(files["json"].read_text())["box"] == list(result.box)
    assert not [name for name in (tmp_path / "a" / "b").iterdir() if name.name.startswith(".")]


def test_save_is_all_or_nothing(localizer, tmp_path, monkeypatch):
    result = localizer(artifacts.picture("red"))
    real, calls = files.write_atomically, []

    def fails_late(path, data):
        calls.append(path)
        if len(calls) == 3:
            raise OutputError("full")
        real(path, data)

    monkeypatch.setattr(files, "write_atomically", fails_late)
    with pytest.raises(OutputError, match="full"):
        result.save(tmp_path)
    assert len(calls) == 3 and list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that refuses")
def test_unwritable_folder(localizer, tmp_path):
    result = localizer(artifacts.picture("red"))
    with pytest.raises(OutputError, match="cannot be"):
        result.save("/proc/self/none")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="is a file"):
        result.save(tmp_path / "file")


def test_overlay_marks_the_box_and_leaves_the_rest(localizer):
    pixels = artifacts.picture("blue", (200, 120, 420, 300), (640, 480))
    result = localizer(pixels)
    drawn = result.overlay()
    assert drawn.shape == pixels.shape and drawn.dtype == np.uint8
    x0, y0, x1, y1 = result.box
    assert (drawn[y1 - 1, x0 : x1 - 1] == drawn[y1 - 1, x0]).all()
    far = result.map == 0
    far[max(0, y0 - 60) : y1 + 10, max(0, x0 - 10) : x1 + 200] = False
    assert far.any() and (drawn[far] == pixels[far]).all()
    assert (result.image == pixels).all()


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (200, 3), (20, 20), (2000, 1500)])
def test_overlay_of_any_size(localizer, size):
    pixels = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    assert localizer(pixels).overlay().shape == pixels.shape


def test_overlay_needs_the_picture(localizer):
    with pytest.raises(InputError, match="keep_image"):
        localizer(artifacts.picture(), keep_image=False).overlay()
    with pytest.raises(InputError, match="alpha"):
        localizer(artifacts.picture()).overlay(alpha=1.5)
