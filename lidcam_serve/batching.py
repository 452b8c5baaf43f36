"""Dynamic batching: requests are decoded in a pool, run together by the network, and finished in the pool.

A request that nobody waits for any more (its client has gone, or its deadline has passed) is dropped before decoding,
or else before the network runs.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

from lidcam_rt.backends.base import Stop
from lidcam_rt.pipeline import Pipeline
from lidcam_rt.prepared import Outputs, Prepared
from lidcam_serve.errors import Busy, DeadlinePassed

__all__ = ["Batcher", "Job", "Observer"]

_SMOOTHING = 0.1  # weight of the newest batch in the mean time of a row


@dataclass(eq=False, slots=True)
class Job:
    """The work of one request.

    Attributes:
        prepare: makes its network inputs; called in the pool.
        wanted: per row, as `Pipeline.wanted` returns them.
        outputs: names of the outputs of the graph that `finish` needs.
        finish: makes the answer from the inputs, the outputs of the batch and the first row of this job; called in the
            pool.
        deadline: `time.monotonic()` after which nobody waits for it.
        result: what `finish` returned, or the error.
        stop: ends its CRF, and its network if that runs for it alone.
        prepared: what `prepare` returned.
        ready: when `prepare` returned.
        traced: batch size and seconds of waiting, for the log.
    """

    prepare: Callable[[], Sequence[Prepared]]
    wanted: Sequence[tuple[int, ...]]
    outputs: Sequence[str]
    finish: Callable[[Sequence[Prepared], Outputs, int], Any]
    deadline: float
    result: Future[Any] = field(default_factory=Future)
    stop: Stop = field(default_factory=Stop)
    prepared: Sequence[Prepared] = ()
    ready: float = 0.0
    traced: dict[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Rows of the network's batch that it takes."""
        return len(self.wanted)

    def abandon(self) -> None:
        """Nobody waits for it any more: steps that have not begun are skipped, and a running CRF ends."""
        self.result.cancel()
        self.stop.set()

    def dropped(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.result.cancelled() or time.monotonic() >= self.deadline

    def fail(self, error: BaseException) -> None:
        """End it with an error."""
        if not self.result.done():
            try:
                self.result.set_exception(error)
            except Exception:  # cancelled in between
                return


class Observer(Protocol):
    """Told what a batcher does, for metrics."""

    def queued(self, rows: int) -> None:
        """This many rows wait."""

    def batch(self, rows: int) -> None:
        """The network runs on this many rows."""

    def dropped(self, stage: str) -> None:
        """A job was dropped before `decode` or `network`."""


class Batcher:
    """Runs jobs on a pipeline, several in one call of the network.

    Args:
        pipeline: what runs.
        parallel: threads that call the network.
        pool: decodes and finishes; shared by the models of a process.
        max_batch: rows of a call; a job of more rows runs alone.
        max_delay: seconds that a prepared job may wait for others.
        queue: rows that may wait for the network, in all.
        observer: see `Observer`.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        parallel: int,
        pool: ThreadPoolExecutor,
        *,
        max_batch: int,
        max_delay: float,
        queue: int,
        observer: Observer,
    ) -> None:
        self.pipeline = pipeline
        self.parallel = parallel
        self.max_batch, self.max_delay, self.queue = max_batch, max_delay, queue
        self._pool, self._observer = pool, observer
        #: Rows that are decoded ahead of the network, so that memory is bounded and late requests are never decoded.
        self._ahead = max_batch * (parallel + 1) + parallel
        self._changed = threading.Condition()
        self._accepted: deque[Job] = deque()
        self._ready: deque[Job] = deque()
        self._preparing = 0
        self._waiting = 0  # rows accepted whose network has not begun
        self._under_way = 0  # jobs without a result
        self._row_seconds = 0.0
        self._closed = False
        self._threads = [threading.Thread(target=self._work, name=f"lidcam-network-{i}") for i in range(parallel)]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Rows that wait for the network."""
        return self._waiting

    def check_room(self, rows: int = 1) -> None:
        """Raise Busy unless this many rows may be submitted now."""
        if self._waiting and self._waiting + rows > self.queue:
            seconds = self._waiting * self._row_seconds / self.parallel
            raise Busy(max(1, math.ceil(seconds)))

    def submit(self, job: Job) -> Future[Any]:
        """Accept a job.

        Raises:
            Busy: the queue is full.
        """
        with self._changed:
            assert not self._closed, "a model is closed only when nobody holds it"
            self.check_room(job.rows)
            self._waiting += job.rows
            self._under_way += 1
            self._accepted.append(job)
            self._observer.queued(self._waiting)
        self._feed()
        return job.result

    def close(self) -> None:
        """End the threads; jobs in progress are finished first."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _feed(self) -> None:
        """Give accepted jobs to the pool while the network is not far behind."""
        with self._changed:
            while self._accepted and self._preparing + sum(job.rows for job in self._ready) < self._ahead:
                job = self._accepted.popleft()
                self._preparing += job.rows
                self._pool.submit(self._prepare, job)

    def _prepare(self, job: Job) -> None:
        prepared: Sequence[Prepared] = ()
        fault: BaseException = DeadlinePassed()
        if job.dropped():
            self._observer.dropped("decode")
        else:
            try:
                prepared = job.prepare()
            except BaseException as error:
                fault = error
        with self._changed:
            self._preparing -= job.rows
            if prepared:
                job.prepared, job.ready = prepared, time.monotonic()
                self._ready.append(job)
            else:
                self._leave_queue(job)
                self._under_way -= 1
            self._changed.notify_all()
        if not prepared:
            job.fail(fault)
            self._feed()

    def _leave_queue(self, job: Job) -> None:
        self._waiting -= job.rows
        self._observer.queued(self._waiting)

    def _work(self) -> None:
        while (jobs := self._next()) is not None:
            self._feed()
            if jobs:
                self._run(jobs)

    def _next(self) -> list[Job] | None:
        """Jobs for one call of the network, once they fill it or have waited long enough; None: no more will come."""
        with self._changed:
            while True:
                for job in [job for job in self._ready if job.dropped()]:
                    self._ready.remove(job)
                    self._leave_queue(job)
                    self._under_way -= 1
                    self._observer.dropped("network")
                    job.fail(DeadlinePassed())
                if self._ready:
                    jobs = self._fitting()
                    left = self._ready[0].ready + self.max_delay - time.monotonic()
                    full = sum(job.rows for job in jobs) >= self.max_batch or len(jobs) < len(self._ready)
                    if full or left <= 0 or self._closed:
                        for job in jobs:
                            self._ready.remove(job)
                            self._leave_queue(job)
                        return jobs
                    self._changed.wait(left)
                elif self._closed and not self._under_way:
                    return None
                else:
                    self._changed.wait()

    def _fitting(self) -> list[Job]:
        """The oldest prepared job, and those after it that fit into one batch with it."""
        first = self._ready[0]
        form = (first.prepared[0].array.shape, first.prepared[0].array.dtype)
        jobs, rows = [first], first.rows
        for job in list(self._ready)[1:]:
            array = job.prepared[0].array
            if rows + job.rows <= self.max_batch and (array.shape, array.dtype) == form:
                jobs.append(job)
                rows += job.rows
        return jobs

    def _run(self, jobs: list[Job]) -> None:
        live = [job for job in jobs if job.result.set_running_or_notify_cancel()]
        self._end(len(jobs) - len(live))
        if not live:
            return
        rows, start = sum(job.rows for job in live), time.monotonic()
        self._observer.batch(rows)
        try:
            outputs = self.pipeline.run(
                [entry for job in live for entry in job.prepared],
                [ids for job in live for ids in job.wanted],
                tuple(dict.fromkeys(name for job in live for name in job.outputs)),
                live[0].stop if len(live) == 1 else Stop(),
            )
        except BaseException as error:
            if len(live) == 1:
                live[0].fail(error)
                self._end(1)
            else:  # one job's fault must not fail the others
                for job in live:
                    self._run_again(job)
            return
        seconds = (time.monotonic() - start) / rows
        self._row_seconds += (seconds - self._row_seconds) * (_SMOOTHING if self._row_seconds else 1)
        row = 0
        for job in live:
            job.traced = {"batch": rows, "waited": round(start - job.ready, 6)}
            self._pool.submit(self._finish, job, outputs, row)
            row += job.rows

    def _run_again(self, job: Job) -> None:
        try:
            outputs = self.pipeline.run(job.prepared, job.wanted, tuple(job.outputs), job.stop)
        except BaseException as error:
            job.fail(error)
            self._end(1)
        else:
            self._pool.submit(self._finish, job, outputs, 0)

    def _finish(self, job: Job, outputs: Outputs, row: int) -> None:
        try:
            if job.stop.is_set:
                raise DeadlinePassed
            job.result.set_result(job.finish(job.prepared, outputs, row))
        except BaseException as error:
            job.fail(error)
        finally:
            job.prepared = ()
            self._end(1)

    def _end(self, jobs: int) -> None:
        with self._changed:
            self._under_way -= jobs
            self._changed.notify_all()
