"""The systems under test: how queries become calls of the pipeline, per scenario."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from lidcam_bench.latency.loadgen import Complete, Query
from lidcam_bench.latency.timer import StageTimer, Timing

__all__ = ["Direct", "Record", "Streamed", "Task", "Workers", "stage_arrays"]

#: Localizes the pictures of these indices, in one call of the network.
Task = Callable[[Sequence[int]], object]


@dataclass(slots=True)
class Record:
    """What is known of a query.

    Attributes:
        number: of the query.
        timing: of the call that it was part of; queries of one batch share it.
        waited_ns: from its arrival to the beginning of that call.
    """

    number: int
    timing: Timing
    waited_ns: int


class Direct:
    """Works on a query while LoadGen waits: single stream and multi stream.

    Args:
        task: what is done.
        timer: of its steps.

    Attributes:
        records: of the queries.
    """

    def __init__(self, task: Task, timer: StageTimer) -> None:
        self._task = task
        self._timer = timer
        self.records: list[Record] = []

    def issue(self, query: Query, complete: Complete) -> None:
        """See `System.issue`."""
        with self._timer.query() as timing:
            self._task(query.pictures)
        complete(query.ids)
        self.records.append(Record(query.number, timing, 0))

    def flush(self) -> None:
        """Nothing is left to do."""


@dataclass(slots=True)
class _Waiting:
    number: int
    id: int
    picture: int
    arrived_ns: int
    complete: Complete = field(repr=False)


class Workers:
    """Queries wait in a queue for several threads: server, and offline where nothing can be streamed.

    A thread takes what waits, up to the batch, and works on it in one call; it never waits for a batch to fill.

    Args:
        task: what is done; called from all threads.
        timer: of its steps.
        threads: how many.
        batch: maximum number of pictures per call.
        clock: nanoseconds, the timer's.

    Attributes:
        records: of the queries, in no order.
    """

    def __init__(
        self,
        task: Task,
        timer: StageTimer,
        *,
        threads: int,
        batch: int = 1,
        clock: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self._task = task
        self._timer = timer
        self._batch = batch
        self._clock = clock
        self._line: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._error: BaseException | None = None
        self.records: list[Record] = []
        self._threads = [
            threading.Thread(target=self._work, name=f"lidcam-bench-{i}", daemon=True) for i in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def issue(self, query: Query, complete: Complete) -> None:
        """See `System.issue`."""
        if self._error is not None:
            raise self._error
        now = self._clock()
        # Offline has one query of all pictures: its pictures are numbered instead.
        for place, (i, picture) in enumerate(zip(query.ids, query.pictures, strict=True)):
            self._line.put(_Waiting(query.number + place, i, picture, now, complete))

    def flush(self) -> None:
        """Work continues until the queue is empty."""

    def close(self) -> None:
        """End the threads.

        Raises:
            BaseException: what a thread failed with.
        """
        for _ in self._threads:
            self._line.put(None)
        for thread in self._threads:
            thread.join()
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        while (first := self._line.get()) is not None:
            batch, last = [first], False
            while len(batch) < self._batch:
                try:
                    entry = self._line.get_nowait()
                except queue.Empty:
                    break
                if entry is None:
                    last = True
                    break
                batch.append(entry)
            self._run(batch)
            if last:
                return

    def _run(self, batch: list[_Waiting]) -> None:
        try:
            if self._error is None:
                begin = self._clock()
                with self._timer.query() as timing:
                    self._task([entry.picture for entry in batch])
                self.records += [Record(e.number, timing, begin - e.arrived_ns) for e in batch]
        except BaseException as error:  # reported to the caller of `issue` or `close`
            self._error = error
        finally:
            for entry in batch:
                entry.complete([entry.id])


class Streamed:
    """All pictures of a query go through a stream that gives results in order: offline.

    Args:
        stream: takes the indices of pictures and yields one result each.

    Attributes:
        records: none: steps of a stream belong to no query.
    """

    def __init__(self, stream: Callable[[Sequence[int]], Iterable[object]]) -> None:
        self._stream = stream
        self.records: list[Record] = []

    def issue(self, query: Query, complete: Complete) -> None:
        """See `System.issue`."""
        for i, result in zip(query.ids, self._stream(query.pictures), strict=True):
            error = getattr(result, "error", None)
            if error is not None:
                raise error
            complete([i])

    def flush(self) -> None:
        """Nothing is left to do."""


def stage_arrays(records: Sequence[Record], queries: int) -> dict[str, npt.NDArray[np.int64]]:
    """The records as arrays, a row per query.

    Args:
        records: of one test.
        queries: how many queries there were.

    Returns:
        int64 [queries] each, nanoseconds, -1 where a query has no such step: `stage:NAME`, `whole` and `waited`.
    """
    names = list(dict.fromkeys(name for record in records for name in record.timing.stages_ns))
    out = {name: np.full(queries, -1, np.int64) for name in ("whole", "waited", *(f"stage:{n}" for n in names))}
    for record in records:
        if record.number < queries:
            out["whole"][record.number] = record.timing.whole_ns
            out["waited"][record.number] = record.waited_ns
            for name, value in record.timing.stages_ns.items():
                out[f"stage:{name}"][record.number] = value
    return out
