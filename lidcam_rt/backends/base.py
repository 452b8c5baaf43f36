"""What the rest of the runtime requires of an engine."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from lidcam_rt.artifact import Manifest
from lidcam_rt.errors import InputError

__all__ = ["MAX_THREADS", "Backend", "Opener", "StageHook", "Stop", "check_threads", "engine_text", "parse_device",
           "unobserved", "usable_cores"]  # fmt: skip

MAX_THREADS = 1024  # more is a mistake, and may bring a machine down

_NOTHING = nullcontext()


class StageHook(Protocol):
    """Entered around each step of a localization, for those who time them (`lidcam_bench.latency`)."""

    def __call__(self, name: str, stream: int | None = None) -> AbstractContextManager[object]:
        """A context manager for one step.

        Args:
            name: the step's.
            stream: the device stream on which its work is queued, if there is one.
        """
        ...


def unobserved(name: str, stream: int | None = None) -> AbstractContextManager[object]:
    """A hook that does nothing."""
    return _NOTHING


class Stop:
    """A request to end runs early. Whoever starts a run may pass one, and `set` it from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._actions: list[Callable[[], object]] = []
        self.is_set = False

    def set(self) -> None:
        """End the runs that were given this request, and those that are given it later."""
        with self._lock:
            self.is_set = True
            actions = list(self._actions)
        for action in actions:
            action()

    @contextlib.contextmanager
    def calling(self, action: Callable[[], object]) -> Iterator[None]:
        """For engines: call `action` if this is set while the block runs, or was set before."""
        with self._lock:
            self._actions.append(action)
            now = self.is_set
        try:
            if now:
                action()
            yield
        finally:
            with self._lock:
                self._actions.remove(action)


class Backend(Protocol):
    """An artifact that is ready to run. `run` may be called from several threads at once.

    A backend that can tell its own steps apart also has a method `observe(stage: StageHook)`, and then enters the hook
    around `upload`, `graph` and `download`, or around `graph` and `PaS`.

    Attributes:
        name: name and version of the engine.
        device: where it runs: `cpu`, or `cuda:INDEX`.
        precision: arithmetic of the network: `fp32`, `fp16`, `bf16`.
        inputs: name, dtype and shape of each input; a free side has a name or is -1.
        outputs: the same for each output.
    """

    name: str
    device: str
    precision: str
    inputs: Sequence[Mapping[str, Any]]
    outputs: Sequence[Mapping[str, Any]]

    def run(
        self,
        image: npt.NDArray[np.uint8] | npt.NDArray[np.float32],
        labels: npt.NDArray[np.int64] | None,
        outputs: Sequence[str],
        stop: Stop | None = None,
    ) -> dict[str, npt.NDArray[Any]]:
        """Run a batch.

        Args:
            image: input `image` of the artifact, with its batch dimension.
            labels: input `labels`, int64 [N, K], or None where the artifact has none.
            outputs: names of the outputs that are wanted.
            stop: ends the run early, where the engine can do that.

        Raises:
            BackendError: the engine failed, or was stopped.
        """
        ...

    def for_streams(self) -> tuple[Backend, int]:
        """This engine set up for many pictures, and how many threads should call its `run` at once."""
        ...

    def close(self) -> None:
        """Free the engine. Runs in progress end first."""
        ...


class Opener(Protocol):
    """Starts an engine."""

    def __call__(
        self, path: str | os.PathLike[str], manifest: Manifest, *, device: str, threads: int, precision: str
    ) -> Backend:
        """See `lidcam_rt.backends.open_backend`."""
        ...


def parse_device(device: str) -> tuple[str, int]:
    """Split a device name into kind (`auto`, `cpu`, `cuda`) and index.

    Raises:
        InputError: it is none of these.
    """
    match = re.fullmatch(r"(auto|cpu|cuda)(?::(\d{1,3}))?", device) if isinstance(device, str) else None
    if match is None or (match[2] is not None and match[1] != "cuda"):
        raise InputError(f"device must be auto, cpu, cuda or cuda:INDEX, got {device!r}")
    return match[1], int(match[2] or 0)


def engine_text(backend: Backend) -> str:
    """What results and reports call an engine, such as `onnxruntime 1.24.1 on cpu, fp32`."""
    return f"{backend.name} on {backend.device}, {backend.precision}"


def check_threads(threads: int) -> None:
    """Raise InputError unless it is a number of threads; 0 leaves it to the engine."""
    if isinstance(threads, bool) or not isinstance(threads, int) or not 0 <= threads <= MAX_THREADS:
        raise InputError(f"threads must be 0 (automatic) to {MAX_THREADS}, got {threads!r}")


def usable_cores() -> int:
    """Cores this process may use: its affinity, limited by the control group's quota (containers)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        with open("/sys/fs/cgroup/cpu.max", encoding="ascii") as file:  # noqa: PTH123
            quota, period = file.read().split()
        if quota != "max":
            cores = min(cores, max(1, -(-int(quota) // int(period))))
    except (OSError, ValueError):
        pass
    return max(1, cores)
