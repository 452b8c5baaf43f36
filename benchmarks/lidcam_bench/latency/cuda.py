"""An NVIDIA GPU for the stage timer: synchronisation and events, through cuda-python."""

from __future__ import annotations

import importlib
from typing import Any

from lidcam_rt.errors import BackendError

__all__ = ["CudaDevice", "device_for"]


class CudaDevice:
    """The current GPU. A `timer.Device`.

    Args:
        index: number of the GPU.
        api: the module `cuda.bindings.runtime`, or a stand-in.
    """

    def __init__(self, index: int = 0, api: Any = None) -> None:
        self._api = api if api is not None else importlib.import_module("cuda.bindings.runtime")
        self._index = index

    def _call(self, name: str, *arguments: Any) -> Any:
        status, *values = getattr(self._api, name)(*arguments)
        if int(status) != 0:
            raise BackendError(f"cuda:{self._index}: {name} failed with status {int(status)}: run `lidcam doctor`")
        return values[0] if values else None

    def synchronize(self) -> None:
        """See `timer.Device`."""
        self._call("cudaSetDevice", self._index)
        self._call("cudaDeviceSynchronize")

    def record(self, stream: int) -> object:
        """See `timer.Device`."""
        event = self._call("cudaEventCreate")
        self._call("cudaEventRecord", event, stream)
        return event

    def elapsed_ns(self, start: object, end: object) -> int:
        """See `timer.Device`; `end` must have been reached. Each event is queried once as an end, and then freed."""
        milliseconds = self._call("cudaEventElapsedTime", start, end)
        for event in (start, end):
            self._call("cudaEventDestroy", event)
        return round(float(milliseconds) * 1e6)


def device_for(device: str) -> CudaDevice | None:
    """The timer's device for where a backend runs: None for `cpu`, and where cuda-python is not installed.

    Without it the host's clock serves alone: the runtime's calls return when the device is done.
    """
    if not device.startswith("cuda"):
        return None
    try:
        return CudaDevice(int(device.partition(":")[2] or 0))
    except ImportError:
        return None
