"""ILSVRC DET: multi-label pictures with boxes, the training data of LID Track 1."""

from __future__ import annotations

from pathlib import Path

from lidcam_bench.data.layout import expect, read_lines
from lidcam_bench.data.readers.imagenet import ilsvrc_root
from lidcam_bench.data.records import ImageSet, Record
from lidcam_bench.data.xml_boxes import read_boxes
from lidcam_rt.results import Box

__all__ = ["read_det"]

_DET = """
    ILSVRC/devkit/data/map_det.txt               n02672831 1 accordion
    ILSVRC/ImageSets/DET/train.txt, val.txt      path without extension, number
    ILSVRC/ImageSets/DET/train_K.txt             path without extension, 1 / 0 / -1   (K: 1 to the number of classes)
    ILSVRC/Data/DET/train/..., val/...           *.JPEG
    ILSVRC/Annotations/DET/train/..., val/...    *.xml   (needed for val, or without train_K.txt)"""


def read_det(folder: Path, split: str) -> ImageSet:
    """Read ILSVRC DET, multi-label.

    Args:
        folder: as unpacked, see the layout in the error message.
        split: train or val.

    Raises:
        DataError: a file is missing; the message gives the layout expected.
    """
    root = ilsvrc_root(folder)
    rows = read_lines(expect(root / "devkit" / "data" / "map_det.txt", _DET), 3)
    rows.sort(key=lambda row: int(row[1]))
    index_of = {wordnet: index for index, (wordnet, _, _) in enumerate(rows)}
    sets = expect(root / "ImageSets" / "DET", _DET)
    names = [row[0] for row in read_lines(expect(sets / f"{split}.txt", _DET), 1)]
    labels: dict[str, set[int]] = {name.split()[0]: set() for name in names}
    lists = [sets / f"{split}_{number}.txt" for number in range(1, len(rows) + 1)]
    by_list = all(file.exists() for file in lists)
    if by_list:
        for index, file in enumerate(lists):
            for name, flag in read_lines(file, 2):
                if flag.split()[-1] == "1" and name in labels:
                    labels[name].add(index)
    records = []
    for name, classes in labels.items():
        boxes: tuple[Box, ...] = ()
        if not by_list:
            annotation = expect(root / "Annotations" / "DET" / split / f"{name}.xml", _DET)
            objects = [(index_of[n], box) for n, box in read_boxes(annotation, first_pixel=0) if n in index_of]
            classes = {index for index, _ in objects}
            boxes = tuple(box for _, box in objects)
        if classes or split != "train":
            picture = root / "Data" / "DET" / split / f"{name}.JPEG"
            records.append(Record(picture, tuple(sorted(classes)), boxes))
    return ImageSet(f"ilsvrc-det/{split}", tuple(row[2] for row in rows), tuple(records), multilabel=True)
