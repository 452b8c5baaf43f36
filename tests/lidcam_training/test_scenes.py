"""Scenes: several objects per picture, label maps against a literal repetition of the pasting."""

import filecmp

import made_sources
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lidcam_bench.data import open_data
from lidcam_training.data.label_png import label_png
from lidcam_training.data.scenes import compose_scene, make_scenes, make_stamp_scenes
from PIL import Image
from typer.testing import CliRunner

from lidcam_rt.errors import DataError

SMALL = {"train": 12, "val": 5, "test": 5}


def squares(longest, rng):
    """An object whose colour tells its class; colours of objects are above 100."""
    label = int(rng.integers(3))
    side = (longest, max(1, longest // 2))
    return np.full((*side, 3), 100 + 50 * label, np.uint8), np.ones(side, bool), label


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_labels_are_the_pixels_of_the_objects_and_255_is_around_them(seed):
    made = compose_scene(np.zeros((64, 64, 3), np.uint8), squares, np.random.default_rng(seed))
    shown = np.where(made.image[..., 0] > 0, (made.image[..., 0] - 100) // 50 + 1, 0)  # the colour says the class
    inside = made.labels != 255
    np.testing.assert_array_equal(made.labels[inside], shown[inside])
    assert (made.labels > 0).any() and (made.image[made.labels == 0] == 0).all()
    # an ignored pixel touches another class, and two classes never touch without one between them
    padded = np.pad(shown, 1, mode="edge")
    near = np.stack([padded[1:-1, :-2], padded[1:-1, 2:], padded[:-2, 1:-1], padded[2:, 1:-1]])
    labels = np.pad(made.labels, 1, constant_values=255)
    beside = np.stack([labels[1:-1, :-2], labels[1:-1, 2:], labels[:-2, 1:-1], labels[2:, 1:-1]])
    changes = (made.labels != 255) & ((beside != made.labels) & (beside != 255)).any(0)
    assert not changes.any()
    assert (near[:, made.labels == 255] > 0).any(0).all()
    counts = {k: int((made.labels == k + 1).sum()) for k in range(3)}
    assert set(made.present) == {k for k, count in counts.items() if count >= 12}
    assert all(0 <= counts[k] < 12 for k in made.unknown) and not set(made.unknown) & set(made.present)


def test_the_same_seed_gives_the_same_bytes(tmp_path, sources):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        make_scenes(tmp_path / name, seed=seed, size=48, source=sources[0], backgrounds=sources[1], **SMALL)
    files = sorted(str(p.relative_to(tmp_path / "a")) for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert len(files) == 2 * 22 + 4
    assert filecmp.cmpfiles(tmp_path / "a", tmp_path / "b", files, shallow=False)[0] == files
    assert filecmp.cmpfiles(tmp_path / "a", tmp_path / "c", files, shallow=False)[1]


def test_read_back(tmp_path, sources):
    make_scenes(tmp_path / "d", source=sources[0], backgrounds=sources[1], train=60, val=5, test=5)
    images = open_data(f"scenes:{tmp_path / 'd'}", "train")
    assert images.multilabel and len(images.class_names) == 10
    counts = np.bincount([len(set(r.labels)) for r in images], minlength=5)
    assert counts[1:].all() and counts[0] == 0
    for record in images:
        labels = record.truth().label_map()
        assert labels.shape == (128, 128)
        assert {int(v) - 1 for v in np.unique(labels) if 0 < v < 255} >= set(record.labels)
        with Image.open(record.mask.path) as file:
            assert file.mode == "P" and tuple(file.getpalette()[3:6]) == (128, 0, 0)  # VOC's colour of class 1
    sides = []
    for record in images:
        for label in record.labels:
            rows = np.flatnonzero((record.truth().object_mask(label) == 1).any(1))
            sides.append(rows[-1] - rows[0] + 1)
    assert min(sides) < 0.2 * 128 < max(sides)
    (tmp_path / "d" / "val.csv").write_text("file,labels,unknown\n000000.png,11,\n")
    with pytest.raises(DataError, match="label 11 is not one of the 10"):
        open_data(f"scenes:{tmp_path / 'd'}", "val")
    (tmp_path / "d" / "val.csv").write_text("file,label\n000000.png,1\n")
    with pytest.raises(DataError, match="expected `file,labels,unknown`"):
        open_data(f"scenes:{tmp_path / 'd'}", "val")


def test_stamps_share_no_cut_out_and_no_photo(tmp_path):
    """Cut-outs and photos of one colour each."""
    source, photos = made_sources.make_stamps(tmp_path / "stamps"), tmp_path / "photos"
    photos.mkdir()
    for index in range(10):
        Image.fromarray(np.full((64, 64, 3), 10 * index, np.uint8)).save(photos / f"{index}.png")
    make_stamp_scenes(tmp_path / "d", train=20, val=15, test=15, size=64, source=source, backgrounds=photos)
    objects, behind = {}, {}
    for split in ("train", "val", "test"):
        objects[split], behind[split] = set(), set()
        for record in open_data(f"scenes-stamps:{tmp_path / 'd'}", split):
            image = np.asarray(Image.open(record.image))
            on_photo = image[..., 0] < 200
            objects[split] |= set(np.unique(image[~on_photo][:, 1]))
            behind[split] |= set(np.unique(image[on_photo]))
    for used in (objects, behind):
        assert not used["train"] & used["test"] and not used["val"] & used["test"] and not used["train"] & used["val"]


def test_label_png_keeps_every_value():
    labels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    import io

    with Image.open(io.BytesIO(label_png(labels))) as file:
        np.testing.assert_array_equal(np.asarray(file), labels)


def test_info_counts_each_class(tmp_path, sources):
    from lidcam_cli.app import build_app

    command = ["data", "make", "scenes", str(tmp_path / "d"), "--train", "9", "--val", "3", "--test", "3"]
    command += ["--source", str(sources[0]), "--backgrounds", str(sources[1])]
    assert CliRunner().invoke(build_app("data"), command).exit_code == 0
    result = CliRunner().invoke(build_app("data"), ["data", "info", f"scenes:{tmp_path / 'd'}", "--split", "train"])
    assert result.exit_code == 0, result.output
    images = open_data(f"scenes:{tmp_path / 'd'}", "train")
    assert "9 pictures, 10 classes, 0 boxes, 9 masks" in result.output
    for index, name in enumerate(images.class_names):
        assert f"  {name}: {sum(index in record.labels for record in images)}" in result.output
