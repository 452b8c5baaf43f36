"""Turns on the GPUs of this process: many calls at once, or one that captures a CUDA graph.

ONNX Runtime captures in CUDA's global mode: while one thread captures, a call of any other thread that allocates,
frees or synchronizes, on whatever GPU, ends the capture with an error.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

__all__ = ["GPU_TURNS", "Turns"]


class _Shared(contextlib.ContextDecorator):
    """Written out: with contextlib.contextmanager it cost several microseconds, a good part of a launch."""

    __slots__ = ("_held", "_turns")

    def __init__(self, turns: Turns) -> None:
        self._turns = turns

    def __enter__(self) -> None:
        held = self._held = self._turns._held
        depth = getattr(held, "depth", 0)
        held.depth = depth + 1
        if not depth:
            try:
                self._turns._take()
            except BaseException:
                held.depth = depth
                raise

    def __exit__(self, *error: object) -> None:
        self._held.depth -= 1
        if not self._held.depth:
            self._turns._give()

    def _recreate_cm(self) -> _Shared:
        return _Shared(self._turns)


class Turns:
    """A lock that ordinary calls share and that a capture holds alone.

    A thread that waits to hold it alone goes before calls that arrive later. A thread that holds it may take it again
    at no cost, but a thread that shares it cannot take it alone.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all holders: after a fork there are none, as their threads are not in the child."""
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._sharing, self._alone, self._waiting = 0, False, 0
        self._held = threading.local()

    def shared(self) -> _Shared:
        """Hold it with others; waits while another thread holds it alone or is waiting to."""
        return _Shared(self)

    def _take(self) -> None:
        with self._lock:
            if self._alone or self._waiting:
                self._changed.wait_for(lambda: not self._alone and not self._waiting)
            self._sharing += 1

    def _give(self) -> None:
        with self._lock:
            self._sharing -= 1
            if self._waiting:
                self._changed.notify_all()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Hold it alone; waits for those that share it.

        Raises:
            RuntimeError: this thread shares it and would wait for itself.
        """
        with self.covered() as outermost:
            if not outermost:
                if not self._alone:
                    raise RuntimeError("a thread that shares the GPUs cannot have them alone")
                yield
                return
            taken = False
            try:
                with self._changed:
                    self._waiting += 1
                    try:
                        self._changed.wait_for(lambda: not self._alone and not self._sharing)
                        self._alone = taken = True
                    finally:
                        self._waiting -= 1
                        self._changed.notify_all()
                yield
            finally:
                if taken:
                    with self._changed:
                        self._alone = False
                        self._changed.notify_all()

    @contextlib.contextmanager
    def covered(self) -> Iterator[bool]:
        """For a thread that works for another, which holds it and waits: whatever it takes counts as held already.

        Yields:
            Whether nothing was held by this thread before.
        """
        held = self._held  # a finalizer that runs while this waits must not wait itself: it would wait for ever
        depth = getattr(held, "depth", 0)
        held.depth = depth + 1
        try:
            yield not depth
        finally:
            held.depth = depth


#: For all GPUs of this process: global mode does not distinguish devices.
GPU_TURNS = Turns()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=GPU_TURNS.reset)
