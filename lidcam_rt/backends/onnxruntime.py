"""ONNX Runtime: on the CPU, or on a GPU through its CUDA provider."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lidcam_rt.artifact import Manifest
from lidcam_rt.backends.base import Opener, Stop, check_threads, parse_device, usable_cores
from lidcam_rt.errors import ArtifactError, BackendError, InputError
from lidcam_rt.text import cut

__all__ = ["OrtBackend", "cuda_options", "open_backend", "reason_of", "session_options", "session_source"]

_log = logging.getLogger("lidcam_rt")
#: A line of the source with the function that it is in.
_SOURCE = re.compile(r"/\S*onnxruntime_src/\S+ (?:(?! failure \d).)*\) (?:\[with [^]]*\] )?(?=\S)")
#: What follows an error of CUDA or its libraries, with the call that failed.
_PLACE = re.compile(r" ; GPU=\S* ; hostname=.* ; expr=([^;]*);?.*")
_CUDA, _CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


class OrtBackend:
    """An ONNX Runtime session of an artifact. ONNX Runtime's sessions may be run from several threads.

    Args:
        ort: the module `onnxruntime`.
        session: the session.
        device: where it runs.
        ops_registered: whether the operator library was registered.
        precision: of the network in the file.
        threads: threads of one call on the CPU.
        open_one_thread: starts a second session with one thread, for streams; None: streams use this one.
        open_free: starts a session with free height and width, when a size other than the manifest's is first run.

    Attributes: those of a `Backend`, `ops_registered` as given, and whether it `takes_other_sizes`.
    """

    def __init__(
        self,
        ort: Any,
        session: Any,
        device: str,
        ops_registered: bool = False,
        *,
        precision: str = "fp32",
        threads: int = 1,
        open_one_thread: Callable[[], Any] | None = None,
        open_free: Callable[[int], Any] | None = None,
    ) -> None:
        self._ort = ort
        self._session: Any = session
        self.name = f"onnxruntime {ort.__version__}"
        self.device = device
        self.precision = precision
        self.ops_registered = ops_registered
        self._threads = threads
        self._open_one_thread = open_one_thread
        self._streams: OrtBackend | None = None
        self._open_free, self._free = open_free, None
        self._turn = _turn(device)
        self.takes_other_sizes = open_free is not None
        self._lock = threading.Lock()
        self.inputs: Sequence[Mapping[str, Any]] = [_describe(entry) for entry in session.get_inputs()]
        self.outputs: Sequence[Mapping[str, Any]] = [_describe(entry) for entry in session.get_outputs()]

    def run(
        self,
        image: npt.NDArray[np.uint8] | npt.NDArray[np.float32],
        labels: npt.NDArray[np.int64] | None,
        outputs: Sequence[str],
        stop: Stop | None = None,
    ) -> dict[str, npt.NDArray[Any]]:
        """See `Backend.run`; a stop takes effect between two operators."""
        session = self._session_for(image.shape[1:])
        if session is None:
            raise InputError("this backend is closed; load the artifact again")
        feed: dict[str, npt.NDArray[Any]] = {"image": image}
        if labels is not None:
            feed["labels"] = labels
        how = self._ort.RunOptions()
        how.log_severity_level = 4  # what is wrong is raised, not printed
        try:
            with self._turn(), (stop or Stop()).calling(lambda: setattr(how, "terminate", True)):
                values = session.run(list(outputs), feed, how)
        except Exception as error:
            if stop is not None and stop.is_set:
                raise BackendError("onnxruntime was stopped in the middle of a run") from None
            reason = reason_of(error)
            raise BackendError(
                f"onnxruntime failed on a batch of {image.shape[0]} ({reason}). "
                "Try a smaller batch size; `lidcam doctor` checks the installation"
            ) from error
        return dict(zip(outputs, values, strict=True))

    def _session_for(self, sides: tuple[int, ...]) -> Any:
        """The session for a picture size: the one fixed to the manifest's size, or one for all other sizes."""
        declared = next(entry["shape"] for entry in self.inputs if entry["name"] == "image")[1:]
        same = all(not isinstance(a, int) or a == b for a, b in zip(declared, sides, strict=False))
        if same or self._open_free is None:
            return self._session
        with self._lock:
            if self._free is None and self._session is not None:
                self._free, _ = self._open_free(self._threads)
            return self._free

    def for_streams(self) -> tuple[OrtBackend, int]:
        """On the CPU, several single-threaded calls: 1.3 times the throughput of one call on all cores.

        The second session (and its copy of the weights) is made on the first call.
        """
        if self.device != "cpu":
            return self, 1
        if self._open_one_thread is None:
            return self, max(1, usable_cores() // self._threads)
        with self._lock:
            if self._streams is None:
                session, ops = self._open_one_thread()
                self._streams = OrtBackend(
                    self._ort, session, self.device, ops, precision=self.precision, open_free=self._open_free
                )
            return self._streams, usable_cores()

    def close(self) -> None:
        """Free the sessions."""
        with self._turn():
            self._session = self._streams = self._open_one_thread = self._free = None


def _turn(device: str) -> Callable[[], contextlib.AbstractContextManager[None]]:
    """What a session holds while it works: on a GPU a shared turn, so that no CUDA graph is captured meanwhile."""
    if device == "cpu":
        return contextlib.nullcontext
    from lidcam_rt.backends.gpu_turns import GPU_TURNS

    return GPU_TURNS.shared


def reason_of(error: Exception) -> str:
    """ONNX Runtime's message without its source lines, signatures and the name of the machine."""
    text = str(error).strip()
    first = text.splitlines()[0] if text else type(error).__name__
    first = _PLACE.sub(lambda match: f" ({match[1].strip()})", first)
    first = _SOURCE.sub("", first)
    return cut(re.sub(r"^\[ONNXRuntimeError\] : \d+ : ", "", first), 400)


def _describe(entry: Any) -> dict[str, Any]:
    dtype = {"float": "float32", "double": "float64"}.get(kind := entry.type[7:-1], kind)
    return {"name": entry.name, "dtype": dtype, "shape": list(entry.shape)}


def _session_options(ort: Any, manifest: Manifest, threads: int, *, fixed: bool = True) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    # One call at a time uses all cores; the runtime's stream needs them between calls, so no spinning.
    options.intra_op_num_threads = threads or usable_cores()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if manifest.input.dynamic_size and fixed:
        # The runtime runs at the manifest's size: with it fixed, shapes of Resize fold to constants.
        options.add_free_dimension_override_by_name("height", manifest.input.height)
        options.add_free_dimension_override_by_name("width", manifest.input.width)
    return options


def session_options(manifest: Manifest, threads: int = 0) -> Any:
    """An onnxruntime.SessionOptions as `open_backend` makes it, for tools that look into a session."""
    import onnxruntime as ort

    options = _session_options(ort, manifest, threads)
    _register_ops(options)
    return options


def cuda_options(index: int) -> dict[str, str]:
    """Options of the CUDA provider.

    TF32 is off, so that an artifact does what its manifest says on any device. Convolution algorithms are chosen by a
    heuristic: the exhaustive search, which is the default, would run again for every new batch size. The first GPU is
    not named: if it is, version 1.31 warns at every start that it found no plugin for that GPU.

    Args:
        index: number of the GPU.
    """
    named = {"device_id": str(index)} if index else {}
    return named | {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}


def _register_ops(options: Any) -> bool:
    """Register the operator library if it was built; without it the file's own function body runs."""
    from lidcam_rt.pas import ops_library

    library = ops_library()
    if library is None:
        _log.debug("PaS runs in standard operators: the operator library is not built, or is switched off")
        return False
    try:
        options.register_custom_ops_library(os.fspath(library))
    except Exception as error:
        _log.warning("the operator library %s was rejected (%s); using the standard operators", library, error)
        return False
    _log.debug("PaS runs as the kernel of %s", library)
    return True


def open_backend(
    path: str | os.PathLike[str],
    manifest: Manifest,
    *,
    device: str = "auto",
    threads: int = 0,
    precision: str = "auto",
) -> OrtBackend:
    """Start ONNX Runtime on an artifact.

    Args:
        path: the artifact.
        manifest: its manifest.
        device: `auto` (a GPU where ONNX Runtime really gets one, else the CPU), `cpu`, `cuda` or
            `cuda:INDEX`.
        threads: threads of one call on the CPU; 0: one per usable core.
        precision: `auto`, or what the file has.

    Raises:
        BackendError: the device is not available; ONNX Runtime's silent change to the CPU is an error here.
        ArtifactError: ONNX Runtime refuses the file.
    """
    kind, index = parse_device(device)
    check_threads(threads)
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise BackendError(
            f"{Path(path).name}: onnxruntime cannot be imported ({error}): pip install --force-reinstall onnxruntime"
        ) from None
    available = ort.get_available_providers()
    if kind == "cuda" and _CUDA not in available:
        raise BackendError(
            f"device {device} was requested, but the installed onnxruntime {ort.__version__} has no CUDA "
            f"provider (it has {', '.join(available)}): "
            "pip uninstall -y onnxruntime && pip install 'lidcam-rt[gpu]'"
        )
    if kind == "cuda" or (kind == "auto" and _CUDA in available):
        if hasattr(ort, "preload_dlls"):  # CUDA's libraries of pip's wheels, which the loader does not find itself
            ort.preload_dlls()
        try:
            session, ops = _start(ort, path, manifest, threads, [(_CUDA, cuda_options(index)), _CPU])
        except BackendError as error:
            if kind == "cuda":
                raise
            _log.warning("no GPU: %s; running on the CPU", error)
        else:
            if session.get_providers()[0] == _CUDA:
                gpu = [(_CUDA, cuda_options(index)), _CPU]
                free = functools.partial(_start, ort, path, manifest, providers=gpu, fixed=False)
                return OrtBackend(
                    ort, session, f"cuda:{index}", ops, precision=manifest.arithmetic, open_free=free
                )
            if kind == "cuda":
                raise BackendError(
                    f"device {device} was requested, but onnxruntime {ort.__version__} fell back to "
                    f"{', '.join(session.get_providers())}: driver, CUDA or cuDNN libraries are missing or "
                    "incompatible. `lidcam doctor` says which; or use device='cpu' in Python, --device cpu on the "
                    "command line"
                )
            _log.warning("no GPU: onnxruntime could not use its CUDA provider; running on the CPU")
    session, ops = _start(ort, path, manifest, threads, [_CPU])
    more = None
    if threads == 0 and usable_cores() > 1:
        more = functools.partial(_start, ort, path, manifest, 1, [_CPU])
    free = functools.partial(_start, ort, path, manifest, providers=[_CPU], fixed=False)
    cores = threads or usable_cores()
    return OrtBackend(
        ort,
        session,
        "cpu",
        ops,
        precision=manifest.arithmetic,
        threads=cores,
        open_one_thread=more,
        open_free=free,
    )


def session_source(path: str | os.PathLike[str]) -> str | bytes:
    """The path, or the bytes of a file whose name is not UTF-8: ONNX Runtime takes no such name."""
    name = os.fspath(path)
    try:
        name.encode()
    except UnicodeEncodeError:
        return Path(name).read_bytes()
    return name


def _start(
    ort: Any,
    path: str | os.PathLike[str],
    manifest: Manifest,
    threads: int,
    providers: list[Any],
    *,
    fixed: bool = True,
) -> tuple[Any, bool]:
    options = _session_options(ort, manifest, threads, fixed=fixed)
    ops = _register_ops(options)
    try:
        with _turn("cpu" if providers == [_CPU] else "cuda")():
            session = ort.InferenceSession(session_source(path), sess_options=options, providers=providers)
    except Exception as error:
        reason = reason_of(error)
        lowered = str(error).lower()
        if "cuda" in lowered or "cudnn" in lowered:
            raise BackendError(f"{path}: onnxruntime could not start on the GPU ({reason})") from None
        if "ir version" in lowered or "opset" in lowered:
            raise ArtifactError(
                f"{path}: too new for onnxruntime {ort.__version__} ({reason}): pip install -U onnxruntime"
            ) from None
        raise ArtifactError(
            f"{path}: onnxruntime {ort.__version__} refuses it ({reason}). Copy or export it again"
        ) from None
    return session, ops


_: Opener = open_backend  # checked by mypy
