"""`lidcam export-triton`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lidcam_cli.options import RefinePreset

__all__ = ["export_triton"]


def export_triton(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Artifact made by `lidcam export`.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="The repository; a new folder.")],
    name: Annotated[str, typer.Option(metavar="NAME", help="Name of the model. [default: the file's name]")] = "",
    gpu: Annotated[bool, typer.Option("--gpu", help="Have Triton run the network on a GPU.")] = False,
    max_batch: Annotated[int, typer.Option(min=1, max=1024, metavar="COUNT", help="Pictures per network call.")] = 8,
    max_delay: Annotated[
        float, typer.Option(min=0, max=1000, metavar="MS", help="Milliseconds a picture may wait for others.")
    ] = 2.0,
    queue: Annotated[int, typer.Option(min=1, max=100_000, metavar="COUNT", help="Pictures that may wait.")] = 32,
    deadline: Annotated[
        float, typer.Option(min=0.001, max=3600, metavar="SECONDS", help="Time that a picture may wait.")
    ] = 10.0,
    engine: Annotated[
        Path | None, typer.Option(metavar="FILE.engine", help="Engine of TensorRT, built from MODEL, to run instead.")
    ] = None,
    ops_library: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Operator library on Triton's machine. [default: standard operators]"),
    ] = None,
    refine: RefinePreset = None,
) -> None:
    """Write a model repository for Triton Inference Server.

    Two models: the network, and one that takes pictures and returns class,
    box and mask. README.md in the folder says how to start Triton.
    """
    from lidcam_cli.console import say
    from lidcam_serve.triton.repository import RepositoryOptions, write_repository

    files = write_repository(
        model,
        output,
        RepositoryOptions(
            name=name,
            gpu=gpu,
            max_batch=max_batch,
            max_delay=max_delay / 1000,
            queue=queue,
            deadline=deadline,
            engine=engine,
            ops_library=ops_library,
            refine=refine,
        ),
    )
    for path in files:
        say(str(path))
