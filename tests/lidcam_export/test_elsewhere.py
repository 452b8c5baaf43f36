"""The artifact in engines that know nothing of lidcam, against ONNX Runtime; docs/artifact.md lists these engines.

`plain` is the artifact as `lidcam export` writes it, with a model function; `portable` is what `--portable` writes.
"""

import re
import subprocess
from pathlib import Path

import cv2
import downloads
import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from lidcam_export.exporter import export_artifact
from lidcam_export.graph.operator import write_out
from lidcam_export.options import ExportOptions
from lidcam_export.tensorrt.network import fix_size
from lidcam_training.checkpoint import CheckpointMeta, save_checkpoint
from lidcam_training.models import ClassifierSpec, build_classifier

from lidcam_rt.artifact import read_manifest

pytestmark = pytest.mark.slow  # not in make quick

OUTPUTS = ("logits", "class_ids", "scores", "cam", "map8", "mask", "threshold")
#: (pictures, height, width): the artifact's size and another one
SHAPES = ((2, 96, 96), (1, 320, 250))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The artifact in both forms; free batch, height and width, two classes a picture."""
    folder = tmp_path_factory.mktemp("elsewhere")
    torch.manual_seed(0)
    spec = ClassifierSpec("lidcam_seresnet_small", 5)
    model = build_classifier(spec)
    torch.nn.init.normal_(model.head.weight)
    save_checkpoint(model, CheckpointMeta(spec, tuple("abcde"), (96, 96)), folder / "checkpoint")
    for form in ("plain", "portable"):
        options = ExportOptions(top_k=2, portable=form == "portable")
        manifest, _ = export_artifact(str(folder / "checkpoint"), folder / f"{form}.onnx", options)
        assert manifest.input.dynamic_size
    return folder


def feeds(shape):
    n, height, width = shape
    rng = np.random.default_rng(height)
    coarse = rng.integers(0, 256, (n, 9, 7, 3), dtype=np.uint8)
    image = np.stack([cv2.resize(p, (width, height), interpolation=cv2.INTER_CUBIC) for p in coarse])
    labels = np.full((n, 2), -1, np.int64)
    labels[0, 1] = 3
    return {"image": image, "labels": labels}


def in_onnxruntime(file, inputs, library=None):
    options = ort.SessionOptions()
    if library is not None:
        options.register_custom_ops_library(str(library))
    return dict(zip(OUTPUTS, ort.InferenceSession(str(file), options).run(OUTPUTS, inputs), strict=True))


def same(results, expected):
    """Equal up to rounding of sums, which may move a byte of the map by one; less than a mask pixel in 10,000."""
    assert np.abs(results["logits"] - expected["logits"]).max() <= 1e-4 * np.abs(expected["logits"]).max()
    assert np.abs(results["cam"] - expected["cam"]).max() <= 1e-4 * np.abs(expected["cam"]).max()
    assert np.array_equal(results["class_ids"], expected["class_ids"])
    assert np.abs(results["map8"].astype(int) - expected["map8"]).max() <= 1
    assert np.array_equal(results["threshold"], expected["threshold"])
    assert (results["mask"] != expected["mask"]).mean() < 1e-4
    assert 0 < expected["mask"].mean() < 1


def test_the_portable_form_has_standard_operators_only_and_the_same_manifest(files):
    model = onnx.load(files / "portable.onnx")
    assert not model.functions and {entry.domain for entry in model.opset_import} == {""}
    assert {node.domain for node in model.graph.node} == {""}
    assert read_manifest(files / "portable.onnx") == read_manifest(files / "plain.onnx")


@pytest.mark.parametrize("shape", SHAPES)
def test_onnxruntime_without_and_with_the_operator_library(files, library, shape):
    inputs = feeds(shape)
    expected = in_onnxruntime(files / "plain.onnx", inputs)
    same(in_onnxruntime(files / "portable.onnx", inputs), expected)
    same(in_onnxruntime(files / "portable.onnx", inputs, library), expected)
    same(in_onnxruntime(files / "plain.onnx", inputs, library), expected)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("form", ["portable", "plain, functions inlined by onnx.inliner"])
def test_openvino(files, form, shape):
    openvino = pytest.importorskip("openvino")
    inputs = feeds(shape)
    model = onnx.load(files / "portable.onnx") if form == "portable" else write_out(onnx.load(files / "plain.onnx"))
    core = openvino.Core()
    network = core.read_model(model.SerializeToString())
    compiled = core.compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    results = compiled(inputs)
    same({output.get_any_name(): results[output] for output in compiled.outputs},
         in_onnxruntime(files / "plain.onnx", inputs))  # fmt: skip


def test_openvino_refuses_model_functions_rather_than_running_them_wrongly(files):
    openvino = pytest.importorskip("openvino")
    with pytest.raises(RuntimeError, match=r"lidcam\.PaS"):
        openvino.Core().read_model((files / "plain.onnx").read_bytes())


@pytest.mark.parametrize("form", ["plain", "portable"])
def test_the_onnx_reference(files, form):
    from onnx.reference import ReferenceEvaluator

    inputs = feeds((1, 64, 48))
    results = ReferenceEvaluator(str(files / f"{form}.onnx")).run(list(OUTPUTS), inputs)
    same(dict(zip(OUTPUTS, map(np.asarray, results), strict=True)), in_onnxruntime(files / "plain.onnx", inputs))


def test_opencv_runs_the_portable_form_with_fixed_height_and_width(files):
    if int(cv2.__version__.split(".")[0]) < 5:
        pytest.skip(f"OpenCV {cv2.__version__} has no dynamic shapes inside a network; 5.0 and newer have")
    model = fix_size(onnx.load(files / "portable.onnx"), 96, 96)
    network = cv2.dnn.readNetFromONNX(np.frombuffer(model.SerializeToString(), np.uint8))
    inputs = feeds((1, 96, 96))
    for name, value in inputs.items():
        network.setInput(value, name)
    same({name: network.forward(name) for name in OUTPUTS}, in_onnxruntime(files / "plain.onnx", inputs))


@pytest.mark.parametrize("form", ["plain", "portable"])
def test_onnxruntime_web(files, tmp_path, form):
    packages = downloads.npm_package("onnxruntime-web@1.30.0")
    inputs = feeds(SHAPES[1])
    (tmp_path / "model.onnx").write_bytes((files / f"{form}.onnx").read_bytes())
    for name, value in inputs.items():
        value.tofile(tmp_path / f"{name}.bin")
    shape = [str(v) for v in (*inputs["image"].shape[:3], 2)]
    script = Path(__file__).with_name("onnxruntime_web.mjs")
    done = subprocess.run(
        ["node", str(script), str(tmp_path), str(packages), *shape], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    expected = in_onnxruntime(files / "plain.onnx", inputs)
    results = {name: np.fromfile(tmp_path / f"{name}.bin", v.dtype).reshape(v.shape) for name, v in expected.items()}
    same(results, expected)


def test_the_page_lists_these_engines():
    """A row of the table for each engine above, and no other."""
    page = (Path(__file__).parents[2] / "docs" / "artifact.md").read_text()
    rows = re.findall(r"^\| (.*?) \|", page.split("## In other engines")[1].split("\n## ")[0], re.M)
    engines = ["ONNX Runtime", "onnxruntime-web", "OpenVINO", "onnx.reference", "OpenCV dnn"]
    assert [row.split(",")[0] for row in rows if row not in ("engine", "---")] == engines
