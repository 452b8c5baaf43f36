"""OpenVINO on the CPU, with our own PaS kernel after the network.

OpenVINO does not know the operator `lidcam::PaS` and does not read its body. So the graph is cut after the activation
map, and our kernel (`lidcam_rt.pas.pas`) makes map, mask and threshold; it is faster than the operators of the body and
returns the same bits.
"""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lidcam_rt.artifact import Manifest
from lidcam_rt.backends.base import Opener, StageHook, Stop, check_threads, unobserved, usable_cores
from lidcam_rt.backends.outputs import OutputCheck
from lidcam_rt.backends.signal_stack import keep_signal_stack
from lidcam_rt.errors import ArtifactError, BackendError, InputError, MissingExtraError
from lidcam_rt.pas import pas

__all__ = ["OpenVinoBackend", "open_backend"]

#: Outputs that the network computes, those that an artifact may lack last.
_NETWORK = ("logits", "class_ids", "cam", "scores")
_PAS = ("map8", "mask", "threshold")
#: What is not in 8-bit integers or half precision in the file is computed in this type.
_HINTS = {"fp32": "f32", "fp16": "f32", "int8": "f32", "bf16": "bf16"}


class OpenVinoBackend:
    """An artifact compiled by OpenVINO. `run` may be called from several threads at once.

    Args:
        ov: the module `openvino`.
        model: the converted network.
        manifest: the artifact's.
        threads: threads of one call; 0: one call at a time, on every usable core.
        precision: of the network, `fp32`, `bf16`, `int8` or `fp16`; the last two only if the file has them.

    Raises:
        BackendError: OpenVINO cannot compile it, or this processor has no such precision.
    """

    def __init__(self, ov: Any, model: Any, manifest: Manifest, threads: int, precision: str) -> None:
        cores = usable_cores()
        self.name = f"openvino {str(ov.__version__).partition('-')[0]}"
        self._ov, self._model, self._manifest, self.precision = ov, model, manifest, precision
        self._threads, calls = (threads, max(1, cores // threads)) if threads else (cores, 1)
        self._shared = threads == 0
        options = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],  # unless told, OpenVINO uses bf16 if it can
            "INFERENCE_NUM_THREADS": self._threads * calls,
            "NUM_STREAMS": calls,
        }
        try:
            core = ov.Core()
            with keep_signal_stack():
                self._compiled = core.compile_model(model, "CPU", options)
            abilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
            hint = self._compiled.get_property("INFERENCE_PRECISION_HINT")
        except Exception as error:
            raise BackendError(f"{self.name} cannot compile the network ({_reason(error)})") from None
        if hint.to_string() != _HINTS[precision] or (precision == "bf16" and "BF16" not in abilities):
            raise BackendError(f"openvino has no {precision} on this processor: use precision='fp32'")
        self._idle: list[Any] = []
        self._lock = threading.Lock()
        self._streams: OpenVinoBackend | None = None
        self._stage: StageHook = unobserved
        self.device = "cpu"
        self.inputs: Sequence[Mapping[str, Any]] = [_described(port) for port in self._compiled.inputs]
        promised = OutputCheck(manifest).outputs
        self.outputs: Sequence[Mapping[str, Any]] = [
            *(_described(port) for port in self._compiled.outputs),
            *(
                {"name": n, "dtype": promised[n][0], "shape": ["batch", *promised[n][1]]}
                for n in (_PAS if manifest.task != "segmentation" else ())
            ),
        ]

    def run(
        self,
        image: npt.NDArray[np.uint8] | npt.NDArray[np.float32],
        labels: npt.NDArray[np.int64] | None,
        outputs: Sequence[str],
        stop: Stop | None = None,
    ) -> dict[str, npt.NDArray[Any]]:
        """See `Backend.run`; a run that was started cannot be stopped."""
        compiled = self._compiled
        if compiled is None:
            raise InputError("this backend is closed; load the artifact again")
        feed: dict[str, npt.NDArray[Any]] = {"image": image}
        if labels is not None:
            feed["labels"] = labels
        with self._lock:
            request = self._idle.pop() if self._idle else None
        try:
            with self._stage("graph"), keep_signal_stack():
                request = request or compiled.create_infer_request()
                request.infer(feed, share_inputs=True)
            needed = {*outputs, "cam"} - set(_PAS) if set(outputs) & set(_PAS) else set(outputs)
            values = {name: np.array(request.get_tensor(name).data) for name in needed}
        except Exception as error:
            raise BackendError(
                f"openvino failed on a batch of {image.shape[0]} ({_reason(error)}). Try a smaller batch size"
            ) from error
        with self._lock:
            self._idle.append(request)
        if set(outputs) & set(_PAS):
            spec = self._manifest.input
            with self._stage("PaS"):
                maps = pas(values["cam"], (spec.height, spec.width), self._manifest.pas, threads=self._threads)
            values |= {"map8": maps.map, "mask": maps.mask.view(np.uint8), "threshold": maps.threshold}
        return {name: values[name] for name in outputs}

    def observe(self, stage: StageHook) -> None:
        """Have a hook entered around the graph (network and CAM) and PaS."""
        self._stage = stage

    def for_streams(self) -> tuple[OpenVinoBackend, int]:
        """Several single-threaded calls, compiled with a copy of the weights when first requested."""
        if not self._shared:
            return self, max(1, usable_cores() // self._threads)
        with self._lock:
            if self._streams is None and usable_cores() > 1:
                self._streams = OpenVinoBackend(self._ov, self._model, self._manifest, 1, self.precision)
        return self._streams or self, usable_cores()

    def close(self) -> None:
        """Free the network."""
        with keep_signal_stack():
            self._compiled = self._model = self._streams = None
            self._idle = []


def _described(port: Any) -> dict[str, Any]:
    shape = [side.get_length() if side.is_static else -1 for side in port.partial_shape]
    return {"name": port.any_name, "dtype": str(np.dtype(port.element_type.to_dtype())), "shape": shape}


def _reason(error: Exception) -> str:
    """OpenVINO's message without its source lines."""
    lines = [line.strip() for line in str(error).splitlines()]
    said = [line for line in lines if line and not line.startswith(("Check ", "Exception from", "FrontEnd API"))]
    return " ".join(said or lines or [type(error).__name__])[:300]


def open_backend(
    path: str | os.PathLike[str],
    manifest: Manifest,
    *,
    device: str = "auto",
    threads: int = 0,
    precision: str = "auto",
) -> OpenVinoBackend:
    """Start OpenVINO on an artifact.

    Args:
        path: the artifact.
        manifest: its manifest.
        device: `auto` or `cpu`.
        threads: threads of one call; 0: one call at a time, on every usable core.
        precision: `auto`, or what the file has; for float32 files also `bf16`: faster where the processor has AMX or
            AVX-512-BF16, and less exact.

    Raises:
        MissingExtraError: OpenVINO is not installed.
        BackendError: OpenVINO cannot compile it here.
        ArtifactError: OpenVINO cannot read the network.
    """
    check_threads(threads)
    try:
        ov: Any = importlib.import_module("openvino")
    except ImportError as error:
        raise MissingExtraError(f"{Path(path).name} with openvino", "openvino", (error.name or "openvino",)) from None
    try:
        reader = ov.frontend.FrontEndManager().load_by_framework("onnx")
        graph = reader.load(os.fspath(path))
        wanted = ("logits", "label_map", "scores") if manifest.task == "segmentation" else _NETWORK
        places = [graph.get_place_by_tensor_name(name) for name in wanted]
        graph.override_all_outputs([place for place in places if place is not None])
        model = reader.convert(graph)
        expected = OutputCheck(manifest).inputs  # free heights and widths are fixed; the batch stays free
        for node in model.get_ops():
            if node.get_type_name() == "TopK":
                node.set_attribute("stable", True)  # among equal logits the first class comes first, as in ONNX
        model.reshape({name: [-1, *shape] for name, (_, shape) in expected.items()})
    except Exception as error:
        raise ArtifactError(
            f"{path}: openvino {ov.__version__} refuses it ({_reason(error)}). Use backend='onnxruntime'"
        ) from None
    has = manifest.arithmetic
    return OpenVinoBackend(ov, model, manifest, threads, precision if (has, precision) == ("fp32", "bf16") else has)


_: Opener = open_backend  # checked by mypy
