"""Pascal VOC 2012: multi-label pictures with class masks."""

from __future__ import annotations

from pathlib import Path

from lidcam_bench.data.layout import expect
from lidcam_bench.data.masks import MaskFile, MaskForm
from lidcam_bench.data.records import ImageSet, Record
from lidcam_bench.data.text import inside, read_lines
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
    for part in ("VOCdevkit/VOC2012", "VOC2012"):
        if (folder / part).is_dir():
            folder = folder / part
            break
    index_of = {name: index for index, name in enumerate(VOC_CLASSES)}
    masks = "SegmentationClassAug" if split.endswith("aug") else "SegmentationClass"
    records = []
    sets = folder / "ImageSets" / "Segmentation"
    names = expect(inside(sets, f"{split}.txt", f"split {split!r}"), _LAYOUT)
    for name, *_ in read_lines(names, 1):
        annotation = expect(inside(folder / "Annotations", f"{name}.xml", str(names)), _LAYOUT)
        objects = read_boxes(annotation, first_pixel=1)
        unknown = [label for label, _ in objects if label not in index_of]
        if unknown:
            raise DataError(f"{annotation}: {unknown[0]!r} is not a class of VOC")
        labels = tuple(sorted({index_of[label] for label, _ in objects}))
        mask = folder / masks / f"{name}.png"
        source = MaskFile(mask, MaskForm.LABELS, classes=len(VOC_CLASSES)) if mask.exists() else None
        picture = folder / "JPEGImages" / f"{name}.jpg"
        records.append(Record(picture, labels, tuple(box for _, box in objects), source))
    return ImageSet(f"voc/{split}", VOC_CLASSES, tuple(records), multilabel=True)
