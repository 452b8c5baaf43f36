from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import artifacts
import cv2
import numpy as np
import pytest
from PIL import Image

import lidcam_rt
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

    def fails_late(path, data, **how):
        calls.append(path)
        if len(calls) == 3:
            raise OutputError("full")
        real(path, data, **how)

    monkeypatch.setattr(files, "write_atomically", fails_late)
    with pytest.raises(OutputError, match="full"):
        result.save(tmp_path)
    assert len(calls) == 3 and list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(localizer, tmp_path):
    """Arrays have no names, pictures of two folders may have one name, and a picture may be saved again."""
    results = [localizer(artifacts.picture(colour)) for colour in artifacts.CLASSES]
    for i, colour in enumerate(artifacts.CLASSES[:3]):
        (tmp_path / str(i)).mkdir()
        Image.fromarray(artifacts.picture(colour)).save(tmp_path / str(i) / "photo.png")
        results.append(localizer(tmp_path / str(i) / "photo.png"))
    results.append(results[-1])
    written = [result.save(tmp_path / "out") for result in results]
    assert len(list((tmp_path / "out").iterdir())) == 4 * len(results) == len({p for f in written for p in f.values()})
    for result, paths in zip(results, written, strict=True):
        about = json.loads(paths["json"].read_text())
        assert about["class_name"] == result.class_name and about["files"]["mask"] == paths["mask"].name
        mask = cv2.imread(str(paths["mask"]), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(mask > 0, result.mask)
    assert {f["json"].name for f in written[:4]} == {f"localization{end}.json" for end in ("", "-2", "-3", "-4")}
    segment = lidcam_rt.CamSegmenter(localizer)
    maps = [segment(artifacts.picture(colour)).save(tmp_path / "maps") for colour in ("red", "blue", "blue")]
    assert len({f["png"] for f in maps}) == 3 and len(list((tmp_path / "maps").iterdir())) == 6


def test_threads_that_save_under_one_name_lose_nothing(localizer, tmp_path):
    results = [localizer(artifacts.picture(artifacts.CLASSES[i % 4]), keep_image=False) for i in range(32)]
    with ThreadPoolExecutor(8) as pool:
        written = list(pool.map(lambda result: result.save(tmp_path, name="same"), results))
    for result, paths in zip(results, written, strict=True):
        assert json.loads(paths["json"].read_text())["class_name"] == result.class_name
    assert len(list(tmp_path.iterdir())) == 3 * 32


def test_file_systems_without_second_names(localizer, tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    result = localizer(artifacts.picture("red"))
    first, second = result.save(tmp_path), result.save(tmp_path)
    assert first["mask"] != second["mask"] and first["mask"].read_bytes() == second["mask"].read_bytes() != b""
    assert len(list(tmp_path.iterdir())) == 8


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
