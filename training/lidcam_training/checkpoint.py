"""The checkpoint: a folder that `lidcam export` needs, and nothing else.

`model.safetensors` (weights) and `checkpoint.json` (recipe, class names, input, scores, fingerprint of the
data, version). The folder is written beside its place and renamed into it, so that a kill leaves the old one
or the new.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lidcam_rt.errors import DataError
from lidcam_rt.files import file_sha256, former, replacing
from lidcam_rt.version import __version__
from lidcam_training.models import Classifier, ClassifierSpec, build_classifier
from lidcam_training.tensor_file import save_tensors

__all__ = ["Checkpoint", "CheckpointMeta", "load_checkpoint", "save_checkpoint"]

_VERSION = 1


@dataclass(frozen=True)
class CheckpointMeta:
    """All of a checkpoint but the weights.

    Attributes:
        classifier: what the model is made of.
        class_names: in the order of the logits.
        size: (height, width) of the input in pixels.
        mean: per channel, 0 to 255.
        std: per channel, 0 to 255.
        interpolation: `bilinear` or `bicubic`.
        task: `localization` (softmax) or `multilabel` (sigmoid).
        percentile: of PaS, 0 to 100.
        theta: of PaS, 0 to 1.
        nwc: whether the map clamps negative weights.
        recipe: the whole recipe as trained, plain values.
        metrics: scores of the last validation.
        data_fingerprint: of the training pictures, see `lidcam_bench.data.ImageSet.fingerprint`.
        version: of lidcam_rt.
    """

    classifier: ClassifierSpec
    class_names: tuple[str, ...]
    size: tuple[int, int]
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    task: Literal["localization", "multilabel"] = "localization"
    percentile: float = 98.0
    theta: float = 0.35
    nwc: bool = True
    recipe: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    data_fingerprint: str = ""
    version: str = __version__


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read.

    Attributes:
        model: the classifier in eval mode, on the CPU.
        meta: everything else.
        path: its folder.
        weights_sha256: SHA-256 of model.safetensors.
    """

    model: Classifier
    meta: CheckpointMeta
    path: Path
    weights_sha256: str

    def __getattr__(self, name: str) -> Any:
        meta = object.__getattribute__(self, "meta")
        if name in CheckpointMeta.__dataclass_fields__:
            return getattr(meta, name)
        raise AttributeError(name)

    @property
    def pooling(self) -> str:
        """`gap` or `tap`."""
        return self.model.pooling

    @property
    def tap_threshold(self) -> float | None:
        """Share of the maximum for tap, None for gap."""
        return self.model.tap_threshold


def save_checkpoint(model: Classifier, meta: CheckpointMeta, folder: str | Path) -> Path:
    """Write a checkpoint folder; all or nothing.

    Args:
        model: its weights are copied to the CPU.
        meta: everything else.
        folder: replaced if it is there.

    Raises:
        OutputError: it cannot be written.
    """
    folder = Path(folder)
    with replacing(folder) as temporary:
        temporary.mkdir()
        state = {key: value.detach().cpu().contiguous().clone() for key, value in model.state_dict().items()}
        save_tensors(state, temporary / "model.safetensors")
        record = {"format": _VERSION, **dataclasses.asdict(meta)}
        record["weights_sha256"] = file_sha256(temporary / "model.safetensors")
        (temporary / "checkpoint.json").write_text(json.dumps(record, indent=1))
    return folder


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint folder.

    Args:
        path: as `save_checkpoint` or `lidcam train` wrote it. After a kill in the middle of a replacement the
            former checkpoint is used.

    Raises:
        DataError: missing, incomplete, damaged or of a newer format.
    """
    from safetensors.torch import load_file

    folder = Path(path)
    if not folder.exists() and former(folder).exists():
        folder = former(folder)
    for name in ("checkpoint.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise DataError(
                f"{path}: no {name} in it. A checkpoint is a folder with checkpoint.json and "
                f"model.safetensors, as "
                "`lidcam train` writes it (RUN/checkpoint)"
            )
    try:
        record = json.loads((folder / "checkpoint.json").read_text())
        if record.pop("format") > _VERSION:
            raise DataError(f"{path}: written by lidcam_rt {record.get('version')}: pip install -U lidcam-rt")
        digest = record.pop("weights_sha256")
        spec = ClassifierSpec(**{**record.pop("classifier"), "pretrained": False, "weights": None})
        record = {key: tuple(value) if isinstance(value, list) else value for key, value in record.items()}
        meta = CheckpointMeta(classifier=spec, **record)
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{path}: checkpoint.json is damaged ({error}). Train again or take a copy"
        ) from error
    if file_sha256(folder / "model.safetensors") != digest:
        raise DataError(f"{path}: model.safetensors was changed or cut short (its SHA-256 does not fit)")
    model = build_classifier(spec)
    model.load_state_dict(load_file(str(folder / "model.safetensors")))
    return Checkpoint(model.eval(), meta, Path(path), digest)
