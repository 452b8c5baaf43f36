"""Device memory under names, on one stream."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from lidcam_rt.backends.cuda_runtime import CudaRuntime

__all__ = ["Memory"]


class Memory:
    """Buffers that grow, and pinned memory of the host to copy from.

    Args:
        cuda: the runtime.
        stream: on which all work on the memory is enqueued.
    """

    def __init__(self, cuda: CudaRuntime, stream: int) -> None:
        self._cuda, self._stream = cuda, stream
        self._buffers: dict[str, tuple[int, int]] = {}
        self._pinned: npt.NDArray[np.uint8] | None = None

    def room(self, name: str, size: int) -> int:
        """Address of at least `size` bytes under a name; their content is lost if they have to grow."""
        address, have = self._buffers.get(name, (0, 0))
        if have >= size and address:
            return address
        self.drop(name)
        self._buffers[name] = self._cuda.malloc(size), size
        return self._buffers[name][0]

    def filled(self, name: str, array: npt.NDArray[Any]) -> int:
        """Address of a copy of a contiguous array, complete when this returns."""
        address = self.room(name, array.nbytes)
        self._cuda.upload(address, array, self._stream)
        self._cuda.wait(self._stream)
        return address

    def drop(self, name: str) -> None:
        """Free what is under a name, once the stream is done with it."""
        if name in self._buffers:
            self._cuda.wait(self._stream)
            self._cuda.free(self._buffers.pop(name)[0])

    def pinned(self, size: int) -> npt.NDArray[np.uint8]:
        """Pinned memory, uint8 [size]; the next call may return the same."""
        if self._pinned is None or self._pinned.size < size:
            self._unpin()
            self._pinned = self._cuda.pinned(size)
        return self._pinned[:size]

    def free(self) -> None:
        """Free everything. The stream must have been waited for."""
        for address, _ in self._buffers.values():
            self._cuda.free(address)
        self._buffers = {}
        self._unpin()

    def _unpin(self) -> None:
        if self._pinned is not None:
            self._cuda.unpin(self._pinned)
            self._pinned = None
