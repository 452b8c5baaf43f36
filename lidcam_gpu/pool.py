"""Several GPUs: one resident localizer each, and calls that use whichever is idle."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from lidcam_gpu.resident import DeviceBatch, ResidentLocalizer, counts
from lidcam_rt.backends.cuda_runtime import device_count
from lidcam_rt.backends.gpu_turns import GPU_TURNS
from lidcam_rt.errors import InputError

__all__ = ["ResidentPool"]


class ResidentPool:
    """An artifact on several GPUs. Results are those of a `ResidentLocalizer`, whichever GPU computes them.

    Pictures in host memory and encoded ones go to any GPU. Pictures that are on a GPU are localized there. Several
    threads may call.

    Args:
        path: the artifact.
        devices: such as ("cuda:0", "cuda:1"); None: all GPUs of this machine. One that is named twice serves two calls
            at once, and the copies of one overlap the kernels of the other.
        open: makes a localizer from path, device and options.
        options: of `ResidentLocalizer`.

    Raises:
        BackendError: there is no GPU, or a localizer cannot be opened.
        InputError: the artifact, a device or an option does not fit.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        devices: Sequence[str] | None = None,
        open: Callable[..., ResidentLocalizer] = ResidentLocalizer,
        **options: Any,
    ) -> None:
        if isinstance(devices, str) or (devices is not None and not devices):
            raise InputError(f"devices must be a list such as ['cuda:0', 'cuda:1'], or None, got {devices!r}")
        with GPU_TURNS.shared():
            names = list(devices) if devices is not None else [f"cuda:{i}" for i in range(device_count())]
        self._all: list[ResidentLocalizer] = []
        self._changed = threading.Condition()
        self._closed = False
        try:
            for name in names:
                self._all.append(open(path, device=name, **options))
        except BaseException:
            for localizer in self._all:
                localizer.close()
            raise
        self._idle = deque(self._all)

    @property
    def devices(self) -> tuple[str, ...]:
        """The GPUs, one entry per localizer."""
        return tuple(localizer.device for localizer in self._all)

    def __call__(self, pictures: Sequence[Any], *, maps: bool = False) -> DeviceBatch:
        """Localize pictures as one batch on one GPU; see `ResidentLocalizer`. Waits until that GPU is idle.

        Raises:
            InputError: pictures are on different GPUs or on one that is not in the pool, or the pool is closed; and
                whatever a localizer raises.
            BackendError: the engine or a kernel failed. The pool remains usable.
        """
        device = self._place(pictures)
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._find(device) is not None)
            if self._closed:
                raise InputError("this pool is closed; open the artifact again")
            localizer = self._find(device)
            assert localizer is not None
            self._idle.remove(localizer)
        try:
            return localizer(pictures, maps=maps)
        finally:
            with self._changed:
                self._idle.append(localizer)  # at the end, so that all GPUs take turns
                self._changed.notify_all()

    def stream(self, batches: Iterable[Sequence[Any]], *, maps: bool = False) -> Iterator[DeviceBatch]:
        """Localize batches on all GPUs at once; results come in the order of the batches.

        Batches are requested as they are needed: two per GPU are in progress or waiting.

        Yields:
            A DeviceBatch per batch.

        Raises:
            InputError: as a call, in place of the result of the batch at fault; earlier results have been yielded.
            BackendError: likewise.
        """
        ahead: deque[Future[DeviceBatch]] = deque()
        with ThreadPoolExecutor(len(self._all), thread_name_prefix="lidcam-gpu") as threads:
            try:
                for batch in batches:
                    ahead.append(threads.submit(self, batch, maps=maps))
                    if len(ahead) >= 2 * len(self._all):
                        yield ahead.popleft().result()
                while ahead:
                    yield ahead.popleft().result()
            finally:
                for future in ahead:
                    future.cancel()

    def warm_up(self, batch_sizes: Iterable[int]) -> None:
        """Do on every GPU what the first call of a batch size does; see `ResidentLocalizer.warm_up`.

        Raises:
            InputError: a size does not fit, or the pool is closed.
            BackendError: as a call.
        """
        sizes = counts(batch_sizes)
        for localizer in self._all:
            localizer.warm_up(sizes)

    def close(self) -> None:
        """Free all GPUs, after the calls in progress."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for localizer in self._all:
            localizer.close()

    def __enter__(self) -> ResidentPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _find(self, device: str | None) -> ResidentLocalizer | None:
        return next((entry for entry in self._idle if device in (None, entry.device)), None)

    def _place(self, pictures: Sequence[Any]) -> str | None:
        """The GPU that pictures are on; None: they are in host memory, or it is unknown."""
        places = {place for picture in pictures if (place := _device_of(picture)) is not None}
        if len(places) > 1:
            listed = ", ".join(f"cuda:{place}" for place in sorted(places))
            raise InputError(f"pictures of one batch must be on one GPU, got {listed}: make a batch of each")
        for place in places:
            if f"cuda:{place}" not in self.devices:
                raise InputError(f"a picture is on cuda:{place}, but this pool has {', '.join(self.devices)}")
            return f"cuda:{place}"
        return None


def _device_of(picture: Any) -> int | None:
    if isinstance(picture, np.ndarray):
        return None
    if hasattr(picture, "__dlpack_device__"):
        return int(picture.__dlpack_device__()[1])
    from lidcam_rt._kernels import cuda

    view = getattr(picture, "__cuda_array_interface__", None)
    with GPU_TURNS.shared():
        place = cuda.device_of(int(view["data"][0])) if view else -1
    return place if place >= 0 else None
