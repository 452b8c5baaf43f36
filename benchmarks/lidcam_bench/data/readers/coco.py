"""COCO instances."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lidcam_bench.data.labels import whole_box
from lidcam_bench.data.masks import IGNORED
from lidcam_bench.data.records import ImageSet, Record
from lidcam_bench.data.shapes import Shapes
from lidcam_rt.errors import DataError
from lidcam_rt.results import Box

__all__ = ["read_coco"]


def read_coco(place: str) -> ImageSet:
    """Read a COCO instances file.

    Classes are the categories in the order of their ids. Crowds are ignored pixels, and neither labels nor boxes.

    Args:
        place: `FILE.json`, or `FILE.json,IMAGES_DIR`; without a folder the pictures are beside the file.

    Raises:
        DataError: it cannot be read, or is not COCO instances.
    """
    name, _, folder = place.partition(",")
    path = Path(name).expanduser()
    images = Path(folder).expanduser() if folder else path.parent
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        categories = sorted(content["categories"], key=lambda c: c["id"])
        index = {c["id"]: i for i, c in enumerate(categories)}
        by_image: dict[Any, list[Any]] = {}
        for annotation in content["annotations"]:
            by_image.setdefault(annotation["image_id"], []).append(annotation)
        unknown = set(by_image) - {image["id"] for image in content["images"]}
        if unknown:
            raise DataError(f"{path}: annotations of image {sorted(unknown, key=str)[0]!r}, which is not in images")
        records = tuple(
            _record(path, images, image, by_image.get(image["id"], []), index) for image in content["images"]
        )
        names = tuple(c["name"] for c in categories)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    except DataError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise DataError(f"{path} is not COCO JSON (instances): {reason}") from None
    return ImageSet(path.stem, names, records, multilabel=any(len(record.labels) > 1 for record in records))


def _record(path: Path, folder: Path, image: Any, annotations: list[Any], index: dict[Any, int]) -> Record:
    for annotation in annotations:
        if annotation["category_id"] not in index:
            raise DataError(
                f"{path}, annotation {annotation.get('id')}: no category {annotation['category_id']!r} in categories"
            )
    objects = [a for a in annotations if not a.get("iscrowd")]
    size = (int(image["width"]), int(image["height"]))
    by_class = all(index[a["category_id"]] + 1 < IGNORED for a in objects)
    shapes = tuple(
        (a["segmentation"], IGNORED if a.get("iscrowd") else index[a["category_id"]] + 1 if by_class else 1)
        for a in annotations
        if a.get("segmentation")
    )
    return Record(
        folder / image["file_name"],
        tuple(dict.fromkeys(index[a["category_id"]] for a in objects)),
        tuple(_box(f"{path}, annotation {a.get('id')}", a["bbox"], size) for a in objects),
        Shapes(shapes, by_class) if shapes else None,
    )


def _box(where: str, bbox: Any, size: tuple[int, int]) -> Box:
    """x, y, width, height as a half-open box of at least one pixel."""
    x, y, w, h = (float(v) for v in bbox)
    box = whole_box(where, (x, y, max(x + w, x + 1), max(y + h, y + 1)))
    # Corners are rounded to whole pixels, which may put them one past the picture.
    x1, y1 = (min(v, side) if v == side + 1 else v for v, side in zip(box[2:], size, strict=True))
    return min(box[0], size[0] - 1), min(box[1], size[1] - 1), x1, y1
