"""The plain folder form: the truth that people bring is understood, or refused by name; never scored as nothing."""

import json
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lidcam_bench.data import open_data
from lidcam_bench.data.text import inside, read_class_names, read_json
from PIL import Image

from lidcam_rt.errors import DataError

SIZE = (40, 30)
OBJECT = np.zeros(SIZE[::-1], bool)
OBJECT[5:20, 10:30] = True


def save(path, pixels, mode=None, palette=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(np.asarray(pixels), mode)
    if palette is not None:
        picture.putpalette(palette)
    picture.save(path, **options)


@pytest.fixture
def folder(tmp_path):
    """Three pictures, a, b and sub/c."""
    for name in ("a.jpg", "b.png", "sub/c.jpg"):
        save(tmp_path / "d" / "images" / name, np.full((*SIZE[::-1], 3), 99, np.uint8))
    return tmp_path / "d"


def masks(folder, pixels, suffix=".png", part="masks", **options):
    for name in ("a", "b", "sub/c"):
        save(folder / part / f"{name}{suffix}", pixels, **options)


def object_masks(folder):
    return [record.truth().object_mask() for record in open_data(str(folder))]


def grey(*levels):
    """Background and object of two levels, and a third on the object's upper row."""
    pixels = np.where(OBJECT, levels[1], levels[0]).astype(np.uint8)
    if len(levels) > 2:
        pixels[5, 10:30] = levels[2]
    return pixels


VOC = [v for i in range(256) for v in (64 * (i % 4), 128 * (i // 4 % 2), 64 * (i // 8 % 4))]
GREYS = [v for i in range(256) for v in (255 * (i % 2),) * 3]
CUT_OUT = np.dstack([np.random.default_rng(0).integers(0, 256, (*OBJECT.shape, 3)), 255 * OBJECT]).astype(np.uint8)
WHITE = np.dstack([np.full((*OBJECT.shape, 3), 255), 255 * OBJECT]).astype(np.uint8)


@pytest.mark.parametrize(
    ("pixels", "options"),
    [
        (grey(0, 255), {}),
        (grey(0, 200), {}),
        (grey(3, 250, 180), {}),
        (grey(0, 1), {}),
        (OBJECT, {}),
        (np.repeat(grey(0, 255)[..., None], 3, 2), {}),
        (np.dstack([grey(0, 255), np.full(OBJECT.shape, 255, np.uint8)]), {"mode": "LA"}),
        (np.repeat(grey(0, 1)[..., None], 3, 2), {}),
        (grey(0, 1), {"mode": "P", "palette": GREYS}),
        (CUT_OUT, {}),
        (WHITE, {}),
    ],
    ids=["0/255", "0/200", "smoothed", "0/1", "1 bit", "grey RGB", "opaque", "RGB of 0/1", "grey palette", "cut out",
         "white in alpha"],
)  # fmt: skip
def test_masks_of_every_unambiguous_form(folder, pixels, options):
    masks(folder, pixels, **options)
    for mask in object_masks(folder):
        np.testing.assert_array_equal(mask, OBJECT)


@pytest.mark.parametrize("suffix", [".PNG", ".bmp", ".tif", ".gif", "_mask.png", "_mask.PNG"])
def test_masks_of_any_suffix(folder, suffix):
    masks(folder, grey(0, 255), suffix)
    for mask in object_masks(folder):
        np.testing.assert_array_equal(mask, OBJECT)


def test_jpeg_masks_keep_their_object_but_label_maps_and_ones_do_not(folder):
    masks(folder, grey(0, 255), ".jpg", quality=70)
    assert all((mask != OBJECT).sum() < 30 for mask in object_masks(folder))
    for path in (folder / "masks").rglob("*.jpg"):
        path.unlink()
    masks(folder, grey(0, 40), ".jpg", part="masks", quality=30)
    with pytest.raises(DataError, match=r"a\.jpg holds the values .*unclear"):
        open_data(str(folder))
    (folder / "masks").rename(folder / "labelmaps")
    with pytest.raises(DataError, match="JPEG changes the class indices"):
        open_data(str(folder))


def test_a_palette_is_a_label_map(folder):
    labels = grey(0, 3)
    labels[:2] = 255
    masks(folder, labels, mode="P", palette=VOC)
    (folder / "classes.txt").write_text("x\ny\nz\n")
    for record in open_data(str(folder)):
        truth = record.truth()
        np.testing.assert_array_equal(truth.label_map(), labels)
        np.testing.assert_array_equal(truth.object_mask(2) == 1, OBJECT)
        assert truth.object_mask(0) is None and (truth.object_mask() == 255).sum() == 80
    (folder / "classes.txt").write_text("x\ny\n")
    with pytest.raises(DataError, match=r"holds 3, there are 2 classes: a label map has class index \+ 1"):
        object_masks(folder)


@pytest.mark.parametrize(
    ("pixels", "options", "says"),
    [
        (grey(0, 0), {}, "none of the 3 masks has an object: .*a.png holds the values 0"),
        (grey(0, 100), {}, "a.png holds the values 0, 100: it is unclear"),
        (grey(0, 1, 255), {}, "the values 0, 1, 255: it is unclear"),
        (grey(1, 2, 3), {}, "the values 1, 2, 3: it is unclear"),
        (grey(0, 150, 20), {}, "the values 0, 20, 150: it is unclear"),
        (np.dstack([grey(0, 128), grey(0, 0), grey(0, 0)]), {}, r"the colours \(0, 0, 0\), \(128, 0, 0\): it is a col"),
        (np.dstack([grey(0, 255), grey(255, 0)]), {"mode": "LA"}, "its colours and its alpha channel differ"),
        (np.dstack([CUT_OUT[..., :3], grey(0, 90)]), {}, "none of the 3 masks has an object.*alpha 0, 90"),
        (grey(0, 255).astype(np.uint16) * 257, {}, "I;16 pixels with the values 0, 65535"),
    ],
    ids=["empty", "100", "trimap", "pets", "classes", "colours", "contradiction", "transparent", "16 bits"],
)
def test_masks_that_leave_a_doubt_name_the_file_the_values_and_the_form(folder, pixels, options, says):
    masks(folder, pixels, **options)
    with pytest.raises(DataError, match=says) as caught:
        open_data(str(folder))
    assert "8 bits" in str(caught.value) or "A mask is an 8-bit picture with 0" in str(caught.value)


def test_masks_of_two_forms_are_refused_also_where_the_sample_does_not_see_it(folder):
    masks(folder, grey(0, 255))
    save(folder / "masks" / "b.png", grey(0, 1))
    with pytest.raises(DataError, match=r"two forms: .*a\.png is 0 and 255, .*b\.png is 0 and 1"):
        open_data(str(folder))
    for i in range(40):
        save(folder / "images" / f"n{i:02}.png", np.zeros((*SIZE[::-1], 3), np.uint8))
        save(folder / "masks" / f"n{i:02}.png", grey(0, 255))
    save(folder / "masks" / "b.png", grey(0, 255))
    save(folder / "masks" / "n02.png", grey(0, 1))
    with pytest.raises(DataError, match=r"n02\.png is 0 and 1 .*but the masks of this data set are 0 and 255"):
        object_masks(folder)


def test_some_masks_may_be_empty(folder):
    masks(folder, grey(0, 1))
    save(folder / "masks" / "a.png", grey(0, 0))
    assert [mask.sum() for mask in object_masks(folder)] == [0, OBJECT.sum(), OBJECT.sum()]


def test_a_mask_folder_that_matches_nothing_or_twice(folder):
    (folder / "masks").mkdir()
    (folder / "masks" / "a.npy").write_bytes(b"x")
    with pytest.raises(DataError, match=r"masks: no pictures in it .*a mask is a picture file"):
        open_data(str(folder))
    save(folder / "masks" / "other.png", grey(0, 255))
    with pytest.raises(DataError, match=r"other\.png: no picture of that name in images/, which has 'a\.jpg'"):
        open_data(str(folder))
    (folder / "masks" / "other.png").unlink()
    save(folder / "masks" / "a.png", grey(0, 255))
    save(folder / "masks" / "a_mask.png", grey(0, 255))
    with pytest.raises(DataError, match="both masks of"):
        open_data(str(folder))


def test_label_maps(folder):
    masks(folder, grey(0, 2), part="labelmaps")
    (folder / "classes.txt").write_text("x\ny\n")
    (folder / "labels.csv").write_text("file,label\na.jpg,y\nb.png,x")
    records = open_data(str(folder)).records
    assert records[0].truth().label_map().max() == 2
    with pytest.raises(DataError, match=r"b\.png holds 2, but its picture is labelled 0"):
        records[1].truth()
    (folder / "labels.csv").unlink()
    for values in (grey(0, 0), grey(0, 255)):
        masks(folder, values, part="labelmaps")
        with pytest.raises(DataError, match=r"none of the 3 label maps has an object: .*a\.png holds the values 0"):
            open_data(str(folder))
    masks(folder, np.repeat(grey(0, 2)[..., None], 3, 2) * np.uint8([1, 0, 5]), part="labelmaps")
    with pytest.raises(DataError, match=r"a\.png holds the colours"):
        open_data(str(folder))
    masks(folder, grey(0, 1), part="labelmaps")
    masks(folder, grey(0, 1), part="ignore")
    with pytest.raises(DataError, match="ignore/ goes with masks"):
        open_data(str(folder))


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        ("labels.csv", "file,label,split\na.jpg,x,test", "column 'split' is unknown"),
        ("labels.csv", "file,label\na.jpg,x,y", "line 2: more fields than the 2 columns"),
        ("labels.csv", "file,label,x0,y0,x1,y1\na.jpg,x,0.1,0.2,0.5,0.9", "shares of width and height"),
        ("labels.csv", "file,label,x0,y0,x1,y1\na.jpg,x,0,0,1,1", "shares of width and height"),
        ("labels.csv", "file,label\na.jpg,1.5", "neither a whole number nor"),
        ("labels.json", '[{"file": "a.jpg", "label": ["x"]}]', "'label' is unknown"),
        ("labels.json", '[{"file": "a.jpg", "labels": [1.5]}]', "neither a whole number nor"),
        ("labels.json", '[{"file": "a.jpg", "labels": [true]}]', "neither a whole number nor"),
        ("labels.json", '[{"file": "a.jpg", "boxes": [[0.5, 0.5, 0.2, 0.2]]}]', "shares of width and height"),
        ("labels.json", '[{"file": "a.jpg", "boxes": [[1, 2, 3, Infinity]]}]', "not a JSON number"),
        ("labels.json", '[{"file": "a.jpg", "boxes": [[1, 2, 3, 1e999]]}]', "a box is"),
        ("labels.json", "[" * 100_000, "nested too deeply"),
        ("labels.json", '[{"file": "../images/a.jpg", "labels": [0]}]', "not in images"),
    ],
)
def test_tables_are_read_whole_or_refused(folder, file, text, says):
    (folder / file).write_text(text)
    with pytest.raises(DataError, match=says):
        open_data(str(folder))


def test_two_tables_are_refused_and_whole_numbers_are_class_ids(folder):
    (folder / "labels.json").write_text('[{"file": "a.jpg", "labels": [1, 2.0, "3"]}]')
    assert open_data(str(folder)).records[0].labels == (1, 2, 3)
    (folder / "labels.csv").write_text("file,label\r\nb.png, 4.0\r\n")
    with pytest.raises(DataError, match=r"both labels\.csv and labels\.json"):
        open_data(str(folder))
    (folder / "labels.json").unlink()
    assert open_data(str(folder)).records[1].labels == (4,)


def test_names_match_whatever_the_encoding_of_their_accents(folder):
    save(folder / "images" / "cafe\u0301.png", np.zeros((*SIZE[::-1], 3), np.uint8))  # as macOS writes it
    save(folder / "masks" / "caf\u00e9.png", grey(0, 255))
    (folder / "labels.csv").write_text("file,label\ncaf\u00e9.png,caf\u00e9")
    (folder / "classes.txt").write_text("cafe\u0301\n")
    record = next(r for r in open_data(str(folder)) if r.image.name.startswith("caf"))
    assert record.labels == (0,) and record.mask is not None


def test_hidden_files_are_no_pictures(folder):
    save(folder / "images" / ".ipynb_checkpoints" / "a.jpg", np.zeros((*SIZE[::-1], 3), np.uint8))
    assert len(open_data(str(folder))) == 3


def test_a_split_is_a_sub_folder(folder):
    for split in ("train", "val"):
        save(folder.parent / "s" / split / "images" / f"{split}.png", np.zeros((4, 4, 3), np.uint8))
        (folder.parent / "s" / split / "labels.csv").write_text(f"file,label\n{split}.png,0")
    assert [r.image.name for r in open_data(str(folder.parent / "s"), "val")] == ["val.png"]
    assert open_data(str(folder.parent / "s"), "val").name == "s/val"


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_class_names_are_read_in_one_way(tmp_path, end):
    path = tmp_path / "classes.txt"
    text = end.join(["\ufefftench, Tinca tinca  ", "\tgoldfish\t", "", "crane", "crane", "  \u00e9mu "])
    path.write_bytes(text.encode())
    assert read_class_names(path) == ("tench, Tinca tinca", "goldfish", "crane", "crane", "\u00e9mu")
    for content, says in (
        (b"a\tb", "line 1: .*control character.*one name per line"),
        (b"a\nb\x1b[2J", "line 2"),
        (b"\xff\xfea\x00", "UTF-8"),
        (b" \n\n", "holds no class name"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=says):
            read_class_names(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_class_names(tmp_path / "none.txt")


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="./\\:ab\0 ", max_size=12))
def test_names_stay_in_their_folder(tmp_path_factory, name):
    root = tmp_path_factory.getbasetemp().resolve()
    try:
        path = inside(root, name, "line 1")
    except DataError:
        return
    assert path.resolve() == root or root in path.resolve().parents


def test_json_of_any_kind_is_data_or_a_message(tmp_path):
    path = tmp_path / "x.json"
    for content in ("{", '{"a": NaN}', '{"a":' * 50_000, "\x00", "1" * 5000):
        path.write_text(content)
        with pytest.raises(DataError, match=r"x\.json"):
            read_json(path)
    path.write_text(json.dumps({"a": [1, 2.5, None]}))
    assert read_json(path) == {"a": [1, 2.5, None]}


def claims(path, width, height):
    """A PNG whose header claims a size; nothing of it can be decoded."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    path.parent.mkdir(exist_ok=True)
    parts = [struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d)) for kind, d in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_masks_of_any_claimed_size_are_refused_before_they_are_decoded(folder):
    for size, says in (((12_000, 9_000), "over the limit of 89,478,485 pixels"), ((60_000, 60_000), "cannot be read")):
        claims(folder / "masks" / "a.png", *size)
        with pytest.raises(DataError, match=rf"a\.png.*{says}"):
            open_data(str(folder))
    masks(folder, grey(0, 255))
    records = open_data(str(folder)).records
    claims(folder / "masks" / "a.png", 5_000, 5_000)
    with pytest.raises(DataError, match=r"a\.jpg: picture has \(height, width\) \(30, 40\), its mask .*must be equal"):
        records[0].truth()


def test_names_in_made_data_sets_and_lists_stay_in_their_folder(tmp_path):
    for split in ("train", "../train"):
        place = tmp_path / "made" / split
        (place / "masks").mkdir(parents=True, exist_ok=True)
    (tmp_path / "made" / "dataset.json").write_text('{"class_names": ["a"]}')
    (tmp_path / "made" / "train.csv").write_text("file,label\n../../etc/passwd,0")
    (tmp_path / "train.csv").write_text("file,label\na.png,0")
    for split in ("train", "../train"):
        with pytest.raises(DataError, match="leads out of"):
            open_data(f"stamps:{tmp_path / 'made'}", split)
    for text in ("5", '{"class_names": 5}', '{"class_names": [5]}', "[" * 100_000):
        (tmp_path / "made" / "dataset.json").write_text(text)
        with pytest.raises(DataError, match=r"dataset\.json"):
            open_data(f"stamps:{tmp_path / 'made'}", "train")
