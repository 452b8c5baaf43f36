"""ILSVRC DET: multi-label pictures with boxes, the training data of LID Track 1."""

from __future__ import annotations

from pathlib import Path

from lidcam_bench.data.layout import expect, read_map_det
from lidcam_bench.data.readers.imagenet import ilsvrc_root
from lidcam_bench.data.records import ImageSet, Record
from lidcam_bench.data.text import inside, read_lines
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

    A class that a list marks with 0 is neither present nor absent (`Record.unknown`); one whose list does not name the
    picture counts as absent.

    Args:
        folder: as unpacked, see the layout in the error message.
        split: train or val.

    Raises:
        DataError: a file is missing; the message gives the layout expected.
    """
    root = ilsvrc_root(folder)
    index_of, names = read_map_det(expect(root / "devkit" / "data" / "map_det.txt", _DET))
    sets = expect(root / "ImageSets" / "DET", _DET)
    pictures = expect(inside(sets, f"{split}.txt", f"split {split!r}"), _DET)
    labels: dict[str, set[int]] = {row[0].split()[0]: set() for row in read_lines(pictures, 1)}
    unknown: dict[str, set[int]] = {name: set() for name in labels}
    lists = [sets / f"{split}_{number}.txt" for number in range(1, len(names) + 1)]
    by_list = all(file.exists() for file in lists)
    if by_list:
        for index, file in enumerate(lists):
            for name, flag in read_lines(file, 2):
                mark = flag.split()[-1]
                if mark in ("1", "0") and name in labels:
                    (labels if mark == "1" else unknown)[name].add(index)
    records = []
    for name, classes in labels.items():
        boxes: tuple[Box, ...] = ()
        if not by_list:
            annotation = expect(inside(root / "Annotations" / "DET" / split, f"{name}.xml", str(pictures)), _DET)
            objects = [(index_of[n], box) for n, box in read_boxes(annotation, first_pixel=0) if n in index_of]
            classes = {index for index, _ in objects}
            boxes = tuple(box for _, box in objects)
        if classes or split != "train":
            picture = inside(root / "Data" / "DET" / split, f"{name}.JPEG", str(pictures))
            in_doubt = tuple(sorted(unknown[name] - classes))
            records.append(Record(picture, tuple(sorted(classes)), boxes, unknown=in_doubt))
    return ImageSet(f"ilsvrc-det/{split}", names, tuple(records), multilabel=True)
