"""`lidcam quantize`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from lidcam_cli.console import note, say
from lidcam_rt.errors import InputError

__all__ = ["quantize"]


def quantize(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Artifact in float32, made by `lidcam export`.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE.onnx", help="The artifact to write.")
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Pictures like those of the service, or a data set as for `lidcam eval`."),
    ] = None,
    precision: Annotated[Literal["int8", "fp16"], typer.Option(metavar="NAME", help="int8 or fp16.")] = "int8",
    pictures: Annotated[int, typer.Option(metavar="COUNT", help="Pictures used for calibration.")] = 100,
    reduce_range: Annotated[
        bool, typer.Option("--reduce-range", help="Weights of 7 bits, for processors without VNNI.")
    ] = False,
    gates: Annotated[
        bool, typer.Option("--gates", help="SE blocks' gates in 8 bits too: faster in ONNX Runtime, not in OpenVINO.")
    ] = False,
    gate: Annotated[
        str | None,
        typer.Option(
            metavar="BOUNDS",
            help="How far it may be from float32, such as top1=0.02,mask_iou=0.9, or miou=0.01,label_iou=0.9 in "
            "segmentation; beyond that nothing is written.",
        ),
    ] = None,
    held_out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Pictures to compare on. [default: those not used for calibration]"),
    ] = None,
    held_out_pictures: Annotated[int, typer.Option(metavar="COUNT", help="How many held-out pictures to use.")] = 200,
    float_layers: Annotated[
        str | None, typer.Option(metavar="NAMES", help="Layers left in float32; --list-layers names all.")
    ] = None,
    float_worst: Annotated[
        int, typer.Option(metavar="COUNT", help="Leave in float32 the COUNT layers that cause most of the error.")
    ] = 0,
    list_layers: Annotated[
        bool, typer.Option("--list-layers", help="List the network's layers and write nothing.")
    ] = False,
) -> None:
    """Make an int8 or fp16 artifact from a float32 one.

    CAM head, logits and PaS stay in float32; in a segmentation network these are the last convolution (the logits),
    the label map and the scores.
    """
    from lidcam_rt.artifact import read_manifest

    given = read_manifest(model)
    if list_layers:
        import onnx

        from lidcam_export.precision.int8 import compute_layers

        for name in compute_layers(onnx.load(str(model))):
            say(name)
        return
    if output is None:
        raise InputError("give the artifact to write: --output FILE.onnx")
    from lidcam_export.precision.quantize import QuantizeOptions, parse_gate, quantize_artifact

    options = QuantizeOptions(
        precision=precision,
        calibration=calibration,
        pictures=pictures,
        reduce_range=reduce_range,
        gates=gates,
        held_out=held_out,
        held_out_pictures=held_out_pictures,
        gate=parse_gate(gate, given) if gate else None,
        float_layers=tuple(name.strip() for name in float_layers.split(",")) if float_layers else (),
        float_worst=float_worst,
    )
    manifest, outcome = quantize_artifact(model, output, options, note=note)
    made = manifest.precision
    assert made is not None
    say(f"wrote {output}: {model.stat().st_size / 1e6:.1f} MB in float32, {output.stat().st_size / 1e6:.1f} MB now")
    if made.network == "int8":
        kept = f"{len(made.float_layers)} layers left in float32" if made.float_layers else "every layer quantized"
        say(f"int8, calibrated on {made.calibration_pictures} pictures; {kept}")
    if outcome is None:
        say("not compared with float32: give --held-out FOLDER")
    else:
        say(f"against float32 on {outcome.pictures} held-out pictures: {outcome.describe()}")
