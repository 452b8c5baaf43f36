"""Outputs of a graph compared with its manifest: an artifact may be damaged or hostile, and an engine may be wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from lidcam_rt.artifact import Manifest
from lidcam_rt.errors import ArtifactError, BackendError

__all__ = ["OutputCheck"]

_REQUIRED = ("logits", "class_ids", "map8", "threshold")


class OutputCheck:
    """The inputs and outputs that a manifest promises.

    Args:
        manifest: the artifact's.
        name: of the file, for messages.
    """

    def __init__(self, manifest: Manifest, name: str = "the artifact") -> None:
        spec, k = manifest.input, manifest.top_k
        self._name = name
        self._classes = len(manifest.class_names)
        size = (spec.height, spec.width)
        image = (*size, 3) if spec.layout == "NHWC" else (3, *size)
        #: dtype and shape after the batch dimension; None: not specified.
        self.inputs: dict[str, tuple[str, tuple[int | None, ...]]] = {"image": (spec.dtype, image)}
        if manifest.labels_input:
            self.inputs["labels"] = ("int64", (k,))
        self.outputs: dict[str, tuple[str, tuple[int | None, ...]]] = {
            "logits": ("float32", (self._classes,)),
            "class_ids": ("int64", (k,)),
            "scores": ("float32", (k,)),
            "cam": ("float32", (k, None, None)),
            "map8": ("uint8", (k, *size)),
            "mask": ("uint8", (k, *size)),
            "threshold": ("float32", (k,)),
        }
        self._required: tuple[str, ...] = _REQUIRED
        if manifest.task == "segmentation":
            self._required = ("logits", "label_map", "scores")
            self.outputs = {
                "logits": ("float32", (1 + self._classes, None, None)),
                "label_map": ("uint8", size),
                "scores": ("float32", (self._classes,)),
            }

    def declared(self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]) -> None:
        """Check the inputs and outputs that an engine declares; free sizes match any.

        Raises:
            ArtifactError: a name, dtype or shape is not the manifest's.
        """
        names = {str(entry["name"]) for entry in inputs}
        if names != set(self.inputs):
            self._refuse(f"it has the inputs {_listed(names)}, but the manifest says {_listed(self.inputs)}")
        missing = set(self._required) - {str(entry["name"]) for entry in outputs}
        if missing:
            self._refuse(f"the outputs {_listed(missing)} are missing")
        for entries, expected in ((inputs, self.inputs), (outputs, self.outputs)):
            for entry in entries:
                if entry["name"] in expected:
                    dtype, shape = expected[entry["name"]]
                    given = entry["shape"] or [None] * (1 + len(shape))  # no shape: not known before a run
                    sides = [side if isinstance(side, int) and side >= 0 else None for side in given]
                    if entry["dtype"] != dtype or not _fits(sides, (None, *shape)):
                        self._differs(entry["name"], entry["dtype"], entry["shape"])

    def values(self, outputs: Mapping[str, Any], labels: npt.NDArray[np.int64] | None, rows: int) -> None:
        """Check the outputs of one run.

        Args:
            outputs: by name.
            labels: the input `labels` of that run, int64 [N, K], or None.
            rows: N.

        Raises:
            ArtifactError: a dtype, shape or class id is not the manifest's.
            BackendError: logits or thresholds are not finite.
        """
        for name, value in outputs.items():
            if name in self.outputs:
                dtype, shape = self.outputs[name]
                if not isinstance(value, np.ndarray):
                    self._differs(name, type(value).__name__, ())
                if value.dtype != dtype or not _fits(value.shape, (rows, *shape)):
                    self._differs(name, str(value.dtype), value.shape)
        ids = outputs.get("class_ids")
        if ids is not None and ids.size:
            low, high, last = int(ids.min()), int(ids.max()), self._classes - 1
            if low < 0 or high > last:
                self._refuse(f"the output class_ids holds {low} to {high}, the manifest has the classes 0 to {last}")
            if labels is not None and not np.array_equal(ids[labels >= 0], labels[labels >= 0]):
                self._refuse("the output class_ids is not what the input labels asked for")
        labels_found = outputs.get("label_map")
        if labels_found is not None and labels_found.max(initial=0) > self._classes:
            self._refuse(f"the output label_map holds {int(labels_found.max())}, there are {self._classes} classes")
        for name in ("logits", "threshold", "scores"):
            value = outputs.get(name)
            if value is not None:
                self._finite(name, value)

    def all_values(self, outputs: Mapping[str, Any], labels: npt.NDArray[np.int64] | None, rows: int) -> None:
        """`values`, and the range of every output; for the first run of a session.

        Raises:
            ArtifactError: as in `values`, or masks or scores are out of range.
            BackendError: as in `values`, or the activation map is not finite.
        """
        self.values(outputs, labels, rows)
        mask, scores, cam = outputs.get("mask"), outputs.get("scores"), outputs.get("cam")
        if mask is not None and mask.max(initial=0) > 1:
            self._refuse(f"the output mask holds {int(mask.max())}, a mask is 0 or 1")
        if scores is not None and scores.size and not 0 <= float(scores.min()) <= float(scores.max()) <= 1 + 1e-5:
            self._refuse(f"the output scores holds {float(scores.min()):g} to {float(scores.max()):g}, not 0 to 1")
        if cam is not None:
            self._finite("cam", cam)

    def _finite(self, name: str, value: npt.NDArray[Any]) -> None:
        if not np.isfinite(value).all():
            raise BackendError(
                f"{self._name}: the network produced NaN or infinite values in the output {name}. Check the weights "
                "that were exported"
            )

    def _differs(self, name: str, got: str, sides: Sequence[object]) -> NoReturn:
        dtype, shape = (self.inputs | self.outputs)[name]
        expected = ", ".join("any" if side is None else str(side) for side in ("batch", *shape))
        shown = ", ".join(map(str, sides))
        self._refuse(f"{name} is {got} [{shown}], the manifest says {dtype} [{expected}]")

    def _refuse(self, reason: str) -> NoReturn:
        raise ArtifactError(f"{self._name}: its graph does not fit its manifest: {reason}. Export it again")


def _fits(sides: Sequence[int | None], expected: Sequence[int | None]) -> bool:
    return len(sides) == len(expected) and all(
        a is None or b is None or a == b for a, b in zip(sides, expected, strict=True)
    )


def _listed(names: Any) -> str:
    return ", ".join(sorted(names))
