"""The Python backend of NAME_pictures in Triton: files of pictures in, class, box and mask out.

Triton imports `TritonPythonModel` from the model.py of the repository. The network is another model of the same server,
called through Triton (business logic scripting), so that Triton batches and schedules it; everything around it is
`lidcam_rt.pipeline`. Triton's own module is passed in, so that tests can run this without Triton.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lidcam_rt.artifact import Manifest
from lidcam_rt.backends.base import Stop
from lidcam_rt.errors import BackendError, InputError, LidcamError
from lidcam_rt.pipeline import Pipeline
from lidcam_serve.errors import as_request_error

__all__ = ["PicturesModel", "TritonBackend"]

_log = logging.getLogger("lidcam_serve")


class TritonBackend:
    """A model of the same Triton server as an engine; see `lidcam_rt.backends.base.Backend`.

    Args:
        triton: the module `triton_python_backend_utils`.
        model: name of the model.
        manifest: of its artifact.
    """

    device, precision = "triton", "as served"

    def __init__(self, triton: Any, model: str, manifest: Manifest) -> None:
        self.name = f"Triton model {model}"
        self._triton, self._model = triton, model
        self.inputs: Sequence[dict[str, Any]] = []
        self.outputs: Sequence[dict[str, Any]] = []

    def run(self, image: Any, labels: Any, outputs: Sequence[str], stop: Stop | None = None) -> dict[str, Any]:
        """Run a batch.

        Raises:
            BackendError: Triton refused the request or the model failed.
        """
        given = [("image", image)] if labels is None else [("image", image), ("labels", labels)]
        request = self._triton.InferenceRequest(
            model_name=self._model,
            requested_output_names=list(outputs),
            inputs=[self._triton.Tensor(name, array) for name, array in given],
        )
        answer = request.exec()
        if answer.has_error():
            raise BackendError(f"{self.name}: {answer.error().message()}")
        return {name: self._triton.get_output_tensor_by_name(answer, name).as_numpy() for name in outputs}

    def for_streams(self) -> tuple[TritonBackend, int]:
        """Triton makes batches itself."""
        return self, 1

    def close(self) -> None:
        """Do nothing: the model is the server's."""


class _Pipeline(Pipeline):
    """Calls Triton on the thread that Triton called: Triton handles Ctrl-C."""

    def call(self, image: Any, labels: Any, names: tuple[str, ...], stop: Stop, deadline: float | None) -> Any:
        return self.backend.run(image, labels, names, stop)


class PicturesModel:
    """What model.py derives `TritonPythonModel` from."""

    def start(self, triton: Any, folder: Path) -> None:
        """Read the manifest beside model.py.

        Args:
            triton: the module `triton_python_backend_utils`.
            folder: of model.py.
        """
        told = json.loads((folder / "lidcam.json").read_text(encoding="utf-8"))
        manifest = Manifest.from_metadata(told["metadata"], folder / "lidcam.json")
        self._triton, self._refine = triton, told["refine"]
        backend: Any = TritonBackend(triton, told["network"], manifest)
        self._pipeline = _Pipeline(manifest, backend, name=told["network"], max_pixels=told["max_pixels"])

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer requests; a fault in one is an error of that one only."""
        answers = []
        for request in requests:
            try:
                outputs = self._answer(request)
            except LidcamError as error:
                told = isinstance(error, InputError)
                text = str(as_request_error(error)) if told else "the network failed"
                if not told:
                    _log.error("the network failed: %s", error)
                answers.append(self._triton.InferenceResponse(error=self._triton.TritonError(text)))
            except Exception:  # the others are answered all the same
                _log.exception("a request failed")
                text = "an error in the server; its log says which"
                answers.append(self._triton.InferenceResponse(error=self._triton.TritonError(text)))
            else:
                tensors = [self._triton.Tensor(name, array) for name, array in outputs.items()]
                answers.append(self._triton.InferenceResponse(output_tensors=tensors))
        return answers

    def _answer(self, request: Any) -> dict[str, Any]:
        from lidcam_rt.defaults import refinement, views

        pipeline = self._pipeline
        pictures = self._triton.get_input_tensor_by_name(request, "picture").as_numpy()
        labels = self._triton.get_input_tensor_by_name(request, "labels")
        if pictures.size != 1:
            raise InputError(f"one picture per request, got {pictures.size}: Triton makes the batches")
        ids = None if labels is None else [int(value) for value in labels.as_numpy().ravel() if value >= 0] or None
        wanted, how = pipeline.wanted(ids, None), refinement(pipeline.manifest, self._refine)
        data, averaged = bytes(pictures.ravel()[0]), views(pipeline.manifest, None)
        prepared = pipeline.prepare(data, keep_image=False, refine=how, augment=averaged)
        result = pipeline.localize([prepared], [wanted], how)[0]
        found = (result, *result.others)
        return {
            "class_id": np.array([entry.class_id for entry in found], np.int64),
            "class_name": np.array([entry.class_name.encode() for entry in found], object),
            "score": np.array([entry.score for entry in found], np.float32),
            "box": np.array([entry.box or (-1, -1, -1, -1) for entry in found], np.int64),
            "threshold": np.array([entry.threshold for entry in found], np.float32),
            "mask": np.stack([entry.mask for entry in found]).astype(np.uint8),
        }
