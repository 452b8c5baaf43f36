"""The stack on which a thread handles signals."""

from __future__ import annotations

import contextlib
import ctypes
import functools
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["keep_signal_stack"]


class _Stack(ctypes.Structure):  # stack_t, sigaltstack(2)
    _fields_ = (("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@functools.cache
def _sigaltstack() -> Callable[..., int] | None:
    try:
        found: Any = ctypes.CDLL(None).sigaltstack
    except (AttributeError, OSError, TypeError):  # this system has none
        return None
    return found  # type: ignore[no-any-return]


@contextlib.contextmanager
def keep_signal_stack() -> Iterator[None]:
    """Restore afterwards the signal stack that this thread has now.

    OpenVINO 2026.4 leaves one of its own on the thread that compiles. After a stream the system could not put the next
    signal on it, and Ctrl-C ended in a segmentation fault (on a Xeon with AMX).
    """
    call, before = _sigaltstack(), _Stack()
    known = call is not None and call(None, ctypes.byref(before)) == 0
    try:
        yield
    finally:
        if known and call is not None:
            call(ctypes.byref(before), None)
