"""A folder that `lidcam train` wrote."""

from __future__ import annotations

from pathlib import Path

from lidcam_training.checkpoint import load_checkpoint

from lidcam_export.sources.network import LoadedNetwork, Request, Settings
from lidcam_export.structure import Structure
from lidcam_rt.artifact import SourceSpec
from lidcam_rt.errors import ExportError

__all__ = ["load"]


def load(path: str, request: Request) -> LoadedNetwork:
    """Read the checkpoint, which holds weights, structure and settings.

    Raises:
        ExportError: other weights or another stride were requested.
        DataError: the checkpoint cannot be read.
    """
    if request.weights or request.random_weights or request.ema is not None:
        raise ExportError("a checkpoint has its own weights: leave --weights, --random-weights and --ema out")
    if request.stride is not None:
        raise ExportError("a checkpoint keeps the stride it was trained with: leave --stride out")
    checkpoint = load_checkpoint(Path(path))
    model, meta = checkpoint.model, checkpoint.meta
    weight, bias = model.head_weight.detach(), model.head_bias.detach()
    return LoadedNetwork(
        model,
        SourceSpec(name=Path(path).name, weights="model.safetensors", weights_sha256=checkpoint.weights_sha256),
        Settings(
            size=meta.size,
            mean=meta.mean,
            std=meta.std,
            interpolation=meta.interpolation,
            task=meta.task,
            pooling=model.pooling,
            tap_threshold=model.tap_threshold,
            nwc=meta.nwc,
            percentile=meta.percentile,
            theta=meta.theta,
        ),
        class_names=tuple(meta.class_names),
        structure=Structure(model.forward_features, weight, bias, "neck", "head"),
    )
