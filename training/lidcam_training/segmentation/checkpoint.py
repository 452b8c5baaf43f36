"""The checkpoint of a segmentation network: a folder with weights and description, as a classifier's."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lidcam_rt.errors import DataError
from lidcam_rt.files import file_sha256, former, read_file, replacing
from lidcam_rt.version import __version__
from lidcam_training.segmentation.network import SegmentationNetwork, build_network
from lidcam_training.segmentation.spec import NetworkSpec

__all__ = ["SegmentationCheckpoint", "SegmentationMeta", "is_segmentation", "load_segmentation", "save_segmentation"]

_TASK = "segmentation"


@dataclass(frozen=True)
class SegmentationMeta:
    """Everything in a checkpoint but the weights.

    Attributes:
        network: what it is made of.
        class_names: without the background; label 1 + index.
        size: (height, width) of the input in pixels.
        mean: per channel, 0 to 255.
        std: per channel, 0 to 255.
        interpolation: `bilinear` or `bicubic`.
        recipe: the whole recipe as trained, plain values.
        metrics: scores of the last validation.
        data_fingerprint: of the training pictures and their labels.
        version: of lidcam_rt.
    """

    network: NetworkSpec
    class_names: tuple[str, ...]
    size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    recipe: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    data_fingerprint: str = ""
    version: str = __version__


@dataclass(frozen=True)
class SegmentationCheckpoint:
    """A checkpoint that was read.

    Attributes:
        network: in eval mode, on the CPU.
        meta: everything else.
        path: its folder.
        weights_sha256: SHA-256 of model.safetensors.
    """

    network: SegmentationNetwork
    meta: SegmentationMeta
    path: Path
    weights_sha256: str


def save_segmentation(network: SegmentationNetwork, meta: SegmentationMeta, folder: Path) -> Path:
    """Write a checkpoint folder; all or nothing.

    Raises:
        OutputError: it cannot be written.
    """
    from safetensors.torch import save_file

    with replacing(folder) as temporary:
        temporary.mkdir()
        state = {key: value.detach().cpu().contiguous().clone() for key, value in network.state_dict().items()}
        save_file(state, str(temporary / "model.safetensors"))
        record = {"format": 1, "task": _TASK, **dataclasses.asdict(meta)}
        record["weights_sha256"] = file_sha256(temporary / "model.safetensors")
        (temporary / "checkpoint.json").write_text(json.dumps(record, indent=1))
    return folder


def is_segmentation(path: Path) -> bool:
    """Whether a folder is the checkpoint of a segmentation network."""
    try:
        record = json.loads(read_file(_place(path) / "checkpoint.json"))
    except (OSError, ValueError):
        return False
    return isinstance(record, dict) and record.get("task") == _TASK


def _place(path: Path) -> Path:
    return former(path) if not path.exists() and former(path).exists() else path


def load_segmentation(path: Path) -> SegmentationCheckpoint:
    """Read a checkpoint folder.

    Raises:
        DataError: missing, incomplete, damaged, or of another kind.
    """
    from safetensors.torch import load_file

    folder = _place(path)
    if not is_segmentation(path) or not (folder / "model.safetensors").is_file():
        raise DataError(
            f"{path}: not the checkpoint of a segmentation network, a folder with checkpoint.json and "
            "model.safetensors, as `lidcam train` writes it (RUN/checkpoint)"
        )
    try:
        record = json.loads(read_file(folder / "checkpoint.json"))
        if record.pop("format") > 1:
            raise DataError(f"{path}: written by lidcam_rt {record.get('version')}: pip install -U lidcam-rt")
        digest = record.pop("weights_sha256")
        del record["task"]
        spec = NetworkSpec(**record.pop("network"))
        record = {key: tuple(value) if isinstance(value, list) else value for key, value in record.items()}
        meta = SegmentationMeta(network=spec, **record)
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: checkpoint.json is damaged ({error}). Train again or take a copy") from error
    if file_sha256(folder / "model.safetensors") != digest:
        raise DataError(f"{path}: model.safetensors was changed or cut short (its SHA-256 does not match)")
    network = build_network(spec, with_weights=False)
    network.load_state_dict(load_file(str(folder / "model.safetensors")))
    return SegmentationCheckpoint(network.eval(), meta, path, digest)
