"""Pascal VOC 2012: multi-label pictures with class masks."""

from __future__ import annotations

from pathlib import Path

from lidcam_bench.data.layout import expect, read_lines
from lidcam_bench.data.masks import MaskFile
from lidcam_bench.data.records import ImageSet, Record
from lidcam_bench.data.xml_boxes import read_boxes
from lidcam_rt.errors import DataError

__all__ = ["VOC_CLASSES", "read_voc"]

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
_LAYOUT = """
    VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt, val.txt   (one picture's name per line)
    VOCdevkit/VOC2012/JPEGImages/2007_000027.jpg
    VOCdevkit/VOC2012/Annotations/2007_000027.xml
    VOCdevkit/VOC2012/SegmentationClass/2007_000032.png   (0 background, 1 to 20 the class, 255 ignored)"""


def read_voc(folder: Path, split: str) -> ImageSet:
    """Read VOC 2012.

    Args:
        folder: the folder that holds VOCdevkit, or VOCdevkit/VOC2012 itself.
        split: a list in ImageSets/Segmentation (train, val, or trainaug with SegmentationClassAug).

    Raises:
        DataError: a file is missing; the message gives the layout expected.
    """
    for inside in ("VOCdevkit/VOC2012", "VOC2012"):
        if (folder / inside).is_dir():
            folder = folder / inside
            break
    index_of = {name: index for index, name in enumerate(VOC_CLASSES)}
    masks = "SegmentationClassAug" if split.endswith("aug") else "SegmentationClass"
    records = []
    for name, *_ in read_lines(expect(folder / "ImageSets" / "Segmentation" / f"{split}.txt", _LAYOUT), 1):
        objects = read_boxes(expect(folder / "Annotations" / f"{name}.xml", _LAYOUT), first_pixel=1)
        unknown = [label for label, _ in objects if label not in index_of]
        if unknown:
            raise DataError(f"{folder}/Annotations/{name}.xml: {unknown[0]!r} is not a class of VOC")
        labels = tuple(sorted({index_of[label] for label, _ in objects}))
        mask = folder / masks / f"{name}.png"
        source = MaskFile(mask, by_class=True) if mask.exists() else None
        picture = folder / "JPEGImages" / f"{name}.jpg"
        records.append(Record(picture, labels, tuple(box for _, box in objects), source))
    return ImageSet(f"voc/{split}", VOC_CLASSES, tuple(records), multilabel=True)
