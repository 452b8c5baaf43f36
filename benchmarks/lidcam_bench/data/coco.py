"""COCO instance annotations: read, and drawn as masks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lidcam_bench.data.labels import whole_box
from lidcam_rt.errors import DataError

__all__ = ["CocoEntry", "draw_shapes", "read_coco"]


@dataclass(frozen=True)
class CocoEntry:
    """A picture of a COCO file.

    Attributes:
        image: the file.
        labels: class indices, categories in order of their ids.
        boxes: x0, y0, x1, y1 in whole pixels, x1 and y1 one past the last.
        shapes: (segmentation, label) per annotation, label 255 for crowds.
        size: (width, height).
    """

    image: Path
    labels: tuple[int, ...]
    boxes: tuple[tuple[int, int, int, int], ...]
    shapes: tuple[tuple[Any, int], ...] = field(repr=False)
    size: tuple[int, int]


def read_coco(path: Path, folder: Path) -> tuple[tuple[str, ...], tuple[CocoEntry, ...]]:
    """Class names and pictures of an instances file.

    Args:
        path: the JSON file.
        folder: where the pictures are.

    Raises:
        DataError: it cannot be read, or is not COCO instances.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        order = sorted(content["categories"], key=lambda c: c["id"])
        index = {c["id"]: i for i, c in enumerate(order)}
        by_image: dict[Any, list[Any]] = {}
        for note in content["annotations"]:
            by_image.setdefault(note["image_id"], []).append(note)
        unknown = set(by_image) - {image["id"] for image in content["images"]}
        if unknown:
            raise DataError(f"{path}: annotations of image {sorted(unknown, key=str)[0]!r}, which is not in images")
        entries = tuple(
            _entry(path, folder, image, by_image.get(image["id"], []), index) for image in content["images"]
        )
    except OSError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, DataError):
            raise
        lacks = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise DataError(f"{path} is not COCO JSON (instances): {lacks}") from None
    return tuple(c["name"] for c in order), entries


def _entry(path: Path, folder: Path, image: Any, notes: list[Any], index: dict[Any, int]) -> CocoEntry:
    for note in notes:
        if note["category_id"] not in index:
            raise DataError(f"{path}, annotation {note.get('id')}: no category {note['category_id']!r} in categories")
    own = [n for n in notes if not n.get("iscrowd")]
    size = (int(image["width"]), int(image["height"]))
    boxes = []
    for note in own:
        x, y, w, h = (float(v) for v in note["bbox"])
        box = whole_box(f"{path}, annotation {note.get('id')}", (x, y, max(x + w, x + 1), max(y + h, y + 1)))
        # Corners are rounded to whole pixels, which may put them one past the picture.
        x1, y1 = (min(v, side) if v == side + 1 else v for v, side in zip(box[2:], size, strict=True))
        boxes.append((min(box[0], size[0] - 1), min(box[1], size[1] - 1), x1, y1))
    return CocoEntry(
        folder / image["file_name"],
        tuple(dict.fromkeys(index[n["category_id"]] for n in own)),
        tuple(boxes),
        tuple(
            (n["segmentation"], 255 if n.get("iscrowd") else index[n["category_id"]] + 1)
            for n in notes
            if n.get("segmentation")
        ),
        size,
    )


def draw_shapes(shapes: Sequence[tuple[Any, int]], size: tuple[int, int], name: str) -> npt.NDArray[np.uint8]:
    """The shapes as a mask: uint8 [height, width], 0 where there is none, labels above 254 as 254.

    Crowds come first, so that an object is drawn over them; of objects the later over the earlier. Polygons are
    filled with their corners rounded to pixels, borders included (pycocotools differs by a pixel at borders); run
    lengths are exact.

    Args:
        shapes: (segmentation, label): polygons [[x, y, ...], ...], or {"size": [h, w], "counts": list or str}.
        size: (width, height).
        name: the picture, for messages.

    Raises:
        DataError: a shape is none of these, or of another size.
    """
    import cv2

    width, height = size
    mask = np.zeros((height, width), np.uint8)
    for shape, label in sorted(shapes, key=lambda s: s[1] != 255):
        own = np.zeros_like(mask)
        try:
            if isinstance(shape, list):
                for polygon in shape:
                    points = np.rint(np.asarray(polygon, np.float64).reshape(-1, 2)).astype(np.int32)
                    cv2.fillPoly(own, [points], 1)
            else:
                counts = shape["counts"]
                counts = _decompress(counts) if isinstance(counts, (str, bytes)) else counts
                flat = np.repeat(np.arange(len(counts)) % 2, counts).astype(np.uint8)
                if flat.size != mask.size:
                    raise DataError(f"{name}: its run lengths give {flat.size} pixels, it has {mask.size}")
                own = flat.reshape(width, height).T
        except (KeyError, TypeError, ValueError, IndexError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{name}: a segmentation is neither polygons nor run lengths ({error!r})") from None
        mask[own > 0] = label if label == 255 else min(label, 254)
    return mask


def _decompress(text: str | bytes) -> list[int]:
    """Run lengths of COCO's compressed form.

    Each number is written in groups of five bits, lowest first, as characters from '0' (48) on; bit 5 says that another
    group follows, bit 4 of the last group is the sign. From the third number on it is the difference to the number two
    before (cocoapi, common/maskApi.c, rleFrString).
    """
    data = text.encode() if isinstance(text, str) else text
    out: list[int] = []
    at = 0
    while at < len(data):
        value = shift = 0
        more = True
        while more:
            group = data[at] - 48
            value |= (group & 31) << shift
            shift += 5
            more = bool(group & 32)
            at += 1
        if group & 16:
            value -= 1 << shift
        out.append(value + (out[-2] if len(out) > 2 else 0))
    return out
