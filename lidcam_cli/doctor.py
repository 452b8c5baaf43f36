"""`lidcam doctor`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from lidcam_cli.options import Device, JsonFlag
from lidcam_cli.requirements import outdated

__all__ = ["Finding", "doctor", "examine"]

_ORT = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino", "onnxruntime-qnn")
_REQUIRED = {"numpy": "numpy", "pillow": "PIL", "simplejpeg": "simplejpeg", "pydantic": "pydantic", "OpenCV": "cv2"}
_CV2 = (
    *("opencv-python", "opencv-python-headless"),
    *("opencv-contrib-python", "opencv-contrib-python-headless"),
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked.

    Attributes:
        what: its name.
        state: `ok`, `absent` (an optional part that is not there), or `broken` (localization may fail).
        detail: what was found.
        mend: the command that fixes or installs it, or an empty text.
    """

    what: str
    state: Literal["ok", "absent", "broken"]
    detail: str
    mend: str = ""


def doctor(
    speed: Annotated[
        list[Path] | None,
        typer.Option(metavar="MODEL", help="Run MODEL in every installed engine, interleaved; may be repeated."),
    ] = None,
    images: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="With --speed: pictures. [default: synthetic ones]")
    ] = None,
    device: Device = "auto",
    threads: Annotated[int, typer.Option(metavar="COUNT", help="With --speed: threads of a call; 0: all cores.")] = 0,
    seconds: Annotated[
        float, typer.Option(metavar="SECONDS", help="With --speed: how long to measure, all engines together.")
    ] = 20.0,
    as_json: JsonFlag = False,
) -> None:
    """Check this installation, and say how to fix it.

    With --speed: compare the engines. Exit status: 0, or 1 if something is broken.
    """
    if speed:
        _speed(speed, images, device, threads, seconds, as_json)
        return
    import json

    from rich.text import Text

    from lidcam_cli.console import out
    from lidcam_rt.text import plain

    findings = examine()
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        style = {"ok": "green", "absent": "yellow", "broken": "bold red"}
        for finding in findings:
            line = Text(f"{finding.state:<7}", style=style[finding.state])
            line.append(f"{finding.what}: ", style="bold").append(plain(finding.detail), style="default")
            out.print(line)
            if finding.mend:
                out.print(Text(f"       {finding.mend}", style="cyan"), soft_wrap=True)
    if any(finding.state == "broken" for finding in findings):
        raise typer.Exit(1)


def _speed(
    models: list[Path], images: Path | None, device: str, threads: int, seconds: float, as_json: bool
) -> None:
    import json

    from rich.table import Table

    from lidcam_cli.console import cell, out, say
    from lidcam_cli.speed import compare_engines

    rows = compare_engines(models, images=images, device=device, threads=threads, seconds=seconds)
    if as_json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
        return
    table = Table(box=None, pad_edge=False)
    for title in ("model", "engine", "ms", "10% to 90%", "same", "IoU"):
        table.add_column(title, overflow="fold", justify="left" if title in ("model", "engine") else "right")
    for row in rows:
        if row.ms is None or row.spread_ms is None:
            table.add_row(cell(row.model), cell(f"{row.backend} {row.precision}"), "-", "-", "-", "-")
            continue
        low, high = row.spread_ms
        engine = row.engine + (" (auto)" if row.auto else "")
        same = "-" if row.same is None else f"{100 * row.same:.2f}".rstrip("0").rstrip(".") + "%"
        agreement = same, "-" if row.iou is None else f"{row.iou:.4f}"
        table.add_row(cell(row.model), cell(engine), f"{row.ms:.1f}", f"{low:.1f} to {high:.1f}", *agreement)
    out.print(table)
    for why_not in dict.fromkeys(f"{row.backend}: {row.why_not}" for row in rows if row.why_not):
        say(why_not, style="yellow", wrap=True)
    runs = [row for row in rows if row.ms is not None]
    if not runs:
        raise typer.Exit(1)
    best = min(runs, key=lambda row: row.ms or 0)
    asked = f"--backend {best.backend}" + (f" --precision {best.precision}" if best.precision != "auto" else "")
    say(
        f"Fastest here: {best.engine} on {best.model} ({asked}). `same` (classes of pictures, or labels of pixels) and "
        "`IoU` (of masks, or of label maps) compare each row with the first one of the same classes."
    )


def _versions(names: tuple[str, ...]) -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def examine(versions: Callable[[tuple[str, ...]], dict[str, str]] = _versions) -> list[Finding]:
    """Look at this installation.

    Args:
        versions: returns which of some distributions are installed, with their versions.
    """
    from lidcam_rt import __version__

    python = f"{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"
    findings = [Finding("lidcam-rt", "ok", f"{__version__} on Python {python}, {sys.platform}")]
    findings += _required(versions)
    findings += [_clash("onnxruntime", _ORT, versions), _clash("cv2", _CV2, versions)]
    findings += _engine()
    findings += _kernels()
    findings += _extras()
    return findings


def _required(versions: Callable[[tuple[str, ...]], dict[str, str]]) -> list[Finding]:
    found = []
    for name, module in _REQUIRED.items():
        try:
            imported = __import__(module)
        except Exception as error:  # also a broken shared library
            mend = {"OpenCV": "opencv-python-headless"}.get(name, name)
            found.append(
                Finding(name, "broken", f"cannot be imported ({error})", f"pip install --force-reinstall {mend}")
            )
        else:
            found.append(Finding(name, "ok", str(getattr(imported, "__version__", "installed"))))
    found += [Finding(entry.name, "broken", str(entry), entry.mend) for entry in outdated()]
    return found


def _clash(module: str, names: tuple[str, ...], versions: Callable[[tuple[str, ...]], dict[str, str]]) -> Finding:
    """Distributions that write into one import package overwrite each other's files."""
    installed = versions(names)
    listed = ", ".join(f"{name} {number}" for name, number in installed.items())
    if len(installed) > 1 and not (module == "cv2" and len(set(installed.values())) == 1):
        keep = "onnxruntime-gpu" if "onnxruntime-gpu" in installed else sorted(installed)[0]
        if module == "cv2":
            keep = "opencv-python-headless"
        return Finding(
            f"{module} distributions",
            "broken",
            f"{listed} are all installed and overwrite each other's files; keep only one",
            f"pip uninstall -y {' '.join(installed)} && pip install {keep}",
        )
    if not installed:
        return Finding(f"{module} distributions", "absent", "none is listed by pip (built from source?)")
    return Finding(f"{module} distributions", "ok", listed)


def _engine() -> list[Finding]:
    from lidcam_rt.backends.base import usable_cores

    try:
        import onnxruntime as ort

        providers = ort.get_available_providers()
    except Exception as error:
        return [
            Finding(
                "onnxruntime",
                "broken",
                f"cannot be imported ({error})",
                "pip install --force-reinstall onnxruntime",
            )
        ]
    found = [Finding("onnxruntime", "ok", f"{ort.__version__}, providers {', '.join(providers)}")]
    found.append(Finding("CPU", "ok", f"{usable_cores()} usable cores"))
    gpu = _gpu()
    cuda = "CUDAExecutionProvider" in providers
    if gpu is None:
        found.append(Finding("GPU", "absent", "no NVIDIA driver found; everything runs on the CPU"))
    elif cuda:
        found.append(Finding("GPU", "ok", f"{gpu}; try `lidcam localize --device cuda`"))
    else:
        found.append(
            Finding(
                "GPU",
                "absent",
                f"{gpu}, but this onnxruntime has no CUDA provider",
                "pip uninstall -y onnxruntime && pip install 'lidcam-rt[gpu]'",
            )
        )
    return found


def _gpu() -> str | None:
    """Names of the NVIDIA GPUs, from the driver's tool in a separate process; None without a driver."""
    import shutil
    import subprocess

    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    try:
        answer = subprocess.run(
            [tool, "--query-gpu=name,driver_version", "--format=csv,noheader"],
            capture_output=True, text=True, timeout=20, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return "; ".join(answer.stdout.strip().splitlines()) or None


def _kernels() -> list[Finding]:
    rebuild = "pip install --force-reinstall --no-deps lidcam-rt"
    try:
        from lidcam_rt import _kernels as compiled

        info: dict[str, Any] = compiled.build_info()
    except Exception as error:
        return [Finding("compiled kernels", "broken", f"not built or not loadable ({error})", rebuild)]
    found = [Finding("compiled kernels", "ok", ", ".join(f"{k} {v}" for k, v in info.items()))]
    found.append(_ops_library())
    return found


def _ops_library() -> Finding:
    from lidcam_rt.pas import ops_library

    library = ops_library()
    if library is None:
        if os.environ.get("LIDCAM_OPS"):
            return Finding("PaS operator", "absent", "switched off by LIDCAM_OPS; PaS runs in standard operators")
        return Finding(
            "PaS operator",
            "absent",
            "the operator library was not built; artifacts run PaS in standard operators",
            "ORT_INCLUDE_DIR=... pip install --force-reinstall --no-deps --no-binary lidcam-rt lidcam-rt",
        )
    try:
        import onnxruntime as ort

        ort.SessionOptions().register_custom_ops_library(str(library))
    except Exception as error:
        return Finding(
            "PaS operator", "broken", f"onnxruntime refuses {library} ({error})", "pip install -U onnxruntime"
        )
    return Finding("PaS operator", "ok", f"kernel of the operator library {library}")


def _extras() -> list[Finding]:
    from lidcam_cli.app import EXTRA_MODULES, missing_modules

    found = []
    for extra in EXTRA_MODULES:
        if missing := missing_modules(extra):
            detail = f"{', '.join(missing)} not found"
            found.append(Finding(f"extra {extra}", "absent", detail, f"pip install 'lidcam-rt[{extra}]'"))
        elif old := outdated(extra):
            detail = "; ".join(map(str, old))
            found.append(Finding(f"extra {extra}", "broken", detail, f"pip install 'lidcam-rt[{extra}]'"))
        else:
            found.append(Finding(f"extra {extra}", "ok", "installed"))
    return found
