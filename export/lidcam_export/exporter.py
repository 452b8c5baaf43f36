"""Export: build the artifact under a temporary name, compare it with PyTorch, then give it its name."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import onnx
import onnxruntime as ort
import torch
from pydantic import ValidationError

from lidcam_export.agreement import Agreement, compare_with_pytorch
from lidcam_export.graph.localization import LocalizationGraph, build_model
from lidcam_export.graph.operator import OPSET, write_out
from lidcam_export.options import ExportOptions
from lidcam_export.sources.source import Source, load_source
from lidcam_rt.artifact import CamSpec, InputSpec, Manifest
from lidcam_rt.errors import ExportError, InputError
from lidcam_rt.files import file_sha256, replacing
from lidcam_rt.pas import PasOptions
from lidcam_rt.version import __version__

__all__ = ["export_artifact", "manifest_of"]


def manifest_of(source: Source, options: ExportOptions) -> Manifest:
    """The manifest of a source exported with these options.

    Raises:
        ExportError: the options do not fit the source or each other.
    """
    known, weight = source.settings, source.structure.weight
    height, width = options.size or known.size
    pooling = options.pooling or known.pooling
    names = options.class_names or source.class_names
    if len(names) != len(weight):
        raise ExportError(f"{len(names)} class names for a classifier of {len(weight)} classes: give one each")
    if options.tap_threshold is not None and pooling != "tap":
        raise ExportError("a TAP threshold was given, but pooling is gap: add --pooling tap")
    tap_threshold = options.tap_threshold if options.tap_threshold is not None else known.tap_threshold
    if pooling == "tap" and tap_threshold is None:
        tap_threshold = 0.05
    with torch.no_grad():
        cells = source.structure.features(torch.zeros(1, 3, 128, 128)).shape[-1]
    try:
        return Manifest(
            task=known.task,
            input=InputSpec(
                dtype=options.input_dtype,
                layout="NHWC" if options.input_dtype == "uint8" else "NCHW",
                height=height,
                width=width,
                dynamic_size=options.dynamic_size,
                mean=known.mean,
                std=known.std,
                interpolation=known.interpolation,
            ),
            class_names=names,
            top_k=options.top_k,
            labels_input=options.labels_input,
            cam=CamSpec(
                nwc=known.nwc if options.nwc is None else options.nwc,
                pooling=pooling,
                tap_threshold=tap_threshold if pooling == "tap" else None,
                stride=128 // cells,
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
    source_text: str, output: Path, options: ExportOptions | None = None, *, weights: Path | None = None
) -> tuple[Manifest, Agreement]:
    """Export a classifier as an artifact.

    Args:
        source_text: a checkpoint folder, or one of the forms that `load_source` knows.
        output: the .onnx file; `output.export.json` beside it gets the figures of the comparison and the file's
            SHA-256.
        options: how to make it.
        weights: state dict for sources that bring none.

    Raises:
        ExportError: the source cannot be exported, or the file does not agree with PyTorch.
        OutputError: the file cannot be written.
    """
    options = options or ExportOptions()
    if output.suffix != ".onnx":
        raise ExportError(f"{output}: the artifact's name must end in .onnx")
    source = load_source(source_text, weights=weights, stride=options.stride)
    manifest = manifest_of(source, options)
    model, manifest, graph = _build(source, manifest)
    if options.portable:
        model = write_out(model)
    beside = output.with_name(output.name + ".export.json")
    with replacing(output) as temporary, replacing(beside) as figures_file:
        onnx.save(model, str(temporary))
        agreement = compare_with_pytorch(temporary, graph, manifest)
        if (
            agreement.top1 < 1
            or agreement.logits > 1e-3
            or agreement.cam > 1e-3
            or agreement.mask_flipped > 1e-3
        ):
            raise ExportError(
                f"the exported graph does not agree with PyTorch, nothing was written: {agreement}"
            )
        figures = {
            "artifact_sha256": file_sha256(temporary),
            "agreement": asdict(agreement),
            "versions": {"lidcam_rt": __version__, "torch": torch.__version__, "onnxruntime": ort.__version__},
        }
        figures_file.write_text(json.dumps(figures, indent=1) + "\n")
    return manifest, agreement


def _build(source: Source, manifest: Manifest) -> tuple[onnx.ModelProto, Manifest, LocalizationGraph]:
    """Build with free height and width where the network allows, else with fixed ones."""
    graph = LocalizationGraph(source, manifest).eval()
    if manifest.input.dynamic_size:
        try:
            return build_model(graph, dynamic_size=True), manifest, graph
        except Exception as error:
            reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
            manifest = manifest.model_copy(
                update={"input": manifest.input.model_copy(update={"dynamic_size": False})}
            )
            graph.manifest = manifest
            print(f"note: height and width stay fixed, the network does not trace with free ones ({reason})")
    try:
        return build_model(graph, dynamic_size=False), manifest, graph
    except Exception as error:
        raise ExportError(
            f"{manifest.source.name}: torch.onnx cannot trace it: {str(error)[:500]}"
        ) from error
