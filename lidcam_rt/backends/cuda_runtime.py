"""The few calls of the CUDA runtime that an engine needs, through cuda-python."""

from __future__ import annotations

import ctypes
import importlib
from typing import Any

import numpy as np
import numpy.typing as npt

from lidcam_rt.errors import BackendError

__all__ = ["CudaRuntime", "compute_capability", "device_count", "open_runtime"]


class CudaRuntime:
    """Memory, copies and streams of one GPU. Every call checks its status.

    Args:
        api: the module `cuda.bindings.runtime`, or a stand-in with its functions.
        index: number of the GPU.

    Raises:
        BackendError: there is no driver, or no such GPU.
    """

    def __init__(self, api: Any, index: int = 0) -> None:
        self._api = api
        # Queried before anything else: other calls may hang where there is no driver.
        status, count = api.cudaGetDeviceCount()
        if int(status) != 0 or not count:
            raise BackendError(
                f"no NVIDIA GPU answers ({self._name(status)}): install the driver, or run the artifact with "
                "device='cpu' in Python, --device cpu on the command line"
            )
        if index >= count:
            raise BackendError(f"cuda:{index} was requested, but this machine has {count} GPU(s), numbered from 0")
        self.index, self.count = index, int(count)

    def _name(self, status: Any) -> str:
        if int(status) == 0:
            return "no device is visible"
        _, text = self._api.cudaGetErrorString(status)
        return text.decode() if isinstance(text, bytes) else str(text)

    def _call(self, name: str, *arguments: Any) -> Any:
        status, *values = getattr(self._api, name)(*arguments)
        if int(status) != 0:
            raise BackendError(f"cuda:{self.index}: {name} failed ({self._name(status)})")
        return values[0] if len(values) == 1 else tuple(values)

    @property
    def compute_capability(self) -> str:
        """The compute capability, such as 8.9."""
        attribute = self._api.cudaDeviceAttr
        kinds = (attribute.cudaDevAttrComputeCapabilityMajor, attribute.cudaDevAttrComputeCapabilityMinor)
        major, minor = (self._call("cudaDeviceGetAttribute", kind, self.index) for kind in kinds)
        return f"{major}.{minor}"

    def use(self) -> None:
        """Make this the GPU of the calling thread."""
        self._call("cudaSetDevice", self.index)

    def malloc(self, size: int) -> int:
        """Device memory of `size` bytes."""
        return int(self._call("cudaMalloc", max(1, size)))

    def free(self, address: int) -> None:
        """Free device memory."""
        self._call("cudaFree", address)

    def pinned(self, size: int) -> npt.NDArray[np.uint8]:
        """Host memory of `size` bytes that copies need not stage; `unpin` frees it."""
        address = int(self._call("cudaHostAlloc", max(1, size), 0))
        return np.ctypeslib.as_array((ctypes.c_uint8 * max(1, size)).from_address(address))

    def unpin(self, array: npt.NDArray[np.uint8]) -> None:
        """Free memory that `pinned` returned."""
        self._call("cudaFreeHost", array.ctypes.data)

    def new_stream(self) -> int:
        """A stream that does not wait for the default one."""
        return int(self._call("cudaStreamCreateWithFlags", self._api.cudaStreamNonBlocking))

    def free_stream(self, stream: int) -> None:
        """End a stream."""
        self._call("cudaStreamDestroy", stream)

    def wait(self, stream: int) -> None:
        """Wait for all work that was queued on a stream."""
        self._call("cudaStreamSynchronize", stream)

    def upload(self, address: int, array: npt.NDArray[Any], stream: int) -> None:
        """Copy a contiguous array to the device. It must live until the stream has been waited for."""
        kind = self._api.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", address, array.ctypes.data, array.nbytes, kind, stream)

    def download_into(self, array: npt.NDArray[Any], address: int, stream: int) -> None:
        """Copy to an array of the host, which is complete once the stream has been waited for."""
        kind = self._api.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", array.ctypes.data, address, array.nbytes, kind, stream)

    def download(self, address: int, shape: tuple[int, ...], dtype: npt.DTypeLike, stream: int) -> npt.NDArray[Any]:
        """Copy to a new array, which is complete once the stream has been waited for."""
        array = np.empty(shape, dtype)
        if array.nbytes:
            kind = self._api.cudaMemcpyKind.cudaMemcpyDeviceToHost
            self._call("cudaMemcpyAsync", array.ctypes.data, address, array.nbytes, kind, stream)
        return array


def open_runtime(index: int = 0) -> CudaRuntime:
    """The CUDA runtime of this machine.

    Raises:
        BackendError: cuda-python is not installed, or no driver or GPU answers.
    """
    try:
        api = importlib.import_module("cuda.bindings.runtime")
    except ImportError as error:
        raise BackendError(f"cuda-python cannot be imported ({error}): pip install 'cuda-python>=12.6'") from None
    return CudaRuntime(api, index)


def device_count() -> int:
    """How many GPUs this machine has, at least 1.

    Raises:
        BackendError: cuda-python is not installed, or no driver or GPU answers.
    """
    return open_runtime().count


def compute_capability(index: int = 0) -> str | None:
    """Compute capability of a GPU of this machine, such as 8.9; None where none answers."""
    try:
        return open_runtime(index).compute_capability
    except BackendError:
        return None
