"""Track 3 on one GPU from picture to box: pictures are uploaded once, and a few numbers per picture come back.

Resampling, network, activation map, PaS, dense CRF and box run on one stream without a copy to the host in between;
maps come back on request.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from lidcam_gpu.decoding import PictureReader, is_encoded, open_decoder
from lidcam_gpu.graphs import Graphs
from lidcam_gpu.memory import Memory
from lidcam_gpu.pictures import PictureInput
from lidcam_rt.artifact import InputSpec, Manifest, read_manifest
from lidcam_rt.backends.cuda_runtime import CudaRuntime, open_runtime
from lidcam_rt.backends.gpu_turns import GPU_TURNS
from lidcam_rt.crf.localization import Refine, energy_table
from lidcam_rt.defaults import refinement, views
from lidcam_rt.errors import BackendError, InputError
from lidcam_rt.image import MAX_PIXELS, describe
from lidcam_rt.results import Box

__all__ = ["DeviceBatch", "ResidentLocalizer"]

_OUTPUTS = {"class_ids": np.int64, "scores": np.float32, "threshold": np.float32, "map8": np.uint8}


@dataclass(frozen=True, slots=True, eq=False)
class DeviceBatch:
    """The results of one call, a row per picture.

    Attributes:
        class_ids: int64 [N].
        scores: float32 [N].
        thresholds: float32 [N], of the maps (127 where they were refined).
        boxes: (x0, y0, x1, y1) in pixels of each picture, the last two excluded; None where its mask is empty.
        maps: uint8 [N, h, w] at the network's size, if they were requested.
        decoded: where each picture's file was decoded; None for a picture given as pixels.
    """

    class_ids: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]
    thresholds: npt.NDArray[np.float32]
    boxes: tuple[Box | None, ...]
    maps: npt.NDArray[np.uint8] | None = None
    decoded: tuple[Literal["cpu", "device"] | None, ...] = ()


class ResidentLocalizer:
    """An artifact with its pre- and post-processing on one GPU, through ONNX Runtime's CUDA provider.

    Classes, maps and boxes are those of `Localizer` on the same engine: the resampling has Pillow's bits, the map has
    PaS's, and it is resized to the picture as OpenCV does. One call runs at a time; several threads may call.

    While a CUDA graph is captured, no other thread of the process may allocate on a GPU or wait for one. Calls of this
    package respect that; threads of PyTorch and others do not: call `warm_up` before they start.

    Args:
        path: an artifact with uint8 input, resize policy `stretch` and top_k 1.
        device: `cuda` or `cuda:INDEX`.
        refine: a dense CRF at the network's size, as for `Localizer`.
        graph: replay the network of each batch size as one CUDA graph, which its first call captures.
        max_batch: pictures that a call may have; memory for them is allocated at once.
        decode: where encoded pictures are decoded. `cpu`: by `lidcam_rt.image`, in threads. `device`: JPEG by
            nvImageCodec, whose pixels differ a little (docs/gpu.md); files that it would read differently, on the CPU.
        max_pixels: encoded pictures with more pixels are refused before they are decoded.
        runtime: the CUDA runtime; None: that of this machine.
        session: an onnxruntime.InferenceSession of the artifact on that device and stream; None: a new one.

    Raises:
        BackendError: CUDA, cuda-python or ONNX Runtime's CUDA provider cannot be used, or nvImageCodec if requested.
        MissingExtraError: nvImageCodec is requested and not installed.
        InputError: the artifact or an option does not fit.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        device: str = "cuda",
        refine: Any = None,
        graph: bool = False,
        max_batch: int = 32,
        decode: Literal["cpu", "device"] = "cpu",
        max_pixels: int = MAX_PIXELS,
        runtime: CudaRuntime | None = None,
        session: Any = None,
    ) -> None:
        from lidcam_rt.backends.base import parse_device

        self.manifest: Manifest = read_manifest(path)
        kind, index = parse_device(device)
        if kind != "cuda":
            raise InputError(f"a resident localizer runs on cuda or cuda:INDEX, got {device!r}: use lidcam_rt.load")
        spec = self.manifest.input
        if self.manifest.task == "segmentation":
            raise InputError(f"{path}: a segmentation network has no map of a class: use lidcam_rt.load")
        if spec.dtype != "uint8" or spec.resize != "stretch" or self.manifest.top_k != 1:
            raise InputError(
                f"{path}: a resident localizer needs uint8 input, the resize policy stretch and top_k 1; the artifact "
                f"has {spec.dtype}, {spec.resize} and {self.manifest.top_k}: export it so, or use lidcam_rt.load"
            )
        self.refine = refinement(self.manifest, refine)
        if views(self.manifest, None) is not None:
            raise InputError(
                f"{path}: its calls average several views of a picture (`lidcam tune`); a resident localizer runs one: "
                "tune the artifact with --no-views, or use lidcam_rt.load"
            )
        if self.refine is not None and self.refine.size != "network":
            raise InputError("a resident localizer refines at the network's size: leave out @original")
        if isinstance(max_batch, bool) or not isinstance(max_batch, int) or not 1 <= max_batch <= 4096:
            raise InputError(f"max_batch must be 1 to 4096 pictures, got {max_batch!r}")
        if decode not in ("cpu", "device"):
            raise InputError(f"decode must be 'cpu' or 'device', got {decode!r}")
        if isinstance(max_pixels, bool) or not isinstance(max_pixels, int) or max_pixels < 1:
            raise InputError(f"max_pixels must be a positive number of pixels, got {max_pixels!r}")
        self.device, self.max_batch = f"cuda:{index}", max_batch
        self._index = index
        self._lock = threading.Lock()
        with GPU_TURNS.shared():
            self._open(path, spec, decode, max_pixels, runtime, session, graph)

    def _open(
        self, path: str | os.PathLike[str], spec: InputSpec, decode: str, max_pixels: int, runtime: CudaRuntime | None,
        session: Any, graph: bool,
    ) -> None:  # fmt: skip
        index = self._index
        self._cuda = runtime or open_runtime(index)
        self._cuda.use()
        self._stream = self._cuda.new_stream()
        self._memory = Memory(self._cuda, self._stream)
        self._input = PictureInput(self._cuda, self._memory, self._stream, spec)
        self._session: Any = None
        self._reader: PictureReader | None = None
        self._graphs = Graphs(graph)
        try:
            decoder = open_decoder(index, self._stream) if decode == "device" else None
            self._reader = PictureReader(max_pixels, decoder, self._input.takes)
            self._session = session or _open_session(path, self.manifest, index, self._stream, graph)
            self._kind = "cpu" if self._session.get_providers()[0] == "CPUExecutionProvider" else "cuda"
            self._reserve()
        except BaseException:
            self.close()
            raise

    def _reserve(self) -> None:
        """Allocate everything that the engine reads and writes: its graphs hold the addresses."""
        pixels, most = self.manifest.input.height * self.manifest.input.width, self.max_batch
        self._image = self._memory.room("image", 3 * pixels * most)
        self._places = {
            name: self._memory.room(name, np.dtype(kind).itemsize * most * (pixels if name == "map8" else 1))
            for name, kind in _OUTPUTS.items()
        }
        self._labels = self._memory.filled("labels", np.full(most, -1, np.int64))
        self._half = self._memory.filled("half", np.full(most, Refine.level, np.float32))
        if self.refine is not None:
            self._energies = self._memory.filled("energies", energy_table())

    def __call__(self, pictures: Sequence[Any], *, maps: bool = False) -> DeviceBatch:
        """Localize pictures of any sizes as one batch.

        Args:
            pictures: each uint8 [H, W, 3] RGB, in host memory (numpy) or on the device (`__cuda_array_interface__` or
                DLPack), or encoded: a path, the bytes of a file, an open file, a Pillow image.
            maps: whether the maps come back too.

        Raises:
            ImageError: an encoded picture cannot be read; the message is that of `lidcam_rt`, and says which.
            InputError: a picture is none of these, or there are none or too many.
            BackendError: the engine or a kernel failed.
        """
        if isinstance(pictures, (str, bytes, bytearray, os.PathLike)):
            raise InputError(f"a call takes several pictures, got {describe(pictures)}: use [picture]")
        if not 1 <= len(pictures) <= self.max_batch:
            raise InputError(
                f"a batch has 1 to {self.max_batch} pictures here, got {len(pictures)}: split it, or open the artifact "
                "with a larger max_batch"
            )
        assert self._reader is not None
        opened = self._reader.read(pictures)  # while the device works for another thread
        with self._lock:
            if not self._stream:
                raise InputError("this localizer is closed; open the artifact again")
            with GPU_TURNS.alone() if self._graphs.captures(len(opened)) else GPU_TURNS.shared():
                batch, by_device = self._localize(opened, maps)
        places: list[Literal["cpu", "device"] | None] = [
            "device" if i in by_device else "cpu" if is_encoded(picture) else None for i, picture in enumerate(pictures)
        ]
        return replace(batch, decoded=tuple(places))

    def warm_up(self, batch_sizes: Iterable[int]) -> None:
        """Do everything that the first call of a batch size does: load kernels, allocate, capture the CUDA graph.

        Args:
            batch_sizes: numbers of pictures.

        Raises:
            InputError: one is not 1 to `max_batch`, or the localizer is closed.
            BackendError: as a call.
        """
        blank = np.zeros((self.manifest.input.height, self.manifest.input.width, 3), np.uint8)
        for count in counts(batch_sizes):
            self([blank] * count)

    def close(self) -> None:
        """Free the engine, the stream and all memory."""
        with self._lock, GPU_TURNS.shared():
            if not self._stream:
                return
            self._cuda.use()
            self._cuda.wait(self._stream)
            self._session = None
            self._graphs.close()
            if self._reader is not None:
                self._reader.close()
            self._memory.free()
            self._cuda.free_stream(self._stream)
            self._stream = 0

    def __enter__(self) -> ResidentLocalizer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _localize(self, opened: Sequence[Any], maps: bool) -> tuple[DeviceBatch, frozenset[int]]:
        """The batch, and which pictures the device decoded. Their memory is released before this returns."""
        from lidcam_rt._kernels import cuda

        assert self._reader is not None
        self._cuda.use()
        try:
            arrays, by_device = self._reader.decode(opened)
            return self._run(cuda, arrays, maps), by_device
        except BaseException as error:
            self._cuda.wait(self._stream)  # what was enqueued reads memory that the next call writes
            if isinstance(error, cuda.Error):
                raise BackendError(str(error)) from error
            raise

    def _run(self, cuda: Any, pictures: Sequence[Any], maps: bool) -> DeviceBatch:
        spec, n = self.manifest.input, len(pictures)
        height, width = spec.height, spec.width
        pixels = height * width
        given = self._input.take(pictures)  # holds their memory until the results are there
        self._input.load(given, self._image)
        sizes = [picture.size for picture in given]
        image, places = self._image, self._places
        self._infer(n)
        map8, level = places["map8"], places["threshold"]
        if self.refine is not None:
            map8, level = self._refined(cuda, n, image, map8, level)
        boxes = self._memory.room("boxes", 16 * n)
        first = 0
        while first < n:  # pictures of one size side by side
            last = next((i for i in range(first, n) if sizes[i] != sizes[first]), n)
            work = cuda.boxes_workspace(last - first, *sizes[first])
            cuda.boxes_at_size(
                map8 + first * pixels, level + 4 * first, last - first, height, width, *sizes[first], False,
                boxes + 16 * first, self._memory.room("boxes_work", work), work, self._stream,
            )  # fmt: skip
            first = last
        return self._collect(n, places, level, boxes, map8 if maps else None)

    def _infer(self, n: int) -> None:
        import onnxruntime as ort

        spec = self.manifest.input
        shapes = dict.fromkeys(self._places, (n, 1)) | {"map8": (n, 1, spec.height, spec.width)}
        binding, where = self._session.io_binding(), (self._kind, self._index)
        binding.bind_input("image", *where, np.uint8, (n, spec.height, spec.width, 3), self._image)
        if self.manifest.labels_input:
            binding.bind_input("labels", *where, np.int64, (n, 1), self._labels)
        for name, address in self._places.items():
            binding.bind_output(name, *where, _OUTPUTS[name], shapes[name], address)
        how = ort.RunOptions()
        how.log_severity_level = 4
        how.add_run_config_entry("disable_synchronize_execution_providers", "1")
        if self._graphs.used:
            how.add_run_config_entry("gpu_graph_id", str(n))
        self._graphs.run(n, lambda: self._session.run_with_iobinding(binding, how))

    def _refined(self, cuda: Any, n: int, image: int, map8: int, level: int) -> tuple[int, int]:
        from lidcam_gpu.plan import plan_mean_field

        assert self.refine is not None
        spec = self.manifest.input
        pixels = spec.height * spec.width
        shape = (n, 2, spec.height, spec.width)
        unary, q = self._memory.room("unary", 8 * n * pixels), self._memory.room("q", 8 * n * pixels)
        found, status = self._memory.room("found", 4 * n), self._memory.room("status", 4 * n)
        cuda.energies(map8, level, self._energies, n, pixels, unary, found, self._stream)
        terms, capacity, present, o = plan_mean_field(shape, self.refine.options, None, 2.0)
        work = cuda.crf_workspace(*shape, terms, capacity, o.tolerance, present)
        cuda.mean_field(
            image, unary, *shape, terms, o.iterations, q, status, capacity, o.tolerance, present,
            self._memory.room("crf_work", work), work, self._stream,
        )  # fmt: skip
        refined = self._memory.room("refined", n * pixels)
        cuda.refined(q, found, n, pixels, refined, self._stream)
        return refined, self._half

    def _collect(self, n: int, places: dict[str, int], level: int, boxes: int, map8: int | None) -> DeviceBatch:
        spec, stream = self.manifest.input, self._stream
        class_ids = self._cuda.download(places["class_ids"], (n,), np.int64, stream)
        scores = self._cuda.download(places["scores"], (n,), np.float32, stream)
        thresholds = self._cuda.download(level, (n,), np.float32, stream)
        found = self._cuda.download(boxes, (n, 4), np.int32, stream)
        status = None
        if self.refine is not None:
            status = self._cuda.download(self._memory.room("status", 4 * n), (n,), np.int32, stream)
        maps = None
        if map8 is not None:
            maps = self._cuda.download(map8, (n, spec.height, spec.width), np.uint8, stream)
        self._cuda.wait(stream)
        if not np.isfinite(scores).all() or not np.isfinite(thresholds).all():
            raise BackendError(f"the artifact returned NaN on {self.device}: check it with lidcam compare")
        if class_ids.min() < 0 or class_ids.max() >= len(self.manifest.class_names):
            raise BackendError(
                f"the artifact returned class {class_ids.max()} on {self.device}: check it with lidcam compare"
            )
        if status is not None and status.any():
            raise BackendError(
                f"the dense CRF had no room for the lattice of picture {int(np.argmax(status))} of the batch: "
                "refine it with lidcam_rt.load(..., device='cpu')"
            )
        listed: list[Box | None] = [
            None if row[0] < 0 else (int(row[0]), int(row[1]), int(row[2]), int(row[3])) for row in found
        ]
        return DeviceBatch(class_ids, scores, thresholds, tuple(listed), maps)


def counts(batch_sizes: Iterable[int]) -> tuple[int, ...]:
    """Numbers of pictures to warm up for.

    Raises:
        InputError: these are not numbers of at least 1.
    """
    sizes = () if isinstance(batch_sizes, (int, str)) else tuple(batch_sizes)
    if not sizes or any(isinstance(size, bool) or not isinstance(size, int) or size < 1 for size in sizes):
        raise InputError(f"batch_sizes must be numbers of pictures such as [1, 8], got {batch_sizes!r}")
    return sizes


def _open_session(path: str | os.PathLike[str], manifest: Manifest, index: int, stream: int, graph: bool) -> Any:
    from lidcam_rt.backends.onnxruntime import cuda_options, reason_of, session_options, session_source

    try:
        import onnxruntime as ort
    except ImportError as error:
        raise BackendError(f"onnxruntime cannot be imported ({error}): pip install 'lidcam-rt[gpu]'") from None
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        raise BackendError(
            f"the installed onnxruntime {ort.__version__} has no CUDA provider: "
            "pip uninstall -y onnxruntime && pip install 'lidcam-rt[gpu]'"
        )
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()
    options = cuda_options(index) | {"user_compute_stream": str(stream)}
    if graph:
        options["enable_cuda_graph"] = "1"
    try:
        session = ort.InferenceSession(
            session_source(path), sess_options=session_options(manifest),
            providers=[("CUDAExecutionProvider", options), "CPUExecutionProvider"],
        )  # fmt: skip
    except Exception as error:
        raise BackendError(
            f"{path}: onnxruntime could not start on cuda:{index} ({reason_of(error)})"
        ) from None
    if session.get_providers()[0] != "CUDAExecutionProvider":
        raise BackendError(
            f"onnxruntime {ort.__version__} fell back to the CPU on cuda:{index}: `lidcam doctor` says which libraries "
            "are missing"
        )
    return session
