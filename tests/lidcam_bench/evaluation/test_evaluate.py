"""The runner: resume, honesty of rows, data forms, messages."""

import json
import os
import subprocess
import sys

import artifacts
import numpy as np
import pytest
from lidcam_bench.data import ImageSet, MaskFile, MaskForm, Record
from lidcam_bench.evaluation import EvalOptions, evaluate, open_data
from lidcam_bench.evaluation import runner as runner_module
from lidcam_bench.evaluation.baseline import blob
from lidcam_bench.evaluation.options import class_map
from lidcam_bench.evaluation.state import SavedSums
from PIL import Image
from sklearn.metrics import confusion_matrix

import lidcam_rt
from lidcam_rt.errors import DataError, InputError, OutputError
from lidcam_rt.files import output_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return artifacts.data_set(tmp_path_factory.mktemp("data") / "colours", 12)


ALL = EvalOptions(metrics=("track3", "wsol", "track1"), gt_known=True, replicates=20, save_every=4, batch_size=2)


def test_scores_of_a_model_whose_answers_are_known(localizer, folder, tmp_path):
    seen = []
    data = open_data(str(folder))
    results = evaluate(localizer, data, tmp_path, ALL, progress=lambda *count: seen.append(count))
    assert seen == [(i, 12) for i in range(13)]
    rows = results["rows"]
    model, base = rows["predicted class"], rows["baseline: centred blob"]
    assert model["localization"]["scores"]["top1_cls"] == 100
    assert model["localization"]["scores"]["gt_known_loc"] is not None
    assert model["track3"]["scores"]["peak_iou"] > 0.7 > base["track3"]["scores"]["peak_iou"]
    assert model["max_box_acc"]["scores"]["max_box_acc"] == 100
    # Track 1 by hand: the colour's index over the mask, against the drawn box.
    table = np.zeros((5, 5), np.int64)
    for record, result in zip(data.records, localizer.batch([r.image for r in data.records]), strict=True):
        found = np.where(result.mask, result.class_id + 1, 0)
        true = record.truth().label_map()
        table += confusion_matrix(true.ravel(), found.ravel(), labels=range(5))
    iou = np.diag(table) / (table.sum(0) + table.sum(1) - np.diag(table))
    assert model["track1"]["scores"]["mean_iou"] == pytest.approx(100 * iou.mean())
    assert 0 < base["track1"]["scores"]["mean_iou"] < model["track1"]["scores"]["mean_iou"]
    above = results["above_baseline"]["predicted class"]["track3"]
    assert above["difference"] == model["track3"]["scores"]["peak_iou"] - base["track3"]["scores"]["peak_iou"]
    assert above["interval_95"][0] < above["difference"] < above["interval_95"][1]
    assert json.loads((tmp_path / "results.json").read_text()) == json.loads(json.dumps(results))
    assert len((tmp_path / "images.csv").read_text().splitlines()) == 13


def test_stopped_and_resumed_gives_the_same_bytes(localizer, folder, tmp_path, monkeypatch):
    data = open_data(str(folder))
    evaluate(localizer, data, tmp_path / "whole", ALL)
    score, calls = runner_module._Run.score, []

    def stopped(self, *arguments):
        calls.append(1)
        if len(calls) == 7:  # after a save at 4 and unsaved work at 6
            raise KeyboardInterrupt
        return score(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(runner_module._Run, "score", stopped)
        with pytest.raises(KeyboardInterrupt):
            evaluate(localizer, data, tmp_path / "cut", ALL)
    assert not (tmp_path / "cut" / "results.json").exists()
    seen = []
    evaluate(localizer, data, tmp_path / "cut", ALL, progress=lambda done, total: seen.append(done))
    assert seen[0] == 4
    for name in ("results.json", "images.csv"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    with pytest.raises(OutputError, match="options replicates was 20, is 200"):
        evaluate(localizer, data, tmp_path / "cut", EvalOptions())


def test_states_are_saved_between_batches_only(localizer, folder, tmp_path, monkeypatch):
    saved = []
    save = SavedSums.save
    monkeypatch.setattr(SavedSums, "save", lambda self, done, arrays: saved.append(done) or save(self, done, arrays))
    monkeypatch.setattr(SavedSums, "save_is_due", True)
    options = EvalOptions(metrics=("track3",), replicates=0, save_every=3, batch_size=2)
    evaluate(localizer, open_data(str(folder)), tmp_path, options)
    assert saved == [4, 8, 12]  # a network may round otherwise in a batch of another size


KILLED = """
import os, signal, sys
import lidcam_rt
from lidcam_bench.data import ImageSet, MaskFile, MaskForm, Record
from lidcam_bench.evaluation import EvalOptions, evaluate, open_data
from lidcam_cli.runs import RunFolder
model, data, out, when = sys.argv[1:]
add, calls = RunFolder.add, []
def killed(self, row):
    add(self, row)
    calls.append(1)
    if len(calls) == int(when):
        os.write(self._file, b'{"half a li')
        os.kill(os.getpid(), signal.SIGKILL)
RunFolder.add = killed
evaluate(lidcam_rt.load(model), open_data(data), out, EvalOptions(gt_known=True, replicates=20, save_every=2))
"""


@pytest.mark.slow
def test_sigkill_in_a_line_of_the_rows(model, localizer, folder, tmp_path):
    options = EvalOptions(gt_known=True, replicates=20, save_every=2)
    evaluate(localizer, open_data(str(folder)), tmp_path / "whole", options)
    for when in ("7", "1"):
        command = [sys.executable, "-c", KILLED, str(model), str(folder), str(tmp_path / "cut"), when]
        assert subprocess.run(command, check=False).returncode == -9
    evaluate(localizer, open_data(str(folder)), tmp_path / "cut", options)
    for name in ("results.json", "images.csv"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_folder_in_use_or_damaged_or_of_something_else_is_refused(localizer, folder, tmp_path):
    data, options = open_data(str(folder)), EvalOptions(limit=2, replicates=0)
    with output_folder(tmp_path / "out"), pytest.raises(OutputError, match="another process is writing"):
        evaluate(localizer, data, tmp_path / "out", options)
    evaluate(localizer, data, tmp_path / "out", options)
    rows = (tmp_path / "out" / "results.jsonl").read_bytes()
    (tmp_path / "out" / "results.jsonl").write_bytes(rows[:50])
    with pytest.raises(OutputError, match="has 0 records, but 2 were written"):
        evaluate(localizer, data, tmp_path / "out", options)
    (tmp_path / "out" / "state.npz").write_bytes(b"PK nothing")
    with pytest.raises(OutputError, match="damaged"):
        evaluate(localizer, data, tmp_path / "out", options)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "results.json").write_text("{}")
    with pytest.raises(OutputError, match="already holds other results"):
        evaluate(localizer, data, tmp_path / "other", options)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="is a file"):
        evaluate(localizer, data, tmp_path / "file", options)


@pytest.mark.parametrize("damage", ["no file", "no text", "no number", "fewer than none", "a pickle"])
def test_records_and_sums_of_somebody_else_are_refused(localizer, folder, tmp_path, damage):
    data, out, options = open_data(str(folder)), tmp_path / "out", EvalOptions(limit=2, replicates=0)
    evaluate(localizer, data, out, options)
    if damage.startswith("no "):
        lines = (out / "results.jsonl").read_text().splitlines()
        broken = {"no file": {"error": "x"}, "no text": {"file": "a.png", "error": {}},
                  "no number": json.loads(lines[0]) | {"mask_iou": "\x1b[2J"}}  # fmt: skip
        lines[0] = json.dumps(broken[damage])
        (out / "results.jsonl").write_text("\n".join(lines) + "\n")
    else:
        with np.load(out / "state.npz") as file:
            arrays = {name: file[name] for name in file.files}
        done = np.int64(-1) if damage == "fewer than none" else np.array(print, dtype=object)
        np.savez(out / "state.npz", **(arrays | {"done": done}))
    with pytest.raises(OutputError, match=r"damaged.*[Rr]emove"):
        evaluate(localizer, data, out, options)


@pytest.mark.slow
def test_the_command_writes_a_self_contained_report(model, folder, tmp_path):
    pytest.importorskip("matplotlib")
    command = [sys.executable, "-c", "from lidcam_cli.main import main; main()", "eval", str(model)]
    done = subprocess.run(
        [*command, "--data", str(folder), "-o", str(tmp_path), "--gt-known", "--replicates", "10"],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "80"},
    )
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "report.html").read_text()
    assert 'src="data:image' in page and "http" not in page and "centred blob" in page
    assert "It is not" in page and "Worst masks of the predicted class" in page and "difference from the blob" in page
    assert {p.name for p in tmp_path.glob("*.png")} == {"iou_curve.png", "precision_recall.png", "box_accuracy.png"}
    assert all(len(line) <= 80 for line in done.stdout.splitlines() if str(tmp_path) not in line)
    refused = subprocess.run(
        [*command, "--data", "nothing:here", "-o", str(tmp_path / "no")], capture_output=True, text=True
    )
    assert refused.returncode == 2 and "Traceback" not in refused.stderr and "coco" in refused.stderr


def test_a_picture_that_cannot_be_read_is_said_and_left_out(localizer, folder, tmp_path):
    root = tmp_path / "data"
    (root / "images").mkdir(parents=True)
    (root / "images" / "bad.png").write_bytes(b"no picture")
    (root / "labels.csv").write_text("file,label\nbad.png,red")
    (root / "classes.txt").write_text("red")
    with pytest.raises(DataError, match="none of the 1"):
        evaluate(localizer, open_data(str(root)), tmp_path / "out")
    (root / "images" / "good.png").write_bytes((folder / "images" / "00.png").read_bytes())
    results = evaluate(localizer, open_data(str(root)), tmp_path / "out2")
    assert [f["file"] for f in results["failures"]] == ["bad.png"]
    assert any("could not be read" in note for note in results["notes"])


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("file,label\nnone.png,red", "not in images"),
        ("file,label\n00.png,purple", "neither a whole number nor"),
        ("file,label,x0,y0,x1,y1\n00.png,red,5,5,2,9", "x0 < x1"),
        ("name\n00.png", "needs file and label"),
        ("file,label,x0,y0\n00.png,red,1,2", "needs all of x0"),
        ("file,label\n00.png,7", "out of range"),
        ("file,label\n00.png,-1", "out of range"),
        ("file,label\n,red", "no file name"),
        ("file,label,x0,y0,x1,y1\n00.png,red,1,2,nan,4", "a box is"),
    ],
)
def test_wrong_labels_get_a_message(folder, tmp_path, table, says):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "00.png").write_bytes((folder / "images" / "00.png").read_bytes())
    (tmp_path / "classes.txt").write_text("red\n")
    (tmp_path / "labels.csv").write_text(table)
    with pytest.raises(DataError, match=says):
        open_data(str(tmp_path))


def copy_of(folder, target, number):
    """The first pictures of the folder with their masks, without labels."""
    for part in ("images", "masks"):
        (target / part).mkdir(parents=True)
        for path in sorted((folder / part).iterdir())[:number]:
            (target / part / path.name).write_bytes(path.read_bytes())
    return target


def test_masks_and_boxes_that_do_not_fit_get_a_message(localizer, folder, tmp_path):
    root = copy_of(folder, tmp_path / "d", 2)
    mask = np.asarray(Image.open(root / "masks" / "01.png"))
    Image.fromarray(np.ascontiguousarray(mask.T)).save(root / "masks" / "01.png")
    with pytest.raises(DataError, match=r"swapped.*17615"):
        evaluate(localizer, open_data(str(root)), tmp_path / "o1")
    Image.fromarray(mask[:50]).save(root / "masks" / "01.png")
    with pytest.raises(DataError, match="must be equal"):
        evaluate(localizer, open_data(str(root)), tmp_path / "o2")
    (root / "masks" / "01.png").write_bytes(b"no mask")
    with pytest.raises(DataError, match="cannot be read"):
        evaluate(localizer, open_data(str(root)), tmp_path / "o3")
    (root / "masks" / "01.png").unlink()
    (root / "labels.csv").write_text("file,label,x0,y0,x1,y1\n01.png,red,100,0,131,9")
    with pytest.raises(DataError, match="reaches beyond the picture, which has 130x110"):
        evaluate(localizer, open_data(str(root)), tmp_path / "o4")
    (root / "masks" / "picture_9.png").write_bytes(b"")
    with pytest.raises(DataError, match="no picture of that name"):
        open_data(str(root))
    with pytest.raises(DataError, match="stamps:DIR"):
        (tmp_path / "made").mkdir()
        (tmp_path / "made" / "dataset.json").write_text("{}")
        open_data(str(tmp_path / "made"))


def test_label_maps_and_names_without_classes_txt(localizer, folder, tmp_path):
    root = copy_of(folder, tmp_path / "d", 4)
    (root / "masks").rename(root / "labelmaps")
    for i, path in enumerate(sorted((root / "labelmaps").iterdir())):
        values = (np.asarray(Image.open(path)) > 0).astype(np.uint8) * (
            sorted(artifacts.CLASSES).index(artifacts.CLASSES[i]) + 1
        )
        values[:4] = 255
        Image.fromarray(values).save(path)
    lines = [f"{i:02d}.png,{artifacts.CLASSES[i]}" for i in range(4)]
    (root / "labels.csv").write_text("\n".join(["\ufefffile,label", *lines]))
    data = open_data(str(root))
    assert data.class_names == tuple(sorted(artifacts.CLASSES))
    results = evaluate(localizer, data, tmp_path / "o", EvalOptions(metrics=("track1", "track3"), replicates=0))
    scores = results["rows"]["predicted class"]
    assert scores["track1"]["scores"]["mean_iou"] > 80 and scores["track3"]["scores"]["peak_iou"] > 0.7


def test_classes_that_the_model_has_in_part(localizer, folder, tmp_path):
    root = copy_of(folder, tmp_path / "d", 4)
    (root / "classes.txt").write_text("zebra\nRed\n")
    (root / "labels.csv").write_text("file,label\n00.png,Red\n01.png,zebra")
    results = evaluate(localizer, open_data(str(root)), tmp_path / "o", EvalOptions(gt_known=True, replicates=0))
    assert "1 of the data's 2 classes are missing from the model (zebra)" in " ".join(results["notes"])
    assert results["rows"]["predicted class"]["localization"]["images"] == 1
    assert results["rows"]["ground-truth class"]["track3"]["images"] == 1
    assert "track3" not in results["above_baseline"]["ground-truth class"]  # not the same pictures


def test_the_true_class_of_several_is_held_against_its_own_objects(model, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "labelmaps").mkdir()
    picture = np.full((96, 160, 3), 128, np.uint8)
    picture[10:60, 10:60], picture[30:80, 90:150] = (255, 0, 0), (0, 0, 255)
    Image.fromarray(picture).save(tmp_path / "images" / "a.png")
    labels = np.zeros((96, 160), np.uint8)
    labels[10:60, 10:60], labels[30:80, 90:150] = 1, 3
    Image.fromarray(labels).save(tmp_path / "labelmaps" / "a.png")
    (tmp_path / "classes.txt").write_text("\n".join(artifacts.CLASSES))
    (tmp_path / "labels.json").write_text('[{"file": "a.png", "labels": ["red", "blue"]}]')
    options = EvalOptions(metrics=("track3", "track1"), gt_known=True, replicates=0)
    results = evaluate(lidcam_rt.load(model), open_data(str(tmp_path)), tmp_path / "o", options)
    rows = results["rows"]
    assert rows["ground-truth class"]["track3"]["scores"]["peak_iou"] > 0.75
    assert rows["predicted class"]["track3"]["scores"]["peak_iou"] < 0.65  # one of two objects
    assert rows["ground-truth class"]["track1"]["scores"]["mean_iou"] > 75  # both classes drawn
    assert "several classes" in " ".join(results["notes"])


def test_classes_that_the_model_does_not_have(localizer, folder, tmp_path):
    (tmp_path / "d" / "images").mkdir(parents=True)
    (tmp_path / "d" / "images" / "00.png").write_bytes((folder / "images" / "00.png").read_bytes())
    (tmp_path / "d" / "classes.txt").write_text("zebra\n")
    (tmp_path / "d" / "labels.csv").write_text("file,label\n00.png,zebra")
    with pytest.raises(DataError, match=r"nothing to score.*none of its 1 pictures has any"):
        evaluate(localizer, open_data(str(tmp_path / "d")), tmp_path / "o")
    (tmp_path / "d" / "masks").mkdir()
    (tmp_path / "d" / "masks" / "00.png").write_bytes((folder / "masks" / "00.png").read_bytes())
    data = open_data(str(tmp_path / "d"))
    with pytest.raises(InputError, match="among the model's"):
        evaluate(localizer, data, tmp_path / "o", EvalOptions(gt_known=True))
    results = evaluate(localizer, data, tmp_path / "o")
    assert "not those of the data" in " ".join(results["notes"])
    assert "localization" not in results["rows"]["predicted class"]


def test_blob_is_centred():
    map8 = blob((31, 21))
    assert map8.shape == (21, 31) and map8[10, 15] == 255
    np.testing.assert_array_equal(map8, map8[::-1, ::-1])


def notes_of(results):
    return " ".join(results["notes"])


def test_notes_say_what_the_truth_lacks_and_nothing_that_is_not_so(localizer, folder, tmp_path):
    root = copy_of(folder, tmp_path / "d", 4)
    said = notes_of(evaluate(localizer, open_data(str(root)), tmp_path / "o1"))
    assert "the box around each mask is the truth" in said and "over 4 pictures, which is too few" in said
    (root / "masks" / "01.png").unlink()
    Image.fromarray(np.zeros((110, 130), np.uint8)).save(root / "masks" / "02.png")
    (root / "labels.csv").write_text("file,label,x0,y0,x1,y1\n00.png,red,1,2,30,40")
    (root / "classes.txt").write_text("red\ngreen")
    said = notes_of(evaluate(localizer, open_data(str(root)), tmp_path / "o2", EvalOptions(replicates=0)))
    assert "1 of 4 pictures have no mask" in said and "1 masks show no object" in said and "too few" not in said
    assert "3 of 4 pictures have no label" in said and "for these the box around the mask is the truth" in said
    for path in (root / "masks").iterdir():
        path.unlink()
    (root / "masks").rmdir()
    results = evaluate(localizer, open_data(str(root)), tmp_path / "o3", EvalOptions(limit=1))
    assert "around" not in notes_of(results) and "No picture has a mask" in notes_of(results)
    assert set(results["rows"]["predicted class"]) == {"max_box_acc", "max_box_acc_v2", "localization"}
    with pytest.raises(DataError, match=r"track3 needs masks or label maps; none .* has one, only boxes, labels"):
        evaluate(localizer, open_data(str(root)), tmp_path / "o4", EvalOptions(metrics=("track3",)))


def test_masks_of_a_reader_that_show_no_object_are_not_scored(localizer, folder, tmp_path):
    Image.fromarray(np.full((110, 130), 90, np.uint8)).save(tmp_path / "votes.png")
    picture = folder / "images" / "00.png"
    data = ImageSet("birds", (), (Record(picture, mask=MaskFile(tmp_path / "votes.png", MaskForm.VOTES)),))
    for metrics in (("track3",), ("wsol",)):
        with pytest.raises(DataError, match="none of the 1 masks shows an object"):
            evaluate(localizer, data, tmp_path / metrics[0], EvalOptions(metrics=metrics))
    assert not (tmp_path / "track3" / "results.json").exists()


def test_classes_are_the_same_by_name():
    assert class_map(("crane", "dog", "crane"), ("crane", "dog", "crane")) == (0, 1, 2)
    assert class_map(("Caf\u00e9", "dog"), ("cafe\u0301", "cat")) == (0, -1)
    assert class_map(("a",), ("b",)) is None
    with pytest.raises(InputError, match="may be any of the model's classes 0, 2"):
        class_map(("crane", "dog", "crane"), ("dog", "crane"))
