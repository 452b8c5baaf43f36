import shutil

import numpy as np
import pytest
from lidcam_bench.data import ImageSet, Record, open_data
from PIL import Image

from lidcam_rt.errors import DataError, MissingExtraError


def picture(file, size=(40, 30)):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((size[1], size[0], 3), np.uint8)).save(file)


def mask(file, array):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array, np.uint8)).save(file)


def note(file, *objects):
    file.parent.mkdir(parents=True, exist_ok=True)
    body = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{b[0]}</xmin><ymin>{b[1]}</ymin><xmax>{b[2]}</xmax>"
        f"<ymax>{b[3]}</ymax></bndbox></object>"
        for name, b in objects
    )
    file.write_text(f"<annotation>{body}</annotation>")


def text(file, content):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)


@pytest.fixture
def cls_loc(tmp_path):
    root = tmp_path / "ILSVRC"
    text(tmp_path / "LOC_synset_mapping.txt", "n01 tench, Tinca tinca\nn02 goldfish\n")
    picture(root / "Data/CLS-LOC/train/n01/n01_1.JPEG")
    picture(root / "Data/CLS-LOC/train/n02/n02_7.JPEG")
    note(root / "Annotations/CLS-LOC/train/n02/n02_7.xml", ("n02", (3, 4, 10, 20)))
    for number in (1, 17615):
        name = f"ILSVRC2012_val_{number:08d}"
        picture(root / f"Data/CLS-LOC/val/{name}.JPEG")
        note(root / f"Annotations/CLS-LOC/val/{name}.xml", ("n02", (0, 0, 39, 29)), ("n02", (1, 1, 2, 2)))
    return tmp_path


def test_imagenet(cls_loc):
    train = open_data(f"imagenet:{cls_loc}", "train")
    assert train.class_names == ("tench, Tinca tinca", "goldfish")
    assert [(r.image.name, r.labels, r.boxes) for r in train] == [
        ("n01_1.JPEG", (0,), ()),
        ("n02_7.JPEG", (1,), ((3, 4, 11, 21),)),
    ]
    val = open_data(f"imagenet:{cls_loc}", "val")
    assert val.records[0].labels == (1,)
    assert val.records[0].boxes == ((0, 0, 40, 30), (1, 1, 3, 3))


def test_imagenet_as_class_folders(tmp_path):
    picture(tmp_path / "train/cat/1.png")
    picture(tmp_path / "train/dog/1.png")
    picture(tmp_path / "val/dog/2.png")
    assert [r.labels for r in open_data(f"imagenet:{tmp_path}", "val")] == [(1,)]
    picture(tmp_path / "val/emu/2.png")
    with pytest.raises(DataError, match="emu"):
        open_data(f"imagenet:{tmp_path}", "val")


def test_track3_masks_stored_with_width_and_height_swapped(cls_loc):
    plain, swapped = np.zeros((30, 40)), np.zeros((40, 30))
    plain[2, 30] = 255
    swapped[30, 2] = 255
    mask(cls_loc / "LID_track3_masks/val/ILSVRC2012_val_00000001.png", plain)
    mask(cls_loc / "LID_track3_masks/val/ILSVRC2012_val_00017615.png", swapped)
    read = open_data(f"lid-track3:{cls_loc}", "val")
    for record in read:
        values = record.truth().object_mask()
        assert values.shape == (30, 40)
        assert np.argwhere(values == 1).tolist() == [[2, 30]]
    assert read.records[1].mask.transposed
    mask(cls_loc / "LID_track3_masks/val/ILSVRC2012_val_00000001.png", swapped)
    with pytest.raises(DataError, match="must be equal"):
        read.records[0].truth()


def test_det(tmp_path):
    root = tmp_path / "ILSVRC"
    text(root / "devkit/data/map_det.txt", "n9 2 airplane\nn8 1 accordion\n")
    text(root / "ImageSets/DET/train.txt", "a/x 1\na/y 2\na/z 3\n")
    text(root / "ImageSets/DET/train_1.txt", "a/x 1\na/y -1\na/z 0\n")
    text(root / "ImageSets/DET/train_2.txt", "a/x 1\na/y 1\na/z -1\n")
    text(root / "ImageSets/DET/val.txt", "v 1\n")
    note(root / "Annotations/DET/val/v.xml", ("n9", (1, 2, 3, 4)), ("n9", (5, 6, 7, 8)))
    train = open_data(f"ilsvrc-det:{tmp_path}", "train")
    assert train.multilabel
    assert train.class_names == ("accordion", "airplane")
    assert [(r.image.stem, r.labels) for r in train] == [("x", (0, 1)), ("y", (1,))]
    val = open_data(f"ilsvrc-det:{tmp_path}", "val")
    assert val.records[0].labels == (1,)
    assert val.records[0].boxes == ((1, 2, 4, 5), (5, 6, 8, 9))


def test_track1(tmp_path):
    text(tmp_path / "map_det.txt", "n8 1 accordion\nn9 2 airplane\n")
    values = np.zeros((30, 40))
    values[0, :3] = (2, 255, 1)
    picture(tmp_path / "LID_track1/val/p.JPEG")
    mask(tmp_path / "LID_track1_annotations/track1_val_annotations_raw/p.png", values)
    record = open_data(f"lid-track1:{tmp_path}", "val").records[0]
    assert record.labels == (0, 1)
    assert record.truth().label_map()[0, :4].tolist() == [2, 255, 1, 0]


def test_cub(tmp_path):
    root = tmp_path / "CUB_200_2011"
    text(root / "images.txt", "1 001.A/a.jpg\n2 002.B/b.jpg\n")
    text(root / "image_class_labels.txt", "1 1\n2 2\n")
    text(root / "classes.txt", "1 001.A\n2 002.B\n")
    text(root / "train_test_split.txt", "1 1\n2 0\n")
    text(root / "bounding_boxes.txt", "1 1.0 2.0 3.0 4.0\n2 10.0 20.0 5.0 6.0\n")
    picture(root / "images/002.B/b.jpg")
    mask(root / "segmentations/002.B/b.png", np.full((30, 40), 255))
    test = open_data(f"cub:{tmp_path}", "test")
    assert test.class_names == ("A", "B")
    assert [(r.labels, r.boxes) for r in test] == [((1,), ((10, 20, 15, 26),))]
    assert (test.records[0].truth().object_mask() == 1).all()
    assert [r.labels for r in open_data(f"cub:{tmp_path}", "train")] == [(0,)]


def test_voc(tmp_path):
    root = tmp_path / "VOCdevkit/VOC2012"
    text(root / "ImageSets/Segmentation/val.txt", "2007_1\n")
    picture(root / "JPEGImages/2007_1.jpg")
    note(root / "Annotations/2007_1.xml", ("dog", (1, 1, 40, 30)), ("person", (2, 3, 4, 5)))
    values = np.zeros((30, 40))
    values[0, :2] = (12, 255)
    indexed = Image.fromarray(values.astype(np.uint8), "P")
    indexed.putpalette([0] * 768)
    (root / "SegmentationClass").mkdir()
    indexed.save(root / "SegmentationClass/2007_1.png")
    record = open_data(f"voc:{tmp_path}", "val").records[0]
    assert record.labels == (11, 14)
    assert record.boxes == ((0, 0, 40, 30), (1, 2, 4, 5))
    assert record.truth().label_map()[0, :3].tolist() == [12, 255, 0]


@pytest.mark.parametrize(
    ("name", "split", "first"),
    [
        ("imagenet", "val", "val is missing"),
        ("ilsvrc-det", "train", "map_det"),
        ("lid-track3", "val", "LID_track3_masks"),
        ("lid-track1", "val", "map_det"),
        ("cub", "train", r"images\.txt"),
        ("voc", "train", r"Segmentation/train\.txt"),
    ],
)
def test_an_empty_folder_names_the_file_and_the_layout(tmp_path, name, split, first):
    with pytest.raises(DataError, match=rf"(?s){first}.*Expected layout"):
        open_data(f"{name}:{tmp_path}", split)


def test_a_damaged_annotation_is_named(cls_loc):
    file = next((cls_loc / "ILSVRC/Annotations/CLS-LOC/val").glob("*.xml"))
    file.write_text("<annotation><object>")
    with pytest.raises(DataError, match=file.name):
        open_data(f"imagenet:{cls_loc}", "val")
    shutil.rmtree(cls_loc / "ILSVRC/Data/CLS-LOC/train/n02")
    with pytest.raises(DataError, match="n02 is missing"):
        open_data(f"imagenet:{cls_loc}", "train")


@pytest.mark.slow
def test_annotations_that_attack_the_parser_are_messages(cls_loc):
    file = next((cls_loc / "ILSVRC/Annotations/CLS-LOC/val").glob("*.xml"))
    entities = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 12))
    for content in (
        f'<!DOCTYPE x [<!ENTITY a0 "lol">{entities}]><annotation><object><name>&a11;</name></object></annotation>',
        '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><annotation><object><name>&a;</name></object></annotation>',
        "<annotation>" + "<object>" * 100_000,
        "<annotation><object><bndbox><xmin>1e999</xmin></bndbox></object></annotation>",
        "<!DOCTYPE a [<!ENTITY x 'y'>]><annotation><object><name>&x;</name></object></annotation>",
        '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation>&x;</annotation>',
        "\x00",
    ):
        file.write_text(content)
        with pytest.raises(DataError, match=file.name):
            open_data(f"imagenet:{cls_loc}", "val")


def test_a_table_of_classes_that_is_none(tmp_path):
    text(tmp_path / "ILSVRC/devkit/data/map_det.txt", "n9 x airplane\n")
    with pytest.raises(DataError, match="number of the class"):
        open_data(f"ilsvrc-det:{tmp_path}", "train")
    (tmp_path / "ILSVRC/devkit/data/map_det.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="UTF-8"):
        open_data(f"ilsvrc-det:{tmp_path}", "train")


def test_boxes_of_xml_that_are_shares_or_end_at_the_side(cls_loc):
    file = next((cls_loc / "ILSVRC/Annotations/CLS-LOC/val").glob("*.xml"))
    size = "<size><width>40</width><height>30</height></size>"
    note(file, ("n02", (1, 2, 40, 29)))  # xmax counted from 1, as some annotations of ILSVRC are
    file.write_text(file.read_text().replace("<annotation>", f"<annotation>{size}"))
    assert open_data(f"imagenet:{cls_loc}", "val").records[0].truth().object_boxes() == [(1, 2, 40, 30)]
    note(file, ("n02", (9, 9, 3, 20)))
    record = open_data(f"imagenet:{cls_loc}", "val").records[0]
    with pytest.raises(DataError, match=r"val_00000001\.JPEG: box \(9, 9, 4, 21\) is not 0 <= x0"):
        record.truth().object_boxes()
    note(file, ("n02", (0.1, 0.2, 0.9, 0.8)))
    with pytest.raises(DataError, match="shares of the sides"):
        open_data(f"imagenet:{cls_loc}", "val")


def test_a_new_data_set_is_one_function_and_one_entry_point(tmp_path, monkeypatch):
    """What the text of lidcam_bench.data.readers says."""

    def read_birds(folder, split):
        records = [Record(path, labels=(0,), boxes=((0, 0, 9, 9),)) for path in sorted((folder / split).glob("*.png"))]
        return ImageSet(f"birds/{split}", ("bird",), tuple(records))

    class Entry:
        name = "birds"

        def load(self):
            return read_birds

    monkeypatch.setattr("lidcam_bench.data.opener.entry_points", lambda group: [Entry()])
    picture(tmp_path / "val" / "a.png")
    images = open_data(f"birds:{tmp_path}", "val")
    assert images.name == "birds/val" and images.records[0].truth().object_boxes() == [(0, 0, 9, 9)]
    with pytest.raises(DataError, match=r"no picture in it \(split 'train'\)"):
        open_data(f"birds:{tmp_path}", "train")
    with pytest.raises(DataError, match="with NAME one of coco, birds"):
        open_data(f"bees:{tmp_path}", "val")
    Entry.load = lambda self: (_ for _ in ()).throw(ImportError("x", name="torch"))
    with pytest.raises(MissingExtraError, match="torch not found"):
        open_data(f"birds:{tmp_path}", "val")
