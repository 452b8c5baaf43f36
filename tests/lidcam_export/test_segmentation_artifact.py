"""The artifact of a segmentation network: against PyTorch in every engine, its label maps, the verbs that take it."""

import json
import shutil
import zipfile

import cv2
import numpy as np
import onnx
import pytest
import torch
from lidcam_export.segmentation import export_segmentation
from lidcam_training.checkpoint import load_checkpoint
from lidcam_training.segmentation.checkpoint import SegmentationMeta, load_segmentation, save_segmentation
from lidcam_training.segmentation.network import build_network
from lidcam_training.segmentation.spec import NetworkSpec
from PIL import Image
from typer.testing import CliRunner

import lidcam_rt
from lidcam_cli.app import build_app
from lidcam_cli.loading import load_localizer
from lidcam_rt.artifact import Manifest
from lidcam_rt.augment import Augment
from lidcam_rt.crf import DenseCRF, from_logits
from lidcam_rt.errors import ArtifactError, DataError, ExportError, InputError
from lidcam_rt.segmentation import Segmenter

pytestmark = pytest.mark.slow  # not in make quick

CLASSES = ("cat", "dog", "bird", "boat")
MEAN, STD = (120.0, 121.0, 122.0), (60.0, 61.0, 62.0)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    spec = NetworkSpec(architecture="deeplabv3plus", encoder="tf_efficientnet_lite0", channels=32, num_labels=5)
    network = build_network(spec).eval()
    torch.nn.init.normal_(network.body.head.weight, std=2.0)
    for module in network.modules():  # statistics of the pictures, else random weights give one label everywhere
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.5
    network.train()
    with torch.no_grad():
        for seed in range(4):
            network(torch.randn(4, 3, 64, 96, generator=torch.Generator().manual_seed(seed)))
    meta = SegmentationMeta(spec, CLASSES, (64, 96), MEAN, STD)
    return save_segmentation(network.eval(), meta, tmp_path_factory.mktemp("c") / "checkpoint")


@pytest.fixture(scope="module")
def artifact(checkpoint, tmp_path_factory):
    path = tmp_path_factory.mktemp("a") / "segment.onnx"
    manifest, agreement = export_segmentation(checkpoint, path, note=print)
    assert manifest.input.dynamic_size and agreement.holds
    return path


@pytest.fixture
def photos():
    from skimage import data

    return [data.astronaut(), data.chelsea(), data.coffee()]


def expected_logits(checkpoint, arrays):
    network = load_segmentation(checkpoint).network
    x = torch.from_numpy(np.stack(arrays)).float().permute(0, 3, 1, 2)
    with torch.no_grad():
        return network((x - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1))


def resized(photo, size=(96, 64)):
    return np.asarray(Image.fromarray(photo).resize(size, Image.Resampling.BILINEAR))


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_labels_are_pytorchs_in_every_engine_and_batch(checkpoint, artifact, photos, backend, count):
    pictures = [resized(photo) for photo in photos[:count]]
    large = torch.nn.functional.interpolate(expected_logits(checkpoint, pictures), scale_factor=4.0, mode="bilinear")
    with lidcam_rt.load(artifact, backend=backend) as segment:
        assert isinstance(segment, Segmenter) and segment.class_names == CLASSES
        found = segment.batch(pictures)
    labels = np.stack([result.labels for result in found])
    assert len(np.unique(labels)) > 1
    assert (labels != large.argmax(1).numpy()).mean() < 1e-4
    for result, logits in zip(found, expected_logits(checkpoint, pictures), strict=True):
        top = logits.softmax(0).amax((1, 2))
        assert {entry.class_id + 1 for entry in result.classes} == set(np.unique(result.labels)) - {0}
        for entry in result.classes:
            assert entry.score == pytest.approx(float(top[entry.class_id + 1]), abs=1e-3)


def test_at_another_size_logits_are_resized_and_never_labels(checkpoint, artifact, photos):
    with lidcam_rt.load(artifact) as segment:
        result = segment(photos[1])
        assert result.labels.shape == photos[1].shape[:2] and result.labels.dtype == np.uint8
        logits = expected_logits(checkpoint, [resized(photos[1])])[0].numpy()
        small = torch.nn.functional.interpolate(torch.from_numpy(logits)[None], scale_factor=4.0, mode="bilinear")
        present = np.unique(small[0].argmax(0).numpy())
        size = photos[1].shape[1::-1]
        large = np.stack([cv2.resize(logits[k], size, interpolation=cv2.INTER_LINEAR) for k in present])
        assert (result.labels != present[large.argmax(0)]).mean() < 1e-3
        refined = segment(photos[1], refine="psa", keep_image=False)
        p = DenseCRF("psa").refine(photos[1], from_logits(large))
        assert (refined.labels != present[p.argmax(0)]).mean() < 1e-3 and refined.image is None


def test_views_are_averaged(checkpoint, artifact, photos):
    views = Augment((1.0, 1.5), flip=True)
    logits = []
    for size in ((96, 64), (128, 96)):  # 1.5 * (96, 64), sides multiples of 32
        x = np.asarray(Image.fromarray(photos[0]).resize(size, Image.Resampling.BILINEAR))
        both = expected_logits(checkpoint, [x, np.ascontiguousarray(x[:, ::-1])]).numpy()
        logits += [both[0], both[1][..., ::-1]]
    finest = logits[-1].shape[1:]
    mean = np.mean([[cv2.resize(np.ascontiguousarray(p), finest[::-1]) for p in entry] for entry in logits], axis=0)
    present = np.unique(mean.argmax(0))
    large = np.stack([cv2.resize(mean[k].astype(np.float32), (512, 512)) for k in present])
    with lidcam_rt.load(artifact) as segment:
        found = segment(photos[0], augment=views)
        assert (found.labels != present[large.argmax(0)]).mean() < 2e-3
        streamed = list(segment.stream([photos[0], photos[1]], augment=views, batch_size=2))
        np.testing.assert_array_equal(streamed[0].labels, found.labels)


def test_an_engine_of_one_size_refuses_other_scales(artifact, photos):
    with lidcam_rt.load(artifact, backend="openvino") as segment:
        assert segment(photos[0], augment="flip").labels.shape == (512, 512)
        with pytest.raises(InputError, match="one size only"):
            segment(photos[0], augment="ms-flip")


def test_a_stream_gives_what_calls_give_and_names_what_it_cannot_read(artifact, photos, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    with lidcam_rt.load(artifact) as segment:
        results = list(segment.stream([photos[0], tmp_path / "broken.png", photos[2]], refine="irn"))
        assert isinstance(results[1], lidcam_rt.Failure)
        for i in (0, 2):
            np.testing.assert_array_equal(results[i].labels, segment(photos[i], refine="irn").labels)
        with pytest.raises(InputError, match=r"\[picture\]"):
            segment.stream("a.png")
        with pytest.raises(InputError, match="takes several"):
            segment.batch("a.png")
    with pytest.raises(InputError, match="this Segmenter is closed"):
        segment(photos[0])


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (400, 2)])
def test_pictures_of_one_pixel_and_of_extreme_shape(artifact, size):
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    with lidcam_rt.load(artifact) as segment:
        for refine in (None, "psa"):
            assert segment(picture, refine=refine).labels.shape == size


def test_overlays_have_a_legend(artifact, photos):
    with lidcam_rt.load(artifact) as segment:
        result = segment(photos[0])
    drawn = result.overlay(legend=True)
    assert drawn.shape[0] > 512 and drawn.shape[1:] == (512, 3)
    np.testing.assert_array_equal(drawn[:512], result.overlay())
    colours = {tuple(c) for c in drawn[512:].reshape(-1, 3).tolist()}
    assert {(128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128)} & colours  # VOC's colours of labels 1 to 4


def test_the_manifest_is_of_schema_2_and_checked(artifact, tmp_path, photos):
    manifest = lidcam_rt.read_manifest(artifact)
    assert (manifest.schema_version, manifest.task, manifest.cam) == (2, "segmentation", None)
    assert manifest.segmentation.stride == 4 and manifest.segmentation.multiple == 32
    raw = json.loads(manifest.model_dump_json(exclude_none=True))
    for change in ({"schema_version": 1}, {"labels_input": True}, {"segmentation": None}):
        with pytest.raises(ValueError, match="segmentation"):
            Manifest.model_validate(raw | change)
    # a graph of other outputs than the manifest's
    model = onnx.load(artifact)
    del model.graph.output[1:]
    onnx.save(model, tmp_path / "cut.onnx")
    with pytest.raises(ArtifactError, match="label_map"):
        lidcam_rt.load(tmp_path / "cut.onnx")
    with pytest.raises(InputError, match="no activation maps"):
        load_localizer(artifact)


def test_sizes_that_the_network_does_not_take(checkpoint, tmp_path):
    with pytest.raises(ExportError, match="multiples of 32"):
        export_segmentation(checkpoint, tmp_path / "a.onnx", size=(65, 64))
    spec = NetworkSpec(architecture="fpn", encoder="tf_efficientnet_lite0", channels=32, num_labels=5)
    meta = SegmentationMeta(spec, CLASSES, (64, 64), MEAN, STD)
    pyramid = save_segmentation(build_network(spec).eval(), meta, tmp_path / "pyramid")
    with pytest.raises(ExportError, match=r"32x32: .*one side must be 64 or more"):
        export_segmentation(pyramid, tmp_path / "a.onnx", size=(32, 32))
    assert not (tmp_path / "a.onnx").exists()


def run(*arguments):
    return CliRunner().invoke(build_app(arguments[0]), [str(a) for a in arguments])


def test_the_verbs(checkpoint, artifact, photos, tmp_path):
    images, labels = tmp_path / "d" / "images", tmp_path / "d" / "labelmaps"
    images.mkdir(parents=True)
    labels.mkdir()
    (tmp_path / "d" / "classes.txt").write_text("\n".join(reversed(CLASSES)))
    with lidcam_rt.load(artifact) as segment:
        for name, photo in zip("abc", photos, strict=True):
            Image.fromarray(photo).save(images / f"{name}.png")
            found = segment(photo).labels
            true = np.where(found > 0, 5 - found, 0).astype(np.uint8)  # the data's classes are in another order
            Image.fromarray(true).save(labels / f"{name}.png")
    result = run("eval", artifact, "--data", tmp_path / "d", "--metrics", "track1", "-o", tmp_path / "e")
    assert result.exit_code == 0, (result.output, result.exception)
    scores = json.loads((tmp_path / "e" / "results.json").read_text())["rows"]["predicted class"]["track1"]["scores"]
    assert scores["mean_iou"] == pytest.approx(100)
    assert (tmp_path / "e" / "report.html").stat().st_size > 1000
    assert run("eval", artifact, "--data", tmp_path / "d", "-o", tmp_path / "f").exit_code == 2
    result = run("submit", images, "--model", artifact, "--track", "1", "-o", tmp_path / "s.zip")
    assert result.exit_code == 0, (result.output, result.exception)
    assert sorted(zipfile.ZipFile(tmp_path / "s.zip").namelist()) == ["a.png", "b.png", "c.png"]
    result = run("localize", artifact, images, "-o", tmp_path / "l", "--html")
    assert result.exit_code == 0, (result.output, result.exception)
    with lidcam_rt.load(artifact) as segment, Image.open(tmp_path / "l" / "a_labels.png") as file:
        np.testing.assert_array_equal(np.asarray(file), segment(photos[0]).labels)
    record = json.loads((tmp_path / "l" / "results.json").read_text())["results"][0]
    assert record["files"] == {"labels": "a_labels.png", "overlay": "a_overlay.jpg"} and record["classes"]
    again = run("localize", artifact, images, "-o", tmp_path / "l", "--html").output
    assert "3 of 3 pictures are already done" in again
    assert run("localize", artifact, images, "-o", tmp_path / "m", "--top-k", "2").exit_code == 2
    assert "task" in run("inspect", artifact).output
    again = tmp_path / "again.onnx"
    result = run("export", checkpoint, "-o", again)
    assert result.exit_code == 0 and "task segmentation" in result.output, (result.output, result.exception)
    shutil.rmtree(tmp_path / "l")


def test_it_is_measured(artifact, photos, tmp_path):
    pytest.importorskip("mlperf_loadgen")
    images, labels = tmp_path / "d" / "images", tmp_path / "d" / "labelmaps"
    images.mkdir(parents=True)
    labels.mkdir()
    (tmp_path / "d" / "classes.txt").write_text("\n".join(CLASSES))
    with lidcam_rt.load(artifact) as segment:
        for name, photo in zip("abc", photos, strict=True):
            small = resized(photo, (120, 80))
            Image.fromarray(small).save(images / f"{name}.png")
            Image.fromarray(segment(small).labels).save(labels / f"{name}.png")
    quick = ("--duration", "0.05", "--no-floor")
    scenarios = ("--scenario", "single-stream,offline,server", "--qps", "200", "--bound", "60000")
    result = run(
        "bench", artifact, "--images", images, "--data", tmp_path / "d", "--engine", "onnxruntime,openvino",
        "--cold-starts", "1", *scenarios, *quick, "-o", tmp_path / "o",
    )  # fmt: skip
    assert result.exit_code in (0, 8), (result.output, result.exception)
    runs = json.loads((tmp_path / "o" / "results.json").read_text())["runs"]
    assert [entry["variant"]["pipeline"] for entry in runs] == ["track1"] * 2 and not any(e["error"] for e in runs)
    for entry in runs:
        names = [scenario["scenario"] for scenario in entry["scenarios"]]
        assert names[:2] == ["single-stream", "offline"] and set(names[2:]) == {"server"}
        stages = entry["scenarios"][0]["stages"]
        assert {"decode", "preprocess", "network", "maps", "compose"} <= {stage["name"] for stage in stages}
        assert "no activation map" in entry["split"]["reason"] and entry["work"]["gigaflop"] > 0
        assert entry["cold_start"]["first_call_ms"] > 0
    # The label maps of the first are the truth, and the reference of the second.
    assert runs[0]["accuracy"]["scores"]["miou"] == pytest.approx(1)
    assert runs[1]["accuracy"]["agreement"]["flipped_percent"] < 0.1
    result = run("bench", artifact, "--images", images, "--scope", "inference", "--batch", "1,2", "--cold-starts", "0",
                 "--scenario", "offline", *quick, "-o", tmp_path / "p")  # fmt: skip
    assert result.exit_code in (0, 8), (result.output, result.exception)
    assert not any(entry["error"] for entry in json.loads((tmp_path / "p" / "results.json").read_text())["runs"])


def test_a_classifier_beside_a_segmentation_network_is_measured_and_not_compared(artifact, model, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    Image.fromarray(np.full((40, 60, 3), 128, np.uint8)).save(folder / "a.png")
    result = run("bench", artifact, model, "--images", folder, "--scenario", "offline", "--duration", "0.05",
                 "--no-floor", "--cold-starts", "0", "-o", tmp_path / "o")  # fmt: skip
    assert result.exit_code == 0, (result.output, result.exception)
    runs = json.loads((tmp_path / "o" / "results.json").read_text())["runs"]
    assert [entry["accuracy"]["agreement"] for entry in runs] == [{}, {}]
    assert "Not compared with segment.onnx" in runs[1]["accuracy"]["notes"][0]


def test_a_segmentation_checkpoint_where_a_classifier_s_is_needed(checkpoint):
    with pytest.raises(DataError, match=r"a segmentation network; a classifier's is needed here\. `lidcam export`"):
        load_checkpoint(checkpoint)
