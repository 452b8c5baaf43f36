import filecmp
import shutil

import made_sources
import numpy as np
import pytest
from lidcam_bench.data import open_data
from lidcam_training.data.clutter import make_clutter_fashion
from lidcam_training.data.composite import paste
from lidcam_training.data.crest import CREST_CLASSES, MARKS, make_crest, mark_shape
from lidcam_training.data.sources import background_photos, fashion_mnist, installed_folder, read_idx
from lidcam_training.data.stamps import make_stamps
from PIL import Image

from lidcam_rt.errors import DataError, OutputError

SMALL = {"train": 6, "val": 3, "test": 3, "size": 32}


def test_the_mask_is_exactly_what_was_pasted():
    rng = np.random.default_rng(0)
    background = np.full((20, 30, 3), 7, np.uint8)
    mask = rng.random((6, 5)) > 0.5
    made = paste(background, np.full((6, 5, 3), 200, np.uint8), mask, 3, rng)
    assert np.array_equal((made.image != background).any(2), made.mask)
    assert made.mask.sum() == mask.sum()


def test_the_same_seed_gives_the_same_files(tmp_path, sources):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        make_clutter_fashion(tmp_path / name, seed=seed, source=sources[0], backgrounds=sources[1], **SMALL)
    files = sorted(str(p.relative_to(tmp_path / "a")) for p in (tmp_path / "a").rglob("*.png"))
    assert len(files) == 24
    assert filecmp.cmpfiles(tmp_path / "a", tmp_path / "b", files, shallow=False)[0] == files
    assert filecmp.cmpfiles(tmp_path / "a", tmp_path / "c", files, shallow=False)[1]


def test_splits_do_not_share_backgrounds(tmp_path, sources):
    """Photos of one colour each: the corner of a picture tells its photo."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for index in range(10):
        Image.fromarray(np.full((64, 64, 3), 10 * index, np.uint8)).save(photos / f"{index}.png")
    make_clutter_fashion(
        tmp_path / "d", train=40, val=20, test=20, size=32, source=sources[0], backgrounds=photos
    )
    used = {}
    for split in ("train", "val", "test"):
        used[split] = set()
        for record in open_data(f"clutter-fashion:{tmp_path / 'd'}", split):
            image, mask = np.asarray(Image.open(record.image)), record.truth().object_mask()
            used[split] |= set(np.unique(image[mask == 0]))
    assert not used["train"] & used["test"]
    assert not used["train"] & used["val"]
    assert not used["val"] & used["test"]


def test_read_back(clutter):
    images = open_data(f"clutter-fashion:{clutter}", "train")
    assert len(images) == 160
    mask = images.records[0].truth().object_mask()
    assert mask.shape == (32, 32)
    assert set(np.unique(mask)) == {0, 1}
    assert len(images.fingerprint()) == 64
    assert images.fingerprint() != open_data(f"clutter-fashion:{clutter}", "val").fingerprint()


def test_stamps_share_no_cut_out(tmp_path, sources):
    """Cut-outs of one colour each: the colour of the object tells its file."""
    source = made_sources.make_stamps(tmp_path / "stamps")
    make_stamps(tmp_path / "d", train=30, val=20, test=20, size=48, source=source, backgrounds=sources[1])
    used = {}
    for split in ("train", "val", "test"):
        used[split] = set()
        for record in open_data(f"stamps:{tmp_path / 'd'}", split):
            image, mask = np.asarray(Image.open(record.image)), record.truth().object_mask()
            assert (image[mask == 1][:, 0] > 200).all()
            used[split].add(int(np.median(image[mask == 1][:, 1])))
    assert not used["train"] & used["test"]
    assert not used["val"] & used["test"]


def test_a_folder_in_use_is_left_alone(tmp_path, sources):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(OutputError, match="not empty"):
        make_clutter_fashion(tmp_path, source=sources[0], backgrounds=sources[1], **SMALL)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_refusals(tmp_path, clutter):
    (tmp_path / "bad").write_bytes(b"\x00\x00\x08\x01\x00\x00\x00\x09abc")
    with pytest.raises(DataError, match="cut short"):
        read_idx(tmp_path / "bad")
    with pytest.raises(DataError, match="idx3"):
        fashion_mnist("train", tmp_path)
    with pytest.raises(DataError, match=r"apt-get install nothing\).*--source DIR/usr/share/nothing"):
        installed_folder("nothing", "/usr/share/nothing", "--source")
    with pytest.raises(DataError, match="at least 4"):
        background_photos(tmp_path)
    with pytest.raises(DataError, match="NAME:DIR"):
        open_data("nonsense", "train")
    with pytest.raises(DataError, match="does not exist"):
        open_data("cub:/nowhere", "train")
    with pytest.raises(DataError, match="lidcam data make"):
        open_data(f"stamps:{tmp_path}", "train")
    with pytest.raises(DataError, match=r"dev\.csv"):
        open_data(f"stamps:{clutter}", "dev")


def test_plain_folders_train_with_splits_labels_and_class_names(tmp_path):
    from lidcam_training.fit import _open
    from lidcam_training.recipe import read_recipe

    def opened():
        return _open(read_recipe("clutter_fashion", [f"data.source={root}"]), tmp_path)

    root = tmp_path / "d"
    (root / "images").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(root / "images" / "a.png")
    with pytest.raises(DataError, match="no class names"):
        opened()
    (root / "classes.txt").write_text("x\ny\n")
    with pytest.raises(DataError, match=r"a\.png has no label"):
        opened()
    (root / "labels.csv").write_text("file,label\na.png,y")
    with pytest.raises(DataError, match="train and val are the same pictures"):
        opened()
    for split in ("train", "val"):
        shutil.copytree(root, tmp_path / "s" / split)
    root = tmp_path / "s"
    assert [images.name for images in opened()] == ["s/train", "s/val"]


def test_a_crest_is_a_garment_with_its_mark_inside(tmp_path, sources):
    made = tmp_path / "crest"
    make_crest(made, train=60, val=4, test=4, size=64, source=sources[0], backgrounds=sources[1])
    seen = set()
    images = open_data(f"crest:{made}", "train")
    assert images.class_names == CREST_CLASSES
    for record in images:
        picture = np.asarray(Image.open(record.image)).astype(int)
        garment = record.truth().object_mask() == 1
        mark = np.asarray(Image.open(made / "train" / "marks" / record.image.name)) == 255
        assert mark.any() and not (mark & ~garment).any()
        colours = np.unique(picture[mark], axis=0)
        assert len(colours) == 1
        assert abs(colours.mean() - picture[garment & ~mark].mean()) > 50  # 70 to the garment under the mark, too
        kind = MARKS[record.labels[0] % len(MARKS)]
        rows, columns = np.nonzero(mark.any(1))[0], np.nonzero(mark.any(0))[0]
        side = columns[-1] - columns[0] + 1
        expected = mark_shape(kind, side)
        part = mark[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert np.array_equal(part, expected[: len(part)]) and not expected[len(part) :].any()
        seen.add(record.labels[0])
    assert len(seen) > 5


def test_crests_are_the_same_for_a_seed_and_share_no_photo(tmp_path, sources):
    photos = tmp_path / "photos"
    photos.mkdir()
    for index in range(10):
        Image.fromarray(np.full((64, 64, 3), 10 * index, np.uint8)).save(photos / f"{index}.png")
    for name in ("a", "b"):
        make_crest(tmp_path / name, train=20, val=10, test=10, size=48, source=sources[0], backgrounds=photos)
    files = sorted(str(p.relative_to(tmp_path / "a")) for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert len(files) == 3 * 40 + 4
    assert filecmp.cmpfiles(tmp_path / "a", tmp_path / "b", files, shallow=False)[0] == files
    used = {}
    for split in ("train", "val", "test"):
        used[split] = set()
        for record in open_data(f"crest:{tmp_path / 'a'}", split):
            used[split] |= set(np.unique(np.asarray(Image.open(record.image))[record.truth().object_mask() == 0]))
    assert not used["train"] & used["test"] and not used["train"] & used["val"] and not used["val"] & used["test"]


def test_more_crests_than_garments(tmp_path, sources):
    with pytest.raises(DataError, match="100000 pictures were requested, but the garments are enough for"):
        make_crest(tmp_path / "d", train=100_000, source=sources[0], backgrounds=sources[1], size=32)
    assert not (tmp_path / "d").exists()
