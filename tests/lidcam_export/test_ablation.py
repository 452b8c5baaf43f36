import json

import numpy as np
import pytest

pytest.importorskip("torch")
import cv2
from lidcam_bench.data import ImageSet, MaskFile, Record, open_data
from lidcam_export.ablation import stages as ablation
from lidcam_export.ablation.report import steps, summarize, table
from lidcam_export.ablation.stages import AblationRow, Maps, ablate_artifacts, blob_row, choose_threshold, run_maps
from PIL import Image
from scipy import stats
from typer.testing import CliRunner

import lidcam_rt
from lidcam_cli.app import build_app
from lidcam_rt.artifact import InputSpec
from lidcam_rt.errors import DataError
from lidcam_rt.pas import PasOptions, pas_reference

SPEC = InputSpec(height=32, width=32, mean=(127.0,) * 3, std=(64.0,) * 3)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Pictures of a bright square; a random map, and one that is right but for a peak somewhere."""
    root = tmp_path_factory.mktemp("made")

    def make(name, n=30, seed=0):
        rng = np.random.default_rng(seed)
        records, right = [], np.zeros((n, 32, 32), np.float32)
        for index in range(n):
            y, x = rng.integers(0, 20, 2)
            mask = np.zeros((32, 32), np.uint8)
            mask[y : y + 12, x : x + 12] = 1
            picture = rng.integers(0, 60, (32, 32, 3)).astype(np.uint8)
            picture[mask == 1] += 150
            files = root / f"{name}{index}.png", root / f"{name}{index}_mask.png"
            Image.fromarray(picture).save(files[0])
            Image.fromarray(255 * mask).save(files[1])
            records.append(Record(files[0], (0,), mask=MaskFile(files[1])))
            right[index] = mask + 0.1 * rng.random(mask.shape)
            right[index, rng.integers(0, 32), rng.integers(0, 32)] += 30 * rng.random()
        labels = np.zeros(n, np.int64)
        noise = Maps(records, labels, SPEC, rng.random(right.shape).astype(np.float32), np.arange(n) % 2)
        return noise, Maps(records, labels, SPEC, right, np.arange(n) % 2)

    return make("few"), make("many", seed=1)


def test_a_peak_outside_the_object_is_what_the_percentile_is_for(made):
    (noise_few, few), (noise_many, many) = made
    rows = {r.stage: r for r in ablate_artifacts("gap", 0, (noise_few, noise_many), (few, many))}
    assert list(rows) == ["CAM", "CAM +NWC", "CAM +NWC +PaS", "CAM +NWC +PaS +CRF"]
    assert rows["CAM"].iou < 0.4 < rows["CAM +NWC"].iou < rows["CAM +NWC +PaS"].iou - 0.1
    assert rows["CAM +NWC +PaS +CRF"].iou > 0.9
    assert rows["CAM +NWC +PaS +CRF"].peak > 0.9
    assert rows["CAM +NWC +PaS"].settings["percentile"] < 100
    assert 0 < rows["CAM +NWC +PaS"].top1 < rows["CAM +NWC +PaS"].box
    blob = blob_row(few, many)
    assert blob.iou < 0.5
    assert blob.top1 is None


def test_the_chosen_threshold_is_the_best_by_a_plain_search(made):
    _, few = made[0]
    masks = np.stack([record.truth().object_mask() == 1 for record in few.records])

    def mean_iou(percentile, theta):
        found = pas_reference(few.cam[:, None], (32, 32), PasOptions(percentile, theta)).mask[:, 0]
        return ((found & masks).sum((1, 2)) / (found | masks).sum((1, 2))).mean()

    grid = [(p, t) for p in (98.0, 80.0) for t in ablation.THETAS]
    values = [mean_iou(*setting) for setting in grid]
    assert mean_iou(*choose_threshold(few, (98.0, 80.0))) == pytest.approx(max(values))


def test_scores_against_opencv_and_a_loop(made):
    _, many = made[1]
    row = ablation.score("s", 0, many, ablation._thresholded(many, 95.0, 0.4), {})
    ious, boxes = [], 0
    for cam, record in zip(many.cam, many.records, strict=True):
        found = pas_reference(cam[None, None], (32, 32), PasOptions(95, 0.4)).mask[0, 0]
        truth = record.truth().object_mask() == 1
        ious.append((found & truth).sum() / (found | truth).sum())
        contours, _ = cv2.findContours(found.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        rectangles = cv2.boundingRect(max(contours, key=cv2.contourArea)), cv2.boundingRect(truth.astype(np.uint8))
        # the public evaluator's convention: [x, y, min(x + w, W - 1), min(y + h, H - 1)], pixels inclusive
        a, b = ([x, y, min(x + w, 31), min(y + h, 31)] for x, y, w, h in rectangles)
        sides = [max(min(a[i + 2], b[i + 2]) - max(a[i], b[i]) + 1, 0) for i in (0, 1)]
        areas = [(box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (a, b)]
        boxes += sides[0] * sides[1] / (sum(areas) - sides[0] * sides[1]) >= 0.5
    assert row.iou == pytest.approx(np.mean(ious))
    assert row.box == pytest.approx(boxes / len(ious))


def _row(stage, seed, iou):
    return AblationRow(stage, seed, iou, iou, iou, 100 * iou, iou, {})


def test_mean_spread_and_paired_steps():
    runs = [[_row("CAM", s, 0.2 + 0.1 * s), _row("CAM +NWC", s, 0.25 + 0.1 * s)] for s in (0, 1, 2)]
    runs.append([_row("CAM +TAP", 1, 0.35)])
    first = summarize(runs)[0]
    assert (first["stage"], first["runs"], first["iou"]) == ("CAM", 3, pytest.approx(0.3))
    assert first["iou_spread"] == pytest.approx(0.1)
    found = {row["step"]: row for row in steps(runs)}
    assert list(found) == ["TAP", "NWC"]
    assert (found["NWC"]["runs"], found["NWC"]["iou"]) == (3, pytest.approx(0.05))
    assert found["NWC"]["iou_spread"] == pytest.approx(0, abs=1e-12)  # of the pairs, not of the seeds
    assert (found["TAP"]["runs"], found["TAP"]["iou"]) == (1, pytest.approx(0.05))
    assert "| NWC | 3 | +0.050 [+0.050, +0.050] |" in table(steps(runs), "step")
    assert "| TAP | 1 | +0.050 |" in table(steps(runs), "step")
    assert "| CAM | 3 | 0.300 ± 0.100 |" in table(summarize(runs))


def test_a_step_s_interval_is_that_of_the_paired_t_test():
    before, after = np.array([0.31, 0.35, 0.28, 0.40, 0.33]), np.array([0.36, 0.37, 0.36, 0.41, 0.40])
    runs = [[_row("CAM", s, a), _row("CAM +NWC", s, b)] for s, (a, b) in enumerate(zip(before, after, strict=True))]
    (step,) = steps(runs)
    wanted = stats.ttest_rel(after, before).confidence_interval(0.95)
    assert step["iou_interval"] == pytest.approx([wanted.low, wanted.high])


@pytest.mark.slow
def test_command(tmp_path):
    import torch
    from lidcam_training.checkpoint import CheckpointMeta, save_checkpoint
    from lidcam_training.data.composite import Composite, write_composites
    from lidcam_training.models import ClassifierSpec, build_classifier
    from lidcam_training.models.classifier import activation_maps

    rng = np.random.default_rng(0)
    mask = np.zeros((32, 32), bool)
    mask[4:20, 8:24] = True
    composites = [Composite(rng.integers(0, 256, (32, 32, 3)).astype(np.uint8), mask, i % 2) for i in range(8)]
    write_composites(tmp_path / "d", "d", ("a", "b"), 0, {"val": composites, "test": composites})
    torch.manual_seed(0)
    model = build_classifier(ClassifierSpec("lidcam_seresnet_small", 2)).eval()
    meta = CheckpointMeta(model.spec, ("a", "b"), (32, 32))
    save_checkpoint(model, meta, tmp_path / "c")
    save_checkpoint(model, CheckpointMeta(model.spec, ("x", "b"), (32, 32)), tmp_path / "other")
    data, out, app = f"stamps:{tmp_path / 'd'}", tmp_path / "out", build_app("ablate")
    command = ["ablate", str(tmp_path / "c"), "--data", data, "--no-crf", "-o", str(out)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    first = (out / "ablation.json").read_text()
    with pytest.MonkeyPatch.context() as patch:  # the same again takes what was found
        patch.setattr(lidcam_rt, "load", None)
        result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert (out / "ablation.json").read_text() == first
    record = json.loads((out / "ablation.json").read_text())
    assert [row["stage"] for row in record["summary"]] == ["blob", "CAM +TAP", "CAM +TAP +NWC", "CAM +TAP +NWC +PaS"]
    assert "onnxruntime" in record["backend"].lower()
    assert "CAM +TAP +NWC +PaS" in (out / "ablation.md").read_text()
    assert (out / "ablation.png").stat().st_size > 1000

    # the maps are the artifact's, and the artifact's are the checkpoint's
    artifact = next((out / "artifacts").glob("*-nwc.onnx"))
    images = open_data(data, "test")
    with lidcam_rt.load(artifact) as localizer:
        found = run_maps(localizer, images, batch=3)
        with pytest.raises(DataError, match="no mask"):
            bare = ImageSet("bare", ("a", "b"), tuple(Record(r.image, r.labels) for r in images.records))
            blob_row(*[run_maps(localizer, bare)] * 2)
    pixels = torch.from_numpy(np.stack([c.image for c in composites])).permute(0, 3, 1, 2).float()
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (meta.mean, meta.std))
    with torch.no_grad():
        features = model.forward_features((pixels - mean) / std)
        maps = activation_maps(features, model.head_weight, torch.arange(8) % 2, nwc=True).numpy()
    np.testing.assert_allclose(found.cam, maps, rtol=1e-3, atol=1e-5)

    for arguments, words in (
        (["ablate", str(tmp_path / "other"), "--data", data, "--no-crf", "-o", str(out)], "other classes"),
        ([*command, "--choose", "test"], "chosen on other pictures"),
        (["ablate", str(tmp_path / "c"), str(tmp_path / "other"), *command[2:]], "both have pooling tap and seed 0"),
    ):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 2
        assert words in " ".join(result.output.split())


class Again(Exception):
    """The rows are made again."""


@pytest.mark.parametrize("kind", ["deep", "a list", "without rows", "other rows", "no accuracy"])
def test_rows_of_somebody_else_are_made_again(tmp_path, monkeypatch, kind):
    import types

    from lidcam_export.cli import ablate

    import lidcam_rt

    def again(*_):
        raise Again

    monkeypatch.setattr(ablate, "_artifact", again)
    checkpoint = types.SimpleNamespace(weights_sha256="0" * 64, meta=types.SimpleNamespace(class_names=("a",)))
    images = types.SimpleNamespace(fingerprint=lambda: "x")
    identity = {"version": lidcam_rt.__version__, "weights": "0" * 64, "classes": ["a"], "seed": 0, "data": ["x"] * 2}
    record = {"identity": identity | {"crf": False}, "accuracy": 0.5, "backend": "cpu", "rows": [], "blob": {}}
    if kind == "without rows":
        del record["rows"]
    elif kind == "other rows":
        record["rows"] = [{"surprise": 1}]
    elif kind == "no accuracy":
        record["accuracy"] = "[/bold]"
    text = {"deep": "[" * 100_000, "a list": "[]"}.get(kind, json.dumps(record))
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / f"{'0' * 12}.json").write_text(text)
    with pytest.raises(Again):
        ablate._scored(checkpoint, [images] * 2, tmp_path, seed=0, crf=False)
