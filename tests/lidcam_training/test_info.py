"""`lidcam data info` on tiny folders in the exact layouts of the real data sets with several labels per picture."""

import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from lidcam_cli.app import build_app


def photo(file):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(file, "JPEG")


def text(file, content):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)


def labels(file, *values):
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((30, 40), np.uint8)
    for row, value in enumerate(values):
        pixels[row] = value
    Image.fromarray(pixels).save(file)


def note(file, *names):
    box = "<bndbox><xmin>3</xmin><ymin>4</ymin><xmax>20</xmax><ymax>25</ymax></bndbox>"
    text(file, f"<annotation>{''.join(f'<object><name>{n}</name>{box}</object>' for n in names)}</annotation>")


def ilsvrc_det(root):
    text(root / "ILSVRC/devkit/data/map_det.txt", "n9 2 airplane\nn8 1 accordion\n")
    text(root / "ILSVRC/ImageSets/DET/train.txt", "a/0 1\na/1 2\na/2 3\n")
    text(root / "ILSVRC/ImageSets/DET/train_1.txt", "a/0 1\na/1 0\na/2 1\n")
    text(root / "ILSVRC/ImageSets/DET/train_2.txt", "a/0 -1\na/1 1\na/2 1\n")
    for number in range(3):
        photo(root / f"ILSVRC/Data/DET/train/a/{number}.JPEG")
    return f"ilsvrc-det:{root}", "train", ["3 pictures, 2 classes", "accordion: 2 (1 unknown)", "airplane: 2"]


def lid_track1(root):
    text(root / "map_det.txt", "n9 2 airplane\nn8 1 accordion\n")
    for number, values in enumerate([(1, 255), (1, 2)]):
        photo(root / f"LID_track1/val/v{number}.JPEG")
        labels(root / f"LID_track1_annotations/track1_val_annotations_raw/v{number}.png", *values)
    return f"lid-track1:{root}", "val", ["2 pictures, 2 classes, 0 boxes, 2 masks", "accordion: 2", "airplane: 1"]


def voc(root):
    base = root / "VOCdevkit/VOC2012"
    text(base / "ImageSets/Segmentation/val.txt", "2007_1\n2007_2\n")
    for number, names in ((1, ("cat", "dog", "dog")), (2, ("cat",))):
        photo(base / f"JPEGImages/2007_{number}.jpg")
        note(base / f"Annotations/2007_{number}.xml", *names)
        labels(base / f"SegmentationClass/2007_{number}.png", 8, 255)
    words = ["2 pictures, 20 classes, 4 boxes, 2 masks", "  cat: 2", "  dog: 1", "1 with 1, 1 with 2"]
    return f"voc:{root}", "val", words


def coco(root):
    """80 categories with the gaps of COCO's ids; a crowd of a class that is not there otherwise."""
    square = {"segmentation": [[2, 2, 20, 2, 20, 20, 2, 20]], "bbox": [2, 2, 18, 18], "area": 324, "image_id": 7}
    crowd = {"segmentation": {"size": [30, 40], "counts": [0, 30, 1170]}, "bbox": [0, 0, 1, 30], "area": 30}
    annotations = [
        {**square, "id": 1, "category_id": 11, "iscrowd": 0},
        {**square, "id": 2, "category_id": 21, "iscrowd": 0},
        {**crowd, "image_id": 7, "id": 3, "category_id": 1, "iscrowd": 1},
    ]
    categories = [{"id": 10 * k + 1, "name": f"thing {k}"} for k in range(80)]
    images = [{"id": 7, "file_name": "a.jpg", "width": 40, "height": 30}]
    text(root / "i.json", json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    photo(root / "a.jpg")
    words = ["1 pictures, 80 classes", "thing 1: 1", "thing 2: 1", "thing 0: 0 (1 unknown)"]
    return f"coco:{root / 'i.json'}", "val", words


@pytest.mark.parametrize("layout", [ilsvrc_det, lid_track1, voc, coco])
def test_every_class_of_a_layout_is_counted(tmp_path, layout):
    source, split, words = layout(tmp_path)
    result = CliRunner().invoke(build_app("data"), ["data", "info", source, "--split", split])
    assert result.exit_code == 0, (result.output, result.exception)
    for word in words:
        assert word in result.output, (word, result.output)


def test_a_mask_of_another_size_is_named(tmp_path):
    source, split, _ = voc(tmp_path)
    base = tmp_path / "VOCdevkit/VOC2012"
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(base / "SegmentationClass/2007_1.png")
    result = CliRunner().invoke(build_app("data"), ["data", "info", source, "--split", split])
    assert result.exit_code == 2 and "2007_1.png" in result.output.replace("\n", "")
