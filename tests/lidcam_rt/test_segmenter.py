"""Label maps: against a literal reading of each rule, and independent of how many maps the artifact gives at once."""

import json

import artifacts
import numpy as np
import pytest
from PIL import Image

import lidcam_rt
from lidcam_rt.crf import DenseCRF
from lidcam_rt.errors import InputError
from lidcam_rt.segmenter import CamSegmenter, SegmentOptions

RED, GREEN, BLUE, YELLOW = range(4)


@pytest.fixture(scope="module")
def picture():
    pixels = np.full((96, 160, 3), 128, np.uint8)
    pixels[8:60, 10:70], pixels[40:90, 95:150] = artifacts.COLOURS["red"], artifacts.COLOURS["blue"]
    return pixels


@pytest.fixture(scope="module")
def multilabel(tmp_path_factory):
    return artifacts.build(tmp_path_factory.mktemp("m") / "m.onnx", top_k=2, task="multilabel")


def literal(localizer, picture, ids, background):
    """The rule, pixel by pixel, from single localizations."""
    found = [localizer(picture, labels=[i]) for i in ids]
    maps = np.stack([entry.map for entry in found]) / 255
    if background == "mask":
        scores = np.stack([entry.map / entry.threshold for entry in found])
        floor = np.ones(maps.shape[1:])
    else:
        scores = maps
        floor = np.full(maps.shape[1:], 0.15) if background == "constant" else (1 - maps.max(0)) ** 4
    best = scores.argmax(0)
    return np.where(scores.max(0) > floor, np.array(ids)[best] + 1, 0)


@pytest.mark.parametrize("background", ["mask", "constant", "power"])
def test_label_maps_are_the_rule_pixel_by_pixel(multilabel, picture, background):
    with lidcam_rt.load(multilabel) as localizer:
        found = CamSegmenter(localizer, SegmentOptions(background=background))(picture, labels=[BLUE, RED])
        expected = literal(localizer, picture, [BLUE, RED], background)
    assert found.labels.dtype == np.uint8
    assert (found.labels != expected).mean() < 1e-3  # float32 at ties
    assert found.labels[30, 40] == RED + 1 and found.labels[60, 120] == BLUE + 1 and found.labels[2, 155] == 0
    assert {entry.class_name for entry in found.classes} == {"red", "blue"}


def test_one_class_has_the_pixels_of_its_mask(localizer, picture):
    result = localizer(picture)
    found = CamSegmenter(localizer)(picture, labels=[result.class_id])
    np.testing.assert_array_equal(found.labels > 0, result.mask)


def test_the_number_of_maps_at_once_changes_nothing(tmp_path, picture):
    found = []
    for top_k in (1, 2, 4):
        path = artifacts.build(tmp_path / f"{top_k}.onnx", top_k=top_k, task="multilabel")
        with lidcam_rt.load(path) as localizer:
            found.append(CamSegmenter(localizer, SegmentOptions(score=0))(picture))
            given = CamSegmenter(localizer)(picture, labels=[RED, BLUE, YELLOW])
        assert given.indices and set(given.indices) == {RED + 1, BLUE + 1, YELLOW + 1}
    for other in found[1:]:
        np.testing.assert_array_equal(found[0].labels, other.labels)
        assert other.classes == found[0].classes and len(other.classes) == 4
    without = artifacts.build(tmp_path / "no.onnx", top_k=2, task="multilabel", labels=False)
    with lidcam_rt.load(without) as localizer:
        assert len(CamSegmenter(localizer, SegmentOptions(score=0))(picture).classes) == 2


def test_scores_choose_the_classes(multilabel, picture):
    with lidcam_rt.load(multilabel) as localizer:
        scores = [entry.score for entry in localizer(picture).topk]
        between = (scores[1] + scores[2]) / 2
        assert len(CamSegmenter(localizer, SegmentOptions(score=between))(picture).classes) == 2
        assert len(CamSegmenter(localizer, SegmentOptions(score=1))(picture).classes) == 1  # the best, all the same
        none = CamSegmenter(localizer, SegmentOptions(score=1, empty=True))(picture)
        assert none.classes == () and not none.labels.any()


def test_labels_of_another_order_of_classes(multilabel, picture):
    with lidcam_rt.load(multilabel) as localizer:
        found = CamSegmenter(localizer, SegmentOptions(score=0), classes=[BLUE, -1, RED])(picture)
        assert found.labels[30, 40] == 3 and found.labels[60, 120] == 1 and set(np.unique(found.labels)) <= {0, 1, 3}
        assert CamSegmenter(localizer, classes=[YELLOW])(picture, labels=[RED]).classes == ()
        with pytest.raises(InputError, match="0 to 3"):
            CamSegmenter(localizer, classes=[4])
        with pytest.raises(InputError, match="no labels"):
            CamSegmenter(localizer)(picture, labels=[])
        with pytest.raises(InputError, match="out of range"):
            CamSegmenter(localizer)(picture, labels=[7])
        with pytest.raises(InputError, match="8 bits"):
            CamSegmenter(localizer, classes=[-1] * 255)


def test_the_crf_gets_scores_over_their_sum(multilabel, picture):
    with lidcam_rt.load(multilabel) as localizer:
        options = SegmentOptions(background="constant", refine="psa")
        found = CamSegmenter(localizer, options)(picture, labels=[RED, BLUE], keep_image=False)
        maps = [localizer(picture, labels=[entry.class_id]).map / np.float32(255) for entry in found.classes]
        scores = np.stack([np.full(maps[0].shape, 0.15, np.float32), *maps]).astype(np.float32)
        refined = DenseCRF("psa").refine(picture, scores / np.maximum(scores.sum(0), 1e-6))
        np.testing.assert_array_equal(found.labels, np.array([0, *found.indices])[refined.argmax(0)])
        assert found.image is None
        plain = CamSegmenter(localizer, SegmentOptions(background="constant"))(picture, labels=[RED, BLUE])
        truth = np.zeros((96, 160))
        truth[8:60, 10:70], truth[40:90, 95:150] = RED + 1, BLUE + 1
        assert (found.labels != truth).mean() < (plain.labels != truth).mean()  # the edges are the picture's
        segmenter = CamSegmenter(localizer, options)
        with pytest.raises(InputError, match="needs the picture"):
            segmenter.complete(picture, localizer(picture, keep_image=False))


def test_what_is_saved_is_what_was_found(multilabel, picture, tmp_path):
    with lidcam_rt.load(multilabel) as localizer:
        found = CamSegmenter(localizer)(picture, labels=[RED, BLUE])
    files = found.save(tmp_path, name="a")
    with Image.open(files["png"]) as file:
        assert file.mode == "L"
        np.testing.assert_array_equal(np.asarray(file), found.labels)
    about = json.loads(files["json"].read_text())
    assert about["file"] == "a_labels.png" and sum(c["pixels"] for c in about["classes"]) == (found.labels > 0).sum()
    drawn = found.overlay()
    assert (drawn[found.labels == 0] == picture[found.labels == 0]).all() and (drawn != picture).any()
    assert len(np.unique(found.overlay(alpha=1)[found.labels > 0], axis=0)) == 2


@pytest.mark.parametrize(
    "wrong", [{"score": 2}, {"level": -1}, {"alpha": 0}, {"background": "none"}, {"refine": "no such"}]
)
def test_wrong_options_get_a_message(localizer, wrong):
    with pytest.raises(InputError):
        CamSegmenter(localizer, SegmentOptions(**wrong))
