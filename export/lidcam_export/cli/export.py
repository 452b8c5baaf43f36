"""`lidcam export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lidcam_export.options import InputType, Pooling
from lidcam_rt.cli.console import say
from lidcam_rt.errors import InputError
from lidcam_rt.pas.options import Interpolation, Mode, Precision, Where


def export(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="Checkpoint folder, timm:NAME, cam:vgg16, python:PACKAGE.MODULE:FUNCTION or zoo:efficientnet_lite0.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE.onnx", help="The artifact to write.")],
    weights: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="State dict (.pth, .safetensors). Without it the weights are random."),
    ] = None,
    size: Annotated[str | None, typer.Option(metavar="HEIGHTxWIDTH", help="Size of the input, or SIDE.")] = None,
    stride: Annotated[int | None, typer.Option(metavar="PIXELS", help="Pixels per cell of the map: 32 or 16.")] = None,
    pooling: Annotated[Pooling | None, typer.Option(metavar="NAME", help="gap or tap.")] = None,
    tap_threshold: Annotated[
        float | None, typer.Option(metavar="SHARE", help="TAP: share of a channel's maximum.")
    ] = None,
    nwc: Annotated[bool | None, typer.Option("--nwc/--no-nwc", help="Clamp negative weights.")] = None,
    percentile: Annotated[float | None, typer.Option(metavar="PERCENT", help="PaS: 0 to 100.")] = None,
    theta: Annotated[float | None, typer.Option(metavar="SHARE", help="PaS: 0 to 1.")] = None,
    mode: Annotated[Mode, typer.Option(metavar="NAME", help="PaS: threshold or normalize.")] = "threshold",
    pas_precision: Annotated[
        Precision, typer.Option(metavar="NAME", help="PaS: percentile of bytes or of values: uint8 or float.")
    ] = "uint8",
    pas_where: Annotated[
        Where, typer.Option(metavar="NAME", help="PaS: percentile of which map: resized or raw.")
    ] = "resized",
    pas_interpolation: Annotated[
        Interpolation, typer.Option(metavar="NAME", help="PaS: how the map is resized: cubic or linear.")
    ] = "cubic",
    top_k: Annotated[int, typer.Option(metavar="COUNT", help="Maps per picture.")] = 1,
    classes: Annotated[Path | None, typer.Option(metavar="FILE", help="Text file with a class name per line.")] = None,
    input_dtype: Annotated[InputType, typer.Option(metavar="NAME", help="uint8 or float32.")] = "uint8",
    labels_input: Annotated[
        bool, typer.Option("--labels-input/--no-labels-input", help="Input for classes to localize.")
    ] = True,
    dynamic_size: Annotated[bool, typer.Option("--dynamic-size/--fixed-size", help="Free height and width.")] = True,
    portable: Annotated[
        bool, typer.Option("--portable", help="PaS in standard operators, for engines without model functions.")
    ] = False,
    weights_license: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Licence of the weights, for the manifest.")
    ] = None,
) -> None:
    """Export a trained classifier as a localization artifact."""
    from lidcam_bench.data.text import read_class_names

    from lidcam_export.exporter import export_artifact
    from lidcam_export.options import ExportOptions

    names = None if classes is None else read_class_names(classes)
    manifest, agreement = export_artifact(
        source,
        output,
        ExportOptions(
            size=parse_size(size),
            stride=stride,
            pooling=pooling,
            tap_threshold=tap_threshold,
            nwc=nwc,
            percentile=percentile,
            theta=theta,
            mode=mode,
            pas_precision=pas_precision,
            pas_where=pas_where,
            pas_interpolation=pas_interpolation,
            top_k=top_k,
            class_names=names,
            input_dtype=input_dtype,
            labels_input=labels_input,
            weights_license=weights_license,
            dynamic_size=dynamic_size,
            portable=portable,
        ),
        weights=weights,
    )
    say(
        f"{output}: {len(manifest.class_names)} classes, input {manifest.input.height}x{manifest.input.width}, stride "
        f"{manifest.cam.stride}, {'free' if manifest.input.dynamic_size else 'fixed'} size"
    )
    say(
        f"against PyTorch, {agreement.pictures}: logits {agreement.logits:.1e}, CAM {agreement.cam:.1e} (relative), "
        f"map {agreement.map} of 255, mask {agreement.mask_flipped:.1e} of pixels"
    )


def parse_size(text: str | None) -> tuple[int, int] | None:
    """(height, width) of SIDE or HEIGHTxWIDTH."""
    if text is None:
        return None
    try:
        parts = [int(part) for part in text.lower().split("x")]
    except ValueError:
        parts = []
    if len(parts) not in (1, 2) or min(parts) < 1:
        raise InputError(f"--size {text}: give SIDE or HEIGHTxWIDTH in pixels, for example 384 or 384x512")
    return parts[0], parts[-1]
