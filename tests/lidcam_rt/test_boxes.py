"""Components and boxes against OpenCV."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lidcam_rt import boxes
from lidcam_rt.errors import InputError


@st.composite
def masks(draw):
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    values = rng.random((height, width))
    for _ in range(draw(st.integers(0, 3))):  # smoother masks: larger components, holes
        values = cv2.blur(values, (3, 3))
    return values > np.quantile(values, draw(st.floats(0, 1)))


def released_box(mask):
    contours, _ = cv2.findContours(mask.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    if not contours:
        return None
    x, y, w, h = cv2.boundingRect(max(contours, key=cv2.contourArea))
    return x, y, x + w, y + h


@pytest.mark.slow
@settings(deadline=None, max_examples=400)
@given(masks())
def test_largest_box_is_that_of_the_released_code(mask):
    assert boxes.largest_box(mask) == released_box(mask)


@settings(deadline=None, max_examples=300)
@given(masks())
def test_labels_and_boxes_are_those_of_opencv(mask):
    count, expected, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8)
    labels, number = boxes.label(mask)
    found = boxes.component_boxes(mask)
    assert number == count - 1 == len(found)
    pairs = set(zip(labels.ravel().tolist(), expected.ravel().tolist(), strict=True))
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
    x, y, w, h, size = stats[1:].T
    assert sorted(map(tuple, found.tolist())) == sorted(
        zip(x.tolist(), y.tolist(), (x + w).tolist(), (y + h).tolist(), size.tolist(), strict=True)
    )
    kept = boxes.largest_component(mask, by="pixels")
    assert kept.sum() == max(size, default=0)
    assert not (kept & ~mask).any()


def test_inclusive_boxes():
    mask = np.zeros((5, 6), bool)
    mask[1:3, 2:5] = True
    assert boxes.largest_box(mask) == (2, 1, 5, 3)
    assert boxes.largest_box(mask, inclusive=True) == (2, 1, 4, 2)
    assert boxes.component_boxes(mask, inclusive=True).tolist() == [[2, 1, 4, 2, 6]]


def test_measures_differ_on_a_ring():
    mask = np.zeros((20, 40), bool)
    mask[2:14, 2:14] = True
    mask[3:13, 3:13] = False
    mask[2:10, 20:28] = True
    assert boxes.largest_box(mask) == (2, 2, 14, 14)
    assert boxes.largest_box(mask, by="pixels") == (20, 2, 28, 10)


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (5, 0), (3, 3)])
def test_nothing_in_the_mask(shape):
    mask = np.zeros(shape, bool)
    assert boxes.largest_box(mask) is None
    assert boxes.component_boxes(mask).shape == (0, 5)
    assert not boxes.largest_component(mask).any()


@pytest.mark.parametrize("bad", [np.zeros((2, 2, 2), bool), np.zeros((2, 2), np.float32), 3])
def test_wrong_masks(bad):
    with pytest.raises(InputError):
        boxes.largest_box(bad)
    with pytest.raises(InputError):
        boxes.largest_box(np.zeros((2, 2), bool), by="size")
