"""`lidcam build`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lidcam_cli.console import say
from lidcam_export.tensorrt.options import BuildOptions, FlavourName, PasForm, Precision
from lidcam_rt.errors import InputError

__all__ = ["build"]


def build(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Artifact made by `lidcam export`.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE.engine",
            help="The engine; FILE.engine.json is written beside it. [default: it stays in the cache]",
            show_default=False,
        ),
    ] = None,
    flavour: Annotated[
        FlavourName, typer.Option(metavar="NAME", help="tensorrt, tensorrt-rtx, or auto: whichever is installed.")
    ] = "auto",
    precision: Annotated[
        Precision, typer.Option(metavar="NAME", help="fp32 or fp16. CAM head and PaS stay in float32.")
    ] = "fp32",
    batch: Annotated[
        str,
        typer.Option(metavar="MIN,BEST,MAX", help="Pictures per call: smallest, preferred, largest; or one number."),
    ] = "1,8,32",
    size: Annotated[
        str | None, typer.Option(metavar="HEIGHTxWIDTH", help="Size of the input. [default: the artifact's]")
    ] = None,
    capability: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Compute capabilities, such as 8.9,12.0. [default: that of this GPU]"),
    ] = None,
    pas: Annotated[
        PasForm,
        typer.Option(metavar="FORM", help="body (standard operators) or plugin (kernel baked into the engine)."),
    ] = "body",
    workspace: Annotated[
        int | None, typer.Option(metavar="MIB", help="Limit of the builder's scratch memory in MiB.")
    ] = None,
    cache: Annotated[
        bool,
        typer.Option("--cache/--no-cache", help="Reuse an engine from the cache, and keep a new one there."),
    ] = True,
    force: Annotated[
        bool, typer.Option("--force", help="Build even if the output is up to date or the engine is in the cache.")
    ] = False,
) -> None:
    """Build a TensorRT engine from an artifact.

    An engine that was built before, by the same TensorRT from the same file for the same GPU, comes from the cache.
    """
    from lidcam_export.cli.export import parse_size
    from lidcam_export.tensorrt.builder import build_engine
    from lidcam_export.tensorrt.engine_cache import EngineCache

    if output is None and not cache:
        raise InputError("--no-cache needs a file for the engine: -o FILE.engine")
    done = build_engine(
        model,
        output,
        BuildOptions(
            flavour=flavour,
            precision=precision,
            batch=_batch(batch),
            size=parse_size(size),
            capability=tuple(entry.strip() for entry in capability.split(",")) if capability else (),
            pas=pas,
            workspace_mib=workspace,
            force=force,
        ),
        cache=EngineCache.default() if cache else None,
    )
    spec = done.spec
    how = "from the cache" if done.source == "cache" else done.source
    image = spec.profile["image"]
    counts = ", ".join(f"{number} {name}" for name, number in sorted(spec.built.items()))
    say(
        f"{done.path}: {how}, {spec.engine_bytes / 1e6:.1f} MB, {spec.flavour} "
        f"{spec.version} for compute capability {', '.join(spec.compute_capability)}"
    )
    say(
        f"{spec.precision}, convolutions as built: {counts} (read from the {spec.evidence}); PaS: {spec.pas}; image "
        f"{image.min} to {image.max}, best at {image.opt}"
    )
    if spec.half_check is not None:
        check = spec.half_check
        say(
            f"fp16 against fp32 (ONNX Runtime, CPU): logits {check['logits']:.1e}, CAM {check['cam']:.1e} (relative), "
            f"map {check['map']:.0f} of 255, mask {check['mask_flipped']:.1e} of pixels"
        )


def _batch(text: str) -> tuple[int, int, int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) == 1:
        numbers *= 3
    if len(numbers) != 3:
        raise InputError(f"--batch {text}: give SMALLEST,PREFERRED,LARGEST, such as 1,8,32, or one number")
    return numbers[0], numbers[1], numbers[2]
