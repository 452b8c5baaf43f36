"""Pictures of any sizes into a network's input on the device."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lidcam_gpu.arrays import Call
from lidcam_gpu.memory import Memory
from lidcam_gpu.resample import columns_first, resample_tables
from lidcam_rt.artifact import InputSpec
from lidcam_rt.backends.cuda_runtime import CudaRuntime
from lidcam_rt.errors import InputError
from lidcam_rt.image import describe, network_input

__all__ = ["Picture", "PictureInput"]

_MAX_SIDE = 32768
#: How many tables of weights stay on the device: collections have pictures of thousands of sizes.
_TABLES = 256


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A picture of a batch.

    Attributes:
        size: its own (height, width) in pixels.
        host: uint8 [h, w, 3] in host memory, of its own size or of the network's; None: it is on the device.
        address: of uint8 [height, width, 3] on the device.
        owner: keeps that memory alive.
    """

    size: tuple[int, int]
    host: npt.NDArray[np.uint8] | None = None
    address: int = 0
    owner: Any = None


class PictureInput:
    """Brings pictures to the device and resamples them there, bit-identical to the installed Pillow.

    Args:
        cuda: the runtime.
        memory: where buffers come from.
        stream: on which all work is enqueued.
        spec: the artifact's input: uint8, stretched to its size.
    """

    def __init__(self, cuda: CudaRuntime, memory: Memory, stream: int, spec: InputSpec) -> None:
        self._cuda, self._memory, self._stream, self._spec = cuda, memory, stream, spec
        self._tables: OrderedDict[tuple[int, int], int] = OrderedDict()  # taps of an axis

    def take(self, pictures: Sequence[Any]) -> list[Picture]:
        """Check the pictures of a batch; all that this enqueues is waits for their streams.

        Raises:
            InputError: one is not uint8 [H, W, 3] of up to 32768 pixels a side, or is on the device although only
                Pillow itself computes Pillow's bits for it.
        """
        return [self._on_host(p) if isinstance(p, np.ndarray) else self._on_device(p) for p in pictures]

    def takes(self, size: tuple[int, int]) -> bool:
        """Whether a picture of (height, width) may be resampled on the device."""
        return max(size) <= _MAX_SIDE and self._order(size) is not None

    def load(self, pictures: Sequence[Picture], target: int) -> None:
        """Enqueue their conversion to uint8 [N, height, width, 3] at an address; they must live until it has run."""
        slot = 3 * self._spec.height * self._spec.width
        hosted = [picture.host for picture in pictures if picture.host is not None]
        staging = 0
        if hosted:
            total = sum(array.nbytes for array in hosted)
            pinned, offset = self._memory.pinned(total), 0
            for array in hosted:
                pinned[offset : offset + array.nbytes] = array.reshape(-1)
                offset += array.nbytes
            staging = self._memory.room("staging", total)
            self._cuda.upload(staging, pinned, self._stream)
        for i, picture in enumerate(pictures):
            if picture.host is None:
                self._resample(picture.address, picture.size, target + i * slot)
                continue
            self._resample(staging, (picture.host.shape[0], picture.host.shape[1]), target + i * slot)
            staging += picture.host.nbytes

    def _on_host(self, picture: npt.NDArray[Any]) -> Picture:
        if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8 or not picture.size:
            raise InputError(f"a picture must be uint8 [H, W, 3], got {describe(picture)}")
        size = self._checked(picture.shape)
        if self._order(size) is None:
            picture = np.asarray(network_input(picture, self._spec), np.uint8)
        return Picture(size, host=picture)

    def _on_device(self, picture: Any) -> Picture:
        from lidcam_rt._kernels import cuda

        view = Call(self._stream).take(picture, "a picture", ("|u1",), rank=3)
        place = cuda.device_of(view.address) if view.address else -1
        if place >= 0 and place != self._cuda.index:
            raise InputError(
                f"a picture is on cuda:{place}, but this localizer is on cuda:{self._cuda.index}: copy it there, or "
                "use a ResidentPool of both"
            )
        if view.shape[2] != 3 or min(view.shape) < 1:
            raise InputError(f"a picture must be uint8 [H, W, 3], got {view.shape}")
        size = self._checked(view.shape)
        if self._order(size) is None:
            raise InputError(
                f"a picture of {size[0]}x{size[1]} on the device cannot be resampled as the installed Pillow does: "
                "pass it in host memory"
            )
        if view.stream and view.stream != self._stream:
            cuda.wait_for(self._stream, view.stream, view.address)
        return Picture(size, address=view.address, owner=(picture, view))

    @staticmethod
    def _checked(shape: tuple[int, ...]) -> tuple[int, int]:
        if max(shape) > _MAX_SIDE:
            raise InputError(
                f"a picture may have up to {_MAX_SIDE} pixels a side here, got {shape[0]}x{shape[1]}: use "
                "lidcam_rt.load"
            )
        return shape[0], shape[1]

    def _order(self, size: tuple[int, int]) -> bool | None:
        """Whether x comes first; None: only Pillow computes its bits."""
        wanted = self._spec.height, self._spec.width
        if size[0] == wanted[0] or size[1] == wanted[1]:
            return True  # one axis at most
        return columns_first(size, wanted, self._spec.interpolation)

    def _resample(self, source: int, size: tuple[int, int], target: int) -> None:
        from lidcam_rt._kernels import cuda

        after = self._spec.height, self._spec.width
        axes = [x for x in ((True, False) if self._order(size) else (False, True)) if size[x] != after[x]] or [True]
        for step, along_x in enumerate(axes):
            bounds, weights, taps = self._table(size[along_x], after[along_x])
            following = (size[0], after[1]) if along_x else (after[0], size[1])
            last = step == len(axes) - 1
            to = target if last else self._memory.room("halfway", 3 * following[0] * following[1])
            cuda.resample(source, *size, along_x, bounds, weights, taps, after[along_x], to, self._stream)
            source, size = to, following

    def _table(self, before: int, after: int) -> tuple[int, int, int]:
        """Addresses of an axis's bounds and weights on the device, and how many weights a place has."""
        key = before, after
        names = [f"{kind} {before} {after}" for kind in ("bounds", "weights")]
        if key not in self._tables:
            bounds, weights = resample_tables(before, after, self._spec.interpolation)
            for name, array in zip(names, (bounds, weights), strict=True):
                self._memory.filled(name, array)
            self._tables[key] = weights.shape[1]
            if len(self._tables) > _TABLES:
                old = self._tables.popitem(last=False)[0]
                for kind in ("bounds", "weights"):
                    self._memory.drop(f"{kind} {old[0]} {old[1]}")
        self._tables.move_to_end(key)
        return self._memory.room(names[0], 0), self._memory.room(names[1], 0), self._tables[key]
