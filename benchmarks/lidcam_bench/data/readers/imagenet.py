"""ImageNet: ILSVRC CLS-LOC with boxes, or class folders."""

from __future__ import annotations

from pathlib import Path

from lidcam_bench.data.layout import expect
from lidcam_bench.data.records import ImageSet, Record
from lidcam_bench.data.text import inside, read_lines
from lidcam_bench.data.xml_boxes import read_boxes
from lidcam_rt.errors import DataError

__all__ = ["cls_loc_classes", "ilsvrc_root", "read_imagenet"]

_PICTURES = (".jpg", ".jpeg", ".png")
_CLS_LOC = """
    LOC_synset_mapping.txt                       n01440764 tench, Tinca tinca
    ILSVRC/Data/CLS-LOC/train/n01440764/*.JPEG
    ILSVRC/Data/CLS-LOC/val/*.JPEG
    ILSVRC/Annotations/CLS-LOC/train/n01440764/*.xml   (boxes; may be missing for a part)
    ILSVRC/Annotations/CLS-LOC/val/*.xml               (boxes and labels)
or class folders without boxes: train/CLASS/*.jpg, val/CLASS/*.jpg"""


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
    root = expect(inside(folder, split, f"split {split!r}"), _CLS_LOC)
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
    pictures = expect(inside(root / "Data" / "CLS-LOC", split, f"split {split!r}"), _CLS_LOC)
    annotations = root / "Annotations" / "CLS-LOC" / split
    records = []
    if split == "train":
        for wordnet, (index, _) in classes.items():
            inside_class = inside(pictures, wordnet, f"{folder}/LOC_synset_mapping.txt")
            for file in sorted(expect(inside_class, _CLS_LOC).glob("*.JPEG")):
                annotation = annotations / wordnet / f"{file.stem}.xml"
                boxes = read_boxes(annotation, first_pixel=0) if annotation.exists() else []
                records.append(Record(file, (index,), tuple(box for _, box in boxes)))
    else:
        for file in sorted(pictures.glob("*.JPEG")):
            objects = read_boxes(expect(annotations / f"{file.stem}.xml", _CLS_LOC), first_pixel=0)
            if not objects or objects[0][0] not in classes:
                raise DataError(f"{annotations / file.stem}.xml: no object of a class of LOC_synset_mapping.txt")
            label = objects[0][0]
            records.append(Record(file, (classes[label][0],), tuple(box for name, box in objects if name == label)))
    return ImageSet(f"imagenet/{split}", tuple(name for _, name in classes.values()), tuple(records))
