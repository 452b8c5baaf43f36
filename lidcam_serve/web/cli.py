"""`lidcam web`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lidcam_cli.options import MAX_PIXELS, MaxPixels

__all__ = ["web"]


def web(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Artifact of a classifier, made by `lidcam export`.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="The site; an earlier site there is replaced.")
    ],
    name: Annotated[str, typer.Option(metavar="NAME", help="Name of the model. [default: the file's name]")] = "",
    ort: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Folder or .tgz of onnxruntime-web. [default: fetched by npm]"),
    ] = None,
    webgpu: Annotated[
        bool, typer.Option("--webgpu/--no-webgpu", help="Use WebGPU where a browser has it (27 MB more).")
    ] = True,
    max_pixels: MaxPixels = MAX_PIXELS,
) -> None:
    """Write a static site that runs an artifact in the browser.

    The page is that of `lidcam serve`, without a server: ONNX Runtime Web
    runs the artifact, as it is, and no picture leaves the browser.
    README.md in the folder says how to serve it.

    Exit status: 0 written, 2 wrong arguments or package, 3 the artifact,
    5 onnxruntime-web cannot be fetched, 6 the folder.
    """
    from lidcam_cli.console import note, say
    from lidcam_serve.web import package
    from lidcam_serve.web.site import SiteOptions, write_site

    if ort is None:
        note(f"npm fetches onnxruntime-web {package.VERSION}")
    files = write_site(model, output, SiteOptions(name, webgpu, ort, max_pixels))
    total = sum(files.values()) / 1e6
    say(f"wrote {output}: {len(files)} files, {total:.1f} MB, with onnxruntime-web {package.VERSION}")
    say(f"{model.name} is in it unchanged: onnxruntime-web runs artifacts as they are")
    say(f"to view it: python -m http.server 8000 --bind 127.0.0.1 --directory {output}")
