"""ImageNet: class folders, ILSVRC CLS-LOC with boxes, and ILSVRC DET (multi-label, LID Track 1)."""

from __future__ import annotations

from pathlib import Path

from lidcam_bench.data.readers.xml_boxes import read_boxes, read_lines
from lidcam_bench.data.records import ImageSet, Record, expect
from lidcam_rt.errors import DataError

__all__ = ["cls_loc_classes", "ilsvrc_root", "read_det", "read_imagenet"]

_PICTURES = (".jpg", ".jpeg", ".png")
_CLS_LOC = """
    LOC_synset_mapping.txt                       n01440764 tench, Tinca tinca
    ILSVRC/Data/CLS-LOC/train/n01440764/*.JPEG
    ILSVRC/Data/CLS-LOC/val/*.JPEG
    ILSVRC/Annotations/CLS-LOC/train/n01440764/*.xml   (boxes; may be missing for a part)
    ILSVRC/Annotations/CLS-LOC/val/*.xml               (boxes and labels)
or class folders without boxes: train/CLASS/*.jpg, val/CLASS/*.jpg"""
_DET = """
    ILSVRC/devkit/data/map_det.txt               n02672831 1 accordion
    ILSVRC/ImageSets/DET/train.txt, val.txt      path without extension, number
    ILSVRC/ImageSets/DET/train_K.txt             path without extension, 1 / 0 / -1   (K: 1 to the number of
    classes) ILSVRC/Data/DET/train/..., val/...           *.JPEG
    ILSVRC/Annotations/DET/train/..., val/...    *.xml   (needed for val, or without train_K.txt)"""


def ilsvrc_root(folder: Path) -> Path:
    """The folder that holds Data, Annotations and ImageSets: `folder` or `folder`/ILSVRC."""
    return folder / "ILSVRC" if (folder / "ILSVRC").is_dir() else folder


def cls_loc_classes(folder: Path) -> dict[str, tuple[int, str]]:
    """WordNet id to (index, name) from LOC_synset_mapping.txt, in the order of the file."""
    for place in (folder, folder.parent):
        file = place / "LOC_synset_mapping.txt"
        if file.exists():
            break
    rows = read_lines(expect(file if file.exists() else folder / "LOC_synset_mapping.txt", _CLS_LOC), 2)
    return {wordnet: (index, name) for index, (wordnet, name) in enumerate(rows)}


def _class_folders(folder: Path, split: str) -> ImageSet:
    root = expect(folder / split, _CLS_LOC)
    first = folder / "train" if (folder / "train").is_dir() else root
    names = sorted(p.name for p in first.iterdir() if p.is_dir())
    extra = sorted({p.name for p in root.iterdir() if p.is_dir()} - set(names))
    if extra:
        raise DataError(f"{root}: classes {', '.join(extra[:5])} are not in {first}")
    records = tuple(
        Record(file, (index,))
        for index, name in enumerate(names)
        for file in sorted((root / name).glob("*"))
        if file.suffix.lower() in _PICTURES
    )
    return ImageSet(f"imagenet/{split}", tuple(names), records)


def read_imagenet(folder: Path, split: str) -> ImageSet:
    """Read ILSVRC CLS-LOC (labels and boxes), or class folders (labels).

    Args:
        folder: as unpacked, see the layout in the error message.
        split: train or val.

    Raises:
        DataError: a file is missing; the message gives the layout expected.
    """
    root = ilsvrc_root(folder)
    if not (root / "Data" / "CLS-LOC").is_dir():
        return _class_folders(folder, split)
    classes = cls_loc_classes(folder)
    pictures = expect(root / "Data" / "CLS-LOC" / split, _CLS_LOC)
    notes = root / "Annotations" / "CLS-LOC" / split
    records = []
    if split == "train":
        for wordnet, (index, _) in classes.items():
            for file in sorted(expect(pictures / wordnet, _CLS_LOC).glob("*.JPEG")):
                note = notes / wordnet / f"{file.stem}.xml"
                boxes = read_boxes(note, first_pixel=0) if note.exists() else []
                records.append(Record(file, (index,), tuple(box for _, box in boxes)))
    else:
        for file in sorted(pictures.glob("*.JPEG")):
            found = read_boxes(expect(notes / f"{file.stem}.xml", _CLS_LOC), first_pixel=0)
            if not found or found[0][0] not in classes:
                raise DataError(f"{notes / file.stem}.xml: no object of a class of LOC_synset_mapping.txt")
            label = found[0][0]
            records.append(
                Record(file, (classes[label][0],), tuple(box for name, box in found if name == label))
            )
    return ImageSet(f"imagenet/{split}", tuple(name for _, name in classes.values()), tuple(records))


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
    for name, found in labels.items():
        boxes: tuple[tuple[int, int, int, int], ...] = ()
        if not by_list:
            note = expect(root / "Annotations" / "DET" / split / f"{name}.xml", _DET)
            entries = [(index_of[n], box) for n, box in read_boxes(note, first_pixel=0) if n in index_of]
            found = {index for index, _ in entries}
            boxes = tuple(box for _, box in entries)
        if found or split != "train":
            picture = root / "Data" / "DET" / split / f"{name}.JPEG"
            records.append(Record(picture, tuple(sorted(found)), boxes))
    return ImageSet(f"ilsvrc-det/{split}", tuple(row[2] for row in rows), tuple(records), multilabel=True)
