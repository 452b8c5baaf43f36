"""LID 2020, Track 3: ILSVRC validation pictures with a mask of their one object class."""

from __future__ import annotations

from pathlib import Path

from lidcam_bench.data.layout import expect
from lidcam_bench.data.mask_forms import common_form
from lidcam_bench.data.masks import MaskFile, MaskForm
from lidcam_bench.data.readers.imagenet import cls_loc_classes, ilsvrc_root, read_imagenet
from lidcam_bench.data.records import ImageSet, Record
from lidcam_bench.data.text import inside
from lidcam_bench.data.xml_boxes import read_boxes
from lidcam_rt.errors import DataError

__all__ = ["SWAPPED", "read_track3"]

#: endings of the ids of Track 3 validation masks that are stored with width and height swapped
SWAPPED = ("17615", "18903")
_TRACK3 = """
    LOC_synset_mapping.txt, ILSVRC/Data/CLS-LOC/val/*.JPEG, ILSVRC/Annotations/CLS-LOC/val/*.xml   (as for
    imagenet) LID_track3_masks/val/ILSVRC2012_val_00000001.png   (0 background, 255, or in all masks 1, the object)"""


def read_track3(folder: Path, split: str) -> ImageSet:
    """ILSVRC validation pictures that have a Track 3 mask; `train` is ILSVRC's training set.

    Two masks are stored with width and height swapped; they are turned when they are read.

    Args:
        folder: see the layout in the error message.
        split: train or val.

    Raises:
        DataError: a file is missing; the message gives the layout expected.
    """
    if split == "train":
        return read_imagenet(folder, split)
    masks = expect(inside(folder / "LID_track3_masks", split, f"split {split!r}"), _TRACK3)
    classes = cls_loc_classes(folder)
    root = ilsvrc_root(folder)
    records = []
    files = sorted(masks.glob("*.png"))
    form = common_form(files) if files else MaskForm.GREY
    for mask in files:
        picture = expect(root / "Data" / "CLS-LOC" / "val" / f"{mask.stem}.JPEG", _TRACK3)
        annotation = expect(root / "Annotations" / "CLS-LOC" / "val" / f"{mask.stem}.xml", _TRACK3)
        objects = [entry for entry in read_boxes(annotation, first_pixel=0) if entry[0] in classes]
        if not objects:
            raise DataError(f"{annotation}: no object of a class of LOC_synset_mapping.txt")
        label = objects[0][0]
        source = MaskFile(mask, form, transposed=mask.stem.endswith(SWAPPED))
        boxes = tuple(box for name, box in objects if name == label)
        records.append(Record(picture, (classes[label][0],), boxes, source))
    return ImageSet(f"lid-track3/{split}", tuple(name for _, name in classes.values()), tuple(records))
