"""`lidcam doctor --speed`: every engine that could run the file is there, with what it gave or why it did not."""

import json
import sys

import artifacts
import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image
from sklearn.metrics import jaccard_score
from typer.testing import CliRunner

import lidcam_rt
from lidcam_cli.app import build_app
from lidcam_cli.speed import compare_engines


def test_candidates_with_engine_device_precision_and_agreement(model):
    pytest.importorskip("openvino")
    rows = compare_engines([model], seconds=0.01, threads=1)
    assert [(row.backend, row.precision, row.auto) for row in rows] == [
        ("onnxruntime", "auto", True), ("openvino", "auto", False), ("openvino", "bf16", False),
    ]  # fmt: skip
    assert rows[0].engine.startswith("onnxruntime ") and rows[0].engine.endswith(" on cpu, fp32")
    for row in rows[:2]:
        assert row.same == 1 and row.iou == 1 and row.spread_ms[0] <= row.ms <= row.spread_ms[1]
    assert bool(rows[2].engine) != bool(rows[2].why_not)  # a processor without bf16 says so


def test_disagreement_is_seen(tmp_path):
    one = artifacts.build(tmp_path / "one.onnx", theta=0.2)
    two = artifacts.build(tmp_path / "two.onnx", theta=0.9)
    rows = [row for row in compare_engines([one, two], seconds=0.01) if row.backend == "onnxruntime"]
    assert rows[0].iou == 1 and rows[1].iou < 0.99 and rows[1].same == 1


def test_other_classes_and_sizes_have_no_agreement(model, tmp_path, monkeypatch):
    """Class 1 of one network is another thing than class 1 of the other, and masks of two sizes have no IoU."""
    larger = artifacts.build(tmp_path / "larger.onnx", size=(96, 96))
    monkeypatch.setattr(artifacts, "CLASSES", artifacts.CLASSES[::-1])
    other = artifacts.build(tmp_path / "other.onnx", theta=0.9)
    rows = [row for row in compare_engines([model, larger, other], seconds=0.01) if row.backend == "onnxruntime"]
    assert [(row.same, row.iou) for row in rows] == [(1, 1), (1, None), (1, 1)]


def test_label_maps_are_compared_by_pixels_and_labels(model, tmp_path):
    network = artifacts.build_segmentation(tmp_path / "labels.onnx")
    changed = onnx.load(network)
    bias = next(entry for entry in changed.graph.initializer if entry.name == "bias")
    bias.CopyFrom(numpy_helper.from_array(np.float32([0.3, -9, -2, -2, -2]), "bias"))  # label 1 never wins
    onnx.save(changed, tmp_path / "changed.onnx")
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name in ("red", "green"):
        Image.fromarray(artifacts.picture(name)).save(pictures / f"{name}.png")
    models = [model, network, tmp_path / "changed.onnx"]
    rows = compare_engines(models, images=pictures, seconds=0.01)
    rows = [row for row in rows if row.backend == "onnxruntime"]
    assert [(row.same, row.iou) for row in rows[:2]] == [(1, 1), (1, 1)]
    with lidcam_rt.load(network) as one, lidcam_rt.load(models[2]) as two:
        pairs = []
        for file in sorted(pictures.iterdir()):
            prepared = one.pipeline.prepare(file, keep_image=False)
            pairs.append([s.pipeline.run([prepared], outputs=("label_map",))["label_map"].ravel() for s in (one, two)])
    a, b = (np.concatenate([pair[side] for pair in pairs]) for side in (0, 1))
    assert 0 < rows[2].same < 1 and rows[2].same == pytest.approx(float((a == b).mean()))
    labels = np.union1d(a, b)
    assert rows[2].iou == pytest.approx(jaccard_score(a, b, labels=labels, average="macro"))


def test_an_engine_that_is_missing_says_how_to_install_it(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    rows = compare_engines([model], seconds=0.01)
    assert rows[0].ms is not None
    assert rows[1].ms is None and "pip install 'lidcam-rt[openvino]'" in rows[1].why_not
    shown = CliRunner().invoke(build_app(), ["doctor", "--speed", str(model), "--seconds", "0.01"])
    assert shown.output.count("pip install") == 1, shown.output  # not once per precision


@pytest.mark.slow
def test_the_command(model, tmp_path):
    for name in ("red", "blue"):
        Image.fromarray(artifacts.picture(name)).save(tmp_path / f"{name}.png")
    line = ["doctor", "--speed", str(model), "--images", str(tmp_path), "--seconds", "0.01"]
    shown = CliRunner().invoke(build_app(), line)
    assert shown.exit_code == 0 and "Fastest here: " in shown.output and "(auto)" in shown.output, shown.output
    rows = json.loads(CliRunner().invoke(build_app(), [*line, "--json"]).output)
    assert {"engine", "ms", "iou", "why_not"} <= set(rows[0])
    assert CliRunner().invoke(build_app(), ["doctor", "--speed", str(tmp_path / "none.onnx")]).exit_code != 0
