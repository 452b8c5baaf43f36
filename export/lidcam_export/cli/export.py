"""`lidcam export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lidcam_cli.console import note, say
from lidcam_export.options import HeadName, InputType, Pooling, Task
from lidcam_rt.errors import InputError
from lidcam_rt.pas.options import Interpolation, Mode, Precision, Where

if TYPE_CHECKING:
    from lidcam_export.agreement import Agreement
    from lidcam_export.options import ExportOptions
    from lidcam_rt.artifact import Manifest


def export(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="Checkpoint folder, weights file, timm:NAME, torchvision:NAME, hf_hub:OWNER/NAME, cam:vgg16, "
            "python:PACKAGE.MODULE:FUNCTION or zoo:efficientnet_lite0.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE.onnx", help="The artifact to write.")],
    weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="State dict (.pth, .safetensors) in place of the source's.")
    ] = None,
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="Try the export without weights; the maps mean nothing.")
    ] = False,
    ema: Annotated[
        bool | None, typer.Option("--ema/--no-ema", help="Use the file's averaged weights; default: if it has them.")
    ] = None,
    head: Annotated[
        HeadName, typer.Option(metavar="NAME", help="linear (exact maps only) or linearized (any head).")
    ] = "linear",
    task: Annotated[
        Task | None, typer.Option(metavar="NAME", help="localization (softmax) or multilabel (sigmoid).")
    ] = None,
    size: Annotated[str | None, typer.Option(metavar="HEIGHTxWIDTH", help="Size of the input, or SIDE.")] = None,
    mean: Annotated[
        str | None, typer.Option(metavar="R,G,B", help="Subtracted from pixels; one number serves all channels.")
    ] = None,
    std: Annotated[
        str | None, typer.Option(metavar="R,G,B", help="Pixels are divided by it; same units as --mean.")
    ] = None,
    pixels: Annotated[
        int | None,
        typer.Option(metavar="1|255", help="Units of --mean and --std; default: 1 where all are at most 1, else 255."),
    ] = None,
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
    classes: Annotated[
        str | None, typer.Option(metavar="FILE", help="Text file with a class name per line, or imagenet.")
    ] = None,
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
    from lidcam_export.sources.kinds import check_name

    # whatever can be checked without PyTorch, which takes seconds to load
    check_name(source)
    if weights is not None and not weights.is_file():
        raise InputError(f"{weights}: no such weights file. Give --weights a .pth or .safetensors file")
    shape = parse_size(size)
    mean_values, std_values = parse_normalisation(mean, std, pixels)
    names = _class_names(classes)

    from lidcam_export.exporter import export_artifact
    from lidcam_export.options import ExportOptions

    options = ExportOptions(
        weights=weights,
        random_weights=random_weights,
        ema=ema,
        head=head,
        task=task,
        size=shape,
        mean=mean_values,
        std=std_values,
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
    )
    note(f"loading {source}")
    if Path(source).is_dir():
        from lidcam_training.segmentation.checkpoint import is_segmentation

        if is_segmentation(Path(source)):
            _export_segmentation(Path(source), output, options)
            return
    manifest, agreement = export_artifact(source, output, options, note=note)
    say(f"wrote {output}")
    for name, value in summary(manifest, agreement, portable=portable):
        say(f"  {name:<10} {value}")
    say(f"  {'run it':<10} lidcam localize {output} PICTURE -o FOLDER")


def _export_segmentation(source: Path, output: Path, options: ExportOptions) -> None:
    """Export the checkpoint of a segmentation network and say what was written."""
    from lidcam_export.segmentation import export_segmentation

    manifest, agreement = export_segmentation(
        source, output, size=options.size, dynamic_size=options.dynamic_size, weights_license=options.weights_license,
        note=note,
    )  # fmt: skip
    spec = manifest.input
    say(f"wrote {output}")
    say(f"  input      {spec.height}x{spec.width} uint8, {'any size' if spec.dynamic_size else 'this size only'}")
    say(f"  classes    {len(manifest.class_names)} and the background; task segmentation")
    say(
        f"  checked    against PyTorch, {agreement.pictures}: logits {agreement.logits:.1e} (relative), label map "
        f"{agreement.flipped:.1e} of pixels"
    )
    say(f"  run it     lidcam localize {output} PICTURE -o FOLDER")


def summary(manifest: Manifest, agreement: Agreement, *, portable: bool) -> list[tuple[str, str]]:
    """What was written, line by line: name and value."""
    assert manifest.cam is not None
    spec, cam, pas, source = manifest.input, manifest.cam, manifest.pas, manifest.source
    names = manifest.class_names
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    weights = "RANDOM, the maps mean nothing" if source.random_weights else source.weights or "of the network's code"
    pooling = cam.pooling if cam.tap_threshold is None else f"{cam.pooling} {cam.tap_threshold:g}"
    nodes = manifest.nodes
    exact = "exact" if cam.head == "linear" else "of the linearized head, not exact"
    nwc = "negative weights clamped (NWC)" if cam.nwc else "negative weights kept"
    numbers = ", ".join(f"{v:g}" for v in spec.mean), ", ".join(f"{v:g}" for v in spec.std)
    return [
        ("source", f"{source.name}; weights: {weights}"),
        ("licence", f"{manifest.weights_license or 'not stated (--weights-license)'}"),
        (
            "input",
            f"{spec.height}x{spec.width} {spec.dtype}, {'any size' if spec.dynamic_size else 'this size only'}; pixels "
            f"0 to 255 minus ({numbers[0]}) over ({numbers[1]})",
        ),
        ("classes", f"{len(names)}: {shown}; task {manifest.task}"),
        ("map", f"{exact}, stride {cam.stride}, {pooling}, {nwc}, {manifest.top_k} per picture"),
        (
            "PaS",
            f"percentile {pas.percentile:g}, theta {pas.theta:g}, {pas.mode}, {pas.precision}, {pas.where}; "
            + ("standard operators" if portable else "node with a function body"),
        ),
        ("precision", "float32; `lidcam quantize` makes an int8 or fp16 artifact of it"),
        ("graph", f"{nodes.traced} nodes as traced, {nodes.written} as written" if nodes else "not counted"),
        (
            "checked",
            f"against PyTorch, {agreement}",
        ),
    ]


def _class_names(classes: str | None) -> tuple[str, ...] | None:
    if classes is None or (classes != "imagenet" and Path(classes).is_file()):
        from lidcam_bench.data.text import read_class_names

        return read_class_names(Path(classes)) if classes else None
    if classes != "imagenet":
        raise InputError(f"--classes {classes}: no such file. Give a text file with a class name per line, or imagenet")
    from lidcam_export.sources.imagenet import imagenet_names

    return imagenet_names()


Triple = tuple[float, float, float]


def parse_normalisation(mean: str | None, std: str | None, pixels: int | None) -> tuple[Triple | None, Triple | None]:
    """Mean and standard deviation in units of 0 to 255, of texts in units of 0 to 1 or of 0 to 255."""
    given = {"--mean": _triple("--mean", mean), "--std": _triple("--std", std)}
    values = [value for triple in given.values() if triple for value in triple]
    if not values:
        return None, None
    if pixels not in (None, 1, 255):
        raise InputError(f"--pixels {pixels}: give 1 for pixels of 0 to 1, or 255 for 0 to 255")
    if None in given.values():
        raise InputError("give both --mean and --std")
    scale = 255.0 / (pixels or (1 if max(map(abs, values)) <= 1 else 255))

    def scaled(triple: Triple | None) -> Triple | None:
        return None if triple is None else (triple[0] * scale, triple[1] * scale, triple[2] * scale)

    return scaled(given["--mean"]), scaled(given["--std"])


def _triple(name: str, text: str | None) -> Triple | None:
    if text is None:
        return None
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) == 1:
        numbers *= 3
    if len(numbers) != 3 or (name == "--std" and min(numbers) <= 0):
        raise InputError(f"{name} {text}: give one number or three, such as 0.485,0.456,0.406; --std above 0")
    return numbers[0], numbers[1], numbers[2]


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
