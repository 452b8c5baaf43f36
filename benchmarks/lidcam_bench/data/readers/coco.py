"""COCO instances: one JSON file, and the folder of its pictures."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from lidcam_bench.data.labels import whole_box
from lidcam_bench.data.masks import IGNORED
from lidcam_bench.data.records import ImageSet, Record
from lidcam_bench.data.shapes import Shapes, has_area
from lidcam_bench.data.text import inside, read_json
from lidcam_rt.errors import DataError
from lidcam_rt.results import Box

__all__ = ["read_coco"]


def read_coco(place: str, split: str) -> ImageSet:
    """Read a COCO instances file.

    Classes are the categories in the order of their ids. Crowds are ignored pixels, and neither labels nor boxes: a
    class that a picture has as a crowd only is unknown. A picture has a mask if all its annotations have a segmentation
    with an area; segmentations of points, lines or nothing (detection, keypoints) leave boxes and labels.

    Args:
        place: `FILE.json`, or `FILE.json,IMAGES_DIR`; without a folder the pictures are beside the file. `{split}` in
            it stands for the split.
        split: see there.

    Raises:
        DataError: it cannot be read, is not COCO instances, or has no annotations.
    """
    name, _, folder = place.replace("{split}", split).partition(",")
    path = Path(name).expanduser()
    content = read_json(path)
    try:
        return _read(path, Path(folder).expanduser() if folder else path.parent, content)
    except DataError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise DataError(f"{path} is not COCO JSON (instances): {reason}") from None


def _read(path: Path, folder: Path, content: Any) -> ImageSet:
    categories = sorted(content["categories"], key=lambda c: c["id"])
    names = tuple(c["name"] for c in categories)
    if not all(isinstance(name, str) for name in names):
        raise DataError(f"{path} is not COCO JSON (instances): the name of a category is not text")
    index = {c["id"]: i for i, c in enumerate(categories)}
    by_image: dict[Any, list[Any]] = {image["id"]: [] for image in content["images"]}
    if len(by_image) != len(content["images"]):
        raise DataError(f"{path}: two images have the same id")
    if not content.get("annotations"):
        raise DataError(f"{path} has no annotations: it lists pictures without a truth to score against")
    for annotation in content["annotations"]:
        if annotation["image_id"] not in by_image:
            raise DataError(f"{path}: annotations of image {annotation['image_id']!r}, which is not in images")
        if annotation["category_id"] not in index:
            raise DataError(
                f"{path}, annotation {annotation.get('id')}: no category {annotation['category_id']!r} in categories"
            )
        by_image[annotation["image_id"]].append(annotation)
    records = tuple(_record(path, folder, image, by_image[image["id"]], index) for image in content["images"])
    return ImageSet(path.stem, names, records, multilabel=any(len(record.labels) > 1 for record in records))


def _record(path: Path, folder: Path, image: Any, annotations: list[Any], index: dict[Any, int]) -> Record:
    where = f"{path}, image {image['id']}"
    size = image["width"], image["height"]
    if not all(type(side) is int and side > 0 for side in size):
        raise DataError(f"{where}: width and height are whole pixels, got {size}")
    objects = [a for a in annotations if not a.get("iscrowd")]
    by_class = all(index[a["category_id"]] + 1 < IGNORED for a in objects)
    shapes = tuple(
        (a["segmentation"], IGNORED if a.get("iscrowd") else index[a["category_id"]] + 1 if by_class else 1)
        for a in annotations
        if a.get("segmentation")
    )
    complete = objects and all(has_area(a.get("segmentation")) for a in objects)
    boxes = tuple(
        _box(f"{path}, annotation {a.get('id')}", a["bbox"], size) for a in objects if a.get("bbox") is not None
    )
    labels = tuple(dict.fromkeys(index[a["category_id"]] for a in objects))
    crowds = {index[a["category_id"]] for a in annotations if a.get("iscrowd")}
    return Record(
        inside(folder, image["file_name"], where),
        labels,
        boxes if len(boxes) == len(objects) else (),
        Shapes(shapes, by_class) if complete else None,
        size,
        tuple(sorted(crowds - set(labels))),
    )


def _box(where: str, bbox: Any, size: tuple[int, int]) -> Box:
    """x, y, width, height as a half-open box of at least one pixel."""
    numbers = isinstance(bbox, list) and len(bbox) == 4 and all(type(v) in (int, float) for v in bbox)
    if not numbers or not all(-math.inf < v < math.inf for v in bbox) or min(bbox[2:]) < 0:
        raise DataError(f"{where}: a bbox is x, y, width, height, got {bbox!r:.80}")
    x, y, w, h = bbox
    if max(x + w, y + h) <= 1:
        raise DataError(
            f"{where}: bbox {bbox} lies within the first pixel. If these are shares of width and height (0 to 1), "
            "multiply them: a bbox is x, y, width, height in pixels"
        )
    box = whole_box(where, (x, y, max(x + w, x + 1), max(y + h, y + 1)))
    # Corners are rounded to whole pixels, which may put them one past the picture.
    x1, y1 = (min(v, side) if v == side + 1 else v for v, side in zip(box[2:], size, strict=True))
    return min(box[0], size[0] - 1), min(box[1], size[1] - 1), x1, y1
