"""Annotation files in the XML format of Pascal VOC, which ILSVRC uses too."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree  # nosec B405 - entities are refused, see read_boxes

from lidcam_rt.errors import DataError
from lidcam_rt.files import read_file
from lidcam_rt.results import Box

__all__ = ["read_boxes"]


def read_boxes(file: Path, *, first_pixel: int) -> list[tuple[str, Box]]:
    """Names and boxes of the objects.

    Args:
        file: XML.
        first_pixel: number of the first pixel: 1 for VOC, 0 for ILSVRC; the last pixel is inclusive in both.

    Returns:
        (name, (x0, y0, x1, y1)) with x1 and y1 one past the last pixel.

    Raises:
        DataError: not XML, or an object without a name or a box.
    """
    try:
        content = read_file(file)
        if b"<!ENTITY" in content:  # expat's own limit covers those hidden by other encodings
            raise ValueError("it declares entities, which annotations do not need")
        root = ElementTree.fromstring(content)  # nosec B314 - as above
        width, height = (int(root.findtext(f"size/{side}", "") or 0) for side in ("width", "height"))
        objects = []
        for entry in root.iter("object"):
            box = entry.find("bndbox")
            if box is None:
                raise ValueError("an object without a bndbox")
            numbers = [float(box.findtext(key, "")) for key in ("xmin", "ymin", "xmax", "ymax")]
            if all(0 <= number <= 1 for number in numbers):
                raise ValueError(f"box {numbers} lies within the first pixel; they are pixels, not shares of the sides")
            values = [int(number) for number in numbers]
            name = entry.findtext("name")
            if not name:
                raise ValueError("an object without a name")
            x0, y0, x1, y1 = (value - first_pixel for value in values)
            objects.append((name.strip(), (x0, y0, _end(x1, width), _end(y1, height))))
    except (ElementTree.ParseError, AttributeError, TypeError, ValueError, OverflowError, OSError) as error:
        raise DataError(f"annotation {file} cannot be read: {error}") from error
    return objects


def _end(last: int, side: int) -> int:
    """One past the last pixel; some annotations of a set count from 1, and the last pixel is then the side itself."""
    return side if side and last == side else last + 1
