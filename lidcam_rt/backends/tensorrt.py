"""Engines of TensorRT and TensorRT for RTX, made by `lidcam build`.

An execution context belongs to one call at a time: contexts wait in a pool, each with its stream and buffers, and a
call that finds none idle makes one. Tested with stand-ins; docs/status.md says what has run on a GPU.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lidcam_rt.artifact import Manifest
from lidcam_rt.backends.base import Opener, StageHook, Stop, parse_device, unobserved
from lidcam_rt.backends.cuda_runtime import CudaRuntime, open_runtime
from lidcam_rt.backends.engine_file import ENGINE_SUFFIX, EngineSpec, check_engine, read_sidecar
from lidcam_rt.backends.gpu_turns import GPU_TURNS
from lidcam_rt.errors import BackendError, InputError, MissingExtraError, RebuildError
from lidcam_rt.files import read_file

__all__ = ["TensorRTBackend", "open_backend"]

_MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
_CALLS = 2  # calls of a stream at once: the copies of one overlap the kernels of the other


class _Context:
    """An execution context with its stream and buffers."""

    def __init__(self, engine: Any, cuda: CudaRuntime) -> None:
        self.context = engine.create_execution_context()
        if self.context is None:
            raise BackendError(
                "TensorRT could not make an execution context (out of device memory?): make fewer calls at once, or "
                "build an engine for smaller batches"
            )
        self.cuda = cuda
        self.stream = cuda.new_stream()
        self.buffers: dict[str, tuple[int, int]] = {}  # name -> address, bytes
        # Only the first context has a profile by default.
        if self.context.set_optimization_profile_async(0, self.stream) is False:
            raise BackendError("TensorRT refused optimization profile 0: build the engine again")
        cuda.wait(self.stream)

    def bind(self, name: str, size: int) -> int:
        """A device buffer of at least `size` bytes, known to the context under `name`."""
        address, have = self.buffers.get(name, (0, 0))
        if not address or have < size:
            if address:
                self.buffers.pop(name)
                self.cuda.free(address)
            address = self.cuda.malloc(size)
            self.buffers[name] = (address, size)
        if not self.context.set_tensor_address(name, address):
            raise BackendError(f"TensorRT refused the buffer of {name}: build the engine again")
        return address

    def free(self) -> None:
        self.context = None
        for address, _ in self.buffers.values():
            self.cuda.free(address)
        self.buffers.clear()
        self.cuda.free_stream(self.stream)


class TensorRTBackend:
    """A loaded engine. `run` may be called from several threads at once.

    Args:
        engine: the deserialised engine.
        spec: its sidecar.
        cuda: the GPU that it was loaded on.
        runtime: TensorRT's runtime object, kept alive for the engine.
        logger: TensorRT's logger, likewise.
    """

    def __init__(self, engine: Any, spec: EngineSpec, cuda: CudaRuntime, runtime: Any, logger: Any) -> None:
        self._engine, self._runtime, self._logger = engine, runtime, logger
        self.spec = spec
        self._cuda = cuda
        self._dtypes = {entry.name: np.dtype(entry.dtype) for entry in (*spec.inputs, *spec.outputs)}
        self._idle: list[_Context] = []
        self._busy = 0
        self._closed = False
        self._changed = threading.Condition()
        self._stage: StageHook = unobserved
        self.name = f"{spec.flavour} {spec.version}"
        self.device = f"cuda:{cuda.index}"
        self.precision: str = spec.precision
        self.inputs: Sequence[Mapping[str, Any]] = [entry.model_dump() for entry in spec.inputs]
        self.outputs: Sequence[Mapping[str, Any]] = [entry.model_dump() for entry in spec.outputs]

    @contextlib.contextmanager
    def _context(self) -> Iterator[_Context]:
        with GPU_TURNS.shared(), self._taken() as context:
            yield context

    @contextlib.contextmanager
    def _taken(self) -> Iterator[_Context]:
        with self._changed:
            if self._closed:
                raise InputError("this backend is closed; load the engine again")
            self._busy += 1
            context = self._idle.pop() if self._idle else None
        try:
            self._cuda.use()
            context = context or _Context(self._engine, self._cuda)
            yield context
        except BaseException:
            # Its buffers may be half written, so it is not used again.
            if context is not None:
                with contextlib.suppress(BackendError):
                    self._cuda.wait(context.stream)
                with contextlib.suppress(BackendError):
                    context.free()
            context = None
            raise
        finally:
            with self._changed:
                if context is not None:
                    self._idle.append(context)
                self._busy -= 1
                self._changed.notify_all()

    def _fits(self, name: str, array: npt.NDArray[Any]) -> None:
        profile = self.spec.profile[name]
        shape = array.shape
        if len(shape) != len(profile.min) or not all(
            low <= side <= high for low, side, high in zip(profile.min, shape, profile.max, strict=True)
        ):
            raise InputError(
                f"{name} has shape {shape}, the engine takes {profile.min} to {profile.max}: use smaller batches, or "
                "build an engine for this shape with `lidcam build --batch` and `--size`"
            )
        if array.dtype != self._dtypes[name]:
            raise InputError(f"{name} has dtype {array.dtype}, the engine takes {self._dtypes[name]}")

    def run(
        self,
        image: npt.NDArray[np.uint8] | npt.NDArray[np.float32],
        labels: npt.NDArray[np.int64] | None,
        outputs: Sequence[str],
        stop: Stop | None = None,
    ) -> dict[str, npt.NDArray[Any]]:
        """See `Backend.run`; a run that was started cannot be stopped.

        Raises:
            InputError: a shape is outside the engine's profile, or the backend is closed.
            BackendError: CUDA or TensorRT failed.
        """
        feeds: dict[str, npt.NDArray[Any]] = {"image": np.ascontiguousarray(image)}
        if labels is not None:
            feeds["labels"] = np.ascontiguousarray(labels)
        for name, array in feeds.items():
            self._fits(name, array)
        unknown = set(outputs) - {entry.name for entry in self.spec.outputs}
        if unknown or set(feeds) != {entry.name for entry in self.spec.inputs}:
            raise InputError(
                f"the engine has inputs {', '.join(e.name for e in self.spec.inputs)} and outputs "
                f"{', '.join(e.name for e in self.spec.outputs)}"
            )
        with self._context() as work:
            context, cuda = work.context, self._cuda
            for name, array in feeds.items():
                if not context.set_input_shape(name, tuple(array.shape)):
                    raise BackendError(f"TensorRT refused the shape {array.shape} of {name}")
                work.bind(name, array.nbytes)
            with self._stage("upload", work.stream):
                for name, array in feeds.items():
                    cuda.upload(work.buffers[name][0], array, work.stream)
            shapes = {entry.name: tuple(context.get_tensor_shape(entry.name)) for entry in self.spec.outputs}
            for name, shape in shapes.items():
                if any(side < 0 for side in shape):
                    raise BackendError(f"TensorRT does not know the shape of {name} ({shape})")
                work.bind(name, int(np.prod(shape, dtype=np.int64)) * self._dtypes[name].itemsize)
            with self._stage("graph", work.stream):
                if not context.execute_async_v3(work.stream):
                    raise BackendError(f"TensorRT failed on a batch of {image.shape[0]}; its log says why")
            with self._stage("download", work.stream):
                values = {
                    name: cuda.download(work.buffers[name][0], shapes[name], self._dtypes[name], work.stream)
                    for name in outputs
                }
            cuda.wait(work.stream)
        return values

    def observe(self, stage: StageHook) -> None:
        """Have a hook entered around upload, graph and download; see `lidcam_rt.pipeline.Pipeline.observe`."""
        self._stage = stage

    def for_streams(self) -> tuple[TensorRTBackend, int]:
        """This engine, called by two threads."""
        return self, _CALLS

    def close(self) -> None:
        """Free contexts, buffers and engine, after the calls in progress."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.wait_for(lambda: self._busy == 0)
            idle, self._idle = self._idle, []
        with GPU_TURNS.shared():
            self._cuda.use()
            for context in idle:
                context.free()
            self._engine = self._runtime = None

    def __del__(self) -> None:  # a Localizer leaves its engine to whoever uses it last
        with contextlib.suppress(Exception):
            self.close()


def _load(trt: Any, path: Path, spec: EngineSpec) -> tuple[Any, Any, Any]:
    logger = trt.Logger(trt.Logger.WARNING)
    runtime = trt.Runtime(logger)
    engine = runtime.deserialize_cuda_engine(read_file(path))
    if engine is None:
        raise RebuildError(
            f"{path}: {spec.flavour} {spec.version} rejects it (its log says why): build it again on this machine: "
            f"lidcam build {spec.artifact} -o {path.name}"
        )
    names = {engine.get_tensor_name(i) for i in range(engine.num_io_tensors)}
    wanted = {entry.name for entry in (*spec.inputs, *spec.outputs)}
    if names != wanted:
        raise RebuildError(
            f"{path}: the engine has {sorted(names)}, but its sidecar says {sorted(wanted)}: build it again"
        )
    return engine, runtime, logger


def open_backend(
    path: str | os.PathLike[str],
    manifest: Manifest,
    *,
    device: str = "auto",
    threads: int = 0,
    precision: str = "auto",
    trt: Any = None,
    cuda: CudaRuntime | None = None,
) -> TensorRTBackend:
    """Load an engine.

    Args:
        path: the .engine file; its sidecar is beside it.
        manifest: the manifest, which must be the sidecar's.
        device: `auto`, `cuda` or `cuda:INDEX`.
        threads: without effect on a GPU.
        precision: without effect: it is what the engine was built with.
        trt: the TensorRT module; None: the one that the sidecar names.
        cuda: the GPU; None: the one of `device`.

    Raises:
        InputError: not an engine, or another device than a GPU.
        ArtifactError: the engine or its sidecar is missing.
        RebuildError: it is damaged, or built for another TensorRT or GPU.
        MissingExtraError: TensorRT is not installed.
        BackendError: no driver or GPU answers.
    """
    path = Path(path)
    kind, index = parse_device(device)
    if path.suffix != ENGINE_SUFFIX:
        raise InputError(
            f"{path.name}: TensorRT runs engines, not artifacts: lidcam build {path.name} -o "
            f"{path.stem}{ENGINE_SUFFIX}"
        )
    if kind == "cpu":
        raise InputError(f"{path.name}: an engine runs on a GPU: device must be auto, cuda or cuda:INDEX")
    spec = read_sidecar(path)
    if spec.read_manifest(path) != manifest:
        raise RebuildError(f"{path}: the manifest is not the one in its sidecar: load the engine by its own path")
    if trt is None:
        try:
            trt = importlib.import_module(_MODULES[spec.flavour])
        except ImportError:
            raise MissingExtraError(f"{path.name}", spec.flavour, (_MODULES[spec.flavour],)) from None
    flavour = "tensorrt-rtx" if trt.__name__.startswith("tensorrt_rtx") else "tensorrt"
    # What needs no GPU is checked first, so that a stale engine is named as such on any machine.
    check_engine(path, spec, flavour=flavour, version=trt.__version__, capability=None)
    with GPU_TURNS.shared():
        cuda = cuda or open_runtime(index)
        capability = cuda.compute_capability
        if capability not in spec.compute_capability:
            check_engine(path, spec, flavour=flavour, version=trt.__version__, capability=capability)
        cuda.use()
        engine, runtime, logger = _load(trt, path, spec)
    return TensorRTBackend(engine, spec, cuda, runtime, logger)


_: Opener = open_backend  # checked by mypy
