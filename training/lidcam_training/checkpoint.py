"""The checkpoint: a folder with exactly what `lidcam export` needs.

`model.safetensors` (weights) and `checkpoint.json` (recipe, class names, input, scores, fingerprint of the
data, version, and a SHA-256 over all of it and the weights). The folder is written beside its place and
renamed into it, so a kill leaves either the old one or the new one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from lidcam_rt.artifact import first_fault, json_object
from lidcam_rt.errors import DataError, InputError
from lidcam_rt.files import file_sha256, former, read_file, replacing
from lidcam_rt.version import __version__
from lidcam_training.models import Classifier, ClassifierSpec, build_classifier
from lidcam_training.tensor_file import save_tensors

__all__ = ["Checkpoint", "CheckpointMeta", "load_checkpoint", "save_checkpoint"]

_VERSION = 2

_Pixels = Annotated[int, Field(ge=1, le=16384)]
_Mean = Annotated[float, Field(allow_inf_nan=False)]
_Std = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class CheckpointMeta:
    """Everything in a checkpoint but the weights.

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

    Raises:
        InputError: the number of names is not the number of classes.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    classifier: ClassifierSpec
    class_names: tuple[str, ...]
    size: tuple[_Pixels, _Pixels]
    mean: tuple[_Mean, _Mean, _Mean] = (123.675, 116.28, 103.53)
    std: tuple[_Std, _Std, _Std] = (58.395, 57.12, 57.375)
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    task: Literal["localization", "multilabel"] = "localization"
    percentile: Annotated[float, Field(ge=0, le=100)] = 98.0
    theta: Annotated[float, Field(ge=0, le=1)] = 0.35
    nwc: bool = True
    recipe: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    data_fingerprint: str = ""
    version: str = __version__

    def __post_init__(self) -> None:
        if len(self.class_names) != self.classifier.num_classes:
            names, classes = len(self.class_names), self.classifier.num_classes
            raise InputError(f"{names} class_names for a classifier of {classes} classes: give one per class")


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
        record["sha256"] = _digest(record)
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
    from safetensors import SafetensorError
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
    meta, digest = _read_meta(folder / "checkpoint.json", path)
    if file_sha256(folder / "model.safetensors") != digest:
        raise DataError(f"{path}: model.safetensors was changed or cut short (its SHA-256 does not match)")
    model = build_classifier(meta.classifier)
    try:
        model.load_state_dict(load_file(str(folder / "model.safetensors")))
    except (SafetensorError, RuntimeError) as error:  # other tensors than the classifier's
        raise DataError(f"{path}: the weights are not those of its classifier ({error!s:.300})") from None
    return Checkpoint(model.eval(), meta, Path(path), digest)


def _digest(record: dict[str, Any]) -> str:
    """SHA-256 of all values of checkpoint.json but itself; the SHA-256 of the weights is one of them."""
    rest = {key: value for key, value in record.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _read_meta(file: Path, path: str | Path) -> tuple[CheckpointMeta, str]:
    """The values of checkpoint.json, and the SHA-256 that the weights must have."""
    mend = "Train again or take a copy"
    try:
        record = json_object(read_file(file))
        if record.get("task") == "segmentation":
            raise DataError(
                f"{path}: the checkpoint of a segmentation network; a classifier's is needed here. `lidcam export` "
                "makes an artifact of it, which every engine runs"
            )
        if (version := record.pop("format", None)) != _VERSION:
            if type(version) is int and version > _VERSION:
                raise DataError(f"{path}: written by lidcam_rt {record.get('version')!r:.40}: pip install -U lidcam-rt")
            raise DataError(f"{path}: its format is {version!r:.40}, but this lidcam_rt reads {_VERSION}. {mend}")
        if record.pop("sha256", None) != _digest({"format": _VERSION, **record}):
            raise DataError(f"{path}: checkpoint.json was changed (its SHA-256 does not match). {mend}")
        weights = record.pop("weights_sha256", None)
        if isinstance(record.get("classifier"), dict):
            record["classifier"] |= {"pretrained": False, "weights": None}
        meta = TypeAdapter(CheckpointMeta).validate_json(json.dumps(record))
    except ValidationError as error:
        raise DataError(f"{path}: checkpoint.json is damaged ({first_fault(error, 'values')}). {mend}") from None
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: checkpoint.json is damaged ({error}). {mend}") from None
    return meta, str(weights)
