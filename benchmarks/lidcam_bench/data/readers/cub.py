"""CUB-200-2011: birds with boxes and segmentations."""

from __future__ import annotations

from pathlib import Path

from lidcam_bench.data.layout import expect
from lidcam_bench.data.masks import MaskFile, MaskForm
from lidcam_bench.data.records import ImageSet, Record
from lidcam_bench.data.text import inside, read_lines
from lidcam_rt.errors import DataError

__all__ = ["read_cub"]

_LAYOUT = """
    images.txt               1 001.Black_footed_Albatross/Black_Footed_Albatross_0046_18.jpg
    image_class_labels.txt   1 1
    classes.txt              1 001.Black_footed_Albatross
    train_test_split.txt     1 0      (1: training)
    bounding_boxes.txt       1 60.0 27.0 325.0 304.0   (x y width height)
    images/CLASS/*.jpg
    segmentations/CLASS/*.png   (optional, a separate download)"""


def read_cub(folder: Path, split: str) -> ImageSet:
    """Read CUB-200-2011.

    Args:
        folder: CUB_200_2011, see the layout in the error message.
        split: train, test, or val (the same pictures as test, as in the ECCV paper).

    Raises:
        DataError: a file is missing; the message gives the layout expected.
    """
    folder = folder / "CUB_200_2011" if (folder / "CUB_200_2011").is_dir() else folder
    tables = {
        name: {row[0]: row[1] for row in read_lines(expect(folder / f"{name}.txt", _LAYOUT), 2)}
        for name in ("images", "image_class_labels", "classes", "train_test_split", "bounding_boxes")
    }
    if split not in ("train", "val", "test"):
        raise DataError(f"cub has no split {split!r}: choose train, val or test")
    try:
        order = sorted(tables["classes"], key=int)
    except ValueError as error:
        raise DataError(f"{folder}/classes.txt: the first field of a line is the class's number ({error})") from None
    index_of = {key: index for index, key in enumerate(order)}
    wanted = "1" if split == "train" else "0"
    records = []
    for key, name in tables["images"].items():
        try:
            if tables["train_test_split"][key] != wanted:
                continue
            x, y, width, height = (float(value) for value in tables["bounding_boxes"][key].split())
            label = index_of[tables["image_class_labels"][key]]
            if max(x + width, y + height) <= 1:
                raise ValueError("its box lies within the first pixel: boxes are in pixels")
        except (KeyError, ValueError, OverflowError) as error:
            raise DataError(f"{folder}: the tables are damaged at picture {key} ({name}): {error}") from None
        picture = inside(folder / "images", name, f"{folder}/images.txt")
        mask = inside(folder / "segmentations", str(Path(name).with_suffix(".png")), f"{folder}/images.txt")
        box = (int(x), int(y), int(x + width), int(y + height))
        source = MaskFile(mask, MaskForm.VOTES) if mask.exists() else None
        records.append(Record(picture, (label,), (box,), source))
    names = tuple(tables["classes"][key].partition(".")[2] or tables["classes"][key] for key in order)
    return ImageSet(f"cub/{split}", names, tuple(records))
