"""What the page is told about a model."""

from __future__ import annotations

from typing import Any

from lidcam_rt.artifact import Manifest

__all__ = ["describe_manifest"]


def describe_manifest(manifest: Manifest) -> dict[str, Any]:
    """As plain values: task, classes, top_k, labels, pas (None for segmentation networks), weights_license."""
    pas = manifest.pas
    return {
        "task": manifest.task,
        "classes": list(manifest.class_names),
        "top_k": manifest.top_k,
        "labels": manifest.labels_input,
        "pas": None
        if manifest.task == "segmentation"
        else {
            "percentile": pas.percentile,
            "theta": pas.theta,
            "mode": pas.mode,
            "precision": pas.precision,
            "where": pas.where,
        },
        "weights_license": manifest.weights_license,
    }
