"""The talk's network at its size: timm's seresnet50, 384, stride 16 and 32, in batches and odd sizes.

A batch of 32 runs at stride 32 only; at stride 16, where the last stage is four times the work, the largest has 4.
"""

import numpy as np
import onnxruntime as ort
import pytest
import torch
from lidcam_export.exporter import export_artifact
from lidcam_export.graph.localization import LocalizationGraph
from lidcam_export.options import ExportOptions
from lidcam_export.sources.network import Request
from lidcam_export.sources.source import load_source

from lidcam_rt.pas import pas_reference


@pytest.mark.slow
@pytest.mark.parametrize(("stride", "largest"), [(16, 4), (32, 32)])
def test_seresnet50_equals_pytorch(tmp_path, stride, largest):
    torch.manual_seed(0)
    state = load_source("timm:seresnet50", Request(random_weights=True)).module.state_dict()
    torch.save(state, tmp_path / "weights.pth")
    weights = tmp_path / "weights.pth"
    options = ExportOptions(weights=weights, size=(384, 384), stride=stride, pooling="tap", tap_threshold=0.05)
    manifest, agreement = export_artifact("timm:seresnet50", tmp_path / "m.onnx", options)
    assert manifest.cam.stride == stride and manifest.input.dynamic_size and agreement.top1 == 1
    source = load_source("timm:seresnet50", Request(weights, stride=stride))
    graph = LocalizationGraph(source, manifest).eval()
    session = ort.InferenceSession(str(tmp_path / "m.onnx"))
    rng = np.random.default_rng(0)
    for batch, height, width in ((1, 384, 384), (3, 301, 250), (1, 97, 415), (largest, 384, 384)):
        image = rng.integers(0, 256, (batch, height, width, 3), dtype=np.uint8)
        labels = np.full((batch, 1), -1, np.int64)
        labels[-1] = 7
        names = ["logits", "class_ids", "cam", "map8", "mask"]
        logits, ids, cam, map8, mask = session.run(names, {"image": image, "labels": labels})
        with torch.inference_mode():
            want = graph(torch.from_numpy(image), torch.from_numpy(labels))
        for got, expected in ((logits, want[0]), (cam, want[3])):
            assert np.abs(got - expected.numpy()).max() <= 1e-3 * float(expected.abs().max()), (batch, height, width)
        np.testing.assert_array_equal(ids, want[1].numpy())
        assert cam.shape == (batch, 1, -(-height // stride), -(-width // stride))
        standard = pas_reference(cam[-1:], (height, width))
        assert (mask[-1:].astype(bool) != standard.mask).mean() <= 1e-5
        assert np.abs(map8[-1:].astype(int) - standard.map).max() <= 1
