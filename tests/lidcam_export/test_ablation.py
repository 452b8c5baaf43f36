import json

import numpy as np
import pytest

pytest.importorskip("torch")
from lidcam_export.ablation import Maps, _box_accuracy, _ious, ablate_checkpoint, blob_row, summarize
from typer.testing import CliRunner

from lidcam_rt.cli.main import build_app


def made(n=30, seed=0, noise=0.1):
    """Pictures of a bright square, a map that is right but smeared at one pixel, and a clamped map."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((n, 32, 32), np.uint8)
    images = rng.integers(0, 60, (n, 32, 32, 3)).astype(np.uint8)
    for index in range(n):
        y, x = rng.integers(0, 20, 2)
        masks[index, y : y + 12, x : x + 12] = 1
    images[masks == 1] += 150
    right = masks + noise * rng.random(masks.shape)
    peak = right.copy()
    peak[np.arange(n), rng.integers(0, 32, n), rng.integers(0, 32, n)] += 30 * rng.random(n)
    return Maps(images, masks, rng.random(masks.shape).astype(np.float32), peak.astype(np.float32), 0.5)


def test_scores_by_hand():
    mask = np.zeros((1, 4, 4), np.uint8)
    mask[0, :2, :2] = 1
    mask[0, 3] = 255
    found = np.zeros((1, 4, 4), bool)
    found[0, :2, 1:3] = True
    found[0, 3, 3] = True  # ignored
    assert _ious(found, mask)[0] == 2 / 6
    assert _box_accuracy(found, mask) == 0.0
    found[0, :2, 2] = False
    assert _box_accuracy(found, mask) == 1.0
    assert _box_accuracy(np.zeros_like(found), mask) == 0.0


def test_a_peak_outside_the_object_is_what_the_percentile_is_for():
    pytest.importorskip("pydensecrf")
    rows = {row.stage: row for row in ablate_checkpoint("gap", made(), made(seed=1))}
    assert list(rows) == ["CAM", "CAM +NWC", "CAM +NWC +PaS", "CAM +NWC +PaS +CRF"]
    assert rows["CAM"].iou < 0.4 < rows["CAM +NWC"].iou < rows["CAM +NWC +PaS"].iou - 0.1
    assert rows["CAM +NWC +PaS +CRF"].iou > 0.9
    assert rows["CAM +NWC +PaS"].settings["percentile"] < 100
    assert blob_row(made(), made(seed=1)).iou < 0.5


def test_mean_and_spread():
    runs = [ablate_checkpoint("tap", made(), made(seed=s), crf=False) for s in (1, 2, 3)]
    row = summarize(runs)[0]
    values = [run[0].iou for run in runs]
    assert row["stage"] == "CAM +TAP"
    assert row["iou"] == pytest.approx(np.mean(values))
    assert row["iou_spread"] == pytest.approx(np.std(values, ddof=1))


def test_command(tmp_path):
    import torch
    from lidcam_training.checkpoint import CheckpointMeta, save_checkpoint
    from lidcam_training.data.composite import Composite, write_composites
    from lidcam_training.models import ClassifierSpec, build_classifier

    maps = made(8)
    for split in ("val", "test"):
        composites = [Composite(i, m == 1, 0) for i, m in zip(maps.images, maps.masks, strict=True)]
        write_composites(tmp_path / split, "d", ("a", "b"), 0, {"val": composites, "test": composites})
    torch.manual_seed(0)
    model = build_classifier(ClassifierSpec("lidcam_seresnet_small", 2))
    save_checkpoint(model, CheckpointMeta(model.spec, ("a", "b"), (32, 32)), tmp_path / "c")
    save_checkpoint(model, CheckpointMeta(model.spec, ("x", "b"), (32, 32)), tmp_path / "other")
    data = f"stamps:{tmp_path / 'val'}"
    out = tmp_path / "out"
    app = build_app("ablate")
    result = CliRunner().invoke(
        app, ["ablate", str(tmp_path / "c"), "--data", data, "--no-crf", "-o", str(out)]
    )
    assert result.exit_code == 0, result.output
    assert json.loads((out / "ablation.json").read_text())["summary"][0]["stage"] == "blob"
    assert "CAM +TAP +NWC +PaS" in (out / "ablation.md").read_text()
    assert (out / "ablation.png").stat().st_size > 1000
    result = CliRunner().invoke(app, ["ablate", str(tmp_path / "other"), "--data", data, "--no-crf"])
    assert result.exit_code == 2
