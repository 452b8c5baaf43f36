from __future__ import annotations

import artifacts
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lidcam_rt.artifact import InputSpec
from lidcam_rt.image import network_input, placement, to_original_size

PHOTO = np.asarray(
    Image.fromarray(np.random.default_rng(5).integers(0, 256, (6, 9, 3), dtype=np.uint8)).resize(
        (90, 60), Image.Resampling.BICUBIC
    )
)


def spec(**options) -> InputSpec:
    return artifacts.manifest(**options).input


@pytest.mark.parametrize(
    ("name", "filter_"), [("bilinear", Image.Resampling.BILINEAR), ("bicubic", Image.Resampling.BICUBIC)]
)
def test_network_input_is_pillows_resize(name, filter_):
    wanted = spec(size=(32, 48)).model_copy(update={"interpolation": name})
    got = network_input(PHOTO, wanted)
    np.testing.assert_array_equal(got, np.asarray(Image.fromarray(PHOTO).resize((48, 32), filter_)))
    as_float = network_input(PHOTO, spec(size=(32, 48), dtype="float32").model_copy(update={"interpolation": name}))
    np.testing.assert_allclose(as_float.transpose(1, 2, 0), (got.astype(float) - 127.5) / 127.5, atol=1e-6)


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300))
def test_letterbox_keeps_the_shape_and_comes_back(width, height):
    wanted = spec(size=(64, 64), resize="letterbox")
    place = placement((width, height), wanted)
    assert max(place.width, place.height) == 64 and min(place.width, place.height) >= 1
    assert abs(place.width / 64 * max(width, height) - width) <= max(width, height) / 64
    white = network_input(np.full((height, width, 3), 255, np.uint8), wanted)
    inside = (white == 255).all(axis=2)
    assert inside.sum() == place.width * place.height and (white[~inside] == 128).all()
    back = to_original_size(inside.astype(np.uint8) * np.uint8(255), (width, height), wanted)
    assert back.shape == (height, width) and (back == 255).all()
