"""LID 2020, Track 1: pictures of ILSVRC DET with masks over 200 classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lidcam_bench.data.layout import expect, read_map_det
from lidcam_bench.data.masks import IGNORED, MaskFile, MaskForm, upright_size
from lidcam_bench.data.records import ImageSet, Record
from lidcam_bench.data.text import inside
from lidcam_bench.data.xml_boxes import read_boxes

__all__ = ["read_track1"]

_TRACK1 = """
    map_det.txt                                             n02672831 1 accordion
    LID_track1/val/*.JPEG
    LID_track1_annotations/track1_val_annotations_raw/*.png   (0 background, 1 to 200 the class, 255 ignored)
    LID_track1_xml/val/*.xml                                  (optional: labels without opening the masks)"""


def read_track1(folder: Path, split: str) -> ImageSet:
    """Pictures of ILSVRC DET with masks over 200 classes.

    Args:
        folder: see the layout in the error message.
        split: val (train has no masks: use `ilsvrc-det`).

    Raises:
        DataError: a file is missing; the message gives the layout expected.
    """
    index_of, names = read_map_det(expect(folder / "map_det.txt", _TRACK1))
    pictures = expect(inside(folder / "LID_track1", split, f"split {split!r}"), _TRACK1)
    masks = expect(folder / "LID_track1_annotations" / f"track1_{split}_annotations_raw", _TRACK1)
    annotations = folder / "LID_track1_xml" / split
    records = []
    for picture in sorted(pictures.glob("*.JPEG")):
        mask = expect(masks / f"{picture.stem}.png", _TRACK1)
        source = MaskFile(mask, MaskForm.LABELS, classes=len(names))
        annotation = annotations / f"{picture.stem}.xml"
        if annotation.exists():
            labels = {index_of[name] for name, _ in read_boxes(annotation, first_pixel=0) if name in index_of}
        else:
            values = np.unique(source.read(picture, upright_size(picture)))
            labels = {int(value) - 1 for value in values if 0 < value < IGNORED}
        records.append(Record(picture, tuple(sorted(labels)), mask=source))
    return ImageSet(f"lid-track1/{split}", names, tuple(records), multilabel=True)
