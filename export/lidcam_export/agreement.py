"""How far an artifact in ONNX Runtime is from PyTorch."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import torch

from lidcam_export.graph.localization import LocalizationGraph
from lidcam_rt.artifact import InputSpec, Manifest
from lidcam_rt.backends.onnxruntime import session_source
from lidcam_rt.files import file_sha256
from lidcam_rt.image import network_input
from lidcam_rt.pas import pas_reference
from lidcam_rt.version import __version__

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["Agreement", "compare_with_pytorch", "export_record", "relative_difference", "sample_pictures"]


@dataclass(frozen=True)
class Agreement:
    """How far the file in ONNX Runtime is from PyTorch, on `pictures` pictures.

    Attributes:
        pictures: how many, and whether they are photos.
        logits: largest absolute difference over the largest absolute logit.
        cam: the same of the activation maps.
        map: largest difference of a byte of the localization map.
        mask_flipped: share of mask pixels that differ.
        top1: share of pictures with the same class.
        identity: largest difference between a logit and the mean of its signed map plus the offset (the bias of a
            linear head), over the largest absolute logit; 0 where pooling is TAP.
    """

    pictures: str
    logits: float
    cam: float
    map: int
    mask_flipped: float
    top1: float
    identity: float = 0.0

    def __str__(self) -> str:
        """The text in the summary of an export and in its errors."""
        return (
            f"{self.pictures}: logits {self.logits:.1e}, CAM {self.cam:.1e} (relative), map {self.map} of 255, "
            f"mask {self.mask_flipped:.1e} of pixels; mean of map + offset = logit to {self.identity:.1e}"
        )

    @property
    def holds(self) -> bool:
        """Whether the file may be written: the same classes, and only rounding differences in the rest."""
        return self.top1 == 1 and max(self.logits, self.cam, self.mask_flipped, self.identity) <= 1e-3


def export_record(artifact: Path, agreement: DataclassInstance) -> str:
    """What is written beside an artifact, as JSON: the file's SHA-256, the comparison, and the versions that made it.

    Args:
        artifact: the finished file.
        agreement: its comparison with PyTorch, a dataclass.
    """
    record = {
        "artifact_sha256": file_sha256(artifact),
        "agreement": asdict(agreement),
        "versions": {"lidcam_rt": __version__, "torch": torch.__version__, "onnxruntime": ort.__version__},
    }
    return json.dumps(record, indent=1) + "\n"


def sample_pictures() -> tuple[list[npt.NDArray[np.uint8]], str]:
    """Pictures for comparisons, uint8 [H, W, 3], and a description of them."""
    try:
        from skimage import data
    except ImportError:
        rng = np.random.default_rng(0)
        coarse = [rng.integers(0, 256, (7, 7, 3), dtype=np.uint8) for _ in range(3)]
        smooth = [cv2.resize(p, (320, 240), interpolation=cv2.INTER_CUBIC).astype(np.uint8) for p in coarse]
        return smooth, "3 synthetic pictures (scikit-image is not installed)"
    photos: Any = data
    return [photos.astronaut(), photos.chelsea(), photos.coffee()], "3 photos of scikit-image"


def relative_difference(values: npt.NDArray[Any], reference: npt.NDArray[Any]) -> float:
    """Largest absolute difference over the largest absolute value of the reference."""
    return float(np.abs(values - reference).max() / max(float(np.abs(reference).max()), 1e-12))


def compare_with_pytorch(path: Path, graph: LocalizationGraph, manifest: Manifest) -> Agreement:
    """The worst of: all pictures at the declared size; where that is free, one at another size, its class given.

    Args:
        path: the .onnx file.
        graph: the same in PyTorch.
        manifest: of the file.
    """
    pictures, kind = sample_pictures()
    settings = ort.SessionOptions()
    settings.log_severity_level = 4  # a failure is the caller's to report
    session = ort.InferenceSession(session_source(path), settings, providers=["CPUExecutionProvider"])
    runs = [_difference(session, graph, manifest, manifest.input, pictures, None)]
    if manifest.input.dynamic_size:
        spec = manifest.input
        size = {"height": spec.height + spec.height // 4 + 1, "width": spec.width + spec.width // 3 + 3}
        label = 0 if manifest.labels_input else None
        runs.append(_difference(session, graph, manifest, spec.model_copy(update=size), pictures[:1], label))
    *errors, top1 = zip(*runs, strict=True)
    logits, cam, map8, flipped = (max(column) for column in errors)
    images = torch.from_numpy(np.stack([network_input(picture, manifest.input) for picture in pictures]))
    identity = graph.head.identity_error(graph.normalise(images))
    return Agreement(kind, logits, cam, int(map8), flipped, min(top1), identity)


def _difference(
    session: ort.InferenceSession,
    graph: LocalizationGraph,
    manifest: Manifest,
    spec: InputSpec,
    pictures: list[npt.NDArray[np.uint8]],
    label: int | None,
) -> tuple[float, float, float, float, float]:
    """Logits, cam, map, flipped share of the mask, and share of equal classes, as in `Agreement`."""
    images = np.stack([network_input(picture, spec) for picture in pictures])
    feeds: dict[str, npt.NDArray[Any]] = {"image": images}
    if manifest.labels_input:
        feeds["labels"] = np.full((len(images), manifest.top_k), -1 if label is None else label, np.int64)
    logits, ids, cam, map8, mask = session.run(["logits", "class_ids", "cam", "map8", "mask"], feeds)
    with torch.no_grad():
        expected = graph(*(torch.from_numpy(value) for value in feeds.values()))
    expected_logits, expected_ids, expected_cam = (expected[i].numpy() for i in (0, 1, 3))
    reference = pas_reference(expected_cam, map8.shape[2:], manifest.pas)
    return (
        relative_difference(logits, expected_logits),
        relative_difference(cam, expected_cam),
        float(np.abs(map8.astype(int) - reference.map).max()),
        float((mask.astype(bool) != reference.mask).mean()),
        float((ids[:, 0] == expected_ids[:, 0]).mean()),
    )
