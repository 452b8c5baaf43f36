"""The stage timer: how long each step of a localization takes.

A device works behind the host's back. So before each reading of the host's clock the device is synchronised: what an
earlier step left running is not counted in this one, and what this step started is. Work that a backend puts on a
stream is timed by two events on that stream instead, which disturbs nothing; events are read when the query is over.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Protocol

__all__ = ["Device", "StageTimer", "Timing"]


class Device(Protocol):
    """What the timer needs from an accelerator."""

    def synchronize(self) -> None:
        """Wait until the device has finished all its work."""
        ...

    def record(self, stream: int) -> object:
        """A new event on a stream."""
        ...

    def elapsed_ns(self, start: object, end: object) -> int:
        """Nanoseconds between two events, both reached."""
        ...


class Timing:
    """The times of one query.

    Attributes:
        whole_ns: from its begin to its end, in nanoseconds; 0 before the end.
        stages_ns: per step, in nanoseconds; a step that ran several times is summed. A step inside a step has both
            names, as `network/upload`, and is counted in both.
    """

    __slots__ = ("_events", "stages_ns", "whole_ns")

    def __init__(self) -> None:
        self.whole_ns = 0
        self.stages_ns: dict[str, int] = {}
        self._events: list[tuple[str, object, object]] = []

    def _add(self, name: str, duration: int) -> None:
        self.stages_ns[name] = self.stages_ns.get(name, 0) + duration


class _State:
    """Where a thread, and those that it has work done by with its context, is at the moment."""

    __slots__ = ("path", "timer", "timing")

    def __init__(self, timer: StageTimer, timing: Timing | None) -> None:
        self.timer = timer
        self.timing = timing
        self.path = ""


#: The runtime may make an engine's call in another thread; its context variables go along.
_current: ContextVar[_State | None] = ContextVar("lidcam_bench_stage", default=None)


class StageTimer:
    """Times queries and their steps. May be used from several threads at once, a query per thread.

    Args:
        clock: nanoseconds of a clock that never goes back.
        device: the accelerator, or None where all work is the host's.
        exclusive: whether nothing else uses the device meanwhile. If something does (several queries at once), waiting
            for the device would wait for the others' work too, and slow it down: the host's clock is then read
            without it.

    Attributes:
        loose_ns: times of steps that ran outside any query, on a helper thread for instance, by name.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], int] = time.perf_counter_ns,
        device: Device | None = None,
        exclusive: bool = True,
    ) -> None:
        self._clock = clock
        self._device = device
        self._exclusive = exclusive
        self.loose_ns: dict[str, list[int]] = defaultdict(list)

    @contextmanager
    def query(self) -> Iterator[Timing]:
        """Time one query of this thread; its steps are those that run inside the block.

        Yields:
            Its times, complete when the block has ended. A block that raises leaves them incomplete.

        Raises:
            RuntimeError: this thread is in a query already.
        """
        if self._state().timing is not None:
            raise RuntimeError("a query inside a query cannot be timed")
        timing = Timing()
        token = _current.set(_State(self, timing))
        try:
            start = self._now()
            yield timing
            end = self._now()
        finally:
            _current.reset(token)
        timing.whole_ns = end - start
        if self._device is not None and timing._events:
            if not self._exclusive:  # not synchronised above
                self._device.synchronize()
            for name, first, last in timing._events:
                timing._add(name, self._device.elapsed_ns(first, last))
            timing._events.clear()

    def stage(self, name: str, stream: int | None = None) -> _Stage:
        """A context manager that times one step.

        Args:
            name: the step's.
            stream: the device stream that its work goes to: it is then timed on the device. Without a device, or
                outside a query, it is timed by the host's clock.
        """
        return _Stage(self, name, stream)

    def _state(self) -> _State:
        state = _current.get()
        if state is None or state.timer is not self:
            state = _State(self, None)
            _current.set(state)
        return state

    def _now(self) -> int:
        if self._exclusive and self._device is not None:
            self._device.synchronize()
        return self._clock()


class _Stage:
    """One step under way."""

    __slots__ = ("_first", "_name", "_outer", "_start", "_state", "_stream", "_timer")

    def __init__(self, timer: StageTimer, name: str, stream: int | None) -> None:
        self._timer = timer
        self._name = name
        self._stream = stream

    def __enter__(self) -> None:
        timer = self._timer
        state = self._state = timer._state()
        self._outer = state.path
        state.path = f"{self._outer}/{self._name}" if self._outer else self._name
        device = timer._device
        if self._stream is not None and device is not None and state.timing is not None:
            self._first: object = device.record(self._stream)
        else:
            self._stream = None
            self._start = timer._now()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        timer, state = self._timer, self._state
        name, timing = state.path, state.timing
        state.path = self._outer
        if kind is not None:
            return
        if self._stream is not None and timing is not None and timer._device is not None:
            timing._events.append((name, self._first, timer._device.record(self._stream)))
        elif timing is not None:
            timing._add(name, timer._now() - self._start)
        else:
            timer.loose_ns[name].append(timer._now() - self._start)
