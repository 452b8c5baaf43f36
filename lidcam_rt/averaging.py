"""The runs of an augmentation: the network on every view, and the mean of the views' maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from lidcam_rt.artifact import Manifest
from lidcam_rt.backends.base import Backend, StageHook, Stop
from lidcam_rt.backends.outputs import OutputCheck
from lidcam_rt.errors import InputError
from lidcam_rt.prepared import Outputs, Prepared

__all__ = ["Runner", "averaged"]


class Runner(Protocol):
    """What runs the network: a `Pipeline`.

    Attributes:
        manifest: the artifact's manifest.
        backend: the engine.
        check: the check of its outputs.
        stage: entered around each step.
    """

    manifest: Manifest
    backend: Backend
    check: OutputCheck
    stage: StageHook

    def call(self, image: Any, labels: Any, names: tuple[str, ...], stop: Stop, deadline: float | None) -> Outputs:
        """One run of the engine, unchecked."""
        ...


def averaged(pipeline: Runner, prepared: Sequence[Prepared], results: Outputs, stop: Stop) -> Outputs:
    """The outputs of a run with the maps of all views averaged; the network runs once per scale for all pictures.

    Args:
        pipeline: what runs the artifact.
        prepared: pictures with views.
        results: outputs of a run of one view.
        stop: ends the runs early.

    Raises:
        InputError: the artifact takes no labels, or the engine takes no other size.
    """
    manifest, augment = pipeline.manifest, prepared[0].augment
    assert augment is not None
    segments = manifest.task == "segmentation"
    wanted, labels, count = ("logits",) if segments else ("cam", "logits"), None, 1 + augment.flip
    if not segments:
        if not manifest.labels_input:
            raise InputError("augment needs an artifact that takes labels: export it with the labels input")
        labels = np.repeat(results["class_ids"], count, axis=0)
    runs = []
    for scale in range(len(augment.scales)):
        stacked: Any = np.concatenate([entry.views[scale] for entry in prepared])
        _check_size(pipeline.backend, stacked.shape)
        with pipeline.stage("network"):
            found = pipeline.call(stacked, labels, wanted, stop, None)
        pipeline.check.values(found, labels, len(stacked))
        runs.append({name: value.reshape(len(prepared), count, *value.shape[1:]) for name, value in found.items()})
    with pipeline.stage("maps"):
        merged = np.stack([augment.merge([run[wanted[0]][row] for run in runs]) for row in range(len(prepared))])
        if segments:
            return {**results, "logits": merged}
        from lidcam_rt.pas import pas

        logits = np.asarray(np.mean([run["logits"].mean(1) for run in runs], axis=0), np.float32)
        maps = pas(merged, (manifest.input.height, manifest.input.width), manifest.pas)
        return {**results, "logits": logits, "map8": maps.map, "threshold": maps.threshold}


def _check_size(backend: Backend, shape: tuple[int, ...]) -> None:
    """Raise InputError if the engine takes one size only and this is another."""
    declared = next(entry["shape"] for entry in backend.inputs if entry["name"] == "image")
    fixed = any(isinstance(a, int) and a > 0 and a != b for a, b in zip(declared[1:], shape[1:], strict=True))
    if fixed and not getattr(backend, "takes_other_sizes", False):
        raise InputError(
            f"{backend.name} runs this artifact at one size only: use views of scale 1 (augment='flip'), or "
            "backend='onnxruntime'"
        )
