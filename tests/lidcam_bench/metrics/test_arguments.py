"""Arguments of every kind: a metric counts an image or raises InputError, and one that raises has counted nothing."""

import contextlib
import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lidcam_bench.metrics import (
    BoxAccuracy,
    IoUCurve,
    LocalizationAccuracy,
    PixelAveragePrecision,
    SegmentationScores,
    box_iou,
    level_boxes,
    to_map8,
)

from lidcam_rt.errors import InputError

MAP = (np.arange(20, dtype=np.uint8) * 12).reshape(4, 5)
MASK = np.zeros((4, 5), np.uint8)
MASK[1:3, 1:4] = 1
BOXES = [[1, 1, 3, 2]]

METRICS = {
    "iou": lambda **o: IoUCurve(**o),
    "iou per image": lambda **o: IoUCurve("per_image", **o),
    "pxap": lambda **o: PixelAveragePrecision(**o),
    "pxap float": lambda **o: PixelAveragePrecision(10, **o),
    "boxes": lambda **o: BoxAccuracy(thresholds=7, **o),
    "localization": lambda **o: LocalizationAccuracy(**o),
    "labels": lambda **o: SegmentationScores(4, **o),
}
#: Per metric: calls that are right.
GOOD = {
    "iou": (MAP, MASK),
    "iou per image": (MAP, MASK),
    "pxap": (MAP, MASK),
    "pxap float": (MAP / 255, MASK),
    "boxes": (MAP, BOXES),
    "localization": ([1], [1, 2]),
    "labels": (MASK, MASK),
}

anything = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=3),
    st.binary(max_size=3),
    st.just([[1, 2], [3]]),
    st.just([]),
    st.just({}),
    st.sampled_from([MAP, MASK, MASK.astype(bool), MASK + 7, MAP.T, MAP[:2], MAP.astype(np.int64), MAP / 255]),
    st.sampled_from([BOXES, np.array(BOXES), [[0, 0, 2**40, 2**40]], [[3, 3, 1, 1]], [[0.5, 0, 1, 1]]]),
    st.sampled_from([np.array([[0, 0, 2**63, 1]], np.uint64), np.array([[1 + 2j] * 4]), np.array([["a"] * 4])]),
    st.sampled_from([np.full((4, 5), v) for v in (np.nan, np.inf, -1.0)] + [np.zeros((4, 5), object), MAP[..., None]]),
    st.lists(st.one_of(st.integers(-3, 300), st.floats()), max_size=4),
    st.sampled_from([np.int64(1), np.uint8(2), np.float32(0.5), np.array([1, 2]), np.array([1.5]), np.array([True])]),
)
keys = st.one_of(st.none(), st.text(max_size=3), st.integers(), st.binary(max_size=2), st.just(["a"]))


@pytest.mark.parametrize("replicates", [0, 3])
@pytest.mark.parametrize("name", METRICS)
@settings(max_examples=80, deadline=None)
@given(draw=st.data())
def test_a_call_that_raises_has_counted_nothing(name, replicates, draw):
    metric = METRICS[name](replicates=replicates)
    metric.update(*GOOD[name], key="first")
    before = copy.deepcopy(metric.arrays())
    arguments = [draw.draw(st.one_of(anything, st.just(good))) for good in GOOD[name]]
    options = {"key": draw.draw(st.one_of(keys, st.just("second")))}
    if name == "localization":
        for option in ("truth", "box", "known_box"):
            if draw.draw(st.booleans()):
                options[option] = draw.draw(anything)
        options["known"] = draw.draw(st.booleans())
    try:
        metric.update(*arguments, **options)
    except InputError:
        after = metric.arrays()
        assert after.keys() == before.keys()
        for array, value in before.items():
            np.testing.assert_array_equal(after[array], value)
    else:
        assert metric.images == 2
        scores = [value for value in metric.scores().values() if value is not None]
        assert all(np.isfinite(scores))


@pytest.mark.parametrize("name", ["iou", "iou per image", "pxap", "pxap float"])
@settings(max_examples=80, deadline=None)
@given(counts=anything, key=keys)
def test_counts_that_are_none(name, counts, key):
    metric = METRICS[name](replicates=2)
    with pytest.raises(InputError):
        metric.update_counts(counts, key=key)
    assert metric.images == 0 and not any(array.any() for array in metric.arrays().values())


@settings(max_examples=100, deadline=None)
@given(anything, anything, anything)
def test_levels_and_boxes_are_validated(map8, levels, boxes):
    for call in (
        lambda: level_boxes(map8, levels, boxes),
        lambda: level_boxes(MAP, levels, BOXES),
        lambda: level_boxes(MAP, [5], boxes),
        lambda: box_iou(boxes, BOXES),
        lambda: to_map8(map8),
    ):
        with contextlib.suppress(InputError):
            call()


def test_nothing_is_wrapped_or_truncated():
    for levels in ([2**32 + 5], [1.5], np.array([3.0]), [-(2**32)], [True]):
        with pytest.raises(InputError, match="levels must be whole numbers"):
            level_boxes(MAP, levels, BOXES)
    for boxes in ([[0, 0, 2**40, 2**40]], np.array([[0, 0, 2**63 + 5, 1]], np.uint64), [[0, 0, np.inf, 1]]):
        with pytest.raises(InputError, match=r"whole pixels .* above 2\^30"):
            box_iou(boxes, BOXES)
    assert level_boxes(MAP, np.array([3], np.uint8), np.array(BOXES, np.uint16)).contours.tolist() == [1]
    np.testing.assert_array_equal(to_map8(np.array([[-1e308, 0.0, 1.7e308]])), [[0, 94, 255]])


@pytest.mark.parametrize("truth", [None, 5, "boxes", {}, [None], [[1, 2]], [[3, 3, 1, 1]]], ids=repr)
def test_truth_that_is_none(truth):
    metric = LocalizationAccuracy()
    with pytest.raises(InputError, match="boxes"):
        metric.update([1], [2], truth=truth)  # wrong class: the boxes are not even compared
    assert metric.images == 0


def test_class_ids_are_whole_numbers_of_python_or_numpy():
    metric = LocalizationAccuracy()
    row = metric.update(np.array([3]), np.array([1, 3], np.uint16), truth=np.array(BOXES), box=np.array(BOXES[0]))
    assert row["top5_cls"] and not row["top1_cls"]
    metric.update([np.int64(3)], [np.uint8(3)])
    for labels in ([1.5], [1.0], np.array([1.0]), [True], ["1"], [-1], [2**70], [], 5):
        with pytest.raises(InputError, match="labels are class ids"):
            metric.update(labels, [1])
    assert metric.images == 2


@pytest.mark.parametrize(
    "make",
    [
        lambda value: IoUCurve(replicates=value),
        lambda value: PixelAveragePrecision(value) if value is not None else PixelAveragePrecision(0),
        lambda value: BoxAccuracy(thresholds=value),
        lambda value: BoxAccuracy((value,)),
        lambda value: BoxAccuracy(value),
        lambda value: LocalizationAccuracy(value),
        lambda value: SegmentationScores(value),
    ],
)
@pytest.mark.parametrize("value", [None, "a", -1, 2**40, float("nan"), [], 1.5, True], ids=str)
def test_options_that_are_none(make, value):
    with pytest.raises(InputError):
        make(value)


def test_numpy_numbers_are_options_and_stay_plain():
    metric = SegmentationScores(np.int64(3), replicates=np.uint8(2))
    assert type(metric.options["classes"]) is int and type(metric.replicates) is int
    assert PixelAveragePrecision(np.int32(10)).options == {"bins": 10}


def test_a_state_of_another_kind_is_not_taken():
    metric = METRICS["labels"](replicates=2)
    metric.update(MASK, MASK, key="a")
    good = copy.deepcopy(metric.arrays())
    for change in (
        {"images": np.array(-1)}, {"images": np.array(1.5)}, {"hits": good["hits"].astype(float)},
        {"confusion": -good["confusion"]}, {"truth": good["truth"][:2]}, {"more": good["hits"]},
    ):  # fmt: skip
        other = METRICS["labels"](replicates=2)
        with pytest.raises(InputError, match="not one of"):
            other.restore({**good, **change})
        assert not any(array.any() for array in other.arrays().values())


def test_merging_with_something_else_is_a_message():
    for other in (None, 5, BoxAccuracy()):
        with pytest.raises(InputError, match="cannot merge"):
            IoUCurve().merge(other)
    with pytest.raises(InputError, match="level must be between"):
        IoUCurve().intervals(1.5)
