"""Stopping dense CRFs that run on other threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from lidcam_rt._kernels import crf as _kernels
from lidcam_rt.backends.base import Stop

__all__ = ["Stop", "Stopped", "current_flag", "stoppable"]

#: What a stopped CRF raises, on its own thread.
Stopped: type[Exception] = _kernels.Stopped

_Result = TypeVar("_Result")
_here = threading.local()


def stoppable(stop: Stop, function: Callable[..., _Result], *arguments: Any) -> _Result:
    """`function(*arguments)`, whose CRFs end with `Stopped` within some 20 ms once `stop` is set.

    For tasks of a thread pool. On the main thread, Ctrl-C ends a CRF without it.
    """
    flag, before = _kernels.Stop(), current_flag()
    with stop.calling(flag.set):
        _here.flag = flag
        try:
            return function(*arguments)
        finally:
            _here.flag = before


def current_flag() -> Any:
    """The flag that kernels on this thread watch, or None."""
    return getattr(_here, "flag", None)
