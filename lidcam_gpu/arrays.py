"""Arrays on a device, from any library, and the calls of kernels on them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lidcam_rt.backends.gpu_turns import GPU_TURNS
from lidcam_rt.errors import BackendError, InputError

__all__ = ["Call", "View", "need_device", "stream_handle"]

_ON_CUDA = (2, 13)  # DLPack's codes of device memory and managed memory
_LEGACY = 1  # the default stream where 0 would be ambiguous


@dataclass(frozen=True, slots=True)
class View:
    """A dense array on a device.

    Attributes:
        name: of the argument.
        address: of its first element.
        shape: of the array.
        kind: type and size, such as `<f4`.
        stream: the work enqueued there has to end first; None if the array is ready or the library waits itself.
        owner: keeps the memory alive.
    """

    name: str
    address: int
    shape: tuple[int, ...]
    kind: str
    stream: int | None
    owner: Any

    @property
    def nbytes(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * int(self.kind[2:])


def need_device() -> None:
    """Raise BackendError unless CUDA can be used."""
    from lidcam_rt._kernels import cuda

    if not cuda.available():
        raise BackendError(f"CUDA cannot be used: {cuda.reason()}")


def stream_handle(stream: Any) -> int:
    """The CUstream of an int or of an object of PyTorch, CuPy, pycuda or cuda-python."""
    protocol = getattr(stream, "__cuda_stream__", None)
    if protocol is not None:
        return int((protocol() if callable(protocol) else protocol)[1])
    for name in ("cuda_stream", "ptr", "handle"):
        if hasattr(stream, name):
            return int(getattr(stream, name))
    try:
        return int(stream)
    except (TypeError, ValueError):
        raise InputError(
            f"stream must be an int or a stream of PyTorch, CuPy, pycuda or cuda-python, got {type(stream).__name__}"
        ) from None


class Call:
    """One call of a kernel: its arrays, and the stream that it is enqueued on.

    Args:
        stream: as in `lidcam_gpu.kernels.pas`; None: that of the first array, else the default stream.
    """

    def __init__(self, stream: Any) -> None:
        self._given = None if stream is None else stream_handle(stream)
        self._views: list[View] = []

    @property
    def stream(self) -> int:
        """The stream's handle."""
        if self._given is not None:
            return self._given
        return next((view.stream for view in self._views if view.stream is not None), 0)

    def take(
        self,
        array: Any,
        name: str,
        kinds: tuple[str, ...] | None,
        shape: tuple[int, ...] | None = None,
        *,
        rank: int | None = None,
        output: bool = False,
    ) -> View:
        """An array of the call.

        Args:
            array: offers `__cuda_array_interface__` or `__dlpack__`.
            name: of the argument, for messages.
            kinds: types that it may have, such as `<f4`; None: any.
            shape: what its shape must be; None: any.
            rank: how many dimensions it must have; None: any.
            output: whether the kernel writes to it.

        Raises:
            InputError: it is not such an array, not dense, read-only though an output, or not on a device.
        """
        with GPU_TURNS.shared():  # a library that hands an array over may make its streams wait
            view = self._look(array, name, output)
        if kinds is not None and view.kind not in kinds:
            raise InputError(f"{name} must have the type {' or '.join(kinds)}, got {view.kind}")
        if shape is not None and view.shape != shape:
            raise InputError(f"{name} must have shape {shape}, got {view.shape}")
        if rank is not None and len(view.shape) != rank:
            raise InputError(f"{name} must have {rank} dimensions, got shape {view.shape}")
        self._views.append(view)
        return view

    def run(self, function: Callable[..., object], *arguments: Any) -> None:
        """`function(*arguments, stream)`, after the work on the arrays' own streams.

        Raises:
            InputError: the arrays are on several devices, or the kernel refuses an argument.
            BackendError: CUDA cannot be used, or the launch failed.
        """
        with GPU_TURNS.shared():
            self._run(function, arguments)

    def _run(self, function: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        from lidcam_rt._kernels import cuda

        need_device()
        stream = self.stream
        try:
            self._check_devices(cuda.device_of)
            for other in {view.stream for view in self._views if view.stream is not None}:
                if max(other, _LEGACY) != max(stream, _LEGACY):
                    cuda.wait_for(stream, other, self._views[0].address)
            function(*arguments, stream)
        except cuda.Error as error:
            raise BackendError(str(error)) from error
        except ValueError as error:
            if isinstance(error, InputError):
                raise
            raise InputError(str(error)) from error

    def _check_devices(self, device_of: Callable[[int], int]) -> None:
        devices = {view.name: device_of(view.address) for view in self._views if view.address}
        known = {name: device for name, device in devices.items() if device >= 0}
        if len(set(known.values())) > 1:
            places = ", ".join(f"{name.split(',')[0]} on cuda:{device}" for name, device in known.items())
            raise InputError(f"all arrays of a call must be on one device, got {places}")

    def _look(self, array: Any, name: str, output: bool) -> View:
        try:
            interface = getattr(array, "__cuda_array_interface__", None)
        except RuntimeError as error:  # PyTorch's tensors that record gradients
            raise InputError(f"{name} cannot be used ({error}): pass {name.split(',')[0]}.detach()") from error
        if interface is not None:
            return _from_interface(array, interface, name, output)
        if hasattr(array, "__dlpack__"):
            return self._from_dlpack(array, name, output)
        raise InputError(
            f"{name} must be a CUDA array (__cuda_array_interface__ or __dlpack__), got {type(array).__name__}"
        )

    def _from_dlpack(self, array: Any, name: str, output: bool) -> View:
        from lidcam_rt._kernels import cuda

        if hasattr(array, "__dlpack_device__") and int(array.__dlpack_device__()[0]) not in _ON_CUDA:
            raise InputError(f"{name} must be on a CUDA device; for arrays in host memory use lidcam_rt.pas")
        # The library makes this stream wait for its own. Without a version, it refuses to export read-only arrays.
        stream = self.stream or _LEGACY
        versions = ({},) if output else ({"max_version": (1, 0)}, {})
        for version in versions:
            try:
                capsule = array.__dlpack__(stream=stream, **version)
                break
            except TypeError:  # it does not support versions
                if version == versions[-1]:
                    raise
            except (BufferError, RuntimeError, ValueError) as error:
                raise InputError(f"{name} cannot be used: {error}") from error
        address, shape, code, bits, on_device, dense, owner = cuda.look(capsule)
        if not on_device:
            raise InputError(f"{name} must be on a CUDA device; for arrays in host memory use lidcam_rt.pas")
        if not dense:
            raise InputError(f"{name} must be dense in C order")
        letter = {0: "i", 1: "u", 2: "f", 6: "b"}.get(code, "?")
        kind = f"{'|' if bits == 8 else '<'}{letter}{bits // 8}"
        return View(name, address, tuple(shape), kind, None, (array, owner))


def _from_interface(array: Any, interface: dict[str, Any], name: str, output: bool) -> View:
    shape, kind = tuple(interface["shape"]), str(interface["typestr"])
    address, read_only = interface["data"]
    strides, expected = interface.get("strides"), int(kind[2:])
    for side, step in zip(reversed(shape), reversed(strides or ()), strict=False):
        if side > 1 and step != expected:
            raise InputError(f"{name} must be dense in C order, but its strides are {strides}")
        expected *= side
    if output and read_only:
        raise InputError(f"{name} is written to, and this array is read-only")
    return View(name, int(address or 0), shape, kind, interface.get("stream"), array)
