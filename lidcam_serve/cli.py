"""`lidcam serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lidcam_cli.options import MAX_PIXELS, Backend, MaxPixels, Precision, RefinePreset

__all__ = ["serve"]


def serve(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODELS",
            help="Artifacts or engines: PATH, NAME=PATH or NAME:VERSION=PATH. The first is the default.",
        ),
    ],
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Address to listen on; by default this machine only.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, metavar="PORT", help="HTTP port; 0: any free one.")] = 8000,
    grpc_port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, metavar="PORT", help="gRPC port; 0: any free one. [default: none]"),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, max=256, metavar="COUNT", help="Processes. [default: one per --device]")
    ] = None,
    device: Annotated[
        list[str] | None,
        typer.Option(metavar="DEVICE", help="auto, cpu, cuda or cuda:INDEX; if repeated, one process on each."),
    ] = None,
    backend: Backend = "auto",
    precision: Precision = "auto",
    max_batch: Annotated[
        int | None,
        typer.Option(min=1, max=1024, metavar="COUNT", help="Pictures per network call. [default: CPU 1, GPU 8]"),
    ] = None,
    max_delay: Annotated[
        float, typer.Option(min=0, max=1000, metavar="MS", help="Milliseconds a picture may wait for others.")
    ] = 2.0,
    queue: Annotated[
        int, typer.Option(min=1, max=100_000, metavar="COUNT", help="Pictures that may wait, per model and process.")
    ] = 32,
    deadline: Annotated[
        float, typer.Option(min=0.001, max=3600, metavar="SECONDS", help="Time allowed from request to answer.")
    ] = 10.0,
    max_body: Annotated[int, typer.Option(min=1, max=1 << 30, metavar="BYTES", help="Refuse larger bodies.")] = 32
    << 20,
    max_pixels: MaxPixels = MAX_PIXELS,
    refine: RefinePreset = None,
    token_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File with the bearer token that clients send. [default: LIDCAM_TOKEN]"),
    ] = None,
    quiet: bool = False,
) -> None:
    """Serve artifacts over HTTP and gRPC.

    / is a page, /v1 takes pictures, /v2 tensors (Open Inference Protocol);
    there are also /metrics and /docs.

    On SIGTERM or Ctrl-C it answers the requests it has accepted, then ends.
    SIGHUP reloads the models whose files have changed.

    Exit status: 0 ended on request, 2 wrong arguments, 3 an artifact,
    5 the device, 6 the address.
    """
    from lidcam_cli.console import note
    from lidcam_rt.crf import Refine
    from lidcam_rt.errors import OutputError
    from lidcam_serve.options import ServeOptions, at, read_token, specs
    from lidcam_serve.process import listen, run

    Refine.of(refine)
    devices = tuple(device or ("auto",))
    options = ServeOptions(
        models=specs(models),
        host=host,
        port=port,
        grpc_port=grpc_port,
        workers=workers or len(devices),
        devices=devices,
        backend=backend,
        precision=precision,
        max_batch=max_batch,
        max_delay=max_delay / 1000,
        queue=queue,
        deadline=deadline,
        max_body=max_body,
        max_pixels=max_pixels,
        refine=refine,
        token=read_token(token_file),
        quiet=quiet,
    )
    try:
        http = listen(host, port)
    except OSError as error:
        raise OutputError(
            f"{at(host, port)}: cannot listen there ({error.strerror or error}). Choose another --port"
        ) from None
    if host not in ("127.0.0.1", "::1", "localhost") and options.token is None:
        note(
            "any machine that reaches this address can use the server: set --token-file to require a token", "yellow"
        )
    note(f"http://{at(host, http.getsockname()[1])}/ as soon as the models are loaded; Ctrl-C ends")
    if options.workers == 1:
        run(options, devices[0], http, grpc_port, supervised=False)
    else:
        from lidcam_serve.supervisor import supervise

        supervise(options, http)
