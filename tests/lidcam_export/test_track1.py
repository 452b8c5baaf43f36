"""The pipeline from data to table on a tiny set: resumed after kills with the same labels and the same table."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from lidcam_bench.metrics import SegmentationScores
from lidcam_export.track1.pipeline import Track1Options
from lidcam_export.track1.rows import ROWS, scored
from lidcam_export.track1.table import judged, table_text

from lidcam_rt.errors import InputError

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
    whole = run(tmp_path / "b")
    assert whole.returncode == 0, whole.stderr[-3000:]
    for name in ("track1.md", *(f"seed0/pseudo/{i:06d}.png" for i in range(12))):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    table = (tmp_path / "a" / "track1.md").read_text()
    assert all(f"| {row.name} |" in table for row in ROWS) and "trained on exact masks" in table
    result = json.loads((tmp_path / "a" / "track1.json").read_text())
    assert len(result["judged"]) == 6
    networks = result["seeds_records"][0]["networks"]
    assert all(0 <= entry["test"]["mean_iou"] <= 100 for entry in networks.values())
    assert (tmp_path / "a" / "seed0" / "cam.onnx").is_file()


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
    lines = {entry["line"].split(",")[0]: entry for entry in judged(records)}
    # one class of two is predicted: the mean IoU over both is half the class's
    above = lines["PaS + CRF above maximum + CRF on train"]
    assert above["value"] == pytest.approx(10) and above["holds"] and above["interval_95"] == pytest.approx((10, 10))
    share = lines["network on pseudo labels"]
    assert share["value"] == pytest.approx(80) and share["holds"]
    assert not lines["multi-scale and flip above one scale on train"]["value"]
    assert not lines["pseudo labels on train"]["holds"]
    assert "2 seeds" in table_text(records)


def test_wrong_options():
    with pytest.raises(InputError, match="different whole numbers"):
        Track1Options(seeds=(0, 0))
    with pytest.raises(InputError, match=r"cam\.KEY=VALUE"):
        Track1Options(overrides=("epochs=2",))
    assert Track1Options(overrides=("cam.epochs=2",), limit=5).of("segment") == ["data.limit=5"]
