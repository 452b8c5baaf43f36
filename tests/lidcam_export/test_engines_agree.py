"""A real network in the engines of the runtime: OpenVINO against ONNX Runtime, on photos."""

import numpy as np
import pytest
from lidcam_bench.data.records import Record
from lidcam_bench.evaluation.compare import Tolerance, _LocalizerRunner, compare, open_runner
from lidcam_export.precision.quantize import QuantizeOptions, quantize_artifact
from lidcam_export.torch_runner import TorchBackend
from onnx.reference import ReferenceEvaluator
from PIL import Image
from skimage import data

import lidcam_rt
from lidcam_rt.artifact import read_manifest
from lidcam_rt.localizer import Localizer

pytestmark = pytest.mark.slow  # not in make quick

EPSILON = np.finfo(np.float32).eps


def test_openvino_gives_onnxruntimes_results(resnet10):
    """Differences are those of two orders of float32 sums; docs/artifact.md states what was measured."""
    pytest.importorskip("openvino", reason="extra openvino is not installed")
    photos = [data.astronaut(), data.chelsea(), data.coffee(), data.rocket()]
    with (
        lidcam_rt.load(resnet10, backend="openvino") as ours,
        lidcam_rt.load(resnet10, backend="onnxruntime", device="cpu") as theirs,
    ):
        prepared = [ours.pipeline.prepare(photo) for photo in photos]
        a, b = (engine.pipeline.run(prepared, outputs=("logits", "cam", "map8")) for engine in (ours, theirs))
        for name in ("logits", "cam"):
            assert np.abs(a[name] - b[name]).max() <= 200 * EPSILON * np.abs(b[name]).max()
        assert np.abs(a["map8"].astype(int) - b["map8"]).max() <= 1
        for photo in photos:
            x, y = ours(photo), theirs(photo)
            assert (x.class_id, x.box) == (y.class_id, y.box) or np.abs(np.subtract(x.box, y.box)).max() <= 1
            assert (x.mask != y.mask).mean() <= 1e-3
            assert x.engine.startswith("openvino") and x.engine.endswith("cpu, fp32")


class ReferenceBackend:
    """onnx.reference behind the runtime's Localizer: the definition of every operator, in numpy."""

    name, device, precision = "onnx.reference", "cpu", "fp32"

    def __init__(self, path, like):
        self._evaluator = ReferenceEvaluator(str(path))
        self.inputs, self.outputs = like.inputs, like.outputs

    def run(self, image, labels, outputs, stop=None):
        return dict(zip(outputs, self._evaluator.run(list(outputs), {"image": image, "labels": labels}), strict=True))

    def for_streams(self):
        return self, 1

    def close(self):
        pass


@pytest.fixture(scope="module")
def lowered(tiny, tmp_path_factory):
    """The tiny network in int8 and fp16, and pictures."""
    folder = tmp_path_factory.mktemp("lowered")
    (folder / "images").mkdir()
    rng = np.random.default_rng(1)
    for number in range(16):
        coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
        coarse.resize((64, 48), Image.Resampling.BICUBIC).save(folder / "images" / f"{number:02d}.png")
    quantize_artifact(tiny[0], folder / "int8.onnx", QuantizeOptions(calibration=folder, pictures=8))
    quantize_artifact(tiny[0], folder / "fp16.onnx", QuantizeOptions(precision="fp16", held_out=folder))
    return folder


#: What is run, how, and the lowest mean mask IoU with ONNX Runtime and the operator library.
WAYS = {
    "onnxruntime, standard operators": ("fp32", 0.999),
    "openvino": ("fp32", 0.999),
    "openvino, int8": ("int8", 0.9),
    "onnxruntime, int8": ("int8", 0.9),
    "onnxruntime, fp16": ("fp16", 0.98),
    "openvino, fp16": ("fp16", 0.98),
    "onnx.reference": ("fp32", 0.999),
    "pytorch": ("fp32", 0.999),
}


@pytest.mark.parametrize("way", WAYS)
def test_compare_over_every_engine_and_precision(way, tiny, lowered, monkeypatch):
    engine, (precision, least) = way.split(",")[0], WAYS[way]
    path = tiny[0] if precision == "fp32" else lowered / f"{precision}.onnx"
    reference = open_runner(tiny[0], backend="onnxruntime", device="cpu")
    if "standard operators" in way:
        monkeypatch.setenv("LIDCAM_OPS", "off")
    if engine == "openvino":
        pytest.importorskip("openvino", reason="extra openvino is not installed")
    if engine == "pytorch":
        other = _LocalizerRunner(Localizer(TorchBackend(tiny[1]), read_manifest(path)))
    elif engine == "onnx.reference":
        backend = ReferenceBackend(path, reference.localizer.backend)
        other = _LocalizerRunner(Localizer(backend, read_manifest(path)))
    else:
        other = open_runner(path, backend=engine, device="cpu")
    assert other.name.endswith(f"cpu, {precision}") and other.name.startswith(engine)
    records = [Record(image=path) for path in sorted((lowered / "images").iterdir())]
    exact = precision == "fp32"
    tolerance = Tolerance(top1=100 if exact else 80, mask_iou=least, flipped=0.1 if exact else 10, metric=1)
    result = compare(reference, other, records[:4] if engine == "onnx.reference" else records, tolerance)
    assert result.faults == [], result.total
