"""The CUDA graphs of one ONNX Runtime session, and what its errors mean."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait

from lidcam_rt.backends.gpu_turns import GPU_TURNS
from lidcam_rt.backends.onnxruntime import reason_of
from lidcam_rt.errors import BackendError

__all__ = ["Graphs"]

#: cudaErrorStreamCaptureUnsupported (900) to cudaErrorStreamCaptureWrongThread (908), by number, name or text.
_CAPTURE = re.compile(
    r"failure 90[0-8]\b|cudaErrorStreamCapture|cudaErrorCapturedEvent|stream is capturing|during capture"
    r"|captur(?:e|ing) (?:sequence|stream|blocking|was)|uncaptured work",
    re.I,
)


class Graphs:
    """Runs a session's batches, one at a time, and knows which batch sizes it has captured.

    ONNX Runtime captures during the first run of a graph's id, and keeps graphs per thread: another thread would
    capture its own, with its own handles and workspaces of cuDNN and cuBLAS. So all runs happen on one thread.

    Args:
        used: whether the session captures graphs at all; else runs stay on the caller's thread.
    """

    def __init__(self, used: bool) -> None:
        self.used = used
        self._captured: set[int] = set()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="lidcam-graph") if used else None

    def captures(self, count: int) -> bool:
        """Whether the next run of `count` pictures captures; the caller must then hold the GPUs alone."""
        return self._thread is not None and count not in self._captured

    def run(self, count: int, run: Callable[[], object]) -> None:
        """Run a batch of `count` pictures; returns when it is enqueued.

        Raises:
            BackendError: ONNX Runtime failed.
        """
        try:
            if self._thread is None:
                run()
            else:
                self._run_there(run)
        except Exception as error:
            raise self._failed(count, error) from error
        self._captured.add(count)

    def _run_there(self, run: Callable[[], object]) -> None:
        assert self._thread is not None
        future = self._thread.submit(_covered, run)
        try:
            future.result()
        except BaseException:
            wait([future])  # after Ctrl-C: nobody may touch the GPU before the run has ended
            raise

    def _failed(self, count: int, error: Exception) -> BackendError:
        reason = reason_of(error)
        meanwhile = "another thread of this process used a GPU meanwhile (PyTorch, say)"
        way_out = f"call warm_up([{count}]) before other threads use a GPU, or open the artifact with graph=False"
        if _CAPTURE.search(str(error)):
            return BackendError(
                f"the CUDA graph of a batch of {count} could not be captured ({reason}): {meanwhile}, or the network "
                f"has an operation that cannot be captured. Open the artifact again and {way_out}"
            )
        also = f"; or, if {meanwhile}, {way_out}" if self.captures(count) else ""
        return BackendError(f"onnxruntime failed on a batch of {count} ({reason}). Try a smaller batch{also}")

    def close(self) -> None:
        """End the thread, after its run."""
        if self._thread is not None:
            self._thread.shutdown()


def _covered(run: Callable[[], object]) -> None:
    with GPU_TURNS.covered():
        run()
