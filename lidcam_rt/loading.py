"""`lidcam_rt.load`: from a file to the object that runs it, by the task in its manifest."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lidcam_rt.backends import manifest_of
from lidcam_rt.errors import InputError, MissingExtraError
from lidcam_rt.image import MAX_PIXELS
from lidcam_rt.loaded import open_loaded
from lidcam_rt.localizer import Localizer

if TYPE_CHECKING:
    from lidcam_rt.segmentation import Segmenter

__all__ = ["load"]


def load(
    path: str | os.PathLike[str],
    *,
    backend: str = "auto",
    device: str = "auto",
    threads: int = 0,
    precision: str = "auto",
    max_pixels: int = MAX_PIXELS,
    strict: bool = True,
    deadline: float | None = None,
) -> Localizer | Segmenter:
    """Load an artifact: a Localizer, or for task `segmentation` a Segmenter.

    Args:
        path: an .onnx file made by `lidcam export`, or an .engine file made by `lidcam build`.
        backend: `auto`, `onnxruntime`, `openvino` or `tensorrt`. `tensorrt` takes an artifact's engine from the cache
            of `lidcam build`, or builds it first (minutes; needs the extra `export`). `auto` is TensorRT for engines
            and ONNX Runtime for artifacts, except that int8 artifacts of `lidcam quantize` run in OpenVINO on the CPU
            if it is installed; if that choice lacks the precision, `auto` is an installed engine that has it.
        device: `auto`, `cpu`, `cuda` or `cuda:INDEX`. A device that you name is the one that runs: there is no silent
            fallback to the CPU.
        threads: threads of one network call on the CPU; 0: one per usable core.
        precision: of the network's arithmetic: `auto` (as exported or built), `fp32`, or `bf16` (OpenVINO; faster where
            the processor has AMX or AVX-512-BF16, and less exact).
        max_pixels: pictures with more pixels are refused.
        strict: refuse pictures with missing or damaged data; False: localize in what can be read of them, and record
            in the result what was missing.
        deadline: seconds that the first run of the network may take, for artifacts of unknown origin, whose graph may
            never end; None: no limit.

    Raises:
        ArtifactError: the file is missing, damaged, not a lidcam artifact, or of a newer schema.
        BackendError: the backend or device is not available here.
        MissingExtraError: the backend is not installed.
        InputError: an argument is not recognised.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise InputError(f"load needs the path of an artifact or engine, got {type(path).__name__}: write it to a file")
    if backend == "tensorrt" and Path(path).suffix.lower() != ".engine":
        path = _engine_of(Path(path), device, precision)
    manifest = manifest_of(path)
    options: dict[str, Any] = {
        "backend": backend, "device": device, "threads": threads, "precision": precision, "max_pixels": max_pixels,
        "strict": strict, "deadline": deadline,
    }  # fmt: skip
    if manifest.task == "segmentation":
        from lidcam_rt.segmentation import Segmenter

        return open_loaded(Segmenter, path, manifest, options)
    return open_loaded(Localizer, path, manifest, options)


def _engine_of(artifact: Path, device: str, precision: str) -> Path:
    """An artifact's engine, by the package that builds engines (entry point group `lidcam.builders`)."""
    from importlib.metadata import entry_points

    from lidcam_rt.backends.base import parse_device

    _, index = parse_device(device)
    what = f"an engine of {artifact.name}"
    for entry in entry_points(group="lidcam.builders", name="tensorrt"):
        try:
            builder = entry.load()
        except ImportError as error:
            raise MissingExtraError(what, "export", (error.name or "onnx",)) from None
        return Path(builder(artifact, index, precision))
    raise MissingExtraError(what, "export", ("lidcam_export",))
