"""Export: build the artifact under a temporary name, compare it with PyTorch, then give it its name."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import onnx
from lidcam_training.models.stride import feature_stride
from pydantic import ValidationError

from lidcam_export.agreement import Agreement, compare_with_pytorch, export_record
from lidcam_export.graph.localization import LocalizationGraph, build_model
from lidcam_export.graph.operator import OPSET, write_out
from lidcam_export.options import ExportOptions
from lidcam_export.sources.network import Request
from lidcam_export.sources.source import Source, load_source
from lidcam_export.structure import Structure
from lidcam_rt.artifact import CamSpec, InputSpec, Manifest
from lidcam_rt.errors import ExportError, InputError, LidcamError
from lidcam_rt.files import replacing
from lidcam_rt.pas import PasOptions
from lidcam_rt.version import __version__

__all__ = ["export_artifact", "manifest_of"]


def manifest_of(source: Source, options: ExportOptions) -> Manifest:
    """The manifest of a source exported with these options.

    Raises:
        ExportError: the options do not fit the source or each other.
    """
    known, classes = source.settings, source.structure.classes
    height, width = options.size or known.size
    pooling = options.pooling or known.pooling
    names = options.class_names or source.class_names
    if len(names) != classes:
        raise ExportError(f"{len(names)} class names for a classifier of {classes} classes: give one each")
    if pooling == "tap" and source.head == "linearized":
        raise ExportError("pooling is part of a linearized head: leave --pooling tap out")
    if options.tap_threshold is not None and pooling != "tap":
        raise ExportError("a TAP threshold was given, but pooling is gap: add --pooling tap")
    tap_threshold = options.tap_threshold if options.tap_threshold is not None else known.tap_threshold
    if pooling == "tap" and tap_threshold is None:
        tap_threshold = 0.05
    activation = source.structure.activation if isinstance(source.structure, Structure) else "none"
    task = options.task or known.task or ("multilabel" if activation == "sigmoid" else "localization")
    try:
        return Manifest(
            task=task,
            input=InputSpec(
                dtype=options.input_dtype,
                layout="NHWC" if options.input_dtype == "uint8" else "NCHW",
                height=height,
                width=width,
                dynamic_size=options.dynamic_size,
                mean=options.mean or known.mean,
                std=options.std or known.std,
                interpolation=known.interpolation,
            ),
            class_names=names,
            top_k=options.top_k,
            labels_input=options.labels_input,
            cam=CamSpec(
                nwc=known.nwc if options.nwc is None else options.nwc,
                pooling=pooling,
                tap_threshold=tap_threshold if pooling == "tap" else None,
                stride=feature_stride(source.structure.features, (height, width)),
                head=source.head,
            ),
            pas=PasOptions(
                percentile=known.percentile if options.percentile is None else options.percentile,
                theta=known.theta if options.theta is None else options.theta,
                mode=options.mode,
                precision=options.pas_precision,
                where=options.pas_where,
                interpolation=options.pas_interpolation,
            ),
            source=source.spec,
            weights_license=options.weights_license or known.weights_license,
            package_version=__version__,
            opset=OPSET,
        )
    except InputError as error:
        raise ExportError(str(error)) from None
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        given = f", got {first['input']!r}" if name else ""
        raise ExportError(f"{name or 'options'}: {first['msg'][:1].lower()}{first['msg'][1:]}{given}") from None


def export_artifact(
    source: str,
    output: Path,
    options: ExportOptions | None = None,
    *,
    note: Callable[[str], None] = lambda _: None,
) -> tuple[Manifest, Agreement]:
    """Export a classifier as an artifact.

    Args:
        source: a checkpoint folder, a weights file, or one of the forms that `load_source` knows.
        output: the .onnx file; `output.export.json` beside it records the comparison and the file's
            SHA-256.
        options: how to make it.
        note: called with a message for each step.

    Raises:
        ExportError: the source cannot be exported, or the file does not agree with PyTorch.
        InputError: its weights cannot be read or do not fit.
        OutputError: the file cannot be written.
    """
    options = options or ExportOptions()
    if output.suffix != ".onnx":
        raise ExportError(f"{output}: the artifact's name must end in .onnx")
    request = Request(options.weights, options.random_weights, options.ema, options.stride, options.size)
    loaded = load_source(source, request, head=options.head, note=note)
    manifest = manifest_of(loaded, options)
    if manifest.input.dynamic_size:
        try:
            return _write(loaded, manifest, output, options, note)
        except _Refused as error:
            note(f"height and width stay fixed: with free ones, {error}")
            manifest = manifest.model_copy(update={"input": manifest.input.model_copy(update={"dynamic_size": False})})
    try:
        return _write(loaded, manifest, output, options, note)
    except _Refused as error:
        raise ExportError(f"{loaded.spec.name}: {error}; nothing was written") from error


class _Refused(Exception):
    """A graph that cannot be traced, or does not agree with PyTorch."""


def _write(
    source: Source, manifest: Manifest, output: Path, options: ExportOptions, note: Callable[[str], None]
) -> tuple[Manifest, Agreement]:
    """Trace, compare, and give the file its name; the manifest as written."""
    try:
        graph = LocalizationGraph(source, manifest).eval()
    except Exception as error:
        if isinstance(error, LidcamError):
            raise
        raise ExportError(f"{source.spec.name}: its head cannot be linearized ({_first_line(error)})") from error
    note(f"tracing, {'free' if manifest.input.dynamic_size else 'fixed'} height and width")
    try:
        model, manifest = build_model(graph, dynamic_size=manifest.input.dynamic_size)
    except Exception as error:
        raise _Refused(f"torch.onnx cannot trace it ({_first_line(error)})") from error
    if options.portable:
        model = write_out(model)
    beside = output.with_name(output.name + ".export.json")
    with replacing(output) as temporary, replacing(beside) as figures:
        onnx.save(model, str(temporary))
        note("comparing the file with PyTorch")
        try:
            agreement = compare_with_pytorch(temporary, graph, manifest)
        except Exception as error:
            raise _Refused(f"the file does not run ({_first_line(error)})") from error
        if not agreement.holds:
            raise _Refused(f"the exported graph does not agree with PyTorch ({agreement})")
        figures.write_text(export_record(temporary, agreement))
    return manifest, agreement


def _first_line(error: Exception) -> str:
    """The reason in one line: of torch's exceptions the innermost, without terminal codes and places in C++ code."""
    while error.__cause__ is not None and isinstance(error.__cause__, Exception):
        error = error.__cause__
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip() or type(error).__name__
    text = re.sub(r"\S*onnxruntime_src\S+ |^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text.splitlines()[0])
    return text[:200]
