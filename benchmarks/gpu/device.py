"""Where the check runs: a CUDA device through PyTorch, or the CPU for a rehearsal.

The rehearsal goes through the same calls of `lidcam_gpu.kernels` with host memory posing as the device's: the
launcher under them is replaced by the C++ CPU kernels. It finds typing errors and wrong comparisons; it says nothing
about a GPU.
"""

from __future__ import annotations

import contextlib
import ctypes
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.gpu.report import Cannot

__all__ = ["CpuRehearsal", "Sampler", "TorchCuda", "open_device"]

#: Takes one sample: microseconds per call.
Sampler = Callable[[], float]


class TorchCuda:
    """A CUDA device through PyTorch.

    Attributes:
        name: of the device.
        rehearsal: False.
    """

    rehearsal = False

    def __init__(self, index: int = 0) -> None:
        try:
            import torch
        except ImportError as error:
            raise Cannot(f"PyTorch holds the device's memory here and cannot be imported ({error})") from None
        if not torch.cuda.is_available():
            raise Cannot(f"torch {torch.__version__} finds no CUDA device")
        self.torch = torch
        torch.cuda.set_device(index)
        properties = torch.cuda.get_device_properties(index)
        self.name = properties.name
        self.l2_bytes = int(getattr(properties, "L2_cache_size", 0)) or 50 << 20
        self.facts = {
            "compute_capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "memory_bytes": properties.total_memory,
            "l2_bytes": self.l2_bytes,
            "cuda": torch.version.cuda,
        }
        self._place = "cuda"

    def put(self, array: np.ndarray) -> Any:
        """A copy on the device."""
        return self.torch.from_numpy(np.ascontiguousarray(array)).to(self._place)

    def poisoned(self, shape: tuple[int, ...], dtype: str) -> Any:
        """Memory on the device full of 0xCD, so that anything no kernel writes shows."""
        kind = getattr(self.torch, dtype)
        array = self.torch.empty(shape, dtype=kind, device=self._place)
        array.view(self.torch.uint8).fill_(0xCD) if array.numel() else None
        return array

    def get(self, array: Any) -> np.ndarray:
        """A copy in host memory, after all started work."""
        return np.asarray(array.cpu().numpy())

    def view(self, array: Any) -> Any:
        """What `lidcam_gpu.kernels` is given."""
        return array

    def stream(self) -> Any:
        """The stream that work is put on now (another one while a graph is captured)."""
        return self.torch.cuda.current_stream()

    def sync(self) -> None:
        """Wait for all started work."""
        self.torch.cuda.synchronize()

    def sampler(self, call: Callable[[int], Any], inner: int, *, graph: bool) -> Sampler:
        """Time `inner` calls between two events, launched one by one or as one CUDA graph.

        Args:
            call: gets the number of the call, to rotate among buffers.
            inner: calls per sample.
            graph: capture the calls once and replay them, which leaves the kernels with hardly a gap.
        """
        torch = self.torch
        for i in range(3):
            call(i)
        torch.cuda.synchronize()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        if graph:
            captured = torch.cuda.CUDAGraph()
            with torch.cuda.graph(captured):
                for i in range(inner):
                    call(i)
            work = captured.replay
        else:

            def work() -> None:
                for i in range(inner):
                    call(i)

        work()

        def sample() -> float:
            begin.record()
            work()
            end.record()
            end.synchronize()
            return float(begin.elapsed_time(end)) * 1e3 / inner

        return sample


class HostArray:
    """Host memory that poses as a device array to `lidcam_gpu.kernels`."""

    def __init__(self, array: Any) -> None:
        host = np.asarray(array)
        self._array = array
        self.__cuda_array_interface__ = {
            "shape": host.shape,
            "typestr": host.dtype.str,
            "data": (host.ctypes.data, False),
            "version": 3,
            "strides": None,
            "stream": None,
        }


class CpuRehearsal(TorchCuda):
    """The same interface on PyTorch's CPU tensors. Use it inside `with`: the launcher is replaced meanwhile."""

    rehearsal = True

    def __init__(self) -> None:
        import torch

        self.torch = torch
        self.name = "rehearsal on the CPU"
        self.l2_bytes = 1 << 20
        self.facts = {"compute_capability": "none", "rehearsal": True}
        self._place = "cpu"

    def view(self, array: Any) -> Any:
        """See `TorchCuda.view`."""
        return HostArray(array)

    def stream(self) -> Any:
        """See `TorchCuda.stream`."""
        return 0

    def sync(self) -> None:
        """See `TorchCuda.sync`."""

    def sampler(self, call: Callable[[int], Any], inner: int, *, graph: bool) -> Sampler:
        """See `TorchCuda.sampler`; a clock instead of events, no graphs."""
        call(0)

        def sample() -> float:
            start = time.perf_counter()
            for i in range(inner):
                call(i)
            return (time.perf_counter() - start) * 1e6 / inner

        return sample

    @contextlib.contextmanager
    def kernels(self) -> Iterator[None]:
        """Put the CPU kernels under `lidcam_gpu.kernels`."""
        from lidcam_rt import _kernels

        missing = object()
        before = getattr(_kernels, "cuda", missing)
        _kernels.cuda = CpuLauncher()
        try:
            yield
        finally:
            if before is missing:
                del _kernels.cuda
            else:
                _kernels.cuda = before


def _memory(address: int, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_char * size).from_address(address), dtype).reshape(shape)


class CpuLauncher:
    """`lidcam_rt._kernels.cuda` with the CPU's kernels: the same functions on addresses of host memory."""

    Error = type("Error", (RuntimeError,), {})

    def compiled(self) -> bool:
        """As of a build with kernels."""
        return True

    def available(self) -> bool:
        """As on a machine with a device."""
        return True

    def reason(self) -> str:
        """Why not: empty."""
        return ""

    def architectures(self) -> str:
        """None."""
        return ""

    def devices(self) -> list[dict[str, Any]]:
        """One."""
        return [{"ordinal": 0, "name": "CPU", "major": 0, "minor": 0, "processors": 1, "shared_limit": 0}]

    def device_of(self, address: int) -> int:
        """All memory is the CPU's."""
        return 0

    def pas(self, cam, count, h, w, height, width, percentile, theta, mode, precision, where, interpolation, map_,
            mask, threshold, stream):  # fmt: skip
        """See kernels/python/bind_cuda.cpp."""
        from lidcam_rt.pas import PasOptions, pas

        found = pas(
            _memory(cam, (count, 1, h, w), np.float32),
            (height, width),
            PasOptions(percentile, theta, mode, precision, where, interpolation),
        )
        _memory(map_, (count, 1, height, width), np.uint8)[...] = found.map
        _memory(mask, (count, 1, height, width), np.uint8)[...] = found.mask
        _memory(threshold, (count, 1), np.float32)[...] = found.threshold

    def boxes(self, mask, count, height, width, by_pixels, boxes, workspace, size, stream):
        """See kernels/python/bind_cuda.cpp."""
        from lidcam_rt.boxes import largest_box

        out = _memory(boxes, (count, 4), np.int32)
        for i, one in enumerate(_memory(mask, (count, height, width), np.uint8)):
            out[i] = largest_box(one, by="pixels" if by_pixels else "contour") or (-1,) * 4

    def boxes_at_size(
        self, map_, level, count, map_height, map_width, height, width, by_pixels, boxes, workspace, size, stream
    ):
        """See kernels/python/bind_cuda.cpp."""
        import cv2

        maps = _memory(map_, (count, map_height, map_width), np.uint8)
        levels = _memory(level, (count,), np.float32)
        large = [cv2.resize(one, (width, height), interpolation=cv2.INTER_LINEAR) for one in maps]
        masks = np.stack([(a > b) for a, b in zip(large, levels, strict=True)]).astype(np.uint8)
        self.boxes(masks.ctypes.data, count, height, width, by_pixels, boxes, workspace, size, stream)

    def crf_workspace(self, *arguments):
        """See kernels/python/bind_cuda.cpp; the CPU's kernels take none."""
        return 16

    def mean_field(
        self, image, unary, count, labels, height, width, terms, iterations, q, status, capacity, tolerance, present,
        workspace, size, stream,
    ):  # fmt: skip
        """See kernels/python/bind_cuda.cpp."""
        from lidcam_rt._kernels import crf

        if present:
            raise NotImplementedError("no part of the check has labels that are absent")
        images = _memory(image, (count, height, width, 3), np.uint8)
        energies = _memory(unary, (count, labels, height, width), np.float32)
        out = _memory(q, energies.shape, np.float32)
        for i in range(count):
            out[i] = crf.infer(images[i], energies[i], terms, iterations, tolerance, True)[0]
        _memory(status, (count,), np.int32)[...] = 0


def open_device(rehearsal: bool, index: int = 0) -> TorchCuda:
    """The device of the check.

    Raises:
        Cannot: there is none.
    """
    return CpuRehearsal() if rehearsal else TorchCuda(index)
