"""Submission files and their validator; two ways to run a model."""

import io
import os
import subprocess
import sys
import zipfile

import artifacts
import numpy as np
import pytest
from lidcam_bench.evaluation import open_data
from lidcam_bench.evaluation.compare import Tolerance, _LocalizerRunner, compare, open_runner
from lidcam_bench.evaluation.submission import check_submission, write_submission
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

import lidcam_rt
from lidcam_rt.errors import DataError, InputError, MissingExtraError, OutputError
from lidcam_rt.files import replacing
from lidcam_rt.segmenter import SegmentOptions

GOOD = np.arange(96 * 160).reshape(96, 160).astype(np.uint8)


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path):
    images = tmp_path / "set" / "images"
    images.mkdir(parents=True)
    (tmp_path / "set" / "masks").mkdir()
    for i, colour in enumerate(artifacts.CLASSES):
        Image.fromarray(artifacts.picture(colour)).save(images / f"p{i}.png")
        mask = np.zeros((96, 160), np.uint8)
        mask[24:72, 40:104] = 255
        Image.fromarray(mask).save(tmp_path / "set" / "masks" / f"p{i}.png")
    return tmp_path / "set"


def files(folder):
    return sorted((folder / "images").iterdir())


@pytest.mark.parametrize("track", [1, 3])
def test_what_is_written_is_valid_and_says_what_the_model_says(localizer, folder, tmp_path, track):
    first = write_submission(localizer, files(folder), tmp_path / "a.zip", track=track)
    second = write_submission(localizer, files(folder), tmp_path / "b.zip", track=track)
    assert first.read_bytes() == second.read_bytes()
    assert check_submission(first, files(folder), track=track, classes=5) == []
    with zipfile.ZipFile(first) as archive:
        pixels = np.asarray(Image.open(io.BytesIO(archive.read("p2.png"))))
    result = localizer(files(folder)[2])
    assert pixels.shape == (96, 160)
    if track == 3:
        np.testing.assert_array_equal(pixels, result.map)
    else:
        assert pixels[48, 72] == artifacts.CLASSES.index("blue") + 1 and pixels[2, 2] == 0


def test_a_track_1_picture_with_two_classes_has_both(folder, tmp_path):
    picture = np.full((90, 120, 3), 128, np.uint8)
    picture[5:60, 5:50], picture[30:85, 70:115] = (255, 0, 0), (0, 0, 255)
    (tmp_path / "two").mkdir()
    Image.fromarray(picture).save(tmp_path / "two" / "a.png")
    for top_k in (1, 2):
        path = artifacts.build(tmp_path / f"{top_k}.onnx", top_k=top_k, task="multilabel")
        with lidcam_rt.load(path) as localizer:
            out = write_submission(
                localizer, [tmp_path / "two" / "a.png"], tmp_path / "t.zip", track=1, segment=SegmentOptions(score=0.3)
            )
        with zipfile.ZipFile(out) as archive:
            pixels = np.asarray(Image.open(io.BytesIO(archive.read("a.png"))))
        assert pixels[30, 25] == 1 and pixels[60, 95] == 3 and pixels[2, 118] == 0


def test_a_turned_photo_is_checked_at_its_upright_size(localizer, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "turned").mkdir()
    path = tmp_path / "turned" / "a.jpg"
    Image.fromarray(artifacts.picture("red")).save(path, exif=exif)
    write_submission(localizer, [path], tmp_path / "t.zip", track=3)
    assert check_submission(tmp_path / "t.zip", [path], track=3) == []
    with zipfile.ZipFile(tmp_path / "t.zip") as archive:
        assert Image.open(io.BytesIO(archive.read("a.png"))).size == (96, 160)
    with zipfile.ZipFile(tmp_path / "lying.zip", "w") as archive:
        archive.writestr("a.png", png(GOOD))
    assert "160x96 pixels, its picture has 96x160" in check_submission(tmp_path / "lying.zip", [path], track=3)[0]


def test_two_processes_do_not_write_one_zip(localizer, folder, tmp_path):
    with replacing(tmp_path / "a.zip") as temporary:
        temporary.touch()
        with pytest.raises(OutputError, match="another process"):
            write_submission(localizer, files(folder), tmp_path / "a.zip", track=3)
    write_submission(localizer, files(folder), tmp_path / "a.zip", track=3)
    write_submission(localizer, files(folder), tmp_path / "new folder" / "a.zip", track=3)
    assert (tmp_path / "new folder" / "a.zip").read_bytes() == (tmp_path / "a.zip").read_bytes()
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="is a file"):
        write_submission(localizer, files(folder), tmp_path / "file" / "a.zip", track=3)


def test_files_in_a_folder_of_the_zip_are_named_once(folder, tmp_path):
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
        for i in range(4):
            archive.writestr(f"maps/p{i}.png", png(GOOD))
    assert check_submission(tmp_path / "s.zip", files(folder), track=3) == [
        "all files are in the folder maps/: they belong at the top of the zip"
    ]


@pytest.mark.parametrize(
    ("name", "content", "track", "says"),
    [
        ("p0.png", None, 3, "missing"),
        ("p0.png", png(GOOD[:50]), 3, "160x50 pixels"),
        ("p0.png", png(np.zeros((96, 160, 3), np.uint8)), 3, "mode RGB"),
        ("p0.png", png(np.zeros((96, 160), np.uint8)), 3, "constant map"),
        ("p0.png", png(GOOD), 1, "class index 255"),
        ("p0.png", b"no png", 3, "cannot be read"),
        ("p0.png", png(GOOD)[:200], 3, "cannot be read"),
        ("p0.png", png((GOOD.astype(np.uint16) * 9).astype(np.uint16)), 3, "mode I;16"),
        ("stray.txt", b"x", 3, "no picture of that name"),
    ],
)
def test_the_validator_finds_each_fault(folder, tmp_path, name, content, track, says):
    entries = {f"p{i}.png": png(GOOD if track == 3 else GOOD % 5) for i in range(4)}
    entries = {k: v for k, v in {**entries, name: content}.items() if v is not None}
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
        for entry, data in entries.items():
            archive.writestr(entry, data)
    faults = check_submission(tmp_path / "s.zip", files(folder), track=track)
    assert len(faults) == 1 and says in faults[0] and name in faults[0]


def test_a_bomb_is_named_without_being_unpacked_or_decoded(folder, tmp_path, monkeypatch):
    entries = {f"p{i}.png": png(GOOD) for i in range(4)}
    entries["p1.png"] = png(np.zeros((9000, 9000), np.uint8))  # 80 kB that decode to 81 MB
    entries["p2.png"] = bytes(100 << 20)  # 100 kB that unpack to 100 MiB
    with zipfile.ZipFile(tmp_path / "s.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    assert (tmp_path / "s.zip").stat().st_size < 400_000
    decoded, read = [], zipfile.ZipFile.read
    load = PngImageFile.load
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda self, name: decoded.append(name) or read(self, name))
    monkeypatch.setattr(PngImageFile, "load", lambda self: decoded.append(self.size) or load(self))
    faults = check_submission(tmp_path / "s.zip", files(folder), track=3)
    assert faults == [
        "p1.png: 9000x9000 pixels, its picture has 160x96",
        "p2.png: unpacks to 104,857,600 bytes, more than a PNG of its picture's 160x96 pixels has",
    ]
    assert "p2.png" not in decoded and (9000, 9000) not in decoded


def test_a_submission_with_gaps_is_not_written(localizer, folder, tmp_path):
    (folder / "images" / "bad.png").write_bytes(b"")
    with pytest.raises(DataError, match="every picture"):
        write_submission(localizer, files(folder), tmp_path / "a.zip", track=3)
    assert not (tmp_path / "a.zip").exists() and not list(tmp_path.glob(".*part"))
    with pytest.raises(InputError, match="not a zip"):
        check_submission(folder / "images" / "p0.png", files(folder), track=3)


@pytest.mark.parametrize(("start", "field", "value"), [(b"PK\1\2", 6, 98), (b"PK\5\6", 12, 255), (b"PK\1\2", 9, 255)])
def test_a_zip_that_python_cannot_open(folder, tmp_path, start, field, value):
    """A version of the format of the future, a directory of another size, names of an unknown encoding."""
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
        archive.writestr("p\xe90.png", b"")
    data = bytearray((tmp_path / "s.zip").read_bytes())
    data[data.index(start) + field] = value
    (tmp_path / "s.zip").write_bytes(data)
    try:
        assert check_submission(tmp_path / "s.zip", files(folder), track=3)
    except InputError as error:
        assert "not a zip file that can be read" in str(error)


def test_a_model_agrees_with_itself_and_not_with_another_threshold(model, folder, tmp_path):
    data = open_data(str(folder))
    same = compare(open_runner(model), open_runner(model), data.records)
    assert same.faults == [] and same.total["flipped_percent"] == 0 and same.total["logits_max_abs"] == 0
    assert same.total["delta track3 peak_iou"] == 0
    other = artifacts.build(tmp_path / "other.onnx", top_k=2, theta=0.9)
    found = compare(open_runner(model), open_runner(other), data.records)
    assert any("mask_iou_mean" in fault for fault in found.faults)
    one, two = (lidcam_rt.load(p)(data.records[0].image) for p in (model, other))
    expected = (one.mask & two.mask).sum() / (one.mask | two.mask).sum()
    assert found.rows[0]["mask_iou"] == pytest.approx(expected)
    assert found.rows[0]["flipped_percent"] == pytest.approx(100 * (one.mask ^ two.mask).mean())
    lax = Tolerance(top1=0, mask_iou=0, flipped=100, metric=100)
    assert compare(open_runner(model), open_runner(other), data.records, lax).faults == []


class Shaky:
    """A stand-in for an engine of another kind, behind the runtime's Localizer: a little off, and once wrong."""

    name, device, precision = "shaky 1.0", "cpu", "fp32"

    def __init__(self, engine):
        self.engine, self.calls, self.inputs = engine, 0, engine.inputs

    @property
    def outputs(self):
        return [entry for entry in self.engine.outputs if entry["name"] != "cam" or self.calls < 3]

    def run(self, image, labels, outputs, stop=None):
        found = dict(self.engine.run(image, labels, outputs))
        self.calls += 1
        found["logits"] = found["logits"] + np.float32(0.25)
        if self.calls == 1:  # another class
            swapped = found["class_ids"][:, ::-1]
            found |= self.engine.run(image, np.ascontiguousarray(swapped), outputs) | {"logits": -found["logits"]}
        return {name: found[name] for name in outputs}


def test_an_engine_that_differs_is_told_in_each_measure(localizer, folder):
    data = open_data(str(folder))
    engine = lidcam_rt.Localizer(Shaky(localizer.backend), localizer.manifest, path=localizer.path)
    found = compare(_LocalizerRunner(localizer), _LocalizerRunner(engine), data.records)
    assert found.total["top1_agreement_percent"] == 75 and not found.rows[0]["same_class"]
    assert found.rows[1]["logits_max_abs"] == pytest.approx(0.25, abs=1e-5)
    assert found.rows[1]["cam_max_relative"] == 0 and found.rows[3]["cam_max_relative"] is None
    assert found.total["mask_iou_mean_same_class"] == 1 > found.total["mask_iou_mean"]
    assert found.rows[0]["delta_peak_iou"] < 0 and found.rows[1]["delta_peak_iou"] == 0
    assert found.total["delta track3 peak_iou"] < 0
    assert {fault.split()[0] for fault in found.faults} >= {
        "top1_agreement_percent",
        "mask_iou_mean",
        "flipped_percent",
    }
    assert engine.backend.name in _LocalizerRunner(engine).name
    with pytest.raises(InputError, match=r"mask_iou must be in 0\.\.1"):
        Tolerance(mask_iou=99)


def test_a_picture_that_neither_reads_is_a_fault(model, folder):
    (folder / "images" / "bad.png").write_bytes(b"no picture")
    found = compare(open_runner(model), open_runner(model), open_data(str(folder)).records)
    assert found.total["unreadable"] == 1 and found.faults == ["1 pictures could not be compared"]


@pytest.mark.slow
def test_exit_status_and_messages(model, folder, tmp_path):
    other = artifacts.build(tmp_path / "other.onnx", top_k=2, theta=0.9)
    command = [sys.executable, "-c", "from lidcam_cli.main import main; main()"]

    def run(*arguments):
        return subprocess.run([*command, *(str(a) for a in arguments)], capture_output=True, text=True, check=False)

    assert run("compare", model, model, "--data", folder, "-o", tmp_path / "c.json").returncode == 0
    assert (tmp_path / "c.json").is_file()
    assert run("compare", model, other, "--data", folder).returncode == 1
    unknown = run("compare", model, tmp_path / "x.pth", "--data", folder)
    assert unknown.returncode == 2 and "lidcam.runners" in unknown.stderr
    done = run("submit", folder / "images", "-o", tmp_path / "s.zip", "--model", model)
    assert done.returncode == 0 and "valid Track 3 submission of 4" in done.stdout
    wrong = run("submit", folder / "images", "-o", tmp_path / "s.zip", "--track", "1", "--classes", "5")
    assert wrong.returncode == 2 and "class index" in wrong.stderr


@pytest.mark.parametrize("classes", [-5, 0, 1, 257])
def test_numbers_of_classes_that_no_label_map_has(tmp_path, classes):
    with pytest.raises(InputError, match=f"classes must be 2 to 256, the background among them, got {classes}"):
        check_submission(tmp_path / "s.zip", [tmp_path / "a.png"], track=1, classes=classes)


def test_a_checkpoint_without_torch_says_what_to_install(model, folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)  # as where it is not installed
    monkeypatch.delitem(sys.modules, "lidcam_export.torch_runner", raising=False)
    with pytest.raises(MissingExtraError, match=r"lidcam-rt\[export\]"):
        open_runner(tmp_path)


def test_names_that_a_zip_cannot_hold_are_refused(localizer, tmp_path):
    for name in (os.fsdecode(b"\xff.png"), "a\nb.png", "\x1b[31m.png"):
        with pytest.raises(InputError, match="its name cannot be stored in a zip"):
            write_submission(localizer, [tmp_path / name], tmp_path / "a.zip", track=3)
    assert not list(tmp_path.iterdir())
