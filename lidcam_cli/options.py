"""Options and arguments that several verbs of the command line share, each spelled and explained once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "MAX_PIXELS",
    "Augment",
    "Background",
    "Backend",
    "BatchSize",
    "Data",
    "Deadline",
    "Device",
    "Gpus",
    "JsonFlag",
    "Limit",
    "MaxPixels",
    "Model",
    "OutputFolder",
    "Precision",
    "Processes",
    "Quiet",
    "Ray",
    "RefinePreset",
    "Score",
    "Split",
    "Strict",
    "Verbose",
    "Workers",
]

Model = Annotated[
    Path,
    typer.Argument(metavar="MODEL", help="Artifact made by `lidcam export`, or engine made by `lidcam build`."),
]
OutputFolder = Annotated[
    Path,
    typer.Option(
        "--output", "-o", metavar="FOLDER", help="Folder for the results; the same command, run again, resumes there."
    ),
]
Data = Annotated[
    str,
    typer.Option(
        metavar="DATA",
        help="DIR with images/ and masks/ or labelmaps/, labels.csv or labels.json; coco:FILE.json[,IMAGES_DIR]; or "
        "NAME:DIR for a data set that an installed package reads, such as clutter-fashion:DIR.",
    ),
]
Split = Annotated[str, typer.Option(metavar="SPLIT", help="Split of NAME:DIR.")]
Limit = Annotated[int | None, typer.Option(min=1, metavar="COUNT", help="Use the first COUNT pictures only.")]
BatchSize = Annotated[
    int | None,
    typer.Option(min=1, metavar="COUNT", help="Pictures per call of the network. [default: 1 on the CPU, 8 on a GPU]"),
]
Backend = Annotated[str, typer.Option(metavar="NAME", help="Engine: auto, onnxruntime, openvino or tensorrt.")]
Device = Annotated[str, typer.Option(metavar="DEVICE", help="auto, cpu, cuda or cuda:INDEX.")]
Precision = Annotated[
    str, typer.Option(metavar="NAME", help="Arithmetic of the network: auto (as exported), fp32; openvino: bf16.")
]
Score = Annotated[float, typer.Option(metavar="SCORE", help="Track 1: lowest score at which a class is drawn.")]
Background = Annotated[
    str, typer.Option(metavar="RULE", help="Track 1: background score of a pixel: mask, constant or power.")
]
RefinePreset = Annotated[
    str | None,
    typer.Option(
        "--refine",
        metavar="PRESET",
        help="Refine maps, masks and boxes with a dense CRF: psa, irn, deeplab or example; psa-fast and so on give up "
        "pydensecrf's rounding for speed. The CRF works on the network's input, or with @original, as in psa@original, "
        "on the picture itself.",
    ),
]
Augment = Annotated[
    str | None,
    typer.Option(metavar="VIEWS", help="Average several views: flip, or ms-flip (4 scales, each mirrored too)."),
]
Strict = Annotated[
    bool, typer.Option("--strict/--no-strict", help="Refuse damaged pictures, or use what can be read of them.")
]
MaxPixels = Annotated[int, typer.Option(min=1, metavar="COUNT", help="Refuse pictures with more pixels.")]
#: The value of `lidcam_rt.image.MAX_PIXELS`; importing that would make every `--help` load NumPy and Pillow.
MAX_PIXELS = 89_478_485
Deadline = Annotated[
    float | None,
    typer.Option(metavar="SECONDS", help="Give up if the network's first batch takes longer: it may never end."),
]
Processes = Annotated[
    int | None,
    typer.Option(min=0, metavar="COUNT", help="Processes on this machine; 0: none besides this one."),
]
Ray = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="Run on Ray: local, auto (a running cluster) or a cluster's address."),
]
Workers = Annotated[
    int | None, typer.Option(min=1, metavar="COUNT", help="With --ray: actors. [default: one per core, or per GPU]")
]
Gpus = Annotated[float, typer.Option(min=0, metavar="COUNT", help="With --ray: GPUs per actor, fractions allowed.")]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON.")]

#: Options of every verb: `lidcam_cli.app` adds them.
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only errors and requested results.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say what is loaded, and why.")]
