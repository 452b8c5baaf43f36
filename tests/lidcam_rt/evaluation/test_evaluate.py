"""The runner: resume, honesty of rows, data forms, messages."""

import json
import subprocess
import sys

import artifacts
import numpy as np
import pytest
from PIL import Image

from lidcam_rt.errors import DataError, InputError
from lidcam_rt.evaluation import EvalOptions, evaluate, open_data
from lidcam_rt.evaluation import runner as runner_module
from lidcam_rt.evaluation.board import blob


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twelve pictures with a coloured box, its mask, label and box."""
    root = tmp_path_factory.mktemp("data") / "colours"
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    (root / "classes.txt").write_text("\n".join(artifacts.CLASSES))
    rows, rng = ["file,label,x0,y0,x1,y1"], np.random.default_rng(0)
    for i in range(12):
        colour = artifacts.CLASSES[i % 4]
        x, y = (int(v) for v in rng.integers(0, 60, 2))
        box = (x, y, x + 60, y + 40)
        Image.fromarray(artifacts.picture(colour, box, (130, 110))).save(root / "images" / f"{i:02d}.png")
        mask = np.zeros((110, 130), np.uint8)
        mask[box[1] : box[3], box[0] : box[2]] = 255
        Image.fromarray(mask).save(root / "masks" / f"{i:02d}.png")
        rows.append(f"{i:02d}.png,{colour},{','.join(map(str, box))}")
    (root / "labels.csv").write_text("\n".join(rows))
    return root


ALL = EvalOptions(
    metrics=("track3", "wsol", "track1"), gt_known=True, replicates=20, save_every=4, batch_size=2
)


def test_scores_of_a_model_whose_answers_are_known(localizer, folder, tmp_path):
    results = evaluate(localizer, open_data(str(folder)), tmp_path, ALL)
    rows = results["rows"]
    model, base = rows["predicted class"], rows["baseline: centred blob"]
    assert model["localization"]["scores"]["top1_cls"] == 100
    assert model["localization"]["scores"]["gt_known_loc"] is not None
    assert model["track3"]["scores"]["peak_iou"] > 0.7 > base["track3"]["scores"]["peak_iou"]
    assert model["max_box_acc"]["scores"]["max_box_acc"] == 100
    assert model["track1"]["images"] == 12 and "track1" not in base
    assert json.loads((tmp_path / "results.json").read_text()) == json.loads(json.dumps(results))
    assert len((tmp_path / "images.csv").read_text().splitlines()) == 13


def test_killed_and_resumed_gives_the_same_bytes(localizer, folder, tmp_path, monkeypatch):
    data = open_data(str(folder))
    evaluate(localizer, data, tmp_path / "whole", ALL)
    score, calls = runner_module._Run.score, []

    def killed(self, chunk):
        calls.append(len(chunk))
        if len(calls) == 4:  # after a save at 4 and counted, unsaved work at 6
            raise KeyboardInterrupt
        score(self, chunk)

    with monkeypatch.context() as patch:
        patch.setattr(runner_module._Run, "score", killed)
        with pytest.raises(KeyboardInterrupt):
            evaluate(localizer, data, tmp_path / "cut", ALL)
    assert not (tmp_path / "cut" / "results.json").exists()
    seen = []
    evaluate(localizer, data, tmp_path / "cut", ALL, progress=lambda done, total: seen.append(done))
    assert seen[0] == 6  # went on from 4
    for name in ("results.json", "images.csv"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    with pytest.raises(InputError, match="another options"):
        evaluate(localizer, data, tmp_path / "cut", EvalOptions())


def test_the_command_writes_a_self_contained_report(model, folder, tmp_path):
    pytest.importorskip("matplotlib")
    command = [sys.executable, "-c", "from lidcam_rt.cli.main import main; main()", "eval", str(model)]
    done = subprocess.run(
        [*command, "--data", str(folder), "-o", str(tmp_path), "--gt-known", "--replicates", "10"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "report.html").read_text()
    assert "src='data:image" in page and "http" not in page and "centred blob" in page
    assert (tmp_path / "iou_curve.png").is_file()
    refused = subprocess.run(
        [*command, "--data", "nothing:here", "-o", str(tmp_path / "no")], capture_output=True, text=True
    )
    assert refused.returncode == 2 and "Traceback" not in refused.stderr and "coco" in refused.stderr


def test_a_picture_that_cannot_be_read_is_said_and_left_out(localizer, folder, tmp_path):
    root = tmp_path / "data"
    (root / "images").mkdir(parents=True)
    (root / "images" / "bad.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="none of the 1"):
        evaluate(localizer, open_data(str(root)), tmp_path / "out")
    (root / "images" / "good.png").write_bytes((folder / "images" / "00.png").read_bytes())
    results = evaluate(localizer, open_data(str(root)), tmp_path / "out2")
    assert [f["file"] for f in results["failures"]] == ["bad.png"]
    assert any("could not be read" in note for note in results["notes"])


def test_coco_polygons_counts_and_crowds(tmp_path):
    Image.new("RGB", (10, 8)).save(tmp_path / "a.png")
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 10, "height": 8}],
        "categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}],
        "annotations": [
            {"image_id": 1, "category_id": 7, "bbox": [2, 2, 3, 3],
             "segmentation": [[2, 2, 4, 2, 4, 4, 2, 4]]},
            {"image_id": 1, "category_id": 3, "bbox": [0, 0, 1, 8], "iscrowd": 1,
             "segmentation": {"size": [8, 10], "counts": [0, 8, 72]}},
        ],
    }  # fmt: skip
    (tmp_path / "c.json").write_text(json.dumps(content))
    data = open_data(f"coco:{tmp_path / 'c.json'}")
    record = data.records[0]
    assert data.class_names == ("dog", "cat") and record.labels == (1,) and record.boxes == ((2, 2, 5, 5),)
    mask = record.read_mask()
    assert mask is not None
    assert (mask[2:5, 2:5] == 1).all() and (mask == 1).sum() == 9
    assert (mask[:, 0] == 255).all() and (mask == 255).sum() == 8


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("file,label\nnone.png,red", "not in images"),
        ("file,label\n00.png,purple", "neither a number"),
        ("file,label,x0,y0,x1,y1\n00.png,red,5,5,2,9", "x0 < x1"),
        ("name\n00.png", "not as expected"),
    ],
)
def test_wrong_labels_get_a_message(folder, tmp_path, table, says):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "00.png").write_bytes((folder / "images" / "00.png").read_bytes())
    (tmp_path / "classes.txt").write_text("red\n")
    (tmp_path / "labels.csv").write_text(table)
    with pytest.raises(DataError, match=says):
        open_data(str(tmp_path))


def test_classes_that_the_model_does_not_have(localizer, folder, tmp_path):
    (tmp_path / "d" / "images").mkdir(parents=True)
    (tmp_path / "d" / "images" / "00.png").write_bytes((folder / "images" / "00.png").read_bytes())
    (tmp_path / "d" / "classes.txt").write_text("zebra\n")
    (tmp_path / "d" / "labels.csv").write_text("file,label\n00.png,zebra")
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
