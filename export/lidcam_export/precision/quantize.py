"""From a float32 artifact to one of lower precision: calibrate, quantize, compare, write."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from lidcam_bench.data import ImageSet
from lidcam_bench.data.records import Record
from lidcam_bench.evaluation.options import class_map

from lidcam_export.precision.gate import Gate, Outcome, compare_results, localize_all, most_to_blame
from lidcam_export.precision.half import to_half
from lidcam_export.precision.int8 import Feed, compute_layers, in_float, to_int8
from lidcam_export.precision.label_gate import LabelGate, LabelOutcome, compare_label_maps
from lidcam_export.precision.pictures import read_pictures, split
from lidcam_rt.artifact import Manifest, NodeCounts, PrecisionSpec, read_manifest
from lidcam_rt.errors import ExportError, ImageError, InputError
from lidcam_rt.files import file_sha256, replacing
from lidcam_rt.image import decode, network_input

__all__ = ["QuantizeOptions", "parse_gate", "quantize_artifact"]

_BLAMED_ON = 8  # pictures on which layers are compared


@dataclass(frozen=True)
class QuantizeOptions:
    """How the precision of an artifact is lowered.

    Attributes:
        precision: `int8` or `fp16`.
        calibration: int8: folder of pictures, or a data set as for `lidcam eval`, like those of the service.
        pictures: how many of them are used for calibration.
        reduce_range: int8: weights of 7 bits, for processors without VNNI.
        gates: int8: the gates of squeeze-and-excitation blocks in 8 bits too, for ONNX Runtime.
        held_out: pictures to compare on; None: those of `calibration` that were not used for it.
        held_out_pictures: how many of them.
        gate: how far it may be from float32, a LabelGate for segmentation networks; None: no limits.
        float_layers: layers left in float32, by name.
        float_worst: how many more of them: those that cause most of the error.
    """

    precision: Literal["int8", "fp16"] = "int8"
    calibration: Path | None = None
    pictures: int = 100
    reduce_range: bool = False
    gates: bool = False
    held_out: Path | None = None
    held_out_pictures: int = 200
    gate: Gate | LabelGate | None = None
    float_layers: tuple[str, ...] = ()
    float_worst: int = 0

    def __post_init__(self) -> None:
        for name in ("pictures", "held_out_pictures"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.float_worst < 0:
            raise InputError(f"the number of layers left in float32 must be at least 0, got {self.float_worst}")
        if self.precision == "int8" and self.calibration is None:
            raise InputError("int8 needs pictures to calibrate on: --calibration FOLDER")
        if self.precision == "fp16" and (self.float_layers or self.float_worst or self.reduce_range):
            raise InputError("layers left in float32 and a reduced range belong to int8")
        if self.gate is not None and self.calibration is None and self.held_out is None:
            raise InputError("a gate needs pictures to compare on: --held-out FOLDER")


def parse_gate(text: str, manifest: Manifest) -> Gate | LabelGate:
    """Bounds such as `top1=0.02,mask_iou=0.9`, for segmentation networks `miou=0.01,label_iou=0.9`.

    Args:
        text: names and shares of 0 to 1.
        manifest: the artifact's, whose task decides the names.

    Raises:
        InputError: not of that form, or a bound of another task.
    """
    segments = manifest.task == "segmentation"
    known = {kind: tuple(entry.name for entry in fields(kind)) for kind in (Gate, LabelGate)}
    names, others = (known[LabelGate], known[Gate]) if segments else (known[Gate], known[LabelGate])
    what = "a segmentation network" if segments else "a network with activation maps"
    example = "miou=0.01,label_iou=0.9" if segments else "top1=0.02,mask_iou=0.9"
    values: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = (piece.strip() for piece in part.partition("="))
        if name in others:
            raise InputError(
                f"--gate {text}: {name} does not go with {what}, whose gates are {', '.join(names)}: such as {example}"
            )
        try:
            values[name] = float(number)
        except ValueError:
            values[name] = float("nan")
        if name not in names or not 0 <= values[name] <= 1:
            raise InputError(
                f"--gate {text}: give {', '.join(names)}, one or several, with values of 0 to 1, such as {example}"
            )
    return (LabelGate if segments else Gate)(**values)


def quantize_artifact(
    source: Path,
    output: Path,
    options: QuantizeOptions,
    *,
    note: Callable[[str], None] = lambda _: None,
) -> tuple[Manifest, Outcome | LabelOutcome | None]:
    """Write an artifact of lower precision.

    Args:
        source: a float32 artifact.
        output: the .onnx file; `output.quantize.json` beside it records the comparison.
        options: how.
        note: called with a message for each step.

    Returns:
        The manifest that was written, and the comparison on held-out pictures; None where there are none.

    Raises:
        ExportError: the artifact cannot be quantized, or it fails the gate; nothing is written then.
        InputError: the gate is for another task, or the pictures are too few for it or lack what it needs.
        DataError: the pictures cannot be read.
        OutputError: the file cannot be written.
    """
    if output.suffix != ".onnx":
        raise ExportError(f"{output}: the artifact's name must end in .onnx")
    manifest = read_manifest(source)
    if manifest.precision is not None:
        raise ExportError(
            f"{source.name}: its network is in {manifest.arithmetic} already. Give the float32 artifact that it was "
            "made of"
        )
    if options.gate is not None and isinstance(options.gate, LabelGate) != (manifest.task == "segmentation"):
        raise InputError(
            f"{source.name} is of task {manifest.task}, which a {type(options.gate).__name__} does not go with: "
            f"{'Gate' if isinstance(options.gate, LabelGate) else 'LabelGate'} has the bounds of this task"
        )
    calibration, held_out = _pictures(options, manifest)
    model = onnx.load(str(source))
    sha256 = file_sha256(source)
    if options.precision == "fp16":
        lower, made = to_half(model), PrecisionSpec(network="fp16", made_of=sha256)
    else:
        note(f"calibrating on {len(calibration)} pictures")
        reader = _Calibration(calibration, manifest)
        lower = to_int8(model, reader, reduce_range=options.reduce_range, gates=options.gates)
        layers = _float_layers(model, lower, options, calibration, manifest, note)
        if layers:
            note(f"left in float32: {', '.join(layers)}")
            lower = in_float(lower, model, layers)
        made = PrecisionSpec(
            network="int8",
            made_of=sha256,
            float_layers=layers,
            weight_bits=7 if options.reduce_range else 8,
            calibration="minmax",
            calibration_pictures=reader.count,
            calibration_sha256=reader.digest,
        )
    nodes = NodeCounts(traced=(manifest.nodes or _counts(model)).traced, written=len(lower.graph.node))
    manifest = manifest.model_copy(update={"precision": made, "nodes": nodes})
    beside = output.with_name(output.name + ".quantize.json")
    with replacing(output) as temporary, replacing(beside) as figures:
        _save(lower, manifest, temporary)
        outcome: Outcome | LabelOutcome | None = None
        if held_out.records:
            note(f"comparing with float32 on {len(held_out)} held-out pictures")
            outcome, faults = _compared(source, temporary, held_out, manifest, options.gate)
            if faults:
                raise ExportError(_refusal(source, faults, model, lower, options, held_out.records, manifest, note))
            manifest = manifest.model_copy(
                update={"precision": made.model_copy(update={"agreement": outcome.to_dict()})}
            )
            _save(lower, manifest, temporary)
        report = {"precision": manifest.precision.model_dump(mode="json") if manifest.precision else None}
        figures.write_text(json.dumps({"artifact_sha256": file_sha256(temporary), **report}, indent=1) + "\n")
    return manifest, outcome


def _compared(
    source: Path, lower: Path, held_out: ImageSet, manifest: Manifest, gate: Gate | LabelGate | None
) -> tuple[Outcome | LabelOutcome, list[str]]:
    """The comparison with float32, and the limits of the gate that it breaks."""
    if manifest.task == "segmentation":
        labels = compare_label_maps(source, lower, held_out)
        return labels, gate.faults(labels) if isinstance(gate, LabelGate) else []
    records, classes = held_out.records, class_map(manifest.class_names, held_out.class_names)
    outcome = compare_results(records, localize_all(source, records), localize_all(lower, records), classes)
    return outcome, gate.faults(outcome) if isinstance(gate, Gate) else []


def _pictures(options: QuantizeOptions, manifest: Manifest) -> tuple[list[Record], ImageSet]:
    """For calibration and for comparison."""
    calibration: list[Record] = []
    held_out = ImageSet("none", (), ())
    if options.calibration is not None:
        images = read_pictures(options.calibration)
        calibration, rest = split(images.records, options.pictures)
        if options.precision == "fp16":
            rest, calibration = sorted(calibration + rest, key=lambda record: record.image), []
        held_out = replace(images, records=tuple(rest))
    if options.held_out is not None:
        held_out = read_pictures(options.held_out)
    records, count = held_out.records, options.held_out_pictures
    if len(records) > count:
        chosen = split(records, count)[0] if count * 2 <= len(records) else records[:count]
        held_out = replace(held_out, records=tuple(chosen))
    if options.gate is not None and not held_out.records:
        raise InputError("no picture is left to compare on: give more in --calibration, or others with --held-out")
    if isinstance(options.gate, LabelGate):
        known = class_map(manifest.class_names, held_out.class_names) is not None
        options.gate.check(any(record.mask for record in held_out.records) and known)
    return calibration, held_out


class _Calibration:
    """The inputs of the graph, through the artifact's own pre-processing; counts and hashes what was used."""

    def __init__(self, records: Sequence[Record], manifest: Manifest) -> None:
        self._records, self._manifest = records, manifest
        self._hash = hashlib.sha256()
        self.count = 0

    @property
    def digest(self) -> str:
        """SHA-256 over the SHA-256 of each file."""
        return self._hash.hexdigest()

    def __iter__(self) -> Iterator[Feed]:
        for record in self._records:
            try:
                feed = _feed(record, self._manifest)
            except ImageError:
                continue
            self._hash.update(bytes.fromhex(file_sha256(record.image)))
            self.count += 1
            yield feed
        if not self.count:
            raise InputError(f"none of the {len(self._records)} pictures for calibration can be read: give others")


def _feed(record: Record, manifest: Manifest) -> Feed:
    feed: Feed = {"image": network_input(decode(record.image).pixels, manifest.input)[None]}
    if manifest.labels_input:
        feed["labels"] = np.full((1, manifest.top_k), -1, np.int64)
    return feed


def _float_layers(
    model: onnx.ModelProto,
    lower: onnx.ModelProto,
    options: QuantizeOptions,
    calibration: Sequence[Record],
    manifest: Manifest,
    note: Callable[[str], None],
) -> tuple[str, ...]:
    """The layers given by name, and the worst of the others, in the order of the network."""
    chosen = set(options.float_layers)
    if options.float_worst:
        blame = _blame(model, lower, calibration, manifest, note)
        chosen |= {name for name, _ in [entry for entry in blame if entry[0] not in chosen][: options.float_worst]}
    order = compute_layers(model)
    return tuple(sorted(chosen, key=lambda name: order.index(name) if name in order else -1))


def _blame(
    model: onnx.ModelProto,
    lower: onnx.ModelProto,
    records: Sequence[Record],
    manifest: Manifest,
    note: Callable[[str], None],
) -> list[tuple[str, float]]:
    note(f"looking for the layers that cause most of the error, on {min(_BLAMED_ON, len(records))} pictures")
    feeds = [_feed(record, manifest) for record in records[:_BLAMED_ON]]
    return most_to_blame(model, lower, feeds)


def _refusal(
    source: Path,
    faults: Sequence[str],
    model: onnx.ModelProto,
    lower: onnx.ModelProto,
    options: QuantizeOptions,
    held_out: Sequence[Record],
    manifest: Manifest,
    note: Callable[[str], None],
) -> str:
    text = f"{source.name} in {options.precision}: {'; '.join(faults)}; nothing was written. "
    if options.precision == "fp16":
        return text + "Use it in float32"
    blame = _blame(model, lower, held_out, manifest, note)[:5]
    named = ", ".join(f"{name} ({100 * share:.0f}% of the error)" for name, share in blame)
    count = options.float_worst + len([entry for entry in blame if entry[1] > 0.02])
    return (
        f"{text}Most to blame: {named}. Leave them in float32: --float-worst {max(1, count)}; or calibrate on "
        "more pictures, like those of the service"
    )


def _counts(model: onnx.ModelProto) -> NodeCounts:
    return NodeCounts(traced=len(model.graph.node), written=len(model.graph.node))


def _save(model: onnx.ModelProto, manifest: Manifest, path: Path) -> None:
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, manifest.to_metadata())
    onnx.save(model, str(path))
