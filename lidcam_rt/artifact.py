"""The artifact: an .onnx file that carries its manifest (one key `lidcam` in metadata_props; docs/artifact.md).

This module reads and checks the manifest; it does not need the `onnx` package or an engine to do so.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lidcam_rt.errors import ArtifactError
from lidcam_rt.pas.options import PasOptions
from lidcam_rt.protobuf import metadata_props
from lidcam_rt.version import SCHEMA_VERSION

__all__ = [
    "DIGEST_KEY",
    "MANIFEST_KEY",
    "CamSpec",
    "DefaultsSpec",
    "InputSpec",
    "Manifest",
    "NodeCounts",
    "PrecisionSpec",
    "SegmentationSpec",
    "SourceSpec",
    "TuningSpec",
    "read_manifest",
]

MANIFEST_KEY = "lidcam"
#: SHA-256 of the manifest's JSON text, so that an edited manifest is detected.
DIGEST_KEY = "lidcam_sha256"

_Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class InputSpec(_Spec):
    """How a picture becomes the network's input.

    Attributes:
        dtype: `uint8` (normalisation is inside the graph) or `float32` (the runtime normalises).
        layout: `NHWC` (uint8) or `NCHW` (float32).
        height: rows the picture is resized to, pixels.
        width: columns the picture is resized to, pixels.
        dynamic_size: whether the graph takes other heights and widths than these.
        channel_order: order of the channels.
        mean: per channel, in units of 0 to 255, subtracted first.
        std: per channel, in units of 0 to 255, divided by.
        interpolation: how the picture is resized.
        resize: `stretch`: to (height, width) whatever its shape, so that the map covers all of it.
            `letterbox`: keeps the aspect ratio and pads right and below with the mean.
    """

    dtype: Literal["uint8", "float32"] = "uint8"
    layout: Literal["NHWC", "NCHW"] = "NHWC"
    height: int = Field(ge=1, le=16384)
    width: int = Field(ge=1, le=16384)
    dynamic_size: bool = False
    channel_order: Literal["RGB"] = "RGB"
    mean: tuple[float, float, float]
    std: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    resize: Literal["stretch", "letterbox"] = "stretch"

    @model_validator(mode="after")
    def _layout_fits(self) -> InputSpec:
        if (self.dtype == "uint8") != (self.layout == "NHWC"):
            raise ValueError(f"layout {self.layout} does not go with dtype {self.dtype}")
        return self


class CamSpec(_Spec):
    """How the activation map is formed.

    Attributes:
        nwc: whether negative classifier weights are clamped to 0 for the map.
        pooling: `gap` (mean) or `tap` (thresholded average pooling), for the logits.
        tap_threshold: share of a channel's maximum that a pixel must exceed to be averaged (tap).
        stride: pixels of the input per cell of the map.
        head: `linear`: one linear layer after the pooling, whose map is exact; `linearized`: other layers, whose map is
            that of their linearization at each picture.
    """

    nwc: bool
    pooling: Literal["gap", "tap"]
    tap_threshold: float | None = Field(default=None, ge=0, le=1)
    stride: int = Field(ge=1)
    head: Literal["linear", "linearized"] = "linear"

    @model_validator(mode="after")
    def _threshold_fits(self) -> CamSpec:
        if (self.pooling == "tap") != (self.tap_threshold is not None):
            raise ValueError("tap_threshold goes with pooling tap, and only with it")
        return self


class SegmentationSpec(_Spec):
    """How the label map of a segmentation network is formed.

    Attributes:
        stride: pixels of the input per cell of the logits.
        multiple: sides of the input are multiples of this, pixels.
    """

    stride: int = Field(ge=1)
    multiple: int = Field(default=32, ge=1)


class SourceSpec(_Spec):
    """What was exported.

    Attributes:
        name: as given to `lidcam export`, without folders, for example `timm:seresnet50`.
        weights: file name of the weights, or the name under which they are published; None where the source builds
            its weights.
        weights_sha256: SHA-256 of that file.
        weights_entry: entry of the file that was used, such as `state_dict_ema`; None where it holds nothing else.
        random_weights: whether the weights are those of the initialisation, so that the maps are meaningless.
    """

    name: str
    weights: str | None = None
    weights_sha256: _Sha256 | None = None
    weights_entry: str | None = None
    random_weights: bool = False


class NodeCounts(_Spec):
    """How many nodes the graph has; PaS counts as one.

    Attributes:
        traced: as PyTorch traced the network.
        written: in the file.
    """

    traced: int = Field(ge=1)
    written: int = Field(ge=1)


class PrecisionSpec(_Spec):
    """How a network of lower precision was made by `lidcam quantize`. CAM head, PaS and logits stay in float32.

    Attributes:
        network: `int8` (8-bit activations and weights, in Q/DQ form) or `fp16`.
        made_of: SHA-256 of the float32 artifact.
        float_layers: convolutions and matrix products that were left in float32, by node.
        weight_bits: int8: 8, or 7 for processors without VNNI, whose products of 8 bits can saturate.
        calibration: int8: how the ranges of activations were derived from pictures: `minmax`.
        calibration_pictures: int8: how many pictures.
        calibration_sha256: int8: SHA-256 over the SHA-256 of each of their files, in the order of use.
        agreement: with the float32 artifact on held-out pictures: pictures, changed, mask_iou, top1; in segmentation:
            pictures, flipped, label_iou, miou.
    """

    network: Literal["int8", "fp16"]
    made_of: _Sha256
    float_layers: tuple[str, ...] = ()
    weight_bits: Literal[7, 8] | None = None
    calibration: Literal["minmax"] | None = None
    calibration_pictures: int | None = Field(default=None, ge=1)
    calibration_sha256: _Sha256 | None = None
    agreement: dict[str, float] | None = None


class DefaultsSpec(_Spec):
    """What a call of the Localizer does unless its arguments say otherwise (`lidcam tune`; schema 3).

    Attributes:
        scales: relative to the network's input size, one view each, whose maps are averaged; (1,): one view.
        flip: whether each view is mirrored too.
        refine: preset of the dense CRF, with or without `@SIZE`; None: no CRF.
    """

    scales: tuple[Annotated[float, Field(ge=0.1, le=8)], ...] = Field(default=(1.0,), min_length=1, max_length=16)
    flip: bool = False
    refine: Annotated[str, Field(pattern=r"^(psa|irn|deeplab|example)(-fast)?(@(network|original))?$")] | None = None


class TuningSpec(_Spec):
    """The data and the metric by which `lidcam tune` chose the settings.

    Attributes:
        made_of: SHA-256 of the artifact before tuning.
        metric: what was maximized: `mask-iou`, `pxap` or `box`.
        data_sha256: fingerprint of the pictures that the settings were chosen on.
        pictures: how many.
        before: the metric on them with the settings before.
        after: the metric on them with these settings.
    """

    made_of: _Sha256
    metric: Literal["mask-iou", "pxap", "box"]
    data_sha256: _Sha256
    pictures: int = Field(ge=1)
    before: float
    after: float


class Manifest(_Spec):
    """All that a runtime must know about an artifact.

    Attributes:
        schema_version: version of this model.
        task: `localization` (one softmax over classes), `multilabel` (a sigmoid per class), or `segmentation` (a
            softmax over background and classes per pixel; schema 2).
        input: how a picture becomes the network's input.
        class_names: one name per class, in the order of the logits; in segmentation the background precedes them.
        top_k: maps per picture, the K of the outputs.
        labels_input: whether the graph takes `labels` int64 [N, K] (a class to localize, -1: the
            predicted one).
        cam: how the activation map is formed; None in segmentation.
        segmentation: how the label map is formed; in segmentation only.
        pas: options of the PaS node.
        source: what was exported.
        weights_license: licence of the weights as the exporter stated it, or None.
        package_version: version of lidcam_rt that wrote the file.
        opset: opset of the default domain.
        nodes: how many nodes the graph has, or None.
        precision: how the network's precision was lowered; None: it is float32.
        defaults: views and CRF of a call that does not name them; None: one view, no CRF (schema 3).
        tuning: the data and the metric by which `lidcam tune` chose pas, NWC and defaults, or None (schema 3).
    """

    schema_version: int = Field(default=1, ge=1)
    task: Literal["localization", "multilabel", "segmentation"] = "localization"
    input: InputSpec
    class_names: tuple[str, ...] = Field(min_length=1)
    top_k: int = Field(default=1, ge=1)
    labels_input: bool = True
    cam: CamSpec | None = None
    segmentation: SegmentationSpec | None = None
    pas: PasOptions = PasOptions()
    source: SourceSpec
    weights_license: str | None = None
    package_version: str
    opset: int = Field(ge=17)
    nodes: NodeCounts | None = None
    precision: PrecisionSpec | None = None
    defaults: DefaultsSpec | None = None
    tuning: TuningSpec | None = None

    @property
    def arithmetic(self) -> str:
        """Precision of the network in the file: `fp32`, `fp16` or `int8`."""
        return self.precision.network if self.precision else "fp32"

    @model_validator(mode="after")
    def _top_k_fits(self) -> Manifest:
        if self.top_k > len(self.class_names):
            raise ValueError(f"top_k {self.top_k} is more than the {len(self.class_names)} classes")
        return self

    @model_validator(mode="after")
    def _task_fits(self) -> Manifest:
        segments = self.task == "segmentation"
        if segments != (self.segmentation is not None) or segments == (self.cam is not None):
            raise ValueError("segmentation goes with task segmentation and nothing else, cam with the other tasks")
        if segments and (self.schema_version < 2 or self.labels_input or self.input.resize != "stretch"):
            raise ValueError("task segmentation needs schema 2, no labels input, and resize stretch")
        if segments and len(self.class_names) > 254:
            raise ValueError("a label map has 8 bits: 254 classes at most")
        return self

    @model_validator(mode="after")
    def _defaults_fit(self) -> Manifest:
        if (self.defaults or self.tuning) and (self.schema_version < 3 or self.task == "segmentation"):
            raise ValueError("defaults and tuning need schema 3 and a task with activation maps")
        return self

    def to_metadata(self) -> dict[str, str]:
        """The entries of metadata_props that carry this manifest."""
        text = self.model_dump_json(exclude_none=True)
        return {MANIFEST_KEY: text, DIGEST_KEY: hashlib.sha256(text.encode()).hexdigest()}

    @classmethod
    def from_metadata(cls, metadata: dict[str, str], path: str | os.PathLike[str]) -> Manifest:
        """Check and parse what `to_metadata` wrote.

        Args:
            metadata: metadata_props of the model.
            path: name of the file, for messages.

        Raises:
            ArtifactError: it is not a lidcam artifact or has a newer schema, or its manifest was changed or is
                invalid.
        """
        text = metadata.get(MANIFEST_KEY)
        if text is None:
            raise ArtifactError(
                f"{path}: an ONNX model without a lidcam manifest. Make an artifact of your checkpoint with "
                "`lidcam export SOURCE -o model.onnx`"
            )
        try:
            raw = json_object(text)
        except ValueError as error:
            raise ArtifactError(f"{path}: its lidcam manifest is {error}. Export the model again") from None
        version = raw.get("schema_version")
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise ArtifactError(
                f"{path}: its manifest has schema {version}, but this lidcam_rt reads up to {SCHEMA_VERSION}: "
                f"pip install -U lidcam-rt (written by version {raw.get('package_version', 'unknown')})"
            )
        if metadata.get(DIGEST_KEY) != hashlib.sha256(text.encode()).hexdigest():
            raise ArtifactError(
                f"{path}: its lidcam manifest was changed after export (its SHA-256 does not match). "
                "Export the model again with the options you want"
            )
        try:
            return cls.model_validate_json(text, strict=True)
        except ValidationError as error:
            reason = first_fault(error, "manifest")
            raise ArtifactError(f"{path}: its lidcam manifest is invalid ({reason}). Export the model again") from None


def json_object(text: str | bytes) -> dict[str, Any]:
    """A JSON object from a file of unknown origin.

    Raises:
        ValueError: it is not one; the message says what it is.
    """
    try:
        raw = json.loads(text)
    except RecursionError:
        raise ValueError("not JSON of a reasonable depth") from None
    except ValueError as error:
        raise ValueError(f"not JSON ({str(error)[:200]})") from None
    if not isinstance(raw, dict):
        raise ValueError("not a JSON object")
    return raw


def first_fault(error: ValidationError, whole: str) -> str:
    """The first error of pydantic as `field: reason`; `whole` stands for the field if there is none."""
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(str(part) for part in first['loc']) or whole}: {first['msg']}"


def read_manifest(path: str | os.PathLike[str]) -> Manifest:
    """Read the manifest of an artifact without starting an engine.

    Args:
        path: an .onnx file.

    Raises:
        ArtifactError: the file is missing, empty, truncated, not ONNX or not a lidcam artifact.
    """
    return Manifest.from_metadata(metadata_props(path), path)
