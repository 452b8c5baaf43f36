"""Results in the forms of other packages, against those packages."""

from __future__ import annotations

import builtins
import json

import artifacts
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp

import lidcam_rt
from lidcam_rt.errors import InputError, MissingExtraError
from lidcam_rt.interop import coco_rle

SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40)


def same_as_pycocotools(mask):
    coco = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed")
    expected = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert coco_rle(mask) == {"size": expected["size"], "counts": expected["counts"].decode()}
    assert np.array_equal(coco.decode(coco_rle(mask)), mask)


@pytest.mark.slow
@settings(deadline=None, max_examples=300)
@given(hnp.arrays(np.bool_, SHAPES))
def test_run_lengths_are_pycocotools(mask):
    same_as_pycocotools(mask)


@pytest.mark.parametrize("shape", [(1, 1), (700, 900), (3, 5000), (5000, 3)])
@pytest.mark.parametrize("kind", ["empty", "full", "disc", "noise", "rows"])
def test_run_lengths_of_large_masks(shape, kind):
    mask = np.zeros(shape, np.uint8)
    if kind == "full":
        mask[:] = 1
    elif kind == "disc":
        cv2.circle(mask, (shape[1] // 2, shape[0] // 2), max(1, min(shape) // 3), 1, -1)
    elif kind == "noise":
        mask[:] = np.random.default_rng(0).random(shape) < 0.5
    elif kind == "rows":
        mask[::2] = 1
    same_as_pycocotools(mask.astype(bool))


def test_coco_results_are_read_by_pycocotools(localizer, tmp_path):
    coco = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed")
    result = localizer(artifacts.picture("red"), top_k=2)
    entries = [entry.to_coco(image_id=7) for entry in (result, *result.others)]
    assert entries[0]["score"] == result.score and entries[0]["category_id"] == result.class_id
    assert result.to_coco(category_id=90)["category_id"] == 90
    (tmp_path / "results.json").write_text(json.dumps(entries))
    truth = coco.COCO()
    truth.dataset = {"images": [{"id": 7, "width": 160, "height": 96}], "annotations": [], "categories": []}
    truth.createIndex()
    read = truth.loadRes(str(tmp_path / "results.json"))
    for entry, annotation in zip((result, *result.others), read.loadAnns(read.getAnnIds()), strict=True):
        assert np.array_equal(read.annToMask(annotation), entry.mask)
        x, y, w, h = annotation["bbox"]
        assert entry.box == (x, y, x + w, y + h) if entry.box else (x, y, w, h) == (0, 0, 0, 0)


def test_an_empty_mask_is_an_entry_without_an_area(localizer):
    entry = localizer(np.full((20, 30, 3), 128, np.uint8)).to_coco()
    assert entry["bbox"] == [0, 0, 0, 0] and entry["segmentation"] == coco_rle(np.zeros((20, 30), bool))


def test_coco_results_of_a_label_map(localizer):
    segment = lidcam_rt.CamSegmenter(localizer)
    picture = artifacts.picture("red", (0, 0, 80, 60))
    picture[70:96, 120:160] = artifacts.COLOURS["blue"]
    found = segment(picture, labels=[0, 2])
    entries = found.to_coco(image_id=3)
    assert [entry["category_id"] for entry in entries] == [entry.class_id for entry in found.classes]
    for entry, label in zip(entries, found.indices, strict=True):
        x, y, w, h = map(int, entry["bbox"])
        assert entry["segmentation"] == coco_rle(found.labels == label)
        assert (x, y, w, h) == cv2.boundingRect((found.labels == label).astype(np.uint8))
    assert [entry["category_id"] for entry in found.to_coco(categories=[5, 6])] == [5, 6]
    with pytest.raises(InputError, match="one entry per class"):
        found.to_coco(categories=[5])


def test_supervision_takes_a_result(localizer):
    sv = pytest.importorskip("supervision", reason="extra supervision is not installed")
    picture = artifacts.picture("red", (0, 0, 80, 60))
    picture[70:96, 120:160] = artifacts.COLOURS["blue"]
    result = localizer(picture, labels=[0, 2])
    found = result.to_supervision()
    assert isinstance(found, sv.Detections) and len(found) == 2
    for i, entry in enumerate((result, *result.others)):
        assert tuple(found.xyxy[i]) == entry.box and found.class_id[i] == entry.class_id
        assert found.confidence[i] == pytest.approx(entry.score) and np.array_equal(found.mask[i], entry.mask)
        assert found.data["class_name"][i] == entry.class_name
    drawn = sv.MaskAnnotator().annotate(picture.copy(), found)
    drawn = sv.BoxAnnotator().annotate(drawn, found)
    assert (drawn != picture).any()
    assert len(localizer(np.full((20, 30, 3), 128, np.uint8)).to_supervision()) == 0


def test_without_supervision_the_extra_is_named(localizer, monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **more):
        if name == "supervision":
            raise ModuleNotFoundError("No module named 'supervision'", name="supervision")
        return real(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"lidcam-rt\[supervision\]"):
        localizer(artifacts.picture()).to_supervision()


@pytest.mark.parametrize("size", [(160, 96), (3000, 700), (1, 1)])
def test_notebooks_show_a_result(localizer, size):
    result = localizer(artifacts.picture("red", (0, 0, size[0] // 2, size[1]), size))
    for shown in (result, lidcam_rt.CamSegmenter(localizer)(result.image)):
        picture = cv2.imdecode(np.frombuffer(shown._repr_png_(), np.uint8), cv2.IMREAD_COLOR)
        assert max(picture.shape[:2]) == min(max(size), 1024)
        if max(size) <= 1024:
            assert np.array_equal(picture[..., ::-1], shown.overlay())
    assert localizer(result.image, keep_image=False)._repr_png_() is None
