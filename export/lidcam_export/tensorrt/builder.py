"""From an artifact to an engine of TensorRT or TensorRT for RTX (docs/gpu.md)."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import onnx

from lidcam_export.precision.half import to_half
from lidcam_export.precision.half_check import compare_half
from lidcam_export.tensorrt.built_precision import (
    check_precision,
    types_from_inspector,
    types_in_network,
    types_in_plan,
)
from lidcam_export.tensorrt.engine_cache import EngineCache
from lidcam_export.tensorrt.engine_writer import cache_key, copy_engine, key_of, write_engine
from lidcam_export.tensorrt.flavour import Flavour, flavour_of, set_capabilities
from lidcam_export.tensorrt.network import cut_pas, fix_size, for_tensorrt
from lidcam_export.tensorrt.options import BuildOptions
from lidcam_rt.artifact import Manifest, read_manifest
from lidcam_rt.backends.cuda_runtime import compute_capability
from lidcam_rt.backends.engine_file import (
    ENGINE_SUFFIX,
    EngineSpec,
    Profile,
    TensorSpec,
    check_engine,
    read_sidecar,
)
from lidcam_rt.backends.gpu_turns import GPU_TURNS
from lidcam_rt.errors import ArtifactError, BackendError, ExportError, InputError, MissingExtraError
from lidcam_rt.files import file_sha256, locked
from lidcam_rt.version import __version__

__all__ = ["BuiltEngine", "build_engine", "engine_for"]

#: where the precision as built is read
Evidence = Literal["inspector", "plan", "network"]
_log = logging.getLogger("lidcam_export")
_MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}


@dataclass(frozen=True)
class BuiltEngine:
    """An engine that is ready.

    Attributes:
        path: where it is; its sidecar is beside it.
        spec: the sidecar.
        source: `built` now, taken from the `cache`, or `up to date` where it was in its place.
    """

    path: Path
    spec: EngineSpec
    source: Literal["built", "cache", "up to date"]


@dataclass(frozen=True)
class _Build:
    """Everything that determines an engine, known before TensorRT is started."""

    artifact: Path
    digest: str
    manifest: Manifest
    options: BuildOptions
    trt: Any
    flavour: Flavour
    plugin: Any
    kernel: str | None
    capability: tuple[str, ...]
    profile: dict[str, Profile]

    @property
    def key(self) -> str:
        return cache_key(
            artifact_sha256=self.digest, flavour=self.flavour.name, version=self.flavour.version,
            compute_capability=self.capability, precision=self.options.precision, profile=self.profile,
            pas=self.options.pas, kernel_sha256=self.kernel, package_version=__version__,
        )  # fmt: skip


def build_engine(
    artifact: Path,
    output: Path | None = None,
    options: BuildOptions | None = None,
    *,
    cache: EngineCache | None = None,
    trt: Any = None,
) -> BuiltEngine:
    """Build an engine and write it with its sidecar, or reuse one with the same key.

    Args:
        artifact: the .onnx file.
        output: the .engine file; the sidecar is `output`.json. None: the engine stays in the cache.
        options: how.
        cache: engines that were built before. Of two processes that want the same engine, one builds it, and the other
            waits and takes it. None: no cache.
        trt: the TensorRT module; None: by `options.flavour`.

    Raises:
        ArtifactError: the artifact cannot be read.
        MissingExtraError: TensorRT is not installed.
        ExportError: TensorRT refuses the network, or built something other than requested.
        InputError: there is neither output nor cache, or others can write to the cache.
        OutputError: the files cannot be written.
    """
    options = options or BuildOptions()
    if output is None and cache is None:
        raise InputError("an engine needs a file (output) or a cache to be written to")
    if output is not None and output.suffix != ENGINE_SUFFIX:
        raise InputError(f"{output}: the engine's name must end in {ENGINE_SUFFIX}")
    build = _prepare(artifact, options, trt)
    if output is not None and not options.force and (spec := _up_to_date(output, build)) is not None:
        return BuiltEngine(output, spec, "up to date")
    if cache is None:
        assert output is not None
        return BuiltEngine(output, _build(build, output), "built")
    cache.open()
    cached, key = cache.path(build.key), build.key

    def waiting() -> None:
        _log.warning("another process builds the same engine (%s): waiting for it", key[:12])

    with locked(cache.lock(key), waiting=waiting):
        kept = None if options.force else _up_to_date(cached, build)
        if kept is None and not options.force and cached.exists():
            _log.warning("%s: does not fit its sidecar (incomplete, damaged or replaced): it is built again", cached)
        spec = kept or _build(build, cached)
        if output is not None:
            copy_engine(cached, output, spec)
    return BuiltEngine(output or cached, spec, "built" if kept is None else "cache")


def engine_for(artifact: Path, device: int, precision: str) -> Path:
    """The engine that `lidcam_rt.load(..., backend="tensorrt")` runs for an artifact: from the user's cache, or built.

    Args:
        artifact: the .onnx file.
        device: index of the GPU.
        precision: `auto` or `fp32`, or `fp16`.

    Raises:
        InputError: TensorRT has no such precision; also what `build_engine` raises.
        BackendError: no GPU answers.
    """
    if precision not in ("auto", "fp32", "fp16"):
        raise InputError(f"{artifact.name}: tensorrt has the precisions fp32 and fp16, got {precision!r}")
    capability = compute_capability(device)
    if capability is None:
        raise BackendError(f"{artifact.name}: tensorrt runs on a GPU, and no NVIDIA GPU {device} answers here")
    options = BuildOptions(precision="fp16" if precision == "fp16" else "fp32", capability=(capability,))
    return build_engine(artifact, options=options, cache=EngineCache.default()).path


def _prepare(artifact: Path, options: BuildOptions, trt: Any) -> _Build:
    digest = file_sha256(artifact) if artifact.is_file() else ""
    manifest = _sized(read_manifest(artifact), options.size)
    if manifest.precision is not None:
        raise ExportError(
            f"{artifact.name}: its network is in {manifest.arithmetic}, for ONNX Runtime and OpenVINO. Build the "
            "engine from the float32 artifact, with --precision fp16 for half precision"
        )
    if manifest.task == "segmentation" and options.precision == "fp16":
        raise ExportError(
            f"{artifact.name}: a segmentation network cannot be built in fp16, as there is no check of its float16 "
            "label maps yet: build it with --precision fp32"
        )
    trt = trt or _module(options.flavour)
    flavour = flavour_of(trt)
    plugin = _plugin(trt, flavour) if options.pas == "plugin" else None
    capability = _capability(flavour, options.capability)
    kernel = None if plugin is None else plugin.kernel_sha256(capability)
    profile = _profile(manifest, options.batch)
    return _Build(artifact, digest, manifest, options, trt, flavour, plugin, kernel, capability, profile)


@GPU_TURNS.shared()  # the builder times kernels
def _build(build: _Build, output: Path) -> EngineSpec:
    trt, flavour, manifest, options, plugin = build.trt, build.flavour, build.manifest, build.options, build.plugin
    if options.pas == "body":
        _warn_of_slow_body(flavour, manifest)
    model = fix_size(onnx.load(str(build.artifact)), manifest.input.height, manifest.input.width)
    if file_sha256(build.artifact) != build.digest:
        raise ExportError(f"{build.artifact}: the artifact changed while it was read: build again")
    half_check = None
    if options.precision == "fp16":
        full, model = model, to_half(model)
        half_check = compare_half(full, model, manifest)
    log = _logger(trt)
    builder = trt.Builder(log)
    network = builder.create_network(flavour.network_flags(trt))
    if plugin is None:
        _parse(trt, network, for_tensorrt(model), log)
    else:
        rest, inputs, attributes = cut_pas(model)
        _parse(trt, network, rest, log)
        plugin.add_to(network, inputs, attributes, build.capability)
    inputs_found, outputs_found = _tensors(trt, network, manifest)
    config = builder.create_builder_config()
    flavour.disable_tf32(trt, config)
    set_capabilities(trt, flavour, config, build.capability)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if options.workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib << 20)
    shapes = builder.create_optimization_profile()
    for name, entry in build.profile.items():
        shapes.set_shape(name, entry.min, entry.opt, entry.max)
    config.add_optimization_profile(shapes)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ExportError(f"{flavour.name} {flavour.version} could not build {build.artifact.name}: {log.reason()}")
    content = memoryview(plan)
    built, evidence = _built(trt, flavour, network, content, log)
    check_precision(options.precision, built, evidence)
    spec = EngineSpec(
        engine_bytes=content.nbytes, engine_sha256=_sha256(content), artifact=build.artifact.name,
        artifact_sha256=build.digest, flavour=flavour.name, version=flavour.version,
        compute_capability=build.capability, precision=options.precision, built=built, evidence=evidence,
        profile=build.profile, pas=options.pas, kernel_sha256=build.kernel, inputs=inputs_found,
        outputs=outputs_found, half_check=half_check, manifest=manifest.to_metadata(), package_version=__version__,
    )  # fmt: skip
    write_engine(output, content, spec)
    return spec


def _sha256(content: memoryview) -> str:
    import hashlib

    return hashlib.sha256(content).hexdigest()


def _module(flavour: str) -> Any:
    names = _MODULES if flavour == "auto" else {flavour: _MODULES[flavour]}
    for name in names.values():
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    extra = "tensorrt-rtx" if flavour == "auto" else flavour
    raise MissingExtraError("lidcam build", extra, tuple(names.values()))


def _warn_of_slow_body(flavour: Flavour, manifest: Manifest) -> None:
    """The long chain of counts over a small map, which `where="raw"` needs, keeps TensorRT for RTX's compiler busy.

    Seen with 1.7: not done after 3 minutes of processor time, while the same chain over the resized map takes seconds.
    """
    numbers = tuple(int(part) for part in flavour.version.split(".")[:2] if part.isdigit())
    if flavour.name == "tensorrt-rtx" and numbers <= (1, 7) and manifest.pas.where == "raw":
        _log.warning(
            "%s %s takes very long to build PaS with where raw (no build was seen to finish); an artifact exported "
            "with --pas-where resized builds in seconds", flavour.name, flavour.version,
        )  # fmt: skip


def _plugin(trt: Any, flavour: Flavour) -> Any:
    if not flavour.ahead_of_time:
        raise ExportError(
            f"{flavour.name} {flavour.version} cannot bake plugins into engines: build with --pas body, or with "
            "TensorRT 10.9 or newer"
        )
    from lidcam_export.tensorrt.plugin import PasPlugin

    return PasPlugin(trt, importlib.import_module(f"{trt.__name__}.plugin"))


def _capability(flavour: Flavour, asked: tuple[str, ...]) -> tuple[str, ...]:
    here = compute_capability()
    if flavour.offline:
        if not asked and here is None:
            raise InputError("there is no GPU here: say which one to build for, for example --capability 8.9")
        return asked or (str(here),)
    if here is None:
        raise BackendError(
            f"{flavour.name} {flavour.version} builds only on the GPU that will run the engine, and no NVIDIA driver "
            "answers here: build there, or use TensorRT for RTX (pip install 'lidcam-rt[tensorrt-rtx]')"
        )
    if asked and asked != (here,):
        raise InputError(f"{flavour.name} builds for this machine's GPU ({here}), not for {', '.join(asked)}")
    return (here,)


def _sized(manifest: Manifest, size: tuple[int, int] | None) -> Manifest:
    """The manifest for an engine of one size."""
    spec = manifest.input
    if size is not None and size != (spec.height, spec.width) and not spec.dynamic_size:
        raise InputError(
            f"the artifact's size is fixed at {spec.height}x{spec.width}: export it again with --size {size[0]}"
        )
    height, width = size or (spec.height, spec.width)
    fixed = spec.model_copy(update={"height": height, "width": width, "dynamic_size": False})
    return manifest.model_copy(update={"input": fixed})


def _profile(manifest: Manifest, batch: tuple[int, int, int]) -> dict[str, Profile]:
    spec = manifest.input
    one = (spec.height, spec.width, 3) if spec.dtype == "uint8" else (3, spec.height, spec.width)
    shapes: dict[str, tuple[int, ...]] = {"image": one}
    if manifest.labels_input:
        shapes["labels"] = (manifest.top_k,)
    low, middle, high = batch
    return {n: Profile(min=(low, *s), opt=(middle, *s), max=(high, *s)) for n, s in shapes.items()}


def _up_to_date(engine: Path, build: _Build) -> EngineSpec | None:
    """The sidecar of an engine that is exactly what would be built, and undamaged; else None."""
    try:
        spec = read_sidecar(engine)
        if key_of(spec) != build.key:
            return None
        check_engine(engine, spec, flavour=build.flavour.name, version=build.flavour.version, capability=None)
    except ArtifactError:
        return None
    return spec


def _logger(trt: Any) -> Any:
    class Log(trt.ILogger):  # type: ignore[misc]  # its base is only known at run time
        """Keeps TensorRT's errors for the message."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, text: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(text.strip())

        def reason(self) -> str:
            return "; ".join(self.errors[-3:])[:800] or "it gave no reason"

    return Log()


def _parse(trt: Any, network: Any, model: onnx.ModelProto, log: Any) -> None:
    parser = trt.OnnxParser(network, log)
    if not parser.parse(model.SerializeToString()):
        errors = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise ExportError(f"TensorRT's parser refuses the artifact: {errors[:800] or log.reason()}")


def _tensors(trt: Any, network: Any, manifest: Manifest) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs of the network, which must be those of the artifact."""
    names = {getattr(trt, name): name for name in ("float32", "float16", "int32", "int64", "uint8", "bool")}

    def describe(count: int, get: Callable[[int], Any]) -> tuple[TensorSpec, ...]:
        tensors = [get(i) for i in range(count)]
        return tuple(
            TensorSpec(name=t.name, dtype=names.get(t.dtype, str(t.dtype)), shape=tuple(t.shape)) for t in tensors
        )

    inputs = describe(network.num_inputs, network.get_input)
    outputs = describe(network.num_outputs, network.get_output)
    wanted = {"image": manifest.input.dtype} | ({"labels": "int64"} if manifest.labels_input else {})
    promised = {"logits": "float32", "class_ids": "int64", "scores": "float32", "cam": "float32", "map8": "uint8",
                "mask": "uint8", "threshold": "float32"}  # fmt: skip
    given = ({t.name: t.dtype for t in inputs}, {t.name: t.dtype for t in outputs})
    if given != (wanted, promised):
        raise ExportError(f"the network's inputs and outputs are {given}, the artifact's are {(wanted, promised)}")
    return inputs, outputs


def _built(trt: Any, flavour: Flavour, network: Any, plan: memoryview, log: Any) -> tuple[dict[str, int], Evidence]:
    """Convolutions by type, and where that was read."""
    if compute_capability() is not None:
        engine = trt.Runtime(log).deserialize_cuda_engine(plan)
        if engine is None:
            raise ExportError(f"{flavour.name} does not load the engine that it has just built: {log.reason()}")
        text = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
        if types := types_from_inspector(text):
            return types, "inspector"
    if types := types_in_plan(plan):
        return types, "plan"
    return types_in_network(trt, network), "network"
