"""COCO files, against pycocotools."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from lidcam_bench.data import open_data
from lidcam_bench.data.shapes import draw_shapes
from PIL import Image

from lidcam_rt.errors import DataError

coco_mask = pytest.importorskip("pycocotools.mask")
COCO = pytest.importorskip("pycocotools.coco").COCO


def test_coco_polygons_counts_and_crowds(tmp_path):
    Image.new("RGB", (10, 8)).save(tmp_path / "a.png")
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 10, "height": 8}],
        "categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}],
        "annotations": [
            {"image_id": 1, "category_id": 7, "bbox": [2, 2, 3, 3],
             "segmentation": [[2, 2, 4, 2, 4, 4, 2, 4]]},
            {"image_id": 1, "category_id": 3, "bbox": [0, 0, 1, 8], "iscrowd": 1,
             "segmentation": {"size": [8, 10], "counts": [0, 8, 72]}},
        ],
    }  # fmt: skip
    (tmp_path / "c.json").write_text(json.dumps(content))
    data = open_data(f"coco:{tmp_path / 'c.json'}")
    record = data.records[0]
    assert data.class_names == ("dog", "cat") and record.labels == (1,) and record.boxes == ((2, 2, 5, 5),)
    mask = record.truth().label_map()
    assert mask is not None
    assert (mask[2:4, 2:4] == 2).all() and (mask == 2).sum() == 4  # class index + 1; the far borders are outside
    assert (mask[:, 0] == 255).all() and (mask == 255).sum() == 8
    for change, says in (
        ({"annotations": [{"image_id": 1, "category_id": 9, "bbox": [0, 0, 1, 1]}]}, "no category 9"),
        ({"annotations": [{"image_id": 5, "category_id": 7, "bbox": [0, 0, 1, 1]}]}, "not in images"),
        ({"annotations": [{"image_id": 1, "category_id": 7, "bbox": [0, 0, -4, "x"]}]}, "a bbox is x, y"),
        ({"images": [{"id": 1}]}, "no 'width'"),
        ({"categories": 3}, "not COCO"),
    ):
        (tmp_path / "bad.json").write_text(json.dumps(content | change))
        with pytest.raises(DataError, match=says):
            open_data(f"coco:{tmp_path / 'bad.json'}")


@settings(max_examples=100, deadline=None)
@given(arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=40), elements=st.integers(0, 1)))
def test_run_lengths_are_those_of_pycocotools(mask):
    encoded = coco_mask.encode(np.asfortranarray(mask))
    runs = np.diff(np.flatnonzero(np.diff(mask.T.ravel(), prepend=2, append=2))).tolist()
    plain = [0, *runs] if mask[0, 0] else runs
    for counts in (encoded["counts"].decode(), plain):
        shape = {"size": list(mask.shape), "counts": counts}
        np.testing.assert_array_equal(draw_shapes([(shape, 1)], mask.shape[::-1], "a"), mask)


@settings(max_examples=100, deadline=None)
@given(st.data(), st.integers(1, 30), st.integers(1, 30))
def test_polygons_are_those_of_pycocotools(draw, width, height):
    corner = st.tuples(st.floats(-2, width + 2), st.floats(-2, height + 2))
    polygons = [
        [v for point in polygon for v in point]
        for polygon in draw.draw(st.lists(st.lists(corner, min_size=3, max_size=8), min_size=1, max_size=3))
    ]
    expected = np.zeros((height, width), np.uint8)
    for polygon in polygons:
        expected |= coco_mask.decode(coco_mask.frPyObjects([polygon], height, width))[..., 0]
    np.testing.assert_array_equal(draw_shapes([(polygons, 1)], (width, height), "a"), expected)


def test_a_file_gives_the_masks_of_the_coco_class(tmp_path):
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for i in range(4):
        Image.new("RGB", (50, 40)).save(tmp_path / f"{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "width": 50, "height": 40})
        for k in range(2):
            polygon = (rng.random(12) * np.tile((50, 40), 6)).round(2).tolist()
            segmentation = [polygon, [1.5, 1.5, 6.5, 1.5, 4, 7]]
            if k:
                segmentation = coco_mask.encode(np.asfortranarray((rng.random((40, 50)) < 0.3).astype(np.uint8)))
                segmentation = {"size": [40, 50], "counts": segmentation["counts"].decode()}
            box = [0.0, 0.0, 50.0, 40.0]
            annotations.append(
                {"id": 2 * i + k + 1, "image_id": i, "category_id": 5, "bbox": box, "segmentation": segmentation}
            )
    content = {"images": images, "annotations": annotations, "categories": [{"id": 5, "name": "cat"}]}
    (tmp_path / "c.json").write_text(json.dumps(content))
    reference = COCO(tmp_path / "c.json")
    for i, record in enumerate(open_data(f"coco:{tmp_path / 'c.json'}")):
        expected = sum(reference.annToMask(a) for a in reference.loadAnns(reference.getAnnIds(i))) > 0
        np.testing.assert_array_equal(record.truth().object_mask() == 1, expected)


def test_crowds_lie_under_objects_and_damaged_shapes_are_refused():
    crowd, object_ = {"counts": [0, 24]}, [[1, 1, 3, 1, 3, 2, 1, 2]]
    for shapes in ([(crowd, 255), (object_, 1)], [(object_, 1), (crowd, 255)]):
        mask = draw_shapes(shapes, (6, 4), "a")
        assert (mask == 1).sum() == 2 and (mask == 255).sum() == 22
    for counts in ([7], "m0", [0, 2001]):
        with pytest.raises(DataError, match="pixels"):
            draw_shapes([({"counts": counts}, 1)], (50, 40), "a")
    wrong = (
        {"counts": "P"}, {"counts": "\x00"}, {"counts": "o" * 100 + "0"}, {"counts": [5, -1]}, {"counts": [1.5]},
        {"counts": 5}, {"size": [1, 1]}, [[1, 2, 3]], [["a"] * 6], [1, 2, 3, 4, 5, 6], "text",
    )  # fmt: skip
    for shape in wrong:
        with pytest.raises(DataError, match="neither polygons nor"):
            draw_shapes([(shape, 1)], (50, 40), "a")
    with pytest.raises(DataError, match=r"\(height, width\) \[50, 40\]"):
        draw_shapes([({"size": [50, 40], "counts": [2000]}, 1)], (50, 40), "a")
    for far in (1e9, -1e9, float("inf"), float("nan"), 10**400):
        with pytest.raises(DataError, match="far outside"):
            draw_shapes([([[0, 0, far, 0, 0, 5]], 1)], (50, 40), "a")


def coco(tmp_path, *annotations, **changes):
    """A file of one picture of 10x8, and its record."""
    Image.new("RGB", (10, 8)).save(tmp_path / "a.png")
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 10, "height": 8}],
        "categories": [{"id": 7, "name": "cat"}],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": 7, "bbox": [2, 2, 3, 3]} | a for i, a in enumerate(annotations)
        ],
    } | changes
    (tmp_path / "c.json").write_text(json.dumps(content))
    return open_data(f"coco:{tmp_path / 'c.json'}").records[0]


SQUARE = [[2, 2, 5, 2, 5, 5, 2, 5]]


@pytest.mark.parametrize("shape", [[], [[]], [[3, 3]], [[1, 1, 4, 4]], [[], [2, 2]], None], ids=str)
def test_points_lines_and_nothing_leave_box_and_label(tmp_path, shape):
    record = coco(tmp_path, {"segmentation": shape})
    truth = record.truth()
    assert record.labels == (0,) and truth.object_boxes() == [(2, 2, 5, 5)] and truth.object_mask() is None
    # one object without an outline: a mask of the others alone would call it background
    assert coco(tmp_path, {"segmentation": SQUARE}, {"segmentation": shape}).mask is None
    assert (coco(tmp_path, {"segmentation": [*SQUARE, [1, 1, 4, 4]]}).truth().object_mask() == 1).sum() == 9


def test_keypoints_alone_leave_the_label(tmp_path):
    record = coco(tmp_path, {"bbox": None, "keypoints": [1, 2, 2] * 17, "num_keypoints": 17})
    assert (record.labels, record.boxes, record.mask) == ((0,), (), None)


@pytest.mark.parametrize(
    ("annotations", "changes", "says"),
    [
        ((), {}, "no annotations: it lists pictures without a truth"),
        ((), {"annotations": None}, "no annotations"),
        (({"bbox": [0.1, 0.2, 0.5, 0.6]},), {}, "shares of width and height"),
        (({"bbox": [1, 2, -3, 4]},), {}, "a bbox is x, y, width, height"),
        (({"bbox": [1, 2, 3]},), {}, "a bbox is x, y, width, height"),
        (({"bbox": [1, 2, 3, 1e400]},), {}, "not a JSON number|a bbox is"),
        (({"category_id": [7]},), {}, "not COCO"),
        (({},), {"images": [{"id": 1, "file_name": "a.png", "width": 1e400, "height": 8}]}, "whole pixels|JSON number"),
        (({},), {"images": [{"id": 1, "file_name": "a.png", "width": 0, "height": 8}]}, "whole pixels"),
        (({},), {"images": [{"id": 1, "file_name": "../../a.png", "width": 10, "height": 8}]}, "leads out of"),
        (({},), {"images": [{"id": 1, "file_name": "/etc/passwd", "width": 10, "height": 8}]}, "leads out of"),
        (({},), {"images": [{"id": 1, "file_name": 5, "width": 10, "height": 8}]}, "not a file name"),
        (({},), {"images": [{"id": 1, "file_name": "a.png", "width": 9, "height": 8}] * 2}, "two images have"),
        (({},), {"categories": [{"id": 7, "name": 5}]}, "name of a category"),
    ],
)
def test_files_that_hold_no_truth_or_damage_are_refused(tmp_path, annotations, changes, says):
    with pytest.raises(DataError, match=says):
        coco(tmp_path, *annotations, **changes)


def test_a_picture_of_another_size_than_the_file_says(tmp_path):
    for shape in ({"segmentation": SQUARE}, {}):  # boxes alone would be scored at the wrong place
        record = coco(tmp_path, shape, images=[{"id": 1, "file_name": "a.png", "width": 20, "height": 16}])
        with pytest.raises(DataError, match="has 10x8 pixels, its data set says 20x16"):
            record.truth()


def test_nesting_and_names_that_are_no_text(tmp_path):
    for content, says in (("[" * 100_000, "nested too deeply"), ('{"categories": [], "images": [NaN]}', "NaN")):
        (tmp_path / "c.json").write_text(content)
        with pytest.raises(DataError, match=says):
            open_data(f"coco:{tmp_path / 'c.json'}")


def test_a_split_in_the_name(tmp_path):
    coco(tmp_path, {"segmentation": SQUARE})
    (tmp_path / "c.json").rename(tmp_path / "val.json")
    assert open_data(f"coco:{tmp_path}/{{split}}.json", "val").name == "val"
