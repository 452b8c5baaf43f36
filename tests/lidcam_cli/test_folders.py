from __future__ import annotations

import os
from pathlib import Path

import artifacts
import pytest
from PIL import Image

from lidcam_cli.folders import find_pictures
from lidcam_cli.runs import RunFolder
from lidcam_rt.errors import DataError
from lidcam_rt.files import output_folder


def make(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def names(folder: Path) -> list[str]:
    return [os.path.relpath(path, folder) for path in find_pictures(folder).paths]


def test_pictures_to_any_depth_in_a_stable_order(tmp_path):
    make(tmp_path, "b.png", "a.JPG", "z/1.webp", "c/2.tif", "c/d/3.bmp", "notes.txt", "c/notes.md")
    assert names(tmp_path) == ["a.JPG", "b.png", "c/2.tif", "c/d/3.bmp", "z/1.webp"]
    assert find_pictures(tmp_path).others == 2


def test_hidden_files_and_folders_are_left_out(tmp_path):
    make(tmp_path, "a.png", ".b.png", "._a.png", ".ipynb_checkpoints/a-checkpoint.png", ".git/x.png", "c/.thumbs/y.jpg")
    assert names(tmp_path) == ["a.png"]


def test_links_are_followed_and_each_folder_is_visited_once(tmp_path):
    elsewhere = make(tmp_path / "elsewhere", "e.png", "deep/f.png")
    folder = make(tmp_path / "set", "a.png", "real/b.png")
    (folder / "loop").symlink_to(folder)
    (folder / "real" / "up").symlink_to(folder)
    (folder / "a-link").symlink_to(folder / "real")
    (folder / "out").symlink_to(elsewhere)
    (folder / "again").symlink_to(elsewhere)
    (folder / "nowhere").symlink_to(tmp_path / "missing")
    (folder / "file.png").symlink_to(elsewhere / "e.png")
    assert names(folder) == ["a.png", "file.png", "real/b.png", "again/e.png", "again/deep/f.png"]
    only = tmp_path / "only"
    only.mkdir()
    (only / "link").symlink_to(elsewhere)
    assert names(only) == ["link/e.png", "link/deep/f.png"]
    (tmp_path / "itself").symlink_to(only)
    assert names(tmp_path / "itself") == ["link/e.png", "link/deep/f.png"]


def test_what_lidcam_wrote_is_not_read(tmp_path, localizer):
    pictures = make(tmp_path / "pictures", "sub/.keep")
    Image.fromarray(artifacts.picture("red")).save(pictures / "a.png")
    Image.fromarray(artifacts.picture("red")).save(pictures / "b_mask.png")  # of someone else
    result = localizer(pictures / "a.png")
    result.save(pictures)
    result.save(pictures / "sub", name="x")
    make(pictures, "a.json.png")
    with output_folder(pictures / "out"):
        make(pictures / "out", "c_overlay.jpg", "deep/d.png")
    assert names(pictures) == ["a.json.png", "a.png", "b_mask.png"]
    assert find_pictures(pictures).outputs == 7
    with RunFolder(pictures, {}) as run:
        make(pictures, "n_overlay.jpg", "other.png")
        run.add({"files": {"overlay": "n_overlay.jpg"}})
        run.add({"files": 3})
        run.add({"files": [["x"]]})
    assert "n_overlay.jpg" not in names(pictures) and "other.png" in names(pictures)


def test_media_that_is_not_read_is_counted_by_suffix(tmp_path, monkeypatch):
    from lidcam_rt.image import formats

    make(tmp_path, "a.png", "b.HEIC", "c.heic", "film.mp4", "x/y.MOV", "z.nef")
    monkeypatch.setattr(formats, "find_spec", lambda name: None)
    formats.image_suffixes.cache_clear()
    try:
        found = find_pictures(tmp_path)
        with pytest.raises(DataError, match=r"no pictures in it or its sub-folders \(1 \.mov\). Files with these"):
            find_pictures(tmp_path / "x")
    finally:
        formats.image_suffixes.cache_clear()
    assert found.skipped == {".heic": 2, ".mp4": 1, ".mov": 1, ".nef": 1}
    assert found.left_out() == "2 .heic (needs pip install 'lidcam-rt[heif]'), 1 .mov, 1 .mp4, 1 .nef"


def test_heic_is_read_where_its_package_is_installed(tmp_path):
    pytest.importorskip("pillow_heif")
    make(tmp_path, "a.heic", "b.HEIF")
    assert names(tmp_path) == ["a.heic", "b.HEIF"]


def test_the_error_says_what_is_there(tmp_path):
    with pytest.raises(DataError, match=r"\(it is empty\)"):
        find_pictures(tmp_path)
    make(tmp_path, "a.txt", "b/c.csv", "d.mkv", ".hidden.png")
    with output_folder(tmp_path / "out"):
        make(tmp_path / "out", "e.png")
    with pytest.raises(DataError, match=r"\(1 \.mkv, 2 other files, 1 results of lidcam\)"):
        find_pictures(tmp_path)


def test_a_folder_that_may_not_be_read_is_passed_over(tmp_path, monkeypatch):
    make(tmp_path, "a.png", "closed/b.png")
    real = os.scandir

    def scandir(path):
        if os.fspath(path).endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert names(tmp_path) == ["a.png"]


def test_names_that_are_not_utf8(tmp_path):
    raw = os.fsencode(tmp_path) + b"/\xff\xfe.png"
    try:
        Path(os.fsdecode(raw)).touch()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert [os.fsencode(path) for path in find_pictures(tmp_path).paths] == [raw]
