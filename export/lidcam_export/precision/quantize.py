"""From a float32 artifact to one of lower precision: calibrate, quantize, compare, write."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from lidcam_bench.data import open_data
from lidcam_bench.data.records import Record

from lidcam_cli.folders import find_pictures
from lidcam_export.precision.gate import Gate, Outcome, compare_results, localize_all, most_to_blame
from lidcam_export.precision.half import to_half
from lidcam_export.precision.int8 import Feed, compute_layers, in_float, to_int8
from lidcam_rt.artifact import Manifest, NodeCounts, PrecisionSpec, read_manifest
from lidcam_rt.errors import ExportError, ImageError, InputError
from lidcam_rt.files import file_sha256, replacing
from lidcam_rt.image import decode, network_input

__all__ = ["QuantizeOptions", "quantize_artifact", "read_pictures", "split"]

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
        gate: what may be lost; None: anything.
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
    gate: Gate | None = None
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


def read_pictures(folder: Path) -> list[Record]:
    """The pictures of a folder, with labels where it is a data set as for `lidcam eval`.

    Raises:
        DataError: there is none, or the data set cannot be read.
    """
    if (folder / "images").is_dir() or not folder.is_dir():
        return list(open_data(str(folder), "test").records)
    return [Record(image=Path(path)) for path in find_pictures(folder).paths]


def split(records: Sequence[Record], count: int) -> tuple[list[Record], list[Record]]:
    """Calibration and held-out pictures: `count` of them, evenly spread over the list, and at most half; the rest."""
    count = min(count, max(1, len(records) // 2))
    chosen = {round(i * len(records) / count) for i in range(count)}
    return (
        [record for i, record in enumerate(records) if i in chosen],
        [record for i, record in enumerate(records) if i not in chosen],
    )


def quantize_artifact(
    source: Path,
    output: Path,
    options: QuantizeOptions,
    *,
    note: Callable[[str], None] = lambda _: None,
) -> tuple[Manifest, Outcome | None]:
    """Write an artifact of lower precision.

    Args:
        source: a float32 artifact.
        output: the .onnx file; `output.quantize.json` beside it gets the figures.
        options: how.
        note: told what is done, step by step.

    Returns:
        The manifest that was written, and the comparison on held-out pictures; None where there are none.

    Raises:
        ExportError: the artifact cannot be quantized, or the gate is not kept; nothing is written then.
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
    calibration, held_out = _pictures(options)
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
        outcome = None
        if held_out:
            note(f"comparing with float32 on {len(held_out)} held-out pictures")
            outcome = compare_results(held_out, localize_all(source, held_out), localize_all(temporary, held_out))
            if options.gate is not None and (faults := options.gate.faults(outcome)):
                raise ExportError(_refusal(source, faults, model, lower, options, held_out, manifest, note))
            manifest = manifest.model_copy(
                update={"precision": made.model_copy(update={"agreement": outcome.to_dict()})}
            )
            _save(lower, manifest, temporary)
        report = {"precision": manifest.precision.model_dump(mode="json") if manifest.precision else None}
        figures.write_text(json.dumps({"artifact_sha256": file_sha256(temporary), **report}, indent=1) + "\n")
    return manifest, outcome


def _pictures(options: QuantizeOptions) -> tuple[list[Record], list[Record]]:
    """For calibration and for comparison."""
    calibration: list[Record] = []
    held_out: list[Record] = []
    if options.calibration is not None:
        calibration, held_out = split(read_pictures(options.calibration), options.pictures)
        if options.precision == "fp16":
            held_out, calibration = sorted(calibration + held_out, key=lambda record: record.image), []
    if options.held_out is not None:
        held_out = read_pictures(options.held_out)
    if len(held_out) > options.held_out_pictures:
        held_out = (
            split(held_out, options.held_out_pictures)[0]
            if options.held_out_pictures * 2 <= len(held_out)
            else (held_out[: options.held_out_pictures])
        )
    if options.gate is not None and not held_out:
        raise InputError("no picture is left to compare on: give more in --calibration, or others with --held-out")
    return calibration, held_out


class _Calibration:
    """The inputs of the graph, through the artifact's own pre-processing; counts and hashes what was used."""

    def __init__(self, records: Sequence[Record], manifest: Manifest) -> None:
        self._records, self._manifest = records, manifest
        self._hash = hashlib.sha256()
        self.count = 0

    @property
    def digest(self) -> str:
        """SHA-256 over those of the files."""
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
    """The layers asked for by name, and the worst of the others, in the order of the network."""
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
