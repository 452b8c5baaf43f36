"""Masks of the LID 2020 challenge: Track 3 (one object class per picture) and Track 1 (200 classes)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lidcam_bench.data.readers.ilsvrc import cls_loc_classes, ilsvrc_root, read_imagenet
from lidcam_bench.data.readers.xml_boxes import read_boxes, read_lines
from lidcam_bench.data.records import ImageSet, Record, expect

__all__ = ["SWAPPED", "read_track1", "read_track3"]

#: endings of the ids of Track 3 validation masks that are stored with width and height swapped
SWAPPED = ("17615", "18903")
_TRACK3 = """
    LOC_synset_mapping.txt, ILSVRC/Data/CLS-LOC/val/*.JPEG, ILSVRC/Annotations/CLS-LOC/val/*.xml   (as for
    imagenet) LID_track3_masks/val/ILSVRC2012_val_00000001.png   (0 background, 255 or another value the
    object)"""
_TRACK1 = """
    map_det.txt                                             n02672831 1 accordion
    LID_track1/val/*.JPEG
    LID_track1_annotations/track1_val_annotations_raw/*.png   (0 background, 1 to 200 the class, 255 ignored)
    LID_track1_xml/val/*.xml                                  (optional: labels without opening the masks)"""


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
    masks = expect(folder / "LID_track3_masks" / split, _TRACK3)
    classes = cls_loc_classes(folder)
    root = ilsvrc_root(folder)
    records = []
    for mask in sorted(masks.glob("*.png")):
        picture = expect(root / "Data" / "CLS-LOC" / "val" / f"{mask.stem}.JPEG", _TRACK3)
        note = expect(root / "Annotations" / "CLS-LOC" / "val" / f"{mask.stem}.xml", _TRACK3)
        found = [entry for entry in read_boxes(note, first_pixel=0) if entry[0] in classes]
        label = found[0][0]
        records.append(
            Record(
                picture,
                (classes[label][0],),
                tuple(box for name, box in found if name == label),
                mask,
                "foreground",
                mask.stem.endswith(SWAPPED),
            )
        )
    return ImageSet(f"lid-track3/{split}", tuple(name for _, name in classes.values()), tuple(records))


def read_track1(folder: Path, split: str) -> ImageSet:
    """Pictures of ILSVRC DET with masks over 200 classes.

    Args:
        folder: see the layout in the error message.
        split: val (train has no masks: use `ilsvrc-det`).

    Raises:
        DataError: a file is missing; the message gives the layout expected.
    """
    import numpy as np

    rows = read_lines(expect(folder / "map_det.txt", _TRACK1), 3)
    rows.sort(key=lambda row: int(row[1]))
    index_of = {wordnet: index for index, (wordnet, _, _) in enumerate(rows)}
    pictures = expect(folder / "LID_track1" / split, _TRACK1)
    masks = expect(folder / "LID_track1_annotations" / f"track1_{split}_annotations_raw", _TRACK1)
    notes = folder / "LID_track1_xml" / split
    records = []
    for picture in sorted(pictures.glob("*.JPEG")):
        mask = expect(masks / f"{picture.stem}.png", _TRACK1)
        record = Record(picture, (), mask=mask, mask_values="classes")
        note = notes / f"{picture.stem}.xml"
        if note.exists():
            labels = {index_of[name] for name, _ in read_boxes(note, first_pixel=0) if name in index_of}
        else:
            values = np.unique(record.read_mask())  # type: ignore[arg-type]
            labels = {int(value) - 1 for value in values if 0 < value < 255}
        records.append(replace(record, labels=tuple(sorted(labels))))
    return ImageSet(f"lid-track1/{split}", tuple(row[2] for row in rows), tuple(records), multilabel=True)
