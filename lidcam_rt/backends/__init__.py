"""Engines that run an artifact: a registry of what each can do, and the choice among them.

A new engine is one file with an `open_backend` (see `base.Opener`) and one entry of `BACKENDS`.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from lidcam_rt.backends.base import Backend, Opener, parse_device
from lidcam_rt.errors import InputError

if TYPE_CHECKING:
    from lidcam_rt.artifact import Manifest

_log = logging.getLogger("lidcam_rt")

__all__ = ["BACKENDS", "Backend", "Engine", "manifest_of", "open_backend"]


@dataclass(frozen=True, slots=True)
class Engine:
    """What is known of an engine before it is loaded.

    Attributes:
        name: what `backend=` takes.
        module: has `open_backend` (see `base.Opener`).
        suffix: of the files that it loads.
        made_by: the verb of `lidcam` that makes such a file.
        devices: kinds of devices that it runs on.
        precisions: arithmetic that can be requested of it, or that its files may have.
        imports: packages that provide it; any one of them will do.
        extra: the extra of lidcam-rt that installs them; None: they come with lidcam-rt itself.
        priority: among installed engines that load a file and run on the device, `auto` takes the highest.
        first_for: precisions of files for which it comes before engines of higher priority, on the CPU.
        manifest: `module:function` that reads the manifest of its files.
    """

    name: str
    module: str
    suffix: str
    made_by: str
    devices: tuple[str, ...]
    precisions: tuple[str, ...]
    imports: tuple[str, ...]
    extra: str | None
    priority: int
    first_for: tuple[str, ...] = ()
    manifest: str = "lidcam_rt.artifact:read_manifest"

    @property
    def installed(self) -> bool:
        """Whether one of its packages is there; none of them is imported."""
        return any(_is_there(name) for name in self.imports)


#: Every engine. `auto` goes by measurements (benchmarks/README.md): on the CPU, which of ONNX Runtime and OpenVINO is
#: faster in float32 depends on the network; in int8 OpenVINO is 1.2 to 2.6 times as fast on the classifiers measured.
BACKENDS: tuple[Engine, ...] = (
    Engine(
        name="onnxruntime",
        module="lidcam_rt.backends.onnxruntime",
        suffix=".onnx",
        made_by="lidcam export",
        devices=("cpu", "cuda"),
        precisions=("fp32", "fp16", "int8"),
        imports=("onnxruntime",),
        extra=None,
        priority=20,
    ),
    Engine(
        name="openvino",
        module="lidcam_rt.backends.openvino",
        suffix=".onnx",
        made_by="lidcam export",
        devices=("cpu",),
        precisions=("fp32", "fp16", "bf16", "int8"),
        imports=("openvino",),
        extra="openvino",
        priority=10,
        first_for=("int8",),
    ),
    Engine(
        name="tensorrt",
        module="lidcam_rt.backends.tensorrt",
        suffix=".engine",
        made_by="lidcam build",
        devices=("cuda",),
        precisions=("fp32", "fp16"),
        imports=("tensorrt", "tensorrt_rtx"),
        extra="tensorrt",
        priority=30,
        manifest="lidcam_rt.backends.engine_file:engine_manifest",
    ),
)


def _is_there(name: str) -> bool:
    if name in sys.modules:
        return sys.modules[name] is not None
    return importlib.util.find_spec(name) is not None


def _has_gpu_build() -> bool:
    """Whether ONNX Runtime's distribution for GPUs is installed, which `auto` then prefers."""
    from importlib.metadata import Distribution

    return any(True for _ in Distribution.discover(name="onnxruntime-gpu"))


def _lacks_vnni(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this is an x86 processor that adds products of 8-bit numbers in 16 bits; False if unknown."""
    try:
        flags = next(line for line in cpuinfo.read_text().splitlines() if line.startswith("flags"))
    except (OSError, StopIteration):
        return False
    return "vnni" not in flags


def _loading(path: str | os.PathLike[str]) -> tuple[Engine, ...]:
    """The engines that load a file, by its suffix; a file that no engine claims is treated as an artifact."""
    suffix = Path(path).suffix.lower()
    return tuple(entry for entry in BACKENDS if entry.suffix == suffix) or tuple(
        entry for entry in BACKENDS if entry.suffix == ".onnx"
    )


def manifest_of(path: str | os.PathLike[str]) -> Manifest:
    """The manifest of an artifact, or of an engine from its sidecar; neither is loaded.

    Raises:
        ArtifactError: the file or the engine's sidecar is missing or cannot be used.
    """
    module, _, function = _loading(path)[0].manifest.partition(":")
    return cast("Manifest", getattr(importlib.import_module(module), function)(path))


def choose(
    path: str | os.PathLike[str],
    *,
    backend: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    arithmetic: str = "fp32",
) -> Engine:
    """The engine that runs a file.

    Args:
        path: the artifact, or an engine that `lidcam build` made of one.
        backend: a name of BACKENDS, or `auto`: the first by `first_for` and priority of the installed engines that load
            the file, run on the device and have the precision.
        device: `auto`, `cpu`, `cuda` or `cuda:INDEX`.
        precision: `auto` (that of the file), `fp32`, `fp16`, `bf16` or `int8`.
        arithmetic: the network's precision in the file.

    Raises:
        InputError: backend, device or precision is not recognised, or does not go with the file.
    """
    kind, _ = parse_device(device)
    names = [entry.name for entry in BACKENDS]
    if backend != "auto" and backend not in names:
        raise InputError(f"backend must be one of auto, {', '.join(names)}, got {backend!r}")
    fitting = _loading(path)
    name = Path(path).name
    if backend != "auto":
        named = BACKENDS[names.index(backend)]
        if named not in fitting:
            raise InputError(f"{name}: {backend} loads {named.suffix} files: make one with `{named.made_by}`")
        fitting = (named,)
    on_device = [entry for entry in fitting if kind == "auto" or kind in entry.devices]
    if not on_device:
        devices = sorted({known for entry in fitting for known in entry.devices})
        runs = " or ".join(entry.name for entry in fitting)
        raise InputError(f"{name}: {runs} runs it on {' or '.join(devices)}, but device {device} was requested")
    known_precisions = sorted({known for entry in BACKENDS for known in entry.precisions})
    if precision != "auto" and precision not in known_precisions:
        raise InputError(f"precision must be auto or one of {', '.join(known_precisions)}, got {precision!r}")
    exact = [entry for entry in on_device if precision == "auto" or precision in entry.precisions]
    if not exact:
        has = " or ".join(f"{entry.name} has {', '.join(entry.precisions)}" for entry in on_device)
        raise InputError(f"{name}: precision {precision} was requested, but {has}")
    ranked = sorted(exact, key=lambda entry: -entry.priority)
    first = [entry for entry in ranked if arithmetic in entry.first_for and entry.installed]
    if first and (kind == "cpu" or (kind == "auto" and not _has_gpu_build())):
        return first[0]
    return next((entry for entry in ranked if entry.installed), ranked[0])


def open_backend(
    path: str | os.PathLike[str],
    manifest: Manifest,
    *,
    backend: str = "auto",
    device: str = "auto",
    threads: int = 0,
    precision: str = "auto",
) -> Backend:
    """Start an engine on an artifact.

    Args:
        path: the artifact, or an engine that `lidcam build` made of one.
        manifest: its manifest.
        backend: see `choose`.
        device: `auto`, `cpu`, `cuda` or `cuda:INDEX`.
        threads: threads of one call on the CPU; 0: one per usable core.
        precision: see `choose`.

    Raises:
        InputError: backend, device, threads or precision is not recognised, or does not go with the file.
        BackendError: the engine cannot run it here, or not on the requested device.
        MissingExtraError: the engine is not installed.
        ArtifactError: the engine refuses the file, or its graph does not fit its manifest.
    """
    from lidcam_rt.backends.outputs import OutputCheck

    engine = choose(path, backend=backend, device=device, precision=precision, arithmetic=manifest.arithmetic)
    opener = cast(Opener, importlib.import_module(engine.module).open_backend)
    others = [entry.name for entry in _loading(path) if entry is not engine and entry.installed]
    _log.debug(
        "%s: loaded by %s (backend %s, device %s were requested; %s)", os.fspath(path), engine.name, backend, device,
        f"{', '.join(others)} could load it too" if others else "no other engine that is installed loads it",
    )  # fmt: skip
    if manifest.precision and manifest.precision.weight_bits == 8 and _lacks_vnni():
        _log.warning(
            "%s: this processor has no VNNI, and sums of 8-bit products may saturate: check the results with `lidcam "
            "compare`, or make the artifact with `lidcam quantize --reduce-range`", os.fspath(path),
        )  # fmt: skip
    opened = opener(path, manifest, device=device, threads=threads, precision=precision)
    if precision not in ("auto", opened.precision):
        said = f"{os.fspath(path)}: precision {precision} was requested"
        raise InputError(f"{said}, but the engine has {opened.precision}")
    _log.debug("%s: runs as %s on %s, %s", os.fspath(path), opened.name, opened.device, opened.precision)
    OutputCheck(manifest, os.fspath(path)).declared(opened.inputs, opened.outputs)
    return opened
