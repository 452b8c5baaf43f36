"""The half-precision form of an artifact against the artifact itself, in ONNX Runtime on the CPU."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort

from lidcam_export.agreement import relative_difference, sample_pictures
from lidcam_rt.artifact import Manifest
from lidcam_rt.errors import ExportError
from lidcam_rt.image import network_input

__all__ = ["compare_half"]


def compare_half(full: onnx.ModelProto, half: onnx.ModelProto, manifest: Manifest) -> dict[str, float]:
    """Run both on a few pictures.

    ONNX Runtime rounds to float16 between operators and computes most of them in float32 on a CPU, so the
    differences are those of rounding; a GPU's own sums may differ more.

    Args:
        full: the artifact.
        half: what `to_half` made of it.
        manifest: with the size that the engine is for.

    Returns:
        logits and cam: largest absolute difference over the largest absolute value; map: largest difference of a
        byte; mask_flipped: share of pixels; top1: share of pictures with the same class.

    Raises:
        ExportError: float16 overflows: the network returns values that are not finite.
    """
    pictures, _ = sample_pictures()
    feeds: dict[str, np.ndarray] = {"image": np.stack([network_input(p, manifest.input) for p in pictures])}
    if manifest.labels_input:
        feeds["labels"] = np.full((len(pictures), manifest.top_k), -1, np.int64)
    names = ["logits", "class_ids", "cam", "map8", "mask"]
    options = ort.SessionOptions()
    options.log_severity_level = 3
    (logits, ids, cam, map8, mask), got = (
        ort.InferenceSession(
            model.SerializeToString(), sess_options=options, providers=["CPUExecutionProvider"]
        ).run(names, feeds)
        for model in (full, half)
    )
    if not (np.isfinite(got[0]).all() and np.isfinite(got[2]).all()):
        raise ExportError(
            "in float16 the network overflows on the test pictures (its logits or maps are not finite): build it in "
            "fp32"
        )

    return {
        "logits": relative_difference(got[0], logits),
        "cam": relative_difference(got[2], cam),
        "map": float(np.abs(got[3].astype(int) - map8).max()),
        "mask_flipped": float((got[4] != mask).mean()),
        "top1": float((got[1][:, 0] == ids[:, 0]).mean()),
    }
