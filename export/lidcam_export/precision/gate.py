"""How far an artifact of lower precision is from the float32 artifact on pictures, and the limits on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from lidcam_bench.data.records import Record
from lidcam_bench.evaluation.options import NO_CLASS

from lidcam_cli.loading import load_localizer
from lidcam_export.precision.int8 import Feed, compute_layers, in_float
from lidcam_rt.errors import InputError
from lidcam_rt.results import Failure

__all__ = ["Gate", "Outcome", "Results", "compare_results", "localize_all", "most_to_blame"]


@dataclass(frozen=True)
class Gate:
    """What a lowered precision may cost.

    Attributes:
        top1: where pictures have labels that the model knows, the largest loss of top-1 accuracy; else the largest
            share of pictures whose class changes. 0 to 1; None: no limit.
        mask_iou: the smallest mean IoU of masks with those in float32, 0 to 1; None: no limit.
    """

    top1: float | None = None
    mask_iou: float | None = None

    def faults(self, outcome: Outcome) -> list[str]:
        """The limits that the outcome breaks, in words; empty: none."""
        faults = []
        lost = outcome.changed if outcome.top1_lost is None else outcome.top1_lost
        what = "of the pictures change their class" if outcome.top1_lost is None else "of top-1 accuracy are lost"
        if self.top1 is not None and lost > self.top1 + 1e-12:
            faults.append(f"{100 * lost:.2f}% {what}, the gate is {100 * self.top1:g}%")
        if self.mask_iou is not None and outcome.mask_iou < self.mask_iou:
            faults.append(f"the mean mask IoU is {outcome.mask_iou:.4f}, the gate is {self.mask_iou:g}")
        return faults


@dataclass(frozen=True)
class Outcome:
    """Lower precision against float32 on held-out pictures.

    Attributes:
        pictures: how many.
        changed: share of them whose class changes.
        top1: top-1 accuracy of (float32, lower precision), of pictures with one label that the model knows; None
            without any.
        mask_iou: mean IoU of the two masks at the size of the picture.
        mask_iou_same_class: the same over the pictures whose class does not change; None: there are none.
    """

    pictures: int
    changed: float
    top1: tuple[float, float] | None
    mask_iou: float
    mask_iou_same_class: float | None

    @property
    def top1_lost(self) -> float | None:
        """Top-1 accuracy that is lost, 0 to 1; below 0 for a gain."""
        return None if self.top1 is None else self.top1[0] - self.top1[1]

    def describe(self) -> str:
        """In words, for the terminal."""
        text = f"{100 * self.changed:.2f}% change their class, mask IoU {self.mask_iou:.4f}"
        if self.mask_iou_same_class is not None:
            text += f" ({self.mask_iou_same_class:.4f} where the class is the same)"
        if self.top1 is not None:
            text += f"; top-1 {100 * self.top1[0]:.2f}% in float32, {100 * self.top1[1]:.2f}% now"
        return text

    def to_dict(self) -> dict[str, float]:
        """Plain numbers, for manifest and reports."""
        out = {"pictures": float(self.pictures), "changed": self.changed, "mask_iou": self.mask_iou}
        if self.mask_iou_same_class is not None:
            out["mask_iou_same_class"] = self.mask_iou_same_class
        if self.top1 is not None:
            out |= {"top1_fp32": self.top1[0], "top1": self.top1[1]}
        return out


@dataclass(frozen=True)
class Results:
    """What an artifact returns for some pictures.

    Attributes:
        classes: class of each picture; -1: it cannot be read.
        masks: mask of each, its bits packed.
    """

    classes: list[int]
    masks: list[npt.NDArray[np.uint8]]


def localize_all(path: Path, records: Sequence[Record], tick: Callable[[], None] = lambda: None) -> Results:
    """Localize in every picture with ONNX Runtime on the CPU."""
    out = Results([], [])
    with load_localizer(path, backend="onnxruntime", device="cpu") as localizer:
        results = localizer.stream([record.image for record in records], keep_image=False)
        with closing(results):
            for result in results:
                failed = isinstance(result, Failure)
                out.classes.append(-1 if isinstance(result, Failure) else result.class_id)
                out.masks.append(np.zeros(0, np.uint8) if failed else np.packbits(result.mask))  # type: ignore[union-attr]
                tick()
    return out


def compare_results(
    records: Sequence[Record], full: Results, lower: Results, classes: Sequence[int] | None = None
) -> Outcome:
    """The outcome over the pictures that can be read.

    Args:
        records: the pictures.
        full: results in float32.
        lower: results in lower precision.
        classes: from `class_map`: which class of the model each label of the pictures is. A label that the model does
            not have does not count; None: no label does.

    Raises:
        InputError: none can be read.
    """
    readable = [i for i, class_id in enumerate(full.classes) if class_id >= 0 and lower.classes[i] >= 0]
    if not readable:
        raise InputError("none of the held-out pictures can be read: give others with --held-out")
    same = np.array([full.classes[i] == lower.classes[i] for i in readable])
    ious = np.array([_iou(full.masks[i], lower.masks[i]) for i in readable])
    true = {i: classes[records[i].labels[0]] for i in readable if classes is not None and len(records[i].labels) == 1}
    labelled = [i for i, class_id in true.items() if class_id != NO_CLASS]
    top1 = None
    if labelled:
        right = [[result.classes[i] == true[i] for i in labelled] for result in (full, lower)]
        top1 = float(np.mean(right[0])), float(np.mean(right[1]))
    alike = float(ious[same].mean()) if same.any() else None
    return Outcome(len(readable), float(1 - same.mean()), top1, float(ious.mean()), alike)


def _iou(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> float:
    union = int(np.unpackbits(a | b).sum())
    return int(np.unpackbits(a & b).sum()) / union if union else 1.0


def most_to_blame(
    model: onnx.ModelProto,
    quantized: onnx.ModelProto,
    feeds: Sequence[Feed],
    tick: Callable[[int, int], None] = lambda done, total: None,
) -> list[tuple[str, float]]:
    """How much of the error each layer causes: the error that disappears when this layer alone is left in float32.

    The error is that of activation map and logits (in segmentation, of the logits), each as a share of its spread over
    a picture.

    Args:
        model: the float32 artifact.
        quantized: the same, quantized.
        feeds: inputs of the graph, a few pictures.
        tick: called with the number of layers done and the total.

    Returns:
        Names of layers and share of the error, worst first.
    """
    wanted = _outputs(model, feeds, None)
    whole = _error(wanted, _outputs(quantized, feeds, wanted))
    layers = compute_layers(model)
    shares = []
    for number, layer in enumerate(layers):
        tick(number, len(layers))
        rest = _error(wanted, _outputs(in_float(quantized, model, [layer]), feeds, wanted))
        shares.append((layer, 1 - rest / whole if whole else 0.0))
    return sorted(shares, key=lambda entry: -entry[1])


_Output = dict[str, npt.NDArray[Any]]


def _outputs(model: onnx.ModelProto, feeds: Sequence[Feed], wanted: Sequence[_Output] | None) -> list[_Output]:
    """Classes, maps and logits; the maps are of the classes of `wanted`, where the artifact takes labels."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs() if value.name in ("class_ids", "cam", "logits")]
    out: list[_Output] = []
    for number, feed in enumerate(feeds):
        fed = feed
        if wanted is not None and "labels" in feed:
            fed = {**feed, "labels": wanted[number]["class_ids"]}
        out.append(dict(zip(names, session.run(names, fed), strict=True)))
    return out


def _error(wanted: Sequence[_Output], got: Sequence[_Output]) -> float:
    errors = [
        float(np.abs(other[name] - one[name]).mean() / max(float(one[name].std()), 1e-12))
        for one, other in zip(wanted, got, strict=True)
        for name in ("cam", "logits")
        if name in one
    ]
    return float(np.mean(errors))
