"""Calls that Ctrl-C and a deadline can end.

Python handles Ctrl-C only between two steps of the main thread, and a call of an engine is one step. So the call is
made in another thread, while the caller waits in a way that can be interrupted; the engine is then told to stop.
"""

from __future__ import annotations

import contextvars
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from lidcam_rt.backends.base import Stop

__all__ = ["Watch", "left_running"]

_T = TypeVar("_T")
_GRACE = 5.0  # seconds that an engine is given to stop
_left: list[Future[Any]] = []  # calls that did not stop in time


class Watch:
    """Makes calls in a thread of its own, which the first call starts and which then waits for the next call."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] | None = None
        self._lock = threading.Lock()

    def call(self, function: Callable[[], _T], stop: Stop, deadline: float | None = None) -> _T:
        """The result of `function`, or its error. It sees the caller's context variables.

        Args:
            function: what to call.
            stop: is set when the deadline passes or the wait is interrupted, so that the call ends.
            deadline: seconds; None: no limit.

        Raises:
            TimeoutError: the deadline passed.
        """
        future: Future[_T] = Future()
        context = contextvars.copy_context()

        def job() -> None:
            try:
                result = context.run(function)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)

        with self._lock:  # a thread that is still busy is not used again
            jobs, self._jobs = self._jobs or _start(), None
        jobs.put(job)
        ended = False
        try:
            result = future.result(deadline)
            ended = True
            return result
        except BaseException:
            ended = future.done()
            if not ended:
                stop.set()
                ended = _ends(future)
            raise
        finally:
            with self._lock:
                if ended and self._jobs is None:
                    self._jobs = jobs
                else:
                    jobs.put(None)
            if not ended:
                _left.append(future)

    def __del__(self) -> None:
        if self._jobs is not None:
            self._jobs.put(None)


def left_running() -> bool:
    """Whether an abandoned call is still running: then only `os._exit` ends the process without a crash."""
    _left[:] = [future for future in _left if not future.done()]
    return bool(_left)


def _start() -> queue.SimpleQueue[Callable[[], None] | None]:
    jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()

    def work() -> None:
        while (job := jobs.get()) is not None:
            job()
            del job

    # A daemon: a call that never ends must not keep the process alive.
    threading.Thread(target=work, name="lidcam_call", daemon=True).start()
    return jobs


def _ends(future: Future[_T]) -> bool:
    try:
        future.exception(_GRACE)
    except TimeoutError:
        return False
    return True
