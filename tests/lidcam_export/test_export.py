"""Export from end to end: the file against PyTorch, in other batches and sizes, and through the runtime."""

import json
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime as ort
import PIL.Image
import pytest
import timm
import torch
from lidcam_bench.data import open_data
from lidcam_export.agreement import Agreement
from lidcam_export.exporter import export_artifact
from lidcam_export.graph.localization import LocalizationGraph
from lidcam_export.graph.padding import SamePadConv2d
from lidcam_export.options import ExportOptions
from lidcam_export.sources.network import Request
from lidcam_export.sources.source import load_source
from lidcam_training.checkpoint import CheckpointMeta, save_checkpoint
from lidcam_training.models import ClassifierSpec, build_classifier
from skimage import data

import lidcam_rt
from lidcam_rt.artifact import read_manifest
from lidcam_rt.boxes import largest_box
from lidcam_rt.errors import ExportError, LidcamError
from lidcam_rt.image import network_input
from lidcam_rt.pas import PasOptions, pas, pas_reference

pytestmark = pytest.mark.slow  # not in make quick


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "resnet.onnx"
    options = ExportOptions(
        random_weights=True, size=(96, 128), stride=16, pooling="tap", tap_threshold=0.1, percentile=90.0, top_k=3
    )
    manifest, agreement = export_artifact("timm:resnet18", path, options)
    return path, manifest, agreement


def test_the_manifest_says_what_was_asked_for(resnet):
    path, manifest, agreement = resnet
    assert read_manifest(path) == manifest
    assert (manifest.cam.stride, manifest.cam.pooling, manifest.cam.tap_threshold) == (16, "tap", 0.1)
    assert (manifest.pas.percentile, manifest.top_k, manifest.input.dynamic_size) == (90.0, 3, True)
    written = json.loads(path.with_name(path.name + ".export.json").read_text())
    assert written["agreement"]["logits"] == agreement.logits < 1e-3


@pytest.mark.parametrize("shape", [(1, 96, 128), (3, 101, 77), (5, 64, 64)])
def test_the_lite0_graph_equals_pytorch_in_every_batch_and_size(lite0, shape):
    """Predicted and given classes, heights and widths that are no multiple of the stride."""
    manifest = read_manifest(lite0)
    graph = LocalizationGraph(load_source("zoo:efficientnet_lite0"), manifest).eval()
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    labels = np.full((shape[0], 1), -1, np.int64)
    labels[0] = 7
    got = ort.InferenceSession(str(lite0)).run(
        ["logits", "class_ids", "cam", "map8", "mask"], {"image": image, "labels": labels}
    )
    with torch.no_grad():
        logits, ids, _, cam, _ = graph(torch.from_numpy(image), torch.from_numpy(labels))
    np.testing.assert_allclose(got[0], logits.numpy(), rtol=1e-3, atol=1e-4 * float(logits.abs().max()))
    np.testing.assert_array_equal(got[1], ids.numpy())
    np.testing.assert_allclose(got[2], cam.numpy(), rtol=1e-3, atol=1e-4 * float(cam.abs().max()))
    want = pas_reference(got[2], shape[1:])
    assert got[1][0, 0] == 7
    assert (got[4].astype(bool) != want.mask).mean() <= 1e-3 and np.abs(got[3].astype(int) - want.map).max() <= 1


def test_the_scale_of_the_logits_is_in_the_artifact(tmp_path):
    torch.manual_seed(0)
    spec = ClassifierSpec("lidcam_seresnet_small", 4, logit_scale=0.3)
    model = build_classifier(spec).eval()
    torch.nn.init.normal_(model.head.bias)
    save_checkpoint(model, CheckpointMeta(spec, ("a", "b", "c", "d"), (64, 64)), tmp_path / "c")
    manifest, _ = export_artifact(str(tmp_path / "c"), tmp_path / "m.onnx", ExportOptions())
    image = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    logits, cam = ort.InferenceSession(tmp_path / "m.onnx").run(
        ["logits", "cam"], {"image": image, "labels": np.full((2, 1), 2, np.int64)}
    )
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (manifest.input.mean, manifest.input.std))
    pixels = (torch.from_numpy(image).permute(0, 3, 1, 2).float() - mean) / std
    with torch.no_grad():
        features = model.forward_features(pixels)
        np.testing.assert_allclose(logits, 0.3 * model.head(model.pool(features)), rtol=1e-3, atol=1e-5)
        maps = torch.einsum("nchw,c->nhw", features, 0.3 * model.head.weight[2].clamp(min=0))
    np.testing.assert_allclose(cam[:, 0], maps, rtol=1e-3, atol=1e-5)


def test_lite0_knows_the_photos(lite0):
    with lidcam_rt.load(lite0) as localizer:
        coffee = localizer(data.coffee())
        assert coffee.class_name == "espresso"
        assert localizer(data.camera()).class_name == "tripod"
        given = localizer(data.coffee(), labels=[0])
        assert given.class_id == 0
    x0, y0, x1, y1 = coffee.box  # the cup with its saucer, drawn by hand: about (90, 25, 480, 345)
    wide, high = max(0, min(x1, 480) - max(x0, 90)), max(0, min(y1, 345) - max(y0, 25))
    assert wide * high / ((x1 - x0) * (y1 - y0) + 390 * 320 - wide * high) > 0.4


def test_masks_and_boxes_of_the_released_pipeline_on_real_cams(lite0):
    """The released code's steps in OpenCV and numpy, on CAMs of photos, several classes each."""
    session = ort.InferenceSession(str(lite0))
    spec = read_manifest(lite0).input
    compared = 0
    for photo in (data.astronaut(), data.chelsea(), data.coffee(), data.rocket()):
        image = network_input(photo, spec)[None]
        for label in (-1, 7, 285, 504, 657, 812):
            cam = session.run(["cam"], {"image": image, "labels": np.array([[label]])})[0]
            big = cv2.resize(cam[0, 0], (384, 384), interpolation=cv2.INTER_CUBIC)
            big = big - big.min()
            gray = (big / big.max() * 255).astype(np.uint8)
            for percentile in (90, 98):
                expected = gray > int(0.35 * np.percentile(gray, percentile))
                contours, _ = cv2.findContours(expected.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
                x, y, w, h = cv2.boundingRect(max(contours, key=cv2.contourArea))
                mask = pas(cam, (384, 384), PasOptions(percentile, 0.35)).mask[0, 0]
                assert (mask != expected).sum() <= 3
                assert np.abs(np.subtract(largest_box(mask), (x, y, x + w, y + h))).max() <= 1
                compared += 1
    assert compared == 48


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 2), (5, 1)])
@pytest.mark.parametrize("size", [7, 8, 9, 16])
def test_same_padding_is_that_of_timm(kernel, stride, size):
    from timm.layers import Conv2dSame

    conv = Conv2dSame(2, 3, kernel, stride=stride)
    x = torch.randn(1, 2, size, size + 1)
    torch.testing.assert_close(SamePadConv2d(conv)(x), conv(x))


def test_weights_in_a_wrapper_are_found(tmp_path):
    import timm

    state = timm.create_model("resnet18", num_classes=5).state_dict()
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}, "epoch": 3}, tmp_path / "w.pth")
    source = load_source("timm:resnet18", Request(tmp_path / "w.pth"))
    torch.testing.assert_close(source.structure.weight, state["fc.weight"])
    assert len(source.class_names) == 5 and source.spec.weights == "w.pth"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("timm:mobilenetv3_small_050", "a layer stands between|needs a last feature"),
        ("timm:vit_tiny_patch16_224", "last feature map|cannot"),
        ("timm:no_such_net", "timm:no_such_net: unknown"),
        ("zoo:other", "similar names: efficientnet_lite0"),
        ("no/such/folder", "no such checkpoint"),
    ],
)
def test_a_source_without_an_exact_map_is_refused(source, message):
    with pytest.raises(ExportError, match=message):
        load_source(source, Request(random_weights=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"percentile": 120.0}, "percentile must be between 0 and 100, got 120.0"),
        ({"stride": 7}, "has stride 32: `stride` can be 32, 16, 8 or a smaller power of two, not 7"),
        ({"top_k": 2000}, "top_k 2000 is more than the 1000 classes"),
        ({"tap_threshold": 0.1}, "add --pooling tap"),
        ({"class_names": ("a", "b")}, "2 class names for a classifier of 1000 classes"),
    ],
)
def test_options_that_cannot_be_are_refused(tmp_path, options, message):
    with pytest.raises(LidcamError, match=message):
        export_artifact("timm:resnet18", tmp_path / "m.onnx", ExportOptions(**{"random_weights": True, **options}))
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_behind_when_the_comparison_fails(tmp_path, monkeypatch):
    import lidcam_export.exporter as exporter

    bad = Agreement("3 photos", 0.5, 0.5, 200, 0.9, 0.0)
    monkeypatch.setattr(exporter, "compare_with_pytorch", lambda *_: bad)
    with pytest.raises(ExportError, match="does not agree"):
        options = ExportOptions(random_weights=True, size=(64, 64), dynamic_size=False)
        export_artifact("timm:resnet18", tmp_path / "m.onnx", options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("nwc", [True, False])
def test_the_map_is_that_of_the_formula(tmp_path, nwc):
    """M_k = sum_c max(w[k, c], 0) F_c, without the clamp where NWC is off; logits keep the signed weights."""
    torch.manual_seed(0)
    model = timm.create_model("resnet18", num_classes=7).eval()
    torch.save(model.state_dict(), tmp_path / "w.pth")
    options = ExportOptions(
        weights=tmp_path / "w.pth", size=(64, 64), nwc=nwc, dynamic_size=False, input_dtype="float32"
    )
    export_artifact("timm:resnet18", tmp_path / "m.onnx", options)
    image = torch.randn(2, 3, 64, 64)
    feed = {"image": image.numpy(), "labels": np.array([[3], [5]])}
    cam, logits = ort.InferenceSession(str(tmp_path / "m.onnx")).run(["cam", "logits"], feed)
    with torch.no_grad():
        features, weight = model.forward_features(image), model.fc.weight[[3, 5]]
        expected = torch.einsum("nc,nchw->nhw", weight.clamp(min=0) if nwc else weight, features)
        torch.testing.assert_close(torch.from_numpy(cam[:, 0]), expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(torch.from_numpy(logits), model(image), rtol=1e-4, atol=1e-4)


def test_class_names_of_a_file_are_those_that_an_evaluation_reads(tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from lidcam_cli.app import build_app

    seen = []

    def stop(source, output, options, **_):
        seen.append(options.class_names)
        raise ExportError("stopped here")

    monkeypatch.setattr("lidcam_export.exporter.export_artifact", stop)
    (tmp_path / "classes.txt").write_bytes("\ufeffcat \r\n\tdog\t\r\n\r\n".encode())
    command = ["export", "timm:resnet10t", "-o", str(tmp_path / "m.onnx"), "--classes", str(tmp_path / "classes.txt")]
    CliRunner().invoke(build_app("export"), command)
    (tmp_path / "images").mkdir()
    PIL.Image.new("RGB", (4, 4)).save(tmp_path / "images" / "a.png")
    assert seen == [("cat", "dog")] == [open_data(str(tmp_path)).class_names]


def test_the_artifact_has_no_paths_of_this_machine(resnet):
    model = onnx.load(str(resnet[0]), load_external_data=False)
    del model.graph.initializer[:]
    for path in (str(Path(torch.__file__).parent), str(Path(__file__).parents[2])):
        assert path.encode() not in model.SerializeToString()
