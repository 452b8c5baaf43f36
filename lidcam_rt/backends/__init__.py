"""Engines that run an artifact: one file per engine, found by name."""

from __future__ import annotations

import importlib
import os
from typing import cast

from lidcam_rt.artifact import Manifest
from lidcam_rt.backends.base import Backend, Opener
from lidcam_rt.backends.engine_file import ENGINE_SUFFIX
from lidcam_rt.errors import InputError

__all__ = ["BACKENDS", "Backend", "open_backend"]

#: Module of each backend; it has a function `open_backend` (see `base.Opener`).
BACKENDS: dict[str, str] = {
    "onnxruntime": "lidcam_rt.backends.onnxruntime",
    "tensorrt": "lidcam_rt.backends.tensorrt",
}


def open_backend(
    path: str | os.PathLike[str],
    manifest: Manifest,
    *,
    backend: str = "auto",
    device: str = "auto",
    threads: int = 0,
) -> Backend:
    """Start an engine on an artifact.

    Args:
        path: the artifact, or an engine that `lidcam build` made of one.
        manifest: its manifest.
        backend: a name of BACKENDS, or `auto`: TensorRT for engines, ONNX Runtime for artifacts.
        device: `auto`, `cpu`, `cuda` or `cuda:INDEX`.
        threads: threads of one call on the CPU; 0: one per usable core.

    Raises:
        InputError: backend, device or threads is none that is known.
        BackendError: the engine cannot run it here, or would run it elsewhere than asked for.
        ArtifactError: the engine refuses the file.
    """
    engine = os.fspath(path).endswith(ENGINE_SUFFIX)
    name = ("tensorrt" if engine else "onnxruntime") if backend == "auto" else backend
    if name not in BACKENDS:
        raise InputError(f"backend must be one of auto, {', '.join(BACKENDS)}, got {backend!r}")
    if engine and name != "tensorrt":
        raise InputError(f"{os.fspath(path)} is an engine of TensorRT: {name} runs the artifact it was built from")
    opener = cast(Opener, importlib.import_module(BACKENDS[name]).open_backend)
    return opener(path, manifest, device=device, threads=threads)
