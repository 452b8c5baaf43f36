"""A real network in the engines of the runtime: OpenVINO against ONNX Runtime, on photos."""

import numpy as np
import pytest
from skimage import data

import lidcam_rt

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
