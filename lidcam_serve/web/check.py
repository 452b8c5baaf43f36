"""What the artifact returns for a generated picture: WebGPU in a browser must return nearly the same (check.js)."""

from __future__ import annotations

from typing import Any

import numpy as np

from lidcam_rt.image import RgbImage
from lidcam_rt.loading import load
from lidcam_rt.segmentation import Segmenter

__all__ = ["expected", "pattern"]


def pattern(height: int, width: int) -> RgbImage:
    """A picture with edges and gradients, computed in integers so that JavaScript makes the same one."""
    y, x = np.mgrid[:height, :width]
    channels = (x * x * 3 + y * 5) >> 3, (x * 7) ^ (y * 3), (x * y) >> 2
    return np.stack(channels, -1).astype(np.uint8)  # the lowest 8 bits


def expected(model: str) -> dict[str, Any]:
    """Logits and threshold of the pattern at the network's size, by ONNX Runtime on the CPU.

    Args:
        model: an artifact of task localization or multilabel.

    Raises:
        ArtifactError: the artifact cannot be used.
    """
    with load(model, backend="onnxruntime", device="cpu") as loaded:
        assert not isinstance(loaded, Segmenter)
        pipeline = loaded.pipeline
        spec = pipeline.manifest.input
        outputs = pipeline.run([pipeline.prepare(pattern(spec.height, spec.width))])
    logits = [round(float(value), 3) for value in outputs["logits"][0]]
    return {"logits": logits, "threshold": round(float(outputs["threshold"][0, 0]), 3)}
