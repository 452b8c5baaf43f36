"""Averaged views: against each view run by itself, and PaS of the mean map."""

import artifacts
import cv2
import numpy as np
import pytest
from PIL import Image

import lidcam_rt
from lidcam_rt.augment import Augment
from lidcam_rt.errors import InputError
from lidcam_rt.pas import pas_reference

BLUE = 2


@pytest.fixture(scope="module")
def picture():
    pixels = np.full((96, 160, 3), 128, np.uint8)
    pixels[8:60, 10:70], pixels[40:90, 95:150] = artifacts.COLOURS["red"], artifacts.COLOURS["blue"]
    return pixels


def view(localizer, picture, side, flip, label):
    """Activation map and logits of one view, by the engine alone."""
    x = np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.BILINEAR))
    x = np.ascontiguousarray(x[:, ::-1] if flip else x)
    labels = np.full((1, localizer.manifest.top_k), label)
    out = localizer.backend.run(x[None], labels, ("cam", "logits"))
    return out["cam"][0, 0][:, ::-1] if flip else out["cam"][0, 0], out["logits"][0]


@pytest.mark.parametrize("labels", [None, [BLUE]])
def test_map_and_score_are_those_of_the_mean_over_the_views(localizer, picture, labels):
    plain = localizer(picture, labels=labels)
    found = localizer(picture, labels=labels, augment=Augment((0.5, 1.0, 1.5), flip=True))
    views = [view(localizer, picture, side, flip, plain.class_id) for side in (32, 64, 96) for flip in (False, True)]
    size = views[-1][0].shape[::-1]
    mean = np.mean([cv2.resize(np.ascontiguousarray(cam), size) for cam, _ in views], axis=0).astype(np.float32)
    maps = pas_reference(mean[None, None], (64, 64), localizer.manifest.pas)
    expected = cv2.resize(maps.map[0, 0], (160, 96))
    assert found.class_id == plain.class_id
    assert np.abs(found.map.astype(int) - expected).max() <= 1
    logits = np.mean([entry for _, entry in views], axis=0)
    p = np.exp(logits - logits.max())
    assert found.score == pytest.approx((p / p.sum())[found.class_id], rel=1e-4)


def test_call_batch_and_stream_agree(localizer, picture):
    pictures = [picture, picture[:, ::-1].copy()]
    calls = [localizer(entry, augment="ms-flip") for entry in pictures]
    for results in (localizer.batch(pictures, augment="ms-flip"), list(localizer.stream(pictures, augment="ms-flip"))):
        for one, other in zip(calls, results, strict=True):
            np.testing.assert_array_equal(one.map, other.map)
            assert (one.box, one.score) == (other.box, other.score)
    # a picture and its mirror image have mirrored maps, which one view need not give
    assert np.abs(calls[0].map.astype(int) - calls[1].map[:, ::-1]).max() <= 1
    refined = localizer(picture, augment="flip", refine="psa")
    assert refined.unrefined is not None and refined.crf is not None


def test_what_cannot_be_averaged_is_refused(tmp_path, picture):
    without = artifacts.build(tmp_path / "no.onnx", labels=False)
    with lidcam_rt.load(without) as localizer, pytest.raises(InputError, match="labels input"):
        localizer(picture, augment="flip")
    with lidcam_rt.load(artifacts.build(tmp_path / "a.onnx")) as localizer:
        with pytest.raises(InputError, match="ms-flip"):
            localizer(picture, augment="twice")
        with pytest.raises(InputError, match="ms-flip"):
            localizer.stream([picture], augment=3)
