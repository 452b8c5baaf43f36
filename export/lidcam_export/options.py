"""Options of an export."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lidcam_rt.pas.options import Interpolation, Mode, Precision, Where

__all__ = ["ExportOptions", "HeadName", "InputType", "Pooling", "Task"]

Pooling = Literal["gap", "tap"]
InputType = Literal["uint8", "float32"]
HeadName = Literal["linear", "linearized"]
Task = Literal["localization", "multilabel"]


@dataclass(frozen=True)
class ExportOptions:
    """How an artifact is made; None: the source's own value.

    Attributes:
        weights: state dict to load, for sources without weights or in place of theirs.
        random_weights: use the network as it is initialised, to try an export.
        ema: averaged weights of a file: True requires them, False ignores them, None uses them if there are any.
        head: `linear`: exact maps only; `linearized`: where the head is not linear, the maps of its linearization.
        task: `localization` (softmax) or `multilabel` (sigmoid); None: as the network ends, else localization.
        size: (height, width) of the input in pixels.
        mean: per channel, in units of 0 to 255.
        std: per channel, in units of 0 to 255.
        stride: pixels per cell of the map: removes strides of the last stage.
        pooling: `gap` or `tap`.
        tap_threshold: for tap, share of a channel's maximum.
        nwc: clamp negative weights for the map.
        percentile: of PaS, 0 to 100.
        theta: of PaS, 0 to 1.
        mode: of PaS, `threshold` or `normalize`.
        pas_precision: of PaS, `uint8` or `float`.
        pas_where: of PaS, `resized` or `raw`.
        pas_interpolation: of PaS, how the map is resized: `cubic` or `linear`.
        top_k: maps per picture.
        class_names: one per class, in the order of the logits.
        input_dtype: `uint8` (normalisation in the graph) or `float32`.
        labels_input: give the graph an input for ground-truth classes.
        weights_license: recorded in the manifest.
        dynamic_size: leave height and width free where the network allows.
        portable: write PaS out in standard operators, for engines that have no model functions.
    """

    weights: Path | None = None
    random_weights: bool = False
    ema: bool | None = None
    head: HeadName = "linear"
    task: Task | None = None
    size: tuple[int, int] | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    stride: int | None = None
    pooling: Pooling | None = None
    tap_threshold: float | None = None
    nwc: bool | None = None
    percentile: float | None = None
    theta: float | None = None
    mode: Mode = "threshold"
    pas_precision: Precision = "uint8"
    pas_where: Where = "resized"
    pas_interpolation: Interpolation = "cubic"
    top_k: int = 1
    class_names: tuple[str, ...] | None = None
    input_dtype: InputType = "uint8"
    labels_input: bool = True
    weights_license: str | None = None
    dynamic_size: bool = True
    portable: bool = False
